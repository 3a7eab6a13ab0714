"""Fourier shell correlation, the resolution read from it, and its relations to the signal-to-noise ratio.

Shells are one Fourier pixel wide, shell = round(abs(k)); sums are kept in float64.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from verglas import fourier
from verglas.assessment.counts import effective_counts
from verglas.errors import InputError
from verglas.masks import checked_mask
from verglas.types import Map
from verglas.types.arrays import Array, FloatArray, any_arrays, host_array
from verglas.types.convert import MapLike, map_of
from verglas.types.display import Shown

# What is usually read off a curve, most demanding first where curves fall: see threshold_curve for their meanings.
THRESHOLDS: tuple[float | str, ...] = (0.5, 1 / 3, 0.143, "half-bit", "5sigma", "3sigma", "2sigma")

# Shells where a threshold demands more than this are not tested: their few voxels tell signal from noise at no
# correlation that real maps have. Under a high symmetry the first shells have one or two (half-bit: 1 and 0.98).
_UNDECIDED = 0.9

# Standard error of a crossing of 0.143 between halves and of 0.5 with the truth, over that of the first alone: there
# the relation of both curves is 1.5 steep, and the second's own error half as large.
_TRUTH_TOO = 1.12

# Two files of one experiment may round their pixel size differently; 1.05 against 1.06 is a mistake.
_PIXEL_SIZE_REL = 1e-3


@any_arrays
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


@any_arrays
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


@any_arrays
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


@any_arrays
def threshold_curve(kind: str | float, counts: npt.ArrayLike) -> FloatArray:
    """Value per shell that an FSC has to exceed.

    Parameters
    ----------
    kind : float or str
        A fixed value, e.g. 0.143 (half maps against each other), 1/3, 0.5 (map against a perfect reference, or the
        conservative choice); ``"half-bit"``: (0.2071 + 1.9102 / sqrt(n)) / (1.2071 + 0.9102 / sqrt(n));
        ``"2sigma"``, ``"3sigma"``, ``"5sigma"``, ...: z / sqrt(n), since noise has variance 1/n: exceeded by chance
        in 2.3 %, 0.13 %, 3e-7 of shells; ``"3sigma-fisher"``: tanh(z / sqrt(n - 3)), exact also for few voxels (1
        where n <= 3).
    counts : (n_shells,) float
        n, the voxels of each shell in the full transform, or the fewer that are independent of one another under a
        mask and symmetry: :func:`effective_counts`.

    Returns
    -------
    (n_shells,) float64

    References
    ----------
    van Heel & Schatz, J. Struct. Biol. 151 (2005) 250; Rosenthal & Henderson, J. Mol. Biol. 333 (2003) 721; Fisher,
    Metron 1 (1921) 3.

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
    sigma = re.fullmatch(r"(\d+(?:\.\d+)?)sigma(-fisher)?", kind)
    if sigma is None:
        raise InputError(
            f"threshold {kind!r}: expected a number, 'half-bit', or a multiple of sigma, '3sigma' or '3sigma-fisher'"
        )
    if sigma[2]:
        return np.tanh(float(sigma[1]) / np.sqrt(np.maximum(n - 3.0, 1e-12)))
    return float(sigma[1]) / root


@any_arrays
def first_crossing(frequency_per_A: npt.ArrayLike, above: npt.ArrayLike) -> tuple[float, int | None]:
    """Resolution at which a curve minus its threshold first turns negative, shell 0 apart, and the shell where it is.

    Linearly interpolated in frequency. inf if shell 1 is negative; the last shell's resolution, and None, if none is.

    Examples
    --------
    >>> from verglas.assessment.fsc import first_crossing
    >>> first_crossing([0.0, 0.1, 0.2], [1.0, 0.5, -0.5])
    (6.666666666666666, 2)
    """
    s, value = np.asarray(frequency_per_A, np.float64), np.asarray(above, np.float64)
    below = np.flatnonzero(value[1:] < 0)
    if not below.size:
        return float(1.0 / s[-1]), None
    shell = int(below[0]) + 1
    if shell == 1:
        return float("inf"), shell
    step = value[shell - 1] / (value[shell - 1] - value[shell])
    return float(1.0 / (s[shell - 1] + step * (s[shell] - s[shell - 1]))), shell


def threshold_name(kind: float | str) -> str:
    """As it stands in tables: '0.143', '1/3', 'half-bit', '3sigma'."""
    if isinstance(kind, str):
        return kind
    return "1/3" if abs(kind - 1 / 3) < 1e-12 else f"{kind:g}"


@dataclass(frozen=True, eq=False, repr=False)
class FSC(Shown):
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
    unit : {"A", "px"}
        Of resolutions, and of 1 over frequencies: "px" where the pixel size was not known; ``pixel_size_A`` is 1 then.
    effective : (n_shells,) float64, optional
        Voxels of each shell that are independent of one another under the mask and the symmetry: the n of thresholds
        (:func:`effective_counts`). ``counts`` if not given.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> x = np.random.default_rng(0).normal(size=(16, 16, 16))
    >>> result = vg.fsc(x, x, pixel_size_A=2.0)
    >>> float(result.curve.min().round(6)), result.resolution_A()
    (1.0, 4.0)
    """

    frequency_per_A: FloatArray
    curve: FloatArray
    counts: npt.NDArray[np.int64]
    independent: npt.NDArray[np.int64]
    pixel_size_A: float
    effective: FloatArray | None = None
    unit: str = "A"

    def __repr__(self) -> str:
        unit = "A" if self.unit == "A" else "px (no pixel size was given)"
        text = ", ".join(f"{name} at {value:.4g}" for name, value in self.resolutions_A([0.5, 0.143]).items())
        return f"FSC({len(self.curve)} shells: {text} {unit})"

    @property
    def n(self) -> FloatArray:
        """What thresholds take for the number of voxels per shell."""
        return np.asarray(self.counts if self.effective is None else self.effective, np.float64)

    def threshold(self, kind: float | str | npt.ArrayLike) -> FloatArray:
        """A threshold's value per shell: a number, a name known to :func:`threshold_curve`, or the values."""
        if isinstance(kind, str):
            return threshold_curve(kind, self.n)
        return np.broadcast_to(np.asarray(kind, np.float64), self.curve.shape)

    def _testable_shells(self, threshold: float | str | npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Shells beyond 0 at which a correlation could pass the threshold."""
        most = _UNDECIDED if isinstance(threshold, str) else 1.0  # a threshold with a name counts voxels
        return np.flatnonzero(self.threshold(threshold)[1:] < most) + 1

    def is_testable(self, threshold: float | str | npt.ArrayLike = 0.143) -> bool:
        """Whether any shell has voxels enough for a threshold; small boxes under a high symmetry may have none.

        Examples
        --------
        >>> import numpy as np, verglas as vg
        >>> x = np.random.default_rng(0).normal(size=(16, 16, 16))
        >>> made = vg.fsc(x, x, pixel_size_A=2.0, symmetry_order=24)
        >>> made.is_testable("5sigma"), made.resolution_A("5sigma"), made.is_testable("half-bit")
        (False, nan, True)
        """
        return bool(self._testable_shells(threshold).size)

    def _crossing(self, threshold: float | str | npt.ArrayLike) -> tuple[float, int | None]:
        above = self.curve - self.threshold(threshold)
        decided = self._testable_shells(threshold)
        if not decided.size:
            return float("nan"), 1
        if above[decided[0]] < 0:
            return float("inf"), 1
        shells = np.arange(len(above))
        above = np.interp(shells, decided, above[decided])  # constant before the first: first_crossing wants shell 1
        return first_crossing(self.frequency_per_A, above)

    def crosses(self, threshold: float | str | npt.ArrayLike = 0.143) -> bool:
        """Whether the curve falls below the threshold before its last shell, so that the sampling is not the limit."""
        return self._crossing(threshold)[1] is not None

    def resolution_A(self, threshold: float | str | npt.ArrayLike = 0.143) -> float:
        """Resolution, in ``unit``: the first crossing of a threshold, linearly interpolated in frequency.

        Parameters
        ----------
        threshold : float, str or (n_shells,) array
            A value, a name known to :func:`threshold_curve`, or one value per shell.

        Returns
        -------
        float
            inf if the first shell that is tested is already below; the last shell's resolution (about twice the pixel
            size) if the curve never falls below: :meth:`crosses` tells that case. Shells that have so few voxels that
            a threshold that counts them exceeds 0.9 are not tested; NaN if there is no other (:meth:`is_testable`).

        Examples
        --------
        >>> import numpy as np
        >>> from verglas.assessment import FSC
        >>> FSC(np.arange(3) / 8, np.array([1, 1, 0.0]), np.ones(3, int), np.ones(3, int), 2.0).resolution_A(0.5)
        5.333333333333333
        """
        return self._crossing(threshold)[0]

    def resolutions_A(self, thresholds: Sequence[float | str] = THRESHOLDS) -> dict[str, float]:
        """Resolution at each of the usual thresholds, by name.

        Examples
        --------
        >>> import numpy as np, verglas as vg
        >>> x = np.random.default_rng(0).normal(size=(16, 16, 16))
        >>> vg.fsc(x, x, pixel_size_A=2.0).resolutions_A([0.5, "half-bit"])
        {'0.5': 4.0, 'half-bit': 4.0}
        """
        return {threshold_name(t): self.resolution_A(t) for t in thresholds}

    def resolution_interval_A(
        self, threshold: float | str | npt.ArrayLike = 0.143, coverage: float = 0.95
    ) -> tuple[float, float]:
        r"""Finest and coarsest resolution that chance in the shells makes of one structure and one level of noise.

        Where the curve raised, and lowered, by z standard errors first crosses the threshold, and half a shell farther:
        nothing is known between shells. A shell's correlation c of n independent voxels, and the resolution with the
        truth that it is held against, which chance moves half as far, have the standard error

        .. math:: 1.12\, (1 - c^2) / \sqrt{n}

        Few voxels, in small boxes or at coarse resolution, and curves that fall slowly make it wide. How many intervals
        of corrected curves in masks held the resolution with the truth stands in docs/guide/trust.md
        (bench/bench_corrected_fsc.py).

        Parameters
        ----------
        threshold : float, str or (n_shells,) array
            As for :meth:`resolution_A`.
        coverage : float
            Probability that a shell's correlation lies within z standard errors; not that of the interval.

        Examples
        --------
        >>> import numpy as np
        >>> from verglas.assessment import FSC
        >>> curve, n = np.linspace(1, 0, 33), np.full(33, 400)
        >>> made = FSC(np.arange(33) / 128, curve, n, n, 2.0)
        >>> [round(value, 2) for value in (made.resolution_A(), *made.resolution_interval_A())]
        [4.67, 4.07, 5.42]
        """
        z = float(special.ndtri(0.5 + 0.5 * coverage))
        error = z * _TRUTH_TOO * (1 - np.clip(self.curve, -1, 1) ** 2) / np.sqrt(np.maximum(self.n, 1.0))
        ends = []
        for sign in (1, -1):
            end_A = replace(self, curve=self.curve + sign * error).resolution_A(threshold)
            frequency = 1 / end_A + 0.5 * sign * self.frequency_per_A[1]  # 0 where no shell passes
            last = float(self.frequency_per_A[-1])
            ends.append(float(1 / min(frequency, last)) if frequency > 0 and np.isfinite(end_A) else end_A)
        return ends[0], ends[1]

    def ssnr(self, *, full: bool = False) -> FloatArray:
        """Spectral SNR of one half map, or of the sum of both: see :func:`ssnr_from_fsc`."""
        return ssnr_from_fsc(self.curve, full=full)


def _read(value: MapLike | npt.ArrayLike) -> Map | npt.ArrayLike:
    """A map in place of its path."""
    return map_of(value, "fsc") if isinstance(value, str | os.PathLike) else value


def _as_array(value: Map | npt.ArrayLike, name: str) -> npt.NDArray:
    array = host_array(value)
    if array.dtype.kind not in "biufc":
        raise InputError(f"fsc: {name}: expected a Map, the path of one or an array, got {type(value).__name__}")
    if np.iscomplexobj(array):
        raise InputError(f"fsc: {name} is complex; a density is real")
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


def _pixel_size(a: object, b: object, override: float | None) -> float:
    sizes = [m.pixel_size_A for m in (a, b) if isinstance(m, Map)]
    sizes += [] if override is None else [float(override)]
    if not sizes:
        return 1.0
    if max(sizes) - min(sizes) > _PIXEL_SIZE_REL * max(sizes):
        raise InputError(
            f"fsc: pixel sizes {' and '.join(f'{s:g}' for s in sizes)} A differ; resample one map, or mend its header"
        )
    if not (np.isfinite(sizes[0]) and sizes[0] > 0):
        raise InputError(f"fsc: expected a positive pixel size in angstrom, got {sizes[0]}")
    return sizes[0]


def _has_power(power: FloatArray, counts: npt.NDArray[np.int64], spectrum: Array) -> npt.NDArray[np.bool_]:
    """Shells that hold more than what rounding leaves of the whole map's power (a constant map: only shell 0)."""
    mean_power = float(power.sum() / counts.sum())
    return power / counts > mean_power * float(np.finfo(spectrum.dtype).eps) ** 2


def correlate_shells(spectra: Sequence[Array], shape: tuple[int, ...], counts: npt.NDArray[np.int64]) -> FloatArray:
    """The curve of :func:`fsc` from the half transforms of two maps of this shape, with the voxels of each shell."""
    power_a, cross, power_b = fourier.shell_sums(spectra, shape)
    filled = _has_power(power_a, counts, spectra[0]) & _has_power(power_b, counts, spectra[1])
    curve = np.zeros_like(cross)
    # Two roots: the product of two sums of powers could overflow.
    curve[filled] = cross[filled] / (np.sqrt(power_a[filled]) * np.sqrt(power_b[filled]))
    return np.clip(curve, -1.0, 1.0)


@any_arrays
def fsc(
    a: MapLike | npt.ArrayLike,
    b: MapLike | npt.ArrayLike,
    mask: MapLike | npt.ArrayLike | None = None,
    *,
    pixel_size_A: float | None = None,
    symmetry_order: int = 1,
    threads: int | None = None,
) -> FSC:
    """Fourier shell correlation of two maps (ring correlation of two images).

    FSC(R) = Re sum_{k in R} A(k) conj(B(k)) / sqrt(sum abs(A)^2 sum abs(B)^2), over the shell R = round(abs(k)) of
    the full transform. Two maps of independent noise have mean 0 and variance 1/n, n the voxels of the shell; two maps
    with signal and independent noise have the mean SNR / (1 + SNR).

    Parameters
    ----------
    a, b : Map, path, or (N, N, N) or (N, N) float
        Maps, or arrays; even or odd side.
    mask : Map, path or array, optional
        Multiplied with both; same shape. A tight mask raises the curve by itself.
    pixel_size_A : float, optional
        For arrays, in angstrom. Without, frequencies are per pixel and resolutions in pixels: ``unit`` of the result
        says so. Maps bring their own.
    symmetry_order : int
        Order of the point group that was imposed on both maps: so many voxels are copies of one another. It changes
        thresholds that depend on their number, not the curve.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    FSC
        Curve, frequencies, counts; ``.resolution_A(0.143)``.

    Raises
    ------
    InputError
        Shapes or pixel sizes differ, a map is no cube, values are not finite, or a mask is none
        (:func:`verglas.masks.checked_mask`).

    References
    ----------
    Harauz & van Heel, Optik 73 (1986) 146; Saxton & Baumeister, J. Microsc. 127 (1982) 127.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> rng = np.random.default_rng(0)
    >>> signal, noise1, noise2 = rng.normal(size=(3, 32, 32, 32))
    >>> result = vg.fsc(signal + noise1, signal + noise2)
    >>> abs(float(result.curve[8:].mean()) - 0.5) < 0.05
    True
    """
    one, other = _read(a), _read(b)
    first, second = _as_array(one, "the first map"), _as_array(other, "the second map")
    if first.shape != second.shape:
        raise InputError(f"fsc: the maps have shapes {first.shape} and {second.shape}; crop, pad or resample one")
    pixel_size = _pixel_size(one, other, pixel_size_A)
    shape = first.shape
    weight = None
    if mask is not None:
        weight = checked_mask(np.asarray(_read(mask)), shape, "fsc: the mask").astype(first.dtype)
        first, second = first * weight, second * weight
    full, independent = fourier.shell_counts(shape)
    curve = correlate_shells([fourier.forward(x, len(shape), threads=threads) for x in (first, second)], shape, full)
    frequency = np.arange(len(curve)) / (shape[0] * pixel_size)
    effective = None
    if weight is not None or symmetry_order != 1:
        effective = effective_counts(shape, weight, symmetry_order, threads=threads)
    has_unit = pixel_size_A is not None or isinstance(one, Map) or isinstance(other, Map)
    return FSC(frequency, curve, full, independent, pixel_size, effective, "A" if has_unit else "px")
