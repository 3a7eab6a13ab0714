"""Sums and means of images, and grey values brought to another distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

import verglas as vg
from verglas import image

RNG = np.random.default_rng(5)


def test_linear_combination_is_exact():
    images = RNG.normal(size=(2, 6, 7))
    expected = (1.5 * images[0] - 0.25 * images[1]).astype(np.float32)
    np.testing.assert_array_equal(image.linear_combination(images, [1.5, -0.25]), expected)
    with pytest.raises(vg.InputError, match="one finite factor for each image"):
        image.linear_combination(images, [1.0])


def test_the_noise_of_a_mean_falls_with_the_root_of_the_number():
    signal = np.sin(np.arange(64) / 5) * np.ones((64, 1))
    images = (signal + 2.0 * RNG.normal(size=(1000, 64, 64))).astype(np.float32)
    left = image.mean_image(images) - signal
    assert left.std() == pytest.approx(2.0 / np.sqrt(1000), rel=0.05)
    particles = vg.Particles.from_images(images[:300], 2.0)
    np.testing.assert_allclose(image.mean_image(particles), images[:300].mean(axis=0, dtype=np.float64), atol=1e-12)
    with pytest.raises(vg.InputError, match="no images"):
        image.mean_image(np.zeros((0, 4, 4)))


def test_grey_values_take_the_distribution_of_the_target():
    given, target = RNG.exponential(2.0, (80, 90)), RNG.normal(100.0, 7.0, (50, 60))
    made = image.match_histogram(given, target)
    assert kstest(made.ravel(), target.ravel()).statistic < 0.01
    order = np.argsort(given, axis=None)
    assert (np.diff(made.ravel()[order]) >= 0).all()  # monotonic
    even = image.equalise(given, -1.0, 3.0)
    assert kstest(even.ravel(), "uniform", args=(-1.0, 4.0)).statistic < 0.01


def test_equal_values_stay_equal():
    counts = RNG.poisson(1.0, (40, 40))
    made = image.match_histogram(counts, RNG.normal(size=500))
    assert all(len(np.unique(made[counts == value])) == 1 for value in np.unique(counts))
    np.testing.assert_allclose(image.equalise(np.ones((3, 3))), 0.5)
    with pytest.raises(vg.InputError, match="finite"):
        image.equalise([1.0, np.nan])
    with pytest.raises(vg.InputError, match="high above low"):
        image.equalise([1.0], 2.0, 2.0)
