"""Fourier shell correlation, the resolution read from it, and its relations to the signal-to-noise ratio.

Shells are one Fourier pixel wide, shell = round(abs(k)); sums are kept in float64.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.types import Map

FloatArray = npt.NDArray[np.float64]

# Two files of one experiment may round their pixel size differently; 1.05 against 1.06 is a mistake.
_PIXEL_SIZE_REL = 1e-3


def ssnr_from_fsc(curve: npt.ArrayLike, *, full: bool = False) -> FloatArray:
    """Spectral signal-to-noise ratio (power) from the FSC of two independent half maps.

    SSNR = FSC / (1 - FSC) of each half; the sum of both halves has twice that: 2 FSC / (1 - FSC).

    Parameters
    ----------
    curve : array
        FSC between half maps; negative values carry no signal and count as 0.
    full : bool
        Of the sum of both halves instead of one.

    Returns
    -------
    array of float64
        inf where FSC is 1.

    References
    ----------
    Saxton & Baumeister, J. Microsc. 127 (1982) 127; Bershad & Rockmore, IEEE Trans. Inf. Theory 20 (1974) 112.

    Examples
    --------
    >>> from verglas.assessment import ssnr_from_fsc
    >>> ssnr_from_fsc([0.5, 0.8]).round(6).tolist()
    [1.0, 4.0]
    """
    c = np.clip(np.asarray(curve, np.float64), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        return (2.0 if full else 1.0) * c / (1.0 - c)


def full_map_fsc(curve: npt.ArrayLike) -> FloatArray:
    """FSC that two full maps would have: 2 FSC / (1 + FSC), from the FSC of two half maps.

    Negative values carry no signal and count as 0.

    References
    ----------
    Penczek, J. Struct. Biol. 138 (2002) 34; Rosenthal & Henderson, J. Mol. Biol. 333 (2003) 721.

    Examples
    --------
    >>> from verglas.assessment import full_map_fsc
    >>> full_map_fsc([0.0, 1 / 3, 1.0]).round(6).tolist()
    [0.0, 0.5, 1.0]
    """
    c = np.clip(np.asarray(curve, np.float64), 0.0, 1.0)
    return 2.0 * c / (1.0 + c)


def c_ref(curve: npt.ArrayLike) -> FloatArray:
    """Expected correlation of the full map with the noise-free truth: C_ref = sqrt(2 FSC / (1 + FSC)).

    FSC = 1/7 = 0.143 between half maps is C_ref = 0.5, which is where that threshold comes from.

    References
    ----------
    Rosenthal & Henderson, J. Mol. Biol. 333 (2003) 721.

    Examples
    --------
    >>> from verglas.assessment import c_ref
    >>> round(float(c_ref(1 / 7)), 12)
    0.5
    """
    return np.sqrt(full_map_fsc(curve))


def threshold_curve(kind: str | float, counts: npt.ArrayLike) -> FloatArray:
    """Value per shell that an FSC has to exceed.

    Parameters
    ----------
    kind : float or str
        A fixed value, e.g. 0.143 (half maps against each other), 1/3, 0.5 (map against a perfect reference, or the
        conservative choice); ``"half-bit"``: (0.2071 + 1.9102 / sqrt(n)) / (1.2071 + 0.9102 / sqrt(n));
        ``"2sigma"``, ``"3sigma"``, ``"5sigma"``, ...: z / sqrt(n), since noise has variance 1/n.
    counts : (n_shells,) int
        n, the voxels of each shell in the full transform, divided by the order of the symmetry group, if any.

    Returns
    -------
    (n_shells,) float64

    References
    ----------
    van Heel & Schatz, J. Struct. Biol. 151 (2005) 250; Rosenthal & Henderson, J. Mol. Biol. 333 (2003) 721.

    Examples
    --------
    >>> from verglas.assessment import threshold_curve
    >>> threshold_curve("3sigma", [100, 900]).round(6).tolist(), threshold_curve(0.143, [100]).tolist()
    ([0.3, 0.1], [0.143])
    """
    n = np.asarray(counts, np.float64)
    if not isinstance(kind, str):
        return np.full(n.shape, float(kind))
    root = np.sqrt(np.maximum(n, 1.0))
    if kind == "half-bit":
        return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    sigma = re.fullmatch(r"(\d+(?:\.\d+)?)sigma", kind)
    if sigma:
        return float(sigma[1]) / root
    raise InputError(f"threshold {kind!r}: expected a number, 'half-bit', or a multiple of sigma such as '3sigma'")


@dataclass(frozen=True)
class FSC:
    """Fourier shell correlation of two maps, shells 0 to N // 2.

    Attributes
    ----------
    frequency_per_A : (n_shells,) float64
        Shell / (N * pixel size), in 1/angstrom.
    curve : (n_shells,) float64
        The correlation; 0 where a shell of either map is empty, i.e. holds less power than rounding leaves there.
    counts : (n_shells,) int64
        Voxels of each shell in the full transform: the n of the variance 1/n of noise.
    independent : (n_shells,) int64
        Voxels that are independent under Friedel symmetry, about half as many.
    pixel_size_A : float
        Pixel size; the last resolution that can be seen is about twice it.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> x = np.random.default_rng(0).normal(size=(16, 16, 16))
    >>> found = vg.fsc(x, x, pixel_size_A=2.0)
    >>> float(found.curve.min().round(6)), found.resolution_A()
    (1.0, 4.0)
    """

    frequency_per_A: FloatArray
    curve: FloatArray
    counts: npt.NDArray[np.int64]
    independent: npt.NDArray[np.int64]
    pixel_size_A: float

    def _first_below(self, threshold: float | str | npt.ArrayLike) -> tuple[int | None, FloatArray]:
        if isinstance(threshold, str):
            level = threshold_curve(threshold, self.counts)
        else:
            level = np.broadcast_to(np.asarray(threshold, np.float64), self.curve.shape)
        below = np.flatnonzero(self.curve[1:] < level[1:])
        return (int(below[0]) + 1 if below.size else None), self.curve - level

    def crosses(self, threshold: float | str | npt.ArrayLike = 0.143) -> bool:
        """Whether the curve falls below the threshold before its last shell, so that the sampling is not the limit."""
        return self._first_below(threshold)[0] is not None

    def resolution_A(self, threshold: float | str | npt.ArrayLike = 0.143) -> float:
        """Resolution in angstrom: the first crossing of a threshold, linearly interpolated in frequency.

        Parameters
        ----------
        threshold : float, str or (n_shells,) array
            A value, a name known to :func:`threshold_curve`, or one value per shell.

        Returns
        -------
        float
            inf if shell 1 is already below; the last shell's resolution (about twice the pixel size) if the curve
            never falls below: :meth:`crosses` tells that case.

        Examples
        --------
        >>> import numpy as np
        >>> from verglas.assessment import FSC
        >>> FSC(np.arange(3) / 8, np.array([1, 1, 0.0]), np.ones(3, int), np.ones(3, int), 2.0).resolution_A(0.5)
        5.333333333333333
        """
        shell, above = self._first_below(threshold)
        if shell is None:
            return float(1.0 / self.frequency_per_A[-1])
        if shell == 1:
            return float("inf")
        step = above[shell - 1] / (above[shell - 1] - above[shell])
        f0, f1 = self.frequency_per_A[shell - 1 : shell + 1]
        return float(1.0 / (f0 + step * (f1 - f0)))

    def ssnr(self, *, full: bool = False) -> FloatArray:
        """Spectral SNR of one half map, or of the sum of both: see :func:`ssnr_from_fsc`."""
        return ssnr_from_fsc(self.curve, full=full)


def _as_array(value: Map | npt.ArrayLike, name: str) -> npt.NDArray:
    array = np.asarray(value.data if isinstance(value, Map) else value)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    if array.ndim not in (2, 3) or len(set(array.shape)) != 1 or array.shape[0] < 2:
        raise InputError(
            f"fsc: {name} has shape {array.shape}; expected a cube (or a square image): crop or pad it first"
        )
    if not np.isfinite(array).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise InputError(f"fsc: {name} holds {bad} values that are not finite numbers")
    return array


def _pixel_size(a: object, b: object, given: float | None) -> float:
    sizes = [m.pixel_size_A for m in (a, b) if isinstance(m, Map)]
    sizes += [] if given is None else [float(given)]
    if not sizes:
        return 1.0
    if max(sizes) - min(sizes) > _PIXEL_SIZE_REL * max(sizes):
        raise InputError(
            f"fsc: pixel sizes {' and '.join(f'{s:g}' for s in sizes)} A differ; resample one map, or mend its header"
        )
    if not (np.isfinite(sizes[0]) and sizes[0] > 0):
        raise InputError(f"fsc: expected a positive pixel size in angstrom, got {sizes[0]}")
    return sizes[0]


def _filled(power: FloatArray, counts: npt.NDArray[np.int64], values: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Shells that hold more than what rounding leaves of the whole map's power (a constant map: only shell 0)."""
    mean_power = float(power.sum() / counts.sum())
    return power / counts > mean_power * float(np.finfo(values.dtype).eps) ** 2


def fsc(
    a: Map | npt.ArrayLike,
    b: Map | npt.ArrayLike,
    mask: Map | npt.ArrayLike | None = None,
    *,
    pixel_size_A: float | None = None,
    threads: int | None = None,
) -> FSC:
    """Fourier shell correlation of two maps (ring correlation of two images).

    FSC(R) = Re sum_{k in R} A(k) conj(B(k)) / sqrt(sum abs(A)^2 sum abs(B)^2), over the shell R = round(abs(k)) of
    the full transform. Two maps of independent noise have mean 0 and variance 1/n, n the voxels of the shell; two maps
    with signal and independent noise have the mean SNR / (1 + SNR).

    Parameters
    ----------
    a, b : Map or (N, N, N) or (N, N) float
        Maps, or arrays; even or odd side.
    mask : Map or array, optional
        Multiplied with both; same shape. A tight mask raises the curve by itself.
    pixel_size_A : float, optional
        For arrays, in angstrom; 1 if not given, so that frequencies are per pixel. Maps bring their own.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    FSC
        Curve, frequencies, counts; ``.resolution_A(0.143)``.

    Raises
    ------
    InputError
        Shapes or pixel sizes differ, a map is no cube, or values are not finite.

    References
    ----------
    Harauz & van Heel, Optik 73 (1986) 146; Saxton & Baumeister, J. Microsc. 127 (1982) 127.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> rng = np.random.default_rng(0)
    >>> signal, noise1, noise2 = rng.normal(size=(3, 32, 32, 32))
    >>> found = vg.fsc(signal + noise1, signal + noise2)
    >>> abs(float(found.curve[8:].mean()) - 0.5) < 0.05
    True
    """
    first, second = _as_array(a, "the first map"), _as_array(b, "the second map")
    if first.shape != second.shape:
        raise InputError(f"fsc: the maps have shapes {first.shape} and {second.shape}; crop, pad or resample one")
    pixel_size = _pixel_size(a, b, pixel_size_A)
    shape = first.shape
    if mask is not None:
        weight = np.asarray(mask.data if isinstance(mask, Map) else mask, first.dtype)
        if weight.shape != shape:
            raise InputError(f"fsc: the mask has shape {weight.shape}, the maps {shape}; it must be the same")
        first, second = first * weight, second * weight
    spectra = [fourier.forward(x, len(shape), threads=threads) for x in (first, second)]
    power_a, cross, power_b = fourier.shell_sums(spectra, shape)
    full, independent = fourier.shell_counts(shape)
    filled = _filled(power_a, full, first) & _filled(power_b, full, second)
    curve = np.zeros_like(cross)
    curve[filled] = cross[filled] / (np.sqrt(power_a[filled]) * np.sqrt(power_b[filled]))
    frequency = np.arange(len(curve)) / (shape[0] * pixel_size)
    return FSC(frequency, np.clip(curve, -1.0, 1.0), full, independent, pixel_size)
