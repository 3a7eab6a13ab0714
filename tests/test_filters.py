"""Radial filters, kernels, convolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import filters, fourier
from verglas.errors import InputError

from tolerance import FOURIER_FLOAT32, FOURIER_FLOAT64

seeds = st.integers(0, 99999)


def direct_convolution(f, g, wrap):
    out = np.zeros(f.shape)
    for index in np.ndindex(g.shape):
        offset = [i - n // 2 for i, n in zip(index, g.shape, strict=True)]
        for x in np.ndindex(f.shape):
            y = [a - o for a, o in zip(x, offset, strict=True)]
            inside = all(0 <= v < n for v, n in zip(y, f.shape, strict=True))
            if wrap or inside:
                out[x] += g[index] * f[tuple(v % n for v, n in zip(y, f.shape, strict=True))]
    return out


@settings(deadline=None, max_examples=25)
@given(data=st.data(), seed=seeds, wrap=st.booleans(), dtype=st.sampled_from([np.float32, np.float64]))
def test_convolution_theorem_equals_the_direct_sum(data, seed, wrap, dtype):
    ndim = data.draw(st.integers(1, 3))
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * ndim))
    small = tuple(data.draw(st.integers(1, min(4, n))) for n in shape)
    rng = np.random.default_rng(seed)
    f, g = rng.normal(size=shape).astype(dtype), rng.normal(size=small).astype(dtype)
    got = filters.convolve(f, g, wrap=wrap)
    want = direct_convolution(f.astype(float), g.astype(float), wrap)
    assert got.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    # Relative to what the sum is made of: it may cancel, but not more exactly than its terms are kept.
    np.testing.assert_allclose(got, want, atol=tolerance * np.abs(g).sum() * np.abs(f).max())


@pytest.mark.parametrize("wrap", [True, False])
def test_convolve_works_on_a_batch(wrap):
    f = np.random.default_rng(0).normal(size=(3, 8, 9))
    kernel = filters.sharpening_kernel(0.7)
    each = np.array([filters.convolve(x, kernel, wrap=wrap) for x in f])
    np.testing.assert_allclose(filters.convolve(f, kernel, wrap=wrap), each, atol=FOURIER_FLOAT64)


@settings(deadline=None, max_examples=30)
@given(
    size=st.sampled_from([1, 3, 5]),
    ndim=st.integers(1, 3),
    sigma=st.one_of(st.none(), st.floats(0.3, 3)),
    amount=st.floats(0, 5),
)
def test_impulse_response_is_the_kernel_and_dc_gain_is_one(size, ndim, sigma, amount):
    kernels = (
        filters.smoothing_kernel(size, ndim, sigma_px=sigma),
        filters.sharpening_kernel(amount, size, ndim, sigma_px=sigma),
    )
    impulse = np.zeros((7,) * ndim)
    impulse[(3,) * ndim] = 1
    for kernel in kernels:
        assert kernel.sum() == pytest.approx(1, abs=1e-12)
        response = filters.convolve(impulse, kernel)
        middle = (slice(3 - size // 2, 4 + size // 2),) * ndim
        np.testing.assert_allclose(response[middle], kernel, atol=1e-12)
        assert np.abs(response).sum() == pytest.approx(np.abs(kernel).sum())
        np.testing.assert_allclose(filters.convolve(np.full((7,) * ndim, 2.5), kernel), 2.5, atol=1e-12)


def test_sharpening_raises_and_smoothing_lowers_high_frequencies():
    stripes = np.tile([1.0, -1.0], 8)
    smooth = filters.convolve(stripes, filters.smoothing_kernel(3, 1))
    np.testing.assert_allclose(smooth, -stripes / 3, atol=1e-12)
    sharp = filters.convolve(stripes, filters.sharpening_kernel(1.0, 3, 1))
    np.testing.assert_allclose(sharp, stripes * (1 + (1 + 1 / 3)), atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(d=st.floats(2.5, 50), width=st.floats(0, 0.1))
def test_gain_is_one_in_the_band_and_zero_beyond_its_edge(d, width):
    s = np.linspace(0, 0.6, 1001)
    low = filters.low_pass(d, width)(s)
    assert np.all(low[s <= 1 / d] == 1)
    assert np.all(low[(s > 1 / d + width + 1e-12)] == 0)
    assert np.all(np.diff(low) <= 0)
    high = filters.high_pass(d, width)(s)
    assert np.all(high[s >= 1 / d] == 1)
    assert np.all(high[(s < 1 / d - width - 1e-12)] == 0)
    assert np.all(np.diff(high) >= 0)
    band = filters.band_pass(2 * d, d, width)(s)
    assert np.all(band[(s >= 0.5 / d) & (s <= 1 / d)] == 1)
    np.testing.assert_allclose(band, low * filters.high_pass(2 * d, width)(s))


@settings(deadline=None, max_examples=25)
@given(ny=st.integers(4, 20), nx=st.integers(4, 20), data=st.data(), apix=st.floats(0.5, 3))
def test_each_wave_is_scaled_by_the_gain_at_its_frequency(ny, nx, data, apix):
    ky, kx = data.draw(st.integers(0, (ny - 1) // 2)), data.draw(st.integers(0, (nx - 1) // 2))
    y, x = np.mgrid[:ny, :nx]
    wave = np.cos(2 * np.pi * (ky * y / ny + kx * x / nx) + 0.3)
    gain = filters.product(filters.gaussian(0.8), filters.b_factor(12.0), filters.low_pass(4 * apix))
    s = np.hypot(ky / (ny * apix), kx / (nx * apix))
    want = float(gain(s)) * wave
    np.testing.assert_allclose(filters.apply(wave, gain, apix), want, atol=1e-12)


def test_high_pass_removes_a_planted_gradient():
    """Inside the image, away from the jump that a ramp makes at the periodic border."""
    n = 256
    gradient = np.linspace(0, 100, n)[None, :] * np.ones((n, 1))
    got = filters.apply(gradient, filters.high_pass(n / 12, 12 / n), 1.0)
    inside = got[:, n // 8 : -n // 8]
    assert np.abs(inside).max() < 0.01 * 100


@pytest.mark.parametrize("periods", [8, 12, 24])
def test_the_default_edge_of_a_high_pass_leaves_less_than_1_percent_of_a_gradient(periods):
    n = 256
    gradient = np.linspace(0, 100, n)[None, :] * np.ones((n, 1))
    for gain in (filters.high_pass(n / periods), filters.band_pass(n / periods, 2.0)):
        inside = filters.apply(gradient, gain, 1.0)[:, n // 8 : -n // 8]
        assert np.abs(inside).max() < 1.0


def test_gaussian_is_the_real_space_blur_of_its_sigma():
    n, sigma = 64, 2.5
    impulse = np.zeros((n, n, n), np.float32)
    impulse[(n // 2,) * 3] = 1
    got = filters.apply(vg.Map(impulse, 1.0), filters.gaussian(sigma)).data
    x = np.arange(n) - n // 2
    r2 = x**2 + x[:, None] ** 2 + x[:, None, None] ** 2
    want = np.exp(-r2 / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** 1.5
    np.testing.assert_allclose(got, want, atol=FOURIER_FLOAT32 * want.max())


def test_b_factor_is_a_gaussian_of_sigma_squared_b_over_8_pi_squared():
    s = np.linspace(0, 0.5, 20)
    np.testing.assert_allclose(filters.b_factor(80.0)(s), filters.gaussian(np.sqrt(80 / (8 * np.pi**2)))(s))
    np.testing.assert_allclose(filters.b_factor(80.0)(s) * filters.b_factor(-80.0)(s), 1)


def test_filtering_by_a_transfer_and_its_inverse_restores_a_band_limited_image():
    rng = np.random.default_rng(4)
    image = filters.apply(rng.normal(size=(64, 64)), filters.low_pass(4.0, 0.05), 1.0)
    transfer = filters.from_curve([0, 0.1, 0.35, 0.5], [1.0, 1.8, 0.3, 0.0])
    seen = filters.apply(image, transfer, 1.0)
    back = filters.apply(seen, filters.inverse(transfer), 1.0)
    assert np.abs(seen - image).max() > 0.1
    np.testing.assert_allclose(back, image, atol=1e-10)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(5, 24), seed=seeds)
def test_deconvolution_recovers_what_a_kernel_without_zeros_blurred(n, seed):
    image = np.random.default_rng(seed).normal(size=(n, n)).astype(np.float32)
    psf = np.array([[0.02, 0.08, 0.02], [0.08, 0.6, 0.08], [0.02, 0.08, 0.02]])
    blurred = filters.convolve(image, psf)
    np.testing.assert_allclose(filters.deconvolve(blurred, psf), image, atol=1e-4 * np.abs(image).max())


def test_zeros_raise_or_are_regularised():
    image = np.random.default_rng(0).normal(size=(24, 24))
    box = filters.smoothing_kernel(3)  # its transform is 0 at a third of the sampling rate
    blurred = filters.convolve(image, box)
    with pytest.raises(InputError, match="vanishes"):
        filters.deconvolve(blurred, box)
    better = filters.deconvolve(blurred, box, regularisation=1e-4)
    assert np.linalg.norm(better - image) < 0.5 * np.linalg.norm(blurred - image)


def test_map_keeps_its_frame_and_dtype():
    m = vg.Map(np.random.default_rng(0).normal(size=(6, 8, 10)), 1.7, (1.0, 2.0, 3.0))
    got = filters.apply(m, filters.low_pass(8.0))
    assert (got.pixel_size_A, got.origin_A, got.data.shape) == (1.7, (1.0, 2.0, 3.0), (6, 8, 10))
    want = fourier.inverse(
        fourier.forward(m.data.astype(float), 3) * filters.low_pass(8.0)(filters.frequencies((6, 8, 10), 1.7)),
        (6, 8, 10),
    )
    np.testing.assert_allclose(got.data, want, atol=FOURIER_FLOAT32 * np.abs(m.data).max())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: filters.low_pass(0), "positive number of angstrom"),
        (lambda: filters.band_pass(5, 10), "must be larger"),
        (lambda: filters.apply(np.ones((4, 4)), filters.low_pass(5)), "needs pixel_size_A"),
        (lambda: filters.apply(np.ones((4, 4)) * np.nan, filters.low_pass(5), 1.0), "not finite"),
        (lambda: filters.apply(np.ones(4), filters.low_pass(5), 1.0), "at least 2 axes"),
        (lambda: filters.apply(vg.Map(np.ones((4, 4, 4)), 1.0), filters.low_pass(5), 2.0), "its own pixel size"),
        (lambda: filters.smoothing_kernel(4), "odd"),
        (lambda: filters.convolve(np.ones((3, 3)), np.ones((4, 4))), "does not fit"),
        (lambda: filters.from_curve([0, 0], [1, 1]), "increasing"),
        (lambda: filters.gaussian(-1.0), "sigma_A"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
