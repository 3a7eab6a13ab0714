"""What a 2D classification found: averages, particles, a table of classes and a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from verglas import ops
from verglas.classification import moves
from verglas.classification.em2d import Assignments, Engine2D, Model2D, Stage, Sums, ring_correlation
from verglas.classification.selection import ClassSelection, SelectionRules, select_classes
from verglas.image import fourier_resample
from verglas.masks import distance_from
from verglas.types import Particles, Poses
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.display import one_line

SKIP_RINGS = 3  # rings beyond the search that the mask lets it see
NOISE_SIGMA = 5.0  # evidence below this is no signal
NOISE_NATS = 12.5  # nor is such a gain on held-out images: what 5 standard errors of a normal variable are worth


@dataclass(frozen=True)
class Iteration:
    """One line of the record.

    Attributes
    ----------
    number, radius : int
        Iteration, and ring of the search; ``resolution_A`` is the same in angstrom.
    particles : int
        That took part.
    log_likelihood : float
        Of these, within the rings of the search.
    changed : float
        Share of particles that changed class.
    evidence : float
        :func:`held_out_evidence` of all classes.
    seconds : float
        Wall time.
    """

    number: int
    radius: int
    resolution_A: float
    particles: int
    log_likelihood: float
    changed: float
    evidence: float
    seconds: float


@dataclass(frozen=True)
class Place:
    """What a classification does next.

    Attributes
    ----------
    phase : {"start", "improve", "last", "done"}
    number, in_stage : int
        Of the iteration, in its phase and at its resolution.
    """

    phase: str = "start"
    number: int = 0
    in_stage: int = 0

    def first_of(self, phase: str) -> int:
        """Iteration that a phase begins with: another than 0 where it goes on."""
        return self.number if self.phase == phase else 0


@dataclass
class State:
    """Where a classification stands.

    ``levels`` are the labels at each level of a start by splitting, ``gain`` :func:`held_out_gain` where it was asked.
    """

    model: Model2D
    stage: Stage
    sums: Sums | None
    assignments: Assignments
    record: list[Iteration]
    levels: list[IntArray] = field(default_factory=list)
    place: Place = field(default_factory=Place)
    gain: float | None = None


@one_line
@dataclass(frozen=True)
class Classes2D:
    """Result of :func:`verglas.classify2d`.

    Attributes
    ----------
    averages : (K + 1, box, box) float32
        Class averages on the particles' own sampling, filtered, masked and centred, best first; image i belongs to
        class i + 1. The last is the empty class, zero (absent without ``null_class``).
    pixel_size_A : float
        Their pixel size.
    particles : Particles
        Those that could be used, with rlnClassNumber, rlnAnglePsi (rot and tilt 0), origins,
        rlnMaxValueProbDistribution (probability of the class) and rlnLogLikeliContribution.
    table : DataFrame
        One row per class: class, particles, share, resolution_A (half-set averages, FRC 0.143), evidence_sigma
        (:func:`held_out_evidence`), probability (mean of its particles), signal (:func:`inside_outside`), offset (how
        far its average was moved to the centre, in diameters of the mask), stability (NaN without repeats).
    curves : (K, rings) float64
        Fourier ring correlation of the half-set averages of each class at ``frequency_per_A``. Both halves were aligned
        to one average, so it flatters up to the resolution of the search (the last of ``record``).
    frequency_per_A : (rings,) float64
    verdict : str
        One sentence.
    signal : bool
        False where nothing but noise was found.
    record : list of Iteration
        What each iteration did.
    set_aside : dict of int -> str
        Particles that could not be used, with the reason.
    levels : list of (n,) int64
        With ``start="split"``: labels of ``particles`` at each level, for :func:`stable_core`.
    """

    averages: Float32Array
    pixel_size_A: float
    particles: Particles
    table: pd.DataFrame
    curves: FloatArray
    frequency_per_A: FloatArray
    verdict: str
    signal: bool
    record: list[Iteration]
    set_aside: dict[int, str]
    levels: list[IntArray] = field(default_factory=list)

    @property
    def labels(self) -> IntArray:
        """Class of each particle, counted from 0."""
        return self.particles.table["rlnClassNumber"].to_numpy(np.int64) - 1

    @property
    def n_classes(self) -> int:
        """K, without the empty class."""
        return len(self.curves)

    @property
    def empty_class(self) -> int | None:
        """Number of the empty class; None without one."""
        return self.n_classes + 1 if len(self.table) > self.n_classes else None

    def select(self, rules: SelectionRules | None = None) -> ClassSelection:
        """The classes that look like particles: :func:`verglas.classification.select_classes`."""
        return select_classes(self.table, signal=self.signal, empty_class=self.empty_class, rules=rules)


def held_out_evidence(sums: Sums, first: int, last: int | None = None) -> tuple[FloatArray, float]:
    r"""Whether half sets agree in rings ``first`` and beyond, which no alignment has seen; in standard errors.

    With the average A2 of one half as template, the cross term of the other half's images,
    :math:`S = \sum \gamma\, \mathrm{Re}[(C A_2)^* X S_t] / \sigma^2`, has mean 0 where there is only noise, and a
    variance of at most :math:`V = \sum \gamma\, C^2 |A_2|^2 / \sigma^2`, however the posterior is spread over poses and
    classes (Jensen). Both come from the sums of the M-step. z = S / sqrt(V), the mean of both ways round.

    Parameters
    ----------
    sums : Sums
        Of one pass.
    first, last : int
        Rings used, counted from 0: from ``first`` to before ``last``; all further ones by default.

    Returns
    -------
    (K,) float64, float
        z of each class, and of all together; 0 where there is nothing to compare.
    """
    num, den = sums.numerator[:, :, first:last], sums.denominator[:, :, first:last]
    cross, variance = np.zeros((2, len(num))), np.zeros((2, len(num)))
    if num.shape[2] == 0:
        return cross[0], 0.0
    for h in (0, 1):
        # Weakly populated coefficients count less.
        template = num[:, 1 - h] / (den[:, 1 - h] + 0.5 * den[:, 1 - h].mean(axis=(1, 2), keepdims=True) + 1e-30)
        cross[h] = 2 * (template.conj() * num[:, h]).real.sum(axis=(1, 2))
        variance[h] = 2 * (np.abs(template) ** 2 * den[:, h]).sum(axis=(1, 2))

    def z(s: FloatArray, v: FloatArray) -> FloatArray:
        return np.divide(s, np.sqrt(v), out=np.zeros_like(s), where=v > 0)

    return z(cross, variance).mean(axis=0), float(z(cross.sum(axis=1), variance.sum(axis=1)).mean())


def half_set_curves(engine: Engine2D, sums: Sums) -> FloatArray:
    """Fourier ring correlation of each class's half-set averages inside the mask, (K, rings)."""
    halves, _ = engine.half_averages(sums)
    k, _, rings, angles = halves.shape
    images = ops.images_from_polar(halves.reshape(2 * k, rings, angles).astype(np.complex64), engine.grid)
    masked = ops.polar(images * engine.geometry.mask, engine.grid, threads=engine.work.where.threads)
    return ring_correlation(masked.reshape(k, 2, rings, angles).astype(np.complex128))


def inside_outside(engine: Engine2D, model: Model2D, sums: Sums) -> FloatArray:
    """Mean square of each class's unmasked average inside the circle over that outside, (K,).

    1 where there is nothing but noise or a crowd of neighbours, much more where a particle stands alone in the middle.
    """
    num, den = sums.numerator.sum(axis=1), sums.denominator.sum(axis=1)
    prior = engine.grid.weights[:, None] / (engine.settings.prior_factor * model.tau2[:, :, None])
    images = ops.images_from_polar((num / (den + prior)).astype(np.complex64), engine.grid)
    geo = engine.geometry
    far = distance_from((geo.box,) * 2)
    edge = geo.box / 2
    inside, outside = (
        far <= geo.diameter_px / 2,
        (far > geo.diameter_px / 2) & (far <= max(edge, geo.diameter_px / 2 + 2)),
    )
    squared = images.astype(np.float64) ** 2
    background = squared[:, outside].mean(axis=1) if outside.any() else np.zeros(len(images))
    return squared[:, inside].mean(axis=1) / np.maximum(background, 1e-3 * squared.mean(axis=(1, 2)) + 1e-30)


def crossing(curve: FloatArray, radii: FloatArray, threshold: float = 0.143) -> float:
    """Radius where a curve first falls below a threshold, between rings by interpolation; 0 if it starts below.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification.classes import crossing
    >>> crossing(np.array([1.0, 0.6, 0.4]), np.array([1.0, 2.0, 3.0]), 0.5)
    2.5
    """
    below = np.flatnonzero(~(curve >= threshold))
    if not below.size:
        return float(radii[-1])
    i = int(below[0])
    if i == 0:
        return 0.0
    part = (curve[i - 1] - threshold) / (curve[i - 1] - curve[i])
    return float(radii[i - 1] + part * (radii[i] - radii[i - 1]))


def collect(engine: Engine2D, state: State) -> Classes2D:
    """The result: averages centred and ranked, poses moved with them, verdict.

    Parameters
    ----------
    engine : Engine2D
    state : State
        After the last iteration.
    """
    work, geo, k, sums = engine.work, engine.geometry, len(state.model), state.sums
    assert sums is not None
    averages, move = moves.centre_averages(state.model.averages)
    curves = half_set_curves(engine, sums)
    evidence, _ = held_out_evidence(sums, state.stage.radius + SKIP_RINGS)
    rows = work.usable
    label = state.assignments.label[rows]
    size = np.bincount(label, minlength=k + 1)
    # Half sets of one or two images agree or disagree by chance.
    limit = [crossing(c, engine.grid.radii) if n > 3 else 0.0 for c, n in zip(curves, size[:k], strict=True)]
    resolution = np.array([geo.resolution_A(r) if r > 0 else np.inf for r in limit])
    # Rounded to what is printed: classes that look equally resolved are told apart by their size.
    order = np.lexsort((-size[:k], np.where(np.isfinite(resolution), resolution.round(1), 1e9)))
    number = np.append(np.argsort(order), k)
    in_class = np.append(move, [[0.0, 0.0]], axis=0)[label]
    turn = np.deg2rad(state.assignments.psi_deg[rows])
    # The average moved by v: a particle needs R_z(psi) v more to lie at the origin.
    c, s = np.cos(turn), np.sin(turn)
    extra = np.stack([c * in_class[:, 0] + s * in_class[:, 1], -s * in_class[:, 0] + c * in_class[:, 1]], axis=1)
    shifts_A = (state.assignments.shifts_px[rows] + extra) * geo.pixel_size_A
    angles = np.column_stack([np.zeros(len(rows)), np.zeros(len(rows)), state.assignments.psi_deg[rows]])
    classified = (
        work.particles[rows]
        .with_poses(Poses(angles, shifts_A))
        .with_columns(
            rlnClassNumber=number[label] + 1,
            rlnMaxValueProbDistribution=state.assignments.probability[rows],
            rlnLogLikeliContribution=state.assignments.log_evidence[rows],
        )
    )
    box = work.particles.box
    sorted_averages = averages[order]
    if geo.box != box:
        # Grey values of the particles' own pixels: a working pixel averages several of them.
        sorted_averages = fourier_resample(sorted_averages, (box, box))
    probability = np.bincount(label, state.assignments.probability[rows], k + 1) / np.maximum(size, 1)
    signal, offset = inside_outside(engine, state.model, sums), np.hypot(*move.T) / geo.diameter_px
    table = pd.DataFrame(
        {
            "class": np.arange(1, k + 1),
            "particles": size[order],
            "share": size[order] / len(rows),
            "resolution_A": resolution[order],
            "evidence_sigma": evidence[order],
            "probability": probability[order],
            "signal": signal[order],
            "offset": offset[order],
            "stability": np.nan,
        }
    )
    if engine.settings.null_class:
        sorted_averages = np.concatenate([sorted_averages, np.zeros((1, box, box), np.float32)])
        table.loc[k] = [k + 1, size[k], size[k] / len(rows), np.inf, 0.0, probability[k], np.nan, 0.0, np.nan]
        table = table.astype({"class": int, "particles": int})
    best = max(state.record, key=lambda line: line.evidence)
    verdict, finding = _verdict(best, state.gain, table, k)
    return Classes2D(
        sorted_averages.astype(np.float32),
        work.pixel_size_A,
        classified,
        table,
        curves[order],
        engine.grid.radii / (geo.box * geo.pixel_size_A),
        verdict,
        finding,
        state.record,
        work.bad,
        [level[rows] for level in state.levels],
    )


def _verdict(line: Iteration, gain: float | None, table: pd.DataFrame, k: int) -> tuple[str, bool]:
    evidence = line.evidence
    if evidence < NOISE_SIGMA:
        on_fine = (
            f"averages of half sets agree by {evidence:.1f} standard errors (at least {NOISE_SIGMA:g} would be signal) "
            f"on data finer than {line.resolution_A:.0f} A, which no alignment has seen"
        )
        if gain is not None and gain >= NOISE_NATS:
            return (
                f"Weak signal: averages of one half of the particles explain the other half better than noise, by "
                f"{gain:.0f} nats, but not in detail: {on_fine}. More classes or more particles may show it.",
                True,
            )
        also = "" if gain is None else ", and those of one half explain the other no better than noise"
        return (
            f"Nothing but noise: {on_fine}{also}. Whatever the averages show comes from aligning noise; do not use "
            "these classes.",
            False,
        )
    finite = table["resolution_A"][:k]
    finite = finite[np.isfinite(finite)]
    best = f"{finite.min():.1f} A" if len(finite) else "no resolution"
    text = (
        f"Signal: half sets agree by {evidence:.0f} standard errors on data finer than {line.resolution_A:.0f} A, "
        f"which no alignment had seen then (iteration {line.number}); best class {best}."
    )
    empty = table["share"].to_numpy()[k] if len(table) > k else 0.0
    if empty > 0.02:
        text += f" Noise alone explains {100 * empty:.0f} % of the particles (class {k + 1})."
    return text, True


def with_stability(result: Classes2D, others: list[Classes2D]) -> Classes2D:
    """The result with the stability of each class: its overlap (Jaccard) with the nearest class of each repeat, meaned.

    Parameters
    ----------
    result : Classes2D
        Of the first run.
    others : list of Classes2D
        Of the same particles from other seeds.
    """
    if not others:
        return result
    mine = result.labels
    count = len(result.table)
    overlap = np.zeros(count)
    for other in others:
        theirs = other.labels
        table = np.zeros((count, int(theirs.max()) + 1))
        np.add.at(table, (mine, theirs), 1)
        # Class numbers of two runs mean nothing to each other: each is compared with all.
        union = table.sum(axis=1, keepdims=True) + table.sum(axis=0) - table
        overlap += np.divide(table, union, out=np.zeros_like(table), where=union > 0).max(axis=1)
    return replace(result, table=result.table.assign(stability=overlap / len(others)))
