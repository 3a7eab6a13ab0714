"""Sums and means over shells of half transforms."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.fourier.half_transform import half_grid, half_weights
from verglas.fourier.whole_array import forward
from verglas.types.arrays import Array


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
