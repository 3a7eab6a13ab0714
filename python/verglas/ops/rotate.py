"""Rotation of a map about its centre."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session
from verglas.ops.grid import Grid


def rotate(
    spectrum: npt.NDArray[np.complex64],
    grid: Grid,
    matrix: npt.ArrayLike,
    *,
    max_radius: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> npt.NDArray[np.complex64]:
    r"""Transform of a map turned about its centre.

    .. math:: V'(r) = V(A^{-1} r), \qquad \hat V'(k) = \hat V(A^T k)

    for round(\|k\|) <= ``max_radius``, zero elsewhere: one interpolation, with the window of :func:`project`.

    Parameters
    ----------
    spectrum : grid.shape complex64
        The gridded transform of the map (:func:`verglas.gridding.to_grid`).
    grid : Grid
        Its geometry.
    matrix : (3, 3) float64
        Rotation A: what was at r is at A r afterwards.
    max_radius : int, optional
        Largest shell; the grid's by default.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    (N, N, N // 2 + 1) complex64, for (kz, ky, kx)
        Phase-centred half transform; ``fourier.inverse(..., (N, N, N))`` makes the map.

    Raises
    ------
    ValueError
        An array has another shape or dtype.
    DeviceError
        The device cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier, gridding, ops
    >>> m = np.zeros((16, 16, 16), np.float32); m[8, 8, 10:12] = 1  # on +x
    >>> g = ops.Grid(16)
    >>> quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])  # x to y
    >>> turned = fourier.inverse(ops.rotate(gridding.to_grid(m, g), g, quarter), (16, 16, 16))
    >>> [int(i) for i in np.unravel_index(turned.argmax(), turned.shape)][::2]
    [8, 8]
    """
    radius = grid.max_radius if max_radius is None else int(max_radius)
    shape = (grid.box, grid.box, grid.box // 2 + 1)
    if device != "cpu":
        cuda = cuda_session(device)
        with cuda.active() as stream:
            rotated = cuda.empty(shape, np.complex64)
            cuda.kernels.rotate(
                grid.native_for(cuda.kernels),
                cuda.to_device_or_none(spectrum),
                as_array(matrix, np.float64),
                radius,
                rotated,
                stream,
            )
        return rotated
    out = np.empty(shape, np.complex64)
    core.rotate(grid.native, spectrum, as_array(matrix, np.float64), radius, out, resolve_threads(threads))
    return out
