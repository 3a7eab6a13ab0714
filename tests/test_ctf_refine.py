"""CTF refinement: planted aberrations and defoci come back, and what says nothing changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from command_line import main

import verglas as vg
from verglas.errors import InputError
from verglas.optics import Aberrations, plain_images, with_aberrations
from verglas.optics.refine import (
    GroupFit,
    GroupSums,
    Pixels,
    Setting,
    calibrate,
    defocus_pass,
    fit_defocus,
    fit_magnification,
    fit_phase,
    group_pass,
)
from verglas.optics.refine.phases import _solve_scaled
from verglas.optics.refine.pixels import Reference, image_spectra, pixel_terms
from verglas.report.ctf_refine import DrawnMagnification, _phase_field, magnification_charts
from verglas.run import ctf_refine
from verglas.run.ctf_refine import CtfRefineJob, CtfRefineSettings, ctf_refine_files
from verglas.run.ctf_refine_inputs import places, prepare, with_group_fits
from verglas.run.ctf_refine_terms import indices_of
from verglas.types.even_aberrations import even_zernikes, write_coefficients

BOX, PIXEL_A, N = 48, 2.0, 400
COMA = 2.7e7 * 0.0196875**2


def planted(*, tilt=(0.0, 0.0), odd=(0.0,) * 6, matrix=None, defocus_sd_A=0.0, noise=1.5, seed=1, n=N):
    """Truth, particles as one has them, and as they are: with these aberrations, and wrong defoci."""
    rng = np.random.default_rng(seed)
    model = vg.simulate.phantom(BOX, PIXEL_A, 60.0, seed=seed)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    clean = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=1e6, seed=seed)
    aberrations = Aberrations(
        np.zeros(n, int),
        np.array([tilt]),
        np.array([odd]),
        np.eye(2)[None] if matrix is None else np.array([matrix]),
        np.array([COMA]),
    )
    images = vg.project(truth, clean.poses, clean.optics)
    sd = noise * images.std()
    images = aberrations.apply(images, np.arange(n), PIXEL_A)
    images += rng.normal(0, sd, images.shape).astype(np.float32)
    true = with_aberrations(clean.with_source(vg.types.ArraySource(images, PIXEL_A)), aberrations)
    error = rng.normal(0, defocus_sd_A, n) if defocus_sd_A else np.zeros(n)
    table = clean.table.assign(rlnDefocusU=clean.table.rlnDefocusU + error, rlnDefocusV=clean.table.rlnDefocusV + error)
    return truth, vg.Particles(table, true.source, optics_table=clean.optics_table), true


def setting_of(particles, truth, last=22):
    half = np.arange(len(particles)) % 2
    return Setting.of(particles, half, (truth, truth), Pixels(BOX, PIXEL_A, 3, last))


def test_sums_are_those_of_the_images_pixel_by_pixel():
    """The score of a change of defocus, from bins, is that of a new CTF."""
    truth, bad, _ = planted(n=8)
    setting = setting_of(bad, truth)
    calibration = calibrate(setting)
    scores = defocus_pass(setting, calibration, 600.0)
    rows = np.flatnonzero(setting.half == 0)
    pixels = setting.pixels
    amplitude = calibration.amplitude[0][pixels.shell]
    spectra, slices = image_spectra(bad[rows]), Reference(truth, pixels).slices(bad[rows])

    def score(change):
        params = bad[rows].optics.as_params()
        params[:, :2] += change
        batch = pixel_terms(spectra, slices, params, calibration.inverse_noise(0, pixels), pixels)
        model = amplitude * batch.sine
        return (2 * batch.cross.real * model - batch.power * model**2).sum(axis=1)

    exact = score(300.0) - score(0.0)
    at = [int(np.flatnonzero(scores.changes_A == c)[0]) for c in (0.0, 300.0)]
    whole = scores.values.sum(axis=0)[rows]
    assert np.allclose(whole[:, at[1]] - whole[:, at[0]], exact, rtol=0.01, atol=0.02 * np.abs(exact).max())


def test_beam_tilt_and_defocus_come_back_together():
    truth, bad, true = planted(tilt=(4.0, -3.0), defocus_sd_A=300.0, n=240)
    found = vg.refine_ctf(bad, rounds=1, listener=None)
    table = found.particles.optics_table
    assert abs(table.rlnBeamTiltX[0] - 4.0) < 0.3
    assert abs(table.rlnBeamTiltY[0] + 3.0) < 0.3
    error = found.particles.table.rlnDefocusU - true.table.rlnDefocusU
    before = bad.table.rlnDefocusU - true.table.rlnDefocusU
    assert error.std() < 0.5 * before.std()
    resolution = [vg.fsc(vg.reconstruct(p, listener=None), truth).curve[18:22].mean() for p in (bad, found.particles)]
    assert resolution[1] > resolution[0] + 0.2
    assert "defocus" in found.verdict


@pytest.mark.parametrize(
    ("matrix", "defocus_A"), [(None, (60.0, -60.0)), ([[1.003, 0.001], [0.001, 0.997]], (50.0, 20.0))]
)
def test_a_magnification_is_not_taken_for_a_wrong_defocus(matrix, defocus_A):
    """Defocus and astigmatism of all particles are off: the magnification that is found is that which is there."""
    truth, bad, _ = planted(matrix=matrix, noise=0.5, n=200)
    wrong = bad.with_columns(
        rlnDefocusU=bad.table.rlnDefocusU + defocus_A[0], rlnDefocusV=bad.table.rlnDefocusV + defocus_A[1]
    )
    setting = setting_of(wrong, truth)
    calibration = calibrate(setting)
    fit = fit_magnification(group_pass(setting, calibration, True), 0, calibration.amplitude.mean(axis=0))
    wanted = np.zeros(4) if matrix is None else (np.array(matrix) - np.eye(2)).ravel()
    assert (np.abs(fit.change - wanted) < 4 * fit.standard_error + 1e-4).all()
    assert fit.standard_error.max() < 3e-4
    assert (fit.gain_nats > 3 * fit.gain_error_nats) == (matrix is not None)


def test_displacements_of_frequencies_are_those_of_the_matrix():
    """Measured in cells, odd over the plane, and on the line that the matrix is."""
    matrix = np.array([[1.006, 0.002], [0.002, 0.994]])
    truth, bad, _ = planted(matrix=matrix, noise=0.3, n=200)
    setting = setting_of(bad, truth)
    calibration = calibrate(setting)
    fit = fit_magnification(group_pass(setting, calibration, True), 0, calibration.amplitude.mean(axis=0))
    measured = fit.displacement_per_A
    assert measured is not None
    cells = measured.shape[-1]
    assert np.allclose(measured[:, ::-1, ::-1], -measured, atol=1e-9, equal_nan=True)
    k = ((np.arange(cells) + 0.5) / cells * 2 - 1) * fit.reach_per_A
    wanted = np.einsum("ij,jyx->iyx", matrix - np.eye(2), np.stack(np.meshgrid(k, k)))
    seen = np.isfinite(measured)
    assert np.corrcoef(measured[seen], wanted[seen])[0, 1] > 0.5
    slope = (measured[seen] * wanted[seen]).sum() / (wanted[seen] ** 2).sum()
    assert 0.7 < slope < 1.3
    charts = magnification_charts(DrawnMagnification("magnification", fit))
    assert [chart.title for chart in charts][:2] == [
        "magnification, along x: measured",
        "magnification, along x: fitted",
    ]
    assert all(np.abs(chart.field.values[np.isfinite(chart.field.values)]).max() > 0.1 for chart in charts)


def test_what_the_data_cannot_tell_apart_has_a_large_error():
    """Two unknowns whose columns are one; an unknown without weight; sums of nothing at all."""
    normal = np.array([[4.0, 2.0, 0.0], [2.0, 1.0 - 1e-10, 0.0], [0.0, 0.0, 0.0]])
    solution, inverse = _solve_scaled(normal, np.array([4.0, 2.0, 0.0]))
    assert np.allclose(normal @ solution, [4, 2, 0], atol=1e-6)
    assert (np.sqrt(np.diag(inverse)) > 1e3).all()
    assert np.isfinite(inverse).all()
    empty = GroupSums(1, Pixels(BOX, PIXEL_A, 3, 12), magnification=True)
    fit = fit_magnification(empty, 0, np.ones(empty.pixels.shells))
    assert not fit.kept
    assert (fit.change == 0).all()
    assert (fit.standard_error > 1e3).all()
    assert np.isfinite(fit.standard_error).all()


@pytest.mark.slow
def test_trefoil_fourth_order_and_magnification_come_back():
    matrix = [[1.01, 0.004], [0.004, 0.99]]
    truth, bad, true = planted(odd=(0, 0, 120.0, 0, 0, -90.0), matrix=matrix, noise=0.7)
    terms = np.array([[-360.0, 150.0, 0.0, 200.0, -300.0]])
    even = bad.optics_table.assign(rlnEvenZernike=write_coefficients(even_zernikes(terms)))
    images = vg.project(truth, bad.poses, vg.Particles(bad.table, bad.source, optics_table=even).optics)
    images = Aberrations.of(true).apply(images, np.arange(N), PIXEL_A)
    images += np.random.default_rng(3).normal(0, 0.7 * images.std(), images.shape).astype(np.float32)
    bad = bad.with_source(vg.types.ArraySource(images, PIXEL_A))
    maps = (truth, truth)
    state = bad
    for _ in range(4):
        half = np.arange(N) % 2
        one = vg.refine_ctf(
            state.with_columns(rlnRandomSubset=half + 1),
            CtfRefineSettings(defocus=False, even=True, magnification=True, rounds=1),
            half_maps=maps,
            listener=None,
        )
        state = one.particles
    found = Aberrations.of(state)
    assert np.allclose(found.matrix[0], matrix, atol=0.0015)
    kx, ky = np.meshgrid(np.linspace(-0.2, 0.2, 9), np.linspace(-0.2, 0.2, 9))
    inside = np.hypot(kx, ky) < 0.22
    difference = found.phase_rad(0, kx, ky) - Aberrations.of(true).phase_rad(0, kx, ky)
    assert np.abs(difference[inside]).max() < 0.15
    found_ctf = vg.ctf(state[:5].optics, BOX, PIXEL_A)
    true_ctf = vg.ctf(vg.Particles(bad.table, None, optics_table=even)[:5].optics, BOX, PIXEL_A)
    wrong_ctf = vg.ctf(bad[:5].optics, BOX, PIXEL_A)
    assert np.abs(found_ctf - true_ctf).mean() < 0.2 * np.abs(wrong_ctf - true_ctf).mean()


def test_the_width_of_the_prior_is_learned_and_the_error_is_what_it_says():
    truth, bad, true = planted(defocus_sd_A=250.0, noise=3.0)
    setting = setting_of(bad, truth)
    scores = defocus_pass(setting, calibrate(setting), 2000.0)
    optics = bad.optics
    fit = fit_defocus(scores, (optics.defocus_u_A + optics.defocus_v_A) / 2, np.zeros(N, int))
    wanted = (true.table.rlnDefocusU - bad.table.rlnDefocusU).to_numpy()
    error = fit.change_A - wanted
    assert fit.about == "change"
    assert fit.width_A == pytest.approx(250, rel=0.15)
    assert error.std() == pytest.approx(np.sqrt((fit.standard_error_A**2).mean()), rel=0.2)
    assert fit.kept


def test_noise_and_a_wrong_map_change_nothing():
    _, bad, _ = planted(defocus_sd_A=100.0)
    noise = np.random.default_rng(0).normal(size=(N, BOX, BOX)).astype(np.float32)
    nothing = bad.with_source(vg.types.ArraySource(noise, PIXEL_A))
    found = vg.refine_ctf(nothing, even=True, rounds=1, listener=None)
    assert found.particles is nothing
    assert found.verdict.startswith("nothing was changed")
    other = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 60.0, seed=77), BOX, PIXEL_A)
    found = vg.refine_ctf(bad, half_maps=(other, other), rounds=1, listener=None)
    assert found.particles is bad
    assert "wrong map" in found.verdict


def test_phases_are_exact_without_noise():
    truth, bad, _ = planted(tilt=(5.0, 2.0), noise=1e-3, n=60)
    setting = setting_of(bad, truth)
    fit = fit_phase(group_pass(setting, calibrate(setting), False), 0, "odd")
    table = with_group_fits(bad, odd={0: fit}).optics_table
    assert np.allclose(table[["rlnBeamTiltX", "rlnBeamTiltY"]].to_numpy()[0], (5.0, 2.0), atol=0.01)


@pytest.mark.parametrize(("word", "terms"), [("cs", (-360.0, 0, 0, 0, 0)), ("tetrafoil", (0, 0, 0, 200.0, -300.0))])
def test_a_term_of_fourth_order_comes_back_alone(word, terms):
    """Without noise; what the word does not name stays exactly 0."""
    truth, bad, _ = planted(noise=1e-3, n=60)
    even = bad.optics_table.assign(rlnEvenZernike=write_coefficients(even_zernikes(np.array([terms]))))
    true = vg.Particles(bad.table, bad.source, optics_table=even).optics
    seen = bad.with_source(vg.types.ArraySource(vg.project(truth, bad.poses, true), PIXEL_A))
    setting = setting_of(seen, truth)
    chosen = indices_of(word)
    fit = fit_phase(group_pass(setting, calibrate(setting), False), 0, "even", chosen)
    order = [(0, 0), (2, -2), (2, 0), (2, 2), (4, -4), (4, -2), (4, 0), (4, 2), (4, 4)]
    free = np.array([index in chosen for index in order])
    assert np.allclose(fit.change[~free], 0, atol=1e-9)
    found = vg.ctf(with_group_fits(seen, even={0: fit}).optics, BOX, PIXEL_A)
    error, before = (np.abs(c - vg.ctf(true, BOX, PIXEL_A)).mean() for c in (found, vg.ctf(bad.optics, BOX, PIXEL_A)))
    assert error < 0.001 * before


def test_the_command_writes_what_relion_reads(tmp_path, capsys):
    _, bad, _ = planted(tilt=(4.0, 0.0), n=200)
    vg.write_particles(tmp_path / "p.star", bad)
    job = ["ctf-refine", str(tmp_path / "p.star")]
    status, out, _ = main([*job, "--rounds", "1", "--no-defocus", "--out", str(tmp_path / "o"), "--json"], capsys)
    assert status == 0
    told = json.loads(out)
    assert told["rounds"][0]["fits"][0]["kept"]
    written = vg.read_particles(tmp_path / "o" / "particles.star")
    assert abs(written.optics_table.rlnBeamTiltX[0] - 4) < 0.5
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Phase differences" in page
    assert '"signed": true' in page  # the planes are charts that a reader can ask
    assert "data:image" not in page
    status, _, error = main([*job, "--out", str(tmp_path / "p.star")], capsys)
    assert status == 1
    assert "expected the name of a folder" in error


class Stopped(Exception):
    """In place of a signal."""


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """Every fit there is, in a round of its own; the second round is stopped while its maps are made."""
    _, bad, _ = planted(tilt=(4.0, -3.0), defocus_sd_A=300.0, noise=1.0, n=120)
    bad = bad.with_columns(rlnMicrographName=[f"m{i // 30}.mrc" for i in range(120)])
    vg.write_particles(tmp_path / "p.star", bad)

    def run(name, resume=False, **more):
        fitted = {"even": True, "magnification": True, "astigmatism": True, "even_terms": "cs", "rounds": 2} | more
        job = CtfRefineJob(tmp_path / "p.star", tmp_path / name, settings=CtfRefineSettings(**fitted), resume=resume)
        return ctf_refine_files(job, listener=None)

    whole = run("whole")
    assert len(whole["rounds"]) == 2
    with pytest.raises(InputError, match="nothing to resume"):
        run("o", resume=True)
    assert not (tmp_path / "o").exists()
    made, reconstruct = [], ctf_refine.reconstruct_halves

    def stopping(*given):
        made.append(1)
        if len(made) == 2:
            raise Stopped
        return reconstruct(*given)

    monkeypatch.setattr(ctf_refine, "reconstruct_halves", stopping)
    with pytest.raises(Stopped):
        run("o")
    with pytest.raises(InputError, match="other settings was stopped here"):
        run("o", defocus_range_A=1000.0)
    again = run("o", resume=True)
    assert len(made) == 3  # the first round was not done again
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert (tmp_path / "o" / "particles.star").read_bytes() == (tmp_path / "whole" / "particles.star").read_bytes()
    for name in ("half1.mrc", "half2.mrc"):
        assert np.array_equal(*(vg.read_map(tmp_path / folder / name).data for folder in ("o", "whole")))
    planes = [(tmp_path / name / "report.html").read_text().count('"signed": true') for name in ("o", "whole")]
    assert planes[0] == planes[1] > 1
    assert not (tmp_path / "o" / "checkpoint").exists()


@pytest.mark.slow
def test_a_job_that_was_killed_goes_on_to_the_same_bits(tmp_path, capsys):
    _, bad, _ = planted(tilt=(4.0, -3.0), defocus_sd_A=300.0, n=200)
    vg.write_particles(tmp_path / "p.star", bad)
    job = ["ctf-refine", str(tmp_path / "p.star"), "--rounds", "2", "--threads", "1", "--out"]
    assert main([*job, str(tmp_path / "whole")], capsys)[0] == 0
    out = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-m", "verglas", *job, str(out)], stdout=subprocess.DEVNULL) as run:
        for _ in range(1200):
            if (out / "checkpoint" / "rounds.npz").is_file() or run.poll() is not None:
                break
            time.sleep(0.02)
        run.kill()
    assert run.returncode == -9
    status, _, err = main([*job, str(out), "--resume"], capsys)
    assert status == 0, err
    assert (out / "particles.star").read_bytes() == (tmp_path / "whole" / "particles.star").read_bytes()


def test_a_plane_of_phases_is_made_coarser_as_phases_wrap():
    plane = np.full((121, 121), np.pi - 0.1)
    plane[::2] = -np.pi + 0.1  # their mean is pi, not 0
    plane[:, :60] = np.nan
    field = _phase_field(plane, 0.001)
    assert field.values.shape == (41, 41)
    assert np.isnan(field.values[:, :19]).all()
    assert np.cos(field.values[:, 21:]).max() < -0.99
    assert field.x[1] - field.x[0] == pytest.approx(0.123)
    assert field.x[0] == pytest.approx(-0.0615)  # cells of zero frequency stay in the middle
    small = np.zeros((5, 5))
    assert _phase_field(small, 0.1).x == pytest.approx((-0.25, 0.25))


def test_what_cannot_be_refined_is_named():
    truth, bad, _ = planted(n=20)
    with pytest.raises(vg.InputError, match="needs poses"):
        vg.refine_ctf(bad.with_columns(rlnAngleRot=None), listener=None)
    microscope = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    bare = vg.Particles(bad.table.assign(**microscope, rlnImagePixelSize=PIXEL_A), bad.source)
    with pytest.raises(vg.InputError, match="no optics table"):
        vg.refine_ctf(bare, listener=None)
    small = vg.Map(truth.data[:24, :24, :24], PIXEL_A)
    with pytest.raises(vg.InputError, match="resample the maps"):
        vg.refine_ctf(bad, half_maps=(small, small), listener=None)


def test_half_maps_of_noise_end_in_a_verdict_not_in_a_missing_mask():
    """A map of noise has no molecule to draw a mask around."""
    _, bad, _ = planted(n=20)
    small = vg.image.crop_or_pad(bad.images(), (24, 24), "border")
    few = bad.with_source(vg.types.ArraySource(small, PIXEL_A))
    optics = bad.optics_table.assign(rlnImageSize=24)
    few = vg.Particles(few.table, few.source, optics_table=optics)
    noise = [vg.Map(np.random.default_rng(s).normal(size=(24,) * 3).astype(np.float32), PIXEL_A) for s in (0, 1)]
    found = vg.refine_ctf(few, half_maps=(noise[0], noise[0]), rounds=1, listener=None)
    assert found.particles is few
    assert found.verdict.startswith("nothing was changed")


def test_images_in_memory_of_a_finished_refinement_are_those_of_the_file(tmp_path):
    """A refinement holds images brought to the model; columns that ctf-refine writes are of those in the file."""
    _, bad, true = planted(tilt=(4.0, 0.0), n=160)
    half = bad.optics_table.assign(rlnBeamTiltX=[2.5], rlnBeamTiltY=[0.0])
    partly = vg.Particles(bad.table, true.source, optics_table=half)
    vg.write_particles(tmp_path / "p.star", partly)
    as_refined = plain_images(vg.read_particles(tmp_path / "p.star"))
    found = vg.refine_ctf(as_refined, defocus=False, rounds=1, listener=None)
    assert abs(found.particles.optics_table.rlnBeamTiltX[0] - 4) < 0.5
    vg.write_particles(tmp_path / "q.star", found.particles)
    assert abs(vg.read_particles(tmp_path / "q.star").optics_table.rlnBeamTiltX[0] - 4) < 0.5
    assert np.allclose(found.particles.images([0]), true.images([0]), atol=1e-5)


@pytest.mark.parametrize("label", ["rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"])
def test_images_changed_by_the_ctf_that_is_to_be_fitted_are_refused(label):
    """A flip by the old CTF is not undone by the new one."""
    _, bad, _ = planted(n=20)
    with pytest.raises(vg.InputError, match=f"{label} is 1.*another CTF"):
        vg.refine_ctf(bad.with_columns(**{label: 1}), listener=None)
    prepare(bad.with_columns(**{label: 1}), fits_ctf=False, needs_halves=False)


def test_half_maps_without_half_sets_are_refused():
    truth, bad, _ = planted(n=20)
    with pytest.raises(vg.InputError, match="no column rlnRandomSubset"):
        vg.refine_ctf(bad.with_columns(rlnRandomSubset=None), half_maps=(truth, truth), listener=None)


def test_bad_particles_are_set_aside_counted_and_kept_as_they_are():
    truth, bad, _ = planted(tilt=(4.0, 0.0), n=120)
    images = bad.images()
    images[3], images[5] = np.nan, 0.0
    table = bad.table.copy()
    table.loc[7, "rlnDefocusU"] = np.nan
    poor = vg.Particles(table, vg.types.ArraySource(images, PIXEL_A), optics_table=bad.optics_table)
    with pytest.warns(vg.errors.VerglasWarning, match="3 of 120 particles set aside"):
        found = vg.refine_ctf(poor, half_maps=(truth, truth), rounds=1, listener=None)
    assert sorted(found.excluded) == [3, 5, 7]
    assert len(found.particles) == 120
    assert abs(found.particles.optics_table.rlnBeamTiltX[0] - 4) < 0.5
    assert found.particles.table.rlnDefocusV[[3, 5]].tolist() == bad.table.rlnDefocusV[[3, 5]].tolist()
    assert np.isnan(found.particles.table.rlnDefocusU[7])


def test_rows_of_one_image_are_on_one_side_of_the_judgement():
    """Their noise is the same: a fit to one has seen the other."""
    truth, bad, _ = planted(n=20)
    twice = bad[np.repeat(np.arange(20), 2)]
    with pytest.warns(vg.errors.VerglasWarning, match="rows of one image lie in one half"):
        prepared = prepare(twice, fits_ctf=True, needs_halves=False)
    pixels = Pixels(BOX, PIXEL_A, 3, 22)
    fold = Setting.of(prepared.particles, prepared.half, (truth, truth), pixels, image=prepared.image).fold
    assert (fold[::2] == fold[1::2]).all()
    assert (prepared.half[::2] == prepared.half[1::2]).all()
    assert 0 < fold.mean() < 1


def test_groups_that_are_not_here_keep_their_aberrations_and_mixed_ones_are_refused():
    _, bad, _ = planted(n=8)
    both = pd.concat([bad.optics_table, bad.optics_table], ignore_index=True)
    both = both.assign(rlnOpticsGroup=[1, 2], rlnBeamTiltX=[0.5, -0.75], rlnBeamTiltY=0.0, rlnMagMat00=[1.0, 1.01])
    both = both.assign(rlnMagMat01=0.0, rlnMagMat10=0.0, rlnMagMat11=1.0)
    some = vg.Particles(bad.table, bad.source, optics_table=both)
    odd = GroupFit(np.array([0, 0, 0, 0, 0, 90.0]), np.ones(6), 100.0, 1.0)
    stretch = GroupFit(np.array([0.01, 0, 0, 0]), np.ones(4), 100.0, 1.0)
    table = with_group_fits(some, {0: odd}, magnification={0: stretch}).optics_table
    assert table.rlnBeamTiltX.tolist() == [0.5, -0.75]
    assert table.rlnMagMat00.tolist() == [1.01, 1.01]
    assert table.rlnOddZernike.tolist() == ["[0,0,0,0,0,90]", "[0]"]
    mixed = bad.with_columns(rlnBeamTiltX=np.arange(8.0), rlnBeamTiltY=0.0)
    with pytest.raises(vg.InputError, match="differ in beam tilt"):
        with_group_fits(mixed, {0: odd})


def test_coordinates_that_are_no_numbers_and_columns_not_applied_are_named():
    _, bad, _ = planted(n=20)
    lost = bad.with_columns(rlnMicrographName="m", rlnCoordinateX=[np.nan] + [1.0] * 19, rlnCoordinateY=2.0)
    with pytest.raises(vg.InputError, match="rlnCoordinateX, row 0"):
        places(lost)
    with pytest.warns(vg.errors.VerglasWarning, match=r"ctf-refine does not apply beam tilt \(ctf/tilt_A\)"):
        prepare(bad.with_columns(**{"ctf/tilt_A[0]": 0.1}), fits_ctf=True, needs_halves=False)
