"""What a refinement begins with: half sets, references and a memory plan made anew, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verglas import filters
from verglas.errors import InputError
from verglas.image import in_memory
from verglas.io.image_cache import ImageCache
from verglas.map_geometry.symmetry_search import mass_centre
from verglas.reconstruction import reconstruct
from verglas.reconstruction.half_sets import split_halves
from verglas.refinement import schedule, start
from verglas.refinement.em import initial_state
from verglas.refinement.problem import RefineProblem
from verglas.refinement.settings import RefineSettings
from verglas.refinement.state import State
from verglas.regularisation import Prior
from verglas.run.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from verglas.run.refine_folder import RefineFolder
from verglas.run.refine_inputs import as_map, close_identity, differences, fit_to_particles, fits_in_memory, fitted_mask
from verglas.run.refine_memory import MemoryPlan, plan_memory, with_plan
from verglas.run.refine_symmetry import upright_references
from verglas.run.set_aside import set_aside_sentence, set_aside_table
from verglas.search.problem import survey
from verglas.search.step import Step
from verglas.types import Map, Particles
from verglas.types.arrays import IntArray
from verglas.types.images import ArraySource
from verglas.types.listener import Listener, phase_progress
from verglas.types.verdict import Finding

Reference = Map | str | Path

_CENTRED_AT_A = 20.0  # resolution at which the place of a reference is judged
# Of a smooth reference: what counts as its density, of its maximum; and the share of it that may lie elsewhere.
_DENSE, _MOST_BEYOND = 0.2, 0.15


@dataclass(frozen=True)
class Around:
    """Where a refinement writes, what memory it may take, who listens, what it runs on; the caller's prior, a cache."""

    folder: RefineFolder | None
    limit_GB: float
    listener: Listener
    devices: tuple[str, ...]
    threads: int | None
    prior: Prior | None = None
    cache: ImageCache | None = None


@dataclass(frozen=True)
class Setup:
    """Everything that iterations need."""

    problem: RefineProblem
    plan: MemoryPlan
    state: State
    step: Step | None
    excluded: dict[int, str]
    inputs: dict[str, Any]
    used: Particles
    read_from: Particles  # the same, with images from the cache where there is one


def _open(particles: Particles, around: Around) -> tuple[Particles, Particles, bool]:
    """The particles with images from the cache where one is asked for; what is worked on; whether it is in memory."""
    keep = fits_in_memory(particles, around.limit_GB)
    stored = particles
    if around.cache is not None:
        stored = around.cache.open(particles, phase_progress(around.listener, "filling the cache"))
    work = in_memory(stored, around.listener) if keep else stored
    return stored, work, keep


def _planned(
    problem: RefineProblem, around: Around, stored: Particles, *, keep: bool
) -> tuple[RefineProblem, MemoryPlan]:
    """The problem with a plan of its memory: images that have no room beside the sums are read anew in every pass."""
    try:
        plan = plan_memory(problem, around.limit_GB, cached=keep)
    except InputError:
        if not keep or isinstance(stored.source, ArraySource):
            raise
        plan = plan_memory(problem, around.limit_GB, cached=False)
        # The table, too: the sign of cryoSPARC's images is applied when they are read.
        problem = replace(problem, particles=stored.with_columns(rlnRandomSubset=problem.half))
    return with_plan(problem, plan), plan


def start_run(
    particles: Particles,
    references: list[Reference],
    mask: Reference | None,
    settings: RefineSettings,
    around: Around,
) -> Setup:
    """From particles and references; the folder, where there is one, holds a first checkpoint then."""
    folder = around.folder
    if particles.source is None:
        raise InputError(f"{particles.where}: these particles have no images")
    if particles.poses is None and (settings.prior_deg or settings.prior_A):
        raise InputError(f"{particles.where}: refine: a prior about given poses, but these particles have none")
    # References and mask before images are read: what is wrong with them is told in seconds.
    maps, notes = _fit_references(references, particles, settings)
    window = None if mask is None else fitted_mask(as_map(mask), particles)
    maps, more = upright_references(maps, settings, mask_given=window is not None, threads=around.threads)
    notes += more
    stored, work, keep = _open(particles, around)
    progress = phase_progress(around.listener, "inspecting particles")
    inspection = survey(work, threads=around.threads, device=around.devices[0], progress=progress)
    usable = np.setdiff1d(np.arange(len(particles)), list(inspection.excluded))
    # Halves of usable particles only: set aside after the split, they would leave it uneven.
    work, more = _with_halves(work, usable, inspection.copy_of, settings.seed)
    notes += more
    problem = start.make_problem(
        work,
        inspection.excluded,
        settings,
        n_classes=settings.classes,
        mask_given=window is not None,
        threads=around.threads,
    )
    problem = replace(problem, devices=around.devices, map_prior=around.prior)
    problem, plan = _planned(problem, around, stored[usable], keep=keep)
    del work  # or its images would stay where the plan has no room for them
    if not maps:
        maps, more = _from_poses(problem)
        notes += more
    state, more = initial_state(problem, inspection.power[usable], maps, window)
    notes += more + _set_aside_notes(inspection.excluded)
    for note in notes:
        around.listener.say(note.sentence)
    step = schedule.first_step(problem, split=len(maps) < settings.classes)
    inputs = {} if folder is None else close_identity(particles)
    if folder is not None:
        folder.begin(problem, plan, set_aside_table(particles, inspection.excluded), notes)
        # The checkpoint first: a run that says that it runs can be resumed.
        write_checkpoint(folder.folder, Checkpoint(state, step, problem.half, inspection.excluded, inputs))
        folder.mark_running()
    return Setup(problem, plan, state, step, inspection.excluded, inputs, particles[usable], stored[usable])


def _with_halves(
    particles: Particles, usable: IntArray, copy_of: IntArray, seed: int
) -> tuple[Particles, list[Finding]]:
    """The particles with half sets that can be used, and what was done to them."""
    if len(usable) < 2:
        return particles, []  # too few, which the problem says
    place = np.full(len(particles), -1)
    place[usable] = np.arange(len(usable))
    copies = place[copy_of[usable]]
    # A copy whose first is set aside stands for itself.
    halves = split_halves(particles[usable], seed=seed, copy_of=np.where(copies < 0, np.arange(len(usable)), copies))
    # RELION knows 1 and 2 only; those set aside are in no sum, whatever stands there.
    half = np.ones(len(particles), np.int64)
    half[usable] = halves.half
    return particles.with_columns(rlnRandomSubset=half), list(halves.notes)


def _fit_references(
    references: list[Reference], particles: Particles, settings: RefineSettings
) -> tuple[list[Map], list[Finding]]:
    """The references on the particles' pixels, and what was done to them."""
    maps, notes = [], []
    for number, reference in enumerate(references, 1):
        name = "the reference" if len(references) == 1 else f"reference {number}"
        fits, more = fit_to_particles(as_map(reference), particles, name, settings.diameter_A)
        maps.append(fits)
        notes += more + _off_centre(fits, particles, settings, name) + _beyond_diameter(fits, settings, name)
    if len(maps) > 1 and settings.classes != len(maps):
        raise InputError(f"refine: {len(maps)} references but classes = {settings.classes}; leave classes out")
    if settings.mode == "max-cc" and len(maps) < settings.classes:
        raise InputError("refine: mode max-cc tells classes apart only with one reference for each")
    return maps, notes


def _off_centre(reference: Map, particles: Particles, settings: RefineSettings, name: str) -> list[Finding]:
    """Whether particles would have to be moved farther than is searched to lie as the reference does."""
    if settings.poses == "local":
        return []
    smooth = filters.apply(reference, filters.low_pass(max(_CENTRED_AT_A, 2.05 * reference.pixel_size_A)))
    away_A = float(np.linalg.norm(mass_centre(smooth.data))) * reference.pixel_size_A
    poses = particles.poses
    known_A = 0.0 if poses is None else float(np.sqrt(np.square(poses.shifts_A).sum(axis=1).mean()))
    # Origins as large are those of an earlier alignment to a map that lay there, and the search begins at them.
    if away_A <= settings.shift_range_A or known_A > 0.5 * away_A:
        return []
    sentence = (
        f"{name} lies {away_A:.0f} A from the centre of its box, and shifts are searched to {settings.shift_range_A:g} "
        f"A: particles that lie in the middle of their images cannot be found where it is; move it to the centre, or "
        f"give a larger --shift-range"
    )
    return [Finding("reference_off_centre", "warn", sentence, {"away_A": away_A, "searched_A": settings.shift_range_A})]


def _beyond_diameter(reference: Map, settings: RefineSettings, name: str) -> list[Finding]:
    """Whether a part of the particle lies outside of the diameter, as where a radius or pixels were given for it."""
    diameter_A = settings.diameter_A
    if diameter_A is None:
        return []
    # What is no density at all is refused where the reference meets the particles.
    smooth = filters.apply(reference, filters.low_pass(max(_CENTRED_AT_A, 2.05 * reference.pixel_size_A))).data
    dense = np.where(smooth > _DENSE * smooth.max(), smooth, 0.0)
    axes = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in smooth.shape)]
    away_A = np.sqrt(sum(axis.astype(float) ** 2 for axis in axes)) * reference.pixel_size_A
    total = float(dense.sum())
    share = float(dense[away_A > diameter_A / 2].sum()) / total if total > 0 else 0.0
    if share <= _MOST_BEYOND:
        return []
    order = np.argsort(away_A, axis=None)
    inside = np.cumsum(dense.ravel()[order])
    reach_A = 2 * float(away_A.ravel()[order][np.searchsorted(inside, 0.99 * inside[-1])])
    sentence = (
        f"{100 * share:.0f} % of the density of {name} lies outside of a diameter of {diameter_A:g} A, beyond which "
        f"particles are masked; 99 % of it lie within {reach_A:.0f} A: is the diameter a radius, or in pixels?"
    )
    numbers = {"share_beyond": share, "diameter_A": diameter_A, "reach_A": reach_A}
    return [Finding("reference_beyond_diameter", "warn", sentence, numbers)]


def _set_aside_notes(excluded: Mapping[int, str]) -> list[Finding]:
    """How many particles, and the first of them."""
    sentence = set_aside_sentence(excluded)
    return [Finding("set_aside", "warn", sentence, {"particles": len(excluded)})] if sentence else []


def _from_poses(problem: RefineProblem) -> tuple[list[Map], list[Finding]]:
    """Without a reference: the map of the poses that the particles have."""
    if problem.settings.poses != "local":
        raise InputError(
            "refine: a global search needs a reference; give one, or poses='local' to start from the "
            "particles' own poses"
        )
    if problem.particles.poses is None:
        raise InputError("refine: poses='local', but the particles have no poses and there is no reference")
    finest = problem.settings.initial_resolution_A
    volume = reconstruct(
        problem.particles,
        problem.settings.symmetry,
        max_resolution_A=0.8 * finest,
        threads=problem.threads,
        listener=None,
    )
    return [volume], [Finding("own_poses", "go on", "the first reference was made from the poses of the particles")]


def resume_run(particles: Particles, settings: RefineSettings, around: Around, *, is_forced: bool) -> Setup:
    """From the checkpoint in the folder; ``is_forced`` is a mask that was given."""
    folder = around.folder
    assert folder is not None
    checkpoint = read_checkpoint(folder.folder)
    inputs = close_identity(particles)
    different = differences(checkpoint.inputs, inputs)
    if different:
        raise InputError(f"{folder.folder}: this run was started with other particles ({different})")
    stored, work, keep = _open(particles, around)
    usable = np.setdiff1d(np.arange(len(particles)), list(checkpoint.excluded))
    half = np.ones(len(particles), np.int64)
    # Not drawn anew: a particle that changed sides would take what its old half knows of it along.
    half[usable] = checkpoint.half
    work = work.with_columns(rlnRandomSubset=half)
    problem = start.make_problem(
        work,
        checkpoint.excluded,
        settings,
        n_classes=settings.classes,
        mask_given=is_forced,
        threads=around.threads,
    )
    problem = replace(problem, half=checkpoint.half, devices=around.devices, map_prior=around.prior)
    problem, plan = _planned(problem, around, stored[usable], keep=keep)
    folder.plan(plan, around.devices)
    folder.mark_running()
    return Setup(
        problem,
        plan,
        checkpoint.state,
        checkpoint.step,
        checkpoint.excluded,
        inputs,
        particles[usable],
        stored[usable],
    )
