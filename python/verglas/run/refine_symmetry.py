"""What a refinement under a point group owes its reader: whether the reference has it, and whether the particles do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from verglas import filters
from verglas.assessment import fsc
from verglas.assessment.judge import GroupLead, GroupResolutions, judge_symmetry
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, matrix_to_euler, parse_symmetry, symmetry_matrices
from verglas.image import in_memory, plan_resample, resample_particles
from verglas.initial_model.contest import Contest
from verglas.initial_model.course import resample_to_box, working_box
from verglas.initial_model.subgroup_contest import contest_of_subgroups
from verglas.map_geometry.axes import Upright, upright_map
from verglas.reconstruction import reconstruct
from verglas.refinement import schedule
from verglas.refinement.problem import RefineProblem
from verglas.refinement.settings import RefineSettings
from verglas.refinement.state import State
from verglas.refinement.update import ClassMaps, resolution_shell
from verglas.search.state import PoseTable
from verglas.types import Map, Particles
from verglas.types.arrays import Float32Array, IntArray
from verglas.types.listener import Progress
from verglas.types.verdict import Finding

_FIRST_SHELLS = 5  # of a reference, at least, are compared with its copies
_MOST_RADIUS, _MARGIN = 16, 3  # shells of the contest
_MOST, _MOST_POSES = 500, 6000  # particles of each half set, and poses of them under C1
_FEWEST = 20
_EDGE_A = 8.0
_SHIFTS_PX = 2.0


def upright_references(
    maps: list[Map], settings: RefineSettings, *, mask_given: bool, threads: int | None = None
) -> tuple[list[Map], list[Finding]]:
    """References that have the group, turned onto its axes where they stand off them; and what was done.

    Raises
    ------
    InputError
        A reference does not have the group, however it is turned; or it would have to be turned, but poses or a mask
        that go with it are given.
    """
    symmetry = parse_symmetry(settings.symmetry)
    if symmetry == "C1":
        return maps, []
    references, notes = [], []
    for number, one in enumerate(maps, 1):
        name = "the reference" if len(maps) == 1 else f"reference {number}"
        upright = _upright(one, settings, symmetry, threads)
        if upright is None:
            references.append(one)
            continue
        measurement = (
            f"turned by the elements of {symmetry} about its axes it correlates with itself by {upright.before:.2f} "
            f"(1 is expected, to {settings.initial_resolution_A:g} A)"
        )
        if not upright.fits:
            raise InputError(
                f"refine: {name} does not have the symmetry {symmetry}: {measurement}, and by {upright.after:.2f} "
                "however it is turned and moved; give another reference, or another group (--symmetry C1)"
            )
        if settings.poses == "local" or mask_given:
            what = "the poses of the particles" if settings.poses == "local" else "the mask"
            raise InputError(
                f"refine: {name} stands off the axes of {symmetry}: {measurement}; turned by "
                f"{upright.angle_deg:.0f} degrees by {upright.after:.2f}, but {what} would no longer go with "
                "it: turn both first"
            )
        references.append(one.with_data(upright.apply(one.data, threads=threads)))
        numbers = {
            "before": round(upright.before, 3),
            "after": round(upright.after, 3),
            "angle_deg": round(upright.angle_deg, 1),
        }
        sentence = (
            f"{name} stood off the axes of {symmetry} ({measurement}): it was turned by {upright.angle_deg:.0f} "
            f"degrees and moved by {np.linalg.norm(upright.shift_px) * one.pixel_size_A:.1f} A, "
            f"which makes {upright.after:.2f}"
        )
        notes.append(Finding("reference-turned", "warn", sentence, numbers))
    return references, notes


def _upright(one: Map, settings: RefineSettings, symmetry: str, threads: int | None) -> Upright | None:
    shells = max(_FIRST_SHELLS, round(one.box * one.pixel_size_A / settings.initial_resolution_A))
    shells = min(shells, (one.box - 1) // 2)
    return upright_map(one.data, symmetry, shells, threads=threads)


def symmetry_findings(
    problem: RefineProblem,
    state: State,
    maps: ClassMaps,
    particles: Particles,
    number: int,
    progress: Progress | None = None,
) -> list[Finding]:
    """What the particles say of the group that they were refined under.

    Parameters
    ----------
    problem : RefineProblem
    state : State
        At the end.
    maps : ClassMaps
        Of the largest class.
    particles : Particles
        With the last poses, classes and half sets.
    number : int
        Of the class, from 0.
    progress : callable, optional
        Called with a phase, how much of it is done, and how much there is.
    """
    if parse_symmetry(problem.symmetry) == "C1" or problem.correlation:
        return []
    mine = state.poses.class_number == number
    contest = _contest(problem, state, maps, mine, progress)
    if contest is None:
        return []
    particles = particles[np.flatnonzero(mine)]
    return [_judge(problem, contest, GroupResolutions(*without_group(problem, maps, particles)))]


def _judge(problem: RefineProblem, contest: Contest, resolutions: GroupResolutions) -> Finding:
    lead = GroupLead(contest.lead, contest.lead_error)
    return judge_symmetry(parse_symmetry(problem.symmetry), contest.winner, contest.evidence, lead, resolutions)


def _contest(
    problem: RefineProblem, state: State, maps: ClassMaps, mine: npt.NDArray[np.bool_], progress: Progress | None
) -> Contest | None:
    """The contest of subgroups, on some particles at a pixel size that holds what decides."""
    order = len(symmetry_matrices(problem.symmetry))
    most = max(_FEWEST, min(_MOST, _MOST_POSES // order))
    rows = [np.flatnonzero((problem.half == half) & mine) for half in (1, 2)]
    # Spread over the set: its beginning may be a single square of the grid.
    rows = [some[:: max(1, -(-len(some) // most))][:most] for some in rows]
    if min(len(some) for some in rows) < _FEWEST:
        return None
    radius = max(3, min(int(state.resolution_shell), _MOST_RADIUS, problem.last_radius))
    members = np.sort(np.concatenate(rows))
    small = _small_problem(problem, members, problem.resolution_of_A(radius))
    ratio = small.box / problem.box
    poses = PoseTable(**{name: values[members] for name, values in vars(state.poses).items()})
    poses.origin_px, poses.class_number = poses.origin_px * ratio, np.zeros(len(members), np.int64)
    half = state.halves[0]
    volume = resample_to_box(weighted_half_map(problem, maps, 0, radius), small.box)
    shells = (small.box - 1) // 2 + 1
    # Power of a transform goes with the square of the number of pixels, so noise is brought to the small box.
    model = replace(half, volumes=volume[None], sigma2=half.sigma2[:, :shells] * ratio**4, class_weight=np.ones(1))
    step = replace(schedule.make_step(small, "local", radius, 3, _SHIFTS_PX), insert_radius=radius)
    teaching, deciding = small.rows_of_half(1), small.rows_of_half(2)
    return contest_of_subgroups(
        small, model, poses, step, teaching, deciding, seed=problem.settings.seed, progress=progress
    )


def _small_problem(problem: RefineProblem, rows: IntArray, resolution_A: float) -> RefineProblem:
    """Some particles of a problem in a box that just holds a resolution, in memory, on the host."""
    some = problem.particles[rows]
    box = working_box(problem.box, problem.pixel_size_A, resolution_A)
    if box < problem.box:
        some = resample_particles(some, plan_resample(problem.box, problem.pixel_size_A, None, box))
    small = in_memory(some)
    return replace(
        problem,
        particles=small,
        half=problem.half[rows],
        group=problem.group[rows],
        micrograph=problem.micrograph[rows],
        params=problem.params[rows],
        devices=("cpu",),
        batch=0,
        edge_px=float(np.clip(_EDGE_A / small.pixel_size_A, 1.5, problem.edge_px)),
    )


def weighted_half_map(problem: RefineProblem, maps: ClassMaps, half: int, last: int) -> Float32Array:
    """A half map with the weight that its signal has: SSNR / (1 + SSNR) of half maps is their FSC."""
    weight = np.clip(maps.masked, 0.0, 1.0)
    weight[last + 1 :] = 0
    frequency = np.arange(len(weight)) / (problem.box * problem.pixel_size_A)
    raw = Map(maps.raw[half], problem.pixel_size_A)
    smooth = filters.apply(raw, filters.from_curve(frequency, weight), threads=problem.threads)
    return np.asarray(smooth.data * problem.sphere, np.float32)


def without_group(problem: RefineProblem, maps: ClassMaps, particles: Particles) -> tuple[float, float]:
    """Resolution of half maps made from the last poses without the group, and of those with it, both in the sphere.

    Each particle goes to one of its equivalent poses, drawn at random: as refined, all lie in one asymmetric unit, and
    views from elsewhere would be missing.
    """
    group = symmetry_matrices(problem.symmetry)
    assert particles.poses is not None
    elements = group[np.random.default_rng(problem.settings.seed).integers(len(group), size=len(particles))]
    angles = matrix_to_euler(euler_to_matrix(particles.poses.angles_deg) @ elements)
    spread_particles = particles.with_poses(replace(particles.poses, angles_deg=angles))
    limit_A = problem.settings.max_resolution_A  # silent: the refinement has a listener of its own
    halves = reconstruct(spread_particles, "C1", limit_A, halves=True, threads=problem.threads, listener=None)[1]
    threads, last = problem.threads, problem.last_radius
    raw = (Map(maps.raw[0], problem.pixel_size_A), Map(maps.raw[1], problem.pixel_size_A))
    alone, together = (
        problem.resolution_of_A(resolution_shell(fsc(first, second, problem.sphere, threads=threads).curve, last))
        for first, second in (halves, raw)
    )
    return alone, together
