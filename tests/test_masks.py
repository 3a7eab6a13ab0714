"""Masks: spheres, thresholds, morphology, soft edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from verglas import fourier, masks
from verglas.errors import InputError

binary = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=12))


@settings(deadline=None, max_examples=40)
@given(values=hnp.arrays(np.float32, (7, 9), elements=st.floats(-5, 5, width=32)), level=st.floats(-5, 5, width=32))
def test_threshold_mask_and_its_sign(values, level):
    dark = masks.threshold(values, level, above=False)
    assert np.array_equal(dark, values < level)
    assert np.array_equal(masks.threshold(values, level), ~dark)


@settings(deadline=None, max_examples=60)
@given(mask=binary, iterations=st.integers(0, 3))
def test_morphology_equals_scipy_and_neighbourhood_definition(mask, iterations):
    square = np.ones((3,) * mask.ndim, bool)
    want_dilated, want_eroded = mask, mask
    for _ in range(iterations):  # scipy's own grey-value operators, an independent path
        want_dilated = ndimage.grey_dilation(want_dilated, footprint=square, mode="constant", cval=0).astype(bool)
        want_eroded = ndimage.minimum_filter(want_eroded, footprint=square, mode="constant", cval=0).astype(bool)
    assert np.array_equal(masks.dilate(mask, iterations), want_dilated)
    assert np.array_equal(masks.erode(mask, iterations), want_eroded)
    if iterations:
        assert np.array_equal(masks.dilate(mask, iterations), ndimage.binary_dilation(mask, square, iterations))
    opened = masks.dilate(masks.erode(mask, iterations), iterations)
    assert not np.any(opened & ~mask)


@settings(deadline=None, max_examples=60)
@given(shape=st.sampled_from([(15,), (14, 15), (9, 10, 11)]), radius=st.floats(0, 6), width=st.floats(0, 6))
def test_soft_sphere_is_one_inside_zero_outside_monotone(shape, radius, width):
    got = masks.soft_sphere(shape, radius, width)
    r = masks.distance_from(shape)
    assert got.dtype == np.float32
    assert np.all(got[r <= radius] == 1)
    assert np.all(got[(r > radius) & (r >= radius + width)] == 0)
    order = np.argsort(r, axis=None)
    assert np.all(np.diff(got.ravel()[order]) <= 0)
    if width > 1e-3:
        inside_edge = (r > radius) & (r < radius + width)
        want = (1 + np.cos(np.pi * (r[inside_edge] - radius) / width)) / 2
        np.testing.assert_allclose(got[inside_edge], want, atol=1e-6)


def test_soft_edge_does_not_ring():
    """A hard low-pass rings by more than 9 % of the step beyond the edge (Gibbs), a soft one by less than 1 %."""
    n, cutoff = 1024, 9
    step = np.zeros(n)
    step[n // 2 :] = 1.0
    k = np.arange(n // 2 + 1)
    spectrum = np.fft.rfft(step)
    hard = np.fft.irfft(spectrum * (k <= cutoff), n)
    soft = np.fft.irfft(spectrum * fourier.raised_cosine(k, 2 * cutoff), n)
    assert hard.max() - 1 > 0.09
    assert soft.max() - 1 < 0.01
    assert soft.min() > -0.01


@settings(deadline=None, max_examples=40)
@given(mask=binary.filter(np.any), extend=st.floats(0, 4), width=st.floats(0, 4))
def test_soft_edge_of_any_mask(mask, extend, width):
    got = masks.soft_edge(mask, width, extend_px=extend)
    assert np.all(got[mask] == 1)
    assert got.min() >= 0
    # Brute force: the distance to the nearest pixel of the mask.
    inside = np.argwhere(mask)
    grid = np.argwhere(np.ones_like(mask))
    nearest = np.sqrt(((grid[:, None] - inside[None]) ** 2).sum(-1).min(1)).reshape(mask.shape)
    assert np.all(got[nearest <= extend] == 1)
    assert np.all(got[(nearest > extend) & (nearest >= extend + width)] == 0)
    np.testing.assert_allclose(got, fourier.raised_cosine(nearest - extend, width), atol=1e-6)


def test_from_threshold_keeps_the_largest_part_and_dilates():
    values = np.zeros((20, 20, 20), np.float32)
    values[9:12, 9:12, 9:12] = 2
    values[1, 1, 1] = 3
    both = masks.from_threshold(values, 1, extend_px=0, edge_px=0)
    one = masks.from_threshold(values, 1, extend_px=0, edge_px=0, largest=True)
    assert both.sum() == 28
    assert one.sum() == 27
    assert one[1, 1, 1] == 0
    grown = masks.from_threshold(values, 1, extend_px=2, edge_px=3, largest=True)
    assert grown[10, 10, 13] == 1
    assert 0 < grown[10, 10, 15] < 1
    assert grown[10, 10, 16] == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: masks.soft_sphere(8, -1), "radius_px"),
        (lambda: masks.soft_sphere(8, 2, -1), "width"),
        (lambda: masks.soft_sphere((8, 8), 2, 1, center=(1, 2, 3)), "center"),
        (lambda: masks.from_threshold(np.ones(4), 2.0), "range from 1 to 1"),
        (lambda: masks.from_threshold(np.array([np.nan, 1.0]), 0.5), "not finite"),
        (lambda: masks.soft_edge(np.zeros(4), 1.0), "no pixel"),
        (lambda: masks.dilate(np.zeros(4), -1), "iterations"),
        (lambda: masks.soft_edge(np.ones(4), 1.0, extend_px=-1), "extend_px"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize("shape", [(40,), (23, 31), (14, 19, 24)])
def test_soft_edge_of_a_small_part_equals_that_from_all_distances(shape):
    """Only what lies near the mask is computed; the rest is 0."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        mask = np.zeros(shape, bool)
        mask[tuple(rng.integers(0, n, size=3) for n in shape)] = True
        distance = ndimage.distance_transform_edt(~mask)
        for extend, edge in ((0, 0), (1.5, 3), (2, 0), (30, 20)):
            want = fourier.raised_cosine(distance - extend, edge)
            np.testing.assert_allclose(masks.soft_edge(mask, edge, extend_px=extend), want, atol=1e-6)
