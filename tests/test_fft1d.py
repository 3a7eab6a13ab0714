"""The short transforms of cpp/math/fft1d.h against scipy.fft in double (the direct sums are in tests/cpp)."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas._native import core

from tolerance import FFT1D_REL

SMOOTH = sorted(
    n
    for a in range(11)
    for b in range(7)
    for c in range(5)
    for d in range(4)
    if (n := 2**a * 3**b * 5**c * 7**d) <= 1024
)


def noise(seed: int, rows: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, n)).astype(np.float32)


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert np.abs(got - want).max() <= FFT1D_REL * np.abs(want).max()


@settings(deadline=None, max_examples=80)
@given(n=st.sampled_from(SMOOTH), rows=st.integers(1, 40), seed=st.integers(0, 2**32 - 1), inverse=st.booleans())
def test_complex_equals_scipy(n, rows, seed, inverse):
    x = (noise(seed, rows, n) + 1j * noise(seed + 1, rows, n)).astype(np.complex64)
    want = scipy.fft.ifft(x.astype(np.complex128)) * n if inverse else scipy.fft.fft(x.astype(np.complex128))
    close(core._fft1d(x, inverse), want)


@settings(deadline=None, max_examples=80)
@given(n=st.sampled_from(SMOOTH), rows=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_real_equals_scipy(n, rows, seed):
    x = noise(seed, rows, n)
    want = scipy.fft.rfft(x.astype(np.float64))
    got = core._rfft1d(x)
    close(got, want)
    close(core._irfft1d(want.astype(np.complex64), n), n * x.astype(np.float64))


def test_a_row_does_not_depend_on_its_neighbours():
    x = noise(0, 37, 90)
    together = core._rfft1d(x)
    assert all(np.array_equal(core._rfft1d(x[i : i + 1])[0], together[i]) for i in range(37))


@pytest.mark.parametrize("n", [11, 22, 1021])
def test_other_lengths_are_refused_with_the_next_good_one(n):
    nxt = min(m for m in [*SMOOTH, 1029] if m > n)
    with pytest.raises(ValueError, match=rf"product of 2, 3, 5 and 7, got {n}; the next such length is {nxt}$"):
        core._rfft1d(np.zeros((1, n), np.float32))
