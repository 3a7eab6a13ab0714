"""What one pass of a search looks at: resolution, directions, angles, shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from verglas.geometry import healpix_spacing_deg
from verglas.search.grid_search import PoseGrid, log_shift_prior, shift_disc
from verglas.types.arrays import FloatArray


def step_radius(box: int, diameter_px: float, step_deg: float) -> int:
    """Last shell that a grid of directions serves: half a step moves the particle's edge 3/8 of a period.

    Examples
    --------
    >>> from verglas.search.step import step_radius
    >>> step_radius(128, 90.0, 7.5)
    16
    """
    return max(4, round(1.5 * box / (diameter_px * np.deg2rad(step_deg))))


@dataclass(frozen=True)
class Step:
    """What one iteration does.

    Attributes
    ----------
    phase : {"grid", "global", "local"}
        Posterior over a whole grid of poses; the best of them refined continuously; or continuous refinement of the
        poses of the iteration before.
    radius : int
        Last shell scored.
    insert_radius : int
        Last shell of the maps that are made: beyond ``radius``, or the FSC could never grow.
    order : int
        HEALPix order of the directions searched.
    n_psi : int
        In-plane angles searched.
    shift_step_px, shift_range_px : float
        Grid of shifts around those of the iteration before.
    final : bool
        Whether this is the last pass, whatever the poses do.
    split : bool
        Whether all classes still have the same reference: it is searched alone, and every particle goes to the class
        drawn for it.
    candidates : int
        Distinct orientations of each particle that a global search hands on.
    particles : int
        Of each half set; 0 for all.
    """

    phase: Literal["grid", "global", "local"]
    radius: int
    insert_radius: int
    order: int
    n_psi: int
    shift_step_px: float
    shift_range_px: float
    final: bool = False
    split: bool = False
    candidates: int = 6
    particles: int = 0

    @property
    def step_deg(self) -> float:
        """Spacing of the directions."""
        return healpix_spacing_deg(self.order)

    def shifts_px(self) -> npt.NDArray[np.float32]:
        """(n, 2) float32, the shifts searched."""
        disc = shift_disc(max(self.shift_range_px / self.shift_step_px, 0.5))
        return (disc * self.shift_step_px).astype(np.float32)

    def log_shift(self) -> FloatArray:
        """(n,) float64, Gaussian prior of the shifts searched, half of the range wide, summing to one."""
        return log_shift_prior(self.shifts_px(), max(self.shift_range_px / 2, 1.0))

    def poses(self, *, shift_prior: bool = True) -> PoseGrid:
        """In-plane angles and shifts; without the prior all shifts count alike."""
        return PoseGrid(self.n_psi, self.shifts_px(), self.log_shift() if shift_prior else None)
