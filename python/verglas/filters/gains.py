"""Radial filters: gains, functions of the spatial frequency, and what applies them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.types import Map
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.convert import map_of

Gain = Callable[[FloatArray], FloatArray]
MapOrArray = TypeVar("MapOrArray", Map, npt.NDArray)

# Width of an edge if none is given, as a fraction of the frequency where the band ends.
_EDGE_FRACTION = 0.2


def _frequency(resolution_A: float) -> float:
    if not (math.isfinite(resolution_A) and resolution_A > 0):
        raise InputError(f"resolution of a filter: expected a positive number of angstrom, got {resolution_A}")
    return 1.0 / resolution_A


def low_pass(resolution_A: float, edge_per_A: float | None = None) -> Gain:
    """Keep what is coarser than a resolution: 1 for s <= 1/d, raised cosine to 0 at 1/d + w.

    Parameters
    ----------
    resolution_A : float
        d, the last resolution that passes whole, in angstrom.
    edge_per_A : float, optional
        w in 1/angstrom; a fifth of 1/d by default, 0 is a hard edge. A step in the density overshoots by 9 % however
        wide it is (5.6 % at 3/d), since all up to 1/d passes whole; :func:`gaussian` does not overshoot.

    Returns
    -------
    Gain

    Examples
    --------
    >>> from verglas import filters
    >>> filters.low_pass(10.0, 0.05)([0.1, 0.125, 0.15]).round(6).tolist()
    [1.0, 0.5, 0.0]
    """
    end = _frequency(resolution_A)
    width = _EDGE_FRACTION * end if edge_per_A is None else edge_per_A
    return lambda s: fourier.raised_cosine(np.asarray(s, np.float64) - end, width)


def high_pass(resolution_A: float, edge_per_A: float | None = None) -> Gain:
    """Keep what is finer than a resolution: 0 up to 1/d - w, raised cosine to 1 at 1/d.

    Parameters
    ----------
    resolution_A : float
        d, the first resolution that passes whole, in angstrom.
    edge_per_A : float, optional
        w in 1/angstrom; 1/d by default, so that the gain rises from 0 at s = 0: a steeper edge rings, and leaves 2 to
        9 % of a gradient's range where this one leaves less than 1 %. 0 is a hard edge.

    Returns
    -------
    Gain

    Examples
    --------
    >>> from verglas import filters
    >>> filters.high_pass(10.0, 0.05)([0.05, 0.075, 0.1]).round(6).tolist()
    [0.0, 0.5, 1.0]
    """
    start = _frequency(resolution_A)
    width = start if edge_per_A is None else edge_per_A
    return lambda s: fourier.raised_cosine(start - np.asarray(s, np.float64), width)


def band_pass(coarse_A: float, fine_A: float, edge_per_A: float | None = None) -> Gain:
    """Keep what lies between two resolutions: the product of a high and a low pass.

    Parameters
    ----------
    coarse_A, fine_A : float
        Ends of the band in angstrom, ``coarse_A`` the larger number.
    edge_per_A : float, optional
        Width of both edges; by default 1 / coarse_A and a fifth of 1 / fine_A.

    Returns
    -------
    Gain

    Examples
    --------
    >>> from verglas import filters
    >>> filters.band_pass(20.0, 10.0, 0.01)([0.03, 0.05, 0.1, 0.12]).round(6).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    if not coarse_A > fine_A:
        raise InputError(f"band_pass: coarse_A ({coarse_A} A) must be larger than fine_A ({fine_A} A)")
    return product(high_pass(coarse_A, edge_per_A), low_pass(fine_A, edge_per_A))


def gaussian(sigma_A: float) -> Gain:
    """Blur by a Gaussian of standard deviation sigma in real space: exp(-2 pi^2 sigma^2 s^2).

    Parameters
    ----------
    sigma_A : float
        sigma in angstrom.

    Returns
    -------
    Gain

    Examples
    --------
    >>> from verglas import filters
    >>> filters.gaussian(0.0)([0.0, 0.3]).tolist()
    [1.0, 1.0]
    """
    if not sigma_A >= 0:
        raise InputError(f"gaussian: expected sigma_A >= 0, got {sigma_A}")
    return lambda s: np.exp(-2.0 * (np.pi * sigma_A * np.asarray(s, np.float64)) ** 2)


def b_factor(b_A2: float) -> Gain:
    """Temperature factor: exp(-B s^2 / 4); positive B blurs, negative B sharpens.

    Parameters
    ----------
    b_A2 : float
        B in angstrom^2.

    Returns
    -------
    Gain

    Examples
    --------
    >>> from verglas import filters
    >>> filters.b_factor(100.0)([0.2]).round(6).tolist()
    [0.367879]
    """
    return lambda s: np.exp(-0.25 * b_A2 * np.asarray(s, np.float64) ** 2)


@any_arrays
def from_curve(frequency_per_A: npt.ArrayLike, values: npt.ArrayLike) -> Gain:
    """Gain from a table, linear between its points and constant beyond its ends.

    Parameters
    ----------
    frequency_per_A : (n,) float
        Frequencies, increasing, in 1/angstrom.
    values : (n,) float
        The gain there, e.g. from an FSC.

    Returns
    -------
    Gain

    Examples
    --------
    >>> from verglas import filters
    >>> filters.from_curve([0.0, 0.1], [1.0, 0.0])([0.05, 0.2]).tolist()
    [0.5, 0.0]
    """
    x, y = np.asarray(frequency_per_A, np.float64), np.asarray(values, np.float64)
    if x.ndim != 1 or x.shape != y.shape or x.size == 0 or np.any(np.diff(x) <= 0):
        raise InputError(f"from_curve: expected increasing frequencies and as many values, got {x.shape} and {y.shape}")
    return lambda s: np.interp(np.asarray(s, np.float64), x, y)


def product(*gains: Gain) -> Gain:
    """Several gains one after the other.

    Examples
    --------
    >>> from verglas import filters
    >>> filters.product(filters.low_pass(5.0), filters.gaussian(0.0))([0.1]).tolist()
    [1.0]
    """

    def gain(s: FloatArray) -> FloatArray:
        return np.prod([g(s) for g in gains], axis=0)

    return gain


def inverse(gain: Gain, floor: float = 1e-3) -> Gain:
    """The filter that undoes another one, 1 / R(s), where R is not too small.

    Parameters
    ----------
    gain : Gain
        R, the transfer function to undo.
    floor : float
        Frequencies with abs(R) below this are set to 0: nothing is left there to restore.

    Returns
    -------
    Gain

    Examples
    --------
    >>> from verglas import filters
    >>> filters.inverse(lambda s: s)([0.5, 0.0]).tolist()
    [2.0, 0.0]
    """

    def undo(s: FloatArray) -> FloatArray:
        r = np.asarray(gain(np.asarray(s, np.float64)), np.float64)
        return np.divide(1.0, r, out=np.zeros_like(r), where=np.abs(r) >= floor)

    return undo


def frequencies(shape: tuple[int, ...], pixel_size_A: float) -> FloatArray:
    """Spatial frequency in 1/angstrom on the half-transform grid of a real-space shape; sides may differ.

    Parameters
    ----------
    shape : tuple of int
        Real-space shape, (y, x) or (z, y, x).
    pixel_size_A : float
        Pixel size in angstrom.

    Returns
    -------
    (*shape[:-1], shape[-1] // 2 + 1) float64

    Examples
    --------
    >>> from verglas import filters
    >>> filters.frequencies((4,), 2.0).tolist()
    [0.0, 0.125, 0.25]
    """
    if not (math.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise InputError(f"expected a positive pixel size in angstrom, got {pixel_size_A}")
    grids = (k / (n * pixel_size_A) for k, n in zip(fourier.half_grid(shape), shape, strict=True))
    return np.sqrt(sum(g**2 for g in grids))


@any_arrays
def apply(
    values: MapOrArray,
    gain: Gain,
    pixel_size_A: float | None = None,
    *,
    ndim: int = 2,
    threads: int | None = None,
) -> MapOrArray:
    """Filter a map, volumes or images: inverse transform of R(s) F(k).

    Parameters
    ----------
    values : Map, its path, or (..., y, x) or (..., z, y, x) float
        A map, or arrays; sides may differ.
    gain : Gain
        R(s), s in 1/angstrom.
    pixel_size_A : float, optional
        Of arrays; with 1, frequencies are per pixel and "angstrom" means pixels. A map brings its own.
    ndim : int
        For arrays: 2 images (default), 3 volumes.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Map or array
        As the input; float32 stays float32.

    Raises
    ------
    InputError
        No pixel size, too few axes, or values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import filters
    >>> image = np.ones((8, 8), np.float32)
    >>> bool(np.allclose(filters.apply(image, filters.low_pass(10.0), 1.5), 1))
    True
    """
    if isinstance(values, str | os.PathLike):
        volume: Any = map_of(values, "filters.apply: the map")
        return apply(volume, gain, pixel_size_A, threads=threads)
    if isinstance(values, Map):
        if pixel_size_A is not None:
            raise InputError("filters.apply: a map has its own pixel size; leave pixel_size_A out")
        return values.with_data(_apply_gain(values.data, gain, values.pixel_size_A, 3, threads))
    if pixel_size_A is None:
        raise InputError("filters.apply: an array needs pixel_size_A (1 if the gain counts in pixels)")
    return _apply_gain(np.asarray(values), gain, pixel_size_A, ndim, threads)


def _apply_gain(values: npt.NDArray, gain: Gain, pixel_size_A: float, ndim: int, threads: int | None) -> npt.NDArray:
    if ndim not in (1, 2, 3) or values.ndim < ndim:
        raise InputError(f"filters.apply: expected arrays of at least {ndim} axes, got shape {values.shape}")
    shape = values.shape[-ndim:]
    spectra = fourier.forward(values, ndim, threads=threads)
    sums = spectra.reshape(-1, math.prod(spectra.shape[-ndim:]))[:, 0]
    if not np.isfinite(sums).all():  # the sum of each image: one NaN anywhere is in it
        raise InputError("filters.apply: the input holds values that are not finite")
    # In the spectra's own precision: a float64 gain would make complex64 spectra complex128, twice the memory.
    spectra *= np.asarray(gain(frequencies(shape, pixel_size_A)), spectra.real.dtype)
    return fourier.inverse(spectra, shape, threads=threads)
