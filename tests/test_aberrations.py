"""Zernike and Seidel, even and odd aberrations, magnification, and one forward model for every job."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import fourier, ops, reference
from verglas.io import read_star
from verglas.optics import (
    Aberrations,
    image_optics,
    magnify,
    plain_images,
    seidel,
    wavelength_A,
    with_aberrations,
    zernike,
    zernike_indices,
    zernike_of_seidel,
    zernike_sum,
)
from verglas.optics.stored import to_stored
from verglas.run.reconstruct import ProjectJob, project_files
from verglas.types.even_aberrations import even_zernikes, fold_even, write_coefficients

BOX, PIXEL_A = 32, 4.0
K = np.fft.rfftfreq(BOX, PIXEL_A), np.fft.fftfreq(BOX, PIXEL_A)[:, None]
number = st.floats(-5, 5).map(lambda x: round(x, 3))


def test_zernike_polynomials_are_the_printed_ones():
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, 50))
    r, t = np.hypot(x, y), np.arctan2(y, x)
    printed = {
        (0, 0): 1 + 0 * r,
        (1, -1): y,
        (2, 0): 2 * r**2 - 1,
        (3, 1): (3 * r**3 - 2 * r) * np.cos(t),
        (3, -3): r**3 * np.sin(3 * t),
        (4, -2): (4 * r**4 - 3 * r**2) * np.sin(2 * t),
        (4, 0): 6 * r**4 - 6 * r**2 + 1,
        (5, 1): (10 * r**5 - 12 * r**3 + 3 * r) * np.cos(t),
    }
    for (n, m), value in printed.items():
        assert np.allclose(zernike(n, m, x, y), value, atol=1e-12), (n, m)
    assert zernike_indices(9, "even")[3:6] == [(2, 2), (4, -4), (4, -2)]
    with pytest.raises(vg.InputError, match="n - "):
        zernike(3, 2, 0.0, 0.0)


@settings(deadline=None)
@given(z=st.lists(number, min_size=9, max_size=9))
def test_seidel_aberrations_are_the_same_wavefront(z):
    x, y = np.random.default_rng(1).uniform(-1, 1, (2, 20))
    fringe = [
        zernike(n, m, x, y) for n, m in [(0, 0), (1, 1), (1, -1), (2, 0), (2, 2), (2, -2), (3, 1), (3, -1), (4, 0)]
    ]
    assert np.allclose(seidel(z).wavefront(x, y), np.tensordot(z, fringe, 1), atol=1e-9)
    assert np.allclose(zernike_of_seidel(seidel(z)), z, atol=1e-9)
    assert seidel(z).astigmatism >= 0


@settings(deadline=None, max_examples=30)
@given(z=st.lists(number, min_size=9, max_size=9), seed=st.integers(0, 99))
def test_even_coefficients_are_folded_into_the_ctf_exactly(z, seed):
    rng = np.random.default_rng(seed)
    plain = vg.Optics(*rng.uniform(5000, 20000, (2, 1)), rng.uniform(-90, 90, 1), phase_shift_deg=[20.0])
    columns = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    scaled = np.array([z]) * [1, 50, 50, 50, 900, 900, 900, 900, 900]
    got = ops.ctf(vg.Optics(**fold_even(columns, scaled, wavelength_A(plain.voltage_kV))).as_params(), BOX, PIXEL_A)[0]
    kx, ky = K
    w = plain.amplitude_contrast[0]
    chi = np.arcsin(np.clip(reference.ctf.ctf_at(plain.as_params()[0], kx, ky), -1, 1))
    other = plain.as_params()[0].copy()
    other[6] += 90  # the cosine of the phase, so that the sum of two angles can be written out
    cosine = reference.ctf.ctf_at(other, kx, ky)
    change = -zernike_sum(scaled[0], "even", kx, ky)
    assert w
    assert np.allclose(got, np.sin(chi) * np.cos(change) + cosine * np.sin(change), atol=3e-6)


def test_terms_of_fourth_order_are_kept_in_a_star_file(tmp_path):
    optics = vg.Optics(
        [9000, 12000], [8000, 11000], [10, 20], spherical4_A4=[300.0], astigmatism4_y_A4=-120, tetrafoil_x_A4=77
    )
    made = vg.Particles.from_images(np.zeros((2, 8, 8)), 2.0, optics=optics)
    vg.write_particles(tmp_path / "p.star", made)
    found = vg.read_particles(tmp_path / "p.star").optics
    assert np.allclose(vg.ctf(found, 64, 1.0), vg.ctf(optics, 64, 1.0), atol=1e-6)
    columns = {name: getattr(vg.Optics([1e4], [1e4]), name) for name in optics.__dataclass_fields__}
    terms = np.array([[1.0, 2, 3, 4, 5]])
    folded = vg.Optics(**fold_even(columns, even_zernikes(terms), wavelength_A([300.0])))
    assert np.allclose(folded.as_params()[0, 9:], terms[0])
    assert np.allclose(folded.defocus_u_A, 1e4)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), box=st.sampled_from([24, 25]))
def test_magnified_images_have_the_transform_of_the_scaled_frequency(seed, box):
    rng = np.random.default_rng(seed)
    matrix = np.eye(2) + rng.normal(0, 0.015, (2, 2))
    # smooth, and inside the box: the sums of lines wrap at its edge
    x, y = np.meshgrid(np.arange(box) - box // 2, np.arange(box) - box // 2)
    image = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 4) for a, b in rng.uniform(-4, 4, (3, 2))).astype(np.float32)
    k = np.fft.rfftfreq(box), np.fft.fftfreq(box)[:, None]
    kx, ky = matrix[0, 0] * k[0] + matrix[0, 1] * k[1], matrix[1, 0] * k[0] + matrix[1, 1] * k[1]
    exact = np.einsum("yx,abyx->ab", image, np.exp(-2j * np.pi * (kx[..., None, None] * x + ky[..., None, None] * y)))
    got = fourier.forward(magnify(image[None], matrix), 2)[0]
    assert np.abs(got - exact).max() < 1e-4 * np.abs(exact).max()
    back = magnify(magnify(image[None], matrix), np.linalg.inv(matrix))[0]
    assert np.abs(back - image).max() < 1e-4 * image.max()


def test_noise_stays_white_when_a_magnification_is_taken_away():
    noise = np.random.default_rng(0).normal(size=(400, 32, 32)).astype(np.float32)
    power = np.abs(fourier.forward(magnify(noise, [[1.02, 0.01], [-0.005, 0.99]]), 2)) ** 2
    shells = fourier.shells((32, 32))
    means = [power.mean(axis=0)[shells == s].mean() for s in range(1, 16)]
    assert np.allclose(np.array(means) / 1024, 1, atol=0.05)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_the_ctf_in_the_frame_of_the_images(seed):
    rng = np.random.default_rng(seed)
    optics = vg.Optics(
        *rng.uniform(5000, 15000, (2, 1)),
        rng.uniform(-90, 90, 1),
        spherical4_A4=rng.normal(0, 100, 1),
        astigmatism4_x_A4=rng.normal(0, 100, 1),
        tetrafoil_y_A4=rng.normal(0, 100, 1),
    )
    m = np.eye(2) + rng.normal(0, 0.02, (2, 2))
    kx, ky = K[0] + 0 * K[1], K[1] + 0 * K[0]
    moved = reference.ctf.ctf_at(optics.as_params()[0], m[0, 0] * kx + m[0, 1] * ky, m[1, 0] * kx + m[1, 1] * ky)
    assert np.allclose(ops.ctf(image_optics(optics, m).as_params(), BOX, PIXEL_A)[0], moved, atol=2e-5)


# ---- one forward model

ABERRATED = {
    "rlnBeamTiltX": [1.5, -1.0],
    "rlnBeamTiltY": [-0.5, 2.0],
    "rlnOddZernike": ["[0,0,400,-200,0,300]", "[0,0,0,0,250]"],
    "rlnEvenZernike": ["[0.1,2,0,-3,900,0,0,0,-500]", "[0,0,3,0,0,700]"],
    "rlnMagMat00": [1.01, 1.0],
    "rlnMagMat01": [0.004, 0.0],
    "rlnMagMat10": [-0.003, 0.0],
    "rlnMagMat11": [0.99, 1.0],
}


@pytest.fixture(scope="module")
def pair():
    """A model, and one set of particles without and with aberrations, the noise the same."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    made = vg.simulate.particles(model, 160, BOX, PIXEL_A, snr=3.0, seed=4, optics_groups=2)
    table = made.optics_table.assign(**ABERRATED)
    aberrated = vg.Particles(made.table, made.source, optics_table=table)
    aberrations = Aberrations.of(aberrated)
    rng = np.random.default_rng(8)
    noise = rng.normal(0, 0.3, (160, BOX, BOX)).astype(np.float32)
    even = aberrated.optics
    images = vg.project(truth, made.poses, even)
    noise *= images.std()
    rows = np.arange(160)
    seen = images + aberrations.remove(noise.copy(), rows, PIXEL_A)
    plain = made.with_source(vg.types.ArraySource(seen, PIXEL_A)).with_optics(even)
    moved = aberrations.apply(images.copy(), rows, PIXEL_A) + noise
    return truth, plain, aberrated.with_source(vg.types.ArraySource(moved, PIXEL_A))


def near(images, wanted):
    """Relative difference below shell 13: a magnification moves frequencies at Nyquist beyond it."""
    inside = fourier.shells((BOX, BOX)) < 13
    got, expected = (fourier.forward(x, 2)[:, inside] for x in (images, wanted))
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def test_images_are_brought_to_the_model_once(pair):
    _, plain, aberrated = pair
    found = plain_images(aberrated)
    wanted = plain.images()
    assert near(found.images(), wanted) < 0.02
    assert near(aberrated.images(), wanted) > 0.1
    assert plain_images(found) is found
    assert np.allclose(found.optics.as_params(), plain.optics.as_params())


@pytest.mark.slow
def test_every_job_uses_the_same_forward_model(pair):
    truth, plain, aberrated = pair
    maps = [vg.reconstruct(p, listener=None) for p in (plain, aberrated)]
    assert vg.fsc(*maps).curve[1:14].min() > 0.999
    posed = [vg.align(p, truth, listener=None) for p in (plain, aberrated)]
    assert np.median(vg.geometry.angular_distance(posed[0].poses.angles_deg, posed[1].poses.angles_deg)) < 0.2
    refined = [vg.refine(p, truth, diameter_A=100, iterations=1, seed=1, listener=None).map for p in (plain, aberrated)]
    assert vg.fsc(*refined).curve[1:12].min() > 0.99
    averages = [
        vg.classify2d(p, classes=1, diameter_A=100, seed=1, listener=None).averages[0] for p in (plain, aberrated)
    ]
    assert np.corrcoef(averages[0].ravel(), averages[1].ravel())[0, 1] > 0.99
    settings = {"starts": 1, "iterations": 1, "full_iterations": 1, "diameter_A": 110, "seed": 3, "listener": None}
    first = [vg.abinitio(p, **settings).map for p in (plain, aberrated)]
    assert np.corrcoef(first[0].data.ravel(), first[1].data.ravel())[0, 1] > 0.95


def test_reconstruction_uses_the_forward_model(pair):
    _, plain, aberrated = pair
    one, other, without = (vg.reconstruct(p, listener=None) for p in (plain, aberrated, stripped(aberrated)))
    assert vg.fsc(one, other).curve[1:14].min() > 0.999
    assert vg.fsc(one, without).curve[1:14].min() < 0.9


def stripped(particles):
    optics = pd.DataFrame(particles.optics_table).drop(columns=list(ABERRATED))
    return vg.Particles(particles.table, particles.source, optics_table=optics)


def test_projections_of_a_file_carry_the_aberrations_of_its_groups(pair, tmp_path):
    truth, plain, aberrated = pair
    vg.write_map(tmp_path / "m.mrc", truth)
    vg.write_particles(tmp_path / "p.star", aberrated)
    project_files(ProjectJob(map=tmp_path / "m.mrc", particles=tmp_path / "p.star", out=tmp_path / "q.mrcs", ctf=True))
    made = vg.read_particles(tmp_path / "q.star")
    wanted = vg.project(truth, plain.poses, plain.optics)
    assert near(made.images(), wanted) > 0.1
    found = plain_images(made)
    assert near(found.images(), wanted) < 0.02
    assert np.allclose(vg.ctf(found.optics, BOX, PIXEL_A), vg.ctf(plain.optics, BOX, PIXEL_A), atol=1e-5)


def test_what_is_written_says_what_its_images_are(pair, tmp_path):
    _, _, aberrated = pair
    vg.write_particles(tmp_path / "p.star", aberrated)
    stored = plain_images(vg.read_particles(tmp_path / "p.star"))
    vg.write_particles(tmp_path / "q.star", stored[:20])
    again = read_star(tmp_path / "q.star")
    assert again["optics"].rlnBeamTiltX.tolist() == [1.5, -1.0]
    assert "rlnBeamTiltX" not in again["particles"]
    vg.write_particles(tmp_path / "r.star", stored[:20], stack=tmp_path / "r.mrcs")
    copied = vg.read_particles(tmp_path / "r.star")
    assert not Aberrations.of(copied).any
    assert np.allclose(copied.images(), stored.images(range(20)), atol=1e-5)


def test_images_computed_from_plain_ones_are_plain_in_every_column(pair, tmp_path):
    """RELION looks into the optics table first: a tilt left there would be taken out twice."""
    _, _, aberrated = pair
    small = plain_images(aberrated[:20])
    small = vg.image.resample_particles(small, vg.image.plan_resample(BOX, PIXEL_A, 8.0))
    vg.write_particles(tmp_path / "s.star", small)
    tables = read_star(tmp_path / "s.star")
    assert tables["optics"].rlnBeamTiltX.tolist() == [0, 0]
    assert not {"rlnBeamTiltX", "rlnMagMat00"} & set(tables["particles"])
    assert tables["optics"].rlnEvenZernike.tolist() == ABERRATED["rlnEvenZernike"]
    assert np.allclose(vg.read_particles(tmp_path / "s.star").images(), small.images(), atol=1e-5)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rlnBeamTiltX": [np.nan, 0]}, "rlnBeamTiltX, row 0 .*finite number"),
        ({"rlnOddZernike": ["[0]", "[a,1]"]}, r"rlnOddZernike, row 1 .*got \[a,1\]"),
        ({"rlnMagMat00": [0, 1], "rlnMagMat11": [0, 1]}, "expected a matrix near"),
        ({"rlnEvenZernike": ["[inf]", "[0]"]}, "rlnEvenZernike, row 0"),
    ],
)
def test_aberrations_that_are_none_are_named(pair, columns, message):
    _, _, aberrated = pair
    p = vg.Particles(
        aberrated.table, aberrated.source, optics_table=pd.DataFrame(aberrated.optics_table).assign(**columns)
    )
    with pytest.raises(vg.InputError, match=message):
        vg.reconstruct(p)


def test_aberrations_go_into_the_groups_they_came_from(pair):
    _, plain, aberrated = pair
    known = Aberrations.of(aberrated)
    again = Aberrations.of(with_aberrations(plain, known))
    for name in ("beam_tilt_mrad", "odd", "matrix"):
        assert np.allclose(getattr(again, name)[again.kind], getattr(known, name)[known.kind])
    mixed = Aberrations(known.kind[::-1].copy(), known.beam_tilt_mrad, known.odd, known.matrix, known.coma)
    with pytest.raises(vg.InputError, match="differ in their aberrations"):
        with_aberrations(plain, mixed)
    assert write_coefficients(np.array([[0.5, -2]])) == ["[0.5,-2]"]


@pytest.mark.parametrize("label", ["rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied", None])
def test_subtracted_images_stay_in_the_state_that_their_columns_tell(pair, label, tmp_path):
    """Other programs read the columns of the optics table, and the images that a subtraction came from come back."""
    truth, _, aberrated = pair
    some = aberrated[:12]
    if label is not None:
        undone = plain_images(some.with_columns(**{label: 1}))
        state = some.with_columns(**{label: 1})
        stored = to_stored(undone)(plain_images(some).images(), np.arange(12))
        some = state.with_source(vg.types.ArraySource(stored, PIXEL_A))
    nothing = vg.Map(np.zeros_like(truth.data), PIXEL_A)
    left = vg.subtract(some, truth, nothing, fit_scale=False)
    # beside the zeros of a CTF that images were multiplied by, little of them is left
    most = 0.03 if label == "rlnCtfDataAreCtfPremultiplied" else 0.02
    taken, wanted = vg.project(truth, some.poses, some.optics), plain_images(some).images()
    assert near(plain_images(left).images() + taken, wanted) < most
    assert near(plain_images(left[[7, 3]]).images() + taken[[7, 3]], wanted[[7, 3]]) < most
    vg.write_particles(tmp_path / "left.star", left, stack=tmp_path / "left.mrcs")
    tables = read_star(tmp_path / "left.star")
    assert tables["optics"].rlnBeamTiltX.tolist() == [1.5, -1.0]
    assert "rlnBeamTiltX" not in tables["particles"]
    assert near(plain_images(vg.read_particles(tmp_path / "left.star")).images() + taken, wanted) < most
    again = vg.subtract(plain_images(some), truth, nothing, fit_scale=False)
    assert np.allclose(again.images(), left.images(), atol=1e-4)
