"""Which of several ab initio starts to believe: ranking by held-out evidence, agreement, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from verglas.assessment import FSC, fsc
from verglas.refinement.abinitio import AbInitioSettings, Start, held_evidence
from verglas.refinement.abinitio_centre import spherical_average
from verglas.refinement.map_alignment import align_maps, flip_hand
from verglas.refinement.problem import Problem
from verglas.types import Map

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Volume = npt.NDArray[np.float32]
Kind = Literal["found", "unconfirmed", "undecided", "noise"]

_AGREE_A = 1.7  # starts agree if their FSC stays above 0.5 to this times the final resolution
_SIGMAS = 4.0  # mean gain of the evidence, in its standard errors, that is no accident
_LEAST_GAIN = 1.0  # nats per particle: less than this and poses would be all but uniform


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
        Against the best start's map, in the sphere.
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


@dataclass(frozen=True)
class Verdict:
    """What several starts amount to.

    Attributes
    ----------
    kind : {"found", "unconfirmed", "undecided", "noise"}
        Starts agree; only one start was made; they disagree; the images are no better explained than by a blob.
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


def ranked(starts: Sequence[Start]) -> list[Start]:
    """Starts by falling evidence of the held-out particles."""
    return sorted(starts, key=lambda s: (-s.score, s.number))


def compare(problem: Problem, best: Start, other: Start, radius: int) -> Comparison:
    """Turn the maps of a start onto those of the best, either hand, classes in the order that fits best."""
    classes = len(best.model.volumes)
    pixel, threads = problem.pixel_size_A, problem.settings.threads
    found = {}
    score = np.empty((classes, classes))
    for i in range(classes):
        target = Map(best.model.volumes[i] * problem.sphere, pixel)
        for j in range(classes):
            volume = other.model.volumes[j] * problem.sphere
            hands = [align_maps(target, Map(v, pixel), max_radius=radius, threads=threads)
                     for v in (volume, flip_hand(volume))]  # fmt: skip
            mirrored = hands[1].correlation > hands[0].correlation
            found[i, j] = (hands[int(mirrored)], mirrored)
            score[i, j] = found[i, j][0].correlation
    rows, columns = linear_sum_assignment(-score)
    chosen = [found[i, j] for i, j in zip(rows, columns, strict=True)]
    curves = [
        fsc(Map(best.model.volumes[i], pixel), aligned.map, problem.sphere, threads=threads)
        for i, (aligned, _) in enumerate(chosen)
    ]
    return Comparison(
        other.number, [a.map for a, _ in chosen], [bool(m) for _, m in chosen], [a.correlation for a, _ in chosen],
        curves,
    )  # fmt: skip


def one_noise(starts: Sequence[Start]) -> FloatArray:
    """Noise under which starts are compared: the geometric mean of theirs, (groups, shells)."""
    return np.asarray(np.exp(np.mean([np.log(s.model.sigma2) for s in starts], axis=0)))


def blob_evidence(
    problem: Problem, settings: AbInitioSettings, best: Start, held: IntArray, sigma2: FloatArray
) -> FloatArray:
    """Log evidence of the held-out particles where every map is replaced by its spherical average."""
    round_ = np.stack([spherical_average(v * problem.sphere) for v in best.model.volumes])
    return held_evidence(problem, settings, replace(best.model, volumes=round_), held, sigma2)


def judge(best: Start, blob: FloatArray, comparisons: Sequence[Comparison], final_resolution_A: float) -> Verdict:
    """Verdict from evidence and agreement.

    Parameters
    ----------
    best : Start
    blob : (held out,) float64
        Evidence of the spherical average.
    comparisons : sequence of Comparison
        All other starts with the best.
    final_resolution_A : float
        Of the data used.
    """
    # The evidence of a map without density is 0: an overfitted blob must not make the map look good.
    difference = best.evidence - np.maximum(blob, 0.0)
    gain, error = float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
    agreeing = 1 + sum(c.agreement_A <= _AGREE_A * final_resolution_A for c in comparisons)
    total = 1 + len(comparisons)
    explained = gain > max(_SIGMAS * error, _LEAST_GAIN)
    if not explained:
        return Verdict(
            "noise",
            f"No structure: images that took no part are explained no better by the map than by a round blob "
            f"({gain:+.2f} +- {error:.2f} nats per particle). Do not refine this map; look at the particles.",
            gain, error, agreeing, total,
        )  # fmt: skip
    better = f"images that took no part are better explained by {gain:.1f} nats per particle than by a round blob"
    if total == 1:
        kind: Kind = "unconfirmed"
        said = f"One start only: {better}, but whether another ends in the same map is not known. Make three or more."
    elif agreeing == 1:
        kind = "undecided"
        said = (
            f"The {total} starts ended in different maps; {better}, but which map is right is not known. Make more "
            "starts, or use more particles."
        )
    else:
        kind = "found"
        said = (
            f"{agreeing} of {total} starts agree; {better}. The hand is undetermined: the mirror image explains the "
            "images as well."
        )
    return Verdict(kind, said, gain, error, agreeing, total)
