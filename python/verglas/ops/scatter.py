"""Exact transforms of atomic models: images at given poses, and volumes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session


def scatter(
    atoms: npt.ArrayLike,
    types: npt.ArrayLike,
    factors: npt.ArrayLike,
    matrices: npt.ArrayLike,
    shifts_A: npt.ArrayLike,
    box: int,
    pixel_size_A: float,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> npt.NDArray[np.complex64]:
    r"""Projections of a sum of Gaussians, computed in Fourier space without a grid: no interpolation anywhere.

    .. math::
        F_i(k) = \sum_a w_a\, e^{-B_a k^2/4}\, f_{t(a)}(|k|)\, e^{-2\pi i\, k\cdot[(R_i r_a)_{xy} - s_i]}, \quad
        f_t(k) = \sum_j a_{tj}\, e^{-b_{tj} k^2/4}

    For one image the sum over atoms is separable in x and y: a product of two real tables of cosines and sines,
    ``box`` by atoms and atoms by ``box``. Rows and columns at the Nyquist frequency of an even box hold the mean of
    +N/2 and -N/2. What lies outside the box is folded back into it.

    Parameters
    ----------
    atoms : (a, 5) float64
        Columns: x, y, z (A), weight, B-factor (A^2).
    types : (a,) int64
        Row of ``factors`` of every atom.
    factors : (t, j, 2) float64
        Amplitude and b (A^2) of the Gaussians that make up the form factor of a type.
    matrices : (n, 3, 3) float64
        R of docs/conventions.md: an atom at r projects to (R r)[x, y].
    shifts_A : (n, 2) float64
        x, y: the particle sits at minus the shift.
    box : int
        Image side in pixels.
    pixel_size_A : float
        Pixel size in angstrom.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all processors of this process by default. The result does not depend on it. CPU only.

    Returns
    -------
    (n, box, box // 2 + 1) complex64
        Phase-centred half transforms (:func:`verglas.fourier.inverse` makes the images). Relative error against
        the float64 sum below 2e-6 (root mean square over the image).

    Raises
    ------
    ValueError
        An array has another shape, a type is out of range, or ``box`` or ``pixel_size_A`` is not positive.

    Examples
    --------
    A Gaussian of unit mass, one pixel to the right of the centre:

    >>> import numpy as np
    >>> from verglas import fourier, ops
    >>> F = ops.scatter([[1.0, 0, 0, 1, 50]], [0], [[[1.0, 0.0]]], [np.eye(3)], [[0.0, 0.0]], 16, 1.0)
    >>> image = fourier.inverse(F[0], (16, 16))
    >>> tuple(int(i) for i in np.unravel_index(image.argmax(), image.shape)), round(float(image.sum()), 4)
    ((8, 9), 1.0)
    """
    if device != "cpu":
        return _scatter_cuda(
            _sort_model(atoms, types, factors), int(box), float(pixel_size_A), device, matrices, shifts_A
        )
    return core.scatter(
        as_array(atoms, np.float64),
        as_array(types, np.int64),
        as_array(factors, np.float64),
        as_array(matrices, np.float64),
        as_array(shifts_A, np.float64),
        int(box),
        float(pixel_size_A),
        resolve_threads(threads),
    )


def scatter_volume(
    atoms: npt.ArrayLike,
    types: npt.ArrayLike,
    factors: npt.ArrayLike,
    box: int,
    pixel_size_A: float,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> npt.NDArray[np.complex64]:
    """The sum of :func:`scatter` in three dimensions, before projection; arguments as there.

    Returns
    -------
    (box, box, box // 2 + 1) complex64
        Phase-centred half transform, axes z, y, x. Its plane kz = 0 is the projection along z. Exact as
        :func:`scatter`; 2 box^3 floating-point operations per atom.

    Examples
    --------
    >>> from verglas import ops
    >>> F = ops.scatter_volume([[0, 0, 0, 2.0, 10]], [0], [[[1.0, 0.0]]], 4, 1.0)
    >>> F.shape, complex(F[0, 0, 0])
    ((4, 4, 3), (2+0j))
    """
    if device != "cpu":
        return _scatter_cuda(_sort_model(atoms, types, factors), int(box), float(pixel_size_A), device)
    return core.scatter_volume(
        as_array(atoms, np.float64),
        as_array(types, np.int64),
        as_array(factors, np.float64),
        int(box),
        float(pixel_size_A),
        resolve_threads(threads),
    )


class _SortedModel(NamedTuple):
    """Atoms by type, where each type starts, and the factors, on the host."""

    rows: np.ndarray
    first: np.ndarray
    terms: np.ndarray


def _sort_model(atoms: Any, types: Any, factors: Any) -> _SortedModel:
    """Checked."""
    rows, kinds, terms = np.asarray(atoms, np.float64), np.asarray(types, np.int64), np.asarray(factors, np.float64)
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise ValueError(f"atoms: expected float64 (any, 5), got {rows.shape}")
    if terms.ndim != 3 or terms.shape[2] != 2:
        raise ValueError(f"factors: expected float64 (any, any, 2), got {terms.shape}")
    if kinds.shape != (len(rows),):
        raise ValueError(f"types: expected int64 ({len(rows)},), got {kinds.shape}")
    bad = np.flatnonzero((kinds < 0) | (kinds >= len(terms)))
    if bad.size:
        raise ValueError(f"types: expected 0 to {len(terms)} - 1, got {kinds[bad[0]]} for atom {bad[0]}")
    order = np.argsort(kinds, kind="stable")
    return _SortedModel(rows[order], np.searchsorted(kinds[order], np.arange(len(terms) + 1)).astype(np.int32), terms)


def _scatter_cuda(
    model: _SortedModel, box: int, pixel_size_A: float, device: str, matrices: Any = None, shifts_A: Any = None
) -> Any:
    """Images at the poses given, or without any the volume."""
    rows, first, terms = model
    dimensions, side = (3 if matrices is None else 2), max(box, 1)
    cuda = cuda_session(device)
    with cuda.active() as stream:
        native = cuda.array(rows, np.float64), cuda.array(first, np.int32), cuda.array(terms, np.float64)
        form = cuda.empty((len(terms), cuda.kernels.form_length(side, dimensions)), np.float32)
        if matrices is None:
            out = cuda.empty((side, side, side // 2 + 1), np.complex64)
            cuda.kernels.scatter_volume(native, box, pixel_size_A, form, out, stream)
            return out
        poses = cuda.array(matrices, np.float64)
        out = cuda.empty((len(poses), side, side // 2 + 1), np.complex64)
        cuda.kernels.scatter(native, poses, cuda.array(shifts_A, np.float64), box, pixel_size_A, form, out, stream)
    return out
