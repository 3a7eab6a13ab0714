"""Classes as points in the space of components: shares as they are, whatever each image knows."""

from __future__ import annotations

import numpy as np
import pytest

from verglas.heterogeneity.point_mixture import fit_points

HALF = np.arange(2000) % 2 + 1


def planted(points, shares, seed, *, known=1.0, n=2000):
    """Readings of points, each image knowing something else of every coordinate; the classes, h and P."""
    rng = np.random.default_rng(seed)
    label = rng.choice(len(points), n, p=shares)
    root = known * rng.normal(size=(n, points.shape[1], points.shape[1]))
    information = root @ root.transpose(0, 2, 1)
    noise = np.einsum("npq,nq->np", root, rng.normal(size=(n, points.shape[1])))
    return label, np.einsum("npq,nq->np", information, points[label]) + noise, information


def test_uneven_classes_at_the_corners_of_a_cube():
    """Parts that are there or not give such points; k-means of coordinates makes groups of like size of them."""
    points = 4.0 * (np.indices((2, 2, 2)).reshape(3, -1).T - 0.5)
    shares = np.array([0.30, 0.22, 0.16, 0.12, 0.08, 0.06, 0.04, 0.02])
    label, h, information = planted(points, shares, 1)
    found = fit_points(h, information, 8, HALF)
    nearest = np.linalg.norm(found.points[:, None] - points, axis=2).argmin(axis=1)
    assert sorted(nearest) == list(range(8))
    np.testing.assert_allclose(found.shares, shares[nearest], atol=0.02)
    assert np.mean(nearest[found.posterior(h, information).argmax(axis=1)] == label) > 0.8


def test_images_that_know_nothing_follow_the_shares():
    label, h, information = planted(np.array([[-2.0], [2.0]]), [0.8, 0.2], 2)
    h[:500], information[:500] = 0.0, 0.0
    found = fit_points(h, information, 2, HALF)
    np.testing.assert_allclose(found.posterior(h, information)[:500], np.tile(found.shares, (500, 1)), atol=1e-12)
    assert abs(found.shares[0] - 0.8) < 0.03
    assert np.mean(found.posterior(h, information)[500:].argmax(axis=1) == label[500:]) > 0.8


def test_the_same_seed_gives_the_same():
    _, h, information = planted(np.array([[-1.0, 0], [1.0, 2.0], [0, -2.0]]), [0.5, 0.3, 0.2], 3)
    one, two = (fit_points(h, information, 3, HALF, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.points, two.points)
    assert one.shares[0] == one.shares.max()


def test_a_class_of_one_half_set_alone_is_none():
    """It would have no map in the other half."""
    rng = np.random.default_rng(5)
    z, half = rng.normal(size=(100, 1)), np.arange(100) % 2 + 1
    z[np.flatnonzero(half == 1)[:4]] += 1000.0
    information = np.ones((100, 1, 1))
    assert fit_points(z, information, 2, half) is None
    z[np.flatnonzero(half == 2)[:4]] += 1000.0
    found = fit_points(z, information, 2, half)
    assert sorted(np.bincount(found.posterior(z, information).argmax(axis=1))) == [8, 92]


@pytest.mark.parametrize(("n", "count"), [(0, 1), (1, 1), (1, 2), (3, 2), (10, 6)])
def test_fewer_particles_than_classes_of_both_halves_are_none(n, count):
    h = np.random.default_rng(6).normal(size=(n, 1))
    assert fit_points(h, np.ones((n, 1, 1)), count, np.arange(n) % 2 + 1) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("known", [0.0, 1.0])
def test_particles_on_one_another_are_no_classes(known):
    h, information = np.zeros((40, 2)), known * np.tile(np.eye(2), (40, 1, 1))
    assert fit_points(h, information, 3, np.arange(40) % 2 + 1) is None


def test_no_coordinate_is_nothing_to_tell_classes_by():
    assert fit_points(np.zeros((40, 0)), np.zeros((40, 0, 0)), 2, np.arange(40) % 2 + 1) is None
