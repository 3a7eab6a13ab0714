"""Grid squares at low magnification, good and spoilt, for what judges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas.errors import InputError
from verglas.types.arrays import Float32Array, FloatArray

SQUARE_KINDS = ("good", "thick", "broken", "contaminated", "uneven")
_FOIL = 0.62  # transmission of the foil without ice
_VACUUM = 1.0


@dataclass
class _Square:
    """What lies where: all arrays (y, x), lengths in pixels."""

    size: int
    rng: np.random.Generator
    period: float = 0.0
    hole: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    ice: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))  # optical depth
    gone: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))

    def __post_init__(self) -> None:
        """A lattice of holes, and ice that is nearly the same everywhere."""
        rng, shape = self.rng, (self.size, self.size)
        self.period = self.size / rng.uniform(8, 22)
        y, x = np.indices(shape)
        turn = rng.uniform(0, np.pi / 2)
        u = (x * np.cos(turn) + y * np.sin(turn)) / self.period + rng.uniform()
        v = (-x * np.sin(turn) + y * np.cos(turn)) / self.period + rng.uniform()
        radius = rng.uniform(0.2, 0.4)
        away = np.hypot((u + 0.5) % 1 - 0.5, (v + 0.5) % 1 - 0.5)
        self.hole = away < radius
        # Ice stands up at a hole's rim, and no two holes hold quite as much.
        cells = np.floor(u + 0.5).astype(np.int64) % 97 + 97 * (np.floor(v + 0.5).astype(np.int64) % 97)
        own = 1 + rng.uniform(0.05, 0.2) * rng.standard_normal(97 * 97)[cells]
        meniscus = 1 + rng.uniform(0.2, 0.8) * np.where(self.hole, (away / radius) ** 2 - 0.5, 0)
        self.ice = rng.uniform(0.1, 0.4) * own * meniscus * (1 + 0.12 * self.smooth(5))
        self.gone = np.zeros(shape, bool)

    def smooth(self, parts: float) -> FloatArray:
        """Noise of deviation 1 whose features are so many in the image."""
        side = 64  # smooth noise needs no more
        rough = ndimage.gaussian_filter(self.rng.standard_normal((side, side)), side / parts / 2)
        fine = ndimage.zoom(rough, self.size / side, order=1, mode="reflect", grid_mode=True)
        return np.asarray((fine - fine.mean()) / fine.std())

    def image(self) -> FloatArray:
        """Transmission, bars of the grid about it, blur and counting noise."""
        rng = self.rng
        foil = np.where(self.hole, _VACUUM, _FOIL * rng.uniform(0.85, 1.1))
        seen = np.where(self.gone, _VACUUM, foil * np.exp(-np.maximum(self.ice, 0)))
        seen *= self._window()
        seen = ndimage.gaussian_filter(seen, rng.uniform(0.5, 1.2) * self.size / 512)
        seen *= 1 + rng.uniform(0, 0.06) * self.smooth(2)  # illumination
        counts = rng.uniform(60, 600)
        return np.asarray(rng.poisson(np.maximum(seen, 0.001) * counts) * rng.uniform(0.5, 20))

    def _window(self) -> FloatArray:
        """The opening between the bars; in a part of the images their edges are seen."""
        if self.rng.random() < 0.4:
            return np.ones((self.size, self.size))
        y, x = np.indices((self.size, self.size)) / self.size - 0.5
        turn, half = self.rng.uniform(-0.2, 0.2), self.rng.uniform(0.38, 0.5)
        far = np.maximum(abs(x * np.cos(turn) + y * np.sin(turn)), abs(y * np.cos(turn) - x * np.sin(turn)))
        return np.where(far < half, 1.0, 0.03)


def _thick(square: _Square) -> None:
    """Ice that little comes through, over most of it or all."""
    square.ice = square.rng.uniform(1.2, 3.0) * (1 + 0.25 * square.smooth(square.rng.uniform(2, 5)))


def _draw_broken(square: _Square) -> None:
    """Part of the foil has gone, with a dark rolled edge."""
    depth = square.smooth(square.rng.uniform(2, 5))
    square.gone = depth > np.quantile(depth, 1 - square.rng.uniform(0.15, 0.7))
    rim = ndimage.distance_transform_edt(~square.gone) < square.rng.uniform(0.1, 0.5) * square.period
    square.ice = square.ice + square.rng.uniform(0.3, 1.5) * (rim & ~square.gone)


def _draw_contaminated(square: _Square) -> None:
    """Crystals of ice of all sizes over much of it."""
    rng, size = square.rng, square.size
    y, x = np.indices((size, size))
    covered = 0.0
    wanted = rng.uniform(0.12, 0.5)
    while covered < wanted:
        radius = float(np.exp(rng.uniform(np.log(0.1), np.log(0.9)))) * square.period
        cx, cy = rng.uniform(0, size, 2)
        low_y, high_y = max(0, int(cy - radius)), int(cy + radius) + 2
        low_x, high_x = max(0, int(cx - radius)), int(cx + radius) + 2
        part = np.s_[low_y:high_y, low_x:high_x]
        inside = np.hypot(y[part] - cy, x[part] - cx) < radius
        square.ice[part] += rng.uniform(0.8, 2.5) * inside
        covered += float(inside.sum()) / size**2


def _uneven(square: _Square) -> None:
    """From dry to opaque within the square."""
    turn, y_x = square.rng.uniform(0, 2 * np.pi), np.indices((square.size,) * 2) / square.size - 0.5
    along = y_x[1] * np.cos(turn) + y_x[0] * np.sin(turn) + 0.12 * square.smooth(4)
    square.ice = np.clip(square.rng.uniform(0.5, 0.9) + square.rng.uniform(2.0, 4.0) * along, 0, None)


_SPOILT: Mapping[str, Callable[[_Square], None]] = {
    "good": lambda square: None,
    "thick": _thick,
    "broken": _draw_broken,
    "contaminated": _draw_contaminated,
    "uneven": _uneven,
}


def grid_square(kind: str, *, seed: int = 0, size: int = 384) -> Float32Array:
    """An image of a grid square at low magnification: foil with a lattice of holes, ice, bars of the grid.

    Parameters
    ----------
    kind : str
        "good"; "thick" (ice that little comes through), "broken" (part of the foil gone), "contaminated" (crystals),
        "uneven" (from dry to opaque).
    seed : int
        Of the lattice, the ice, the illumination, the dose and how it is spoilt.
    size : int
        Pixels a side.

    Returns
    -------
    (size, size) float32
        Counts. 8 to 22 periods of the holes go across it.

    Raises
    ------
    InputError
        An unknown kind.

    Examples
    --------
    >>> from verglas import simulate
    >>> simulate.grid_square("thick", seed=1, size=256).shape
    (256, 256)
    """
    if kind not in _SPOILT:
        raise InputError(f"simulate.grid_square: expected one of {', '.join(SQUARE_KINDS)}, got {kind!r}")
    square = _Square(size, np.random.default_rng([seed, SQUARE_KINDS.index(kind)]))
    _SPOILT[kind](square)
    return square.image().astype(np.float32)
