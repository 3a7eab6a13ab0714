"""ops.shell_dot against its reference, Parseval's theorem, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import fourier, ops, reference

from devices import host, on


def transforms(n: int, box: int, seed: int) -> np.ndarray:
    return fourier.forward(np.random.default_rng(seed).standard_normal((n, box, box)).astype(np.float32), 2)


@settings(deadline=None, max_examples=30)
@given(box=st.integers(3, 24), n=st.integers(1, 4), seed=st.integers(0, 99))
def test_equals_the_reference(device, box, n, seed):
    a, b = transforms(n, box, seed), transforms(n, box, seed + 100)
    radius = (box - 1) // 2
    want = reference.shell_dot.shell_dot(a, b, radius)
    scale = np.sqrt(ops.shell_dot(a) * ops.shell_dot(b))
    assert np.all(np.abs(host(ops.shell_dot(a, b, device=device)) - want) <= 1e-6 * scale)


def test_parseval(device):
    """All shells and what lies in the corners together are the sum of squares of the pixels."""
    image = np.random.default_rng(0).standard_normal((1, 15, 15)).astype(np.float32)
    band = fourier.forward(image, 2) * (fourier.shells((15, 15)) <= 7)
    inside = fourier.inverse(band, (15, 15))
    assert host(ops.shell_dot(band, device=device)).sum() / 15**2 == pytest.approx(
        float((inside.astype(float) ** 2).sum()), rel=1e-5
    )


def test_index_threads_and_batches(device):
    a, b = transforms(5, 12, 1), transforms(3, 12, 2)
    index = np.array([2, 0, 0, 1, 2])
    how = {"max_radius": 4, "device": device}
    got = host(ops.shell_dot(a, b, b_of_a=index, **how, threads=1))
    assert np.array_equal(got, host(ops.shell_dot(a, b[index], **how, threads=3)))
    assert np.array_equal(got[3:], host(ops.shell_dot(on(device, a[3:]), b, b_of_a=index[3:], **how)))
    if device != "cpu":
        beyond = host(ops.shell_dot(a, b, b_of_a=on(device, [2, 0, 3, 1, -1], np.int64), **how))
        assert np.isnan(beyond).all(axis=1).tolist() == [False, False, True, False, True]


def test_bad_input(device):
    on_it = {"device": device}
    a = transforms(2, 12, 1)
    with pytest.raises(ValueError, match="half transforms"):
        ops.shell_dot(a[:, :, :5].copy(), **on_it)
    with pytest.raises(ValueError, match="max_radius: expected 0 to 5, got 6"):
        ops.shell_dot(a, max_radius=6, **on_it)
    with pytest.raises(ValueError, match="as many transforms"):
        ops.shell_dot(a, a[:1], **on_it)
    with pytest.raises(ValueError, match="b_of_a"):
        ops.shell_dot(a, a, b_of_a=[0, 2], **on_it)
    with pytest.raises(ValueError, match="complex64"):
        ops.shell_dot(a.astype(np.complex128), **on_it)
