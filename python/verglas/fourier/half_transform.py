"""Coordinates, weights and shells of half transforms; their sampling, and shifts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import Array


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
