"""What the scores of ops.score mean: one identity, a Gaussian likelihood, posteriors; poses that are found by them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

import verglas as vg
from verglas import geometry, ops, reference

from score_problem import Problem, blob_map, circle, clean_images, disc, nonuniform, slices_of


def test_squared_difference_correlation_and_power_are_one_identity(device):
    """|X - R|^2 = |X|^2 - 2 X.R + |R|^2, here with the kernel's X.R - |R|^2 / 2, to 1e-5."""
    grid = ops.PolarGrid(32, 12)
    rng = np.random.default_rng(0)
    x = ops.polar(rng.standard_normal((2, 32, 32)).astype(np.float32), grid)
    r = ops.polar(rng.standard_normal((3, 32, 32)).astype(np.float32), grid)
    n_psi, shifts = 16, [[0.0, 0.0]]
    everything = {"log_psi": np.zeros(n_psi), "log_shift": [0.0]}
    plan = ops.ScorePlan(grid, n_psi, n_power=grid.max_m // 2 + 1, window_nats=1e9, device=device)
    plan.set_reference(r, log_prior=np.column_stack([np.zeros(3), np.full(3, -np.inf)]))
    found = plan.run(x, shifts, **everything)
    m = np.fft.fftfreq(grid.n_theta, 1 / grid.n_theta)
    psi = np.deg2rad(ops.psi_angles_deg(n_psi))
    series = np.fft.fft(circle(r)) * (np.abs(m) <= grid.limits[:, None])
    turned = np.fft.ifft(series[:, None] * np.exp(1j * psi[:, None, None] * m))
    w = grid.weights[:, None]
    difference = np.sum(np.abs(circle(x)[:, None, None] - turned) ** 2 * w, axis=(-1, -2))
    images = np.sum(np.abs(circle(x)) ** 2 * w, axis=(-1, -2))
    # the harmonics dropped from the slice carry power; both sides keep the same ones
    kept = np.sum(np.abs(turned) ** 2 * w, axis=(-1, -2))
    whole = np.sum(np.abs(circle(r)) ** 2 * w, axis=(-1, -2))[:, None]
    want = -0.5 * (difference - images[:, None, None]) + 0.5 * (kept - whole)
    got = np.zeros_like(want)
    got[found.image, found.slice, found.psi] = found.score
    np.testing.assert_allclose(got, want, atol=2e-5 * images.max())


def test_gaussian_likelihood_equals_scipy_and_never_underflows(device):
    """The log density against scipy; differences of L are differences of it; far tails stay finite."""
    rng = np.random.default_rng(2)
    x, mean = rng.standard_normal((2, 20, 20))
    want = stats.norm.logpdf(x, mean, np.sqrt(1.7)).sum()
    assert abs(reference.score.gaussian_log_density(x, mean, 1.7) / want - 1) < 1e-6
    box, radius, sigma2 = 20, 9, 1.7
    kx, ky = reference.score.plane(box, radius)
    inside = np.zeros((box, box), bool)
    inside[ky.astype(int) % box, kx.astype(int) % box] = True
    volume = blob_map(box, 1)
    k = np.fft.fftfreq(box, 1 / box)
    matrices = vg.euler_to_matrix([[10, 20, 30], [50, 100, 200]])
    cross, power = reference.score.cartesian_terms(
        x[None],
        nonuniform(volume, reference.score.plane_of_slices(matrices, box, radius)),
        [[0, 0]],
        np.full((1, 20), 1 / (sigma2 * box**2)),
        radius,
    )
    likelihood = (cross[..., 0] - power / 2)[0]
    y2, x2 = np.meshgrid(k, k, indexing="ij")
    density = []
    for matrix in matrices:
        # band-limited projection and image in real space
        f = nonuniform(volume, x2[..., None] * matrix[0] + y2[..., None] * matrix[1]) * inside
        projection = np.fft.fftshift(np.fft.ifft2(f).real)
        limited = np.fft.ifft2(np.fft.fft2(x) * inside).real
        density.append(reference.score.gaussian_log_density(limited, projection, sigma2))
    assert abs((density[0] - density[1]) / (likelihood[0] - likelihood[1]) - 1) < 1e-6
    # a particle 10^4 sigma away: L near -1e7, its log-sum-exp finite
    grid = ops.PolarGrid(box, 7)
    found = ops.score(
        ops.polar(1e3 * x[None], grid),
        ops.polar(1e3 * mean[None], grid),
        grid,
        [[0, 0]],
        16,
        inv_sigma2=np.full(grid.n_rings, 1.0),
        device=device,
    )
    assert np.isfinite(found.log_evidence).all()
    assert found.log_evidence[0] < -1e6 or found.log_evidence[0] > 1e6


def test_marginal_likelihood_converges_with_the_step_and_ignores_the_gauge(device):
    """Quadrature over psi converges; turning every slice in its plane changes nothing."""
    p = Problem(12, n=4, noise=4.0, radius=8)
    p.device = device
    evidence = {}
    for n_psi in (16, 32, 64, 128):
        plan = ops.ScorePlan(p.grid, n_psi, n_power=8, device=device)
        plan.set_reference(p.slices)
        evidence[n_psi] = p.run(plan).log_evidence
    steps = [np.abs(evidence[a] - evidence[128]).max() for a in (16, 32, 64)]
    assert steps[2] < 2e-3
    assert steps[0] >= steps[2]
    plan = ops.ScorePlan(p.grid, 128, n_power=8, device=device)
    plan.set_reference(slices_of(p.volume, p.directions, p.grid, psi=17.3))
    np.testing.assert_allclose(p.run(plan).log_evidence, evidence[128], atol=5e-3)


def test_posterior_sums_to_one_and_sharpens_with_signal(device):
    """Probabilities of all poses sum to 1; their entropy falls as the noise falls."""
    entropy = []
    for noise in (20.0, 5.0, 1.0, 0.3):
        p = Problem(4, n=3, noise=noise)
        p.device = device
        found = p.run(p.plan(window_nats=1e5, max_candidates=10**7))
        sums = np.bincount(found.image, found.probability)
        np.testing.assert_allclose(sums, 1, atol=1e-5)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.nan_to_num(-found.probability * np.log(found.probability))
        entropy.append(terms.sum() / 3)
    assert all(a > b for a, b in itertools.pairwise(entropy))


@pytest.mark.slow_emulated
def test_projection_matching_finds_the_nearest_projection(device):
    """Best reference of a gallery at SNR 0.1, median angular error below half a step of the gallery."""
    rng = np.random.default_rng(0)
    box, n, order = 48, 200 if device == "cpu" else 60, 2
    volume = blob_map(box, 21, blobs=25)
    grid = ops.PolarGrid(box, 16, diameter_px=0.8 * box)
    directions = geometry.healpix_directions(order)
    angles = np.column_stack(
        [rng.uniform(-180, 180, n), np.degrees(np.arccos(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)]
    )
    clean = clean_images(volume, angles, np.zeros((n, 2)))
    sigma2 = clean.var() / 0.1
    images = (clean + rng.normal(0, np.sqrt(sigma2), clean.shape)).astype(np.float32) * disc(box, 0.4 * box)
    found = ops.score(
        ops.polar(images, grid),
        slices_of(volume, directions, grid),
        grid,
        [[0, 0]],
        48,
        inv_sigma2=np.full(grid.n_rings, 1 / (sigma2 * box**2)),
        device=device,
    )

    def view(d):
        rot, tilt = np.deg2rad(d).T
        return np.stack([np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)], -1)

    cosine = np.sum(view(directions[found.best_slice]) * view(angles[:, :2]), axis=1)
    assert np.median(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) < geometry.healpix_spacing_deg(order) / 2


@pytest.mark.slow_emulated
def test_rotational_alignment_of_images_within_half_a_degree(device):
    """2D references are slices of their own; the angle at SNR 1 within 0.5 degrees."""
    rng = np.random.default_rng(6)
    box, n_psi = 64, 720
    volume = blob_map(box, 31, blobs=25)
    grid = ops.PolarGrid(box, 28, diameter_px=0.8 * box)
    true = rng.uniform(-180, 180, 12)
    clean = clean_images(volume, np.column_stack([np.zeros(12), np.zeros(12), true]), np.zeros((12, 2)))
    upright = clean_images(volume, [[0, 0, 0]], [[0, 0]])
    noisy = clean + rng.normal(0, clean.std(), clean.shape)
    images = (noisy * disc(box, 0.4 * box)).astype(np.float32)
    for score in ("likelihood", "correlation"):
        plan = ops.ScorePlan(grid, n_psi, score=score, device=device)
        plan.set_reference(ops.polar(upright, grid))
        inv = np.full(grid.n_rings, 1 / (clean.var() * box**2))
        found = plan.run(ops.polar(images, grid), [[0, 0]], inv_sigma2=inv)
        error = (ops.psi_angles_deg(n_psi)[found.best_psi] - true + 180) % 360 - 180
        assert np.abs(error).max() < 0.5


@pytest.mark.slow_emulated
def test_the_shift_of_the_textbook_example_is_found(device):
    """An image displaced by (8, -6) pixels is brought back by (-8, 6), with rotation searched as well."""
    box = 64
    image = clean_images(blob_map(box, 2), [[30, 40, 0]], [[0, 0]])
    moved = np.roll(image, (-6, 8), axis=(1, 2))  # y, x
    grid = ops.PolarGrid(box, 20)
    shifts = np.array([(x, y) for x in range(-9, 10) for y in range(-9, 10)], np.float32)
    log_psi = None
    plan = ops.ScorePlan(grid, 64, device=device)
    turned = clean_images(blob_map(box, 2), [[30, 40, -ops.psi_angles_deg(64)[3]]], [[0, 0]])
    plan.set_reference(ops.polar(turned, grid))
    found = plan.run(ops.polar(moved, grid), shifts, log_psi=log_psi)
    assert shifts[found.best_shift[0]].tolist() == [-8, 6]
    assert found.best_psi[0] == 3
