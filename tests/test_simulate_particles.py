from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

import verglas as vg
from verglas import fourier, gridding, image, ops, simulate
from verglas.geometry import euler_to_matrix
from verglas.simulate import Imaging, draw_truth, noise

from tolerance import SCATTER_L2

BOX, PIXEL = 48, 2.5


@pytest.fixture(scope="module")
def model():
    return simulate.phantom(BOX, PIXEL, 80, seed=4)


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def test_image_is_the_sum_of_voxels_along_the_ray_times_the_ctf(model):
    poses = vg.Poses(np.zeros((1, 3)))
    p = simulate.particles(model, 1, BOX, PIXEL, poses=poses, ctf=False)
    density = simulate.density(model, BOX, PIXEL)
    assert relative(p.images()[0], density.data.sum(0)) < 2 * SCATTER_L2
    seen = simulate.particles(model, 1, BOX, PIXEL, poses=poses)
    ctf = ops.ctf(seen.optics.as_params(), BOX, PIXEL)[0]
    want = fourier.inverse(fourier.forward(density.data.sum(0), 2) * ctf, (BOX, BOX))
    assert relative(seen.images()[0], want) < 5 * SCATTER_L2


def test_images_are_the_central_slices_of_the_density(model):
    # The interpolating projector, of known accuracy 1e-3, agrees in pose, shift and scale. The envelope leaves 2 % at
    # Nyquist: what a sharp model has there rings beyond the box, where the voxels of a map cannot follow.
    p = simulate.particles(model, 12, BOX, PIXEL, ctf=False, shift_sd_A=4, seed=3, envelope_b_factor_A2=400)
    grid = ops.Grid(BOX)
    spectrum = gridding.to_grid(simulate.density(model, BOX, PIXEL, b_factor_A2=400).data, grid)
    slices = ops.project(spectrum, grid, euler_to_matrix(p.poses.angles_deg))
    ky, kx = fourier.half_grid((BOX, BOX))
    shifts = p.poses.shifts_A[:, :, None, None] / PIXEL  # the particle sits at minus the origin
    slices = slices * np.exp(2j * np.pi * (kx * shifts[:, 0] + ky * shifts[:, 1]) / BOX)
    inside = fourier.radius((BOX, BOX)) < BOX / 2 - 1
    got = fourier.forward(p.images(), 2)
    assert relative(got[:, inside], slices[:, inside]) < 1e-3


def test_an_atom_lands_where_the_conventions_say():
    atom = simulate.Model([[20.0, 10, -15]], "C", b_factors_A2=60)
    poses = vg.Poses([[30, 40, 50]], [[7.5, -5.0]])
    seen = simulate.particles(atom, 1, 80, 1.0, poses=poses, ctf=False).images()[0]
    y, x = np.mgrid[:80, :80] - 40
    bright = seen > seen.max() / 50
    centre = np.array([(seen * c)[bright].sum() for c in (x, y)]) / seen[bright].sum()
    want = (euler_to_matrix([[30, 40, 50]])[0] @ [20.0, 10, -15])[:2] - [7.5, -5.0]
    np.testing.assert_allclose(centre, want, atol=0.02)


@pytest.mark.parametrize("snr", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("power", [None, "coloured"])
def test_snr_is_what_was_asked(model, snr, power):
    settings_ = {"seed": 2, "noise_power": power}
    noisy = simulate.particles(model, 120, BOX, PIXEL, snr, **settings_).images()
    clean = simulate.particles(model, 120, BOX, PIXEL, **settings_).images()
    measured = simulate.measured_snr(clean, noisy)
    assert measured.value == pytest.approx(snr, rel=0.03)
    assert "whole box" in str(measured)


def test_three_noise_stages_compose(model):
    clean = simulate.particles(model, 150, BOX, PIXEL).images()
    stages, images = (0.8, 0.3, 2.0), clean
    power = noise.coloured_power(BOX, PIXEL)
    for i, snr in enumerate(stages):
        images = noise.add_noise(images, snr, seed=1, purpose=i, power=power if i == 1 else None)
    total = 1 / (np.prod([1 + 1 / s for s in stages]) - 1)
    assert simulate.measured_snr(clean, images).value == pytest.approx(total, rel=0.03)


def test_snr_names_its_region(model):
    clean = simulate.particles(model, 40, BOX, PIXEL).images()
    noisy = noise.add_noise(clean, 0.5, seed=1)
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    inner = simulate.measured_snr(clean, noisy, x**2 + y**2 < 16**2)
    assert inner.value > 1.5 * 0.5  # the particle fills the disc, not the box
    assert "pixels" in inner.region


def test_coloured_noise_has_its_spectrum():
    power = noise.coloured_power(64, 2.0)
    images = noise.noise(range(400), 64, seed=0, power=power)
    spectrum = np.abs(fourier.forward(images, 2)) ** 2
    shells, weights = fourier.shells((64, 64)), np.broadcast_to(fourier.half_weights((64, 64)), (64, 33))
    count = np.bincount(shells.ravel(), weights.ravel())
    measured = np.bincount(shells.ravel(), (weights * spectrum.mean(0)).ravel()) / count / 64**2
    expected = power / (power[shells] * weights).sum() * 64**2
    np.testing.assert_allclose(measured[1:33] / expected[1:33], 1, atol=0.12)  # shell 1: 8 terms x 400 images: 2.5 %
    assert images.var(dtype=np.float64) == pytest.approx(1, abs=0.01)
    assert abs(images.mean()) < 0.01


def test_reproducible_whatever_threads_batches_and_number(model):
    make = lambda n, **kw: simulate.Simulation(model, n, BOX, PIXEL, seed=7, **kw)
    a, b = make(30, threads=1), make(50, threads=3)
    rows = [3, 29, 11]
    assert np.array_equal(a.clean(np.arange(30))[rows], b.clean(rows))
    assert np.array_equal(a.noise(np.arange(30))[rows], b.noise(rows))
    one, two = (simulate.particles(model, 20, BOX, PIXEL, 0.1, seed=7, threads=t) for t in (1, 4))
    assert np.array_equal(one.images(), two.images())
    assert one.table.equals(two.table)
    other = simulate.particles(model, 20, BOX, PIXEL, 0.1, seed=8)
    assert not np.allclose(one.poses.angles_deg, other.poses.angles_deg)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 40), more=st.integers(1, 40), seed=st.integers(0, 2**62), groups=st.integers(1, 3))
def test_truth_of_a_particle_does_not_depend_on_n(n, more, seed, groups):
    imaging = Imaging(optics_groups=groups, particles_per_micrograph=7)
    a, b = draw_truth(n, 2, imaging, seed), draw_truth(n + more, 2, imaging, seed)
    for name in ("angles_deg", "shifts_A"):
        assert np.array_equal(getattr(a.poses, name), getattr(b.poses, name)[:n])
    assert np.array_equal(a.optics.as_params(), b.optics.as_params()[:n])
    assert np.array_equal(a.optics.group, (np.arange(n) // 7) % groups)
    assert np.array_equal(a.half_set, b.half_set[:n])
    assert np.array_equal(a.conformation, b.conformation[:n])


def test_distributions_are_those_asked_for():
    imaging = Imaging(
        defocus_A=(5000, 9000),
        defocus_spread_A=0,
        astigmatism_A=400,
        shift_sd_A=5,
        particles_per_micrograph=1,
        populations=(3, 1),
    )
    t = draw_truth(6000, 2, imaging, seed=1)
    view = euler_to_matrix(t.poses.angles_deg)[:, 2]
    for axis in range(3):
        assert kstest(view[:, axis], "uniform", (-1, 2)).pvalue > 1e-3
        assert kstest(euler_to_matrix(t.poses.angles_deg)[:, 0, axis], "uniform", (-1, 2)).pvalue > 1e-3
    assert kstest(t.poses.shifts_A.ravel() / 5, "norm").pvalue > 1e-3
    mean = (t.optics.defocus_u_A + t.optics.defocus_v_A) / 2
    assert kstest(mean, "uniform", (5000, 4000)).pvalue > 1e-3
    assert np.ptp(t.optics.defocus_u_A - t.optics.defocus_v_A) == pytest.approx(400, rel=0.01)
    assert (t.conformation == 0).mean() == pytest.approx(0.75, abs=0.02)
    assert (t.half_set == 1).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("axis", [(0, 0, 1), (1, -2, 0.5), (0, 0, -1)])
def test_preferred_views_follow_von_mises_and_fisher(axis):
    kappa = 6.0
    t = draw_truth(4000, 1, Imaging(preferred_axis=axis, concentration=kappa), seed=3)
    cosine = euler_to_matrix(t.poses.angles_deg)[:, 2] @ np.array(axis) / np.linalg.norm(axis)
    assert cosine.mean() == pytest.approx(1 / np.tanh(kappa) - 1 / kappa, abs=0.01)  # the Langevin function
    psi = t.poses.angles_deg[:, 2]
    assert kstest(psi, "uniform", (-180, 360)).pvalue > 1e-3


def test_conformations_and_envelope(model):
    bent = simulate.hinge(model, 40)
    p = simulate.particles([model, bent], 30, BOX, PIXEL, ctf=False, envelope_b_factor_A2=150, populations=(1, 2))
    assert set(p.table.rlnClassNumber) == {1, 2}
    assert (p.optics.b_factor_A2 == 0).all()
    for number, one in ((1, model), (2, bent)):
        row = int(np.flatnonzero(p.table.rlnClassNumber == number)[0])
        alone = simulate.particles(one, 1, BOX, PIXEL, ctf=False, poses=p.poses[[row]])
        k2 = fourier.radius((BOX, BOX)) ** 2 / (BOX * PIXEL) ** 2
        damped = fourier.forward(alone.images()[0], 2) * np.exp(-150 * k2 / 4)
        assert relative(fourier.forward(p.images([row])[0], 2), damped) < 5 * SCATTER_L2


def test_folder_holds_what_a_reader_needs(model, tmp_path):
    out = tmp_path / "sim"
    written = simulate.particles(
        [model, simulate.hinge(model, 30)],
        25,
        BOX,
        PIXEL,
        0.2,
        out,
        seed=5,
        hide_poses=True,
        optics_groups=2,
        particles_per_micrograph=4,
        noise_power="coloured",
    )
    memory = simulate.particles(
        [model, simulate.hinge(model, 30)],
        25,
        BOX,
        PIXEL,
        0.2,
        seed=5,
        optics_groups=2,
        particles_per_micrograph=4,
        noise_power="coloured",
    )
    assert np.array_equal(written.images(), memory.images())
    assert written.poses is None
    assert "rlnClassNumber" not in written.table
    truth = vg.read_particles(out / "truth.star")
    np.testing.assert_allclose(truth.poses.angles_deg, memory.poses.angles_deg, atol=1e-5)
    np.testing.assert_allclose(truth.poses.shifts_A, memory.poses.shifts_A, atol=1e-5)
    np.testing.assert_allclose(truth.optics.as_params(), memory.optics.as_params(), rtol=1e-6, atol=1e-6)
    assert np.array_equal(truth.images([7, 2]), memory.images([7, 2]))
    assert written.pixel_size_A == PIXEL
    assert truth.half_sets is not None
    assert len(truth.optics_table) == 2
    density = vg.read_map(out / "truth.mrc")
    assert np.array_equal(density.data, simulate.density(model, BOX, PIXEL).data)
    files = {path.name for path in out.iterdir()}
    assert files == {
        "particles.mrcs",
        "particles.star",
        "truth.star",
        "truth.mrc",
        "truth_class002.mrc",
        "montage.png",
        "simulation.json",
    }
    assert json.loads((out / "simulation.json").read_text())["snr_region"] == "whole box"


def test_large_stacks_are_made_in_a_scratch_file(model, tmp_path, monkeypatch):
    from verglas.run import simulate as job

    monkeypatch.setattr(job, "_IN_MEMORY_BYTES", 1000)
    p = simulate.particles(model, 10, BOX, PIXEL, 0.2, tmp_path)
    assert np.array_equal(p.images(), simulate.particles(model, 10, BOX, PIXEL, 0.2).images())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"snr": 0}, "snr: expected a positive number"),
        ({"snr": float("nan")}, "snr"),
        ({"n": 0}, "at least 1 particle"),
        ({"box": 24}, "box of at least"),
        ({"defocus": 3}, "unknown setting defocus .defocus_A.*known are amplitude_contrast"),
        ({"defocus_A": (2, 1)}, "smallest, largest"),
        ({"shift_sd_A": -1}, "shift_sd_A"),
        ({"concentration": np.inf}, "concentration"),
        ({"noise_power": "pink"}, "noise_power"),
        ({"noise_power": np.ones(5)}, "expected 35 shells"),
        ({"noise_power": -np.ones(99)}, "none negative"),
        ({"populations": (1, 2)}, "2 shares for 1 models"),
        ({"poses": vg.Poses(np.zeros((3, 3)))}, "3 poses for 4"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_named(model, settings_, words):
    arguments = {"model": model, "n": 4, "box": BOX, "pixel_size_A": PIXEL, "snr": 1.0} | settings_
    with pytest.raises(vg.InputError, match=words):
        simulate.particles(**arguments)


def test_particles_without_ctf_say_so_in_their_metadata():
    model = simulate.phantom(32, 4.0, 80.0)
    p = simulate.particles(model, 8, 32, 4.0, ctf=False)
    assert np.allclose(vg.ctf(p.optics, 32), 1.0)
    truth = simulate.density(model, 32, 4.0)
    with_default = vg.reconstruct(simulate.particles(model, 300, 32, 4.0, ctf=False))
    assert image.correlation_coefficient(with_default.data, truth.data) > 0.9
