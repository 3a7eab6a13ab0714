"""Dense motion by optical flow: robust, pyramidal Lucas and Kanade between each group of frames and all.

V. Abrishami et al. (2015) J. Struct. Biol. 189, 163; B. D. Lucas and T. Kanade (1981) Proc. IJCAI, 674.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage

from verglas import ops
from verglas.errors import InputError
from verglas.motion.binned import bin_frame
from verglas.types.arrays import Float32Array, FloatArray

LEVELS = 3
STEPS = 4
SMOOTH_PX = 1.0
MOST_STEP_PX = 1.0  # a step of the flow at one level


def _move(image: Float32Array, flow: FloatArray) -> Float32Array:
    """image(x + u(x)) by linear interpolation; (y, x, 2) flow, x then y."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    at = np.stack([y + flow[..., 1], x + flow[..., 0]])
    return np.asarray(scipy.ndimage.map_coordinates(image, at, order=1, mode="mirror"), np.float32)


def dense_flow(
    fixed: Float32Array, moving: Float32Array, window_px: float, start: FloatArray | None = None
) -> FloatArray:
    """Flow u (y, x, 2) with moving(x + u) like fixed(x), the same over a Gaussian window.

    Parameters
    ----------
    fixed, moving : (y, x) float32
    window_px : float
        Standard deviation of the window in pixels.
    start : (y, x, 2), optional

    Raises
    ------
    InputError
        Images of different shape, or a window that is not positive.

    Notes
    -----
    Coarse to fine; brightness and contrast are levelled first, and pixels whose difference is far from the others'
    count less (Geman and McClure's weight), so that a hot pixel or a contaminant does not drag its neighbours.
    """
    if fixed.shape != moving.shape or fixed.ndim != 2 or not window_px > 0:
        raise InputError(
            f"optical flow: expected two images of one shape and a positive window, got {fixed.shape}, "
            f"{moving.shape}, {window_px:g}"
        )
    flow = np.zeros((*fixed.shape, 2)) if start is None else np.array(start)
    for level in reversed(range(LEVELS)):
        factor = 2**level
        if min(fixed.shape) // factor < 16:
            continue
        a, b = (_level(bin_frame(image, factor)) for image in (fixed, moving))
        coarse = _resize(flow, a.shape) / factor
        for _ in range(STEPS):
            coarse += _step(a, b, coarse, max(1.5, window_px / factor))
        flow = _resize(coarse, fixed.shape) * factor
    return flow


def _level(image: Float32Array) -> Float32Array:
    smooth = scipy.ndimage.gaussian_filter(image, SMOOTH_PX)
    return np.asarray((smooth - smooth.mean()) / (smooth.std() or 1.0), np.float32)


def _resize(flow: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    if flow.shape[:2] == tuple(shape):
        return np.array(flow)
    axes = [np.linspace(0, n - 1, m) for n, m in zip(flow.shape[:2], shape, strict=True)]
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    return np.stack([scipy.ndimage.map_coordinates(flow[..., i], at, order=1, mode="nearest") for i in (0, 1)], -1)


def _step(fixed: Float32Array, moving: Float32Array, flow: FloatArray, window: float) -> FloatArray:
    """One Gauss-Newton step of every window."""
    now = _move(moving, flow)
    gy, gx = np.gradient((now + fixed) / 2)
    difference = fixed - now
    spread = 1.4826 * float(np.median(np.abs(difference))) or 1.0
    weight = 1 / (1 + (difference / (3 * spread)) ** 2) ** 2

    def window_mean(values: Any) -> FloatArray:
        return np.asarray(scipy.ndimage.gaussian_filter(weight * values, window, mode="reflect"))

    xx, xy, yy = window_mean(gx * gx), window_mean(gx * gy), window_mean(gy * gy)
    bx, by = window_mean(gx * difference), window_mean(gy * difference)
    ridge = 0.02 * float((xx + yy).mean()) / 2
    xx, yy = xx + ridge, yy + ridge
    det = xx * yy - xy * xy
    step = np.stack([(yy * bx - xy * by) / det, (xx * by - xy * bx) / det], -1)
    return np.clip(step, -MOST_STEP_PX, MOST_STEP_PX)


def flow_of_frames(
    frames: Float32Array, shifts_px: FloatArray, window_px: float, groups: int = 6, rounds: int = 2
) -> FloatArray:
    """Flow of groups of frames against all, beyond the shifts of whole frames: (groups, y, x, 2) px.

    Parameters
    ----------
    frames : (n, y, x) float32
    shifts_px : (n, 2)
        Of whole frames, x then y.
    window_px : float
        As in :func:`dense_flow`.
    groups : int
        Consecutive frames are summed so that they show something.
    rounds : int
        How often the reference is made anew from the moved groups.
    """
    parts = np.array_split(np.arange(len(frames)), min(groups, len(frames)))
    sums = [ops.warp(frames[p], shifts_px[p][:, None, None].astype(np.float32))[0] for p in parts]
    flows = np.zeros((len(parts), *frames.shape[1:], 2))
    for _ in range(rounds):
        moved = [_move(s, f) for s, f in zip(sums, flows, strict=True)]
        total = np.sum(moved, axis=0)
        for g, image in enumerate(sums):
            flows[g] = dense_flow(total - moved[g], image, window_px, flows[g])
        flows -= flows.mean(0)
    return flows
