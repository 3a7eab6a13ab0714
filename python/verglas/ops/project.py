"""Central slices of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session
from verglas.ops.grid import Grid, GridSpectrum

if TYPE_CHECKING:
    from verglas._cuda_arrays import CudaSession


def project(
    spectrum: npt.NDArray[np.complex64],
    grid: Grid,
    matrices: npt.ArrayLike,
    *,
    max_radius: int | None = None,
    shifts_px: npt.ArrayLike | None = None,
    ctf: npt.NDArray[np.float32] | None = None,
    curvature: npt.ArrayLike | None = None,
    out: npt.NDArray[np.complex64] | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> npt.NDArray[np.complex64]:
    r"""Central slices of a gridded map, as phase-centred half transforms of its projections.

    .. math::
        X_i(k) = C_i(k)\, e^{-2\pi i\, k \cdot d_i / N}\, \hat V(A_i^T k), \qquad
        \hat V(q) = \sum_g \phi(q_z - g_z)\,\phi(q_y - g_y)\,\phi(q_x - g_x)\, U_g

    for round(\|k\|) <= ``max_radius``, zero elsewhere; U is :func:`verglas.gridding.to_grid` of the map.

    Parameters
    ----------
    spectrum : grid.shape complex64
        The gridded transform of the map.
    grid : Grid
        Its geometry.
    matrices : (n, 3, 3) float64
        Rotation matrices A in RELION's convention (``vg.euler_to_matrix``).
    max_radius : int, optional
        Largest shell, Fourier pixels; the grid's by default.
    shifts_px : (n, 2) float64, optional
        Displacement d of the particle from the centre, x and y in pixels: minus the origin of a STAR file.
    ctf : (n, N, N // 2 + 1) float32, optional
        Factor C of every slice.
    curvature : (n,) float64, optional
        c of slices on paraboloids, :math:`\hat V(A_i^T (k_x, k_y, c\,|k|^2))`, per Fourier pixel; planes without.
        Ewald's sphere has :math:`\pm\lambda / (2 N p)` with the pixel size p. Such a half transform is one side band:
        only with the other one does it make a real image (:func:`verglas.reconstruction.ewald.project_bands`). On the
        host, whatever the device.
    out : (n, N, N // 2 + 1) complex64, optional
        Written instead of a new array.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    (n, N, N // 2 + 1) complex64
        ``fourier.inverse(..., (N, N))`` makes images: sums of voxels along the ray. A CuPy array where ``device`` is
        not ``"cpu"``.

    Raises
    ------
    ValueError
        An array has another shape or dtype, a matrix is no rotation (its image is NaN where the matrices come from the
        device), ``max_radius`` is beyond the grid's, or a curved slice leaves it.
    DeviceError
        The device cannot be used.

    Notes
    -----
    Against the non-uniform transform of the same map the relative error is that of table 1 in docs/kernels.md.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier, gridding, ops
    >>> point = np.zeros((8, 8, 8), np.float32); point[4, 4, 4] = 1
    >>> g = ops.Grid(8)
    >>> slices = ops.project(gridding.to_grid(point, g), g, np.eye(3)[None])
    >>> bool(np.allclose(slices[0, 0, :4], 1, atol=2e-3))
    True
    """
    radius = grid.max_radius if max_radius is None else int(max_radius)
    if device != "cpu":
        return _project_cuda(
            cuda_session(device), GridSpectrum(grid, spectrum), matrices, radius, (shifts_px, ctf, curvature, out)
        )
    matrices = as_array(matrices, np.float64)
    if out is None:
        out = np.empty((len(matrices), grid.box, grid.box // 2 + 1), np.complex64)
    shifts = None if shifts_px is None else as_array(shifts_px, np.float64)
    curved = None if curvature is None else as_array(curvature, np.float64)
    core.project(grid.native, spectrum, matrices, radius, shifts, ctf, curved, out, resolve_threads(threads))
    return out


def _project_cuda(
    cuda: CudaSession, volume: GridSpectrum, matrices: Any, radius: int, arguments: tuple[Any, ...]
) -> npt.NDArray[np.complex64]:
    grid, spectrum = volume.grid, volume.spectrum
    shifts_px, ctf, curvature, out = arguments
    with cuda.active() as stream:
        rotations = cuda.rotations(matrices)
        if out is None:
            out = cuda.empty((len(rotations), grid.box, grid.box // 2 + 1), np.complex64)
        shifts = None if shifts_px is None else cuda.array(shifts_px, np.float64)
        cuda.kernels.project(
            grid.native_for(cuda.kernels),
            cuda.to_device_or_none(spectrum),
            rotations,
            radius,
            shifts,
            cuda.to_device_or_none(ctf),
            cuda.curvatures(curvature, grid, radius),
            out,
            stream,
        )
    return out
