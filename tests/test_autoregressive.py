"""Power spectra by AR and ARMA models (A3.6), and spectra made to be looked at."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas.errors import InputError
from verglas.optics.fit import autoregressive_spectrum, enhance_spectrum
from verglas.types.power_spectrum import PowerSpectrum

PIXEL_A, SIDE = 2.0, 64


def true_power(side: int, defocus_A: float = 1500.0) -> np.ndarray:
    """Thon rings with an envelope on noise that rises at low frequencies."""
    ctf = vg.ops.ctf(vg.Optics([defocus_A], [defocus_A]).as_params(), side, PIXEL_A)[0]
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    return np.asarray((0.3 + 3 * ctf**2 * np.exp(-((k / 0.25) ** 2))) * (1 + 2 * np.exp(-k / 0.1)))


def image_of(power: np.ndarray, seed: int) -> vg.Micrograph:
    """A quarter of a periodic image, which is not periodic."""
    noise = np.random.default_rng(seed).normal(size=(len(power),) * 2)
    whole = np.fft.irfft2(np.fft.rfft2(noise) * np.sqrt(power))
    return vg.Micrograph(whole[: len(power) // 2, : len(power) // 2], PIXEL_A)


def test_the_variance_is_below_the_periodograms_at_no_more_bias():
    """Twelve images of one spectrum; biases of the means less what their variance leaves of them."""
    truth, want = true_power(256), true_power(SIDE)
    estimates: dict[str, list[np.ndarray]] = {"periodogram": [], "order 8": [], "4 and 4": []}
    for seed in range(12):
        image = image_of(truth, seed)
        part = image.data[:SIDE, :SIDE] - image.data.mean()
        estimates["periodogram"].append(np.abs(np.fft.rfft2(part)) ** 2 / SIDE**2 / want)
        estimates["order 8"].append(autoregressive_spectrum(image, 8, side=SIDE).power / want)
        estimates["4 and 4"].append(autoregressive_spectrum(image, 4, 4, side=SIDE).power / want)
    k = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    band = (k > 0.04) & (k < 0.48)
    bias, variance = {}, {}
    for name, several in estimates.items():
        values = np.array(several)[:, band]
        variance[name] = float(values.var(axis=0, ddof=1).mean())
        bias[name] = float(((values.mean(axis=0) - 1) ** 2).mean() - variance[name] / len(values))
    for name in ("order 8", "4 and 4"):
        assert variance[name] < 0.03 * variance["periodogram"]
        assert bias[name] < bias["periodogram"] + 1e-4


def test_a_planted_autoregression_comes_back_exactly():
    """x = 0.5 left + 0.3 above + e: the closed form of its spectrum."""
    rng, n = np.random.default_rng(3), 400
    x, noise = np.zeros((n, n)), rng.normal(0, 2, (n, n))
    for row in range(1, n):
        above = 0.3 * x[row - 1]
        for column in range(1, n):
            x[row, column] = 0.5 * x[row, column - 1] + above[column] + noise[row, column]
    found = autoregressive_spectrum(vg.Micrograph(x[60:, 60:], 1.0), 1, side=SIDE)
    ky, kx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)
    want = 4 / np.abs(1 - 0.5 * np.exp(-2j * np.pi * kx) - 0.3 * np.exp(-2j * np.pi * ky)) ** 2
    # coefficients err by 1 / 340 each: most where the denominator is least, at frequency 0
    assert np.abs(found.power / want - 1)[8:-8].max() < 0.05
    assert np.median(np.abs(found.power / want - 1)) < 0.02


def test_a_moving_average_needs_one():
    """e + 0.9 of the pixel to the left, nearly a zero at Nyquist: ARMA(1, 1) has it, AR(1) cannot."""
    noise = np.random.default_rng(4).normal(size=(300, 301))
    image = vg.Micrograph(noise[:, 1:] + 0.9 * noise[:, :-1], 1.0)
    want = np.abs(1 + 0.9 * np.exp(-2j * np.pi * np.fft.rfftfreq(SIDE))) ** 2
    errors = [
        np.sqrt(np.mean((autoregressive_spectrum(image, 1, q, side=SIDE).power.mean(axis=0) - want) ** 2))
        for q in (0, 1)
    ]
    assert errors[1] < 0.3 * errors[0]


def test_rings_show_better_in_an_enhanced_spectrum():
    """Correlation with the rings alone, of the logarithm and of what is made of it."""
    image = image_of(true_power(512, 6000.0), 5)
    window = np.outer(np.hanning(256), np.hanning(256))
    power = np.abs(np.fft.rfft2((image.data - image.data.mean()) * window)) ** 2
    shown = enhance_spectrum(PowerSpectrum(power, PIXEL_A, 1))
    assert shown.shape == (256, 256)
    assert np.allclose(shown[1:, 1:], shown[1:, 1:][::-1, ::-1])
    ctf = vg.ops.ctf(vg.Optics([6000.0], [6000.0]).as_params(), 256, PIXEL_A)[0]
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    band = (k > 0.05) & (k < 0.3)
    half = np.fft.ifftshift(shown)[:, :129]
    plain, better = (np.corrcoef(ctf[band] ** 2, values[band])[0, 1] for values in (np.log(power + 1e-9), half))
    assert better > plain + 0.1
    assert 0.5 < half[band].std() < 2


def test_what_cannot_be_is_refused():
    image = image_of(true_power(256), 0)
    with pytest.raises(InputError, match="order of 1 or more"):
        autoregressive_spectrum(image, 0)
    with pytest.raises(InputError, match="pixels do not suffice for order 40"):
        autoregressive_spectrum(image, 40)
    with pytest.raises(InputError, match="constant or not finite"):
        autoregressive_spectrum(vg.Micrograph(np.ones((64, 64)), 1.0), 2)
    with pytest.raises(InputError, match="side: expected 64 or more"):
        autoregressive_spectrum(image, 2, side=32)
    with pytest.raises(InputError, match="positive background"):
        enhance_spectrum(PowerSpectrum(np.ones((64, 33)), 1.0, 1), background=0)
