"""The best of many linear combinations of a few maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session


def match(
    maps: npt.ArrayLike, mix: npt.ArrayLike, *, device: str = "cpu", threads: int | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    r"""Largest linear combination of maps at every pixel, and which one it is.

    .. math:: b_p = \max_m \sum_k c_{mk} M_{kp}

    Parameters
    ----------
    maps : (k, pixels) float32
        M.
    mix : (m, k) float32
        c, one row per combination.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    best : (pixels,) float32
    which : (pixels,) int32
        Row of ``mix``, the first of equal ones.

    Raises
    ------
    ValueError
        An array has another shape, or there is no row or map.

    Examples
    --------
    >>> from verglas import ops
    >>> best, which = ops.match([[1, 2, 3], [3, 2, 1]], [[1, 0], [0, 1], [0.5, 0.5]])
    >>> best.tolist(), which.tolist()
    ([3.0, 2.0, 3.0], [1, 0, 0])
    """
    if device != "cpu":
        cuda = cuda_session(device)
        with cuda.active() as stream:
            there = cuda.array(maps, np.float32)
            shape = there.shape[-1:]
            best_there, which_there = cuda.empty(shape, np.float32), cuda.empty(shape, np.int32)
            cuda.kernels.match(there, cuda.array(mix, np.float32), best_there, which_there, stream)
        return best_there, which_there
    images = as_array(maps, np.float32)
    pixels = images.shape[-1] if images.ndim else 0
    best, which = np.empty(pixels, np.float32), np.empty(pixels, np.int32)
    core.match(images, as_array(mix, np.float32), best, which, resolve_threads(threads))
    return best, which
