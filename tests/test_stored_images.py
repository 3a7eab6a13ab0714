"""Stacks whose images are phase-flipped or multiplied by their CTF; aberrations that no job applies are named."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas import fourier, ops
from verglas.io import read_star, write_star
from verglas.optics import plain_images
from verglas.optics.stored import FLIPPED, LEAST_CTF, PREMULTIPLIED

pytestmark = pytest.mark.usefixtures("no_verdict_of_module")

BOX, PIXEL_A = 32, 4.0
INSIDE = fourier.shells((BOX, BOX)) < BOX // 2


def simulated(n=160, snr=0.3):
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0)
    return model, vg.simulate.particles(model, n, BOX, PIXEL_A, snr=snr, seed=4)


def as_stored(folder, made, how):
    """The same particles as a program leaves them: images flipped or multiplied, and the label that says so."""
    ctf = ops.ctf(made.optics.as_params(), BOX, PIXEL_A)
    times = np.sign(ctf) if how == FLIPPED else ctf
    images = fourier.inverse(fourier.forward(made.images(), 2) * times, (BOX, BOX))
    whole = made.with_source(vg.types.ArraySource(images, PIXEL_A)).with_columns(**{how: 1})
    vg.write_particles(folder / "p.star", whole)
    return vg.read_particles(folder / "p.star")


@pytest.mark.parametrize("how", [FLIPPED, PREMULTIPLIED])
def test_the_images_are_what_the_model_says(tmp_path, how):
    _, made = simulated(20)
    found = plain_images(as_stored(tmp_path, made, how))
    ctf = ops.ctf(made.optics.as_params(), BOX, PIXEL_A)
    keep = (np.abs(ctf) > LEAST_CTF * 1.01) | (how == FLIPPED)
    keep &= INSIDE  # at Nyquist an astigmatic CTF has two values for one coefficient
    got, wanted = fourier.forward(found.images(), 2), fourier.forward(made.images(), 2)
    assert np.allclose(got[keep], wanted[keep], atol=1e-3 * np.abs(wanted).max())
    assert (np.abs(got) ** 2).sum() / (np.abs(wanted) ** 2).sum() == pytest.approx(1, abs=0.04)
    assert plain_images(found) is found  # nothing is undone twice
    some = pickle.loads(pickle.dumps(found[[7, 2, 11]].source))
    assert np.array_equal(some.read(np.array([1, 0])), found.images([2, 7]))


@pytest.mark.parametrize("how", [FLIPPED, PREMULTIPLIED])
def test_reconstructions_are_as_good_as_from_plain_images(tmp_path, how):
    model, made = simulated()
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    stored = as_stored(tmp_path, made, how)
    plain, found = (vg.fsc(vg.reconstruct(p), truth).curve[1:14] for p in (made, stored))
    wrong = vg.fsc(vg.reconstruct(stored.with_columns(**{how: None})), truth).curve[1:14]
    assert np.abs(found - plain).max() < 0.02
    assert found.mean() > wrong.mean() + 0.05


@pytest.mark.parametrize("how", [pytest.param(FLIPPED, marks=pytest.mark.slow), PREMULTIPLIED])
def test_alignment_refinement_and_classes_are_those_of_plain_images(tmp_path, how):
    model, made = simulated(40, snr=1.0)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    stored = as_stored(tmp_path, made, how)
    one, other = vg.align(made, truth), vg.align(stored, truth)
    turned = vg.geometry.angular_distance(one.poses.angles_deg, other.poses.angles_deg)
    assert np.median(turned) < 0.1
    refined = [vg.refine(p, truth, diameter_A=100, iterations=2, seed=1).map for p in (made, stored)]
    assert vg.fsc(*refined).curve[1:12].min() > 0.99
    averages = [vg.classify2d(p, classes=1, diameter_A=100, seed=1, iterations=4).averages[0] for p in (made, stored)]
    assert np.corrcoef(averages[0].ravel(), averages[1].ravel())[0, 1] > 0.99


def test_what_a_job_writes_names_the_stored_stack_and_its_label(tmp_path):
    _, made = simulated(20)
    found = plain_images(as_stored(tmp_path, made, FLIPPED))[[5, 6]]
    before = sorted(p.name for p in tmp_path.iterdir())
    vg.write_particles(tmp_path / "q.star", found)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "q.star"])
    table = read_star(tmp_path / "q.star")["particles"]
    assert table[FLIPPED].tolist() == [1, 1]
    assert table["rlnImageName"].tolist() == ["000006@p.mrcs", "000007@p.mrcs"]
    again = plain_images(vg.read_particles(tmp_path / "q.star"))
    assert np.array_equal(again.images(), found.images())


def test_images_written_anew_are_plain_and_say_so(tmp_path):
    _, made = simulated(20)
    stored = as_stored(tmp_path, made, FLIPPED)
    tables = dict(read_star(tmp_path / "p.star"))
    tables["optics"] = tables["optics"].assign(**{FLIPPED: 1})
    tables["particles"] = tables["particles"].drop(columns=FLIPPED)
    write_star(tmp_path / "o.star", tables)
    found = plain_images(vg.read_particles(tmp_path / "o.star"))
    vg.write_particles(tmp_path / "new.star", found, stack=tmp_path / "new.mrcs")
    again = vg.read_particles(tmp_path / "new.star")
    assert again.optics_table[FLIPPED].tolist() == [0]
    assert plain_images(again) is again
    difference = fourier.forward(again.images() - made.images(), 2)[:, INSIDE]
    assert np.abs(difference).max() < 1e-5 * np.abs(fourier.forward(made.images(), 2)).max()
    # converted without a job in between, the stack stays as it is stored, and so does the label
    vg.write_particles(tmp_path / "raw.star", stored, stack=tmp_path / "raw.mrcs")
    assert vg.read_particles(tmp_path / "raw.star").table[FLIPPED].tolist() == [1] * 20


def test_a_state_that_is_neither_is_refused():
    p = vg.Particles.from_images(np.zeros((2, 8, 8)), 2.0).with_columns(**{FLIPPED: [0, 2]})
    with pytest.raises(vg.InputError, match="rlnCtfDataArePhaseFlipped of particle 1: expected 0 or 1, got 2"):
        plain_images(p)


@pytest.mark.parametrize("name", ["flip", "premult"])
def test_the_cases_are_undone(data_dir, name):
    found = vg.read_particles(data_dir.parent / "cases" / "ctf-state-ignored" / f"{name}.star")
    assert not np.allclose(plain_images(found).images([0]), found.images([0]), atol=1e-3)


@pytest.mark.parametrize(
    ("table", "optics", "message"),
    [
        ({}, {"rlnEvenZernike": "[0,0,0,0,0,0,0,0,0,0.3]"}, r"even Zernike coefficients \(rlnEvenZernike\)"),
        ({"ctf/tilt_A[0]": 1.0, "ctf/anisomag[1]": 0.01}, {}, r"beam tilt \(ctf/tilt_A\); .*\(ctf/anisomag\)"),
    ],
)
def test_every_job_names_the_aberrations_it_does_not_apply(table, optics, message):
    model, made = simulated(60, snr=1.0)
    groups = made.optics_table.assign(**optics)
    p = vg.Particles(made.table.assign(**table), made.source, optics_table=groups)
    truth = vg.simulate.density(model, BOX, PIXEL_A)

    def abinitio_of_too_few():  # found after it has spoken
        with pytest.raises(vg.InputError):
            vg.abinitio(p[:20], diameter_A=100)

    jobs = {
        "reconstruct": lambda: vg.reconstruct(p),
        "align": lambda: vg.align(p, truth),
        "classify2d": lambda: vg.classify2d(p, classes=1, diameter_A=100),
        "refine": lambda: vg.refine(p, truth, diameter_A=100, iterations=1),
        "abinitio": abinitio_of_too_few,
    }
    for name, job in jobs.items() if optics else [("reconstruct", jobs["reconstruct"])]:
        with pytest.warns(vg.VerglasWarning, match=f"{name} does not apply {message}"):
            job()


def test_values_that_change_nothing_are_not_named(recwarn):
    _, made = simulated(20)
    none = {"rlnBeamTiltX": 0.0, "rlnOddZernike": "[0,0]", "rlnMagMat00": 1.0, "rlnMagMat01": 0.0}
    p = vg.Particles(made.table, made.source, optics_table=pd.DataFrame(made.optics_table).assign(**none))
    vg.reconstruct(p)
    assert not [w for w in recwarn if "does not apply" in str(w.message)]
