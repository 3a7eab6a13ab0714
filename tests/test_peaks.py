"""ops.peaks against the reference, closed forms and its own promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference

from tolerance import PEAKS_ABS


def random_map(shape, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=shape).astype(np.float32)
    image[rng.random(shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
    return image, rng.random(shape) < 0.9


sides = st.tuples(st.integers(1, 14), st.integers(1, 14))


@settings(deadline=None, max_examples=30)
@given(shape=sides, seed=st.integers(0, 9999), radius=st.floats(0, 6))
def test_equals_the_reference(device, shape, seed, radius):
    image, mask = random_map(shape, seed)
    xy, values = ops.peaks(image, radius, threshold=-0.4, mask=mask, device=device)
    want = reference.peaks.peaks(image, radius, -0.4, mask)
    np.testing.assert_allclose(np.column_stack([xy, values]), want, atol=PEAKS_ABS)


@settings(deadline=None, max_examples=30)
@given(shape=sides, seed=st.integers(0, 9999))
def test_plateaus_count_once(device, shape, seed):
    image, mask = random_map(shape, seed)
    image = np.round(image)
    found = np.column_stack(ops.peaks(image, 0, mask=mask, device=device))
    want = reference.peaks.peaks(image, 0, mask=mask)
    # heights that are equal but for rounding come in either order
    first, second = (rows[np.lexsort(np.round(rows[:, :2], 6).T)] for rows in (found, want))
    np.testing.assert_allclose(first, second, atol=PEAKS_ABS)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 9999), radius=st.floats(0.5, 9))
def test_none_closer_than_the_radius_and_none_missed(device, seed, radius):
    image = np.random.default_rng(seed).normal(size=(40, 30)).astype(np.float32)
    xy, values = ops.peaks(image, radius, device=device)
    everything, _ = ops.peaks(image, 0, device=device)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    assert distance[~np.eye(len(xy), dtype=bool)].min(initial=np.inf) >= radius
    assert np.all(np.diff(values) <= 0)
    assert np.all(np.linalg.norm(everything[:, None] - xy[None], axis=2).min(axis=1) < max(radius, 1e-9))


def test_vertex_of_a_quadratic_is_exact(device):
    y, x = np.mgrid[:9, :11].astype(np.float64)
    u, v = x - 6.3, y - 3.8
    image = (5 - 0.5 * u**2 - 0.8 * v**2 + 0.3 * u * v).astype(np.float32)
    xy, values = ops.peaks(image, 3, device=device)
    np.testing.assert_allclose(xy, [[6.3, 3.8]], atol=PEAKS_ABS)
    np.testing.assert_allclose(values, [5], atol=PEAKS_ABS)


def test_threads_do_not_change_the_result_and_bad_input_is_named(device):
    image = np.random.default_rng(1).normal(size=(64, 48)).astype(np.float32)
    first, second = (ops.peaks(image, 3, threads=t, device=device) for t in (1, 3))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert len(ops.peaks(np.full((4, 4), np.nan), 2, device=device)[0]) == 0
    assert len(ops.peaks(np.zeros((0, 4)), 2, device=device)[0]) == 0
    with pytest.raises(ValueError, match="map"):
        ops.peaks(image[0], 3, device=device)
    with pytest.raises(ValueError, match="mask"):
        ops.peaks(image, 3, mask=np.ones((4, 4), bool), device=device)
    with pytest.raises(ValueError, match="radius_px"):
        ops.peaks(image, -1, device=device)
