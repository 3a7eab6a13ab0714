"""Batch, mini-batch and stochastic gradient descent on a convex quadratic, with momentum variants."""

from __future__ import annotations

import numpy as np
import pytest

from verglas.errors import InputError
from verglas.reconstruction.solvers import solve


@pytest.fixture(scope="module")
def quadratic():
    """A consistent system of condition number 10, with its solution."""
    rng = np.random.default_rng(5)
    left, _ = np.linalg.qr(rng.normal(size=(60, 12)))
    right, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    matrix = (left * np.geomspace(1, 10, 12)) @ right
    x = rng.normal(size=12)
    return matrix, matrix @ x, x


def _iterations(quadratic, **settings):
    matrix, data, x = quadratic
    found = solve(matrix, data, "sgd", iterations=4000, tolerance=1e-8, **settings)
    assert found.reason == "tolerance"
    np.testing.assert_allclose(found.x, x, atol=1e-5)
    return found.iterations


def test_one_batch_is_landweber(quadratic):
    matrix, data, _ = quadratic
    ours = solve(matrix, data, "sgd", iterations=25).x
    np.testing.assert_allclose(ours, solve(matrix, data, "landweber", iterations=25).x, rtol=1e-9)


@pytest.mark.parametrize("variant", ["plain", "momentum", "nesterov"])
def test_batches_of_a_consistent_system_converge(quadratic, variant):
    few = _iterations(quadratic, variant=variant, batches=6, relaxation=3.0, momentum=0.8)
    assert few == _iterations(quadratic, variant=variant, batches=6, relaxation=3.0, momentum=0.8)


@pytest.mark.parametrize("variant", ["plain", "momentum", "nesterov"])
@pytest.mark.parametrize("batches", [6, 60])
def test_the_usual_step_does_not_diverge(quadratic, variant, batches):
    matrix, data, _ = quadratic
    assert solve(matrix, data, "sgd", iterations=8, variant=variant, batches=batches).residuals[-1] < 0.5


def test_momentum_is_quicker_than_plain_descent(quadratic):
    """Of condition number kappa, plain descent takes of order kappa steps, momentum of order its root."""
    plain = _iterations(quadratic, batches=1)
    for variant in ("momentum", "nesterov"):
        assert _iterations(quadratic, batches=1, variant=variant, momentum=0.8) < plain / 3


@pytest.mark.slow
def test_adam_and_a_decaying_step_reach_the_solution(quadratic):
    matrix, data, x = quadratic
    found = solve(matrix, data, "sgd", iterations=1500, variant="adam", relaxation=0.1, decay=0.02)
    np.testing.assert_allclose(found.x, x, atol=1e-2)
    rng = np.random.default_rng(6)
    noisy = data + rng.normal(scale=0.1, size=len(data))
    best = np.linalg.lstsq(matrix, noisy, rcond=None)[0]
    errors = [
        np.linalg.norm(solve(matrix, noisy, "sgd", iterations=200, batches=60, relaxation=1.8, decay=decay).x - best)
        for decay in (0.0, 0.1)
    ]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"variant": "x"}, "variant of plain"), ({"momentum": 1.0}, "momentum"), ({"batches": 100}, "1 to 60 blocks")],
)
def test_bad_settings_are_named(quadratic, settings, words):
    with pytest.raises(InputError, match=words):
        solve(*quadratic[:2], "sgd", iterations=2, **settings)
