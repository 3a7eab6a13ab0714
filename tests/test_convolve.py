"""ops.convolve and its gradient against their reference, for any number of threads, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference

from tolerance import CONVOLUTION_RELATIVE


def arrays(seed, n, shape, channels, kernels, side):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n, *shape, channels), np.float32)
    weight = rng.standard_normal((side, side, channels, kernels), np.float32)
    return rng, images, weight, rng.standard_normal(kernels).astype(np.float32)


# Kernels: within a vector of eight, in groups of each number of vectors, and beyond the largest group of 48.
@settings(deadline=None, max_examples=40)
@given(
    side=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    channels=st.integers(1, 5),
    kernels=st.sampled_from([1, 8, 12, 17, 25, 40, 48, 61]),
    seed=st.integers(0, 99),
)
def test_both_equal_the_reference(side, stride, shape, channels, kernels, seed):
    rng, images, weight, bias = arrays(seed, 2, shape, channels, kernels, side)
    want = reference.convolve.convolve(images, weight, bias, stride)
    size = reference.convolve.convolve(abs(images), abs(weight), abs(bias), stride)
    got = ops.convolve(images, weight, bias, stride)
    assert np.all(np.abs(got - want) <= CONVOLUTION_RELATIVE * size)
    other = rng.standard_normal(want.shape).astype(np.float32)
    want = reference.convolve.convolve_gradient(images, other, side, stride)
    size = reference.convolve.convolve_gradient(abs(images), abs(other), side, stride)
    assert np.all(np.abs(ops.convolve_gradient(images, other, side, stride) - want) <= CONVOLUTION_RELATIVE * size)


def test_neither_depends_on_the_threads_nor_on_what_else_is_asked():
    rng, images, weight, bias = arrays(3, 3, (21, 30), 4, 12, 3)
    alone = ops.convolve(images, weight, bias, 2, threads=1)
    assert np.array_equal(alone, ops.convolve(images, weight, bias, 2, threads=3))
    assert np.array_equal(alone[1:2], ops.convolve(images[1:2], weight, bias, 2))
    other = rng.standard_normal(alone.shape).astype(np.float32)
    one, three = (ops.convolve_gradient(images, other, 3, 2, threads=n) for n in (1, 3))
    assert np.array_equal(one, three)


def test_what_does_not_fit_is_refused():
    _, images, weight, bias = arrays(0, 1, (8, 8), 2, 3, 3)
    with pytest.raises(ValueError, match="bias: expected"):
        ops.convolve(images, weight, bias[:2])
    with pytest.raises(ValueError, match="weight: expected"):
        ops.convolve(images, weight[:, :, :1], bias)
    with pytest.raises(ValueError, match="odd side"):
        ops.convolve(images, np.zeros((2, 2, 2, 3), np.float32), bias)
    with pytest.raises(ValueError, match=r"stride: expected a whole number from 1 to .*, got 0"):
        ops.convolve(images, weight, bias, 0)
    with pytest.raises(ValueError, match="images: expected"):
        ops.convolve(images.astype(np.float64), weight, bias)
    with pytest.raises(ValueError, match="gradient: expected"):
        ops.convolve_gradient(images, np.zeros((1, 8, 7, 3), np.float32), 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, w, b: ops.convolve(x.tolist(), w, b), "images: expected .* four axes, got list"),
        (lambda x, w, b: ops.convolve(x, np.float32(1), b), "weight: expected .* four axes, got float32"),
        (lambda x, w, b: ops.convolve(x, w, b, 1.5), "stride: expected a whole number .*, got 1.5"),
        (lambda x, w, b: ops.convolve(x, w, b, 1 << 40), "stride: expected a whole number"),
        (lambda x, w, b: ops.convolve_gradient(x[0], x, 3), r"images: expected .* four axes, got shape \(8, 8, 2\)"),
        (lambda x, w, b: ops.convolve_gradient(x, x[0], 3), "gradient: expected .* four axes"),
        (lambda x, w, b: ops.convolve_gradient(x, x, 1000001), "side: expected an odd number up to 15, got 1000001"),
        (lambda x, w, b: ops.convolve_gradient(x, x, -1), "side: expected an odd number up to 15, got -1"),
    ],
)
def test_what_would_be_shaped_wrongly_is_refused_before_anything_is_made(call, words):
    _, images, weight, bias = arrays(0, 1, (8, 8), 2, 3, 3)
    with pytest.raises(ValueError, match=words):
        call(images, weight, bias)


def test_nothing_makes_nothing():
    _, images, weight, bias = arrays(0, 1, (8, 8), 2, 3, 3)
    assert ops.convolve(images[:0], weight, bias).shape == (0, 8, 8, 3)
    np.testing.assert_array_equal(ops.convolve(images[..., :0], weight[:, :, :0], bias)[0, 0, 0], bias)
    assert not ops.convolve_gradient(images[:0], images[:0], 3).any()
