"""Coordinates whose components are uncertain: what two half sets disagree on becomes part of the stated error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from verglas.heterogeneity.coordinate_errors import readings_with_component_errors


def halves(n: int, q: int, *, constant: float, growing: float, seed: int):
    """Truth, posterior by the mean of both halves' components, and posterior means by each."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, q))
    noise = 0.2 * rng.normal(size=(n, q))
    size = np.sqrt(constant + growing * np.square(truth).mean(axis=1, keepdims=True))
    errors = size * np.sqrt(2) * rng.normal(size=(2, n, q))  # of each half; of their mean: size
    covariance = np.broadcast_to(np.eye(q) / (1 + 1 / 0.04), (n, q, q)).copy()
    means = [(truth + noise + e) / 1.04 for e in errors]
    return truth, (means[0] + means[1]) / 2, covariance, means


def posterior(h, information):
    covariance = np.linalg.inv(np.eye(h.shape[1]) + information)
    return np.einsum("nab,nb->na", covariance, h), covariance


def share_inside(truth, mean, covariance):
    away = mean - truth
    return np.mean(np.einsum("na,nab,nb->n", away, np.linalg.inv(covariance), away) < chi2.ppf(0.95, truth.shape[1]))


@pytest.mark.parametrize(("constant", "growing"), [(0.0, 0.0), (0.09, 0.0), (0.02, 0.06)])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_stated_sets_hold_the_truth(q, constant, growing):
    truth, mean, covariance, (first, second) = halves(4000, q, constant=constant, growing=growing, seed=q)
    made = posterior(*readings_with_component_errors(mean, covariance, first, second))
    assert 0.93 <= share_inside(truth, *made) <= 0.97
    if constant + growing > 0.05:
        assert share_inside(truth, mean, covariance) < 0.9


def test_what_is_common_to_all_particles_is_no_error_of_theirs():
    """Components of another size, turned among each other, and a mean that lies elsewhere: other units."""
    _, mean, covariance, _ = halves(2000, 2, constant=0.0, growing=0.0, seed=5)
    turn = np.array([[1.05, 0.1], [-0.1, 0.95]])
    information = readings_with_component_errors(mean, covariance, mean @ turn + 0.3, mean)[1]
    expected = np.linalg.inv(covariance) - np.eye(2)
    np.testing.assert_allclose(information, expected, rtol=1e-6, atol=1e-9)


def test_an_image_without_information_stays_without():
    _, mean, covariance, (first, second) = halves(500, 2, constant=0.05, growing=0.0, seed=6)
    covariance[0], mean[0], first[0], second[0] = np.eye(2), 0.0, 0.0, 0.0
    h, information = readings_with_component_errors(mean, covariance, first, second)
    assert np.abs(h[0]).max() < 1e-6
    assert np.abs(information[0]).max() < 1e-6
    assert np.linalg.eigvalsh(information).min() > -1e-9
    assert np.isfinite(h).all()
