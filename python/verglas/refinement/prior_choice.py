"""Which prior of maps explains held-out particles better: the maps of each half, by the particles of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from verglas import fourier, ops
from verglas._array_module import to_host
from verglas._devices import to_device
from verglas.geometry import euler_to_matrix
from verglas.refinement.problem import RefineProblem
from verglas.search.grid_step import spectra_of
from verglas.search.problem import image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.types.arrays import Float32Array, FloatArray, IntArray

PLAIN = "global"  # what another prior has to beat
MOST_HELD_OUT = 500  # particles of each half
LEAST_HELD_OUT = 20  # of both
SIGMAS = 2.0  # standard errors by which another prior must be better


@dataclass(frozen=True)
class Choice:
    """The prior in use, and what it gains.

    Attributes
    ----------
    name : str
    gain, error : float
        Log-likelihood of held-out particles over that under the global prior, nats per particle, and its standard
        error: of the best other prior, whether it was chosen or not; NaN where nothing was compared.
    """

    name: str
    gain: float = float("nan")
    error: float = float("nan")


def held_out_rows(problem: RefineProblem, poses: PoseTable, half: int, class_number: int = 0) -> IntArray:
    """Particles of a half and a class that are asked, 500 at most."""
    rows = problem.rows_of_half(half)
    rows = rows[poses.class_number[rows] == class_number]
    # Spread over the half: its beginning may be a single square of the grid.
    return rows[:: max(1, len(rows) // MOST_HELD_OUT)][:MOST_HELD_OUT]


def joined_shell(problem: RefineProblem) -> int:
    """Last shell at which both halves have one map: it holds the particles that are asked."""
    return int(np.ceil(problem.shell_of(problem.settings.join_resolution_A)))


@dataclass(frozen=True)
class HeldOutPoses:
    """Particles of both halves at their poses, to be explained by maps of the half that they are not in.

    A particle's pose was found against its own half's map, and it is in no sum of the other's: what a map explains of
    it is evidence for the map, not for the pose. Shells at which the halves were joined do not count.

    Attributes
    ----------
    problem : RefineProblem
    models : list of HalfModel
        Of both halves; a particle has its own half's noise and scales.
    poses : PoseTable
    mask : (N, N, N) float32
        Of the maps, as in the search.
    radius : int
        Last shell scored.
    """

    problem: RefineProblem
    models: list[HalfModel]
    poses: PoseTable
    mask: Float32Array
    radius: int

    def choose(self, made: Mapping[str, Float32Array], class_number: int = 0) -> Choice:
        """The prior whose half maps, (2, N, N, N) each, explain most; the global one unless another is surely better.

        Parameters
        ----------
        made : mapping
            Name of a prior -> half maps; the global one is among them.
        class_number : int
            Only its particles are asked.
        """
        scores = {name: self.scores(halves, class_number) for name, halves in made.items()}
        if len(scores) < 2 or len(scores[PLAIN]) < LEAST_HELD_OUT:
            return Choice(PLAIN)
        choices = []
        for name in scores:
            if name != PLAIN:
                more = scores[name] - scores[PLAIN]
                choices.append(Choice(name, float(more.mean()), float(more.std(ddof=1) / np.sqrt(len(more)))))
        best = max(choices, key=lambda choice: choice.gain)
        return best if best.gain > SIGMAS * best.error else replace(best, name=PLAIN)

    def scores(self, halves: Float32Array, class_number: int = 0) -> FloatArray:
        """Log-likelihood of each particle under the map of the half that it is not in, over that of no map; nats."""
        rows = [held_out_rows(self.problem, self.poses, half, class_number) for half in (1, 2)]
        return np.concatenate([self._score(half, halves[2 - half], rows[half - 1]) for half in (1, 2)])

    def _score(self, half: int, volume: Float32Array, rows: IntArray) -> FloatArray:
        """Particles of a half under a map of the other."""
        problem, model = self.problem, self.models[half - 1]
        if not len(rows):
            return np.empty(0)
        (spectrum,), grid = spectra_of(problem, replace(model, volumes=volume[None]), self.mask, self.radius)
        joined = joined_shell(problem)
        scores = []
        for batch in image_batches(problem, rows, model, self.poses):
            weight = batch.inv_sigma2[:, : self.radius + 1].astype(np.float32)
            weight[:, : joined + 1] = 0
            mask = problem.neighbour_mask
            images = batch.images if mask is None else batch.apply_mask(mask)
            result = ops.refine_pose(
                fourier.forward(images, 2, threads=problem.threads),
                spectrum,
                grid,
                euler_to_matrix(self.poses.angles_deg[batch.rows]),
                -batch.origin_px,
                ctf=batch.ctf(**problem.where.of_ops),
                shell_weight=to_device(weight, problem.device),
                search=ops.PoseSettings(max_radius=self.radius, steps=0),
                **problem.where.of_ops,
            )
            scores.append(to_host(result.scores))
        return np.concatenate(scores).astype(np.float64)
