"""Frames of a movie resampled by a smooth field of shifts, and added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session, device_of
from verglas.types.arrays import Float32Array


def warp(
    frames: Float32Array,
    shifts_px: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    sums: Float32Array | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Any:
    r"""Weighted sums of frames, each moved back by its field of shifts in one interpolation.

    .. math:: s_r(x, y) \mathrel{+}= \sum_f w_{fr}\, I_f\big(x + d^x_f(x, y),\; y + d^y_f(x, y)\big)

    The field is bilinear between the nodes of a lattice whose outer nodes lie on the outer pixels. Frames are resampled
    with 14 taps along each axis, those of least squared error up to 0.82 Nyquist: a wave keeps its amplitude and phase
    to 1 % up to 0.8 Nyquist wherever the point lies, and a constant stays what it is. At their edges frames are
    mirrored.

    Parameters
    ----------
    frames : (n, y, x) float32
    shifts_px : (n, nodes_y, nodes_x, 2) array_like
        Where the content lies: x, then y. One node is a shift of the whole frame. At most 0.02 px per px steep.
    weights : (n, r) array_like, optional
        What each frame counts in each sum; one plain sum without.
    sums : (r, y, x) float32, optional
        Added to in place, so that a movie may come in parts: the parts do not change a bit of the result.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
        Sums of the host are then not added to: what is returned lies on the device.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    (r, y, x) float32
        ``sums``.

    Raises
    ------
    ValueError
        Another shape or dtype, a shift that is not finite, a field too steep (shifts that lie on the device are not
        looked at: where they are not finite the result is NaN).
    DeviceError
        The device cannot be used.

    Notes
    -----
    Taps: T. Laakso et al. (1996) IEEE Signal Process. Mag. 13(1), 30.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> frame = np.zeros((1, 32, 32), np.float32); frame[0, 16, 16] = 1
    >>> moved = ops.warp(frame, [[[[3.0, -2.0]]]])
    >>> np.unravel_index(int(moved.argmax()), moved.shape) == (0, 18, 13)
    True
    """
    if weights is None:
        weights = np.ones((len(frames), 1))
    if device != "cpu":
        return _warp_cuda(frames, shifts_px, weights, sums, device)
    frames = np.asarray(frames)
    shifts = as_array(shifts_px, np.float32)
    factors = as_array(weights, np.float32)
    if sums is None:
        sums = np.zeros((factors.shape[-1], *frames.shape[-2:]), np.float32)
    core.warp(frames, shifts, factors, sums, resolve_threads(threads))
    return sums


def _warp_cuda(frames: Any, shifts_px: Any, weights: Any, sums: Any, device: str) -> Any:
    cuda = cuda_session(device)
    with cuda.active() as stream:
        images = cuda.to_device_or_none(frames)
        if device_of(shifts_px) == "cpu":
            shifts_px = as_array(shifts_px, np.float32)
            core.check_warp_field(shifts_px, *images.shape[-2:])
        factors = cuda.array(weights, np.float32)
        if sums is None:
            total = cuda.cupy.zeros((factors.shape[-1], *images.shape[-2:]), np.float32)
        else:
            total = cuda.to_device_or_none(sums)
        taps = cuda.cupy.asarray(cuda.kernels.delay_table())
        cuda.kernels.warp(images, cuda.array(shifts_px, np.float32), factors, taps, total, stream)
    return total
