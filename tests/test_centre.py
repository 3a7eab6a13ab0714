"""Centres of particles: mass, median, surrogate; rotational averages."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import simulate
from verglas.errors import InputError
from verglas.extraction import (
    centre_of_mass,
    find_centres,
    geometric_median,
    prolate_average,
    prolate_radial,
    recentre,
    ring_average,
    signal_to_noise,
    surrogate_centre,
    surrogate_landscape,
)

from tolerance import CENTRE_OF_MASS_PX, PROLATE_AVERAGE_RELATIVE


@pytest.fixture(scope="module")
def particle():
    """Projection of a protein-like model, 40 px across in 96, centre of mass within 0.01 px of pixel 48."""
    model = simulate.phantom(box=48, pixel_size_A=3.0, diameter_A=120, seed=0)
    return np.pad(simulate.density(model, 48, 3.0).data.sum(0), 24)


def moved_and_noisy(particle, count, snr, seed=0, reach=10):
    rng = np.random.default_rng(seed)
    images, truth = [], []
    for _ in range(count):
        shift = rng.integers(-reach, reach + 1, 2)
        clean = np.roll(particle, shift[::-1], (0, 1))
        noise = rng.normal(size=clean.shape)
        noise *= np.sqrt(signal_to_noise(clean, noise) / snr)
        assert signal_to_noise(clean, noise) == pytest.approx(snr)
        images.append(clean + noise)
        truth.append(48 + shift)
    return np.array(images), np.array(truth, float)


@settings(deadline=None, max_examples=20)
@given(shape=st.tuples(st.integers(2, 12), st.integers(2, 12)), seed=st.integers(0, 999))
def test_centre_of_mass_is_scipys(shape, seed):
    image = np.random.default_rng(seed).random(shape)
    np.testing.assert_allclose(
        centre_of_mass(image)[0][::-1], scipy.ndimage.center_of_mass(image), atol=CENTRE_OF_MASS_PX
    )


def test_example_of_600_by_1000():
    """A blob at (366.66, 479.98) of 1000 rows and 600 columns moves to the middle, (300, 500)."""
    y, x = np.indices((1000, 600))
    blob = np.exp(-((x - 366.66) ** 2 + (y - 479.98) ** 2) / 800.0)
    np.testing.assert_allclose(centre_of_mass(blob), [[366.66, 479.98]], atol=0.005)
    moved, shifts = recentre(blob, "mass")
    np.testing.assert_allclose(shifts, [[300 - 366.66, 500 - 479.98]], atol=0.005)
    np.testing.assert_allclose(centre_of_mass(np.maximum(moved, 0)), [[300, 500]], atol=0.01)


def test_geometric_median_is_the_minimum_and_withstands_outliers():
    rng = np.random.default_rng(1)
    image = np.zeros((80, 80))
    np.add.at(image, tuple(np.rint(rng.normal(30, 3, (2, 800))).astype(int)), 1)
    image[72:78, 70:76] = 200 / 36  # a fifth of the mass, far away
    mass, median = centre_of_mass(image)[0], geometric_median(image)[0]
    assert np.hypot(*(mass - 30)) > 10
    assert np.hypot(*(median - 30)) < 2
    points, weights = np.argwhere(image > 0)[:, ::-1], image[image > 0]
    cost = lambda p: (weights * np.hypot(*(points - p).T)).sum()
    for step in ([0.05, 0], [-0.05, 0], [0, 0.05], [0, -0.05]):
        assert cost(median) < cost(median + step)


def test_iteration_leaves_a_pixel_that_it_meets():
    """Symmetric about pixel 10 but for one heavy point: plain Weiszfeld would divide by zero there."""
    image = np.zeros((21, 21))
    image[10, 10], image[10, 0], image[10, 20] = 0.5, 1, 1
    np.testing.assert_allclose(geometric_median(image), [[10, 10]], atol=1e-6)
    image[10, 20] = 3
    np.testing.assert_allclose(geometric_median(image), [[20, 10]], atol=0.05)


def test_landscape_is_its_definition():
    rng = np.random.default_rng(2)
    image, radius = rng.random((11, 13)), 4
    y, x = np.indices(image.shape)
    sums = np.array(
        [[[image[np.hypot(x - u, y - v) <= r].sum() for r in range(radius + 1)] for u in range(13)] for v in range(11)]
    )
    want = np.abs(sums / sums[..., -1].max() - 1).sum(-1)
    np.testing.assert_allclose(surrogate_landscape(image, radius)[0], want, atol=1e-10)


def test_surrogate_centre_at_snr_1_45_where_the_others_fail(particle):
    images, truth = moved_and_noisy(particle, 60, 1 / 45)
    error = {
        method: np.hypot(*(find_centres(images, method, 20) - truth).T) for method in ("surrogate", "mass", "median")
    }
    assert error["surrogate"].max() <= 3
    assert np.median(error["mass"]) > 5
    assert np.median(error["median"]) > 5


@pytest.mark.slow
def test_surrogate_centre_is_seldom_off_by_more(particle):
    """Of 240 centres at SNR 1/45 about one in a hundred is off by more than 3 px, as scatter of 1.1 px will have it.

    The lowest point of the landscape as it stands is off three times as often.
    """
    many, raw, miss = 0, 0, []
    for seed in range(4):
        images, truth = moved_and_noisy(particle, 60, 1 / 45, seed)
        error = np.hypot(*(surrogate_centre(images, 20) - truth).T)
        many += int((error > 3).sum())
        miss.append(error)
        landscape = surrogate_landscape(images, 20)
        y, x = np.unravel_index(landscape.reshape(60, -1).argmin(axis=1), landscape.shape[1:])
        raw += int((np.hypot(*(np.stack([x, y], 1) - truth).T) > 3).sum())
    assert many <= 0.015 * 240
    assert raw >= 2 * many
    assert np.concatenate(miss).max() < 4
    assert np.concatenate(miss).mean() < 1.3


def test_a_neighbour_in_the_box_moves_the_centre(particle):
    """The documented failure: with a second particle beside it, a large radius is drawn towards it."""
    pair = particle + np.roll(particle, 44, 1)
    wide = surrogate_centre(pair, 46)[0]
    assert abs(wide[0] - 48) > 5
    near = surrogate_centre(particle, 24)[0]
    assert np.hypot(*(near - 48)) <= 1.5


def test_class_averages_are_centred(particle):
    images, truth = moved_and_noisy(particle, 8, 5.0, seed=3)
    moved, shifts = recentre(images, "disc", 24)
    assert np.abs(shifts).max() > 3
    mass = truth + centre_of_mass(particle) - 48 + shifts  # of the clean particle, after the move
    assert np.hypot(*(mass - 48).T).max() <= 1
    assert moved.shape == images.shape


def test_batches_do_not_change_the_result(particle):
    images, _ = moved_and_noisy(particle, 5, 0.2)
    assert np.array_equal(surrogate_centre(images, 22, batch=2), surrogate_centre(images, 22))


def test_ring_average_about_any_centre():
    y, x = np.indices((40, 36))
    cx, cy = 16.3, 21.8
    radius = np.hypot(x - cx, y - cy)
    image = np.exp(-(radius**2) / 20.0) * (1 + 0.4 * (x - cx) / 5 + 0.3 * (y - cy) * (x - cx) / 25)
    radii = np.array([0, 1.5, 3.25, 6])
    got = ring_average(image, radii, [[cx, cy]])[0]
    np.testing.assert_allclose(got, np.exp(-(radii**2) / 20.0), atol=1e-5)


def test_prolate_functions_are_orthonormal_eigenfunctions():
    nodes, weights = np.polynomial.legendre.leggauss(200)
    rho, w = (nodes + 1) / 2, weights / 2
    psi = prolate_radial(20.0, 5, rho)
    np.testing.assert_allclose((psi * w * rho) @ psi.T, np.eye(5), atol=1e-8)


def test_prolate_average_is_the_ring_average(particle):
    """Of a band-limited particle that fits the disc, the two agree to a thousandth of its largest value."""
    smooth = scipy.ndimage.gaussian_filter(particle, 1.5)
    average = prolate_average(smooth, 40)[0]
    radii = np.arange(0, 36.0)
    rings = ring_average(smooth, radii)[0]
    along = average[48, 48:84]
    assert np.abs(along - rings).max() < PROLATE_AVERAGE_RELATIVE * np.abs(rings).max()


def test_rotational_average_denoises_if_it_is_centred(particle):
    """From SNR 1/45 to 1 about the centre, to 1/5 off it, each within 50 %.

    Over the particle's disc, 40 px across; off the centre by three quarters of its radius.
    """
    radius = 20
    disc = np.hypot(*(np.indices((96, 96)) - 48)) <= radius
    noise = np.where(disc, np.random.default_rng(0).normal(size=(40, 96, 96)), 0)
    before = signal_to_noise(np.where(disc, particle, 0), noise[0])
    noise *= np.sqrt(45 * before)
    after = {}
    for name, image in (("centred", particle), ("off", np.roll(particle, 15, 1))):
        kept, left = prolate_average(np.where(disc, image, 0), radius)[0], prolate_average(noise, radius)
        after[name] = np.mean([signal_to_noise(kept, one) for one in left])
    print(after)
    assert after["centred"] == pytest.approx(1, rel=0.5)
    assert after["off"] == pytest.approx(1 / 5, rel=0.5)


def test_snr_is_the_ratio_of_powers():
    assert signal_to_noise([[1.0, 2.0]], [[10.0, 0.0]]) == 0.05
    with pytest.raises(InputError, match="noise is zero"):
        signal_to_noise([1.0], [0.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: centre_of_mass(np.zeros((2, 4, 4))), r"image 0 \(from 0\) sums to 0"),
        (lambda: centre_of_mass(np.full((4, 4), np.nan)), "not finite"),
        (lambda: surrogate_centre(np.ones((8, 8)), 9), "radius_px: expected 1 to 8"),
        (lambda: surrogate_centre(-np.ones((8, 8)), 3), "no disc of positive sum"),
        (lambda: find_centres(np.ones((8, 8)), "best"), "surrogate, disc, mass, median"),
        (lambda: find_centres(np.ones((8, 8))), "give radius_px"),
        (lambda: prolate_average(np.ones((8, 8)), 6), "radius_px"),
        (lambda: prolate_average(np.ones((8, 8)), 3, 2), "bandlimit"),
        (lambda: centre_of_mass(np.ones(4)), r"\(n, y, x\)"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
