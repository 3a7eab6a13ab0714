"""Every iterative solver against theory, on dense systems: the step, the point it ends in, its rate, its limit.

An iteration of all of them is x -> T x + c. T and c are written out here from the formulas of the literature; the point
is (I - T)^-1 c, the rate the spectral radius of T, and beyond the relaxation at which that is 1 they diverge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from verglas.reconstruction.solvers import Solution, solve, spectral_radius, unmatched_pair

from tolerance import SOLVED

RNG = np.random.default_rng(41)
M, N, BLOCKS = 60, 20, 4
A = RNG.normal(size=(M, N)) * RNG.uniform(0.5, 2, (M, 1))
F = A @ RNG.normal(size=N) + 0.3 * RNG.normal(size=M)  # no x fits these data: weights decide where a method ends
SQUARE = np.eye(N) + 0.5 * RNG.normal(size=(N, N)) / np.sqrt(N)
CONSISTENT = SQUARE @ RNG.normal(size=N)

Affine = tuple[np.ndarray, np.ndarray]


def step(matrix: np.ndarray, data: np.ndarray, columns: np.ndarray | float, rows: np.ndarray) -> Affine:
    """X + D A^T W (f - A x)."""
    back = np.broadcast_to(columns, matrix.shape[1])[:, None] * matrix.T * rows
    return np.eye(matrix.shape[1]) - back @ matrix, back @ data


def cycle(steps: list[Affine]) -> Affine:
    """One after the other."""
    T, c = np.eye(N), np.zeros(N)
    for one, add in steps:
        T, c = one @ T, one @ c + add
    return T, c


def blocks(one: Callable[[np.ndarray, np.ndarray], Affine]) -> Affine:
    return cycle([one(part, f) for part, f in zip(np.array_split(A, BLOCKS), np.array_split(F, BLOCKS), strict=True)])


def landweber(eta: float) -> Affine:
    return step(A, F, eta / (np.linalg.norm(A, 2) ** 2), np.ones(M))


def jacobi(eta: float) -> Affine:
    return step(A, F, eta / (A**2).sum(axis=0), np.ones(M))


def gauss_seidel(eta: float) -> Affine:
    normal = A.T @ A
    inverse = np.linalg.inv(np.tril(normal, -1) + np.diag(np.diag(normal)) / eta)
    return np.eye(N) - inverse @ normal, inverse @ A.T @ F


def sirt_of(matrix: np.ndarray, data: np.ndarray, eta: float) -> Affine:
    return step(matrix, data, eta / np.abs(matrix).sum(axis=0), 1 / np.abs(matrix).sum(axis=1))


def cav_of(matrix: np.ndarray, data: np.ndarray, eta: float) -> Affine:
    return step(matrix, data, eta, 1 / (len(matrix) * (matrix**2).sum(axis=1)))  # every unknown is seen by every row


THEORY: dict[str, Callable[[float], Affine]] = {
    "landweber": landweber,
    "sgd": landweber,  # one batch of all rows
    "jacobi": jacobi,
    "gauss-seidel": gauss_seidel,
    "sirt": lambda eta: sirt_of(A, F, eta),
    "cimmino": lambda eta: cav_of(A, F, eta),  # on a dense system component averages are means
    "cav": lambda eta: cav_of(A, F, eta),
    "art": lambda eta: cycle([step(a[None], f[None], eta, 1 / (a @ a)) for a, f in zip(A, F, strict=True)]),
    "sart": lambda eta: blocks(lambda part, f: sirt_of(part, f, eta)),
    "bicav": lambda eta: blocks(lambda part, f: cav_of(part, f, eta)),
    "richardson": lambda eta: (np.eye(N) - eta * SQUARE, eta * CONSISTENT),
}
# Whose point is a weighted least-squares solution, and with what weights; art, sart and bicav end in a cycle instead.
WEIGHTS = {
    "landweber": np.ones(M),
    "sgd": np.ones(M),
    "jacobi": np.ones(M),
    "gauss-seidel": np.ones(M),
    "sirt": 1 / np.abs(A).sum(axis=1),
    "cimmino": 1 / (A**2).sum(axis=1),
    "cav": 1 / (A**2).sum(axis=1),
}
SEQUENTIAL = {"gauss-seidel", "art"}  # converge for a relaxation from 0 to 2, whatever the system


def run(method: str, eta: float, iterations: int, **more: Any) -> Solution:
    matrix, data = (SQUARE, CONSISTENT) if method == "richardson" else (A, F)
    choices: dict[str, Any] = {"blocks": BLOCKS} if method in ("sart", "bicav") else {}
    return solve(matrix, data, method, iterations=iterations, relaxation=eta, **choices, **more)


def limit(method: str) -> float:
    """Relaxation at which the spectral radius is 1."""
    if method in SEQUENTIAL:
        return 2.0
    low, high = 0.0, 1.0
    while spectral_radius(THEORY[method](high)[0]) < 1:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if spectral_radius(THEORY[method](middle)[0]) < 1 else (low, middle)
    return low


@pytest.mark.parametrize("method", THEORY)
def test_steps_are_those_of_the_formula(method):
    T, c = THEORY[method](0.7)
    start = np.random.default_rng(42).normal(size=N)
    expected = T @ (T @ start + c) + c
    # Landweber's step is of an eigenvalue that Lanczos gives to 1e-3.
    np.testing.assert_allclose(run(method, 0.7, 2, start=start).x, expected, rtol=0, atol=3e-3 * np.abs(expected).max())
    if method not in ("landweber", "sgd"):
        np.testing.assert_allclose(run(method, 0.7, 2, start=start).x, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", THEORY)
def test_methods_end_where_theory_says(method):
    eta = 0.5 * limit(method)
    T, c = THEORY[method](eta)
    point = np.linalg.solve(np.eye(N) - T, c)
    iterations = int(np.ceil(np.log(1e-7) / np.log(spectral_radius(T))))
    found = run(method, eta, iterations).x
    assert np.linalg.norm(found - point) < SOLVED * np.linalg.norm(point)
    if method in WEIGHTS:
        root = np.sqrt(WEIGHTS[method])
        weighted = np.linalg.lstsq(root[:, None] * A, root * F, rcond=None)[0]
        assert np.linalg.norm(found - weighted) < SOLVED * np.linalg.norm(weighted)
    plain = np.linalg.lstsq(A, F, rcond=None)[0]
    if method not in ("landweber", "sgd", "jacobi", "gauss-seidel", "richardson"):
        assert np.linalg.norm(found - plain) > 100 * SOLVED * np.linalg.norm(plain)  # the test can tell points apart


@pytest.mark.parametrize("method", THEORY)
def test_rates_are_spectral_radii(method):
    # Of the methods that go row by row short steps: with long ones few iterations are left to tell a rate from.
    eta = 0.1 if method in SEQUENTIAL else 0.5 * limit(method)
    T, c = THEORY[method](eta)
    radius, errors = spectral_radius(T), []
    point = np.linalg.solve(np.eye(N) - T, c)
    iterations = int(np.ceil(np.log(1e-9) / np.log(radius)))
    run(method, eta, iterations, callback=lambda i, x, r: errors.append(np.linalg.norm(x - point)))
    # Complex eigenvalues make errors go up and down: the slope of the later half counts.
    half = np.log(errors[len(errors) // 2 :])
    rate = np.exp(np.polyfit(np.arange(len(half)), half, 1)[0])
    assert np.log(rate) == pytest.approx(np.log(radius), rel=0.05)


@pytest.mark.parametrize("method", THEORY)
def test_methods_diverge_beyond_their_limit(method):
    eta = limit(method)
    beyond = run(method, 1.1 * eta, 400, callback=lambda i, x, residual: residual > 1e3)
    assert beyond.reason == "callback"
    within = run(method, 0.95 * eta, 200)
    assert max(within.residuals[-50:]) < 1


def test_unmatched_pairs_end_where_theory_says():
    """B f = B A x, not the least-squares solution; within the relaxation that is told, and not beyond."""
    B = A.T + 0.6 * np.random.default_rng(43).normal(size=(N, M))
    told = unmatched_pair(A, B)
    assert told.converges
    expected, plain = np.linalg.solve(B @ A, B @ F), np.linalg.lstsq(A, F, rcond=None)[0]
    ends = []
    for factor in (0.5, 1.05):
        x = np.zeros(N)
        for _ in range(3000):
            x = x + factor * told.largest_relaxation * (B @ (F - A @ x))
            if np.linalg.norm(x) > 1e6:
                break
        ends.append(x)
    assert np.linalg.norm(ends[0] - expected) < SOLVED * np.linalg.norm(expected)
    assert np.linalg.norm(ends[0] - plain) > 100 * SOLVED * np.linalg.norm(plain)
    assert np.linalg.norm(ends[1]) > 1e6


SQUARE_SYSTEMS = ("cg", "conjugate-residuals", "bicg", "bicgstab", "gmres", "cgs", "qmr")


@pytest.mark.parametrize("method", [*THEORY, *SQUARE_SYSTEMS])
def test_every_solver_reaches_the_dense_solution(method):
    """6^3 unknowns, well conditioned; bench/bench_solvers.py does 16^3 of the same kind."""
    n, rng = 6**3, np.random.default_rng(6)
    part = rng.standard_normal((n, n))
    matrix, data = np.eye(n) + 0.05 * (part + part.T) / np.sqrt(2 * n), rng.standard_normal(n)
    if method not in SQUARE_SYSTEMS and method != "richardson":
        # Methods that go by rows want such as see all unknowns, not one each: turned by a dense orthogonal matrix.
        matrix = np.linalg.qr(part)[0] @ matrix
    expected = np.linalg.lstsq(matrix, data, rcond=None)[0]
    # Steps that are means over the rows of a block are as many times too short for orthogonal ones.
    choices: dict[str, Any] = {
        "sirt": {"relaxation": 0.6 * n},
        "cimmino": {"relaxation": 0.9 * n},
        "cav": {"relaxation": 0.9 * n},
        "bicav": {"blocks": 8, "relaxation": 0.9 * n / 8},
        "sart": {"blocks": 8, "relaxation": 0.5 * n / 8},
    }.get(method, {})
    found = solve(matrix, data, method, iterations=200, tolerance=2e-5, **choices)
    assert found.reason == "tolerance"
    assert np.linalg.norm(found.x - expected) < SOLVED * np.linalg.norm(expected)
