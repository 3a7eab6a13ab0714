"""Astigmatism, phase shift and B-factor of micrographs: planted ones come back, and noise changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.errors import InputError
from verglas.optics.refine import Pixels, Setting, calibrate
from verglas.optics.refine.micrographs import _add, _Likelihood, _relative
from verglas.run.ctf_refine import CtfRefineSettings
from verglas.run.ctf_refine_terms import settings_of_words

BOX, PIXEL_A, MICROGRAPHS, EACH = 32, 2.5, 6, 40


def planted(term: str, seed: int, noise: float = 1.0):
    """Map, particles whose table knows nothing of the term, and what was planted, a row per micrograph."""
    rng = np.random.default_rng(seed)
    n = MICROGRAPHS * EACH
    model = vg.simulate.phantom(BOX, PIXEL_A, 50.0, seed=seed)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    clean = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=1e6, seed=seed, listener=None)
    of = np.arange(n) // EACH
    defocus = rng.uniform(8000, 20000, MICROGRAPHS)[of]
    known = dict(rlnDefocusU=defocus, rlnDefocusV=defocus, rlnDefocusAngle=0.0, rlnPhaseShift=0.0)
    known |= dict(rlnCtfBfactor=0.0, rlnCtfScalefactor=1.0, rlnRandomSubset=1 + np.arange(n) % 2)
    known |= dict(rlnMicrographName=[f"m{m}.mrc" for m in of])
    if term == "astigmatism":
        half, angle = rng.uniform(80, 250, MICROGRAPHS), rng.uniform(0, 180, MICROGRAPHS)
        true = np.column_stack([half * np.cos(np.deg2rad(2 * angle)), half * np.sin(np.deg2rad(2 * angle))])
        changed = dict(rlnDefocusU=defocus + half[of], rlnDefocusV=defocus - half[of], rlnDefocusAngle=angle[of])
    elif term == "phase_shift":
        true = rng.normal(0, 0.25, (MICROGRAPHS, 1))
        changed = dict(rlnPhaseShift=np.rad2deg(true[of, 0]))
    else:
        true = np.column_stack([rng.normal(0, 0.15, MICROGRAPHS), rng.normal(0, 40, MICROGRAPHS)])
        true -= true.mean(axis=0)  # the mean of all is the reference's
        changed = dict(rlnCtfScalefactor=np.exp(true[of, 0]), rlnCtfBfactor=true[of, 1])
    images = vg.project(truth, clean.poses, clean.with_columns(**known | changed).optics)
    images += noise * images.std() * rng.normal(size=images.shape).astype(np.float32)
    particles = clean.with_source(vg.types.ArraySource(images, PIXEL_A)).with_columns(**known)
    return truth, particles, true


@pytest.mark.parametrize("term", ["astigmatism", "phase_shift", "b_factor"])
def test_a_planted_term_comes_back_within_its_error(term):
    truth, particles, true = planted(term, 3)
    found = vg.refine_ctf(particles, half_maps=(truth, truth), fit=(term,), rounds=1, listener=None)
    fit = found.rounds[0].micrographs[term]
    assert fit.kept
    pulls = (fit.change - true) / fit.standard_error
    # 6 to 12 numbers: their mean square is below 2.5 in more than 99 % of draws
    assert np.mean(pulls[:, -1] ** 2) < 2.5
    assert np.sqrt(np.mean((fit.change - true)[:, -1] ** 2)) < 0.5 * np.sqrt(np.mean(true[:, -1] ** 2))
    assert found.gains.term.tolist() == [f"{term} of micrographs"]
    assert bool(found.gains.kept[0])
    old, new = particles.optics, found.particles.optics
    of = np.arange(len(particles)) // EACH
    if term == "astigmatism":
        assert np.allclose(new.defocus_u_A + new.defocus_v_A, old.defocus_u_A + old.defocus_v_A)
        assert np.allclose((new.defocus_u_A - new.defocus_v_A) / 2, np.hypot(*fit.change.T)[of])
    elif term == "phase_shift":
        assert np.allclose(new.phase_shift_deg, np.rad2deg(fit.change[of, 0]))
    else:
        assert np.allclose(new.b_factor_A2, fit.change[of, 1])
        assert np.allclose(new.scale, np.exp(fit.change[of, 0]))


def test_what_micrographs_have_in_common_is_left_to_the_reference():
    """Mixtures of Gaussians curve the reference's amplitude: their mean would drift from round to round."""
    truth, particles, true = planted("b_factor", 6)
    found = vg.refine_ctf(particles, half_maps=(truth, truth), fit=("b_factor",), rounds=1, listener=None)
    fit = found.rounds[0].micrographs["b_factor"]
    assert (fit.change.min(axis=0) < 0).all()
    assert (fit.change.max(axis=0) > 0).all()
    apart = fit.change - fit.change.mean(axis=0) - true
    assert np.mean((apart / fit.standard_error) ** 2) < 2.0
    assert np.allclose(_relative(fit.change, np.ones_like(fit.change)).mean(axis=0), 0, atol=1e-9)
    known = np.array([[1.0], [3.0], [0.0]])
    assert np.allclose(_relative(np.array([[4.0], [0.0], [0.0]]), known), [[3.0], [-1.0], [0.0]])


def test_the_likelihood_is_that_of_the_images_with_the_new_ctf():
    """Sums over a micrograph hold it exactly: its slope is what a small change of the CTF does."""
    truth, particles, _ = planted("astigmatism", 5, noise=0.2)
    setting = Setting.of(particles, np.arange(len(particles)) % 2, (truth, truth), Pixels(BOX, PIXEL_A, 3, 14))
    calibration = calibrate(setting)
    rows = np.flatnonzero(setting.half == 0)[:8]
    z = np.array([60.0, -40.0])

    def total(some):
        likelihood = _Likelihood(setting.pixels, "astigmatism", float(vg.optics.wavelength_A(300)))
        same_fold = replace(setting, particles=some, fold=0 * setting.fold)
        _add([likelihood], same_fold, calibration, rows, some.optics.as_params())
        return likelihood

    half, angle = np.hypot(*z), np.rad2deg(np.arctan2(z[1], z[0])) / 2
    mean = particles.optics.defocus_u_A
    turned = particles.with_columns(rlnDefocusU=mean + half, rlnDefocusV=mean - half, rlnDefocusAngle=angle)
    before = total(setting.particles)
    assert before.value(z)[0] == pytest.approx(total(turned).value(np.zeros(2))[0], rel=1e-4)
    step = np.array([0.5, 0.0])
    slope = (before.value(z + step)[0] - before.value(z - step)[0]) / 1.0
    assert before.value(z)[1][0] == pytest.approx(slope, rel=1e-3)


def test_noise_changes_nothing():
    truth, particles, _ = planted("phase_shift", 7, noise=1.0)
    noise = np.random.default_rng(1).normal(size=(len(particles), BOX, BOX)).astype(np.float32)
    blank = particles.with_source(vg.types.ArraySource(noise, PIXEL_A))
    found = vg.refine_ctf(blank, half_maps=(truth, truth), fit="astigmatism, phase_shift, b_factor", listener=None)
    assert not found.gains.kept.any()
    assert found.particles.table.rlnPhaseShift.eq(0).all()


def test_a_micrograph_without_fault_gains_nothing_and_few_particles_are_left():
    truth, particles, _ = planted("phase_shift", 7)
    still = vg.project(truth, particles.poses, particles.optics)
    still += still.std() * np.random.default_rng(2).normal(size=still.shape).astype(np.float32)
    same = particles.with_source(vg.types.ArraySource(still, PIXEL_A))
    names = same.table.rlnMicrographName.to_numpy(str)
    names = np.where(np.arange(len(names)) < 3, "alone.mrc", names)
    found = vg.refine_ctf(
        same.with_columns(rlnMicrographName=names),
        half_maps=(truth, truth),
        fit=("phase_shift",),
        rounds=1,
        listener=None,
    )
    fit = found.rounds[0].micrographs["phase_shift"]
    assert not fit.kept
    assert fit.change[0, 0] == 0  # alone.mrc
    assert np.all(fit.change[1:] != 0)


def test_words_choose_what_is_fitted(tmp_path, capsys):
    chosen = CtfRefineSettings(**settings_of_words("cs,trefoil"))
    assert (chosen.defocus, chosen.odd, chosen.odd_terms, chosen.even, chosen.even_terms) == (
        False,
        True,
        "trefoil",
        True,
        "cs",
    )
    truth, particles, _ = planted("phase_shift", 3)
    found = vg.refine_ctf(particles, half_maps=(truth, truth), fit=("trefoil",), rounds=1, listener=None)
    change = found.rounds[0].odd[0].change
    assert np.all(change[[0, 1, 3, 4]] == pytest.approx(0, abs=1e-9))
    assert np.all(change[[2, 5]] != 0)
    assert "rlnOddZernike_error" in found.optics_groups
    with pytest.raises(InputError, match=r"fit: expected words of defocus, astigmatism, .*, got tilt"):
        vg.refine_ctf(particles, fit=("tilt",))
    with pytest.raises(InputError, match=r"expected terms of beam_tilt, .* got none"):
        CtfRefineSettings(odd_terms="")
    with pytest.raises(InputError, match=r"expected words of defocus, .*, got none"):
        settings_of_words("")
    with pytest.raises(InputError, match="phase_shift is fitted to every micrograph, and rlnMicrographName"):
        vg.refine_ctf(particles.with_columns(rlnMicrographName=None), fit=("phase_shift",), listener=None)
    star = str(tmp_path / "particles.star")
    vg.write_particles(star, particles, stack=tmp_path / "particles.mrcs")
    for half in (1, 2):
        vg.write_map(tmp_path / f"half{half}.mrc", truth)
    maps = [str(tmp_path / f"half{half}.mrc") for half in (1, 2)]
    call = ["ctf-refine", star, "--out", str(tmp_path / "ctf"), "--half-maps", *maps, "--rounds", "1", "--json"]
    status, out, _ = main([*call, "--fit", "phase_shift"], capsys)
    told = json.loads(out)["rounds"][0]["fits"]
    assert (status, [one["what"] for one in told], told[0]["kept"]) == (0, ["phase_shift of micrographs"], True)
    assert vg.read_particles(tmp_path / "ctf" / "particles.star").table.rlnPhaseShift.nunique() == MICROGRAPHS
    assert main([*call, "--fit", "tilt"], capsys)[0] != 0
