"""ops.pack and ops.unpack against the reference, what lies outside, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference


def filled(grid: ops.Grid, dtype: type, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(grid.shape)
    return values if dtype is np.float64 else values + 1j * rng.standard_normal(grid.shape)


@settings(deadline=None, max_examples=30)
@given(
    box=st.integers(4, 21),
    missing=st.integers(0, 3),
    oversampling=st.sampled_from([1.25, 1.5, 2.0]),
    width=st.sampled_from([4, 6, 8]),
    dtype=st.sampled_from([np.float64, np.complex128]),
)
def test_equals_the_reference(box, missing, oversampling, width, dtype):
    grid = ops.Grid(box, max((box - 1) // 2 - missing, 1), oversampling, width)
    whole = filled(grid, dtype)
    want = reference.pack.pack(whole, grid)
    assert ops.count_points(grid) == len(want)
    packed = np.empty(len(want), dtype)
    outside = ops.pack(whole, grid, packed, threads=2)
    assert np.array_equal(packed, want)
    assert outside == (np.count_nonzero(whole) > len(want))
    back = ops.unpack(packed, grid, threads=2)
    assert np.array_equal(back, reference.pack.unpack(want, grid))
    assert not ops.pack(back, grid, packed, add=True, threads=3)
    assert np.array_equal(packed, want + want)
    rows = slice(1, grid.shape[1] - 2)
    assert np.array_equal(ops.unpack(want, grid, rows, threads=1), back[:, rows])


def test_what_insert_makes_lies_inside():
    grid = ops.Grid(20)
    sums = ops.GridSums.zeros(grid)
    rng = np.random.default_rng(3)
    turns = np.linalg.qr(rng.standard_normal((40, 3, 3)))[0]
    turns *= np.linalg.det(turns)[:, None, None]
    ops.insert(sums, np.ones((40, 20, 11), np.complex64), turns)
    packed = np.empty(ops.count_points(grid), np.complex128)
    assert not ops.pack(sums.values, grid, packed)
    assert np.array_equal(ops.unpack(packed, grid), sums.values)


def test_a_corner_and_a_nan_are_told():
    grid = ops.Grid(12)
    packed = np.empty(ops.count_points(grid))
    whole = np.zeros(grid.shape)
    assert not ops.pack(whole, grid, packed)
    whole[0, 0, -1] = np.nan
    assert ops.pack(whole, grid, packed)
    assert not packed.any()


def test_bad_input():
    grid = ops.Grid(8)
    packed = np.empty(ops.count_points(grid))
    with pytest.raises(ValueError, match="float64 or complex128, both alike, got float32 and float64"):
        ops.pack(np.zeros(grid.shape, np.float32), grid, packed)
    with pytest.raises(ValueError, match="both alike"):
        ops.pack(np.zeros(grid.shape, np.complex128), grid, packed)
    with pytest.raises(ValueError, match="packed: expected"):
        ops.pack(np.zeros(grid.shape), grid, packed[:-1])
    with pytest.raises(ValueError, match=r"begin: expected a run for every row|end <="):
        ops.pack(np.zeros(grid.shape)[1:].copy(), grid, packed)
    with pytest.raises(ValueError, match="C-contiguous"):
        ops.pack(np.zeros(grid.shape).swapaxes(0, 1), grid, packed)
    with pytest.raises(ValueError, match="packed: expected"):
        ops.unpack(packed[1:], grid)
    with pytest.raises(ValueError, match="a step of 2"):
        ops.unpack(packed, grid, slice(0, 6, 2))
