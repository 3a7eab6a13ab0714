r"""Power spectra by a model of few coefficients, and spectra made to be looked at.

An image x is taken to be made of white noise e by the pixels before it in reading order,

.. math::
    x_r = \sum_{s} a_s\, x_{r-s} + e_r + \sum_{s} b_s\, e_{r-s}, \qquad
    P(k) = \sigma^2 \left| \frac{1 + \sum_s b_s e^{-2\pi i k s}}{1 - \sum_s a_s e^{-2\pi i k s}} \right|^2

with s over half of the plane (Whittle 1954): autoregressive (AR), or with b a moving average besides (ARMA). The
variance of the estimate falls with pixels over coefficients; that of a periodogram does not fall at all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.linalg import solve
from scipy.ndimage import gaussian_filter

from verglas.errors import InputError
from verglas.types import Micrograph
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.power_spectrum import PowerSpectrum

_RIDGE = 1e-6  # of the variance, so that equations of strongly coloured images have one answer
_LONG = 2  # times the order: of the AR model whose residuals stand for the innovations (Hannan and Rissanen 1982)
_FEWEST_PIXELS = 20  # per coefficient


def autoregressive_spectrum(
    micrograph: Micrograph, order: int = 8, moving_average: int = 0, *, side: int = 256
) -> PowerSpectrum:
    r"""Power spectrum of an image by an AR or ARMA model.

    Parameters
    ----------
    micrograph : Micrograph
        With a pixel size. Its noise is taken to be the same everywhere.
    order : int
        Pixels back, and to either side, of the autoregressive part: 2 p (p + 1) coefficients. Thon rings of defocus z
        up to the frequency k need about :math:`\lambda z k` over the pixel size.
    moving_average : int
        The same of the moving average; 0: none.
    side : int
        Of the spectrum, which is smooth, in pixels.

    Returns
    -------
    PowerSpectrum
        Mean square of a coefficient of the transform, per pixel of the image: white noise of variance 1 has 1.

    Raises
    ------
    InputError
        An order below 1 or too large for the image, an image that is constant or not finite.

    References
    ----------
    Velazquez-Muriel, Sorzano, Fernandez and Carazo (2003) Ultramicroscopy 96, 17-35; Hannan and Rissanen (1982)
    Biometrika 69, 81-94.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics.fit import autoregressive_spectrum
    >>> noise = np.random.default_rng(0).normal(size=(128, 128))
    >>> spectrum = autoregressive_spectrum(vg.Micrograph(noise, 1.0), order=2, side=64)
    >>> bool(np.abs(spectrum.power - 1).max() < 0.3)
    True
    """
    data = _checked(micrograph, order, moving_average)
    past = _half_plane(order)
    if moving_average == 0:
        before, innovation = _predict(_covariances(data, data, 2 * order), past)
        top: npt.NDArray[np.complex128] | float = 1.0
    else:
        long = _half_plane(_LONG * order)
        weights, _ = _predict(_covariances(data, data, 2 * _LONG * order), long)
        residual = _filter(data, long, weights)
        before, average, innovation = _hannan_rissanen(data, residual, past, _half_plane(moving_average))
        top = 1 + _response(average, _half_plane(moving_average), side)
    power = innovation * np.abs(top / (1 - _response(before, past, side))) ** 2
    return PowerSpectrum(power.astype(np.float32), micrograph.pixel_size_A, 1)


def _checked(micrograph: Micrograph, order: int, moving_average: int) -> FloatArray:
    if order < 1 or moving_average < 0:
        raise InputError(
            f"autoregressive spectrum: expected an order of 1 or more and a moving average of 0 or more, got {order} "
            f"and {moving_average}"
        )
    longest = max(_LONG * order, moving_average) if moving_average else order
    if 2 * longest * (longest + 1) * _FEWEST_PIXELS > micrograph.data.size or 4 * longest > min(micrograph.shape):
        raise InputError(
            f"autoregressive spectrum: {micrograph.shape[1]} x {micrograph.shape[0]} pixels do not suffice for order "
            f"{order} with a moving average of {moving_average}"
        )
    data = micrograph.data.astype(np.float64)
    if not np.isfinite(data).all() or not data.std() > 1e-12 * max(1.0, float(np.abs(data).max())):
        raise InputError("autoregressive spectrum: the image is constant or not finite")
    return np.asarray(data - data.mean())


def _half_plane(order: int) -> npt.NDArray[np.int64]:
    """(m, 2) steps (y, x) back to the pixels before one in reading order, no further than ``order`` along an axis."""
    y, x = np.mgrid[: order + 1, -order : order + 1]
    steps = np.column_stack([y.ravel(), x.ravel()])
    return np.asarray(steps[(steps[:, 0] > 0) | (steps[:, 1] > 0)], np.int64)


class _Covariance(NamedTuple):
    """Of two images: mean of a at r times b at r - s, over all r of the image."""

    values: FloatArray
    reach: int

    def at(self, steps: npt.NDArray[np.int64]) -> FloatArray:
        """At steps (..., 2)."""
        return np.asarray(self.values[steps[..., 0] + self.reach, steps[..., 1] + self.reach])


def _covariances(a: FloatArray, b: FloatArray, reach: int) -> _Covariance:
    """Up to a reach, by transforms; over the number of all pixels, which keeps the matrix of covariances positive."""
    size = [scipy.fft.next_fast_len(n + reach, real=True) for n in a.shape]
    product = scipy.fft.rfft2(a, size) * np.conj(scipy.fft.rfft2(b, size))
    values = scipy.fft.irfft2(product, size) / a.size
    rows, columns = (np.arange(-reach, reach + 1) % n for n in size)
    return _Covariance(values[rows[:, None], columns], reach)


def _predict(own: _Covariance, past: npt.NDArray[np.int64]) -> tuple[FloatArray, float]:
    """Coefficients of the past by least squares, and the variance that is left (the equations of Yule and Walker)."""
    matrix = own.at(past[None, :] - past[:, None])
    variance = float(own.at(np.zeros(2, np.int64)))
    right = own.at(past)
    weights = solve(matrix + _RIDGE * variance * np.eye(len(past)), right, assume_a="pos")
    return weights, variance - float(weights @ right)


def _filter(data: FloatArray, past: npt.NDArray[np.int64], weights: FloatArray) -> FloatArray:
    """What is left of an image after the prediction; nothing is known beyond its edges."""
    reach = int(np.abs(past).max())
    size = [scipy.fft.next_fast_len(n + 2 * reach, real=True) for n in data.shape]
    kernel = np.zeros(size)
    kernel[past[:, 0], past[:, 1] % size[1]] = weights
    predicted = scipy.fft.irfft2(scipy.fft.rfft2(data, size) * scipy.fft.rfft2(kernel), size)
    return np.asarray(data - predicted[: data.shape[0], : data.shape[1]])


def _hannan_rissanen(
    data: FloatArray, residual: FloatArray, past: npt.NDArray[np.int64], average: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, float]:
    """Coefficients of past pixels and past innovations, and the variance left."""
    reach = 2 * int(max(past.max(), average.max()))
    xx, xe, ee = (_covariances(a, b, reach) for a, b in ((data, data), (data, residual), (residual, residual)))
    # the columns are x at r - s and e at r - t; cov(x_{r-s}, e_{r-t}) is that of x and e at the step t - s
    corner = xe.at(average[None, :] - past[:, None])
    matrix = np.block(
        [[xx.at(past[None, :] - past[:, None]), corner], [corner.T, ee.at(average[None, :] - average[:, None])]]
    )
    right = np.concatenate([xx.at(past), xe.at(average)])
    ridge = _RIDGE * np.diag(matrix).max() * np.eye(len(right))
    weights = solve(matrix + ridge, right, assume_a="pos")
    left = float(xx.at(np.zeros(2, np.int64))) - float(weights @ right)
    return weights[: len(past)], weights[len(past) :], left


def _response(weights: FloatArray, past: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.complex128]:
    """(side, side // 2 + 1) transform of a filter."""
    if side < 64 or side <= 2 * int(np.abs(past).max()):
        raise InputError(
            f"autoregressive spectrum: side: expected 64 or more, and more than twice the order, got {side}"
        )
    kernel = np.zeros((side, side))
    kernel[past[:, 0], past[:, 1] % side] = weights
    return np.asarray(scipy.fft.rfft2(kernel), np.complex128)


@any_arrays
def enhance_spectrum(spectrum: PowerSpectrum, *, background: float = 0.06, smooth_px: float = 1.0) -> FloatArray:
    """A power spectrum as people look at it: rings of one contrast on a flat ground.

    Of its logarithm what varies slowly is taken away and the rest divided by its local strength.

    Parameters
    ----------
    spectrum : PowerSpectrum
    background : float
        Width of what varies slowly, of the side.
    smooth_px : float
        Width over which neighbouring coefficients are averaged.

    Returns
    -------
    (n, n) float64
        Frequency 0 in the middle; mean 0, of strength 1 in most places.

    Raises
    ------
    InputError
        A width that is not positive.

    References
    ----------
    Jonic, Sorzano, Cottevieille, Larquet and Boisset (2007) J. Struct. Biol. 157, 156-167.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.optics.fit import enhance_spectrum
    >>> from verglas.types.power_spectrum import PowerSpectrum
    >>> enhance_spectrum(PowerSpectrum(np.random.default_rng(0).exponential(size=(64, 33)), 1.0, 1)).shape
    (64, 64)
    """
    if not (background > 0 and smooth_px >= 0):
        raise InputError(
            f"enhance_spectrum: expected a positive background and a smooth_px of 0 or more, got {background} and "
            f"{smooth_px}"
        )
    side = spectrum.side
    half = np.log(np.maximum(spectrum.power, 1e-6 * float(spectrum.power.mean()) + 1e-30)).astype(np.float64)
    rows, columns = -np.arange(side) % side, np.arange(side // 2 + 1, side)
    whole = np.hstack([half, half[rows][:, side - columns]])
    # frequencies go on around the edges of the plane
    fine = gaussian_filter(whole, smooth_px, mode="wrap")
    fine -= gaussian_filter(whole, background * side, mode="wrap")
    strength = np.sqrt(gaussian_filter(fine**2, background * side, mode="wrap"))
    return np.asarray(np.fft.fftshift(fine / np.maximum(strength, 1e-12)))
