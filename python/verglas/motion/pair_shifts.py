"""Shifts of frames from the shifts between pairs of them: more equations than unknowns.

X. Li et al. (2013) Nat. Methods 10, 584 (least squares); J. M. de la Rosa-Trevin et al. (2013) J. Struct. Biol. 184,
321 (rejecting outliers).
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray

TUKEY = 4.685  # residuals beyond so many standard deviations count nothing; 95 % efficiency on Gaussian errors


def design(pairs: npt.ArrayLike, n_frames: int) -> FloatArray:
    """A of A r = b: b_ij is the sum of the steps r_i .. r_{j-1}. (n_pairs, n_frames - 1)."""
    i, j = np.asarray(pairs).T
    step = np.arange(n_frames - 1)
    return ((step >= i[:, None]) & (step < j[:, None])).astype(float)


def _check(pairs: npt.ArrayLike, shifts_px: npt.ArrayLike, n_frames: int) -> tuple[IntArray, FloatArray]:
    rows, shifts = np.asarray(pairs), np.asarray(shifts_px, float)
    if rows.ndim != 2 or rows.shape[1] != 2 or shifts.shape != rows.shape:
        raise InputError(f"pair shifts: expected (n, 2) pairs and shifts, got {rows.shape} and {shifts.shape}")
    if len(rows) and (rows.min() < 0 or rows.max() >= n_frames or not np.all(rows[:, 0] < rows[:, 1])):
        raise InputError(f"pair shifts: expected pairs i < j of frames 0 to {n_frames - 1}")
    if not np.isfinite(shifts).all():
        raise InputError("pair shifts: a shift is not finite")
    return rows.astype(np.int64), shifts


def _path(steps: FloatArray) -> FloatArray:
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def _solve(a: FloatArray, b: FloatArray) -> FloatArray:
    if np.linalg.matrix_rank(a) < a.shape[1]:
        raise InputError("pair shifts: the pairs do not connect all frames; give more of them")
    return np.asarray(np.linalg.lstsq(a, b, rcond=None)[0], float)


def least_squares(pairs: npt.ArrayLike, shifts_px: npt.ArrayLike, n_frames: int) -> FloatArray:
    """Shifts of all frames that explain the shifts of pairs best: r = (A^T A)^-1 A^T b.

    Parameters
    ----------
    pairs : (n, 2) int
        i < j.
    shifts_px : (n, 2) array_like
        Where frame j lies minus where frame i lies, x then y.
    n_frames : int

    Returns
    -------
    (n_frames, 2) float64
        The first frame at 0.

    Raises
    ------
    InputError
        Pairs that are none, or do not connect all frames.

    Examples
    --------
    >>> from verglas.motion.pair_shifts import least_squares
    >>> least_squares([[0, 1], [1, 2], [0, 2]], [[1, 0], [1, 0], [2.3, 0]], 3).round(2).tolist()
    [[0.0, 0.0], [1.1, 0.0], [2.2, 0.0]]
    """
    rows, shifts = _check(pairs, shifts_px, n_frames)
    return _path(_solve(design(rows, n_frames), shifts))


def robust(pairs: npt.ArrayLike, shifts_px: npt.ArrayLike, n_frames: int, *, floor_px: float = 0.05) -> FloatArray:
    """The same, with wrong pairs found and left out.

    It starts from the least sum of absolute errors (weights 1 / |residual| in turn), whose solution a tenth of wildly
    wrong pairs does not move, then weighs every pair by Tukey's biweight of its distance from the fit in units of a
    robust standard deviation, until nothing changes.

    Parameters
    ----------
    pairs, shifts_px, n_frames
        As in :func:`least_squares`.
    floor_px : float
        Residuals below this are as good as none.

    Returns
    -------
    (n_frames, 2) float64
        The first frame at 0.

    Examples
    --------
    >>> from verglas.motion.pair_shifts import robust
    >>> pairs = [[0, 1], [1, 2], [2, 3], [0, 2], [1, 3], [0, 3]]
    >>> robust(pairs, [[1, 0], [1, 0], [1, 0], [2, 0], [40, 7], [3, 0]], 4)[:, 0].round(2).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    rows, shifts = _check(pairs, shifts_px, n_frames)
    a = design(rows, n_frames)
    steps = _solve(a, shifts)
    for _ in range(50):
        residual = np.hypot(*(shifts - a @ steps).T)
        root = 1 / np.sqrt(np.maximum(residual, floor_px))[:, None]
        steps, before = np.linalg.lstsq(root * a, root * shifts, rcond=None)[0], steps
        if np.abs(steps - before).max() < 1e-4:
            break
    for _ in range(50):
        residual = np.hypot(*(shifts - a @ steps).T)
        scale = max(np.median(residual) / 1.1774, floor_px)  # median of a Rayleigh variable of unit sigma
        weight = np.clip(1 - (residual / (TUKEY * scale)) ** 2, 0, None)[:, None]  # the root of the biweight
        if np.linalg.matrix_rank(weight * a) < a.shape[1]:
            break  # too few are left to connect the frames: keep the fit of absolute errors
        steps, before = np.linalg.lstsq(weight * a, weight * shifts, rcond=None)[0], steps
        if np.abs(steps - before).max() < 1e-4:
            break
    return _path(steps)


def all_pairs(n_frames: int) -> IntArray:
    """Every i < j: (n (n - 1) / 2, 2)."""
    return np.array(list(itertools.combinations(range(n_frames), 2)), np.int64).reshape(-1, 2)
