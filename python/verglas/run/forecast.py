"""How long a job will take, before it runs: operations counted, times of one core as fitted on runs of known length.

A pass over images scores them at every pose of a grid, works through the poses that may matter, prepares and adds up
images and slices, and makes maps. Each of these is counted; what one of them takes was fitted by
``bench/bench_time.py`` and is scaled by the speed of this machine (:func:`verglas.run.speed.machine_speed`). How many
passes there will be depends on the particles: a usual course is assumed, and the time that is left is corrected as the
job goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from verglas import ops
from verglas._native import resolve_threads
from verglas.classification import Class2DSettings
from verglas.classification.em2d import plan_stage
from verglas.classification.stages import first_radii, particles_of_seeding, seed_count, shift_range_px
from verglas.classification.working_set import Geometry, plan_geometry
from verglas.geometry import healpix_spacing_deg, unit_pixels
from verglas.initial_model.course import Course
from verglas.initial_model.find import count_held_out
from verglas.initial_model.settings import AbInitioSettings
from verglas.refinement import schedule
from verglas.refinement.problem import RefineProblem
from verglas.refinement.settings import RefineSettings
from verglas.run.held_out import MOST as MOST_HELD_OUT
from verglas.run.held_out import ROUND
from verglas.run.speed import machine_speed
from verglas.search.grid_step import MOST_CANDIDATES, wide_diameter_px
from verglas.search.pose_step import coarse_radius
from verglas.search.problem import Problem
from verglas.search.step import Step
from verglas.types import Particles
from verglas.types.arrays import FloatArray
from verglas.types.forecast import Forecast, Part

# What is counted, and what one of it takes on one core of the reference machine in seconds (bench/bench_time.py).
UNITS = ("scored", "listed", "pixels", "climbed", "slices", "inserted", "voxels", "passes")
SECONDS = np.array([2.44e-11, 4.03e-7, 7.33e-9, 1.4e-8, 1.29e-9, 5.07e-7, 2.29e-8, 0.0153])

# The usual course of a refinement: passes over a grid while poses are uncertain, then continuous ones.
_GRID_PASSES, _GLOBAL_PASSES, _LOCAL_PASSES = 2, 2, 2
_REACHED = 0.75  # of the last shell
_HIDDEN_SYMMETRY_S = 1.2
_START_S = 1.0


def work(
    *,
    images: int,
    box: int,
    narrow: ops.PolarGrid,
    wide: ops.PolarGrid,
    references: int,
    directions: int,
    n_psi: int,
    shifts: int,
    candidates: float,
    maps: int,
    sums: int,
    radius: int,
) -> FloatArray:
    """What a pass over a grid of poses takes, in :data:`UNITS`.

    Parameters
    ----------
    images : int
    box : int
        Of the images.
    narrow, wide : PolarGrid
        Of scoring, and of sums.
    references, directions, n_psi, shifts : int
        Their product is the number of poses.
    candidates : float
        Poses of an image that may matter.
    maps : int
        Made in the end.
    sums : int
        Of all slices of a reference, which are inserted into grids.
    radius : int
        Their last shell.
    """
    # 4 multiply-adds per value of a slice, which serves two directions; 7/32 n_psi M per direction and shift
    per_shift = 2 * (2 * narrow.size + 7 / 32 * n_psi * narrow.max_m)
    scored = float(images) * references * directions * shifts * per_shift
    slices = float(references * directions) * (narrow.n_rings * narrow.n_theta + 2 * wide.n_rings * wide.n_theta)
    # A slice serves two directions, and half of its circle is kept.
    inserted = float(references * directions * sums) / 4 * wide.n_rings * wide.n_theta
    voxels = maps * (2.0 * radius) ** 3
    return np.array([scored, images * candidates, float(images) * box**2, 0, slices, inserted, voxels, 1])


def _grid_pass(problem: Problem, step: Step, images: int, candidates: float, classes: int, maps: int) -> FloatArray:
    narrow = ops.PolarGrid(problem.box, step.radius, diameter_px=problem.diameter_px)
    wide = ops.PolarGrid(problem.box, step.insert_radius, diameter_px=wide_diameter_px(problem, step))
    return work(
        images=images,
        box=problem.box,
        narrow=narrow,
        wide=wide,
        references=classes,
        directions=len(unit_pixels(step.order, problem.symmetry)),
        n_psi=step.n_psi,
        shifts=len(step.shifts_px()),
        candidates=candidates,
        maps=maps,
        sums=2 if maps else 0,
        radius=step.insert_radius,
    )


def _climb_pass(problem: RefineProblem, step: Step) -> FloatArray:
    """A pass of continuous poses; a global one searches a grid first."""
    counts = np.zeros(len(UNITS))
    if step.phase == "global":
        serves = min(step.radius, coarse_radius(problem, step.step_deg))
        counts = _grid_pass(problem, replace(step, radius=serves), len(problem), 256, problem.n_classes, 0)
    climbers = step.candidates if step.phase == "global" else 1
    n, classes = len(problem), problem.n_classes
    counts += np.array(
        [0, 0, n * problem.box**2, n * classes * climbers * (2.0 * step.radius) ** 2, 0, 0, 0, 1], dtype=float
    )
    counts[UNITS.index("voxels")] += 4 * classes * (2.0 * step.insert_radius) ** 3
    return counts


def refine_counts(problem: RefineProblem, step: Step, *, done: int = 0) -> list[tuple[str, FloatArray]]:
    """Phases of a refinement and what they take, in :data:`UNITS`, from an iteration on.

    Parameters
    ----------
    problem : RefineProblem
    step : Step
        The next one.
    done : int
        Iterations before it.
    """
    reached = max(step.radius, round(_REACHED * problem.last_radius))
    counts, part = [], step.particles
    for number, (phase, radius) in enumerate(
        _refine_course(problem, step, reached, problem.settings.iterations - done), done + 1
    ):
        order = schedule.order_for(problem, radius) if phase == "grid" else step.order
        reach = step.shift_range_px if number < 3 else max(2.0, 0.6 * step.shift_range_px)
        one = schedule.make_step(problem, phase, radius, order, reach)
        if phase == "grid":
            candidates = MOST_CANDIDATES / 4 if number == 1 else MOST_CANDIDATES / 8
            taken = 2 * part or len(problem)
            made = _grid_pass(problem, one, taken, candidates, problem.n_classes, 4 * problem.n_classes)
            part = schedule.growing(problem, 2 * part)
        else:
            made = _climb_pass(problem, one)
        counts.append((f"iteration {number}", made))
    return [*counts, *_after_refinement(problem, reached)]


def _refine_course(problem: Problem, step: Step, reached: int, left: int) -> list[tuple[str, int]]:
    """Phase and last shell of each iteration."""
    if step.phase == "grid":
        # The schedule leaves the grid once the data reach further than its first spacing serves.
        served = max(step.radius, min(reached, coarse_radius(problem, healpix_spacing_deg(step.order))))
        course = [("grid", step.radius)] + [("grid", served)] * (_GRID_PASSES - 1)
        course += [("global", reached)] * _GLOBAL_PASSES + [("local", reached)] * _LOCAL_PASSES
    else:
        course = [(str(step.phase), step.radius)] + [("local", reached)] * 3
    kept = course[: max(left, 1)]
    # A refinement that is stopped in the search makes its maps in a pass of continuous poses.
    return kept if len(kept) == len(course) or kept[-1][0] != "grid" else [*kept, ("local", kept[-1][1])]


def _after_refinement(problem: RefineProblem, reached: int) -> list[tuple[str, FloatArray]]:
    """Credible radii, and the verdict."""
    classes, order = problem.n_classes, 3
    serves = min(problem.last_radius, coarse_radius(problem, healpix_spacing_deg(order)))
    counts = [("postprocessing", np.array([0, 0, 0, 0, 0, 0, 12.0 * classes * problem.box**3, 2]))]
    if not problem.correlation:
        step = schedule.make_step(problem, "grid", min(reached, serves), order, 2.0)
        once = _grid_pass(problem, step, len(problem), 1 << 10, classes, 0)
        counts.append(("credible radii", once + _climb_pass(problem, replace(step, phase="local"))))
    full = schedule.make_step(
        problem, "grid", min(reached, serves), order, problem.settings.shift_range_A / problem.pixel_size_A
    )
    held_out = min(len(problem), 2 * MOST_HELD_OUT)
    # Of the map, and of its spherical average from a part of the directions, in each half; without lists of candidates.
    judged = _grid_pass(problem, full, held_out, 1, classes, 0)
    judged += _grid_pass(problem.under(ROUND), full, held_out, 1, classes, 0)
    judged[UNITS.index("passes")] = 4
    return [*counts, ("verdict", judged)]


def refine_forecast(problem: RefineProblem, step: Step, *, done: int = 0) -> Forecast | None:
    """Of a refinement from an iteration on; None on GPUs, whose speed nobody has measured.

    Parameters
    ----------
    problem : RefineProblem
    step : Step
        The next one.
    done : int
        Iterations before it.
    """
    if problem.devices != ("cpu",):
        return None
    extra = {"postprocessing": _START_S, "verdict": _HIDDEN_SYMMETRY_S}
    return _forecast(
        [_Phase(phase, [made], extra.get(phase, 0.0)) for phase, made in refine_counts(problem, step, done=done)],
        problem.threads,
    )


@dataclass(frozen=True, kw_only=True)
class _PlannedParticles(RefineProblem):
    """As many particles as are planned, of which only the form is known: one blank image stands for all."""

    count: int = 0

    def __len__(self) -> int:
        return self.count


def planned_refine_forecast(
    n_particles: int,
    box: int,
    pixel_size_A: float,
    settings: RefineSettings | None = None,
    threads: int | None = None,
) -> Forecast:
    """Of a refinement of particles that are not there yet, on this machine's processor.

    Parameters
    ----------
    n_particles : int
        At least 20.
    box : int
        Their side in pixels.
    pixel_size_A : float
    settings : RefineSettings, optional
        Diameter and symmetry above all.
    threads : int, optional

    Examples
    --------
    >>> from verglas.run.forecast import planned_refine_forecast
    >>> few, many = (planned_refine_forecast(n, 128, 1.5) for n in (10_000, 40_000))
    >>> 2 < many.processor_s / few.processor_s < 5
    True
    """
    blank = Particles.from_images(np.zeros((1, box, box), np.float32), pixel_size_A=pixel_size_A)
    one = np.zeros(1, np.int64)
    problem = _PlannedParticles(
        particles=blank,
        half=one + 1,
        group=one,
        micrograph=one,
        params=np.zeros((1, 14)),
        settings=settings or RefineSettings(),
        threads=threads,
        count=n_particles,
    )
    forecast = refine_forecast(problem, schedule.first_step(problem))
    assert forecast is not None  # a problem is the processor's unless it names devices
    return forecast


def class2d_counts(n: int, geometry: Geometry, settings: Class2DSettings) -> list[tuple[str, FloatArray]]:
    """Iterations of a classification and what they take, in :data:`UNITS`.

    Parameters
    ----------
    n : int
        Particles.
    geometry : Geometry
    settings : Class2DSettings
    """
    shift_px = shift_range_px(geometry, settings)
    wide = ops.PolarGrid(geometry.box, geometry.last_ring, diameter_px=geometry.box)
    counts = []
    seeding, improving = first_radii(geometry, settings), _improving_radii(geometry, settings)
    seeds = seed_count(n, settings.classes)
    some = min(n, particles_of_seeding(seeds))
    for number, radius in enumerate([*seeding, *improving], 1):
        stage = plan_stage(geometry, radius, shift_px, settings.step_deg)
        is_seeding = number <= len(seeding)
        references = seeds if is_seeding else settings.classes
        counts.append(
            (
                f"iteration {number}",
                work(
                    images=some if is_seeding else n,
                    box=geometry.box,
                    narrow=ops.PolarGrid(geometry.box, radius, diameter_px=geometry.diameter_px),
                    wide=wide,
                    references=references,
                    directions=1,
                    n_psi=stage.n_psi,
                    shifts=len(stage.shifts_px),
                    candidates=min(8192.0, _LISTED * references * stage.n_psi * len(stage.shifts_px)),
                    maps=0,
                    sums=0,
                    radius=0,
                ),
            )
        )
    return counts


def _improving_radii(geometry: Geometry, settings: Class2DSettings) -> list[int]:
    """Last rings of the usual course: the radius grows to the limit within a dozen iterations."""
    first, number = first_radii(geometry, settings)[-1], min(settings.iterations, _IMPROVING)
    growth = np.linspace(0, 1, number) ** 2
    return [round(first + (geometry.search_limit - first) * float(f)) for f in growth]


_IMPROVING = 11  # iterations of the usual course after the seeding
_LISTED = 0.05  # of all poses in all classes: what a classification of weak images keeps of each


def class2d_forecast(
    n: int, box: int, pixel_size_A: float, settings: Class2DSettings, threads: int | None = None, *, repeats: int = 0
) -> Forecast:
    """Of a classification on the CPU.

    Parameters
    ----------
    n : int
        Particles.
    box : int
        Their side in pixels.
    pixel_size_A : float
    settings : Class2DSettings
    threads : int, optional
    repeats : int
        Further runs from other seeds.

    Examples
    --------
    >>> from verglas.classification import Class2DSettings
    >>> from verglas.run.forecast import class2d_forecast
    >>> few, many = (class2d_forecast(n, 128, 1.5, Class2DSettings(classes=50)) for n in (1000, 4000))
    >>> 2 < many.processor_s / few.processor_s < 5
    True
    """
    counts = class2d_counts(n, plan_geometry(box, pixel_size_A, settings), settings)
    names = ["", *(f"repeat {number} " for number in range(1, repeats + 1))]
    return _forecast([_Phase(name + phase, [made]) for name in names for phase, made in counts], threads)


def abinitio_counts(problem: Problem, settings: AbInitioSettings) -> list[tuple[str, list[FloatArray]]]:
    """Starts of an ab initio reconstruction, and what each of their iterations takes, in :data:`UNITS`."""
    n_train = len(problem) - count_held_out(problem, settings)
    course = Course(problem, settings, n_train)
    counts = []
    for iteration in range(settings.all_iterations):
        step = course.step(course.radius(iteration, course.last_radius))
        size = course.batch(iteration)
        counts.append(_grid_pass(problem, step, size, _SUMMED, settings.classes, 6 * settings.classes))
    counts[-1] = counts[-1] + _grid_pass(
        problem, course.step(course.last_radius), len(problem) - n_train, _SUMMED, settings.classes, 0
    )
    starts = [(f"start {k + 1} of {settings.starts}", counts) for k in range(settings.starts)]
    last = _grid_pass(problem, course.step(course.last_radius), len(problem), _SUMMED, settings.classes, 6)
    return [*starts, ("final poses", [last])]


_SUMMED = 1 << 10  # candidates of an image, most of them only listed


def abinitio_forecast(problem: Problem, settings: AbInitioSettings) -> Forecast | None:
    """Of the starts of an ab initio reconstruction, as many as are asked for; None on GPUs.

    Parameters
    ----------
    problem : Problem
        Particles at the working pixel size.
    settings : AbInitioSettings
    """
    if problem.devices != ("cpu",):
        return None
    return _forecast([_Phase(phase, made) for phase, made in abinitio_counts(problem, settings)], problem.threads)


@dataclass(frozen=True)
class _Phase:
    """What each iteration of a phase takes, in :data:`UNITS`, and seconds beside that."""

    name: str
    counts: Sequence[FloatArray]
    extra_s: float = 0.0


def _forecast(phases: Sequence[_Phase], threads: int | None) -> Forecast:
    speed = machine_speed()
    parts = tuple(
        Part(phase.name, tuple(float(one @ SECONDS + phase.extra_s) / speed for one in phase.counts))
        for phase in phases
    )
    return Forecast(parts, resolve_threads(threads))
