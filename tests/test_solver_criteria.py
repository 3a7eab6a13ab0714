"""What each solver is held to: conjugacy, closed forms, optimality, unbiased batches, constraints, few non-zeros."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg as sla

import verglas as vg
from verglas import ops
from verglas.reconstruction import priors
from verglas.reconstruction.solvers import solve

RNG = np.random.default_rng(90)
A = RNG.normal(size=(60, 20))
F = A @ RNG.normal(size=20) + 0.3 * RNG.normal(size=60)


def cosines(vectors):
    """Largest magnitude of the cosine between two different ones."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.abs(unit @ unit.T - np.eye(len(unit))).max()


def test_conjugate_gradients_are_orthogonal_and_go_along_conjugate_directions():
    points = [np.zeros(20)]
    solve(A, F, "cg", iterations=12, callback=lambda number, x, residual: points.append(x.copy()))
    assert cosines((F - np.array(points) @ A.T) @ A) < 1e-5
    assert cosines(np.diff(points, axis=0) @ A.T) < 1e-5


@pytest.mark.parametrize("method", ["cg", "conjugate-residuals", "bicg", "bicgstab", "gmres", "cgs", "qmr"])
def test_krylov_methods_undo_a_ctf(method):
    """(C^2 + w) x = C y of an image of a real CTF, against division in Fourier space."""
    box = 16
    optics = vg.Optics([12000.0], [13000.0], pixel_size_A=2.0)
    ctf = np.asarray(ops.ctf(optics.as_params(), box, 2.0, threads=1)[0], np.float64)
    image = np.random.default_rng(1).normal(size=(box, box))

    def filtered(x, gain):
        return np.fft.irfft2(np.fft.rfft2(x.reshape(box, box)) * gain, (box, box)).ravel()

    system = sla.LinearOperator(
        (box**2, box**2),
        matvec=lambda x: filtered(x, ctf**2 + 0.1),
        rmatvec=lambda x: filtered(x, ctf**2 + 0.1),
        dtype=float,
    )
    data = filtered(image.ravel(), ctf)
    found = solve(system, data, method, iterations=200, tolerance=1e-9).x
    expected = filtered(data, 1 / (ctf**2 + 0.1))
    assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("method", ["fista", "admm", "primal-dual"])
def test_a_quadratic_prior_of_a_diagonal_system_has_its_closed_form(method):
    """H g / (h^2 + lambda): Wiener's filter, and the mean of a Gaussian posterior."""
    h, g, weight = RNG.uniform(0.5, 2, 12), RNG.normal(size=12), 0.7
    found = solve(np.diag(h), g, method, prior=priors.Quadratic(weight), iterations=3000).x
    np.testing.assert_allclose(found, h * g / (h**2 + weight), atol=1e-6)


def test_quadratic_regularisation_by_any_operator_is_least_squares_with_more_rows():
    """(H^T H + lambda L^T L)^-1 H^T g, L differences: more unknowns than data."""
    H, L, weight = RNG.normal(size=(15, 20)), np.diff(np.eye(20), axis=0), 0.3
    g = RNG.normal(size=15)
    both = np.vstack([H, np.sqrt(weight) * L])
    found = solve(both, np.concatenate([g, np.zeros(19)]), "cg", iterations=60, tolerance=1e-12).x
    np.testing.assert_allclose(found, np.linalg.solve(H.T @ H + weight * L.T @ L, H.T @ g), atol=1e-6)


def test_admm_ends_where_primal_and_dual_residuals_vanish():
    """Of a norm and a set at once: the conditions of Karush, Kuhn and Tucker."""
    weight = 8.0
    x = solve(A, F, "admm", prior=[priors.L1(weight), priors.NonNegative()], iterations=400).x
    slope = A.T @ (F - A @ x)
    assert (x >= 0).all()
    assert 3 < (x > 0).sum() < 17
    assert np.abs(slope[x > 0] - weight).max() < 1e-5
    assert (slope[x == 0] <= weight + 1e-5).all()


def test_admm_smooths_as_the_proximal_operator_does():
    noisy = np.repeat(np.repeat([[0.0, 2.0], [1.0, 0.0]], 4, 0), 4, 1) + 0.3 * RNG.normal(size=(8, 8))
    exact = priors.TotalVariation(0.5, iterations=400, tolerance=1e-9)
    found = solve(np.eye(64), noisy.ravel(), "admm", prior=[priors.Shaped(exact, (8, 8))], iterations=40).x
    np.testing.assert_allclose(found.reshape(8, 8), exact.prox(noisy, 1.0), atol=1e-4)


def test_the_mean_of_batches_is_the_gradient():
    """One pass with next to no step: the sum of the batches' estimates, each unbiased."""
    start = RNG.normal(size=20)
    gradient = A.T @ (A @ start - F)
    for seed in range(4):
        how = {"iterations": 1, "relaxation": 1e-7, "start": start, "batches": 12, "seed": seed}
        moved = solve(A, F, "sgd", **how).x - start
        assert moved @ gradient < 0
        np.testing.assert_allclose(moved / np.linalg.norm(moved), -gradient / np.linalg.norm(gradient), atol=1e-5)


def test_batches_of_noisy_data_come_within_a_hundredth_of_the_least_cost():
    least = np.sum((F - A @ np.linalg.lstsq(A, F, rcond=None)[0]) ** 2)
    x = solve(A, F, "sgd", iterations=150, batches=12, decay=0.1, relaxation=1.5).x
    assert np.sum((F - A @ x) ** 2) < 1.01 * least


def test_constraints_that_hold_make_noisy_maps_better():
    """Non-negativity, a mask, symmetry: of twelve sets of noisy data none is worse than without."""
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    fourfold = priors.Symmetric(tuple(np.linalg.matrix_power(quarter, n).astype(float) for n in range(4)))
    errors = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        mask = np.zeros((5, 5, 5))
        mask[:, 1:4, 1:4] = 1
        truth = mask * np.maximum(fourfold.prox(rng.normal(size=(5, 5, 5)), 1.0), 0)
        matrix = rng.normal(size=(150, 125))
        data = matrix @ truth.ravel() + 2 * rng.normal(size=150)
        found = [np.linalg.lstsq(matrix, data, rcond=None)[0]]
        for prior in (priors.NonNegative(), priors.Support(mask), fourfold):
            found.append(solve(matrix, data, "fista", prior=priors.Shaped(prior, mask.shape), iterations=60).x)
        errors.append([np.linalg.norm(x - truth.ravel()) for x in found])
    free, *constrained = np.transpose(errors)
    for one in constrained:
        assert (one <= free).all()


def test_pursuit_recovers_five_of_256_unknowns():
    right = 0
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        matrix = rng.normal(size=(100, 256)) / 10
        truth = np.zeros(256)
        truth[rng.choice(256, 5, replace=False)] = rng.normal(size=5) + np.sign(rng.normal(size=5))
        found = solve(matrix, matrix @ truth, "omp", nonzeros=5, iterations=5).x
        right += np.allclose(found, truth, atol=1e-8)
    assert right >= 99
