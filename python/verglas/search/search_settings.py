"""What a search by branch and bound may lose and cost, and where it looks."""

from __future__ import annotations

from dataclasses import dataclass

from verglas import ops
from verglas.errors import InputError
from verglas.search.cells import Level
from verglas.search.grid_search import shift_disc
from verglas.types.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class SearchSettings:
    """What a search may lose and what it may cost.

    Attributes
    ----------
    epsilon : float
        Posterior mass: no pose that holds more than this at the final resolution may be lost.
    kappa : float
        Standard deviations of noise that the bounds allow for; 4 holds with probability 0.99997.
    shift_range_px : float
        Shifts up to this far from the centre.
    shift_sigma_px : float, optional
        Width of a Gaussian prior of the shifts; none by default.
    beam : int
        Cells per image that the first, greedy descent follows; it supplies the score to beat.
    max_cells : int
        An image of which more cells than this survive a level has a posterior too broad to refine: its result is that
        level's.
    keep_best : bool
        Instead, such an image goes on with its ``max_cells`` best cells: a best pose at the final resolution, without
        the promise of ``epsilon``, and a posterior over what was followed.
    n_power : int
        Even harmonics of the power term (5 serve astigmatism of a few hundred angstrom).
    spacing : float
        Ring spacing.
    slice_memory_MB : float
        Slices made at a time.
    batch : int
        Images taken at a time.
    """

    epsilon: float = 1e-3
    kappa: float = 4.0
    shift_range_px: float = 5.0
    shift_sigma_px: float | None = None
    beam: int = 4
    max_cells: int = 4000
    keep_best: bool = False
    n_power: int = 5
    spacing: float = 1.0
    slice_memory_MB: float = 512.0
    batch: int = 64

    def __post_init__(self) -> None:
        """Say at once what cannot be."""
        checks = {
            "epsilon": 0 < self.epsilon < 1,
            "kappa": self.kappa >= 0,
            "shift_range_px": self.shift_range_px >= 0,
            "shift_sigma_px": self.shift_sigma_px is None or self.shift_sigma_px > 0,
            "beam": self.beam >= 1,
            "max_cells": self.max_cells >= 1,
            "slice_memory_MB": self.slice_memory_MB > 0,
            "batch": self.batch >= 1,
        }
        for name, good in checks.items():
            if not good:
                raise InputError(f"SearchSettings.{name}: out of range, got {getattr(self, name)}")


@dataclass(frozen=True)
class LocalWindow:
    """Where to look: orientations within ``width_deg`` of the given ones, in direction and in psi, modulo symmetry.

    Attributes
    ----------
    angles_deg : (n, 3) float64
        rot, tilt, psi of each image.
    width_deg : float
        Half width.
    """

    angles_deg: FloatArray
    width_deg: float


def first_level_shifts(levels: list[Level], settings: SearchSettings) -> IntArray:
    """Shifts of the first level inside the range, in units of the finest lattice, (n, 2)."""
    return shift_disc(settings.shift_range_px / levels[0].shift_step_px) * 2 ** len(levels)


def slices_per_block(grid: ops.PolarGrid, settings: SearchSettings) -> int:
    """Slices that fit the memory given to them: samples, harmonics (and their copy), power."""
    each = 8 * (grid.n_rings * grid.n_theta // 2 + 2 * grid.size + grid.n_rings * settings.n_power)
    return max(16, int(settings.slice_memory_MB * 2**20 / each))
