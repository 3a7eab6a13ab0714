"""The verdict on a finished refinement: what half maps say of particles that they were not made from, and of views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verglas import fourier
from verglas.assessment import Postprocessed
from verglas.assessment.directional import directional_fsc
from verglas.assessment.judge import judge_directions, judge_gain
from verglas.geometry import healpix_spacing_deg
from verglas.initial_model.batch_step import BatchStep
from verglas.map_geometry.sphere import spherical_average
from verglas.refinement import schedule
from verglas.refinement.problem import RefineProblem
from verglas.refinement.state import State
from verglas.refinement.update import ClassMaps
from verglas.run.refine_symmetry import symmetry_findings, weighted_half_map
from verglas.search.grid_step import Tick
from verglas.search.pose_step import coarse_radius
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Map, Particles
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.listener import Progress, counted
from verglas.types.verdict import Finding, Verdict

_MOST = 300  # held-out particles of each half
_BEYOND = 4  # shells beyond the joined ones that are scored whatever the resolution
_ORDER = 3  # 7.3 degrees: what a grid of this spacing resolves tells structure from noise
_SILENT = 1e12  # times the noise: shells that do not count


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
        Findings ``signal`` or ``noise``; for the largest class ``directions`` or ``restricted-views``, under a point
        group ``symmetry-supported``, ``symmetry-undecided`` or ``symmetry-not-supported``.
    """
    findings: list[Finding] = [judge_gain(held_out_gain(problem, state, maps, progress))]
    largest = int(np.argmax(state.halves[0].class_weight + state.halves[1].class_weight))
    if findings[0].state != "stop":
        first, second = (Map(v, problem.pixel_size_A) for v in maps[largest].raw)
        threads = problem.threads
        directional = directional_fsc(first, second, assessments[largest].mask, threads=threads)
        findings.append(judge_directions(directional))
        findings += symmetry_findings(problem, state, maps[largest], particles, largest, progress)
    return Verdict.of(findings, "report.html")


def held_out_gain(
    problem: RefineProblem, state: State, maps: Sequence[ClassMaps], progress: Progress | None = None
) -> FloatArray:
    """Log evidence of particles under the map of the half that they are not in, over its spherical average, nats.

    All poses of a grid are summed over, from the particles' centres as they came. Shells at which the halves were
    joined do not count: there each half's map has seen the other's particles. Noise has the power of whole images,
    which only lowers the gain. For images of noise the mean is below zero, whatever was aligned to what in making the
    maps: a likelihood ratio of independent data has mean 1.
    """
    first_shell = max(1, int(np.ceil(problem.shell_of(problem.settings.join_resolution_A))))
    serves = coarse_radius(problem, healpix_spacing_deg(_ORDER))
    last = min(problem.last_radius, max(first_shell + _BEYOND, min(int(state.resolution_shell), serves)))
    step = schedule.make_step(problem, "grid", last, _ORDER, problem.settings.shift_range_A / problem.pixel_size_A)
    alone = replace(problem, devices=("cpu",), batch=0)
    gains = []
    chosen = [problem.rows_of_half(half) for half in (2, 1)]
    chosen = [rows[:: max(1, len(rows) // _MOST)][:_MOST] for rows in chosen]
    tick = counted(progress, "verdict, held-out particles", 2 * sum(map(len, chosen)))
    for half, rows in zip((1, 2), chosen, strict=True):
        sigma2 = _power(alone, rows)
        sigma2[:, : first_shell + 1] *= _SILENT
        volumes = np.stack([weighted_half_map(problem, one, half - 1, last) for one in maps])
        blobs = np.stack([spherical_average(v) for v in volumes]).astype(np.float32)
        model = state.halves[half - 1]
        against = [
            _evidence(alone, replace(model, volumes=v, sigma2=sigma2), step, rows, tick) for v in (volumes, blobs)
        ]
        gains.append(against[0] - np.maximum(against[1], 0.0))
    return np.concatenate(gains)


def _power(problem: RefineProblem, rows: IntArray) -> FloatArray:
    """Mean power of these particles' images, (groups, shells); of all of them for a group with few."""
    shells = (problem.box - 1) // 2 + 1
    total, number = np.zeros((problem.n_groups, shells)), np.zeros(problem.n_groups)
    flat = fourier.shells((problem.box,) * 2).ravel()
    weight = np.broadcast_to(fourier.half_weights((problem.box,) * 2), (problem.box, problem.box // 2 + 1)).ravel()
    count = np.bincount(flat, weight)[:shells]
    for begin in range(0, len(rows), 64):
        some = rows[begin : begin + 64]
        spectra = np.abs(fourier.forward(problem.particles.images(some), 2)) ** 2
        for row, spectrum in zip(some, spectra, strict=True):
            total[problem.group[row]] += np.bincount(flat, spectrum.ravel() * weight)[:shells] / count
            number[problem.group[row]] += 1
    mean = total.sum(axis=0) / number.sum()
    power = np.where(number[:, None] >= 10, total / np.maximum(number, 1)[:, None], mean)
    power[:, 0] = power[:, 1]
    return np.maximum(power, 1e-12 * power.max())


def _evidence(problem: RefineProblem, model: HalfModel, step: Step, rows: IntArray, tick: Tick) -> FloatArray:
    grid_radius = min((problem.box - 1) // 2, step.insert_radius)
    return BatchStep(problem, model, step, grid_radius).evaluate(rows, PoseTable.unknown(len(problem)), tick)
