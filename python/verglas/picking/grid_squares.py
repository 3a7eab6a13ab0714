r"""Whether a grid square is worth recording, from one image of it at low magnification.

Descriptors of the histogram, of the lattice of holes (its period is found in the autocorrelation, so that the
magnification does not matter), of how alike the holes are, and of dark and bright pieces; on them the multinomial
logistic regression of :mod:`verglas.picking.screening`, trained on simulated squares (``tools/train_screening.py``).
Whether holes are dry is not judged: without the level of vacuum in the image, thin ice and none look alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas.errors import InputError
from verglas.image import fourier_resample
from verglas.picking.screening import Screening, ScreeningModel, shipped_model
from verglas.types import Micrograph
from verglas.types.arrays import BoolArray, FloatArray, any_arrays

_LEAST, _SIDE = 128, 256  # fewest pixels, and those that are looked at
_PERIODS_PX = (7, 60)  # of the holes, on the image of 256 pixels
_TILES = 4


def square_descriptors(image: Micrograph | npt.NDArray[np.floating[Any]]) -> dict[str, float]:
    """Descriptors of an image of a grid square, by name; every one a ratio or a logarithm of one.

    Raises
    ------
    InputError
        Fewer than 128 pixels across, values that are not finite, or a constant image.
    """
    name = getattr(image, "name", "") or "image of a square"
    data = np.asarray(image.data if isinstance(image, Micrograph) else image, np.float32)
    if data.ndim != 2 or min(data.shape) < _LEAST:
        raise InputError(f"{name}: expected at least {_LEAST} x {_LEAST} pixels, got {data.shape[1]} x {data.shape[0]}")
    if not np.isfinite(data).all() or not data.std() > 0:
        raise InputError(f"{name}: constant, or values that are not finite; there is nothing to screen")
    factor = _SIDE / min(data.shape)
    small = data if factor >= 1 else fourier_resample(data, tuple(round(side * factor) for side in data.shape))
    # Vacuum is the brightest that there is: what little comes through is told against it.
    seen = np.clip(np.asarray(small, np.float64) / max(float(np.percentile(small, 99.5)), 1e-9), 0, 1.5)
    open_ = _window(seen)
    return _grey(seen, open_) | _lattice(seen, open_) | _pieces(seen, open_)


def _window(seen: FloatArray) -> BoolArray:
    """Where the grid's bars are not: bars are the darkest and lie about the rest."""
    dark = ndimage.gaussian_filter(seen, 1.0) < 0.15
    pieces, count = ndimage.label(dark)
    border = np.zeros_like(dark)
    border[[0, -1], :] = border[:, [0, -1]] = True
    bars = np.isin(pieces, np.setdiff1d(np.unique(pieces[border & dark]), [0])) if count else dark
    # A square so thick that all of it is as dark as its bars has no others to be told from.
    return ~bars if bars.mean() < 0.7 else np.ones_like(dark)


def _grey(seen: FloatArray, open_: BoolArray) -> dict[str, float]:
    """Levels inside the window, their spread, and how they change from tile to tile."""
    values = seen[open_]
    low, quarter, middle, three, high = np.percentile(values, (5, 25, 50, 75, 95))
    smooth = ndimage.gaussian_filter(np.where(open_, seen, middle), len(seen) / 16)
    tiles = [p for row in np.array_split(seen, _TILES) for p in np.array_split(row, _TILES, axis=1)]
    of_open = [p for row in np.array_split(open_, _TILES) for p in np.array_split(row, _TILES, axis=1)]
    inside = [(float(t[o].mean()), float(t[o].std())) for t, o in zip(tiles, of_open, strict=True) if o.mean() > 0.5]
    means, deviations = np.array(inside or [(middle, 0.0)]).T
    return {
        "open": float(open_.mean()),
        "level 5": float(low),
        "level 25": float(quarter),
        "level 50": float(middle),
        "level 75": float(three),
        "level 95": float(high),
        "spread of tiles": float(np.log(means.std() / max(middle, 1e-3) + 1e-3)),
        "farthest tile": float(np.ptp(means) / max(middle, 1e-3)),
        "deviations of tiles": float(np.log(deviations.std() / max(float(deviations.mean()), 1e-6) + 1e-3)),
        "coarse spread": float(np.log(smooth[open_].std() / max(middle, 1e-3) + 1e-3)),
        "very bright": float((values > 0.9).mean()),
        "very dark": float((values < 0.2).mean()),
    }


def _lattice(seen: FloatArray, open_: BoolArray) -> dict[str, float]:
    """How strongly the image repeats itself, and how unlike the holes are to one another."""
    flat = np.where(open_, seen, seen[open_].mean())
    flat = flat - ndimage.gaussian_filter(flat, _PERIODS_PX[1] / 2)
    power = np.abs(np.fft.rfft2(flat * open_)) ** 2
    correlation = np.fft.irfft2(power, flat.shape)
    correlation /= max(float(correlation[0, 0]), 1e-30)
    y, x = (np.fft.fftfreq(side) * side for side in flat.shape)
    far = np.hypot(y[:, None], x[None])
    ring = (far >= _PERIODS_PX[0]) & (far <= _PERIODS_PX[1])
    peaks = ring & (correlation == ndimage.maximum_filter(correlation, 5, mode="wrap"))
    heights = np.sort(correlation[peaks])[::-1]
    best = float(heights[0]) if len(heights) else 0.0
    period = float(far[peaks][np.argmax(correlation[peaks])]) if len(heights) else float(_PERIODS_PX[1])
    return {
        "repeats": best,
        "repeats again": float(heights[:8].mean()) if len(heights) else 0.0,
        "least of ring": float(correlation[ring].min()),
        **_holes(seen, open_, period),
    }


def _holes(seen: FloatArray, open_: BoolArray, period: float) -> dict[str, float]:
    """Contrast of what repeats, place by place: brightest against darkest within a period."""
    size = max(3, round(1.2 * period))
    smooth = ndimage.gaussian_filter(seen, max(0.5, period / 12))
    top, bottom = ndimage.maximum_filter(smooth, size), ndimage.minimum_filter(smooth, size)
    deep = ndimage.binary_erosion(open_, iterations=max(1, size // 2)) if not open_.all() else open_
    here = deep if deep.any() else open_
    # Holes alone, each as it was recorded: flat where they are dry, uneven within and from one to the next with ice.
    level = 0.5 * (top + bottom)
    hole = here & (smooth > level)
    core = hole & (ndimage.uniform_filter((smooth > level).astype(np.float32), max(3, round(period / 4))) > 0.95)
    inner = seen[core if core.any() else hole] if hole.any() else seen[here]
    flat = ndimage.gaussian_filter(seen, max(0.5, period / 6))[core if core.any() else here]
    contrast = (top - bottom)[here] / np.maximum((top + bottom)[here], 0.02)
    return {
        "grain of holes": float(np.log(inner.std() / max(float(inner.mean()), 1e-3) + 1e-3)),
        "unlike holes": float(np.log(flat.std() / max(float(flat.mean()), 1e-3) + 1e-3)),
        "rims of holes": _rim(smooth, hole, here),
        "contrast of holes": float(np.median(contrast)),
        "weak contrast": float(np.percentile(contrast, 10)),
        "spread of contrast": float(contrast.std()),
        "brightness of holes": float(np.median(top[here])),
        "spread of holes": float(top[here].std()),
        "dimmest holes": float(np.percentile(top[here], 5)),
        "brightest holes": float(np.percentile(top[here], 95)),
        "spread of foil": float(bottom[here].std()),
        "darkest foil": float(np.percentile(bottom[here], 5)),
    }


def _rim(smooth: FloatArray, hole: BoolArray, here: BoolArray) -> float:
    """How much brighter the middles of holes are than what lies two pixels about them, over their brightness."""
    distance = ndimage.distance_transform_edt(hole)
    middle, rim = hole & (distance > 3) & here, hole & (distance > 1) & (distance <= 3) & here
    if not middle.any() or not rim.any():
        return 0.0
    return float((smooth[middle].mean() - smooth[rim].mean()) / max(float(smooth[middle].mean()), 1e-3))


def _pieces(seen: FloatArray, open_: BoolArray) -> dict[str, float]:
    """Largest bright piece (foil that has gone), and what is darker than the foil about it."""
    smooth = ndimage.gaussian_filter(seen, 1.5)
    pieces, count = ndimage.label((smooth > 0.85) & open_)
    largest = float(np.bincount(pieces.ravel())[1:].max()) if count else 0.0
    foil = float(np.percentile(smooth[open_], 25))
    dark = (smooth < 0.6 * foil) & open_
    _, blobs = ndimage.label(dark)
    return {
        "largest bright piece": float(np.log(largest / open_.sum() + 1e-3)),
        "dark pieces": float(np.log1p(blobs)),
        "dark area": float(dark.sum() / open_.sum()),
    }


@any_arrays
def screen_square(image: Micrograph | npt.NDArray[np.floating[Any]], model: ScreeningModel | None = None) -> Screening:
    """Judge a grid square from an image of it at low magnification.

    Parameters
    ----------
    image : Micrograph or (y, x) array
        With at least three periods of the holes; its pixel size is not needed.
    model : ScreeningModel, optional
        The shipped one by default.

    Returns
    -------
    Screening

    Raises
    ------
    InputError
        An image that cannot be judged.

    Examples
    --------
    >>> import verglas as vg
    >>> vg.picking.screen_square(vg.simulate.grid_square("thick", seed=5)).kind
    'thick'
    """
    return (model or shipped_model("square")).judge(square_descriptors(image))
