"""Solvers against dense least squares, and against what theory says of their rates."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla

import verglas as vg
from verglas.reconstruction import operators, priors, solvers
from verglas.reconstruction.solvers import solve

RNG = np.random.default_rng(20)
TALL = np.abs(RNG.normal(size=(60, 20))) + 2 * np.eye(60, 20)
TRUTH = RNG.normal(size=20)
NOISY = TALL @ TRUTH + 0.1 * RNG.normal(size=60)
SQUARE = np.eye(20) + 0.1 * RNG.normal(size=(20, 20)) / np.sqrt(20)
SYMMETRIC = SQUARE @ SQUARE.T


def weighted_lstsq(A, f, w):
    root = np.sqrt(w)[:, None]
    return np.linalg.lstsq(root * A, root[:, 0] * f, rcond=None)[0]


@pytest.mark.parametrize(
    ("method", "iterations"), [("landweber", 4000), ("jacobi", 0), ("gauss-seidel", 3000), ("cg", 20), ("sirt", 20000)]
)
def test_least_squares_of_a_dense_system(method, iterations):
    if method == "jacobi":  # converges where the normal matrix is dominated by its diagonal
        A, f, iterations = np.vstack([SQUARE, SQUARE]), np.concatenate([SQUARE @ TRUTH, SQUARE @ TRUTH + 0.1]), 300
    else:
        A, f = TALL, NOISY
    expected = np.linalg.lstsq(A, f, rcond=None)[0]
    if method == "sirt":
        expected = weighted_lstsq(A, f, 1 / np.abs(A).sum(axis=1))
    found = solve(A, f, method, iterations=iterations)
    np.testing.assert_allclose(found.x, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["conjugate-residuals", "bicg", "bicgstab", "gmres", "cgs", "qmr", "richardson"])
def test_square_systems(method):
    A = SYMMETRIC if method == "conjugate-residuals" else SQUARE
    found = solve(A, A @ TRUTH, method, iterations=60)
    np.testing.assert_allclose(found.x, TRUTH, atol=1e-6)


def test_weights_are_those_of_least_squares():
    w = RNG.uniform(0.1, 3, 60)
    expected = weighted_lstsq(TALL, NOISY, w)
    np.testing.assert_allclose(solve(TALL, NOISY, "cg", iterations=25, weights=w).x, expected, rtol=1e-7)
    residual = NOISY - TALL @ expected
    assert np.abs(TALL.T @ (w * residual)).max() < 1e-10  # W-orthogonal to the range of A


@pytest.mark.parametrize("method", ["sart", "bicav", "art", "cav", "cimmino"])
def test_row_and_block_methods_solve_consistent_systems(method):
    more = {"blocks": 6} if method in ("sart", "bicav") else {}
    found = solve(TALL, TALL @ TRUTH, method, iterations=12000 if method in ("cav", "cimmino") else 3000, **more)
    np.testing.assert_allclose(found.x, TRUTH, atol=2e-3)


def test_art_ends_in_the_solution_of_least_norm():
    A = RNG.normal(size=(8, 20))
    f = A @ TRUTH
    found = solve(A, f, "art", iterations=2000)
    np.testing.assert_allclose(found.x, np.linalg.pinv(A) @ f, atol=1e-8)


def test_art_is_gauss_seidel_on_the_dual():
    """x = A^T y with Gauss-Seidel on A A^T y = f takes the same steps."""
    A = RNG.normal(size=(6, 9))
    f = RNG.normal(size=6)
    dual, y = A @ A.T, np.zeros(6)
    for i in range(6):
        y[i] += (f[i] - dual[i] @ y) / dual[i, i]
    np.testing.assert_allclose(solve(A, f, "art", iterations=1).x, A.T @ y, atol=1e-12)


def test_sirt_is_jacobi_with_row_and_column_sums_and_falls_monotonically():
    rows, columns = TALL.sum(axis=1), TALL.sum(axis=0)
    x = np.zeros(20)
    for _ in range(3):
        x = x + (TALL.T @ ((NOISY - TALL @ x) / rows)) / columns
    found = solve(TALL, NOISY, "sirt", iterations=3)
    np.testing.assert_allclose(found.x, x, rtol=1e-12)
    costs = []

    def keep(number, x, residual):
        costs.append(np.sum((NOISY - TALL @ x) ** 2 / rows))

    solve(TALL, NOISY, "sirt", iterations=200, relaxation=1.9, callback=keep)
    assert (np.diff(costs) <= 1e-9).all()


def test_the_spectral_radius_predicts_the_rate():
    eta = 0.9
    radius = solvers.spectral_radius(np.eye(20) - eta * SQUARE)
    errors = []
    solve(
        SQUARE,
        SQUARE @ TRUTH,
        "richardson",
        iterations=200,
        relaxation=eta,
        callback=lambda i, x, r: errors.append(np.linalg.norm(x - TRUTH)),
    )
    usable = np.log(
        [e for e in errors if e > 1e-12]
    )  # complex eigenvalues make it go up and down: the mean slope counts
    assert np.exp(np.polyfit(np.arange(len(usable)), usable, 1)[0]) == pytest.approx(radius, rel=0.05)


def test_richardson_diverges_outside_its_range():
    with np.errstate(over="ignore", invalid="ignore"):
        found = solve(SYMMETRIC, SYMMETRIC @ TRUTH, "richardson", iterations=3000, relaxation=3.0)
    assert found.reason == "stalled" or found.residuals[-1] > 1e3
    limit = 2 / np.linalg.eigvalsh(SYMMETRIC).max()
    assert solve(SYMMETRIC, SYMMETRIC @ TRUTH, "richardson", iterations=4000, relaxation=0.98 * limit).residuals[-1] < 1


def test_landweber_is_monotone_below_its_limit():
    assert (np.diff(solve(TALL, NOISY, "landweber", iterations=100).residuals) <= 1e-12).all()
    with np.errstate(over="ignore", invalid="ignore"):
        assert solve(TALL, NOISY, "landweber", iterations=400, relaxation=2.3).residuals[-1] > 10


def test_cg_ends_after_as_many_steps_as_unknowns():
    residuals = solve(SQUARE, SQUARE @ TRUTH, "cg", iterations=20).residuals
    assert residuals[-1] < 1e-8 * residuals[0]


def test_operators_known_by_their_action_only():
    blind = sla.LinearOperator(TALL.shape, matvec=lambda x: TALL @ x, rmatvec=lambda y: TALL.T @ y, dtype=float)
    np.testing.assert_allclose(
        solve(blind, NOISY, "sirt", iterations=50).x, solve(TALL, NOISY, "sirt", iterations=50).x, rtol=1e-9
    )
    with pytest.raises(vg.InputError, match="known by its action only"):
        solve(blind, NOISY, "art")


def test_sparse_matrices_are_taken_as_they_are():
    sparse = sp.csr_array(np.where(np.abs(TALL) > 0.5, TALL, 0))
    for method in ("art", "sirt", "gauss-seidel", "cg"):
        dense = solve(sparse.toarray(), NOISY, method, iterations=4).x
        np.testing.assert_allclose(solve(sparse, NOISY, method, iterations=4).x, dense, rtol=1e-9)


def test_unmatched_pairs():
    perturbed = TALL.T + 0.02 * RNG.normal(size=(20, 60))
    told = solvers.unmatched_pair(TALL, perturbed)
    limit = told.largest_relaxation
    x = np.zeros(20)
    for _ in range(200):
        x = x + 0.9 * limit * (perturbed @ (TALL @ TRUTH - TALL @ x)) if told.converges else x
    assert told.converges == bool(np.linalg.norm(TALL @ (x - TRUTH)) < np.linalg.norm(TALL @ TRUTH))
    assert not solvers.unmatched_pair(np.eye(2), np.array([[0.0, 1.0], [-1.0, 0.0]])).converges
    assert solvers.unmatched_pair(np.eye(3), 0.5 * np.eye(3)).largest_relaxation == pytest.approx(4.0)


def test_conditioning_is_squared():
    single, squared = solvers.condition_numbers(SQUARE)
    assert squared == pytest.approx(single**2, rel=1e-6)


def test_semiconvergence_and_the_best_relaxation():
    t = np.linspace(0, 1, 40)
    A = np.exp(-0.5 * ((t[:, None] - t[None]) / 0.08) ** 2)
    truth = np.sin(3 * t) + (np.abs(t - 0.5) < 0.1)
    f = A @ truth + 0.5 * np.random.default_rng(3).normal(size=40)
    scan = solvers.relaxation_scan(
        lambda eta, keep: solve(A, f, "landweber", iterations=800, relaxation=eta, callback=keep),
        truth,
        (0.1, 0.5, 1.9),
    )
    relaxation, _ = scan.best
    assert relaxation in (0.1, 0.5, 1.9)
    fast = scan.errors[2]
    assert fast.min() < 0.9 * fast[-1]  # few iterations are better than many
    assert np.argmin(scan.errors[0]) > np.argmin(scan.errors[1])  # a smaller step gets there later


def test_stops_are_told():
    assert solve(TALL, TALL @ TRUTH, "cg", iterations=40, tolerance=1e-3).reason == "tolerance"
    assert solve(TALL, NOISY, "landweber", iterations=3).reason == "iterations"
    assert solve(TALL, NOISY, "landweber", iterations=30, callback=lambda i, x, r: i == 5).iterations == 5


def test_lasso_is_scikit_learns():
    from sklearn.linear_model import Lasso, Ridge

    weight = 0.5
    expected = Lasso(alpha=weight / 60, fit_intercept=False, tol=1e-10, max_iter=100000).fit(TALL, NOISY).coef_
    for method in ("fista", "admm"):
        found = solve(TALL, NOISY, method, prior=priors.L1(weight), iterations=4000)
        np.testing.assert_allclose(found.x, expected, atol=1e-4)
    ridge = Ridge(alpha=2.0, fit_intercept=False, tol=1e-10).fit(TALL, NOISY).coef_
    np.testing.assert_allclose(
        solve(TALL, NOISY, "fista", prior=priors.Quadratic(2.0), iterations=4000).x, ridge, atol=1e-6
    )


def test_primal_dual_and_subgradient_reach_the_same_optimum():
    A = np.random.default_rng(8).normal(size=(60, 20))
    f = A @ np.where(np.arange(20) < 5, TRUTH, 0) + 0.1 * np.random.default_rng(9).normal(size=60)

    def cost(x):
        return 0.5 * np.sum((f - A @ x) ** 2) + np.abs(x).sum()

    best = cost(solve(A, f, "fista", prior=priors.L1(1.0), iterations=2000).x)
    for method, iterations, tolerance in (("primal-dual", 3000, 1e-4), ("projected-subgradient", 4000, 1e-3)):
        found = solve(A, f, method, prior=priors.L1(1.0), iterations=iterations)
        assert cost(found.x) == pytest.approx(best, rel=tolerance)


def test_the_preconditioned_method_reaches_the_same_optimum():
    """With the ramp of a tilt series, and with none, of a matrix: what fista ends in."""
    rng = np.random.default_rng(10)
    A = operators.tilt_series(np.zeros((12, 1, 24)), np.arange(-90, 90, 15.0), threads=1)
    disc = (np.hypot(*(np.indices((24, 24)) - 12)) < 7).astype(np.float32).ravel()
    f = A @ disc + 0.3 * rng.standard_normal(A.shape[0]).astype(np.float32)
    prior = priors.Shaped(priors.TotalVariation(0.5, iterations=30), A.map_shape)
    cases = [(A, f, prior), (TALL, NOISY, priors.Shaped(priors.TotalVariation(0.5), (4, 5)))]
    for operator, data, one in cases:

        def cost(x, operator=operator, data=data, one=one):
            return 0.5 * np.sum((data - operator @ x) ** 2, dtype=np.float64) + one.value(x)

        best = cost(solve(operator, data, "fista", prior=one, iterations=500).x)
        found = solve(operator, data, "preconditioned-primal-dual", prior=one, iterations=500)
        assert cost(found.x) == pytest.approx(best, rel=1e-3)
        # Images of what runs ahead are not projected but put together: the residual told is that of x all the same.
        expected = np.linalg.norm(data - operator @ found.x) / np.linalg.norm(data)
        assert found.residuals[-1] == pytest.approx(expected, rel=1e-4)


def test_the_ramp_is_resolved_exactly():
    ramp, rng = operators.tilt_series(np.zeros((3, 2, 9)), [0, 30, 60]).ramp(), np.random.default_rng(11)
    a, b = rng.standard_normal((2, 54))
    assert a @ ramp.apply(b) == pytest.approx(b @ ramp.apply(a))
    made = ramp.resolve(a, b, 2.5)
    # The gains are float32.
    np.testing.assert_allclose(made + 2.5 * ramp.apply(made), a + 2.5 * ramp.apply(b), atol=1e-6)


def test_the_preconditioned_method_says_what_it_cannot_do():
    tv = priors.Shaped(priors.TotalVariation(0.5), (4, 5))
    with pytest.raises(vg.InputError, match="takes no weights"):
        solve(TALL, NOISY, "preconditioned-primal-dual", prior=tv, weights=np.ones(60))
    for prior in (priors.L1(1.0), priors.Shaped(priors.L1(1.0), (4, 5))):
        with pytest.raises(vg.InputError, match="norm of differences"):
            solve(TALL, NOISY, "preconditioned-primal-dual", prior=prior)
    for contrast in (0.0, -1.0, float("nan")):
        with pytest.raises(vg.InputError, match="contrast: expected a positive number"):
            solve(TALL, NOISY, "preconditioned-primal-dual", prior=tv, contrast=contrast)
    with pytest.raises(vg.InputError, match="turn the images first"):
        operators.tilt_series(np.zeros((3, 8, 8)), [0, 30, 60], 20.0).ramp()


def test_reweighted_least_squares_of_power_one_is_the_lasso():
    lasso = solve(TALL, NOISY, "fista", prior=priors.L1(0.5), iterations=4000).x
    np.testing.assert_allclose(solve(TALL, NOISY, "irls", power=1.0, weight=0.5, iterations=200).x, lasso, atol=1e-3)


def test_several_priors_at_once():
    positive = np.abs(TRUTH)
    found = solve(
        TALL, TALL @ positive - 2, "admm", prior=[priors.Quadratic(0.01), priors.NonNegative()], iterations=400
    )
    assert (found.x >= 0).all()
    from scipy.optimize import nnls

    expected = nnls(np.vstack([TALL, 0.1 * np.eye(20)]), np.concatenate([TALL @ positive - 2, np.zeros(20)]))[0]
    np.testing.assert_allclose(found.x, expected, atol=1e-4)


def test_superiorised_sirt_is_smoother_at_the_same_residual():
    rng = np.random.default_rng(5)
    truth = np.repeat([0.0, 2.0, 1.0, 3.0], 10)
    A = np.abs(rng.normal(size=(25, 40)))
    f = A @ truth
    tv = priors.TotalVariation()
    plain = solve(A, f, "sirt", iterations=3000, tolerance=0.01)
    better = solve(A, f, "superiorised", prior=tv, iterations=3000, tolerance=0.01)
    assert better.reason == plain.reason == "tolerance"
    assert tv.value(better.x) < 0.8 * tv.value(plain.x)


def test_binary_steering_finds_the_two_values_at_the_same_residual():
    """Nine views of discs; from what 20 iterations say, as everything is nearer to the lower value before."""
    n = 32
    z, x = np.indices((n, n)) - n // 2
    truth = ((np.hypot(z - 5, x + 3) < 5) | (np.hypot(z + 6, x - 4) < 3.5) | (np.hypot(z, x - 9) < 2.5)).ravel()
    A = operators.tilt_series(np.zeros((9, 1, n)), np.arange(-90, 90, 20.0))
    f = A @ truth.astype(np.float32)
    steering = priors.TwoValues(0.0, 1.0)
    plain = solve(A, f, "sirt", iterations=1000, tolerance=0.01)
    begun = solve(A, f, "sirt", iterations=20).x
    steered = solve(A, f, "superiorised", prior=steering, iterations=1000, tolerance=0.01, start=begun)
    assert steered.reason == plain.reason == "tolerance"
    assert steering.value(steered.x) < 0.3 * steering.value(plain.x)
    assert np.linalg.norm(steered.x - truth) < 0.7 * np.linalg.norm(plain.x - truth)


def test_superiorised_sirt_is_resilient_to_perturbations():
    """With any phi it ends at a residual as small as without."""
    rng = np.random.default_rng(9)
    A = np.abs(rng.normal(size=(20, 30)))
    f = A @ np.abs(rng.normal(size=30))
    for prior in (priors.TotalVariation(), priors.L1(5.0), priors.NonNegative(), priors.TwoValues(0.0, 3.0)):
        assert solve(A, f, "superiorised", prior=prior, iterations=9000, tolerance=1e-3).reason == "tolerance"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "magic"}, "expected method wbp, landweber"),
        ({"method": "fista"}, "fista needs a prior"),
        ({"method": "cg", "prior": priors.L1()}, "cg takes no prior"),
        ({"method": "wbp"}, "no weighted back-projection"),
        ({"method": "tv"}, "does not say the shape of its map"),
        ({"method": "cg", "iterations": 0}, "1 iteration or more"),
        ({"method": "cg", "start": np.zeros(3)}, "takes 20 unknowns, the start has 3"),
        ({"method": "cg", "weights": -np.ones(60)}, "weights of 0 or more"),
        ({"method": "sart", "blocks": 100}, "1 to 60 blocks"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(vg.InputError, match=message):
        solve(TALL, NOISY, **given)
    with pytest.raises(vg.InputError, match="makes 60 data, got 7"):
        solve(TALL, np.zeros(7))
