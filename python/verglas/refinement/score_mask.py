"""What of the references is scored: places where the half maps agree, if held-out data say that poses gain by it.

The weight is :func:`verglas.regularisation.score_weight.local_weight`. References are multiplied by it for the search
alone; maps, FSC and solvent mask stay those of the whole.

The likelihood of held-out particles at given poses cannot choose: a belt's mean density does explain images. What is
asked is whether *poses* are better. Particles are posed anew by the coarser shells against the map of the half that
they are not in, with and without w, and both poses are scored by the finer shells of that map, under w: what is in
doubt moves with the belts that posed it, and would vote for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from verglas import fourier, ops
from verglas._array_module import to_host
from verglas._devices import to_device
from verglas.geometry import euler_to_matrix
from verglas.refinement.prior_choice import LEAST_HELD_OUT, SIGMAS, held_out_rows, joined_shell
from verglas.refinement.problem import RefineProblem
from verglas.search.grid_step import spectra_of
from verglas.search.image_batch import ImageBatch
from verglas.search.problem import image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.types.arrays import Array, Float32Array, FloatArray

WHOLE, LOCAL = "off", "local"  # what is scored: all inside the solvent mask, or by the local gain
_POSED_BY = 2 / 3  # of the shells with signal; the finer ones judge
_LEAST_SHELLS = 2  # that judge
_STEPS = 20


@dataclass(frozen=True)
class ScoreMask:
    """What of the references is scored, and what that gains.

    Attributes
    ----------
    name : {"off", "local"}
    weight : (N, N, N) float32 or None
        0 to 1, the solvent mask included; None with "off".
    gain, error : float
        Log-likelihood of the finer shells of held-out particles at poses found with the weight over that at poses found
        without it, nats per particle, and its standard error; NaN where nothing was compared.
    """

    name: str = WHOLE
    weight: Float32Array | None = None
    gain: float = float("nan")
    error: float = float("nan")


class _Data(NamedTuple):
    """Particles as the exact score sees them: spectra without neighbours, and CTFs."""

    batch: ImageBatch
    spectra: Array
    ctf: Array


class _Reference(NamedTuple):
    """A map on the grid that slices are taken from."""

    spectrum: Array
    grid: ops.Grid


class _Pose(NamedTuple):
    """Rotations (n, 3, 3), and where particles sit (n, 2)."""

    matrices: FloatArray
    shifts_px: FloatArray


@dataclass(frozen=True)
class HeldOutShells:
    """Particles of both halves, posed by coarser shells of the map that they are not in and judged by its finer ones.

    Attributes
    ----------
    problem : RefineProblem
    models : list of HalfModel
        Of both halves, one map each; a particle has its own half's noise and scales.
    poses : PoseTable
        Where the climbs begin.
    radius : int
        Last shell with signal.
    """

    problem: RefineProblem
    models: list[HalfModel]
    poses: PoseTable
    radius: int

    @property
    def last_pose_shell(self) -> int:
        """Last shell that poses are found by; the joined ones are not among those that judge."""
        joined = joined_shell(self.problem)
        return joined + round(_POSED_BY * (self.radius - joined))

    def compare(self, mask: Float32Array, weight: Float32Array) -> ScoreMask:
        """Whether references under ``weight`` find better poses than under ``mask``, (N, N, N) each."""
        if self.radius - self.last_pose_shell < _LEAST_SHELLS or self.last_pose_shell < _LEAST_SHELLS:
            return ScoreMask()
        more = np.concatenate([self._gains(half, mask, weight) for half in (1, 2)])
        if len(more) < LEAST_HELD_OUT:
            return ScoreMask()
        gain, error = float(more.mean()), float(more.std(ddof=1) / np.sqrt(len(more)))
        if gain > SIGMAS * error:
            return ScoreMask(LOCAL, weight, gain, error)
        return ScoreMask(WHOLE, None, gain, error)

    def _gains(self, half: int, mask: Float32Array, weight: Float32Array) -> FloatArray:
        """Of particles of a half, by the map of the other."""
        problem = self.problem
        rows = held_out_rows(problem, self.poses, half)
        if not len(rows):
            return np.empty(0)
        # noise and scales of the particles' own half, the map of the other
        model = replace(self.models[half - 1], volumes=self.models[2 - half].volumes)
        (whole,), grid = spectra_of(problem, model, mask, self.radius)
        (narrow,), _ = spectra_of(problem, model, weight, self.radius)
        gains = []
        for batch in image_batches(problem, rows, model, self.poses):
            data = _Data(batch, self._transform(batch), batch.ctf(**problem.where.of_ops))
            start = _Pose(euler_to_matrix(self.poses.angles_deg[batch.rows]), -batch.origin_px)
            scores = []
            for reference in (whole, narrow):
                posed = self._climb(
                    data, _Reference(reference, grid), start, slice(1, self.last_pose_shell + 1), _STEPS
                )
                pose = _Pose(to_host(posed.matrices), to_host(posed.shifts_px))
                judged = slice(self.last_pose_shell + 1, self.radius + 1)
                scores.append(to_host(self._climb(data, _Reference(narrow, grid), pose, judged, 0).scores))
            gains.append(scores[1].astype(np.float64) - scores[0])
        return np.concatenate(gains)

    def _transform(self, batch: ImageBatch) -> Array:
        """Transforms of images without neighbours, as the exact score sees them."""
        mask = self.problem.neighbour_mask
        return fourier.forward(
            batch.images if mask is None else batch.apply_mask(mask), 2, threads=self.problem.threads
        )

    def _climb(self, data: _Data, reference: _Reference, pose: _Pose, shells: slice, steps: int) -> ops.PoseResult:
        """Poses after some steps, and their scores, by some shells alone."""
        problem, last = self.problem, shells.stop - 1
        shell_weight = np.zeros((len(data.batch), last + 1), np.float32)
        shell_weight[:, shells] = to_host(data.batch.inv_sigma2)[:, shells]
        return ops.refine_pose(
            data.spectra,
            reference.spectrum,
            reference.grid,
            pose.matrices,
            pose.shifts_px,
            ctf=data.ctf,
            shell_weight=to_device(shell_weight, problem.device),
            search=ops.PoseSettings(max_radius=last, steps=steps),
            **problem.where.of_ops,
        )
