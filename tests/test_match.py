"""ops.match against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference

from devices import host, on
from tolerance import MATCH_REL


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 220), depth=st.integers(1, 40), pixels=st.integers(0, 300), seed=st.integers(0, 9999))
def test_equals_the_reference(device, rows, depth, pixels, seed):
    rng = np.random.default_rng(seed)
    maps, mix = (rng.normal(size=s).astype(np.float32) for s in ((depth, pixels), (rows, depth)))
    best, which = host(ops.match(maps, mix, device=device))
    want, _ = reference.match.match(maps, mix)
    scale = MATCH_REL * np.linalg.norm(maps, axis=0) * np.linalg.norm(mix, axis=1).max()
    assert np.all(np.abs(best - want) <= scale)
    # the number is that of a combination that is largest but for rounding
    chosen = np.einsum("pk,kp->p", mix[which].astype(float), maps.astype(float))
    assert np.all(np.abs(chosen - want) <= scale)


def test_ties_go_to_the_first_and_threads_do_not_matter(device):
    maps = np.random.default_rng(0).normal(size=(5, 1000)).astype(np.float32)
    mix = np.repeat(np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32), 3, axis=0)
    best, which = host(ops.match(maps, mix, device=device, threads=1))
    assert np.all(which % 3 == 0)
    again = host(ops.match(maps, mix, device=device, threads=3))
    assert np.array_equal(best, again[0])
    assert np.array_equal(which, again[1])
    # other blocks of pixels
    half = host(ops.match(np.ascontiguousarray(maps[:, 37:]), on(device, mix), device=device))
    assert np.array_equal(best[37:], half[0])


def test_bad_input_is_named(device):
    with pytest.raises(ValueError, match="mix"):
        ops.match(np.zeros((3, 4)), np.zeros((2, 5)), device=device)
    with pytest.raises(ValueError, match="at least one row"):
        ops.match(np.zeros((3, 4)), np.zeros((0, 3)), device=device)
    with pytest.raises(ValueError, match="maps"):
        ops.match(np.zeros(3), np.zeros((2, 5)), device=device)


def test_what_is_not_a_number_is_never_the_largest_but_in_the_first_combination(device):
    maps, mix = np.ones((1, 3), np.float32), np.array([[1], [np.nan], [3]], np.float32)
    best, which = host(ops.match(maps, mix, device=device))
    assert best.tolist() == [3, 3, 3]
    assert which.tolist() == [2, 2, 2]
    best, which = host(ops.match(maps, mix[1:], device=device))
    assert np.isnan(best).all()
    assert which.tolist() == [0, 0, 0]
