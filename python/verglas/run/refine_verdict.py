"""The verdict on a finished refinement: what half maps say of particles that they were not made from, and of views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verglas.assessment import Postprocessed
from verglas.assessment.directional import directional_fsc
from verglas.assessment.judge import judge_directions, judge_gain, judge_orientations, judge_unexplained
from verglas.geometry import parse_symmetry
from verglas.map_geometry.sphere import spherical_average
from verglas.refinement.problem import RefineProblem
from verglas.refinement.state import State
from verglas.refinement.update import ClassMaps
from verglas.run.credible import COLUMN, FAR_COLUMN
from verglas.run.held_out import HeldOut
from verglas.run.refine_hidden_symmetry import hidden_symmetry
from verglas.run.refine_symmetry import symmetry_findings, weighted_half_map
from verglas.types import Map, Particles
from verglas.types.arrays import FloatArray
from verglas.types.listener import Progress, count_phase
from verglas.types.verdict import Finding, Verdict

_FAINT = 0.5  # of the maps' amplitude, where the whole explains nothing


def judge_refinement(
    problem: RefineProblem,
    state: State,
    maps: Sequence[ClassMaps],
    assessments: Sequence[Postprocessed],
    particles: Particles,
    progress: Progress | None = None,
) -> Verdict:
    """Verdict on the maps of the last iteration.

    Parameters
    ----------
    problem : RefineProblem
    state : State
        At the end.
    maps : sequence of ClassMaps
        One per class.
    assessments : sequence of Postprocessed
        Of each class.
    particles : Particles
        With the last poses, classes and half sets.
    progress : callable, optional
        Called with a phase, how much of it is done, and how much there is.

    Returns
    -------
    Verdict
        Findings ``signal``, ``weak-signal`` or ``noise``; for the largest class ``directions`` or
        ``restricted-views``; perhaps ``unexplained-particles``; of likelihoods ``orientations`` or
        ``uncertain-orientations``; under a point group ``symmetry-supported``, ``symmetry-undecided`` or
        ``symmetry-not-supported``, without one perhaps ``looks-symmetric``.
    """
    evidence = held_out_evidence(problem, state, maps, progress)
    gain = gain_over_blob(*evidence)
    findings: list[Finding] = [judge_gain(gain)]
    if findings[0].code == "noise":
        faint = gain_over_blob(*held_out_evidence(problem, state, maps, progress, amplitude=_FAINT))
        findings = [judge_gain(gain, faint)]
    largest = int(np.argmax(state.halves[0].class_weight + state.halves[1].class_weight))
    # A map of noise is asked no more: its views and its symmetry mean nothing.
    if findings[0].state != "stop":
        first, second = (Map(v, problem.pixel_size_A) for v in maps[largest].raw)
        threads = problem.threads
        directional = directional_fsc(first, second, assessments[largest].mask, threads=threads)
        findings.append(judge_directions(directional))
        if findings[0].code == "signal":  # a map too weak as it is explains no particle
            findings += judge_unexplained(*evidence)
        if parse_symmetry(problem.symmetry) != "C1":
            findings += symmetry_findings(problem, state, maps[largest], particles, largest, progress)
        hidden = _hidden_symmetry(problem, state, maps, progress)
        if COLUMN in particles.table and not hidden:  # copies under a hidden group are places that fit as well
            radius, far = (particles.table[name].to_numpy(float) for name in (COLUMN, FAR_COLUMN))
            findings.append(judge_orientations(radius, far))
        findings += hidden
    return Verdict.of(findings, "report.html")


def _hidden_symmetry(
    problem: RefineProblem, state: State, maps: Sequence[ClassMaps], progress: Progress | None
) -> list[Finding]:
    if parse_symmetry(problem.symmetry) != "C1" or len(maps) > 1 or problem.correlation:
        return []
    return hidden_symmetry(problem, state, maps[0], progress)


def held_out_evidence(
    problem: RefineProblem,
    state: State,
    maps: Sequence[ClassMaps],
    progress: Progress | None = None,
    *,
    amplitude: float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Log evidence of particles under the map of the half that they are not in, and under its spherical average, nats.

    Both are over that of no density (:class:`verglas.run.held_out.HeldOut`).

    Parameters
    ----------
    problem : RefineProblem
    state : State
        At the end.
    maps : sequence of ClassMaps
        One per class.
    progress : callable, optional
        Called with a phase, how much of it is done, and how much there is.
    amplitude : float
        Factor of the maps. A half map of few particles holds noise that costs evidence with the square of its
        amplitude, while what is right in it gains linearly: half of a weak map may explain what the whole does not.
    """
    held_out, rounds = [HeldOut.of(problem, state, half) for half in (1, 2)], []
    phase = "verdict, held-out particles" + (", weaker maps" if amplitude < 1 else "")
    tick = count_phase(progress, phase, 2 * sum(len(half.rows) for half in held_out))
    for number, half in enumerate(held_out):
        volumes = amplitude * np.stack([weighted_half_map(problem, one, number, half.step.radius) for one in maps])
        volumes = volumes.astype(np.float32)
        blobs = np.stack([spherical_average(v) for v in volumes]).astype(np.float32)
        rounds.append((half.evidence(volumes, tick), half.evidence(blobs, tick, round_maps=True)))
    evidence, blob = (np.concatenate(parts) for parts in zip(*rounds, strict=True))
    return evidence, blob


def gain_over_blob(evidence: FloatArray, blob: FloatArray) -> FloatArray:
    """What the map explains over its spherical average, nats.

    For images of noise the mean is below zero, whatever was aligned to what in making the maps: a likelihood ratio of
    independent data has mean 1. Where the spherical average explains the particles worse than no density does, the gain
    is over none: an overfitted blob must not make a map look good.
    """
    return evidence - blob if blob.mean() > 0 else evidence
