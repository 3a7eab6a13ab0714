"""Small kernels in real space, and what they did undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays


def smoothing_kernel(size: int, ndim: int = 2, *, sigma_px: float | None = None) -> FloatArray:
    """Smoothing kernel with sum 1: a mean over size^ndim pixels, or a Gaussian.

    Parameters
    ----------
    size : int
        Side, odd.
    ndim : int
        Number of axes.
    sigma_px : float, optional
        Standard deviation of a Gaussian, in pixels; without it all weights are equal.

    Returns
    -------
    (size,) * ndim float64

    Examples
    --------
    >>> from verglas import filters
    >>> filters.smoothing_kernel(3, 1).round(3).tolist()
    [0.333, 0.333, 0.333]
    """
    if size < 1 or size % 2 == 0:
        raise InputError(f"smoothing_kernel: expected an odd side, got {size}")
    x = np.arange(size) - size // 2
    weights = np.ones(size) if sigma_px is None else np.exp(-0.5 * (x / sigma_px) ** 2)
    kernel = weights
    for _ in range(ndim - 1):
        kernel = kernel[..., None] * weights
    return kernel / kernel.sum()


def sharpening_kernel(amount: float, size: int = 3, ndim: int = 2, *, sigma_px: float | None = None) -> FloatArray:
    """Unsharp mask with sum 1: delta + amount * (delta - smoothing kernel).

    Parameters
    ----------
    amount : float
        How much of the detail is added once more; 0 changes nothing.
    size, ndim, sigma_px
        Of the smoothing kernel that defines what detail is.

    Returns
    -------
    (size,) * ndim float64

    Examples
    --------
    >>> from verglas import filters
    >>> filters.sharpening_kernel(3.0, 3, 1).round(3).tolist()
    [-1.0, 3.0, -1.0]
    """
    delta = np.zeros((size,) * ndim)
    delta[(size // 2,) * ndim] = 1.0
    return delta + amount * (delta - smoothing_kernel(size, ndim, sigma_px=sigma_px))


def _embed(kernel: npt.NDArray, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray:
    """The kernel with its centre (size // 2) on the origin of an array of zeros."""
    if kernel.ndim != len(shape) or any(k > n for k, n in zip(kernel.shape, shape, strict=True)):
        raise InputError(f"kernel of shape {kernel.shape} does not fit into an array of shape {shape}")
    out = np.zeros(shape, dtype)
    out[tuple(slice(n // 2 - k // 2, n // 2 - k // 2 + k) for k, n in zip(kernel.shape, shape, strict=True))] = kernel
    return out


@any_arrays
def convolve(values: npt.NDArray, kernel: npt.NDArray, *, wrap: bool = True, threads: int | None = None) -> npt.NDArray:
    """Convolution by the convolution theorem: (f * g)(x) = sum_y g(y) f(x - y) = FT^-1[F G].

    Parameters
    ----------
    values : (..., *shape) float
        Images or volumes; the kernel's number of axes says which.
    kernel : (*small) float
        g; its origin is element size // 2 on every axis.
    wrap : bool
        Periodic borders (default); False: zeros outside.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (..., *shape) float
        float32 for float32 input.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import filters
    >>> filters.convolve(np.array([0.0, 0, 0, 1, 0, 0]), np.array([1.0, 2.0, 3.0])).round(6).tolist()
    [0.0, 0.0, 1.0, 2.0, 3.0, 0.0]
    """
    values, kernel = np.asarray(values), np.asarray(kernel)
    if not 1 <= kernel.ndim <= min(3, values.ndim):
        raise InputError(f"convolve: a kernel of {kernel.ndim} axes does not go with values of shape {values.shape}")
    ndim = kernel.ndim
    inner = values.shape[-ndim:]
    dtype = values.dtype if values.dtype in (np.float32, np.float64) else np.float64
    work = values.astype(dtype, copy=False)
    if not wrap:
        # A whole kernel of zeros on either side: what wraps round falls into the part that is cut off again.
        pad = [(0, 0)] * (values.ndim - ndim) + [(k, k) for k in kernel.shape]
        work = np.pad(work, pad)
    shape = work.shape[-ndim:]
    spectra = fourier.forward(work, ndim, threads=threads)
    spectra *= fourier.forward(_embed(kernel, shape, dtype), ndim, threads=threads)
    out = fourier.inverse(spectra, shape, threads=threads)
    if wrap:
        return out
    inside: tuple[Any, ...] = (Ellipsis, *(slice(k, k + n) for k, n in zip(kernel.shape, inner, strict=True)))
    return np.ascontiguousarray(out[inside])


@any_arrays
def deconvolve(
    values: npt.NDArray, kernel: npt.NDArray, *, regularisation: float | None = None, threads: int | None = None
) -> npt.NDArray:
    """Undo a periodic convolution: F / G, or F conj(G) / (abs(G)^2 + lambda) if regularised.

    Parameters
    ----------
    values : (..., *shape) float
        What was observed.
    kernel : (*small) float
        The point-spread function, its origin at element size // 2.
    regularisation : float, optional
        lambda, in units of max abs(G)^2. Needed where the transform of the kernel has zeros.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (..., *shape) float

    Raises
    ------
    InputError
        The kernel's transform vanishes somewhere (below 1e-5 of its maximum) and nothing regularises it.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import filters
    >>> x, psf = np.array([3.0, 1, 4, 2, 5, 6]), np.array([0.2, 0.6, 0.2])
    >>> filters.deconvolve(filters.convolve(x, psf), psf).round(6).tolist()
    [3.0, 1.0, 4.0, 2.0, 5.0, 6.0]
    """
    values, kernel = np.asarray(values), np.asarray(kernel)
    ndim = kernel.ndim
    shape = values.shape[-ndim:]
    spectra = fourier.forward(values, ndim, threads=threads)
    transfer = fourier.forward(_embed(kernel, shape, np.float64), ndim, threads=threads)
    size = np.abs(transfer)
    if regularisation is None:
        if size.min() < 1e-5 * size.max():
            raise InputError(
                "deconvolve: the transform of the kernel vanishes at some frequency, which cannot be divided out; "
                "give regularisation, e.g. 1e-3"
            )
        quotient = 1.0 / transfer
    else:
        quotient = transfer.conj() / (size**2 + regularisation * size.max() ** 2)
    return fourier.inverse(spectra * quotient.astype(spectra.dtype), shape, threads=threads)
