r"""One iteration of maximum-a-posteriori 2D classification on the likelihood engine.

Class averages are slices without a direction. With the posterior :math:`\gamma` over class k, angle and shift,

.. math::
    A_k = \frac{\sum \gamma\, C X S / \sigma^2}{\sum \gamma\, C^2 / \sigma^2 + 1/(T \tau_k^2)},

all on rings (:class:`verglas.ops.ScorePlan`, :class:`verglas.ops.MaximisePlan`). Method: docs/guide/class2d.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas._array_module import array_module
from verglas._devices import work_on
from verglas.classification.settings import Class2DSettings
from verglas.classification.working_set import Geometry, Samples, WorkingSet
from verglas.search.grid_search import (
    GridSearch,
    PolarBatch,
    PoseGrid,
    SliceSums,
    log_shift_prior,
    shift_disc,
)
from verglas.search.noise import noise_and_signal, smooth_rings
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener, Silence

_BATCH = 128
CANDIDATES = 8192  # of an image, at most
_LEAST_NOISE = 0.01  # of what it was, from one iteration to the next
_TAU_FLOOR = 0.01  # of the noise variance of an average: rings without signal are filtered out, not cut off


@dataclass(frozen=True)
class Model2D:
    """Parameters of the mixture.

    Attributes
    ----------
    averages : (K, box, box) float32
        Class averages in the working box, filtered and masked as the search sees them.
    log_share : (K,)
        Log of the share of particles in each class.
    log_null : float
        The same of the empty class; -inf where there is none.
    sigma2 : (groups, rings)
        Noise variance of one coefficient of the unnormalised transform.
    shift_sigma_px : float
        Standard deviation of shifts on each axis.
    tau2 : (K, rings)
        Signal power of each class.
    """

    averages: Float32Array
    log_share: FloatArray
    log_null: float
    sigma2: FloatArray
    shift_sigma_px: float
    tau2: FloatArray

    def __len__(self) -> int:
        return len(self.averages)


@dataclass(frozen=True)
class Stage:
    """Sampling of one stage: rings of the search, angles, shifts."""

    radius: int
    n_psi: int
    shifts_px: Float32Array
    step_px: float

    def poses(self, shift_sigma_px: float | None = None) -> PoseGrid:
        """Angles and shifts, these with a Gaussian prior, or all alike."""
        prior = None if shift_sigma_px is None else log_shift_prior(self.shifts_px, shift_sigma_px)
        return PoseGrid(self.n_psi, self.shifts_px, prior)


def plan_stage(geo: Geometry, radius: int, shift_range_px: float, step_deg: float | None) -> Stage:
    """Angles and shifts that a radius can tell apart.

    The angular step moves the edge of the particle by 3/8 of the finest period; a quarter period is the shift step.
    """
    finest = 0.75 * geo.box / (geo.diameter_px * radius) if step_deg is None else np.deg2rad(step_deg)
    n_psi = int(np.ceil(2 * np.pi / finest / 16)) * 16
    step = max(geo.box / (4 * radius), 0.25)
    table = shift_disc(np.floor(shift_range_px / step + 1e-6))
    return Stage(radius, n_psi, (table * step).astype(np.float32), step)


@dataclass(frozen=True)
class Assignments:
    """What one iteration found for each particle; rows of particles that took no part are as made.

    Attributes
    ----------
    label : (n,) int64
        Class with the largest probability; K is the empty class, -1 none yet.
    probability : (n,) float64
        Its posterior probability.
    psi_deg, shifts_px
        Pose in that class, the posterior's mean about its best pose; working pixels.
    log_evidence : (n,) float64
        Log of the likelihood, up to terms that depend on the noise alone, summed over classes and poses.
    """

    label: IntArray
    probability: FloatArray
    psi_deg: FloatArray
    shifts_px: FloatArray
    log_evidence: FloatArray

    def put(self, rows: IntArray, found: ProbablePoses, null: FloatArray, evidence: FloatArray) -> None:
        """Keep what was found of these rows; ``null`` is the probability of the empty class."""
        n, k = found.mass.shape
        self.psi_deg[rows], self.shifts_px[rows] = found.psi_deg, found.shifts_px
        empty = null > found.mass.sum(axis=1)
        self.label[rows] = np.where(empty, k, found.label)
        self.probability[rows] = np.where(empty, null, found.mass[np.arange(n), found.label])
        self.log_evidence[rows] = evidence

    @classmethod
    def empty(cls, n: int) -> Assignments:
        """Nothing known yet."""
        return cls(np.full(n, -1), np.zeros(n), np.zeros(n), np.zeros((n, 2)), np.full(n, np.nan))


@dataclass
class Sums:
    """Sufficient statistics of one pass: of every class and half set, of noise, shares and shifts.

    Attributes
    ----------
    numerator, denominator : (K, 2, rings, angles)
        Of the averages, per half set.
    mass : (K,)
        Posterior mass; ``null_mass`` that of the empty class.
    squared, group_mass : (groups, rings), (groups,)
        Residuals for the noise.
    shift2 : float
        Sum of posterior mean squared shifts, px^2.
    excess : (K,)
        Residuals of the particles of each class beyond what the noise allows, in units of noise variance: large where
        a class mixes views.
    log_likelihood : float
        Of the images of the pass, all terms included, within the rings of the search.
    """

    numerator: npt.NDArray[np.complex128]
    denominator: FloatArray
    mass: FloatArray
    null_mass: float
    squared: FloatArray
    group_mass: FloatArray
    shift2: float
    excess: FloatArray
    log_likelihood: float

    def blend(self, new: Sums, step: float, scale: float) -> Sums:
        """(1 - step) of these plus step of ``scale`` times the new: stepwise EM (Cappe and Moulines 2009)."""
        names = [n for n in self.__dataclass_fields__ if n != "log_likelihood"]
        blends = {n: (1 - step) * getattr(self, n) + step * scale * getattr(new, n) for n in names}
        return Sums(**blends, log_likelihood=new.log_likelihood)


class Engine2D:
    """Passes over the particles of a working set; holds their samples.

    Parameters
    ----------
    work : WorkingSet
    settings : Class2DSettings
    halves : (n,) int64
        Half set of each particle, 0 or 1.
    listener : Listener, optional
        Told how far a pass is.
    """

    def __init__(
        self, work: WorkingSet, settings: Class2DSettings, halves: IntArray, listener: Listener | None = None
    ) -> None:
        self.work, self.settings, self.halves, self.listener = work, settings, halves, listener or Silence()
        geo = self.geometry = work.geometry
        self.grid = ops.PolarGrid(geo.box, geo.last_ring, diameter_px=geo.box)
        self.whole = Samples(work, self.grid, masked=self.settings.mask_m_step)
        # Of the coefficients of a masked image, so many are independent: the mask takes the rest away.
        self.mask_share = float((geo.mask.astype(np.float64) ** 2).mean())
        self.share = self.mask_share if self.settings.mask_m_step else 1.0  # the same of what the M-step sees
        self._masked: Samples | None = None

    def unmask(self) -> None:
        """Averages and noise from unmasked images from now on: what the CTF has spread beyond the mask comes back."""
        if self.whole.masked:
            self.whole, self.share = Samples(self.work, self.grid, masked=False), 1.0

    def samples_within(self, radius: int) -> Samples:
        """Masked samples of a stage; kept until another radius is asked for."""
        if self._masked is None or self._masked.grid.radius != radius:
            grid = ops.PolarGrid(self.geometry.box, radius, diameter_px=self.geometry.diameter_px)
            self._masked = Samples(self.work, grid, masked=True)
        return self._masked

    # -- starting values ------------------------------------------------------------------------------------------

    def spectra(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Noise variance per group and ring, and signal power per ring (``search.noise.noise_and_signal``)."""
        mask = self.geometry.mask
        share = float((mask.astype(np.float64) ** 2).mean())
        full = np.zeros((self.work.n_groups, self.grid.n_rings))
        inside = np.zeros_like(full)
        ctf2 = np.zeros(self.grid.n_rings)
        number = np.zeros(self.work.n_groups)
        for begin in range(0, len(rows), _BATCH):
            some = rows[begin : begin + _BATCH]
            images, group = self.work.images(some), self.work.group[some]
            for total, values in ((full, images), (inside, images * mask)):
                x = ops.polar(values, self.grid, threads=self.work.where.threads)
                np.add.at(total, group, (np.abs(x) ** 2).mean(axis=2, dtype=np.float64))
            np.add.at(number, group, 1)
            ctf2 += self._ctf2(some)
        number = np.maximum(number, 1)[:, None]
        full, inside = full / number, inside / number
        noise, signal = noise_and_signal(full, inside, share)
        weight = number / number.sum()
        return noise, (signal * weight).sum(axis=0) / np.maximum(ctf2 / len(rows), 0.05)

    def _ctf2(self, rows: IntArray) -> FloatArray:
        if self.work.ctf is None:
            return np.full(self.grid.n_rings, float(len(rows)))
        ones = np.ones((len(rows), self.grid.n_rings), np.float32)
        power = ops.polar_ctf_power(
            ones,
            self.grid,
            1,
            ctf=self.work.ctf[rows],
            pixel_size_A=self.geometry.pixel_size_A,
            threads=self.work.where.threads,
        )
        return (power[..., 0].real.astype(np.float64) / (self.grid.weights * self.grid.n_theta)).sum(axis=0)

    # -- one pass -------------------------------------------------------------------------------------------------

    def run(
        self, model: Model2D, stage: Stage, rows: IntArray, *, sums: bool = True
    ) -> tuple[Assignments, Sums | None]:
        """Expectation over ``rows``, and the sums of the M-step unless ``sums`` is False."""
        with work_on(self.work.where.device):
            return self._pass(model, stage, rows, sums=sums)

    def _pass(self, model: Model2D, stage: Stage, rows: IntArray, *, sums: bool) -> tuple[Assignments, Sums | None]:
        samples = self.samples_within(stage.radius)
        search = GridSearch(
            samples.grid,
            stage.poses(model.shift_sigma_px),
            self.work.where,
            n_power=1 if self.work.ctf is None else 3,
            epsilon=1e-2,
            max_candidates=CANDIDATES,
        )
        log_prior = np.full((len(model), 2), -np.inf)
        log_prior[:, 0] = model.log_share  # an average has no opposite
        search.set_reference(ops.polar(model.averages, samples.grid, **self.work.where.of_ops), log_prior)
        assignments = Assignments.empty(len(self.work))
        collect = _Collector(self, model, stage) if sums else None
        for begin in range(0, len(rows), _BATCH):
            some = rows[begin : begin + _BATCH]
            inv = (1 / model.sigma2[self.work.group[some]]).astype(np.float32)
            x = samples.get(some)
            scores = search.run(self.batch(some, x, inv[:, : stage.radius]))
            evidence = np.logaddexp(scores.log_evidence, model.log_null)
            in_classes = np.exp(scores.log_evidence - evidence)
            posterior = search.posterior(scores)
            posterior = replace(posterior, weight=posterior.weight * in_classes[posterior.image])
            assignments.put(some, probable_poses(posterior, len(some), len(model), stage), 1 - in_classes, evidence)
            if collect is not None:
                likelihood = evidence + self.noise_terms(samples.power(some, x), samples.grid, inv)
                collect.add(some, posterior, inv, 1 - in_classes)
                collect.log_likelihood += float(likelihood.sum())
            self.listener.progress("particles of this iteration", begin + len(some), len(rows))
        return assignments, None if collect is None else collect.sums()

    def batch(self, rows: IntArray, samples: npt.NDArray[np.complex64], inv_sigma2: Float32Array) -> PolarBatch:
        """Samples of these particles with their noise and CTF."""
        ctf = None if self.work.ctf is None else self.work.ctf[rows]
        return PolarBatch(samples, inv_sigma2, ctf, self.geometry.pixel_size_A, first_particle=int(rows[0]))

    def noise_terms(self, power: FloatArray, grid: ops.PolarGrid, inv: Float32Array) -> FloatArray:
        r"""Part of the log-likelihood that depends on the noise alone: -1/2 sum (|X|^2 / sigma^2 + f log pi sigma^2).

        f is the share of the coefficients of masked images that are independent.
        """
        own = inv[:, : grid.n_rings].astype(np.float64)
        return -0.5 * ((power * own + self.mask_share * np.log(np.pi / own)) * (grid.weights * grid.n_theta)).sum(
            axis=1
        )

    # -- the M-step -----------------------------------------------------------------------------------------------

    def half_averages(self, sums: Sums) -> tuple[npt.NDArray[np.complex128], FloatArray]:
        """Averages of the half sets without prior, (K, 2, rings, angles), and their mean weights D (K, 2, rings).

        1 / D is the noise variance of a coefficient of the average.
        """
        weight = self.grid.weights[:, None]
        den = sums.denominator / weight
        mean = den.mean(axis=3)
        floor = np.maximum(1e-3 * mean[..., None], 1e-12)
        return sums.numerator / weight / np.maximum(den, floor), mean

    def maximise(self, model: Model2D, sums: Sums, *, tau2: FloatArray | None = None) -> Model2D:
        """The model of the next iteration. ``tau2`` fixes the signal power; by default it is measured anew."""
        halves, weight = self.half_averages(sums)
        if tau2 is None:
            tau2 = signal_power(halves, weight)
        # The sums hold every sample with its area; the prior is of one coefficient.
        num = sums.numerator.sum(axis=1) / self.grid.weights[:, None]
        den = sums.denominator.sum(axis=1) / self.grid.weights[:, None]
        samples = num / (den + 1 / (self.settings.prior_factor * tau2[:, :, None]))
        averages = ops.images_from_polar(samples.astype(np.complex64), self.grid)
        if not self.whole.masked:
            averages = averages * self.geometry.mask
        total = sums.mass.sum() + sums.null_mass
        # One particle more for each: a class of share zero could never be chosen again.
        shares = (sums.mass + 1) / (total + len(model) + 1)
        null = (sums.null_mass + 1) / (total + len(model) + 1) if self.settings.null_class else 0.0
        with np.errstate(divide="ignore"):
            log_null = float(np.log(null))
        coefficients = self.share * self.grid.weights * self.grid.n_theta
        weighted_sums = sums.group_mass[:, None] * coefficients
        sigma2 = ops.noise_variance(sums.squared, weighted_sums, before=model.sigma2, least=_LEAST_NOISE)
        # Two axes; a step of the finest stage is the least that can be told.
        spread = np.sqrt(max(sums.shift2, 0.0) / (2 * max(sums.mass.sum(), 1e-9)))
        least = self.geometry.box / (8 * self.geometry.search_limit)
        return Model2D(averages, np.log(shares), log_null, sigma2, float(max(spread, least)), tau2)


class _Collector:
    """Adds batches to the sums of the M-step."""

    def __init__(self, engine: Engine2D, model: Model2D, stage: Stage) -> None:
        self.engine, self.model, self.stage = engine, model, stage
        k, grid, where = len(model), engine.grid, engine.work.where
        n_power = 1 if engine.work.ctf is None else None
        self.plan = SliceSums(grid, 2 * k, stage.poses(), where, n_power=n_power)
        averages = ops.polar(model.averages, grid, **where.of_ops)
        # Both half sets are measured against the one average of their class, which keeps the classes of the halves the
        # same.
        self.plan.set_reference(array_module(averages).repeat(averages, 2, axis=0))
        self.groups = ops.GroupSums.zeros(engine.work.n_groups, grid)
        self.mass, self.excess = np.zeros(k), np.zeros(k)
        self.null_mass, self.shift2, self.log_likelihood = 0.0, 0.0, 0.0

    def add(self, rows: IntArray, posterior: ops.Posterior, inv: Float32Array, null: FloatArray) -> None:
        """One batch; slices 2 k and 2 k + 1 are the half sets of class k."""
        e, stage = self.engine, self.stage
        image, k = posterior.image, len(self.model)
        by_half = replace(posterior, slice=2 * posterior.slice + e.halves[rows][image].astype(np.int32))
        x = e.whole.get(rows)
        residuals = self.plan.add_measured(e.batch(rows, x, inv), by_half, e.whole.power(rows, x))
        coefficients = e.share * (e.grid.weights * e.grid.n_theta)[: stage.radius]
        beyond = residuals.squared[:, : stage.radius] * inv[:, : stage.radius] - residuals.mass[:, None] * coefficients
        # What the empty class explains is noise, all of it.
        residuals = replace(residuals, mass=residuals.mass + null)
        self.groups.add(residuals, e.work.group[rows])
        per_image = np.bincount(image * k + posterior.slice, posterior.weight, minlength=len(rows) * k)
        shares = per_image.reshape(len(rows), k)
        self.mass += shares.sum(axis=0)
        self.excess += beyond.sum(axis=1) @ shares
        self.null_mass += float(null.sum())
        away = np.sum(stage.shifts_px.astype(np.float64) ** 2, axis=1)
        self.shift2 += float((posterior.weight * away[posterior.shift]).sum())

    def sums(self) -> Sums:
        """The sums of all batches."""
        k, grid = len(self.model), self.engine.grid
        num, den = self.plan.slices()
        shape = (k, 2, grid.n_rings, grid.n_theta // 2)
        return Sums(
            num.reshape(shape).astype(np.complex128),
            den.reshape(shape).astype(np.float64),
            self.mass,
            self.null_mass,
            self.groups.squared,
            self.groups.mass,
            self.shift2,
            self.excess,
            self.log_likelihood,
        )


class ProbablePoses(NamedTuple):
    """Of n images: probability of each class (n, K), the most probable class, and the pose in it, working pixels."""

    mass: FloatArray
    label: IntArray
    psi_deg: FloatArray
    shifts_px: FloatArray


def probable_poses(posterior: ops.Posterior, n: int, k: int, stage: Stage) -> ProbablePoses:
    """Most probable of ``k`` classes of each of ``n`` images, and the pose in it."""
    image = posterior.image
    of_class = np.bincount(image * k + posterior.slice, posterior.weight, minlength=n * k)
    mass = np.asarray(of_class.reshape(n, k), np.float64)
    # By mass over all poses of a class, not by the best pose: a blurred average has many fair ones.
    label = mass.argmax(axis=1)
    # Candidates come by falling score: the first of the class is the best pose in it.
    own = np.flatnonzero(posterior.slice == label[image])
    which, first = np.unique(image[own], return_index=True)
    best = np.zeros(n, np.int64)
    best[which] = own[first]
    step = 360 / stage.n_psi
    turn = (posterior.psi_deg[own] - posterior.psi_deg[best[image[own]]] + 180) % 360 - 180
    shifts = stage.shifts_px.astype(np.float64)[posterior.shift]
    move = shifts[own] - shifts[best[image[own]]]
    near = (np.abs(turn) < 1.6 * step) & (np.abs(move) < 1.6 * stage.step_px).all(axis=1)
    weight = posterior.weight[own] * near
    total = np.maximum(np.bincount(image[own], weight, minlength=n), 1e-30)
    psi = posterior.psi_deg[best] + np.bincount(image[own], weight * turn, minlength=n) / total
    centres = [shifts[best, axis] + np.bincount(image[own], weight * move[:, axis], n) / total for axis in (0, 1)]
    return ProbablePoses(mass, label, (psi + 180) % 360 - 180, np.column_stack(centres))


def signal_power(halves: npt.NDArray[np.complex128], weight: FloatArray) -> FloatArray:
    """Signal power of averages on each ring, (K, rings): that of all classes together.

    The product of the averages of two half sets holds no noise. Classes are views of the same particles, so their
    power is one spectrum, the mean over classes with their weights; only its floor depends on the class. A spectrum for
    each class would make large classes larger: a small one, whose halves happen to disagree, is filtered to a disc,
    loses its members to whichever average is smooth but sure of itself, and disagrees the more.

    Parameters
    ----------
    halves : (K, 2, rings, angles) complex128
        Averages of the half sets without prior.
    weight : (K, 2, rings)
        D: 1 / D is the noise variance of a coefficient.
    """
    total = weight.sum(axis=1)
    tiny = 1e-12
    both = (halves * weight[..., None]).sum(axis=1) / np.maximum(total, tiny)[..., None]
    cross = (halves[:, 0] * halves[:, 1].conj()).real.mean(axis=2)
    alone = (np.abs(both) ** 2).mean(axis=2) - 1 / np.maximum(total, tiny)
    balanced = weight.min(axis=1) > 0.1 * total
    # The weaker half is what the product is known by.
    usable_weight = np.where(balanced, weight.min(axis=1), 0.0)
    pooled = (usable_weight * cross).sum(axis=0) / np.maximum(usable_weight.sum(axis=0), tiny)
    lonely = (total * np.maximum(alone, 0)).sum(axis=0) / np.maximum(total.sum(axis=0), tiny)
    power = smooth_rings(np.where(usable_weight.sum(axis=0) > 0, pooled, lonely))
    return np.maximum(power, _TAU_FLOOR / np.maximum(total, tiny))


def ring_correlation(halves: npt.NDArray[np.complex128]) -> FloatArray:
    """Correlation of the half sets' averages on each ring, (K, rings)."""
    a, b = halves[:, 0], halves[:, 1]
    cross = (a * b.conj()).real.sum(axis=2)
    norm = np.sqrt((np.abs(a) ** 2).sum(axis=2) * (np.abs(b) ** 2).sum(axis=2))
    return np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)
