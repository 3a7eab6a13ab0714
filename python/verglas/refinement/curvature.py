"""Ewald's sphere in a refinement: its sign asked of held-out particles before every pass over continuous poses."""

from __future__ import annotations

from dataclasses import replace

from verglas.reconstruction.accumulate import Insertion, ReconstructSettings
from verglas.reconstruction.ewald_sign import find_sign
from verglas.refinement.problem import RefineProblem
from verglas.search.state import PoseTable
from verglas.search.step import Step
from verglas.types import Poses
from verglas.types.verdict import Finding


def on_the_sphere(problem: RefineProblem, poses: PoseTable, step: Step, notes: list[Finding]) -> RefineProblem:
    """The problem with the sign that the poses of the iteration before tell; without one, slices stay flat.

    Asked anew each time, so that a run that goes on from a checkpoint asks what one that went through has asked.
    """
    now = problem.particles.with_poses(Poses(poses.angles_deg, poses.origin_px * problem.pixel_size_A))
    diameter_A = problem.diameter_px * problem.pixel_size_A
    settings = ReconstructSettings(symmetry=problem.symmetry, ewald=True, diameter_A=diameter_A)
    insertion = Insertion(
        now,
        problem.half,
        2,
        problem.operators,
        step.insert_radius,
        settings,
        threads=problem.threads,
        device=problem.device,
    )
    evidence = find_sign(insertion)
    notes.append(Finding("ewald_sign", "go on", evidence.sentence(), evidence.as_dict()))
    return replace(problem, ewald_sign=evidence.sign)
