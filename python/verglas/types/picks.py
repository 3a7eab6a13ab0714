"""Particle positions found in one micrograph."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError


@dataclass(frozen=True)
class Picks:
    """Centres of particles in one micrograph, best first.

    Attributes
    ----------
    xy_px : (n, 2) float64
        Positions x, y in pixels of the unbinned micrograph; the first pixel is (0, 0).
    score : (n,) float64
        Figure of merit, larger is better; its scale is the picker's.
    name : str
        What rlnMicrographName calls the micrograph.
    shape : (int, int)
        Its (y, x); (0, 0) where unknown.
    diameter_A : float
        Diameter the picker looked for; NaN where unknown.
    pixel_size_A : float
        Of the micrograph; NaN where unknown.
    threshold : float
        Least score that was kept; NaN where there was none.

    Raises
    ------
    InputError
        Positions of another shape, as many scores as there are not positions, or a number that is not finite.

    Examples
    --------
    >>> from verglas.types import Picks
    >>> p = Picks([[10, 20], [30, 40.5]], [0.9, 0.5])
    >>> len(p), p.take([1]).xy_px.tolist()
    (2, [[30.0, 40.5]])
    """

    xy_px: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    name: str = ""
    shape: tuple[int, int] = (0, 0)
    diameter_A: float = float("nan")
    pixel_size_A: float = float("nan")
    threshold: float = float("nan")

    def __post_init__(self) -> None:
        """Check once, here."""
        xy = np.ascontiguousarray(np.asarray(self.xy_px, np.float64).reshape(-1, 2))
        score = np.ascontiguousarray(np.asarray(self.score, np.float64).ravel())
        if len(xy) != len(score):
            raise InputError(f"Picks {self.name}: {len(xy)} positions but {len(score)} scores")
        bad = np.flatnonzero(~(np.isfinite(xy).all(axis=1) & np.isfinite(score)))
        if bad.size:
            raise InputError(f"Picks {self.name}: position or score {bad[0]} (from 0) is not finite")
        object.__setattr__(self, "xy_px", xy)
        object.__setattr__(self, "score", score)

    def __len__(self) -> int:
        return len(self.xy_px)

    def take(self, rows: npt.ArrayLike) -> Picks:
        """The picks of a mask or of row numbers, in that order."""
        index = np.asarray(rows)
        index = index if index.dtype == bool else index.astype(np.int64)
        return replace(self, xy_px=self.xy_px[index], score=self.score[index])

    def inside(self, margin_px: float, shape: tuple[int, int] | None = None) -> Picks:
        """Those at least ``margin_px`` from every edge: margin <= x <= width - 1 - margin, and so for y."""
        height, width = self.shape if shape is None else shape
        x, y = self.xy_px.T
        good = (x >= margin_px) & (x <= width - 1 - margin_px) & (y >= margin_px) & (y <= height - 1 - margin_px)
        return self.take(good)
