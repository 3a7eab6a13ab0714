"""Particles of one half set, and what a map made from the other explains of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verglas import fourier
from verglas.geometry import healpix_spacing_deg
from verglas.initial_model.batch_step import EVIDENCE_ALONE, BatchStep
from verglas.refinement import schedule
from verglas.refinement.problem import RefineProblem
from verglas.refinement.state import State
from verglas.search.grid_step import Tick, ignore_count
from verglas.search.pose_step import coarse_radius
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types.arrays import Float32Array, FloatArray, IntArray

MOST = 300  # held-out particles of each half
_FEWEST = 20  # within reach of the search, or all are taken
_BEYOND = 4  # shells beyond the joined ones that are scored whatever the resolution
_ORDER = 3  # 7.3 degrees: what a grid of this spacing resolves tells structure from noise
ROUND = "I"  # what a round map has, too: the group with the smallest asymmetric unit
_SILENT = 1e12  # times the noise: shells that do not count


@dataclass(frozen=True)
class HeldOut:
    """Some particles of a half set, scored against maps that were made without them.

    All poses of a grid are summed over, from the particles' centres as they came. Shells at which the halves were
    joined do not count: there each half's map has seen the other's particles. Noise has the power of whole images,
    which only lowers a gain.

    Attributes
    ----------
    problem : RefineProblem
        On the host.
    model : HalfModel
        Of the half that the maps come from, with that noise.
    step : Step
    rows : (n,) int64
        Particles of the other half.
    """

    problem: RefineProblem
    model: HalfModel
    step: Step
    rows: IntArray

    @classmethod
    def of(cls, problem: RefineProblem, state: State, half: int) -> HeldOut:
        """For maps of a half set, 1 or 2."""
        first_shell = max(1, int(np.ceil(problem.shell_of(problem.settings.join_resolution_A))))
        serves = coarse_radius(problem, healpix_spacing_deg(_ORDER))
        last = min(problem.last_radius, max(first_shell + _BEYOND, min(int(state.resolution_shell), serves)))
        step = schedule.make_step(problem, "grid", last, _ORDER, problem.settings.shift_range_A / problem.pixel_size_A)
        alone = replace(problem, devices=("cpu",), batch=0)
        alone = replace(alone, batch=min(alone.batch, problem.batch))  # not more than the memory plan allows
        rows = _judged_rows(problem, state, 3 - half, step.shift_range_px)
        sigma2 = _power(alone, rows)
        sigma2[:, : first_shell + 1] *= _SILENT
        return cls(alone, replace(state.halves[half - 1], sigma2=sigma2), step, rows)

    def evidence(self, volumes: Float32Array, tick: Tick = ignore_count, *, round_maps: bool = False) -> FloatArray:
        """(n,) log evidence of each particle under maps, (classes, N, N, N), over that of no density; nats.

        ``round_maps`` says that the maps look the same from everywhere: a sixtieth of the directions stands for all.
        """
        grid_radius = min((self.problem.box - 1) // 2, self.step.insert_radius)
        problem = self.problem.under(ROUND) if round_maps else self.problem
        step = BatchStep(problem, replace(self.model, volumes=volumes), self.step, grid_radius, EVIDENCE_ALONE)
        return step.evaluate(self.rows, PoseTable.unknown(len(self.problem)), tick)


def _judged_rows(problem: RefineProblem, state: State, half: int, reach_px: float) -> IntArray:
    """Particles of a half set, spread over it: its beginning may be a single square of the grid."""
    rows = problem.rows_of_half(half)
    if problem.settings.poses == "local":
        # Given poses may lie where no search from the centre looks: the map would seem not to explain these particles.
        near = rows[np.hypot(*state.poses.origin_px[rows].T) <= reach_px]
        rows = near if len(near) >= _FEWEST else rows
    return rows[:: max(1, len(rows) // MOST)][:MOST]


def _power(problem: RefineProblem, rows: IntArray) -> FloatArray:
    """Mean power of these particles' images, (groups, shells); of all of them for a group with few."""
    shells = (problem.box - 1) // 2 + 1
    total, number = np.zeros((problem.n_groups, shells)), np.zeros(problem.n_groups)
    flat = fourier.shells((problem.box,) * 2).ravel()
    weight = np.broadcast_to(fourier.half_weights((problem.box,) * 2), (problem.box, problem.box // 2 + 1)).ravel()
    count = np.bincount(flat, weight)[:shells]
    for begin in range(0, len(rows), 64):
        some = rows[begin : begin + 64]
        spectra = np.abs(fourier.forward(problem.particles.images(some), 2)) ** 2
        for row, spectrum in zip(some, spectra, strict=True):
            total[problem.group[row]] += np.bincount(flat, spectrum.ravel() * weight)[:shells] / count
            number[problem.group[row]] += 1
    mean = total.sum(axis=0) / number.sum()
    power = np.where(number[:, None] >= 10, total / np.maximum(number, 1)[:, None], mean)
    # Shell 0 is the mean, which normalisation takes away: a noise of nothing would make it certain.
    power[:, 0] = power[:, 1]
    return np.maximum(power, 1e-12 * power.max())
