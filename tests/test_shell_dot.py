"""ops.shell_dot against its reference, Parseval's theorem, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verglas import fourier, ops, reference


def transforms(n: int, box: int, seed: int) -> np.ndarray:
    return fourier.forward(np.random.default_rng(seed).standard_normal((n, box, box)).astype(np.float32), 2)


@given(box=st.integers(3, 24), n=st.integers(1, 4), seed=st.integers(0, 99))
def test_equals_the_reference(box, n, seed):
    a, b = transforms(n, box, seed), transforms(n, box, seed + 100)
    radius = (box - 1) // 2
    want = reference.shell_dot.shell_dot(a, b, radius)
    scale = np.sqrt(ops.shell_dot(a) * ops.shell_dot(b))
    assert np.all(np.abs(ops.shell_dot(a, b) - want) <= 1e-6 * scale)


def test_parseval():
    """All shells and what lies in the corners together are the sum of squares of the pixels."""
    image = np.random.default_rng(0).standard_normal((1, 15, 15)).astype(np.float32)
    band = fourier.forward(image, 2) * (fourier.shells((15, 15)) <= 7)
    inside = fourier.inverse(band, (15, 15))
    assert ops.shell_dot(band).sum() / 15**2 == pytest.approx(float((inside.astype(float) ** 2).sum()), rel=1e-5)


def test_index_threads_and_batches():
    a, b = transforms(5, 12, 1), transforms(3, 12, 2)
    index = np.array([2, 0, 0, 1, 2])
    got = ops.shell_dot(a, b, b_of_a=index, max_radius=4, threads=1)
    assert np.array_equal(got, ops.shell_dot(a, b[index], max_radius=4, threads=3))
    assert np.array_equal(got[3:], ops.shell_dot(a[3:], b, b_of_a=index[3:], max_radius=4))


def test_bad_input():
    a = transforms(2, 12, 1)
    with pytest.raises(ValueError, match="half transforms"):
        ops.shell_dot(a[:, :, :5].copy())
    with pytest.raises(ValueError, match="max_radius: expected 0 to 5, got 6"):
        ops.shell_dot(a, max_radius=6)
    with pytest.raises(ValueError, match="as many transforms"):
        ops.shell_dot(a, a[:1])
    with pytest.raises(ValueError, match="b_of_a"):
        ops.shell_dot(a, a, b_of_a=[0, 2])
    with pytest.raises(ValueError, match="complex64"):
        ops.shell_dot(a.astype(np.complex128))
