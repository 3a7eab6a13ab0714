r"""Sparse priors: wavelet coefficients shrunk by thresholds from Stein's unbiased risk, and total variation.

Both work on maps in which noise is white, F / sqrt(N(k)) with N the mean power of half the squared difference of the
half maps in a shell: a curve that both halves share, and all that they share but for one number of total variation.
Of noise few coefficients are left, and the FSC of few spreads wider than that of many: beyond the resolution of the
half maps (FSC 0.143) the map is therefore that of the global prior.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from verglas import fourier
from verglas.errors import InputError
from verglas.reconstruction.priors import TotalVariation, soft
from verglas.regularisation.given import join_maps
from verglas.regularisation.protocol import HalfMaps, MapSource, Regulariser, Wiener
from verglas.types.arrays import Array, Complex64Array, Float32Array, FloatArray, IntArray

_WAVELET = "sym4"
_COARSEST_PX = 8  # side of the approximation that is left alone
_LEAST_POWER = 1e-6  # of the largest shell's noise
_ADMM_STEPS, _TV_STEPS = 6, 6
_WEIGHTS = (0.03, 0.1, 0.3)  # of total variation, in standard deviations of noise


@dataclass(frozen=True, eq=False)
class _Noise:
    """Noise of one half map: power by shell, and the shells in use."""

    power: FloatArray
    shells: IntArray
    radius: int
    threads: int | None

    @classmethod
    def of(cls, given: HalfMaps) -> _Noise:
        shells = fourier.shells((given.box,) * 3)
        squared = 0.5 * np.abs(given.spectra[0] - given.spectra[1]) ** 2
        weight = np.broadcast_to(fourier.half_weights((given.box,) * 3), shells.shape)
        total = np.bincount(shells.ravel(), (squared * weight).ravel())
        power = total / np.maximum(np.bincount(shells.ravel(), weight.ravel()), 1)
        # The mean of a map is one coefficient: the next shell's noise stands for it.
        power[0] = power[1]
        return cls(
            np.maximum(power, _LEAST_POWER * max(float(power.max()), 1e-30)), shells, given.radius, given.threads
        )

    def amplitude(self, half_sets: int, box: int) -> FloatArray:
        """Of a coefficient, on that of white noise of variance 1; by Fourier voxel."""
        return np.sqrt(self.power / (half_sets * float(box) ** 3))[self.shells]

    def whiten(self, spectrum: Complex64Array, half_sets: int) -> Float32Array:
        """A map with white noise of variance 1, without what lies beyond the last shell."""
        box = len(spectrum)
        flat = np.where(self.shells <= self.radius, spectrum / self.amplitude(half_sets, box), 0)
        return np.asarray(fourier.inverse(flat.astype(np.complex64), (box,) * 3, threads=self.threads))

    def colour(self, volume: Float32Array, half_sets: int) -> Float32Array:
        """Back from :meth:`whitened`."""
        spectrum = fourier.forward(volume, 3, threads=self.threads) * self.amplitude(half_sets, len(volume))
        spectrum[self.shells > self.radius] = 0
        return np.asarray(fourier.inverse(spectrum.astype(np.complex64), volume.shape, threads=self.threads))


def _pywt() -> Any:
    try:
        return importlib.import_module("pywt")
    except ImportError as error:
        raise InputError("regularisation = wavelet needs PyWavelets: pip install 'verglas[wavelets]'") from error


def sure_threshold(coefficients: Array) -> float:
    r"""Soft threshold of least estimated risk, for coefficients with noise of variance 1 (Donoho and Johnstone 1995).

    .. math:: R(t) = n - 2\, \#\{|c_i| \le t\} + \sum_i \min(|c_i|, t)^2

    Where so little stands out that the estimate of the risk is itself mostly noise, the universal threshold
    :math:`\sqrt{2 \ln n}`.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.regularisation.shrinkage import sure_threshold
    >>> noise = np.random.default_rng(0).normal(size=4096)
    >>> round(sure_threshold(noise), 2), sure_threshold(noise + 6 * np.sign(noise))
    (4.08, 0.0)
    """
    size = np.sort(np.abs(np.asarray(coefficients, np.float64)).ravel())
    n = len(size)
    universal = float(np.sqrt(2 * np.log(max(n, 2))))
    if float((size**2).mean()) - 1 <= np.log2(max(n, 2)) ** 1.5 / np.sqrt(n):
        return universal
    below = np.cumsum(size**2)
    count = np.arange(1, n + 1)
    risk = n - 2 * count + below + (n - count) * size**2
    best = int(np.argmin(risk))
    # Without a threshold the risk is n: where everything stands out, every coefficient stays.
    return float(min(size[best], universal)) if risk[best] < n else 0.0


@dataclass(frozen=True)
class WaveletShrinkage:
    """The prior: few wavelet coefficients are not zero; each half map finds its own thresholds. Needs PyWavelets."""

    name: str = "wavelet"

    def fit(self, given: HalfMaps) -> Regulariser:
        """Noise by shell, and by sub-band of the transform what whitening leaves uneven."""
        noise, plain = _Noise.of(given), Wiener().fit(given)
        spread = self._transform(noise.whiten((given.spectra[0] - given.spectra[1]) / np.sqrt(2), 1))
        sd = [{key: max(float(np.sqrt(np.mean(part**2))), 1e-12) for key, part in one.items()} for one in spread[1:]]

        def regularise(source: MapSource) -> Float32Array:
            spectrum = fourier.forward(source.raw, 3, threads=given.threads)
            coarse, *details = self._transform(noise.whiten(spectrum, source.half_sets))
            shrunk = [self._shrink(one, of) for one, of in zip(details, sd, strict=True)]
            volume = _pywt().waverecn([coarse, *shrunk], _WAVELET, mode="periodization")
            # Odd sides come back one longer from a periodic wavelet transform.
            volume = np.asarray(volume, np.float32)[tuple(slice(0, n) for n in source.raw.shape)]
            return join_maps(noise.colour(volume, source.half_sets), plain(source), given)

        return regularise

    @staticmethod
    def _transform(volume: Float32Array) -> list[Any]:
        levels = max(1, int(np.log2(len(volume) / _COARSEST_PX)))
        return list(_pywt().wavedecn(volume, _WAVELET, mode="periodization", level=levels))

    @staticmethod
    def _shrink(parts: Mapping[str, Array], sd: Mapping[str, float]) -> dict[str, Array]:
        return {key: soft(part, sd[key] * sure_threshold(part / sd[key])) for key, part in parts.items()}


@dataclass(frozen=True)
class TotalVariationPrior:
    r"""The prior: density is flat but for edges.

    .. math:: \min_x \tfrac12 \sum_k \frac{|X_k - V_k|^2}{N_k} + \mu\, TV(x)

    by ADMM with the proximal operator of :class:`verglas.reconstruction.priors.TotalVariation`. The weight is the one
    with which each half map best predicts the other: one number, the same for both.
    """

    name: str = "total-variation"

    def fit(self, given: HalfMaps) -> Regulariser:
        """Noise by shell, and the weight."""
        noise, plain = _Noise.of(given), Wiener().fit(given)
        shells = noise.shells
        weight = np.where(shells <= given.radius, 1 / noise.power[shells], 0.0)
        weight /= max(float(weight[shells <= given.radius].mean()), 1e-30)
        sd = float(np.sqrt(noise.power[shells][shells <= given.radius].mean() / given.box**3))
        if not sd > 0:
            return lambda source: source.raw

        def denoise(raw: Float32Array, strength: float) -> Float32Array:
            return _admm(raw, weight, strength * sd, given)

        def disagreement(strength: float) -> float:
            spectra = [fourier.forward(denoise(one, strength), 3, threads=given.threads) for one in given.raw]
            pairs = zip(spectra, reversed(given.spectra), strict=True)
            return float(sum((weight * np.abs(mine - other) ** 2).sum() for mine, other in pairs))

        best = min(_WEIGHTS, key=disagreement)
        return lambda source: join_maps(denoise(source.raw, best / source.half_sets), plain(source), given)


def _admm(raw: Float32Array, weight: FloatArray, strength: float, given: HalfMaps) -> Float32Array:
    """Total variation of this strength against squared differences of these weights, mean 1."""
    prior = TotalVariation(strength, iterations=_TV_STEPS)
    data = fourier.forward(raw, 3, threads=given.threads) * weight
    split, dual = raw.copy(), np.zeros_like(raw)
    for _ in range(_ADMM_STEPS):
        spectrum = (data + fourier.forward(split - dual, 3, threads=given.threads)) / (weight + 1)
        x = fourier.inverse(spectrum.astype(np.complex64), raw.shape, threads=given.threads)
        split = np.asarray(prior.prox(x + dual, 1.0), np.float32)
        dual += x - split
    spectrum = fourier.forward(split, 3, threads=given.threads)
    # What edges say of frequencies without data is a guess: it does not go into a reference.
    spectrum[weight == 0] = 0
    return np.asarray(fourier.inverse(spectrum, raw.shape, threads=given.threads), np.float32)
