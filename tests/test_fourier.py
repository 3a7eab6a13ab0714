"""Transforms of whole arrays: the theorems, crop and pad, shells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import fourier
from verglas.errors import InputError

from tolerance import FOURIER_FLOAT32, FOURIER_FLOAT64

shapes = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
)
seeds = st.integers(0, 99999)


def random(shape, seed, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(got, want, relative):
    scale = max(np.abs(want).max(), 1e-300)
    np.testing.assert_allclose(got, want, atol=relative * scale, rtol=0)


def centred(x):
    """The full transform by numpy, phase-centred, its half kept."""
    full = np.fft.fftn(np.fft.ifftshift(x))
    return full[..., : x.shape[-1] // 2 + 1]


@settings(deadline=None, max_examples=60)
@given(shape=shapes, seed=seeds, dtype=st.sampled_from([np.float32, np.float64]), batch=st.integers(0, 3))
def test_equals_numpy_and_inverts(shape, seed, dtype, batch):
    """Against numpy.fft to 1e-6, even and odd sides; the inverse gives the input back."""
    images = random((batch, *shape), seed, dtype)
    before = images.copy()
    tolerance = FOURIER_FLOAT64 if dtype == np.float64 else FOURIER_FLOAT32
    got = fourier.forward(images, len(shape))
    assert got.dtype == (np.complex128 if dtype == np.float64 else np.complex64)
    for x, f in zip(images, got, strict=True):
        close(f, centred(x), tolerance)
    if batch:
        close(fourier.inverse(got, shape), images, tolerance)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("n", [7, 8, 12])
def test_low_frequencies_are_those_of_the_whole_transform(n):
    images, last = random((2, n, n), n, np.float32), (n - 1) // 2
    for some in (0, last // 2, last):
        rows = np.r_[0 : some + 1, n - some : n]
        close(fourier.low_frequencies(images, some), fourier.forward(images, 2)[:, rows, : some + 1], FOURIER_FLOAT32)
    with pytest.raises(InputError, match=f"expected a frequency below half of {n} pixels"):
        fourier.low_frequencies(images, last + 1)


def test_one_dimension_magnitude_phase_and_power():
    n, k, amplitude, phase = 32, 5, 1.5, 0.7
    x = amplitude * np.cos(2 * np.pi * k * (np.arange(n) - n // 2) / n + phase)
    f = fourier.forward(x, 1)
    assert abs(f[k]) == pytest.approx(amplitude * n / 2)
    assert np.angle(f[k]) == pytest.approx(phase)
    assert np.delete(abs(f), k).max() < 1e-12


@settings(deadline=None, max_examples=30)
@given(shape=shapes, seed=seeds, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linearity(shape, seed, a, b):
    x, y = random((2, *shape), seed)
    nd = len(shape)
    close(fourier.forward(a * x + b * y, nd), a * fourier.forward(x, nd) + b * fourier.forward(y, nd), FOURIER_FLOAT64)


@settings(deadline=None, max_examples=30)
@given(shape=shapes, seed=seeds)
def test_parseval(shape, seed):
    x = random(shape, seed)
    f = fourier.forward(x, len(shape))
    assert np.sum(np.abs(f) ** 2 * fourier.half_weights(shape)) / x.size == pytest.approx(np.sum(x**2))


@settings(deadline=None, max_examples=40)
@given(shape=shapes, seed=seeds, data=st.data())
def test_shift_is_a_phase_ramp(shape, seed, data):
    x = random(shape, seed)
    shift = data.draw(st.tuples(*[st.integers(-5, 5)] * len(shape)))
    moved = np.roll(x, shift[::-1], axis=range(len(shape)))
    got = fourier.forward(x, len(shape)) * fourier.shift_phases(shape, shift)
    close(got, fourier.forward(moved, len(shape)), FOURIER_FLOAT32)


@pytest.mark.parametrize("n", [8, 9])
def test_rotation_rotates_the_transform(n):
    """A quarter turn about the origin, exact on the grid: F(R k) of the turned image is F(k)."""
    x = random((n, n), 3)
    index = np.arange(n) - n // 2
    yy, xx = np.meshgrid(index, index, indexing="ij")
    turned = np.zeros_like(x)  # (x, y) -> (-y, x); positions beyond the even side wrap around
    turned[(xx + n // 2) % n, (-yy + n // 2) % n] = x
    full = np.fft.fftn(np.fft.ifftshift(x))
    want = np.zeros_like(full)
    want[xx % n, -yy % n] = full[yy % n, xx % n]
    close(fourier.forward(turned, 2), want[:, : n // 2 + 1], FOURIER_FLOAT64)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scaling(scale):
    """FT(f(a x)) = F(u / a) |a|^-d, with a Gaussian, whose samples are its transform's to 1e-6."""
    n, sigma = 96, 4.0
    r2 = np.sum(np.square(np.meshgrid(*[np.arange(n) - n // 2] * 2)), axis=0)
    got = fourier.forward(np.exp(-(scale**2) * r2 / (2 * sigma**2)), 2)
    u2 = (fourier.radius((n, n)) / n / scale) ** 2
    want = 2 * np.pi * sigma**2 * np.exp(-2 * np.pi**2 * sigma**2 * u2) / scale**2
    close(got, want, 1e-6)


def trigonometric(x, points):
    """The real trigonometric polynomial through the samples of one axis, at other points, by direct sum."""
    n = len(x)
    k = np.arange(-(n // 2), n - n // 2)
    f = np.exp(-2j * np.pi * np.outer(k, np.arange(n) - n // 2) / n) @ x
    if n % 2 == 0:  # half of the Nyquist element to each end
        k, f = np.append(k, n // 2), np.append(f, f[0] / 2)
        f[0] /= 2
    return (np.exp(2j * np.pi * np.outer(points, k) / n) @ f).real / n


@settings(deadline=None, max_examples=40)
@given(old=st.tuples(*[st.integers(1, 9)] * 2), more=st.tuples(*[st.integers(0, 7)] * 2), seed=seeds)
def test_padding_is_trigonometric_interpolation(old, more, seed):
    """Fourier padding samples the polynomial through the pixels, even and odd sides, the centre kept on the origin."""
    new = tuple(a + b for a, b in zip(old, more, strict=True))
    x = random(old, seed)
    got = fourier.inverse(fourier.resize(fourier.forward(x, 2), old, new), new) * np.prod(new) / np.prod(old)
    want = x
    for axis in (0, 1):
        points = (np.arange(new[axis]) - new[axis] // 2) * old[axis] / new[axis]
        want = np.apply_along_axis(trigonometric, axis, want, points)
    close(got, want, FOURIER_FLOAT64)


@settings(deadline=None, max_examples=60)
@given(shape=shapes, data=st.data(), seed=seeds)
def test_cropping_undoes_padding(shape, data, seed):
    bigger = tuple(n + data.draw(st.integers(0, 6)) for n in shape)
    x = random(shape, seed)
    f = fourier.forward(x, len(shape))
    wide = fourier.resize(f, shape, bigger)
    # The padded half transform is that of a real array: it survives going there and back.
    close(fourier.forward(fourier.inverse(wide, bigger), len(shape)), wide, FOURIER_FLOAT64)
    close(fourier.resize(wide, bigger, shape), f, FOURIER_FLOAT64)


@settings(deadline=None, max_examples=40)
@given(old=st.tuples(*[st.integers(1, 12)] * 2), new=st.tuples(*[st.integers(1, 12)] * 2), seed=seeds)
def test_any_resize_samples_the_band_limited_polynomial(old, new, seed):
    """Crop, pad or both: what lies above the smaller band is gone, the rest is sampled where the new pixels lie."""
    x = random(old, seed)
    got = fourier.inverse(fourier.resize(fourier.forward(x, 2), old, new), new) * np.prod(new) / np.prod(old)
    want = x
    for axis in (0, 1):
        n, m = old[axis], new[axis]
        points = (np.arange(m) - m // 2) * n / m
        k = np.arange(-(min(n, m) // 2), min(n, m) // 2 + 1)
        f = np.exp(-2j * np.pi * np.outer(k, np.arange(n) - n // 2) / n)
        if m >= n and n % 2 == 0:
            f[[0, -1]] /= 2
        matrix = (np.exp(2j * np.pi * np.outer(points, k) / n) @ f).real / n
        want = np.moveaxis(np.tensordot(matrix, want, (1, axis)), 0, axis)
    close(got, want, FOURIER_FLOAT64)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 12), ndim=st.sampled_from([2, 3]), seed=seeds)
def test_shell_sums_and_means_by_listing_the_full_transform(n, ndim, seed):
    shape = (n,) * ndim
    x, y = random((2, *shape), seed)
    fx, fy = np.fft.fftn(x), np.fft.fftn(y)
    axes = [np.fft.fftfreq(n, 1 / n)] * ndim
    shell = np.rint(np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij"))))
    sums = fourier.shell_sums([fourier.forward(x, ndim), fourier.forward(y, ndim)], shape)
    means = fourier.radial_mean(np.abs(fourier.forward(x, ndim)) ** 2, shape)
    for s in range(n // 2 + 1):
        here = shell == s
        want = [np.sum(a[here] * b[here].conj()).real for a, b in ((fx, fx), (fy, fx), (fy, fy))]
        assert sums[:, s] == pytest.approx(want, rel=1e-9, abs=1e-9)
        assert means[s] == pytest.approx(np.mean(np.abs(fx[here]) ** 2))


def test_white_noise_has_a_flat_power_spectrum():
    n, sigma = 256, 2.0
    spectrum = fourier.power_spectrum(sigma * random((n, n), 5, np.float32), 2)
    _, independent = fourier.shell_counts((n, n))
    # |F|^2 of an independent element is exponential, sd = mean; over a shell sd falls by sqrt of their number.
    deviation = (spectrum / sigma**2 - 1) * np.sqrt(independent)
    assert np.abs(deviation[4:]).max() < 4.0  # 125 shells: 3 sigma each, 4 for the worst of them
    assert np.mean(np.abs(deviation[4:]) < 3) > 0.97


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fourier.resize(np.zeros((4, 3), complex), (4, 4), (4, 4, 4)), "expected 2 sides"),
        (lambda: fourier.resize(np.zeros((4, 4), complex), (4, 4), (8, 8)), "do not belong"),
        (lambda: fourier.shift_phases((4, 4), [1, 2, 3]), "expected 2 numbers"),
        (lambda: fourier.power_spectrum(np.zeros((4, 5)), 2), "square"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (6, 7), (5, 4, 6), (4, 5, 7)])
def test_whole_is_the_full_transform_with_zero_in_the_middle(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape))
    axes = tuple(range(-len(shape), 0))
    expected = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x, axes=axes), axes=axes), axes=axes)
    assert np.allclose(fourier.whole(fourier.forward(x, len(shape)), shape), expected)


def test_whole_refuses_a_transform_of_another_shape():
    with pytest.raises(InputError, match="do not belong to real shape"):
        fourier.whole(np.zeros((8, 5)), (8, 10))
