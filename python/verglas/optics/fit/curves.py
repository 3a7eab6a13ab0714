"""Rotational and equiphase averages of a spectrum; background and ring amplitude fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import BSpline
from scipy.optimize import lsq_linear

from verglas.optics import wavelength_A
from verglas.optics.fit.spectrum import Band
from verglas.types import Optics
from verglas.types.arrays import FloatArray

_BACKGROUND, _AMPLITUDE = 8, 5  # functions


def chi_turns(optics: Optics, k: npt.ArrayLike, row: int = 0) -> FloatArray:
    """Phase of the CTF along the mean defocus, in turns: CTF = sin(2 pi turns); offset by phase shift and contrast."""
    k2 = np.square(np.asarray(k, np.float64))
    lam = float(wavelength_A(optics.voltage_kV[row]))
    mean = (optics.defocus_u_A[row] + optics.defocus_v_A[row]) / 2
    offset = optics.phase_shift_deg[row] / 360 + np.arcsin(optics.amplitude_contrast[row]) / (2 * np.pi)
    return np.asarray(lam * mean * k2 / 2 - optics.cs_mm[row] * 1e7 * lam**3 * k2**2 / 4 + offset)


def equiphase_radius(optics: Optics, band: Band) -> FloatArray:
    """Frequency at which the CTF of the mean defocus has the phase that each pixel has, 1/A.

    With t = m q^2 + s q^4 it is q^2 = 2 t / (m + sqrt(m^2 + 4 s t)), which is stable for s = 0.
    """
    x, y = band.kx.astype(np.float64), band.ky.astype(np.float64)
    k2 = x * x + y * y
    lam = float(wavelength_A(optics.voltage_kV[0]))
    half = (optics.defocus_u_A[0] - optics.defocus_v_A[0]) / 2
    angle = 2 * np.deg2rad(optics.defocus_angle_deg[0])
    mean = lam * (optics.defocus_u_A[0] + optics.defocus_v_A[0]) / 4
    spherical = -optics.cs_mm[0] * 1e7 * lam**3 / 4
    astigmatic = lam * half / 2 * (np.cos(angle) * (x * x - y * y) + np.sin(angle) * 2 * x * y)
    turns = mean * k2 + astigmatic + spherical * k2**2
    # The root in the form 2 c / (b + sqrt(...)): exact without Cs too, where the textbook's form is 0 / 0.
    root = np.sqrt(np.maximum(mean**2 + 4 * spherical * turns, 0))
    return np.sqrt(np.maximum(2 * turns / (mean + root), 0))


@dataclass(frozen=True)
class Rings:
    """A curve over frequency: mean power and how many pixels it is the mean of.

    Attributes
    ----------
    k : (b,) float64
        Frequencies, 1/A.
    power, count : (b,) float64
    """

    k: FloatArray
    power: FloatArray
    count: FloatArray


def average(radius: FloatArray, power: npt.NDArray[np.float32], band: Band) -> Rings:
    """Mean power in bins of one Fourier pixel of ``radius``; bins that few pixels fall in are left out."""
    first = int(np.ceil(band.low / band.step))
    last = int(np.floor(band.high / band.step))
    index = np.floor(radius / band.step + 0.5).astype(np.int64)
    inside = (index >= first) & (index <= last)
    index = index[inside] - first
    size = last - first + 1
    count = np.bincount(index, minlength=size).astype(np.float64)
    total = np.bincount(index, power[inside].astype(np.float64), minlength=size)
    where = np.bincount(index, radius[inside], minlength=size)
    filled = count >= 4
    return Rings(where[filled] / count[filled], total[filled] / count[filled], count[filled])


def splines(k: FloatArray, low: float, high: float, count: int) -> FloatArray:
    """(len(k), count) cubic B-splines with knots equally spaced in log k."""
    x = (np.log(k) - np.log(low)) / (np.log(high) - np.log(low))
    inner = np.linspace(0, 1, count - 2)
    knots = np.r_[[0.0] * 3, inner, [1.0] * 3]
    # Rounding of the logarithms may pass the end knots by a digit, which SciPy refuses.
    return np.asarray(BSpline.design_matrix(np.clip(x, 0, 1 - 1e-12), knots, 3).toarray())


def hats(k: FloatArray, low: float, high: float, count: int) -> FloatArray:
    """(len(k), count) piecewise linear functions of k^2, where rings are equally spaced."""
    x = np.clip((k**2 - low**2) / (high**2 - low**2), 0, 1) * (count - 1)
    return np.clip(1 - np.abs(x[:, None] - np.arange(count)), 0, 1)


@dataclass(frozen=True)
class Envelopes:
    """Background and ring amplitude: power = background + amplitude CTF^2.

    Attributes
    ----------
    low, high : float
        The band, 1/A.
    background_weights, amplitude_weights : (8,), (5,) float64
        Coefficients of :func:`splines` and :func:`hats`.
    """

    low: float
    high: float
    background_weights: FloatArray
    amplitude_weights: FloatArray

    def background(self, k: FloatArray) -> FloatArray:
        """Power without rings."""
        return splines(np.clip(k, self.low, self.high), self.low, self.high, _BACKGROUND) @ self.background_weights

    def amplitude(self, k: FloatArray) -> FloatArray:
        """Height of the rings, never negative."""
        return hats(k, self.low, self.high, _AMPLITUDE) @ self.amplitude_weights


def fit_envelopes(rings: Rings, optics: Optics, band: Band) -> Envelopes:
    """Linear least squares for background and amplitude at once, given the CTF; the amplitude not negative.

    The standard deviation of averaged periodograms is proportional to the power, so every bin is weighted by
    sqrt(count) / power.
    """
    ctf2 = np.sin(2 * np.pi * chi_turns(optics, rings.k)) ** 2
    design = np.hstack(
        [
            splines(rings.k, band.low, band.high, _BACKGROUND),
            hats(rings.k, band.low, band.high, _AMPLITUDE) * ctf2[:, None],
        ]
    )
    weight = np.sqrt(rings.count) / np.maximum(rings.power, 1e-12)
    # A periodogram's deviation is its mean, over the square root of how many pixels were averaged: hence the weight.
    lowest = np.r_[[-np.inf] * _BACKGROUND, [0.0] * _AMPLITUDE]
    weights = lsq_linear(design * weight[:, None], rings.power * weight, (lowest, np.inf), method="bvls").x
    return Envelopes(band.low, band.high, weights[:_BACKGROUND], weights[_BACKGROUND:])


def ring_contrast(optics: Optics, k: FloatArray, field_A: float) -> FloatArray:
    r"""Contrast that rings keep under a Hann window of ``field_A``.

    Rings cos(4 pi t(k)) are a delay of 2 dt/dk in real space; the window multiplies it by its autocorrelation,
    (1 - x)(2 + cos 2 pi x)/3 + sin(2 pi x)/(2 pi), x the delay over the field. Mean over directions.
    """
    lam = float(wavelength_A(optics.voltage_kV[0]))
    mean = (optics.defocus_u_A[0] + optics.defocus_v_A[0]) / 2
    delay = np.abs(2 * (lam * mean * k - optics.cs_mm[0] * 1e7 * lam**3 * k**3)) / field_A
    angles = (np.arange(16) + 0.5) * np.pi / 32

    def retained_fraction(x: FloatArray) -> FloatArray:
        inside = np.minimum(x, 1.0)
        return np.asarray(
            (1 - inside) * (2 + np.cos(2 * np.pi * inside)) / 3 + np.sin(2 * np.pi * inside) / (2 * np.pi)
        )

    both = retained_fraction(delay[:, None] * np.cos(angles)) * retained_fraction(delay[:, None] * np.sin(angles))
    return np.asarray(both.mean(axis=1))


def envelope_b_factor(rings: Rings, optics: Optics, band: Band) -> float:
    """B of rings that fall as exp(-B k^2/2) in power, exp(-B k^2/4) in amplitude, by least squares with the background.

    What the window of the tiles takes from close rings is allowed for (:func:`ring_contrast`). For every B the best
    background and scale are linear; the B with the least residual is found on a grid and then by a parabola through its
    neighbours.
    """
    contrast = ring_contrast(optics, rings.k, band.tile * band.pixel_size_A)
    ctf2 = 0.5 - 0.5 * contrast * np.cos(4 * np.pi * chi_turns(optics, rings.k))
    weight = np.sqrt(rings.count) / np.maximum(rings.power, 1e-12)
    basis, _ = np.linalg.qr(splines(rings.k, band.low, band.high, _BACKGROUND) * weight[:, None])
    y = rings.power * weight
    y = y - basis @ (basis.T @ y)
    grid = np.arange(-100.0, 1501.0, 5.0)
    columns = np.exp(-grid[:, None] * rings.k**2 / 2) * ctf2 * weight
    columns -= (columns @ basis) @ basis.T
    gain = np.maximum(columns @ y, 0) / np.linalg.norm(columns, axis=1)
    best = int(np.clip(gain.argmax(), 1, len(grid) - 2))
    left, middle, right = gain[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(grid[best] + (2.5 * (left - right) / bend if bend < 0 else 0.0))
