"""ops.refine_pose: derivatives against exact sums, convergence, maximum against scipy, errors against Cramer-Rao."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas import fourier, gridding, ops, reference, simulate
from verglas.simulate import scattering

from devices import on
from tolerance import (
    POSE_DERIVATIVE_RELATIVE,
    POSE_FINE_DERIVATIVE_RELATIVE,
    POSE_SCORE_RELATIVE,
)

FINE = {"width": 8, "oversampling": 1.5}


def blob(box: int, seed: int, fill: float = 0.6) -> np.ndarray:
    """Smoothed noise inside a sphere of diameter fill * box: no symmetry, every frequency present."""
    x = np.arange(box) - box // 2
    inside = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 <= (fill * box / 2) ** 2
    noise = np.random.default_rng(seed).normal(size=(box,) * 3)
    low = fourier.radius((box,) * 3) / box
    smooth = np.fft.irfftn(np.fft.rfftn(noise) * np.exp(-30 * low**2), s=(box,) * 3, axes=(0, 1, 2))
    return (smooth * inside).astype(np.float32)


def even_ctf(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A random factor that a real image can have: equal on both mates of the column kx = 0."""
    c = rng.normal(size=shape).astype(np.float32)
    c[:, 1:, 0] = (c[:, 1:, 0] + c[:, :0:-1, 0]) / 2
    return c


def rotation_between_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.rad2deg(Rotation.from_matrix(np.asarray(a) @ np.swapaxes(b, -1, -2)).magnitude())


def perturbed(
    matrices: np.ndarray, shifts: np.ndarray, angle_deg: float, shift_px: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Poses off by exactly that angle and distance, in random directions."""
    rng = np.random.default_rng(seed)
    w, d = rng.normal(size=(len(matrices), 3)), rng.normal(size=(len(matrices), 2))
    w *= np.deg2rad(angle_deg) / np.linalg.norm(w, axis=1, keepdims=True)
    d *= shift_px / np.linalg.norm(d, axis=1, keepdims=True)
    return Rotation.from_rotvec(w).as_matrix() @ matrices, shifts + d


def problem(box: int, seed: int, n: int = 1, noise: float = 0.5, **grid):
    """Grid, map, its transform; n noisy images of it with CTF and weights; the true poses."""
    rng = np.random.default_rng(seed)
    volume, g = blob(box, seed), ops.Grid(box, **grid)
    matrices, shifts = Rotation.random(n, random_state=seed).as_matrix(), rng.normal(size=(n, 2))
    ctf = even_ctf((n, box, box // 2 + 1), rng)
    clean = ops.project(gridding.to_grid(volume, g), g, matrices, shifts_px=shifts, ctf=ctf)
    white = fourier.forward(rng.normal(size=(n, box, box)).astype(np.float32), 2)
    level = noise * np.sqrt(np.mean(np.abs(clean) ** 2) / np.mean(np.abs(white) ** 2))
    weight = rng.uniform(0.5, 2, (n, g.max_radius + 1)).astype(np.float32) / max(level * box, 1e-3) ** 2
    return g, volume, clean + np.float32(level) * white, ctf, weight, matrices, shifts


def reference_at(volume, images, ctf, weight, result: ops.PoseResult, i: int) -> reference.refine_pose.Evaluation:
    a, d = result.matrices[i], result.shifts_px[i]
    return reference.refine_pose.evaluate(volume, images[i], a, d, weight[i], ctf[i])


def test_reference_gradient_equals_finite_differences():
    """The oracle itself: derivatives of the exact sums against central differences of its score."""
    _, volume, images, ctf, weight, matrices, shifts = problem(14, 1)

    def score(step: np.ndarray) -> float:
        pose = reference.refine_pose.move_pose(matrices[0], shifts[0], step)
        return reference.refine_pose.evaluate(volume, images[0], *pose, weight[0], ctf[0]).score

    exact = reference.refine_pose.evaluate(volume, images[0], matrices[0], shifts[0], weight[0], ctf[0])
    steps = 1e-5 * np.eye(5)
    differences = [(score(s) - score(-s)) / 2e-5 for s in steps]
    np.testing.assert_allclose(exact.gradient, differences, rtol=1e-7, atol=1e-7 * np.abs(exact.gradient).max())


@settings(deadline=None, max_examples=12)
@given(box=st.integers(8, 21), seed=st.integers(0, 1000), data=st.data())
def test_score_gradient_and_fisher_equal_the_exact_sums(device, box, seed, data):
    """Eight taps leave float32 rounding only: every number against the float64 Fourier sums, any box and radius."""
    g, volume, images, ctf, weight, matrices, shifts = problem(box, seed, **FINE)
    radius = data.draw(st.integers(1, g.max_radius))
    weight = np.ascontiguousarray(weight[:, : radius + 1])
    start = perturbed(matrices, shifts, 5.0, 0.5, seed)
    search = ops.PoseSettings(max_radius=radius, steps=0)
    got = ops.refine_pose(
        images, gridding.to_grid(volume, g), g, *start, ctf=ctf, shell_weight=weight, search=search, device=device
    )
    want = reference_at(volume, images, ctf, weight, got, 0)
    unit = np.sqrt(np.diag(want.fisher))
    scale = (
        np.sum(weight[0, fourier.shells((box, box))[fourier.shells((box, box)) <= radius]]) * np.abs(images).max() ** 2
    )
    assert abs(got.scores[0] - want.score) <= POSE_SCORE_RELATIVE * scale
    # In units of standard deviations, so that radians and pixels compare; a score changes by about its norm per unit.
    norm = np.linalg.norm(want.gradient / unit) + np.sqrt(2 * scale)
    assert np.abs((got.gradient[0] - want.gradient) / unit).max() <= POSE_FINE_DERIVATIVE_RELATIVE * norm
    assert np.abs((got.fisher[0] - want.fisher) / np.outer(unit, unit)).max() <= POSE_FINE_DERIVATIVE_RELATIVE
    assert got.evaluations[0] == 1
    np.testing.assert_array_equal(got.matrices, start[0])


def test_default_window_keeps_the_fisher_information(device):
    """Four taps: the derivative of the window is less accurate than the window; the bound must not feel it."""
    g, volume, images, ctf, weight, matrices, shifts = problem(24, 2, n=4)
    search = ops.PoseSettings(steps=0)
    got = ops.refine_pose(
        images,
        gridding.to_grid(volume, g),
        g,
        matrices,
        shifts,
        ctf=ctf,
        shell_weight=weight,
        search=search,
        device=device,
    )
    for i in range(4):
        want = reference_at(volume, images, ctf, weight, got, i).fisher
        unit = np.sqrt(np.diag(want))
        assert np.abs((got.fisher[i] - want) / np.outer(unit, unit)).max() < POSE_DERIVATIVE_RELATIVE


def test_clean_data_at_the_true_pose_has_the_closed_form_score(device):
    """Absolute scale: X = mu gives L = sum |mu|^2 / 2 sigma^2, and no gradient."""
    g, volume, _, ctf, weight, matrices, shifts = problem(20, 3)
    spectrum = gridding.to_grid(volume, g)
    clean = 1.7 * ops.project(spectrum, g, matrices, shifts_px=shifts, ctf=ctf)
    shells, twice = fourier.shells((20, 20)), fourier.half_weights((20, 20))
    use = (shells > 0) & (shells <= g.max_radius)
    want = np.sum((np.abs(clean[0].astype(np.complex128)) ** 2 * twice)[use] * weight[0, shells[use]]) / 2
    as_they_are = ops.PoseSettings(steps=0)
    got = ops.refine_pose(
        clean,
        spectrum,
        g,
        matrices,
        shifts,
        ctf=ctf,
        shell_weight=weight,
        scale=[1.7],
        search=as_they_are,
        device=device,
    )
    assert got.scores[0] == pytest.approx(want, rel=1e-5)
    unit = np.sqrt(np.diag(got.fisher[0]))
    assert np.abs(got.gradient[0] / unit).max() < 1e-5 * np.sqrt(2 * want)


def atoms_and_map(box: int, pixel_size_A: float, diameter_A: float, seed: int = 0):
    """A phantom, and the exact transforms of its images and map: no interpolation in the data."""
    model = simulate.phantom(box, pixel_size_A, diameter_A, seed=seed)
    atoms, types, factors = scattering.atom_table(model, pixel_size_A)
    transform = ops.scatter_volume(atoms, types, factors, box, pixel_size_A)
    return (atoms, types, factors), fourier.inverse(transform, (box,) * 3)


def exact_images(table, matrices, shifts_px, box: int, pixel_size_A: float) -> np.ndarray:
    # A particle sits at minus the origin; a displacement in pixels is minus an origin in pixels.
    return ops.scatter(*table, matrices, -shifts_px * pixel_size_A, box, pixel_size_A)


@pytest.mark.parametrize("box", [48, 49])
def test_converges_from_half_a_grid_step_on_noise_free_data(device, box):
    """Issue: from half a step (3.75 degrees, 1 px) to better than 1/20 of the step (0.375 degrees, 0.1 px)."""
    n, pixel = 40, 3.0
    table, volume = atoms_and_map(box, pixel, 0.7 * 48 * pixel)
    matrices = Rotation.random(n, random_state=5).as_matrix()
    shifts = np.random.default_rng(6).normal(size=(n, 2))
    images = exact_images(table, matrices, shifts, box, pixel)
    g = ops.Grid(box)
    search = ops.PoseSettings(coarse_radii=ops.pose_radii(g, 3.75, 1.0, 0.7 * box))
    found = ops.refine_pose(
        images, gridding.to_grid(volume, g), g, *perturbed(matrices, shifts, 3.75, 1.0, 7), search=search, device=device
    )
    assert found.converged.all()
    assert rotation_between_deg(found.matrices, matrices).max() < 7.5 / 20
    assert np.linalg.norm(found.shifts_px - shifts, axis=1).max() < 2.0 / 20


@pytest.mark.slow_emulated
@pytest.mark.parametrize("seed", range(3))
def test_maximum_equals_that_of_scipy_on_the_exact_score(device, seed):
    """Noisy data: the pose where the kernel stops against BFGS on the float64 sums, in standard deviations."""
    g, volume, images, ctf, weight, matrices, shifts = problem(16, 10 + seed, noise=1.0, **FINE)
    start = perturbed(matrices, shifts, 3.0, 0.3, seed)
    search = ops.PoseSettings(tolerance_deg=1e-4, tolerance_px=1e-4)
    found = ops.refine_pose(
        images, gridding.to_grid(volume, g), g, *start, ctf=ctf, shell_weight=weight, search=search, device=device
    )
    a, d, best = reference.refine_pose.refine_pose(volume, images[0], start[0][0], start[1][0], weight[0], ctf[0])
    assert found.converged.all()
    off = np.r_[Rotation.from_matrix(found.matrices[0] @ a.T).as_rotvec(), found.shifts_px[0] - d]
    assert np.sqrt(off @ best.fisher @ off) < 1e-2
    assert reference_at(volume, images, ctf, weight, found, 0).score == pytest.approx(best.score, abs=1e-3)


def simulated(n: int, box: int, pixel_size_A: float, diameter_A: float, snr: float):
    """Exact particles with CTF and white noise at an SNR over the whole box; true poses."""
    rng = np.random.default_rng(21)
    table, volume = atoms_and_map(box, pixel_size_A, diameter_A)
    matrices, shifts = Rotation.random(n, random_state=22).as_matrix(), rng.normal(size=(n, 2))
    defocus = rng.uniform(8000, 16000, n)
    params = np.column_stack([defocus, defocus - 300, *np.tile([[30.0, 300, 2.7, 0.1, 0, 0, 1]], (n, 1)).T])
    ctf = ops.ctf(params, box, pixel_size_A)
    clean = exact_images(table, matrices, shifts, box, pixel_size_A) * ctf
    real = fourier.inverse(clean, (box, box))
    sigma = float(np.sqrt(real.var(axis=(1, 2)).mean() / snr))
    images = clean + fourier.forward(rng.normal(0, sigma, real.shape).astype(np.float32), 2)
    g = ops.Grid(box)
    weight = np.full((n, g.max_radius + 1), 1 / (sigma * box) ** 2, np.float32)
    return g, gridding.to_grid(volume, g), images, ctf, weight, matrices, shifts


def bound_errors_deg(covariance: np.ndarray, seed: int, draws: int = 200) -> np.ndarray:
    """Angular errors that the Cramer-Rao covariance predicts: normal rotation vectors."""
    z = np.random.default_rng(seed).normal(size=(draws, len(covariance), 3))
    root = np.linalg.cholesky(covariance[:, :3, :3])
    return np.rad2deg(np.linalg.norm(np.einsum("nij,dnj->dni", root, z), axis=-1)).ravel()


@pytest.mark.slow_emulated
def test_errors_of_noisy_particles_follow_the_cramer_rao_bound(device):
    """Issue: median angular error within 1.2x of the bound at SNR 0.05; and the whole 5 x 5 covariance, not only it."""
    n = 300
    g, spectrum, images, ctf, weight, matrices, shifts = simulated(n, 64, 2.5, 110.0, snr=0.05)
    common = {"ctf": ctf, "shell_weight": weight}
    at_truth = ops.refine_pose(
        images, spectrum, g, matrices, shifts, search=ops.PoseSettings(steps=0), **common, device=device
    )
    found = ops.refine_pose(images, spectrum, g, *perturbed(matrices, shifts, 1.0, 0.3, 23), **common, device=device)
    assert found.converged.mean() > 0.99
    assert (found.scores >= at_truth.scores - 1e-3 * np.abs(at_truth.scores)).all()
    errors = rotation_between_deg(found.matrices, matrices)
    bound = bound_errors_deg(at_truth.covariance(), 24)
    assert 0.85 < np.median(errors) / np.median(bound) < 1.2
    turned = Rotation.from_matrix(found.matrices @ matrices.transpose(0, 2, 1)).as_rotvec()
    off = np.column_stack([turned, found.shifts_px - shifts])
    normalised = np.einsum("na,nab,nb->n", off, at_truth.fisher, off)
    # Medians and quartiles of chi-square with 5 degrees of freedom; a few particles may sit on a neighbouring peak.
    for q in (0.25, 0.5, 0.75):
        assert np.quantile(normalised, q) == pytest.approx(scipy.stats.chi2.ppf(q, 5), rel=0.2)


def test_result_does_not_depend_on_threads_or_batch(device):
    g, volume, images, ctf, weight, matrices, shifts = problem(18, 4, n=9)
    spectrum = gridding.to_grid(volume, g)
    start = perturbed(matrices, shifts, 3.0, 0.5, 1)
    whole = ops.refine_pose(images, spectrum, g, *start, ctf=ctf, shell_weight=weight, threads=1, device=device)
    other = ops.refine_pose(images, spectrum, g, *start, ctf=ctf, shell_weight=weight, threads=3, device=device)
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
    for i in (0, 5):
        part = slice(i, i + 1)
        one = ops.refine_pose(
            images[part],
            spectrum,
            g,
            start[0][part],
            start[1][part],
            ctf=ctf[part],
            shell_weight=weight[part],
            device=device,
        )
        assert one.scores[0] == whole.scores[i]
        np.testing.assert_array_equal(one.matrices[0], whole.matrices[i])


def test_candidates_of_an_image_share_it(device):
    """Several poses per image, in any order: as if the image had been repeated."""
    g, volume, images, ctf, weight, matrices, shifts = problem(18, 5, n=3)
    spectrum = gridding.to_grid(volume, g)
    index = np.array([2, 0, 2, 1, 0])
    start = perturbed(matrices[index], shifts[index], 2.0, 0.3, 8)
    got = ops.refine_pose(images, spectrum, g, *start, ctf=ctf, shell_weight=weight, image_of_pose=index, device=device)
    want = ops.refine_pose(
        images[index], spectrum, g, *start, ctf=ctf[index], shell_weight=weight[index], device=device
    )
    np.testing.assert_array_equal(got.scores, want.scores)
    with pytest.raises(ValueError, match="image_of_pose"):
        ops.refine_pose(images, spectrum, g, *start, image_of_pose=index + 1, device=device)


def test_prior_balances_the_data(device):
    """The maximum of L plus log prior: gradients cancel; a narrow prior holds the pose, a wide one lets it go."""
    g, volume, images, ctf, weight, matrices, shifts = problem(20, 6, n=4, noise=2.0)
    spectrum = gridding.to_grid(volume, g)
    start = perturbed(matrices, shifts, 3.0, 0.5, 2)
    common = {"ctf": ctf, "shell_weight": weight}
    search = ops.PoseSettings(tolerance_deg=1e-4, tolerance_px=1e-4)
    prior = ops.PosePrior(angle_sigma_deg=1.0, shift_sigma_px=0.2)
    found = ops.refine_pose(images, spectrum, g, *start, prior=prior, search=search, **common, device=device)
    assert found.converged.all()
    w = Rotation.from_matrix(found.matrices @ start[0].transpose(0, 2, 1)).as_rotvec()
    off = found.shifts_px - start[1]
    pull = np.column_stack([w / np.deg2rad(1.0) ** 2, off / 0.2**2])
    unit = np.sqrt(np.diagonal(found.fisher, axis1=1, axis2=2))
    np.testing.assert_allclose(found.gradient / unit, pull / unit, atol=2e-2)
    log_prior = -(w**2).sum(1) / (2 * np.deg2rad(1.0) ** 2) - (off**2).sum(1) / (2 * 0.2**2)
    np.testing.assert_allclose(found.log_prior, log_prior, rtol=1e-6, atol=1e-9)
    held = ops.refine_pose(
        images,
        spectrum,
        g,
        *start,
        prior=ops.PosePrior(angle_sigma_deg=1e-3, shift_sigma_px=1e-3),
        **common,
        device=device,
    )
    assert rotation_between_deg(held.matrices, start[0]).max() < 0.05
    free = ops.refine_pose(images, spectrum, g, *start, **common, device=device)
    wide = ops.refine_pose(images, spectrum, g, *start, prior=ops.PosePrior(1e4, 1e4), **common, device=device)
    assert rotation_between_deg(wide.matrices, free.matrices).max() < 0.01  # twice the tolerance
    centre = ops.PosePrior(shift_sigma_px=1e-4, shifts_px=np.zeros((4, 2)))
    centred = ops.refine_pose(images, spectrum, g, start[0], np.zeros((4, 2)), prior=centre, **common, device=device)
    assert np.abs(centred.shifts_px).max() < 0.01


@settings(deadline=None, max_examples=10)
@given(
    box=st.integers(6, 24), seed=st.integers(0, 1000), zero=st.sampled_from(["map", "image", "ctf", "weight", "none"])
)
def test_empty_inputs_and_small_boxes_never_fail(device, box, seed, zero):
    """A reference of zeros, an empty image, one ring only, odd and even boxes: finite numbers and an honest status."""
    g, volume, images, ctf, weight, matrices, shifts = problem(box, seed)
    if zero == "map":
        volume = np.zeros_like(volume)
    for name, array in (("image", images), ("ctf", ctf), ("weight", weight)):
        if zero == name:
            array[:] = 0
    search = ops.PoseSettings(max_radius=1)
    got = ops.refine_pose(
        images,
        gridding.to_grid(volume, g),
        g,
        matrices,
        shifts,
        ctf=ctf,
        shell_weight=np.ascontiguousarray(weight[:, :2]),
        search=search,
        device=device,
    )
    for name, value in vars(got).items():
        assert np.isfinite(value).all(), name
    np.testing.assert_allclose(got.matrices @ got.matrices.transpose(0, 2, 1), np.eye(3)[None], atol=1e-9)
    if zero in ("map", "ctf", "weight"):
        assert ops.POSE_STATUS[got.status[0]] == "no information"
        assert not got.converged[0]
        assert np.isinf(got.angle_error_deg()[0])
        np.testing.assert_array_equal(got.matrices, matrices)


def test_score_never_falls_and_the_step_limit_is_told(device):
    g, volume, images, ctf, weight, matrices, shifts = problem(20, 7, n=6, noise=3.0)
    spectrum = gridding.to_grid(volume, g)
    start = perturbed(matrices, shifts, 8.0, 1.0, 3)
    scores = [
        ops.refine_pose(
            images,
            spectrum,
            g,
            *start,
            ctf=ctf,
            shell_weight=weight,
            search=ops.PoseSettings(steps=steps),
            device=device,
        )
        for steps in (0, 1, 2, 4, 50)
    ]
    for before, after in itertools.pairwise(scores):
        assert (after.scores >= before.scores - 1e-5 * np.abs(before.scores)).all()
    assert not scores[1].converged.any()
    assert {ops.POSE_STATUS[s] for s in scores[1].status} == {"step limit"}


@pytest.mark.parametrize("where", ["images", "ctf", "shell_weight", "scale", "shifts_px"])
def test_nan_names_the_particle(device, where):
    """NaN pixels are an error that names the particle and the array."""
    g, volume, images, ctf, weight, matrices, shifts = problem(16, 8, n=5)
    scale = np.ones(5)
    arrays = {"images": images, "ctf": ctf, "shell_weight": weight, "scale": scale, "shifts_px": shifts}
    arrays[where][(3,) + (slice(None),) * (arrays[where].ndim - 1)] = np.nan
    spectrum = gridding.to_grid(volume, g)
    with pytest.raises(ValueError, match=rf"particle 3: NaN or infinity in {where}"):
        ops.refine_pose(images, spectrum, g, matrices, shifts, ctf=ctf, shell_weight=weight, scale=scale, device=device)


def test_bad_input_is_named(device):
    g, volume, images, _, weight, matrices, shifts = problem(16, 9, n=2)
    spectrum = gridding.to_grid(volume, g)
    with pytest.raises(ValueError, match="matrices: matrix 1 is not a rotation"):
        ops.refine_pose(images, spectrum, g, matrices * [[[1]], [[-1]]], device=device)
    with pytest.raises(ValueError, match="matrices: matrix 0 is not a rotation"):
        ops.refine_pose(images, spectrum, g, np.full((2, 3, 3), np.nan), device=device)
    with pytest.raises(ValueError, match="matrices: matrix 0 is not a rotation"):  # left-handed
        ops.refine_pose(images, spectrum, g, matrices * [[[1.0], [1.0], [-1.0]]], device=device)
    twice = ops.PosePrior(angle_sigma_deg=1.0, matrices=2 * matrices)
    with pytest.raises(ValueError, match=r"prior\.matrices: matrix 0 is not a rotation"):
        ops.refine_pose(images, spectrum, g, matrices, prior=twice, device=device)
    with pytest.raises(ValueError, match="one pose per image"):
        ops.refine_pose(images, spectrum, g, matrices[:1], device=device)
    with pytest.raises(ValueError, match="shifts_px"):
        ops.refine_pose(images, spectrum, g, matrices, shifts[:1], device=device)
    with pytest.raises(ValueError, match="shell_weight"):
        ops.refine_pose(images, spectrum, g, matrices, shell_weight=weight[:, 1:], device=device)
    with pytest.raises(ValueError, match="max_radius"):
        ops.refine_pose(images, spectrum, g, matrices, search=ops.PoseSettings(max_radius=8), device=device)
    with pytest.raises(ValueError, match="ascending"):
        ops.refine_pose(images, spectrum, g, matrices, search=ops.PoseSettings(coarse_radii=(4, 4)), device=device)
    with pytest.raises(ValueError, match="angle_sigma_deg"):
        ops.PosePrior(angle_sigma_deg=0.0)
    with pytest.raises(ValueError, match="tolerance_px"):
        ops.PoseSettings(tolerance_px=-1)
    with pytest.raises(ValueError, match="diameter"):
        ops.pose_radii(g, -90.0, 0.0, 10.0)


def test_exact_data_set_refines_to_its_poses(device, data_dir):
    """Conventions, on images made elsewhere: from 2 degrees and 1 px off back to the poses of the STAR file."""
    p = vg.read_particles(data_dir / "exact" / "truth.star")[np.arange(40)]
    volume = vg.read_map(data_dir / "exact" / "truth.mrc").data
    g = ops.Grid(p.box)
    images = fourier.forward(p.images(np.arange(40)), 2)
    matrices, shifts = vg.euler_to_matrix(p.poses.angles_deg), -p.poses.shifts_A / p.pixel_size_A
    ctf = vg.ctf(p.optics, p.box, p.pixel_size_A)
    start = perturbed(matrices, shifts, 2.0, 1.0, 4)
    search = ops.PoseSettings(coarse_radii=ops.pose_radii(g, 2.0, 1.0, 45))
    found = ops.refine_pose(images, gridding.to_grid(volume, g), g, *start, ctf=ctf, search=search, device=device)
    assert found.converged.all()
    assert np.median(rotation_between_deg(found.matrices, matrices)) < 0.02
    assert np.median(np.linalg.norm(found.shifts_px - shifts, axis=1)) < 0.005


def test_arrays_may_lie_on_the_device(device):
    g, volume, images, ctf, weight, matrices, shifts = problem(18, 14, n=3)
    spectrum, start = gridding.to_grid(volume, g), perturbed(matrices, shifts, 3.0, 0.5, 1)
    want = ops.refine_pose(images, spectrum, g, *start, ctf=ctf, shell_weight=weight, device=device)
    x, v, c, w = (on(device, a) for a in (images, spectrum, ctf, weight))
    got = ops.refine_pose(x, v, g, *start, ctf=c, shell_weight=w, scale=on(device, np.ones(3)), device=device)
    for name, value in vars(got).items():
        np.testing.assert_array_equal(value, getattr(want, name), err_msg=name)
    x[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="particle 1: NaN or infinity in images"):
        ops.refine_pose(x, v, g, *start, device=device)


def test_devices_agree(device):
    """Noisy particles climb to the same poses, at the same height, wherever."""
    g, volume, images, ctf, weight, matrices, shifts = problem(24, 15, n=12, noise=2.0)
    spectrum, start = gridding.to_grid(volume, g), perturbed(matrices, shifts, 3.0, 0.5, 1)
    known = {"ctf": ctf, "shell_weight": weight, "search": ops.PoseSettings(coarse_radii=(5,))}
    want = ops.refine_pose(images, spectrum, g, *start, **known)
    got = ops.refine_pose(images, spectrum, g, *start, device=device, **known)
    np.testing.assert_allclose(got.scores, want.scores, rtol=1e-4, atol=POSE_SCORE_RELATIVE * np.abs(want.scores).max())
    off = Rotation.from_matrix(got.matrices @ want.matrices.transpose(0, 2, 1)).as_rotvec()
    step = np.column_stack([off, got.shifts_px - want.shifts_px])
    # Both stop where the next step is below 0.005 degrees and pixels.
    assert np.sqrt(np.einsum("na,nab,nb->n", step, want.fisher, step)).max() < 0.05
