r"""What every frame says of where each particle lies: its log-likelihood over small displacements.

.. math:: CC_{pf}(s) = \Re \sum_k \frac{a(k)\, q_f(k)}{\sigma_f^2(k)} Y_{pf}(k) M_p^*(k)\, e^{2\pi i k s}

Y is the frame's transform about the known track, M the other half's map through CTF and aberrations, a what the map has
of the signal, q_f what the exposure has left of it, and sigma^2 the power of the frame's noise. The sum goes over the
whole plane, so that CC is in nats (the rest of the likelihood does not depend on s). Odd and even coefficients (a
checkerboard) make two surfaces with independent noise: tracks fitted to one are judged by the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.ndimage import spline_filter1d

from verglas.errors import InputError
from verglas.types.arrays import Complex64Array, Float32Array, FloatArray, IntArray

_BATCH = 8  # particles at a time, for the cache
_SAMPLES = 4  # of a surface to a period of its finest wave: cubic splines through them are exact to 0.1 %


@dataclass(frozen=True, eq=False)
class Window:
    """Coefficients in use, and the displacements that surfaces are made for.

    Attributes
    ----------
    box : int
    pixel_size_A : float
    last : int
        Finest shell in use.
    reach_A : float
        Largest displacement along an axis.
    """

    box: int
    pixel_size_A: float
    last: int
    reach_A: float

    @cached_property
    def step_A(self) -> float:
        """Between samples of a surface."""
        return self.box * self.pixel_size_A / (_SAMPLES * self.last)

    @cached_property
    def half_samples(self) -> int:
        """Samples on each side of no displacement; two more than are reached, for the splines."""
        return int(np.ceil(self.reach_A / self.step_A)) + 2

    @cached_property
    def _rows(self) -> IntArray:
        return np.r_[0 : self.last + 1, self.box - self.last : self.box]

    @cached_property
    def shell(self) -> IntArray:
        """(2 last + 1, last + 1): shell of each coefficient in use."""
        ky, kx = np.r_[0 : self.last + 1, -self.last : 0][:, None], np.arange(self.last + 1)
        return np.round(np.hypot(kx, ky)).astype(np.int64)

    @cached_property
    def weight(self) -> FloatArray:
        """How often each counts in the whole plane: 2, on the line kx = 0 once; 0 at k = 0 and beyond the last."""
        twice = np.where(np.arange(self.last + 1) == 0, 1.0, 2.0) * np.ones((2 * self.last + 1, 1))
        return np.where((self.shell > 0) & (self.shell <= self.last), twice, 0.0)

    @cached_property
    def fold(self) -> IntArray:
        """0 or 1: colour on the checkerboard, the same at k and -k."""
        ky, kx = np.r_[0 : self.last + 1, -self.last : 0][:, None], np.arange(self.last + 1)
        return np.asarray((kx + ky) % 2, np.int64)

    @cached_property
    def k2(self) -> FloatArray:
        """Squared frequency of each, 1/A^2."""
        ky, kx = np.r_[0 : self.last + 1, -self.last : 0][:, None], np.arange(self.last + 1)
        return np.asarray((kx**2 + ky**2) / (self.box * self.pixel_size_A) ** 2)

    def take(self, spectra: Complex64Array) -> Complex64Array:
        """(n, 2 last + 1, last + 1) of half transforms (n, box, box // 2 + 1)."""
        if self.last >= self.box // 2:
            raise InputError(f"polishing: shell {self.last} of a box of {self.box} px; expected less than half")
        return np.ascontiguousarray(spectra[:, self._rows, : self.last + 1])

    @cached_property
    def _waves(self) -> tuple[Complex64Array, Complex64Array]:
        """From coefficients to samples, along y and along x."""
        places = np.arange(-self.half_samples, self.half_samples + 1) * self.step_A / (self.box * self.pixel_size_A)
        k = np.r_[0 : self.last + 1, -self.last : 0]
        waves = np.exp(2j * np.pi * np.outer(places, k)).astype(np.complex64)
        return waves, np.ascontiguousarray(waves[:, : self.last + 1].T)

    def samples(self, products: Complex64Array) -> Float32Array:
        """Re of the sums over the plane of products (n, 2 last + 1, last + 1), weights taken: (n, m, m), y and x."""
        along_y, along_x = self._waves
        columns = np.matmul(along_y, products)
        return np.ascontiguousarray(np.matmul(columns, along_x).real)


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Log-likelihoods of displacements of P particles in F frames.

    Attributes
    ----------
    splines : (P, F, m, m) float32
        Cubic B-spline coefficients, y and x.
    information : (P, F) float64
        Expected curvature along an axis, nats per square angstrom.
    step_A : float
    amplitude : float
        What the splines are yet to be multiplied by.
    """

    splines: Float32Array
    information: FloatArray
    step_A: float
    amplitude: float = 1.0

    @classmethod
    def through(cls, samples: Float32Array, information: FloatArray, step_A: float) -> Surfaces:
        """Splines through samples (P, F, m, m)."""
        splines = np.empty(samples.shape, np.float32)
        for one, made in zip(samples, splines, strict=True):  # of a particle: the filter works in float64
            spline_filter1d(spline_filter1d(one, 3, axis=-1), 3, axis=-2, output=made)
        return cls(splines, information, step_A)

    def scale(self, amplitude: float) -> Surfaces:
        """Of a reference whose amplitude is this times as large."""
        return replace(self, information=self.information * amplitude**2, amplitude=self.amplitude * amplitude)

    def take(self, particles: IntArray) -> Surfaces:
        """Of some particles."""
        return replace(self, splines=self.splines[particles], information=self.information[particles])

    def __add__(self, other: Surfaces) -> Surfaces:
        share = np.float32(other.amplitude / self.amplitude)
        splines = self.splines + (other.splines if share == 1 else other.splines * share)
        return replace(self, splines=splines, information=self.information + other.information)

    @property
    def shape(self) -> tuple[int, int]:
        """Particles and frames."""
        return self.splines.shape[0], self.splines.shape[1]

    @property
    def reach_A(self) -> float:
        """Largest displacement; further ones have the value of the edge."""
        return (self.splines.shape[-1] // 2 - 2) * self.step_A

    def at(self, positions_A: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (P, F) and slopes (P, F, 2) along x, y at positions (P, F, 2) in angstroms."""
        side = self.splines.shape[-1]
        reach = side // 2 - 2
        place = positions_A / self.step_A
        inside = np.abs(place) < reach
        place = np.clip(place, -reach, reach) + side // 2
        first = np.minimum(np.floor(place).astype(np.int64), side - 3) - 1
        weights, slopes = _spline_weights(place - first - 1)
        index = first[..., None] + np.arange(4)
        p, f = np.indices(self.shape)
        near = self.splines[p[..., None, None], f[..., None, None], index[..., 1, :, None], index[..., 0, None, :]]
        along_x = np.einsum("pfyx,pfx->pfy", near, weights[..., 0, :])
        value = np.einsum("pfy,pfy->pf", along_x, weights[..., 1, :])
        dy = np.einsum("pfy,pfy->pf", along_x, slopes[..., 1, :])
        dx = np.einsum("pfyx,pfx,pfy->pf", near, slopes[..., 0, :], weights[..., 1, :], optimize=True)
        slope = np.stack([dx, dy], axis=-1) * (self.amplitude / self.step_A)
        return value * self.amplitude, np.where(inside, slope, 0.0)


def _spline_weights(t: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of the four coefficients about a place, 0 <= t <= 1 beyond the second: weights and their derivatives."""
    u = 1 - t
    weights = [u**3 / 6, 2 / 3 - t**2 + t**3 / 2, 2 / 3 - u**2 + u**3 / 2, t**3 / 6]
    slopes = [-(u**2) / 2, -2 * t + 1.5 * t**2, 2 * u - 1.5 * u**2, t**2 / 2]
    return np.stack(weights, axis=-1), np.stack(slopes, axis=-1)


@dataclass(frozen=True, eq=False)
class References:
    """Particles as the other half's map shows them, on the coefficients of a window.

    Attributes
    ----------
    models : (P, 2 last + 1, last + 1) complex64
        Through CTF and aberrations, where their poses say.
    certain : (P, last + 1) float64
        What the map has of the signal in each shell: the FSC of the half maps, 0 beyond the last shell with signal.
    """

    models: Complex64Array
    certain: FloatArray


class SurfaceBuilder:
    """Surfaces of one micrograph, made frame by frame: no frame is needed twice.

    Parameters
    ----------
    window : Window
    references : References
    n_frames : int
    """

    def __init__(self, window: Window, references: References, n_frames: int) -> None:
        self.window = window
        models, self.shells = references.models, window.last + 1
        certain = references.certain[:, np.minimum(window.shell, window.last)]
        self._expected = (np.conj(models) * certain * window.weight).astype(np.complex64)
        power = np.abs(models) ** 2 * certain**2 * window.weight
        # what noise and damage do to a sum depends on the shell alone
        self._power = _sums_by_fold_and_shell(power, window)
        self._curvature = _sums_by_fold_and_shell(power * (2 * np.pi**2 * window.k2), window)
        m = 2 * window.half_samples + 1
        shape = (2, len(models), n_frames)
        self.samples = np.zeros((*shape, m, m), np.float32)
        self.curvature, self.power = np.zeros(shape), np.zeros(shape)
        self.shell_sums = np.zeros((2, self.shells))  # of cross, and of power of the model: variance of the cross

    def add(self, frame: int, images: Complex64Array, left: FloatArray) -> None:
        """Take one frame: low frequencies (P, 2 last + 1, last + 1), and what damage has left in each shell."""
        window = self.window
        noise, q, shell = noise_power(images, window), left[: self.shells], window.shell.clip(max=window.last)
        factor = (q / noise)[shell].astype(np.float32)
        cross = np.zeros((2, *factor.shape))
        for begin in range(0, len(images), _BATCH):
            some = slice(begin, begin + _BATCH)
            products = images[some] * self._expected[some]
            products *= factor
            for fold in range(2):
                mine = np.where(window.fold == fold, products, np.complex64(0))
                self.samples[fold, some, frame] = window.samples(mine)
                cross[fold] += mine.real.sum(axis=0)
        self.power[:, :, frame] = self._power @ (q**2 / noise)
        self.curvature[:, :, frame] = self._curvature @ (q**2 / noise)
        self.shell_sums[0] += np.bincount(shell.ravel(), cross.sum(axis=0).ravel(), self.shells)
        self.shell_sums[1] += self._power.sum(axis=(0, 1)) * (q**2 / noise)

    def surfaces(self) -> tuple[Surfaces, Surfaces]:
        """Of both folds, for a reference whose amplitude is 1."""
        step = self.window.step_A
        first, second = (Surfaces.through(self.samples[f], self.curvature[f], step) for f in range(2))
        return first, second


def _sums_by_fold_and_shell(values: FloatArray, window: Window) -> FloatArray:
    """(2, n, shells): sums of values (n, 2 last + 1, last + 1)."""
    shells = window.last + 1
    bins = (window.fold * shells + window.shell.clip(max=window.last)).ravel()
    sums = np.stack([np.bincount(bins, one.ravel(), 2 * shells) for one in values])
    return np.ascontiguousarray(sums.reshape(-1, 2, shells).transpose(1, 0, 2))


def noise_power(images: Complex64Array, window: Window) -> FloatArray:
    """(last + 1,) mean squared coefficient of images in each shell."""
    shell, weight = window.shell.clip(max=window.last).ravel(), window.weight.ravel()
    power = sum_products(images, images).ravel() / len(images)
    sums = np.bincount(shell, power * weight, window.last + 1)
    counts = np.bincount(shell, weight, window.last + 1)
    mean = sums / np.maximum(counts, 1)
    mean[0] = mean[1]
    if not (mean > 0).all():
        raise InputError("polishing: a frame in which all particles are constant; expected electrons")
    return np.asarray(mean)


def sum_products(a: Complex64Array, b: Complex64Array) -> FloatArray:
    """Sum over the first axis of the real part of a times the conjugate of b, one image at a time."""
    total = np.zeros(a.shape[1:])
    for one, other in zip(a, b, strict=True):
        total += one.real * other.real + one.imag * other.imag
    return total
