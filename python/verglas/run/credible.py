"""Credible radii of refined poses: how far a true orientation may lie from the one that a refinement states.

Each particle is scored against the other half's map, which has never seen it: a particle's own noise stands in the map
of its own half, makes its pose there look certain, and pulls it to where the noise was put before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import ndtri

from verglas import ops
from verglas._devices import work_on
from verglas.geometry import euler_to_matrix, healpix_spacing_deg, symmetry_matrices
from verglas.refinement import schedule, start
from verglas.refinement.problem import RefineProblem
from verglas.refinement.state import State
from verglas.refinement.update import ClassMaps
from verglas.run.refine_memory import RADII_BATCH, RADII_CANDIDATES, RADII_ORDER
from verglas.run.refine_symmetry import weighted_half_map
from verglas.search.candidates import angle_between_deg, best_of_image
from verglas.search.grid_step import GridLimits, GridStep
from verglas.search.pose_step import PoseStep, coarse_radius
from verglas.search.problem import ImageBatch, image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.listener import Progress, count_phase

MASS = 0.95  # of the posterior, that the radius holds
COLUMN = "verglasCredibleRadius"  # degrees
FAR_DEG = 30.0  # from the stated orientation: the particle lies wrong
FAR_COLUMN = "verglasProbabilityFar"  # of that
_BEYOND = 2  # shells beyond the resolution: what a refinement scores too
_NEAR = 2.5  # spacings of the grid: what is nearer belongs to one peak
_LIMITS = GridLimits(n_power=5, max_candidates=RADII_CANDIDATES, epsilon=1e-3)
_LEAST_SHIFT_PX = 2.0
_LEAST_WEIGHT = 1e-3  # of a shell of a half map
# The likelihood to this power, for what noise spectra learnt from a particle's own map and a Gaussian peak leave out.
# Chosen on development phantoms (bench/bench_verdict.py, seeds 900 to 912): 93.3 % in a stated 95 % without, 95.0 with.
_TEMPER = 1 / 1.15
# Standard normal numbers in three dimensions, the same for all: a lattice (Roberts' sequence), so that 256 do.
_LATTICE = np.array([0.8191725133961645, 0.6710436067037893, 0.5497004779019703])
_NORMAL = ndtri((0.5 + np.arange(1, 257)[:, None] * _LATTICE) % 1)


@dataclass(frozen=True)
class CredibleSets:
    """Where true orientations lie.

    Attributes
    ----------
    radius_deg : (n,) float64
        About each stated orientation, that holds 95 % of the posterior; 0 to 180, modulo the point group.
    far : (n,) float64
        Posterior probability that the true orientation lies more than 30 degrees from the stated one.
    """

    radius_deg: FloatArray
    far: FloatArray


def credible_sets(
    problem: RefineProblem, state: State, maps: Sequence[ClassMaps], progress: Progress | None = None
) -> CredibleSets:
    r"""Radius about each particle's stated orientation that holds 95 % of its posterior; how probably it lies far off.

    The posterior is that of the particle under the map of the half it is not in, M, whose shells carry the weight
    w = FSC that their signal has, and with the noise that such a map brings:

    .. math:: \sigma^2 \to \sigma^2 + \mathrm{CTF}^2\, |M|^2\, (1 - w) / w,

    the variance of what half maps leave open of a shell; the likelihood is tempered a little, by what development sets
    asked for. Where it is sharp, it is the Gaussian of the exact
    likelihood's curvature at its own maximum, which need not be the stated pose; elsewhere it is summed over all
    orientations (7.3 degrees apart), so that a particle that fits in several places has a radius that reaches them.
    With a prior of orientations about given ones, the Gaussian of the likelihood and the prior is all there is.

    Parameters
    ----------
    problem : RefineProblem
        Of likelihoods; correlations have no posterior.
    state : State
        After the last iteration.
    maps : sequence of ClassMaps
        One per class.
    progress : callable, optional
        Called with a phase, how many particles of it are done, and how many there are.

    Returns
    -------
    CredibleSets
    """
    group = symmetry_matrices(problem.symmetry)
    sets = CredibleSets(np.full(len(problem), 180.0), np.ones(len(problem)))
    tick = count_phase(progress, "credible radii, particles", len(problem))
    few = replace(problem, batch=min(RADII_BATCH, problem.batch))  # not more than the memory plan allows
    for half in (1, 2):
        for some, values in _sets_of_half(few, state, maps, half, group):
            sets.radius_deg[some], sets.far[some] = values.radius_deg, values.far
            tick(len(some))
    return sets


def _sets_of_half(
    problem: RefineProblem, state: State, maps: Sequence[ClassMaps], half: int, group: FloatArray
) -> Iterator[tuple[IntArray, CredibleSets]]:
    last = min(problem.last_radius, int(state.resolution_shell) + _BEYOND)
    change = state.figures[-1].shift_change_px if state.figures else np.nan
    reach = max(_LEAST_SHIFT_PX, 3 * change) if np.isfinite(change) else problem.settings.shift_range_A
    serves = min(last, coarse_radius(problem, healpix_spacing_deg(RADII_ORDER)))
    coarse, fine = (
        replace(schedule.make_step(problem, phase, radius, RADII_ORDER, reach), insert_radius=radius)
        for phase, radius in (("grid", serves), ("local", last))
    )
    model = _other_half(problem, state, maps, half, last)
    whole = np.ones((problem.box,) * 3, np.float32)  # the maps are masked already
    with work_on(problem.device):
        climb = _HeldOutClimb(problem, model, whole, fine)
        grid = None if problem.prior_deg is not None else _HeldOutGrid(problem, model, whole, coarse, _LIMITS)
        for batch in image_batches(problem, problem.rows_of_half(half), model, state.poses):
            peak, covariance = climb.peaks(batch, state.poses)
            stated = euler_to_matrix(state.poses.angles_deg[batch.rows])
            # A prior about given poses leaves no mass elsewhere: their peak is the posterior.
            orientations = None if grid is None else grid.orientations(batch, state.poses)
            yield batch.rows, _sets(stated, _Peak(peak, covariance), orientations, group)


def _other_half(problem: RefineProblem, state: State, maps: Sequence[ClassMaps], half: int, last: int) -> HalfModel:
    """The map of the other half, not joined with this one at low resolution, and the noise with what it leaves open."""
    model = state.halves[half - 1]
    volumes = np.stack([weighted_half_map(problem, one, 2 - half, last) for one in maps])
    sigma2 = model.sigma2.copy()
    for volume, one, share in zip(volumes, maps, model.class_weight, strict=True):
        weight = np.clip(one.masked[: sigma2.shape[1]], _LEAST_WEIGHT, 1.0)
        power = start.mean_slice_power(problem, volume)
        sigma2 += share * np.atleast_2d(power)[:, : sigma2.shape[1]] * (1 - weight) / weight
    masked = volumes if state.mask is None else volumes * state.mask  # the weights are those of the masked maps
    return replace(model, volumes=masked.astype(np.float32), sigma2=sigma2 / _TEMPER)


@dataclass(frozen=True)
class _Peak:
    """The maximum next to each stated pose: orientation, and covariance of its rotation vector (rad^2)."""

    matrices: FloatArray
    covariance: FloatArray


@dataclass(frozen=True)
class _Orientations:
    """Posteriors over a grid, end to end; what an image's list lacks counts as far away."""

    image: IntArray
    matrices: FloatArray
    weight: FloatArray


class _HeldOutGrid(GridStep):
    """Posteriors of particles over all orientations."""

    def orientations(self, batch: ImageBatch, poses: PoseTable) -> _Orientations:
        """Of the particle's class."""
        scores = self.score(batch)
        posterior = self.search.posterior(scores)
        n, image = len(self.directions), posterior.image
        mine = posterior.slice // n == poses.class_number[batch.rows][image]
        weight = np.where(mine, posterior.weight, 0.0)
        total = np.bincount(image, weight, minlength=len(batch))
        weight = weight * (scores.kept / np.maximum(total, 1e-300))[image]
        angles = self.directions.angles_deg(posterior.slice % n, posterior.opposite, posterior.psi_deg)
        return _Orientations(image, euler_to_matrix(angles), weight)


class _HeldOutClimb(PoseStep):
    """Maxima of the exact likelihood next to stated poses, and how sharp they are."""

    def peaks(self, batch: ImageBatch, poses: PoseTable) -> tuple[FloatArray, FloatArray]:
        """Orientations, and covariances of their rotation vectors; infinite where nothing is known."""
        candidates, fisher = self._candidates(batch, poses, self._spectra_of(batch))
        other = candidates.class_number != poses.class_number[batch.rows][candidates.image]
        # Candidates of other classes lose rather than leave: every image keeps one.
        best = best_of_image(candidates.image, candidates.score - 1e9 * other, len(batch))
        return candidates.matrices[best], ops.pose_covariance(fisher[best])[:, :3, :3]


def _sets(stated: FloatArray, peak: _Peak, orientations: _Orientations | None, group: FloatArray) -> CredibleSets:
    """Of some images; without orientations the peak is all of the posterior."""
    if orientations is None:
        spread = np.sort(_spread_deg(stated, peak, group), axis=1)
        return CredibleSets(spread[:, int(np.ceil(MASS * spread.shape[1])) - 1], (spread > FAR_DEG).mean(axis=1))
    n, image, spacing = len(stated), orientations.image, healpix_spacing_deg(RADII_ORDER)
    near = angle_between_deg(orientations.matrices, peak.matrices[image], group) < _NEAR * spacing
    beside = np.clip(np.bincount(image, orientations.weight * near, minlength=n), 0.0, 1.0)
    width = np.rad2deg(np.sqrt(np.trace(peak.covariance, axis1=1, axis2=2)))
    sharp = (width < spacing) & (beside > MASS)
    away = angle_between_deg(orientations.matrices, stated[image], group)
    # What the list lacks may be anywhere.
    value = np.concatenate([away, np.full(n, 180.0)])
    rest = 1 - np.bincount(image, orientations.weight, minlength=n)
    owner = np.concatenate([image, np.arange(n)])
    radii = weighted_quantile(value, np.concatenate([orientations.weight, rest]), owner, n, np.full(n, MASS))
    if sharp.any():
        spread = _spread_deg(stated[sharp], _Peak(peak.matrices[sharp], peak.covariance[sharp]), group)
        of_peak = np.ceil(MASS / beside[sharp] * spread.shape[1]).astype(np.int64) - 1
        radii[sharp] = np.sort(spread, axis=1)[np.arange(len(spread)), np.minimum(of_peak, spread.shape[1] - 1)]
    far = rest + np.bincount(image, orientations.weight * (away > FAR_DEG), minlength=n)
    return CredibleSets(np.minimum(radii, 180.0), np.clip(far, 0.0, 1.0))


def _spread_deg(stated: FloatArray, peak: _Peak, group: FloatArray) -> FloatArray:
    """(n, draws) angle between each stated pose and draws from the Gaussian of its peak."""
    copies = stated[:, None] @ group[None]
    nearest = np.einsum("ngij,nij->ng", copies, peak.matrices).argmax(axis=1)
    turn = copies[np.arange(len(stated)), nearest] @ np.swapaxes(peak.matrices, 1, 2)
    offset = Rotation.from_matrix(turn).as_rotvec()
    # A little is added: poses that are known well have covariances that rounding makes singular.
    draws = np.einsum("nij,kj->nki", np.linalg.cholesky(peak.covariance + 1e-12 * np.eye(3)), _NORMAL)
    return np.rad2deg(np.linalg.norm(draws - offset[:, None], axis=2))


def weighted_quantile(value: FloatArray, weight: FloatArray, image: IntArray, n: int, mass: FloatArray) -> FloatArray:
    """Of each image, the least value that so much of its weight does not exceed.

    Parameters
    ----------
    value, weight : (m,) float64
        Of candidates; each image's weights sum to one at most.
    image : (m,) int64
        Whose, 0 to n - 1; every image has one.
    n : int
    mass : (n,) float64
        Above what there is: the largest value.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.run.credible import weighted_quantile
    >>> image = np.array([0, 0, 0, 1])
    >>> value, weight = np.array([3.0, 1, 2, 7]), np.array([0.1, 0.6, 0.3, 1])
    >>> weighted_quantile(value, weight, image, 2, np.array([0.8, 0.95])).tolist()
    [2.0, 7.0]
    """
    order = np.lexsort((value, image))
    ends = np.searchsorted(image[order], np.arange(n), side="right")
    total = np.cumsum(weight[order])
    before = np.concatenate([[0.0], total])[np.searchsorted(image[order], np.arange(n))]
    # Sums of weights miss their mass by rounding, which must not move the place by one.
    place = np.searchsorted(total, before + mass - 1e-12)
    return value[order][np.minimum(place, ends - 1)]
