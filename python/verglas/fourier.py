"""Fourier transforms of whole arrays, phase-centred on pixel N // 2: the one call site of scipy.fft and cupyx's.

Half transforms are in ``rfft`` order, unnormalised. *Phase-centred* means that the origin of real space is pixel N // 2
on every axis, so a point at the centre has a real, positive transform.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from verglas._array_module import array_module
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.types.arrays import Array
from verglas.types.profile import timing

__all__ = [
    "fast_size",
    "forward",
    "half_grid",
    "half_weights",
    "inverse",
    "power_spectrum",
    "radial_mean",
    "radius",
    "raised_cosine",
    "resize",
    "shell_counts",
    "shell_sums",
    "shells",
    "shift_phases",
    "transforms",
    "whole",
]
__dir__ = partial(sorted, __all__)


def transforms(like: Array, threads: int | None = None) -> tuple[Any, dict[str, int]]:
    """Module of the transforms for arrays like this one, and the arguments it takes besides.

    ``scipy.fft`` and its workers; ``cupyx.scipy.fft``, which has none, for arrays on a GPU.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> fft, more = fourier.transforms(np.zeros(3), threads=2)
    >>> fft.__name__, more
    ('scipy.fft', {'workers': 2})
    """
    if array_module(like) is np:
        return scipy.fft, {"workers": resolve_threads(threads)}
    return importlib.import_module("cupyx.scipy.fft"), {}


def fast_size(n: int, *, even: bool = False) -> int:
    """The least side from n on whose real transform is quick: a product of small primes.

    Parameters
    ----------
    n : int
    even : bool
        Only even sides.

    Examples
    --------
    >>> from verglas import fourier
    >>> fourier.fast_size(97), fourier.fast_size(73, even=True)
    (100, 80)
    """
    if even:
        return 2 * int(scipy.fft.next_fast_len(max(1, (n + 1) // 2), real=True))
    return int(scipy.fft.next_fast_len(max(1, n), real=True))


def forward(images: Array, ndim: int, *, threads: int | None = None) -> Array:
    """Phase-centred half transform over the last ``ndim`` axes.

    Parameters
    ----------
    images : (..., N, N) or (..., N, N, N) float32 or float64
        Real images (ndim = 2) or volumes (ndim = 3); even and odd sides. Of a GPU array the transform is made there.
    ndim : int
        How many trailing axes to transform.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (..., N, N // 2 + 1) complex
        Unnormalised; complex64 for float32.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> image = np.zeros((4, 4), np.float32); image[2, 2] = 1
    >>> bool(np.allclose(fourier.forward(image, 2), 1))
    True
    """
    axes = tuple(range(-ndim, 0))
    xp = array_module(images)
    images = xp.asarray(images)
    # On an even side the shift by N / 2 is a sign (-1)^k, applied in place: a third quicker than moving the halves of
    # a large volume (bench/bench_fourier.py). The inverse would need a copy for that and gains nothing.
    odd = tuple(axis for axis in axes if images.shape[axis] % 2)
    fft, more = transforms(images, threads)
    with timing("fft"):
        shifted = xp.fft.ifftshift(images, axes=odd) if odd else images
        spectra = xp.ascontiguousarray(fft.rfftn(shifted, axes=axes, **more))
        _apply_signs(spectra, tuple(images.shape[axis] for axis in axes))
    return spectra


def _apply_signs(spectra: Array, shape: tuple[int, ...]) -> None:
    """Multiply by (-1)^k along every axis whose real-space side is even, in place."""
    xp = array_module(spectra)
    parts = spectra.view(spectra.real.dtype)  # (real, imaginary) pairs: a real product, not a complex one
    signs = [
        np.where((np.arange(m) % 2 == 1) & (n % 2 == 0), -1, 1).astype(parts.dtype)
        for m, n in zip(spectra.shape[-len(shape) :], shape, strict=True)
    ]
    table = np.repeat(signs[-1], 2)
    if len(shape) > 1:
        table = signs[-2][:, None] * table
    if len(shape) < 3:
        parts *= xp.asarray(table)
        return
    tables = {1: xp.asarray(table), -1: xp.asarray(-table)}
    for z, sign in enumerate(signs[0]):
        parts[..., z, :, :] *= tables[int(sign)]


def inverse(spectra: Array, shape: tuple[int, ...], *, threads: int | None = None) -> Array:
    """Inverse of :func:`forward`.

    Parameters
    ----------
    spectra : (..., N, N // 2 + 1) complex
        Phase-centred half transforms.
    shape : tuple of int
        Real-space shape of the transformed axes, e.g. ``(N, N)``: it says whether the last side is even or odd.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (..., *shape) float
        float32 for complex64.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> x = np.arange(15.0).reshape(3, 5)
    >>> bool(np.allclose(fourier.inverse(fourier.forward(x, 2), (3, 5)), x))
    True
    """
    axes = tuple(range(-len(shape), 0))
    fft, more = transforms(spectra, threads)
    # s is needed: sides of 2 M - 2 and of 2 M - 1 pixels both have M columns, and irfftn would take the even one.
    with timing("fft"):
        real = fft.irfftn(spectra, s=shape, axes=axes, **more)
        return array_module(spectra).fft.fftshift(real, axes=axes)


def half_grid(shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Integer Fourier coordinates of a half transform, slowest axis first, each broadcastable to its shape.

    Examples
    --------
    >>> from verglas import fourier
    >>> ky, kx = fourier.half_grid((4, 4))
    >>> ky.ravel().tolist(), kx.ravel().tolist()
    ([0, 1, -2, -1], [0, 1, 2])
    """
    axes = [np.fft.fftfreq(n, 1 / n).round().astype(np.int64) for n in shape[:-1]]
    axes.append(np.arange(shape[-1] // 2 + 1))
    return tuple(np.ix_(*axes))


def whole(spectra: Array, shape: tuple[int, ...]) -> Array:
    """Full transforms with zero frequency at pixel N // 2, from half transforms of real data: for looking at.

    Parameters
    ----------
    spectra : (..., N, N // 2 + 1) complex or float
        Half transforms, or a quantity on their grid that is equal for k and -k, like ``abs(F)``.
    shape : tuple of int
        Real-space shape of the transformed axes.

    Returns
    -------
    (..., *shape)
        Same dtype; of complex values the other half is the conjugate (Friedel).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> wave = np.cos(2 * np.pi * np.arange(8) / 4) * np.ones((8, 1))
    >>> full = fourier.whole(np.abs(fourier.forward(wave, 2)), (8, 8))
    >>> np.argwhere(full > 1).tolist()
    [[4, 2], [4, 6]]
    """
    values = np.asarray(spectra)
    ndim, n = len(shape), shape[-1]
    if values.shape[-ndim:] != (*shape[:-1], n // 2 + 1):
        raise InputError(f"whole: half transforms of shape {values.shape} do not belong to real shape {tuple(shape)}")
    # kx = 0 and, on an even side, Nyquist are their own mates: they stand in the half transform already.
    mates = values[..., 1 : (n + 1) // 2].conj()
    for axis in range(-ndim, -1):  # the mate of k stands at -k on every axis
        mates = np.roll(np.flip(mates, axis), 1, axis)
    return np.fft.fftshift(np.concatenate([values, np.flip(mates, -1)], axis=-1), axes=tuple(range(-ndim, 0)))


def radius(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """|k| in Fourier pixels on the half-transform grid of a cube or square.

    Examples
    --------
    >>> from verglas import fourier
    >>> fourier.radius((4, 4))[1].round(3).tolist()
    [1.0, 1.414, 2.236]
    """
    return np.sqrt(sum(k.astype(np.float64) ** 2 for k in half_grid(shape)))


def shells(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Shell number round(|k|) of every element of the half-transform grid.

    Examples
    --------
    >>> from verglas import fourier
    >>> fourier.shells((4, 4)).tolist()[1]
    [1, 1, 2]
    """
    return np.rint(radius(shape)).astype(np.int64)


def half_weights(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """How often each element of a half transform stands in the full one: 2, or 1 on the planes kx = 0 and Nyquist.

    Examples
    --------
    >>> from verglas import fourier
    >>> fourier.half_weights((4, 4)).tolist()
    [1.0, 2.0, 1.0]
    """
    n = shape[-1]
    weights = np.full(n // 2 + 1, 2.0)
    weights[0] = 1.0
    if n % 2 == 0:
        weights[-1] = 1.0
    return weights


def _resize_full_axis(spectra: Array, axis: int, old: int, new: int) -> Array:
    """Crop or pad one axis in ``fft`` order, splitting or folding the Nyquist element of even sides."""
    x = np.moveaxis(spectra, axis, 0)
    small = min(old, new)
    positive, negative = (small + 1) // 2, small // 2
    out = np.zeros((new, *x.shape[1:]), x.dtype)
    out[:positive] = x[:positive]
    out[new - negative :] = x[old - negative :]
    if small % 2 == 0 and small > 0:
        if new > old:  # the element at -N/2 stands for both ends: half to each
            out[new - negative] *= 0.5
            out[negative] = out[new - negative]
        else:  # both ends fall on the one element that the small grid has
            out[new - negative] += x[negative]
    return np.moveaxis(out, 0, axis)


def resize(spectra: Array, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Array:
    """Crop or pad phase-centred half transforms to another real-space shape, the field of view unchanged.

    The function of real space is the same trigonometric polynomial, without the frequencies that the new grid cannot
    hold. The Nyquist element of an even side stands for both ends of its axis: padding splits it in two halves,
    cropping to an even side adds both ends, so padding then cropping gives back the input. Not normalised: multiply by
    n_new / n_old voxels to keep grey values.

    Parameters
    ----------
    spectra : (..., N, N // 2 + 1) complex
        From :func:`forward`.
    shape, new_shape : tuple of int
        Real-space shapes of the transformed axes before and after; even or odd, larger or smaller per axis.

    Returns
    -------
    (..., *new_shape[:-1], new_shape[-1] // 2 + 1) complex
        Same dtype.

    Raises
    ------
    InputError
        The shapes do not fit each other or the transforms.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> x = np.random.default_rng(0).normal(size=(6, 5))
    >>> wide = fourier.resize(fourier.forward(x, 2), (6, 5), (9, 8))
    >>> wide.shape, bool(np.allclose(fourier.resize(wide, (9, 8), (6, 5)), fourier.forward(x, 2)))
    ((9, 5), True)
    """
    ndim = len(shape)
    if len(new_shape) != ndim or min(new_shape) < 1:
        raise InputError(f"resize: expected {ndim} sides of at least 1 for shape {tuple(shape)}, got {new_shape}")
    if spectra.shape[-ndim:] != (*shape[:-1], shape[-1] // 2 + 1):
        raise InputError(f"resize: half transforms of shape {spectra.shape} do not belong to real shape {tuple(shape)}")
    old, new = shape[-1], new_shape[-1]
    columns = min(old, new) // 2 + 1
    out = np.zeros((*spectra.shape[:-1], new // 2 + 1), spectra.dtype)
    out[..., :columns] = spectra[..., :columns]
    if new > old and old % 2 == 0:
        out[..., old // 2] *= 0.5
    for axis in range(-ndim, -1):
        if shape[axis] != new_shape[axis]:
            out = _resize_full_axis(out, axis, shape[axis], new_shape[axis])
    if new < old and new % 2 == 0:
        # The other end, -N/2, is the Friedel mate: conjugate, at minus the other coordinates.
        mate = out[..., new // 2].conj()
        for axis in range(-ndim + 1, 0):
            mate = np.roll(np.flip(mate, axis), 1, axis)
        out[..., new // 2] += mate
    return np.ascontiguousarray(out)


def shift_phases(shape: tuple[int, ...], shifts_px: npt.ArrayLike) -> Array:
    """Factors that move real space by a shift: exp(-2 pi i k.s / N).

    At the Nyquist frequency of an even side the factor is cos(pi s), that of the real trigonometric polynomial through
    the pixels.

    Parameters
    ----------
    shape : tuple of int
        Real-space shape, (y, x) or (z, y, x).
    shifts_px : (..., ndim) float
        Shifts x, y (, z) in pixels; the content moves by +s.

    Returns
    -------
    (..., *shape[:-1], shape[-1] // 2 + 1) complex64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> image = np.zeros((1, 4, 4), np.float32); image[0, 2, 2] = 1
    >>> moved = fourier.inverse(fourier.forward(image, 2) * fourier.shift_phases((4, 4), [[1, -2]]), (4, 4))
    >>> np.argwhere(moved.round(5) == 1).tolist()
    [[0, 0, 3]]
    """
    shifts = np.asarray(shifts_px, np.float64)
    ndim = len(shape)
    if shifts.ndim == 0 or shifts.shape[-1] != ndim:
        raise InputError(f"shifts_px: expected {ndim} numbers per image, got shape {shifts.shape}")
    phases = np.ones((*shifts.shape[:-1], *(1,) * ndim), np.complex64)
    for axis, (k, n) in enumerate(zip(half_grid(shape), shape, strict=True)):
        # Shifts come as x, y (, z), the axes of the array slowest first.
        s = shifts[..., ndim - 1 - axis].reshape(*shifts.shape[:-1], *(1,) * ndim)
        factor = np.exp(-2j * np.pi / n * k * s)
        if n % 2 == 0:
            # +N/2 and -N/2 are one element; only the mean of their two factors, the cosine, keeps the image real.
            factor = np.where(2 * np.abs(k) == n, np.cos(np.pi * s), factor)
        phases = phases * factor.astype(np.complex64)
    return phases


def raised_cosine(distance: npt.ArrayLike, width: float) -> npt.NDArray[np.float64]:
    """Edge that falls from 1 to 0 over ``width``: (1 + cos(pi d / width)) / 2 for 0 < d < width.

    Parameters
    ----------
    distance : array
        Distance d beyond the start of the edge, in the unit of ``width``; 1 where d <= 0.
    width : float
        Width of the edge, >= 0; 0 is a hard edge.

    Returns
    -------
    array of float64
        Same shape; monotone, with continuous slope.

    Examples
    --------
    >>> from verglas import fourier
    >>> fourier.raised_cosine([-1, 0, 1, 2, 3], 2).tolist()
    [1.0, 1.0, 0.5, 0.0, 0.0]
    """
    d = np.asarray(distance, np.float64)
    if not width >= 0:
        raise InputError(f"width of the edge: expected a number >= 0, got {width}")
    if width == 0:
        return (d <= 0).astype(np.float64)
    return (1.0 + np.cos(np.pi * (np.clip(d, 0.0, width) / width))) / 2.0


def _shell_slabs(shape: tuple[int, ...]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Shell numbers of the half-transform grid, one slab of the slowest axis at a time (little memory)."""
    grids = [k.astype(np.int64) ** 2 for k in half_grid(shape)]
    # |k|^2 is an integer, so its shell comes from a table: no square root per element.
    table = np.rint(np.sqrt(np.arange(sum(int(g.max()) for g in grids) + 1))).astype(np.int64)
    rest = sum(g[0] for g in grids[1:])
    for i, first in enumerate(grids[0].ravel()):
        yield i, table[rest + first]


def shell_sums(spectra: Sequence[Array], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Sums over shells of the full transform of products of half transforms, in float64.

    For each pair in the lower triangle of ``spectra`` (a, a), (b, a), (b, b), ...: the real part of
    sum over the shell of F_i conj(F_j), Friedel mates included (their imaginary parts cancel).

    Parameters
    ----------
    spectra : sequence of (*shape[:-1], shape[-1] // 2 + 1) complex
        Half transforms of one shape.
    shape : tuple of int
        Real-space shape, a square or a cube.

    Returns
    -------
    (n_pairs, N // 2 + 1) float64
        Shells 0 to N // 2, shell = round(abs(k)).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> x = np.zeros((5, 5)); x[2, 2] = 1
    >>> fourier.shell_sums([fourier.forward(x, 2)], (5, 5)).tolist()
    [[1.0, 8.0, 12.0]]
    """
    n_shells = shape[0] // 2 + 1
    weights = half_weights(shape)
    pairs = [(i, j) for i in range(len(spectra)) for j in range(i + 1)]
    sums = np.zeros((len(pairs), n_shells))
    for slab, shell in _shell_slabs(shape):
        flat = np.minimum(shell, n_shells).ravel()
        # float64 from here on: a shell holds 10^4 to 10^6 products of which float32 would lose the last digits.
        parts = [s[slab].astype(np.complex128, copy=False) for s in spectra]
        for row, (i, j) in enumerate(pairs):
            product = parts[i].real * parts[j].real + parts[i].imag * parts[j].imag
            sums[row] += np.bincount(flat, (product * weights).ravel(), minlength=n_shells + 1)[:n_shells]
    return sums


def shell_counts(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Elements per shell: of the full transform, and of them those independent under Friedel symmetry.

    Parameters
    ----------
    shape : tuple of int
        Real-space shape, a square or a cube.

    Returns
    -------
    full, independent : (N // 2 + 1,) int64
        A Friedel pair counts 2 in ``full`` and 1 in ``independent``; a self-conjugate element counts 1 in both.

    Examples
    --------
    >>> from verglas import fourier
    >>> [c.tolist() for c in fourier.shell_counts((4, 4))]
    [[1, 8, 6], [1, 4, 4]]
    """
    n_shells = shape[0] // 2 + 1
    weights = half_weights(shape)
    full = np.zeros(n_shells)
    for _, shell in _shell_slabs(shape):
        flat = np.minimum(shell, n_shells).ravel()
        weight = np.broadcast_to(weights, shell.shape).ravel()
        full += np.bincount(flat, weight, minlength=n_shells + 1)[:n_shells]
    # Self-conjugate: every coordinate is 0, or N / 2 on an even axis.
    own = np.zeros(n_shells)
    edges = [(0, n // 2) if n % 2 == 0 else (0,) for n in shape]
    for k in itertools.product(*edges):
        shell_of_k = round(float(np.sqrt(sum(v * v for v in k))))
        if shell_of_k < n_shells:
            own[shell_of_k] += 1
    return full.astype(np.int64), ((full + own) / 2).astype(np.int64)


def radial_mean(values: Array, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Mean over shells of a real quantity on the half-transform grid, Friedel mates included.

    Parameters
    ----------
    values : (*shape[:-1], shape[-1] // 2 + 1) float
        For example ``abs(F) ** 2``.
    shape : tuple of int
        Real-space shape, a square or a cube.

    Returns
    -------
    (N // 2 + 1,) float64
        Mean of shells 0 to N // 2, accumulated in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> fourier.radial_mean(np.ones((4, 3)), (4, 4)).tolist()
    [1.0, 1.0, 1.0]
    """
    n_shells = shape[0] // 2 + 1
    weights = half_weights(shape)
    sums = np.zeros(n_shells)
    total = np.zeros(n_shells)
    for slab, shell in _shell_slabs(shape):
        flat = np.minimum(shell, n_shells).ravel()
        weight = np.broadcast_to(weights, shell.shape)
        sums += np.bincount(flat, (values[slab] * weight).ravel(), minlength=n_shells + 1)[:n_shells]
        total += np.bincount(flat, weight.ravel(), minlength=n_shells + 1)[:n_shells]
    return sums / total


def power_spectrum(images: Array, ndim: int, *, threads: int | None = None) -> npt.NDArray[np.float64]:
    """Radial power spectrum: mean of abs(F)^2 / n_voxels over each shell, so that white noise of variance v gives v.

    Parameters
    ----------
    images : (N, N) or (N, N, N) float
        One square image (ndim = 2) or cubic volume (ndim = 3).
    ndim : int
        2 or 3.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (N // 2 + 1,) float64
        Shells 0 to N // 2.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> x = np.zeros((4, 4)); x[2, 2] = 4
    >>> fourier.power_spectrum(x, 2).tolist()
    [1.0, 1.0, 1.0]
    """
    images = np.asarray(images)
    if images.ndim != ndim or len(set(images.shape)) != 1:
        raise InputError(f"power_spectrum: expected a square image or cube of {ndim} axes, got shape {images.shape}")
    spectrum = forward(images, ndim, threads=threads)
    full, _ = shell_counts(images.shape)
    return shell_sums([spectrum], images.shape)[0] / full / images.size
