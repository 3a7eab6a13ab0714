"""Which point group a nearly round particle has, where its map without symmetry does not show it.

Capsids and cages (groups T, O, I) look like shells at the resolution of a first map, and a start without symmetry may
never find what tells their faces from their edges. A start under the right group sees every particle as often as the
group has elements. The groups are therefore tried from random starts; the best map of each learns on from finer data,
where a wrong structure has nothing to agree with, and held-out particles decide, under one noise for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from verglas.initial_model.batch_step import EVIDENCE_ALONE, BatchStep
from verglas.initial_model.course import Course, resample_to_box
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start, Tell, update_model
from verglas.refinement.schedule import angles_in_plane
from verglas.search.problem import Problem
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types.arrays import Float32Array, FloatArray, IntArray

CUBIC = ("T", "O", "I")
_PARTS = {"O": ("T",), "I": ("T",)}  # groups that are part of another; C1, part of all, has to be refuted
FINEST_A = 8.0  # helices show at 10
_STAGES, _PASSES = 3, 5
_COARSE_RADIUS, _ORDER = 17, 4  # the sampling of a start serves so many shells; beyond: HEALPix 4, 3.7 degrees
_SIGMAS = 2.0  # by which the winner's evidence must exceed another's, in standard errors of the difference


@dataclass(frozen=True)
class Contest:
    """How point groups did.

    Attributes
    ----------
    winner : str, optional
        The group that explains particles held out better than all others; None where none clearly does.
    evidence : dict of str -> float
        Mean log evidence of held-out particles under one noise, finer data included, nats.
    lead, lead_error : float
        Of the best over C1, and the standard error of the difference.
    resolution_A : float
        Of the data that decided.
    maps : dict of str -> (N, N, N) float32
        What each has learned.
    """

    winner: str | None
    evidence: dict[str, float]
    lead: float
    lead_error: float
    resolution_A: float
    maps: dict[str, Float32Array]

    @property
    def sentence(self) -> str:
        """For a person."""
        order = sorted(self.evidence, key=lambda g: (g != self.winner, -self.evidence[g]))
        figures = ", ".join(f"{g} {self.evidence[g]:.2f}" for g in order)
        words = (
            f"groups tried from random starts explain held-out particles, to {self.resolution_A:.1f} A, by "
            f"{figures} nats each"
        )
        if self.winner is None:
            return f"{words}: no group is clearly above the others"
        return (
            words
            if self.winner == "C1"
            else f"{words}; {self.winner} leads C1 by {self.lead:.2f} +- {self.lead_error:.2f}"
        )


def finer_model(coarse: HalfModel, problem: Problem, sigma2: FloatArray) -> HalfModel:
    """A model at the pixel size of another problem, its noise still to be learned."""
    volumes = np.stack([resample_to_box(v, problem.box) for v in coarse.volumes])
    return replace(coarse, volumes=volumes, sigma2=sigma2.copy())


def fine_step(course: Course, radius: int) -> Step:
    """Sampling of poses for data finer than those of a start."""
    step = course.step(radius)
    return step if radius <= _COARSE_RADIUS else replace(step, order=_ORDER, n_psi=angles_in_plane(_ORDER))


def contest(
    problem: Problem,
    settings: AbInitioSettings,
    sigma2: FloatArray,
    entrants: Mapping[str, Start],
    held_out: IntArray,
    tell: Tell | None = None,
) -> Contest:
    """Let starts under several point groups learn from finer data, and compare them on particles held out.

    Parameters
    ----------
    problem : Problem
        The same particles at a pixel size that holds 8 A.
    settings : AbInitioSettings
        Of the starts.
    sigma2 : (groups, shells) float64
        First noise there.
    entrants : mapping of str -> Start
        The best start under each group, C1 among them.
    held_out : (m,) int64
        Particles that none has learned from.
    tell : callable, optional
        Called after every pass with passes done and in all.
    """
    train = np.setdiff1d(np.arange(len(problem)), held_out)
    learned, folded = {}, {}
    course = Course(problem, replace(settings, final_resolution_A=FINEST_A), len(train))
    first, last = int(problem.shell_of(settings.final_resolution_A)), course.last_radius
    radii = [*np.linspace(first, last, _STAGES).round().astype(int), *[last] * (_PASSES - _STAGES)]
    for number, (group, start) in enumerate(entrants.items()):
        folded[group] = problem.under(group)
        model = finer_model(start.model, problem, sigma2)
        for pass_number, radius in enumerate(radii):
            step = BatchStep(folded[group], model, fine_step(course, int(radius)), course.grid_radius)
            model, _ = update_model(folded[group], model, step.sums(train, PoseTable.unknown(len(problem))))
            if tell is not None:
                tell(number * _PASSES + pass_number + 1, len(entrants) * _PASSES)
        learned[group] = model
    # A geometric mean: the evidence is nearly linear in log sigma^2, so that no group gains by having more noise.
    noise = np.exp(np.mean([np.log(m.sigma2) for m in learned.values()], axis=0))
    evidence = {
        group: BatchStep(
            folded[group], replace(model, sigma2=noise), fine_step(course, last), course.grid_radius, EVIDENCE_ALONE
        ).evaluate(held_out, PoseTable.unknown(len(problem)))
        for group, model in learned.items()
    }
    winner = _winner(evidence)
    lead = evidence[winner or best_group(evidence)] - evidence["C1"]
    return Contest(
        winner,
        {g: float(e.mean()) for g, e in evidence.items()},
        float(lead.mean()),
        standard_error(lead),
        problem.resolution_of_A(last),
        {g: m.volumes[0] for g, m in learned.items()},
    )


def standard_error(difference: FloatArray) -> float:
    """Of the mean."""
    return float(difference.std(ddof=1) / np.sqrt(len(difference)))


def exceeds(one: FloatArray, other: FloatArray, sigmas: float = _SIGMAS) -> bool:
    """Whether an evidence is clearly above another of the same particles."""
    return bool((one - other).mean() > sigmas * standard_error(one - other))


def best_group(evidence: Mapping[str, FloatArray]) -> str:
    """The group of the largest mean evidence."""
    return max(evidence, key=lambda g: float(evidence[g].mean()))


def _winner(evidence: Mapping[str, FloatArray]) -> str | None:
    """The group that must be: clearly above C1 and all groups that are no part of it.

    A map of the larger group is one of the smaller as well: where the larger explains as much, it is the one.
    """
    best = best_group(evidence)
    if best == "C1":
        return "C1"
    larger = [g for g in evidence if best in _PARTS.get(g, ()) and not exceeds(evidence[best], evidence[g])]
    if larger:
        best = max(larger, key=lambda g: float(evidence[g].mean()))
    rivals = [g for g in evidence if g != best and g not in _PARTS.get(best, ())]
    return best if all(exceeds(evidence[best], evidence[g]) for g in rivals) else None
