"""Priors and sets that need a transform or a group: wavelets, Fourier Gaussians, masks, symmetry."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft

from verglas.errors import InputError
from verglas.reconstruction.priors.differences import TotalVariation
from verglas.reconstruction.priors.potentials import Prior, soft
from verglas.types.arrays import Array, FloatArray


@dataclass(frozen=True)
class WaveletL1:
    """weight |W x|_1 in an orthogonal wavelet basis, its coarsest coefficients left alone; needs PyWavelets.

    Attributes
    ----------
    weight : float
    wavelet : str
        An orthogonal one of PyWavelets, as "db2"; periodic at the edges, so that the transform is unitary.
    levels : int, optional
        As many as the array's size allows by default. Axes too short for one level, as that of a single slice, are not
        transformed.
    """

    weight: float = 1.0
    wavelet: str = "db2"
    levels: int | None = None

    def _module(self) -> Any:
        try:
            return importlib.import_module("pywt")
        except ImportError as error:
            raise InputError("a wavelet prior needs PyWavelets: pip install pywavelets") from error

    def _transform(self, x: Array) -> list[Any]:
        pywt = self._module()
        basis = pywt.Wavelet(self.wavelet)
        if not basis.orthogonal:
            raise InputError(f"prior: wavelet: expected an orthogonal one, as db2, got {self.wavelet}")
        return list(pywt.wavedecn(x, basis, mode="periodization", level=self.levels, axes=self._axes(x.shape)))

    def _axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Those long enough: one short axis would leave all others without a level, and the prior without effect."""
        pywt = self._module()
        axes = tuple(i for i, n in enumerate(shape) if pywt.dwt_max_level(n, pywt.Wavelet(self.wavelet)) > 0)
        if not axes:
            raise InputError(f"prior: an array of shape {shape} is too small for wavelet {self.wavelet}")
        return axes

    def value(self, x: Array) -> float:
        """Weighted sum of magnitudes of the details."""
        details = self._transform(x)[1:]
        return self.weight * float(sum(np.abs(part).sum() for level in details for part in level.values()))

    def _shrink(self, part: Array, step: float) -> Array:
        return soft(part, step * self.weight)

    def prox(self, v: Array, step: float) -> Array:
        """Threshold of the details: exact because the transform is unitary."""
        coarse, *details = self._transform(v)
        thresholds = [{name: self._shrink(part, step) for name, part in level.items()} for level in details]
        rebuild = self._module().waverecn
        array = rebuild([coarse, *thresholds], self.wavelet, mode="periodization", axes=self._axes(v.shape))
        # Odd sides come back one longer from a periodic wavelet transform.
        return np.asarray(array)[tuple(slice(0, n) for n in v.shape)]


@dataclass(frozen=True)
class WaveletL0(WaveletL1):
    """weight times the number of wavelet coefficients that are not zero, the coarsest left alone.

    Not convex: its prox keeps the coefficients above sqrt(2 step weight) as they are, and makes the others zero.
    """

    def value(self, x: Array) -> float:
        """Weighted number of details."""
        details = self._transform(x)[1:]
        return self.weight * float(sum(np.count_nonzero(part) for level in details for part in level.values()))

    def _shrink(self, part: Array, step: float) -> Array:
        return np.where(np.abs(part) > np.sqrt(2 * step * self.weight), part, 0)


@dataclass(frozen=True)
class FourierGaussian:
    r"""1/2 sum_k |X_k|^2 / variance(k): independent Gaussian Fourier coefficients, the prior of Wiener's filter.

    Attributes
    ----------
    variance : (..., n // 2 + 1) array
        Of the coefficients of ``rfftn``, unitary normalisation.
    """

    variance: FloatArray

    def value(self, x: Array) -> float:
        """Half the sum over the whole transform."""
        spectrum = scipy.fft.rfftn(x, norm="ortho")
        # Each column stands for its mate as well, but for kx = 0 and Nyquist.
        weight = np.full(x.shape[-1] // 2 + 1, 2.0)
        weight[0] = 1
        if x.shape[-1] % 2 == 0:
            weight[-1] = 1
        return 0.5 * float((weight * np.abs(spectrum) ** 2 / self.variance).sum())

    def prox(self, v: Array, step: float) -> Array:
        """Wiener's filter."""
        spectrum = scipy.fft.rfftn(v, norm="ortho") * (self.variance / (self.variance + step))
        return scipy.fft.irfftn(spectrum, s=v.shape, norm="ortho").astype(v.dtype, copy=False)


@dataclass(frozen=True)
class Support:
    """Zero outside a mask: prox multiplies by it, and is a projection where the mask is 0 or 1.

    Attributes
    ----------
    mask : array
    """

    mask: Array

    def __post_init__(self) -> None:
        """Only a hard mask is a set."""
        if not np.isin(self.mask, (0, 1)).all():
            raise InputError("prior: a support is a mask of zeros and ones; a soft mask is no convex set")

    def value(self, x: Array) -> float:
        """0 or infinity."""
        return 0.0 if not x[self.mask == 0].any() else float("inf")

    def prox(self, v: Array, step: float) -> Array:
        """Values outside become zero."""
        return v * self.mask


@dataclass(frozen=True)
class Symmetric:
    """Invariant under rotations that permute the axes of a cubic array, given as integer matrices (x, y, z).

    The mean over a group is the orthogonal projection onto what it leaves alone. Rotations about pixel N // 2: for an
    even N the first plane of every axis has no partner and is set to the mean over those that stay inside.
    """

    matrices: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        """Only what permutes the grid is exact."""
        for matrix in self.matrices:
            if not np.allclose(np.abs(matrix).sum(axis=0), 1) or not np.allclose(matrix, np.rint(matrix)):
                raise InputError("prior: these rotations do not permute the axes; symmetrise by verglas.ops.symmetrise")

    def value(self, x: Array) -> float:
        """0 where symmetric, else infinity."""
        return 0.0 if np.allclose(x, self.prox(x, 1.0), atol=1e-6 * np.abs(x).max(initial=0)) else float("inf")

    def prox(self, v: Array, step: float) -> Array:
        """Mean over the group, whatever the step."""
        total, count = np.zeros(v.shape, np.float64), np.zeros(v.shape)
        index = np.indices(v.shape)
        middle = np.array(v.shape) // 2
        xyz = (index - middle[:, None, None, None])[::-1].reshape(3, -1)
        for matrix in self.matrices:
            zyx = np.rint(matrix @ xyz).astype(int)[::-1] + middle[:, None]
            inside = ((zyx >= 0) & (zyx < np.array(v.shape)[:, None])).all(axis=0)
            flat = np.ravel_multi_index(tuple(zyx[:, inside]), v.shape)
            total.ravel()[inside] += v.ravel()[flat]
            count.ravel()[inside] += 1
        return (total / np.maximum(count, 1)).astype(v.dtype, copy=False)


@dataclass(frozen=True)
class Shaped:
    """A prior on arrays, for solvers whose unknowns are a vector: reshaped before, flattened after."""

    prior: Prior
    shape: Sequence[int]

    def value(self, x: Array) -> float:
        """Of the array."""
        return self.prior.value(x.reshape(tuple(self.shape)))

    def prox(self, v: Array, step: float) -> Array:
        """Of the array, as a vector."""
        return np.ravel(self.prior.prox(v.reshape(tuple(self.shape)), step))

    def analyse(self, x: Array) -> Array:
        """Of a prior that is a norm of D x: D x of the array, as it is."""
        return self._norm().analyse(x.reshape(tuple(self.shape)))

    def synthesise(self, p: Array) -> Array:
        """D^T p, as a vector."""
        return np.ravel(self._norm().synthesise(p))

    def onto_dual_ball(self, p: Array) -> Array:
        """Of the array's differences."""
        return self._norm().onto_dual_ball(p)

    def dual_radius(self) -> float:
        """Of that ball."""
        return self._norm().dual_radius()

    def largest_gain(self, shape: tuple[int, ...]) -> float:
        """A bound of the square of the norm of D."""
        return self._norm().largest_gain(shape)

    def _norm(self) -> TotalVariation:
        if not isinstance(self.prior, TotalVariation):
            raise InputError(f"prior: {type(self.prior).__name__} is no norm of differences, as total variation is")
        return self.prior
