"""Spectral signal-to-noise ratio from repeated images, and its F statistic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from verglas import fourier
from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.display import one_line


@one_line
@dataclass(frozen=True)
class SpectralF:
    """F statistic per shell of K aligned images (or volumes).

    Attributes
    ----------
    f : (n_shells,) float64
        Power of the mean, times K, over the power of the noise.
    signal_dof, noise_dof : (n_shells,) float64
        Degrees of freedom: abs(S), and (K - 1) abs(S), or K' abs(S) for K' images of noise.
    images : int
        K.
    """

    f: FloatArray
    signal_dof: FloatArray
    noise_dof: FloatArray
    images: int

    @property
    def mean_of_noise(self) -> FloatArray:
        """Expectation without signal: d / (d - 2), d the noise's degrees of freedom; inf for d <= 2."""
        d = self.noise_dof
        return np.divide(d, d - 2.0, out=np.full_like(d, np.inf), where=d > 2)

    @property
    def p_value(self) -> FloatArray:
        """Chance of an F at least as large without signal (upper tail of Snedecor's F)."""
        return np.asarray(special.fdtrc(self.signal_dof, self.noise_dof, self.f))

    @property
    def ssnr_of_mean(self) -> FloatArray:
        """SSNR of the mean of all images, max(F - 1, 0), since F = 1 + K SSNR in expectation."""
        return np.maximum(self.f - 1.0, 0.0)

    @property
    def ssnr(self) -> FloatArray:
        """SSNR of one image."""
        return self.ssnr_of_mean / self.images


@any_arrays
def spectral_f(images: npt.ArrayLike, noise: npt.ArrayLike | None = None, *, threads: int | None = None) -> SpectralF:
    r"""F statistic and SSNR of aligned repeats of one image or volume.

    .. math::
        F(S) = \frac{K \sum_{k \in S} |\bar X_k|^2 / |S|}{\sum_i \sum_{k \in S} |X_{i,k} - \bar X_k|^2 / ((K-1)|S|)}

    With ``noise``, K' images of noise alone (e.g. images minus reprojections of a map made without them), the
    denominator is their mean power, with K' abs(S) degrees of freedom and the expectation
    K' abs(S) / (K' abs(S) - 2) without signal.

    Parameters
    ----------
    images : (K, N, N) or (K, N, N, N) float
        Aligned, K >= 2, or K >= 1 with ``noise``.
    noise : (K', N, N) or (K', N, N, N) float, optional
        Images of noise.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    SpectralF

    Raises
    ------
    InputError
        Too few images, or shapes that do not agree.

    References
    ----------
    Unser, Trus & Steven, Ultramicroscopy 23 (1987) 39; Unser et al., J. Struct. Biol. 149 (2005) 243.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import spectral_f
    >>> result = spectral_f(np.random.default_rng(0).normal(size=(9, 32, 32)))
    >>> abs(float(result.f[4:].mean() / result.mean_of_noise[4:].mean()) - 1) < 0.05
    True
    """
    stack = np.asarray(images, np.float64)
    shape = stack.shape[1:]
    if stack.ndim not in (3, 4) or len(stack) < (2 if noise is None else 1):
        raise InputError(f"spectral_f: expected two or more images (K, N, N) or volumes, got shape {stack.shape}")
    count = len(stack)
    counts = fourier.shell_counts(shape)[0].astype(np.float64)
    mean = _power_sum(stack.mean(axis=0), threads)
    if noise is None:
        # Sum of squares about the mean as a difference of two sums: no second pass, and float64 keeps the digits.
        within, dof = np.asarray(sum(_power_sum(x, threads) for x in stack)) - count * mean, (count - 1) * counts
    else:
        other = np.asarray(noise, np.float64)
        if other.shape[1:] != shape or not len(other):
            raise InputError(f"spectral_f: the images have shape {shape}, those of noise {other.shape[1:]}")
        within, dof = np.asarray(sum(_power_sum(x, threads) for x in other)), len(other) * counts
    per_dof = within / dof
    f = np.divide(count * mean / counts, per_dof, out=np.full_like(mean, np.inf), where=per_dof > 0)
    return SpectralF(f, counts, dof, count)


def _power_sum(image: FloatArray, threads: int | None) -> FloatArray:
    return fourier.shell_sums([fourier.forward(image, image.ndim, threads=threads)], image.shape)[0]
