"""Fourier transforms of whole arrays, phase-centred on pixel N // 2: the one call site of scipy.fft.

Half transforms are in ``rfft`` order, unnormalised. *Phase-centred* means that the origin of real space is pixel N // 2
on every axis, so a point at the centre has a real, positive transform.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from verglas._native import resolve_threads

Array = npt.NDArray


def forward(images: Array, ndim: int, *, threads: int | None = None) -> Array:
    """Phase-centred half transform over the last ``ndim`` axes.

    Parameters
    ----------
    images : (..., N, N) or (..., N, N, N) float32 or float64
        Real images (ndim = 2) or volumes (ndim = 3); even and odd sides.
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
    return scipy.fft.rfftn(np.fft.ifftshift(images, axes=axes), axes=axes, workers=resolve_threads(threads))


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
    real = scipy.fft.irfftn(spectra, s=shape, axes=axes, workers=resolve_threads(threads))
    return np.fft.fftshift(real, axes=axes)


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
