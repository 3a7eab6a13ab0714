"""Reconstruction from known poses: exactness, symmetry, density weights, the exact and the real data."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas import fourier, gridding, ops, reference
from verglas.geometry import symmetry_matrices
from verglas.masks import soft_sphere
from verglas.reconstruction import direct, known_poses, least_squares
from verglas.reconstruction import sums as sums_of
from verglas.reconstruction.known_poses import half_sets

from tolerance import (
    EXACT_IMAGES_RESIDUAL,
    EXACT_PROJECTION_RELATIVE,
    EXACT_SCALE,
    GRIDDING_RESIDUAL,
    SYMMETRY_INVARIANCE,
)


def matrices_to_particles(images, matrices, apix=2.0, **columns):
    poses = vg.Poses(vg.matrix_to_euler(matrices))
    optics = vg.Optics(defocus_u_A=np.full(len(images), 10000.0), defocus_v_A=np.full(len(images), 10000.0))
    particles = vg.Particles.from_images(images, apix, poses=poses, optics=optics)
    return particles.with_columns(**columns) if columns else particles


def blobs(box: int, width_px: float = 1.0, seed: int = 0) -> np.ndarray:
    """A few Gaussians off centre: compact and asymmetric."""
    rng = np.random.default_rng(seed)
    x = np.arange(box) - box // 2
    out = np.zeros((box,) * 3)
    for _ in range(8):
        centre, width = rng.normal(size=3) * box / 10, width_px * rng.uniform(0.8, 1.2)
        g = [np.exp(-((x - c) ** 2) / (2 * width**2)) for c in centre]
        out += rng.uniform(0.5, 1.5) * np.einsum("z,y,x->zyx", *g)
    return out.astype(np.float32)


def noiseless(box: int, n: int, width_px: float = 1.0, seed: int = 1):
    """A map, matrices and the exact slices of the map."""
    volume = blobs(box, width_px)
    matrices = Rotation.random(n, random_state=seed).as_matrix()
    grid = ops.Grid(box, width=8, oversampling=1.5)
    return volume, matrices, ops.project(gridding.to_grid(volume, grid), grid, matrices)


def fsc_curve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return vg.fsc(vg.Map(a, 1.0), vg.Map(b, 1.0)).curve


def test_least_squares_solves_the_normal_equations():
    """On a small box the Toeplitz operator equals the dense one made of reference projections."""
    box, n = 7, 12
    rng = np.random.default_rng(0)
    matrices = Rotation.random(n, random_state=2).as_matrix()
    grid = least_squares.kernel_grid(box, (box - 1) // 2)
    weights = ops.GridSums.zeros(grid, values=False)
    ops.insert(weights, None, matrices)
    ops.fold(weights)
    operator = least_squares.normal_operator(weights)
    volume = (rng.normal(size=(box,) * 3) * least_squares.sphere(box)).astype(np.float32)
    slices = reference.project.project(volume, matrices, grid.max_radius)
    dense = reference.project.insert(slices, matrices, grid.max_radius) * least_squares.sphere(box)
    got = operator.apply(volume, threads=1)
    assert np.linalg.norm(got - dense) < 0.01 * np.linalg.norm(dense)  # the ridge is 1 % of the last shell beyond it


@pytest.mark.parametrize("method", ["least-squares", "direct", "gridding"])
def test_noiseless_views_give_the_map_back(method):
    """FSC > 0.99 to 0.9 Nyquist; the same from iterated weights."""
    box, n = 32, 1500
    volume, matrices, slices = noiseless(box, n)
    images = fourier.inverse(slices, (box, box))
    particles = matrices_to_particles(images, matrices)
    got = vg.reconstruct(particles, method=method, ctf=False)
    curve = fsc_curve(got.data, volume)
    assert curve[: int(0.9 * box / 2) + 1].min() > 0.99
    # Division on the grid takes local means of a density that falls as 1/|k|: 1.6 % too much here.
    scale = 0.005 if method == "least-squares" else 0.02
    assert np.sum(got.data * volume) / np.sum(volume**2) == pytest.approx(1, abs=scale)


def test_weights_make_the_density_uniform():
    box = 24
    _, matrices, slices = noiseless(box, 400)
    sums = ops.GridSums.zeros(ops.Grid(box, oversampling=2.0))
    ops.insert(sums, slices, matrices)
    ops.fold(sums)
    few = direct.density_weights(sums.weights, sums.grid, iterations=1)
    many = direct.density_weights(sums.weights, sums.grid, iterations=10)
    assert many.residual < GRIDDING_RESIDUAL
    assert many.residual < 0.2 * few.residual


def test_weights_with_ctf():
    """With the CTF in the weights the density residual is below 1e-2 after ten steps."""
    box, n = 24, 400
    _, matrices, slices = noiseless(box, n)
    rng = np.random.default_rng(0)
    rows = np.zeros((n, 9))
    rows[:, 0] = rows[:, 1] = rng.uniform(8000, 20000, n)
    rows[:, 3:6], rows[:, 8] = (300, 2.7, 0.1), 1
    sums = ops.GridSums.zeros(ops.Grid(box, oversampling=2.0))
    ops.insert(sums, slices, matrices, ctf=ops.ctf(rows, box, 3.0))
    ops.fold(sums)
    assert direct.density_weights(sums.weights, sums.grid, iterations=10).residual < GRIDDING_RESIDUAL


@pytest.mark.parametrize("group", ["C1", "C2", "C3", "C7", "D2", "D3", "T", "O", "I"])
def test_symmetry_split_is_the_group(group):
    matrices = symmetry_matrices(group)
    split = sums_of.Symmetry.of(matrices)
    products = np.einsum("cij,hjk->chik", split.cosets, split.on_grid).reshape(-1, 3, 3)
    assert len(products) == len(matrices)
    for m in matrices:
        assert np.abs(products - m).max(axis=(1, 2)).min() < 1e-6


@pytest.mark.parametrize("group", ["C4", "D2", "T", "O", "C3"])
def test_map_is_invariant_under_its_group(group):
    """Projections along equivalent directions are the same.

    With data to two thirds of Nyquist: a soft-edged ball is then below Nyquist too, so the map can be turned exactly.
    """
    box, apix, data_radius = 24, 2.0, 8
    _, matrices, slices = noiseless(box, 60, width_px=1.5)
    particles = matrices_to_particles(fourier.inverse(slices, (box, box)), matrices, apix)
    got = vg.reconstruct(particles, group, max_resolution_A=6.0, ctf=False).data
    grid = ops.Grid(box, width=8, oversampling=1.5)
    spectrum = gridding.to_grid(got, grid)
    view = Rotation.random(1, random_state=5).as_matrix()
    first = ops.project(spectrum, grid, view, max_radius=data_radius)
    for g in symmetry_matrices(group):
        other = ops.project(spectrum, grid, view @ g, max_radius=data_radius)
        assert np.abs(other - first).max() < SYMMETRY_INVARIANCE * np.abs(first).max()


def test_half_maps_and_full_map():
    box, n = 16, 300
    volume, matrices, slices = noiseless(box, n)
    images = fourier.inverse(slices, (box, box))
    particles = matrices_to_particles(images, matrices, rlnRandomSubset=1 + np.arange(n) % 2)
    full, (one, two) = vg.reconstruct(particles, halves=True, ctf=False)
    again = vg.reconstruct(particles, ctf=False)
    np.testing.assert_allclose(full.data, again.data, atol=1e-3 * np.abs(full.data).max())
    assert not np.array_equal(one.data, two.data)
    assert fsc_curve(one.data, volume)[:7].min() > 0.99


def test_half_sets_are_assigned_within_micrographs():
    images = np.random.default_rng(0).normal(size=(12, 8, 8)).astype(np.float32)
    matrices = Rotation.random(12, random_state=0).as_matrix()
    names = [f"mic{i // 4}.mrc" for i in range(12)]
    particles = matrices_to_particles(images, matrices, rlnMicrographName=names)
    halves = known_poses.half_sets(particles)
    assert np.array_equal(halves, known_poses.half_sets(particles))
    for micrograph in range(3):
        assert sorted(halves[4 * micrograph : 4 * micrograph + 4]) == [1, 1, 2, 2]


def test_result_does_not_depend_on_threads():
    box = 16
    _, matrices, slices = noiseless(box, 50)
    particles = matrices_to_particles(fourier.inverse(slices, (box, box)), matrices)
    one = vg.reconstruct(particles, threads=1)
    two = vg.reconstruct(particles, threads=2)
    assert np.array_equal(one.data, two.data)


def test_wiener_beats_every_constant():
    """With noise of known SSNR the Wiener prior has the least error."""
    box, n = 24, 200
    volume, matrices, slices = noiseless(box, n)
    rng = np.random.default_rng(3)
    images = fourier.inverse(slices, (box, box))
    noise_sd = 3 * images.std()
    noisy = (images + rng.normal(size=images.shape) * noise_sd).astype(np.float32)
    particles = matrices_to_particles(noisy, matrices)
    grid = least_squares.kernel_grid(box, 11)
    weights = ops.GridSums.zeros(grid, values=False)
    ops.insert(weights, None, matrices)
    ops.fold(weights)
    power = np.abs(fourier.forward(volume, 3)) ** 2
    shells, full = fourier.shells((box,) * 3), fourier.half_weights((box,) * 3)
    count = np.bincount(shells.ravel(), weights=np.broadcast_to(full, shells.shape).ravel())[:12]
    signal = np.bincount(shells.ravel(), weights=(power * full).ravel())[:12] / count
    transfer = np.fft.rfftn(np.fft.ifftshift(gridding.from_grid(weights.weights, grid, box=2 * box))).real
    means = least_squares._shell_means(transfer, box, 12)
    # Orthonormal modes: power |V|^2 / N^3 of the map, noise sigma^2 N^2 of an unnormalised image coefficient.
    ssnr = signal / box**3 * means / (noise_sd**2 * box**2)

    def error(ratio: np.ndarray) -> float:
        got = vg.reconstruct(particles, ctf=False, ssnr=ratio).data
        return float(np.linalg.norm(got - volume))

    best = error(ssnr)
    assert best < min(error(np.full(12, c)) for c in (1e-2, 0.1, 1.0, 10.0, 1e3))


def test_bad_particles_are_named_and_set_aside():
    box, n = 16, 30
    _, matrices, slices = noiseless(box, n)
    images = fourier.inverse(slices, (box, box))
    images[3, 0, 0] = np.nan
    images[7] = 1.0
    particles = matrices_to_particles(images, matrices)
    result = vg.reconstruction.reconstruct_report(particles)
    assert result.excluded == {3: "not finite (NaN or infinity)", 7: "constant pixels"}
    assert result.used == n - 2
    keep = np.setdiff1d(np.arange(n), [3, 7])
    np.testing.assert_array_equal(result.map.data, vg.reconstruct(particles[keep]).data)
    with pytest.warns(UserWarning, match="2 particles set aside"):
        vg.reconstruct(particles)


def test_bad_input_is_named():
    images = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float32)
    matrices = Rotation.random(4, random_state=0).as_matrix()
    particles = matrices_to_particles(images, matrices)
    with pytest.raises(vg.InputError, match="method"):
        vg.reconstruct(particles, method="magic")
    with pytest.raises(vg.InputError, match="C0"):
        vg.reconstruct(particles, "C0")
    with pytest.raises(vg.InputError, match="max_resolution_A"):
        vg.reconstruct(particles, max_resolution_A=-1)
    with pytest.raises(vg.InputError, match="poses"):
        vg.reconstruct(vg.Particles.from_images(images, 2.0))
    with pytest.raises(vg.InputError, match="none of the 4"):
        vg.reconstruct(matrices_to_particles(images * np.nan, matrices))


# --- the exact data: every convention at once ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact(data_dir):
    particles = vg.read_particles(data_dir / "exact" / "truth.star")
    return particles, vg.read_map(data_dir / "exact" / "truth.mrc")


def test_exact_projections_and_scale(exact):
    """Projections of truth.mrc differ from its own transform by <= 1e-3 and from the images by their noise."""
    particles, truth = exact
    box = truth.box
    grid = ops.Grid(box)
    spectrum = gridding.to_grid(truth.data, grid)
    matrices = vg.euler_to_matrix(particles.poses.angles_deg)
    inside = fourier.radius((box, box)) < box / 2 - 1
    got = ops.project(spectrum, grid, matrices[:8])
    want = reference.project.project(truth.data, matrices[:8], grid.max_radius)
    error = np.linalg.norm((got - want)[:, inside]) / np.linalg.norm(want[:, inside])
    assert error <= EXACT_PROJECTION_RELATIVE
    model = fourier.forward(vg.project(truth, particles.poses, particles.optics), 2)[:, inside]
    data = fourier.forward(particles.images(np.arange(len(particles))), 2)[:, inside]
    scale = np.sum((np.conj(model) * data).real) / np.sum(np.abs(model) ** 2)
    assert scale == pytest.approx(1, abs=EXACT_SCALE)
    assert np.linalg.norm(data - model) / np.linalg.norm(data) < EXACT_IMAGES_RESIDUAL


@pytest.mark.parametrize(
    ("method", "least"), [("direct", 0.997), pytest.param("least-squares", 0.999, marks=pytest.mark.slow)]
)
def test_exact_reconstruction(exact, data_dir, method, least):
    """The map from the 200 images: mean FSC >= 0.997 over shells 1..31, above RELION 5's own map."""
    particles, truth = exact
    mask = soft_sphere(truth.box, 0.425 * truth.box, 6.0)
    got = vg.reconstruct(particles, method=method)
    mean = vg.fsc(got, truth, mask=mask).curve[1:32].mean()
    relion = mrcfile.read(data_dir / "exact" / "relion_reconstruct_ctf.mrc")
    assert mean >= least
    assert mean > vg.fsc(vg.Map(relion, truth.pixel_size_A), truth, mask=mask).curve[1:32].mean()


def test_trpv1_convention_wins_over_the_mirror(data_dir):
    """Ten real particles: CTF-modulated projections correlate better than those of the mirrored map."""
    folder = data_dir / "particles"
    particles = vg.read_particles(folder / "trpv1_small_stack.star", stack=folder / "trpv1_small_stack.mrcs")
    volume = vg.read_map(folder / "trpv1_volume.mrc")
    mirrored = volume.with_data(np.roll(volume.data[::-1], 1, axis=0))
    x = np.arange(volume.box) - volume.box // 2
    disc = np.hypot(x[:, None], x) <= 18
    images = particles.images(np.arange(len(particles)))[:, disc]

    def correlation(map_):
        views = vg.project(map_, particles.poses, particles.optics)[:, disc]
        return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(views, images, strict=True)])

    right, wrong = correlation(volume), correlation(mirrored)
    assert np.all(right > wrong)
    assert right.min() > 0.15
    assert wrong.max() < 0.2


def test_an_empty_half_set_is_named_and_split_anew():
    """Not found as a numerical failure hours later."""
    p = vg.Particles.from_images(np.ones((6, 16, 16), np.float32), 4.0, poses=vg.Poses(np.zeros((6, 3))))
    with pytest.warns(vg.VerglasWarning, match="half set"):
        halves = half_sets(p.with_columns(rlnRandomSubset=1))
    assert sorted(halves.tolist()) == [1, 1, 1, 2, 2, 2]
