"""Frames resampled by a field of shifts, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
TAPS = np.arange(-6, 8)
BAND = 0.82
RIDGE = 1e-6


def taps(delay: npt.ArrayLike) -> FloatArray:
    """Taps (..., 14) of least squared error up to BAND of Nyquist for points ``delay`` right of pixel 0; sum 1."""
    gram = BAND * np.sinc(BAND * (TAPS[:, None] - TAPS)) + RIDGE * np.eye(len(TAPS))
    right = BAND * np.sinc(BAND * (TAPS - np.asarray(delay, float)[..., None]))
    solution = np.linalg.solve(gram, right[..., None])[..., 0]
    return solution / solution.sum(-1, keepdims=True)


def _bilinear(nodes: FloatArray, y: FloatArray, x: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """The lattice (nodes_y, nodes_x) at pixels y, x; linear beyond its ends."""
    for axis, (at, side) in enumerate(((y, shape[0]), (x, shape[1]))):
        count = nodes.shape[axis]
        place = at * (count - 1) / max(1, side - 1)
        low = np.clip(np.floor(place).astype(int), 0, max(0, count - 2))
        part = place - low
        if axis == 0:
            row, down, below = low, part, np.minimum(low + 1, count - 1)
        else:
            cell, right, beyond = low, part, np.minimum(low + 1, count - 1)
    above = nodes[row, cell] * (1 - right) + nodes[row, beyond] * right
    under = nodes[below, cell] * (1 - right) + nodes[below, beyond] * right
    return above * (1 - down) + under * down


def _mirror(index: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.int64]:
    if side == 1:
        return np.zeros_like(index)
    folded = np.abs(index) % (2 * (side - 1))
    return np.where(folded < side, folded, 2 * (side - 1) - folded)


def warp(frames: FloatArray, shifts_px: FloatArray, weights: FloatArray) -> FloatArray:
    """sum_f w[f, r] I_f(x + dx_f(x, y), y + dy_f(x, y)); fields (n, nodes_y, nodes_x, 2)."""
    n, rows, columns = frames.shape
    y, x = np.mgrid[:rows, :columns].astype(float)
    sums = np.zeros((weights.shape[1], rows, columns))
    for f in range(n):
        dx, dy = (_bilinear(shifts_px[f, :, :, axis], y, x, (rows, columns)) for axis in (0, 1))
        base_x, base_y = np.floor(dx).astype(int), np.floor(dy).astype(int)
        across, down = taps(dx - base_x), taps(dy - base_y)
        value = np.zeros((rows, columns))
        for j, t in enumerate(TAPS):
            row = _mirror(y.astype(int) + base_y + t, rows)
            for i, s in enumerate(TAPS):
                column = _mirror(x.astype(int) + base_x + s, columns)
                value += down[..., j] * across[..., i] * frames[f, row, column]
        sums += weights[f][:, None, None] * value
    return sums
