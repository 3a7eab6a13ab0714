"""Peaks of a map, none closer to a higher one than a radius."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session


def peaks(
    image: npt.ArrayLike,
    radius_px: float,
    *,
    threshold: float = -np.inf,
    mask: npt.ArrayLike | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    r"""Local maxima, highest first, that have no higher one within a radius.

    A pixel higher than its neighbours is refined to the vertex of the quadratic

    .. math:: q(u, v) = a + g_x u + g_y v + \tfrac12 h_{xx} u^2 + \tfrac12 h_{yy} v^2 + h_{xy} u v

    that fits its 3 x 3 neighbourhood best, by at most half a pixel per axis (none at the border, nor where q has no
    maximum). From the highest on, a maximum is kept if every kept one lies at least ``radius_px`` from it.

    Parameters
    ----------
    image : (y, x) float32
        Scores; NaN and infinity are no peaks.
    radius_px : float
        Least distance of two peaks; 0 keeps all.
    threshold : float
        Pixels below it are no peaks.
    mask : (y, x) bool, optional
        Where a peak may stand; its neighbours may lie outside.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    xy_px : (n, 2) float64
        Positions x, y in pixels, highest peak first; equal ones in raster order.
    values : (n,) float64
        Fitted heights, descending.

    Both on the host, whatever the device: their number is known only when they are found.

    Raises
    ------
    ValueError
        An array has another shape, or the radius is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> image = np.zeros((7, 9), np.float32); image[3, 2] = 2; image[3, 4] = 1; image[3, 7] = 3
    >>> ops.peaks(image, radius_px=3, threshold=0.5)[0].tolist()
    [[7.0, 3.0], [2.0, 3.0]]
    """
    if device != "cpu":
        rows = _peaks_cuda(image, float(radius_px), float(threshold), mask, device)
        return np.ascontiguousarray(rows[:, :2]), np.ascontiguousarray(rows[:, 2])
    allowed = None if mask is None else as_array(np.asarray(mask).astype(np.uint8), np.uint8)
    rows = core.peaks(
        as_array(image, np.float32), float(radius_px), float(threshold), allowed, resolve_threads(threads)
    )
    return np.ascontiguousarray(rows[:, :2]), np.ascontiguousarray(rows[:, 2])


def _peaks_cuda(image: Any, radius_px: float, threshold: float, mask: Any, device: str) -> npt.NDArray[np.float64]:
    """Maxima and vertices on the device; which of them stand apart is settled on the host, one after the other."""
    cuda = cuda_session(device)
    with cuda.active() as stream:
        values = cuda.array(image, np.float32)
        allowed = None if mask is None else (cuda.array(mask, np.uint8) != 0).astype(np.uint8)
        if values.ndim != 2:
            raise ValueError(f"map: expected a C-contiguous float32 array of shape (any, any), got {values.shape}")
        rows = cuda.empty((cuda.kernels.most_peaks(*values.shape), 4), np.float64)
        count = cuda.cupy.zeros(1, np.uint32)
        cuda.kernels.peaks(values, threshold, allowed, rows, count, stream)
        peaks = rows[: int(count[0])].get()
    # Threads append peaks as they come; by pixel number they are in the CPU's order, and ties fall alike.
    in_order = peaks[np.argsort(peaks[:, 0], kind="stable"), 1:]
    return core.keep_apart(as_array(in_order, np.float64), *values.shape, radius_px)
