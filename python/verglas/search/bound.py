"""How much a finer level can still add to a score: the bounds of branch and bound.

A cell is scored at its centre c with the rings up to R_l. Let phi be a pose of the finest grid inside the cell, tau the
true pose beside it, A_c cut at R_l, and V = A_phi - A_c what the score has not seen. With products weighted by
C^2 / sigma2, the final score of phi exceeds the one in hand by a Gaussian of mean and variance

    M = <A_tau, V> - (|A_phi|^2 - |A_c|^2) / 2,        Q = |V|^2,

so that L_final(phi) <= L_l(c) + M + kappa sqrt(Q) with the probability that kappa states (4: 0.99997). If tau = phi,
M is Q/2, and for the rings beyond R_l alone this is the bound of Punjani et al. (2017) Nat. Methods 14, 290-296; the
rings below add the discretisation. M and Q are tabulated for the map as spectra over rings, for random triples of a
cell, one of its finest descendants and a pose inside that; each image weighs them with its own C^2 / sigma2 and takes
the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas.geometry import euler_to_matrix, healpix_count
from verglas.search.cells import CHILDREN, Cells, Level, angles_deg, split
from verglas.types.arrays import FloatArray

# Levels below the last that stand for the continuum of poses inside its cells.
_BEYOND = 2
# Triples worked on at a time.
_CHUNK = 32


def lattice_quarter(levels: list[Level], k: int) -> int:
    """A quarter of level k's shift step in units of the finest lattice, 1 / 2^levels of the first step."""
    return 2 ** (len(levels) - 2 - k) if k < len(levels) - 1 else 0


def lattice_unit_px(levels: list[Level]) -> float:
    """Pixels per lattice unit."""
    return levels[0].shift_step_px / 2 ** len(levels)


@dataclass(frozen=True)
class Bounds:
    """Spectra over the rings of the last level, one row per triple, one pair of tables per level but the last.

    Attributes
    ----------
    mean, variance : list of (triples, rings)
        Means over each ring of M and Q.
    """

    mean: list[FloatArray]
    variance: list[FloatArray]

    def gains(self, weights: FloatArray, kappa: float) -> list[FloatArray]:
        """Most that each image's score may still rise at each level.

        ``weights`` (n, rings) is the sum over each ring of w C^2 / sigma2.
        """
        out = [
            np.max(weights @ m.T + kappa * np.sqrt(weights @ q.T), axis=1)
            for m, q in zip(self.mean, self.variance, strict=True)
        ]
        return [*(np.maximum(g, 0) for g in out), np.zeros(len(weights))]


def _extend_levels(levels: list[Level]) -> list[Level]:
    out = list(levels)
    for _ in range(_BEYOND):
        v = out[-1]
        out.append(Level(v.radius, v.order + 1, 2 * v.n_psi, v.shift_step_px / 2))
    return out


def _child(levels: list[Level], cells: Cells, start: int, end: int, rng: np.random.Generator) -> Cells:
    """One random descendant of each cell."""
    first = np.arange(len(cells)) * CHILDREN
    for k in range(start, end):
        children = split(cells, levels[k], lattice_quarter(levels, k))
        cells = children[first + rng.integers(0, CHILDREN, len(cells))]
    return cells


class _SliceMaker:
    """Polar samples of slices at cell centres, shifts included."""

    def __init__(
        self, spectrum: npt.NDArray, grid3: ops.Grid, grid: ops.PolarGrid, unit_px: float, threads: int | None
    ) -> None:
        self.spectrum, self.grid3, self.grid, self.unit_px, self.threads = spectrum, grid3, grid, unit_px, threads

    def __call__(self, level: Level, cells: Cells) -> npt.NDArray:
        grid = self.grid
        matrices = euler_to_matrix(angles_deg(level, cells.pixel, cells.psi))
        samples = ops.polar_slices(self.spectrum, self.grid3, matrices, grid, threads=self.threads)
        theta = 2 * np.pi * np.arange(grid.n_theta // 2) / grid.n_theta
        shift = cells.shift * self.unit_px
        along = shift[:, :1] * np.cos(theta) + shift[:, 1:] * np.sin(theta)
        phase = 2j * np.pi * grid.radii[None, :, None] * along[:, None] / grid.box
        return samples * np.exp(phase.astype(np.complex64))


def _spectra(
    make: _SliceMaker, levels: list[Level], k: int, n_observed: int, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """M and Q on each ring for n random triples; ``seen`` rings are scored at level k."""
    all_levels, last = _extend_levels(levels), len(levels) - 1
    level = levels[k]
    cells = Cells(
        np.arange(n),
        rng.integers(0, healpix_count(level.order), n),
        rng.integers(0, level.n_psi, n),
        np.zeros((n, 2), np.int64),
    )
    fine = _child(all_levels, cells, k, last, rng)
    true = _child(all_levels, fine, last, last + _BEYOND, rng)
    a, b = make(level, cells), make(levels[last], fine)
    c = make(all_levels[-1], true)
    a[:, n_observed:] = 0
    v = b - a
    mean = np.mean((c.conj() * v).real - (np.abs(b) ** 2 - np.abs(a) ** 2) / 2, axis=2)
    return mean, np.mean(np.abs(v) ** 2, axis=2)


def make_bounds(
    spectrum: npt.NDArray,
    grid3: ops.Grid,
    levels: list[Level],
    grids: list[ops.PolarGrid],
    *,
    triples: int = 256,
    threads: int | None = None,
) -> Bounds:
    """Tabulate the spectra for a map; the triples are the same in every run."""
    # The lattice of the extended levels is finer: shifts count in its units.
    make = _SliceMaker(spectrum, grid3, grids[-1], lattice_unit_px(_extend_levels(levels)), threads)
    mean, variance = [], []
    for k in range(len(levels) - 1):
        rng = np.random.default_rng(k)
        parts = [
            _spectra(make, levels, k, grids[k].n_rings, min(_CHUNK, triples - begin), rng)
            for begin in range(0, triples, _CHUNK)
        ]
        mean.append(np.concatenate([p[0] for p in parts]).astype(np.float64))
        variance.append(np.concatenate([p[1] for p in parts]).astype(np.float64))
    return Bounds(mean, variance)
