"""Transforms of whole arrays: the one call site of scipy.fft and cupyx's."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import scipy.fft

from verglas._array_module import array_module
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.types.arrays import Array
from verglas.types.profile import timing


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


def low_frequencies(images: Array, last: int, *, threads: int | None = None) -> Array:
    """Phase-centred half transforms of images, of which only the frequencies up to ``last`` along each axis are made.

    Parameters
    ----------
    images : (..., N, N) float32 or float64
    last : int
        Largest frequency, Fourier pixels; less than N / 2.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (..., 2 last + 1, last + 1) complex
        Rows 0 .. last, then -last .. -1: those of :func:`forward` without the ones between.

    Raises
    ------
    InputError
        ``last`` is half the side or more.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> images = np.random.default_rng(0).normal(size=(2, 8, 8))
    >>> low = fourier.low_frequencies(images, 2)
    >>> bool(np.allclose(low, fourier.forward(images, 2)[:, [0, 1, 2, 6, 7], :3]))
    True
    """
    xp = array_module(images)
    images = xp.asarray(images)
    side = images.shape[-1]
    if not 0 <= last < side / 2:
        raise InputError(f"low_frequencies: expected a frequency below half of {side} pixels, got {last}")
    rows = np.r_[0 : last + 1, side - last : side]
    if side % 2:
        return xp.ascontiguousarray(forward(images, 2, threads=threads)[..., rows, : last + 1])
    fft, more = transforms(images, threads)
    with timing("fft"):
        columns = xp.ascontiguousarray(fft.rfft(images, axis=-1, **more)[..., : last + 1])
        spectra = xp.ascontiguousarray(fft.fft(columns, axis=-2, **more)[..., rows, :])
        signs = 1 - 2 * ((rows[:, None] + np.arange(last + 1)) % 2)
        spectra *= xp.asarray(signs.astype(spectra.real.dtype))
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
