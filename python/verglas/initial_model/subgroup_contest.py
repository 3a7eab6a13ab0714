r"""Whether particles have the point group they were refined under: its map against maps of its subgroups.

The group takes the poses A g for one. Under a subgroup H they are as many alternatives as H has cosets g H, and each
particle is to be told which is its own: the maps begin with a random choice (a map that has the group is a fixed point)
and learn, one half set, in a few passes of expectation-maximisation with continuous poses,

.. math:: p(X | V_H) = \frac{|H|}{|G|} \sum_{gH} \int p(X | V_H, A g)\, dA

(each peak by Laplace's approximation, as in the refinement). Particles of the other half set decide. If the group is
there, its map has the less noise and explains them best; if it is not, a subgroup's map comes to show what the group's
averages away. The poses are continuous because a grid of them would favour a map without symmetry whatever the truth:
its copies can each be a little turned, which makes the grid finer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verglas import ops
from verglas.assessment import fsc, ssnr_from_fsc
from verglas.geometry import euler_to_matrix, matrix_to_euler, symmetry_matrices
from verglas.initial_model.contest import Contest, best_group, exceeds, standard_error
from verglas.initial_model.subgroups import Subgroup, maximal_subgroups
from verglas.reconstruction.sums import Symmetry, finish, solve
from verglas.search.candidates import Candidates
from verglas.search.grid_step import Tick
from verglas.search.image_batch import ImageBatch
from verglas.search.pose_step import PoseStep
from verglas.search.problem import Problem
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Progress, count_phase

_PASSES = 5
_PASSES_OF_WHOLE = 1  # nothing is to be told apart
_SIGMAS = 2.5  # by which a subgroup's evidence must exceed the group's, in standard errors of the difference
_FSC_LEAST, _FSC_MOST = 1e-3, 0.99


class _CosetStep(PoseStep):
    """Poses near those given, and near their copies under the cosets of a subgroup."""

    def __init__(self, problem: Problem, model: HalfModel, step: Step, subgroup: Subgroup, cosets: FloatArray) -> None:
        super().__init__(problem, model, problem.sphere, step)
        self.cosets, self.group, self.operators = cosets, subgroup.matrices, Symmetry.of(subgroup.matrices)
        self.most_kept = max(self.most_kept, len(cosets))

    def _previous(self, batch: ImageBatch, poses: PoseTable) -> Candidates:
        rows, n = batch.rows, len(self.cosets)
        image = np.repeat(np.arange(len(rows)), n)
        matrices = np.einsum("aij,gjk->agik", euler_to_matrix(poses.angles_deg[rows]), self.cosets).reshape(-1, 3, 3)
        zeros = np.zeros(len(image))
        return Candidates(image, matrices, poses.origin_px[rows][image], zeros.astype(np.int64), zeros)

    def sums(self, rows: IntArray, poses: PoseTable, half: int, tick: Tick) -> tuple[ops.GridSums, FloatArray]:
        """Sums, and the evidence of each particle; the poses stay as they are."""
        own = poses.copy()
        grids = self.run(half, own, tick, rows).grids
        return grids[0], own.log_evidence[rows] - np.log(len(self.cosets))

    def learn(self, rows: IntArray, poses: PoseTable, half: int, tick: Tick) -> Float32Array:
        """The next map; the FSC of the two halves of these rows weights it."""
        problem, radius = self.problem, self.step.insert_radius
        maps = [
            finish(self.sums(rows[i::2], poses, half, tick)[0], self.operators, threads=self.threads) for i in (0, 1)
        ]
        one, two = (Map(solve(s, self.operators, threads=self.threads), problem.pixel_size_A) for s in maps)
        curve = fsc(one, two, problem.sphere, threads=self.threads).curve[: radius + 1]
        ssnr = 2 * ssnr_from_fsc(np.clip(curve, _FSC_LEAST, _FSC_MOST))
        return solve(maps[0] + maps[1], self.operators, ssnr=ssnr, threads=self.threads)


def contest_of_subgroups(
    problem: Problem,
    model: HalfModel,
    poses: PoseTable,
    step: Step,
    teaching: IntArray,
    deciding: IntArray,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Contest:
    """Compare a map's point group with its maximal subgroups and C1 on particles of the other half set.

    Parameters
    ----------
    problem : Problem
        Under the group.
    model : HalfModel
        Map of half set 1 under the group, and its noise.
    poses : PoseTable
        As refined under the group.
    step : Step
        Last shell of scores and maps.
    teaching, deciding : (m,) int64
        Particles of half set 1 that teach, and of half set 2 that decide.
    seed : int
        Of the choices that the maps begin with.
    progress : callable, optional
        Called with the phase, images done, in all, counted once in every pass.

    Returns
    -------
    Contest
        ``winner`` is the group unless a subgroup is above it by 2.5 standard errors; None where neither is
        clearly above the other. ``lead`` is that of the group over the best subgroup.
    """
    whole = Subgroup(problem.symmetry, tuple(range(len(symmetry_matrices(problem.symmetry)))))
    entrants = [whole, *maximal_subgroups(problem.symmetry)]
    if all(len(e.members) > 1 for e in entrants):
        entrants.append(Subgroup(problem.symmetry, (0,)))
    step = replace(step, phase="local")
    evidence, maps = {}, {}
    passes = sum(1 + _passes(entrant) for entrant in entrants)
    phase = f"verdict, {problem.symmetry} and its subgroups"
    tick = count_phase(progress, phase, passes * len(teaching) + len(entrants) * len(deciding))
    for number, entrant in enumerate(entrants):
        rng = np.random.default_rng((seed, number))
        volume = _learn_map(_Lesson(problem, model, poses, step, teaching), entrant, rng, tick)
        maps[entrant.name] = volume
        judge_step = _CosetStep(problem, replace(model, volumes=volume[None]), step, entrant, entrant.cosets)
        evidence[entrant.name] = judge_step.sums(deciding, poses, 2, tick)[1]
    own = evidence[whole.name]
    others = {name: e for name, e in evidence.items() if name != whole.name}
    lead = own - others[best_group(others)]
    winner = None
    if exceeds(-lead, np.zeros_like(lead), _SIGMAS):
        winner = best_group(others)
    elif all(exceeds(own, e) for e in others.values()):
        winner = whole.name
    means = {name: float(e.mean()) for name, e in evidence.items()}
    resolution = problem.resolution_of_A(step.radius)
    return Contest(winner, means, float(lead.mean()), standard_error(lead), resolution, maps)


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What maps are learned from: particles of half set 1 at their poses, from the map of the whole group."""

    problem: Problem
    model: HalfModel
    poses: PoseTable
    step: Step
    rows: IntArray


def _learn_map(lesson: _Lesson, subgroup: Subgroup, rng: np.random.Generator, tick: Tick) -> Float32Array:
    """What half set 1 teaches under a subgroup."""
    problem, model, poses, step, rows = lesson.problem, lesson.model, lesson.poses, lesson.step, lesson.rows
    trial = poses.copy()
    turn = subgroup.cosets[rng.integers(len(subgroup.cosets), size=len(rows))]
    trial.angles_deg[rows] = matrix_to_euler(euler_to_matrix(poses.angles_deg[rows]) @ turn)
    volume = _CosetStep(problem, model, step, subgroup, np.eye(3)[None]).learn(rows, trial, 1, tick)
    for _ in range(_passes(subgroup)):
        now = replace(model, volumes=volume[None])
        volume = _CosetStep(problem, now, step, subgroup, subgroup.cosets).learn(rows, poses, 1, tick)
    return volume


def _passes(subgroup: Subgroup) -> int:
    """Of learning, after the first."""
    return _PASSES if len(subgroup.cosets) > 1 else _PASSES_OF_WHOLE
