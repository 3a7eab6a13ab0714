"""Which of several ab initio starts to believe: ranking by held-out evidence, agreement, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import scipy.special
from scipy.optimize import linear_sum_assignment

from verglas import fourier
from verglas.assessment import FSC, fsc
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start, evaluate_held_out
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps, turned_map
from verglas.map_geometry.sphere import aspherical_part, spherical_average
from verglas.search.problem import Problem
from verglas.types import Map
from verglas.types.arrays import FloatArray, IntArray

Kind = Literal["found", "minority", "unconfirmed", "undecided", "noise"]

# "undecided" starts gave a map better than noise: which of them to believe is for a person to say
VERDICT_STATES = {"found": "go on", "minority": "warn", "unconfirmed": "warn", "undecided": "warn", "noise": "stop"}

_AGREE_A = 1.4  # starts agree if their FSC stays above 0.5 to this times the final resolution
_ROUND = 1e-3  # a shell with less than this share of its power off the spherical average has nothing else to compare
_SIGMAS = 3.0  # mean gain of the evidence, in its standard errors, that is no accident
_LEAST_GAIN = 0.2  # nats per particle: less than this and poses would be all but uniform


@dataclass(frozen=True)
class Comparison:
    """A start turned onto the best one.

    Attributes
    ----------
    number : int
        Of the start.
    maps : list of Map
        Its maps, one per class in the order of the best start's classes, turned, of the best start's hand.
    mirrored : list of bool
        Which of them had the other hand.
    correlation : list of float
        With the best start's map.
    curves : list of FSC
        Against the best start's map, both without their spherical averages (:func:`aspherical_fsc`).
    """

    number: int
    maps: list[Map]
    mirrored: list[bool]
    correlation: list[float]
    curves: list[FSC]

    @property
    def agreement_A(self) -> float:
        """Where the FSC falls to 0.5, of the worst class."""
        return max(c.resolution_A(0.5) for c in self.curves)


class HasEvidence(Protocol):
    """A start, as far as a verdict needs it."""

    @property
    def evidence(self) -> FloatArray:
        """Log evidence of each held-out image."""


@dataclass(frozen=True)
class Verdict:
    """What several starts amount to.

    Attributes
    ----------
    kind : {"found", "minority", "unconfirmed", "undecided", "noise"}
        Half of the starts or more agree; fewer do; only one start was made; they disagree; the images are no better
        explained than by a blob.
    sentence : str
        For a person.
    gain : float
        Mean log evidence of held-out particles over that of the map's spherical average, nats per particle.
    gain_error : float
        Its standard error.
    agreeing : int
        Starts that agree with the best, itself included.
    starts : int
        All of them.
    """

    kind: Kind
    sentence: str
    gain: float
    gain_error: float
    agreeing: int
    starts: int

    @property
    def state(self) -> str:
        """Whether to go on: "go on", "warn" or "stop"."""
        return VERDICT_STATES[self.kind]


def rank_starts(starts: Sequence[Start]) -> list[Start]:
    """Starts by falling evidence of the held-out particles."""
    return sorted(starts, key=lambda s: (-s.score, s.number))


def aspherical_fsc(first: Map, second: Map, *, threads: int | None = None) -> FSC:
    """FSC of two masked maps without their spherical averages, which agree whatever the poses.

    Round particles (apoferritin, viruses) are nearly all spherical average: any two maps of them, right or wrong, agree
    far beyond where their orientations mean anything. Shells that hold nothing else (less than a thousandth of the
    power of either map) keep the ordinary FSC.

    Parameters
    ----------
    first, second : Map
        Masked, one turned onto the other.
    threads : int, optional
        Threads; all by default.

    Examples
    --------
    >>> import numpy as np
    >>> import verglas as vg
    >>> from verglas.initial_model.consensus import aspherical_fsc
    >>> from verglas.map_geometry.sphere import spherical_average
    >>> m = vg.simulate.density(vg.simulate.phantom(32, 4.0, 90.0), 32, 4.0)
    >>> other = vg.simulate.density(vg.simulate.phantom(32, 4.0, 90.0, seed=1), 32, 4.0)
    >>> shell = spherical_average(m.data)  # the same in both
    >>> two = [vg.Map(5 * shell + v, 4.0) for v in (m.data, other.data)]
    >>> bool(vg.fsc(*two).curve[3] > 0.9), bool(aspherical_fsc(*two).curve[3] < 0.1)
    (True, True)
    """
    flat = [aspherical_part(m.data) for m in (first, second)]
    whole = fsc(first, second, threads=threads)
    rest = fsc(*(Map(v, first.pixel_size_A) for v in flat), threads=threads)
    round_ = np.zeros(len(rest.curve), bool)
    for v, m in zip(flat, (first, second), strict=True):
        # In a shell that is all spherical average the rest is rounding, whose correlation would be noise.
        rest_power, power = (fourier.power_spectrum(x, 3, threads=threads) for x in (v, m.data))
        round_ |= rest_power < _ROUND * power
    return replace(rest, curve=np.where(round_, whole.curve, rest.curve))


def compare(problem: Problem, best: Start, other: Start, radius: int) -> Comparison:
    """Turn the maps of a start onto those of the best, either hand, classes in the order that fits best.

    The rotation is sought, and agreement measured, on what is left without the spherical averages.
    """
    classes = len(best.model.volumes)
    pixel, threads = problem.pixel_size_A, problem.threads
    ours, theirs = (s.model.volumes * problem.sphere for s in (best, other))
    onto, score = {}, np.empty((classes, classes))
    for i in range(classes):
        for j in range(classes):
            onto[i, j] = turn_onto(Map(ours[i], pixel), Map(theirs[j], pixel), radius, threads)
            score[i, j] = onto[i, j].correlation
    matches = [(i, onto[i, j]) for i, j in zip(*linear_sum_assignment(-score), strict=True)]
    curves = [aspherical_fsc(Map(ours[i], pixel), f.map, threads=threads) for i, f in matches]
    return Comparison(
        other.number,
        [f.map for _, f in matches],
        [f.mirrored for _, f in matches],
        [f.correlation for _, f in matches],
        curves,
    )


@dataclass(frozen=True)
class Turned:
    """A map turned onto another, of the hand that fits better."""

    map: Map
    mirrored: bool
    correlation: float


def turn_onto(target: Map, volume: Map, radius: int, threads: int | None) -> Turned:
    """Turn a map onto another by what is left of both without their spherical averages."""
    flat = replace(target, data=aspherical_part(target.data))
    trials = []
    for mirrored, data in ((False, volume.data), (True, flip_hand(volume.data))):
        aligned = align_maps(flat, replace(volume, data=aspherical_part(data)), max_radius=radius, threads=threads)
        trials.append((aligned.correlation, mirrored, data, aligned.matrix))
    correlation, mirrored, data, matrix = max(trials, key=lambda m: m[0])
    return Turned(replace(volume, data=turned_map(data, matrix, threads=threads)), mirrored, correlation)


def common_noise(starts: Sequence[Start]) -> FloatArray:
    """Noise under which starts are compared: the geometric mean of theirs, (groups, shells)."""
    return np.asarray(np.exp(np.mean([np.log(s.model.sigma2) for s in starts], axis=0)))


def blob_evidence(
    problem: Problem, settings: AbInitioSettings, best: Start, held_out: IntArray, sigma2: FloatArray
) -> FloatArray:
    """Log evidence of the held-out particles where every map is replaced by its spherical average."""
    round_ = np.stack([spherical_average(v * problem.sphere) for v in best.model.volumes])
    # Round maps look the same from everywhere: the smallest asymmetric unit stands for all directions.
    return evaluate_held_out(problem.under("I"), settings, replace(best.model, volumes=round_), held_out, sigma2)


def agreeing_starts(comparisons: Sequence[Comparison], final_resolution_A: float) -> list[Comparison]:
    """Those whose FSC with the best stays above 0.5 to nearly the final resolution."""
    return [c for c in comparisons if c.agreement_A <= _AGREE_A * final_resolution_A]


def judge(
    best: HasEvidence,
    blob: FloatArray,
    comparisons: Sequence[Comparison],
    final_resolution_A: float,
    items: str = "particles",
    baseline: str = "a round blob",
) -> Verdict:
    """Verdict from evidence and agreement.

    Parameters
    ----------
    best : HasEvidence
    blob : (held out,) float64
        Evidence of the spherical average.
    comparisons : sequence of Comparison
        All other starts with the best.
    final_resolution_A : float
        Of the data used.
    items, baseline : str
        What the images are, and what the map is compared with, in words.
    """
    # The evidence of a map without density is 0: an overfitted blob must not make the map look good.
    difference = best.evidence - blob if blob.mean() > 0 else best.evidence
    gain, error = float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
    agreeing = 1 + len(agreeing_starts(comparisons, final_resolution_A))
    total = 1 + len(comparisons)
    # Student's quantile where the normal one is three: of a few averages a standard error is itself uncertain.
    sigmas = float(scipy.special.stdtrit(len(difference) - 1, scipy.special.ndtr(_SIGMAS)))
    has_structure = gain > max(sigmas * error, _LEAST_GAIN)
    if not has_structure:
        return Verdict(
            "noise",
            f"No structure to be seen: {len(difference)} {items} that no start learned from are explained no better by "
            f"the map than by {baseline}, beyond chance ({gain:+.2f} +- {error:.2f} nats each). Do not refine this "
            f"map; look at the {items}, or make more starts.",
            gain,
            error,
            agreeing,
            total,
        )
    better = (
        f"{items} that no start learned from are explained better than by {baseline}, "
        f"by {gain:.1f} nats of log-likelihood each"
    )
    if total == 1:
        kind: Kind = "unconfirmed"
        sentence = (
            f"One start only: {better}, but whether another ends in the same map is not known. Make three or more."
        )
    elif agreeing == 1:
        kind = "undecided"
        sentence = (
            f"The {total} starts ended in different maps; {better}, but which map is right is not known. Make more "
            f"starts, or use more {items}."
        )
    else:
        kind = "found" if 2 * agreeing >= total else "minority"
        few = "Only " if kind == "minority" else ""
        doubt = f" Most starts ended elsewhere: look at the map before it is refined, or use more {items}."
        sentence = (
            f"{few}{agreeing} of {total} starts agree; {better}. The hand is undetermined: the mirror image explains "
            f"the images as well.{doubt if few else ''}"
        )
    return Verdict(kind, sentence, gain, error, agreeing, total)
