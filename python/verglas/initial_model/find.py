"""From particles to a first map with a verdict, on arrays; :mod:`verglas.run.abinitio` adds files and a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from verglas._devices import one_device
from verglas.errors import InputError
from verglas.image import in_memory, plan_resample, resample_particles
from verglas.initial_model.all_starts import NoisyProblem, Starts, all_starts, contest_groups, describe_contest
from verglas.initial_model.centre import centre_particles
from verglas.initial_model.consensus import Comparison, Verdict
from verglas.initial_model.contest import FINEST_A
from verglas.initial_model.course import resample_to_box, working_box
from verglas.initial_model.merged import centre_start, largest_offset_px, merge_starts
from verglas.initial_model.records import StartRecords
from verglas.initial_model.settings import AUTO, AbInitioSettings
from verglas.initial_model.starts import Start, finish_start, place_particles
from verglas.initial_model.symmetry import SymmetryFound, with_symmetry
from verglas.map_geometry.hand import flip_hand as mirror_map
from verglas.map_geometry.hand import mirrored_angles
from verglas.optics import for_job
from verglas.search.grid_search import Where
from verglas.search.noise import first_noise, mean_power
from verglas.search.problem import Problem, survey
from verglas.search.state import PoseTable
from verglas.types import Map, Particles, Poses
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener, count_phase, phase_progress
from verglas.types.settings import settings_from

_FEWEST = 50
_EDGE_A = 8.0


@dataclass(frozen=True)
class AbInitio:
    """What an ab initio reconstruction found.

    Attributes
    ----------
    maps : list of Map
        One per class, at the particles' pixel size and box: the mean of the starts that agree, with all particles
        added, its centre of mass at the origin as far as the point group leaves it free.
    verdict : Verdict
        Whether to believe them.
    starts : list of Start
        By falling held-out evidence; maps at the working pixel size.
    comparisons : list of Comparison
        The other starts, turned onto the best.
    particles : Particles
        Those in use, with poses and classes.
    excluded : dict
        Particle number in the input (from 0) -> reason.
    working_pixel_size_A : float
        Of the images that were used.
    settings : AbInitioSettings
    seconds : float
        Wall time.
    sphere : (n, n, n) float32
        What the starts' maps are masked by when they are shown.
    symmetry : SymmetryFound, optional
        With symmetry "auto": the candidates' scores, and what came of them.
    merged : int
        Starts whose mean the maps began with.
    """

    maps: list[Map]
    verdict: Verdict
    starts: list[Start]
    comparisons: list[Comparison]
    particles: Particles
    excluded: dict[int, str]
    working_pixel_size_A: float
    settings: AbInitioSettings
    seconds: float
    sphere: Float32Array
    symmetry: SymmetryFound | None = None
    merged: int = 1

    @property
    def map(self) -> Map:
        """The map of the largest class."""
        return self.maps[int(np.argmax(self.starts[0].model.class_weight))]

    @property
    def centre_off_A(self) -> float:
        """Distance of the farthest map's centre of mass from the origin, where the point group leaves it free."""
        volumes = [v * self.sphere for v in self.starts[0].model.volumes]
        return largest_offset_px(volumes, self.settings.start_symmetry) * self.working_pixel_size_A

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict.kind,
            "sentence": self.verdict.sentence,
            "hand": "undetermined",
            "gain_nats_per_particle": round(self.verdict.gain, 3),
            "gain_error": round(self.verdict.gain_error, 3),
            "starts": self.verdict.starts,
            "starts_that_agree": self.verdict.agreeing,
            "starts_in_the_map": self.merged,
            "centre_off_A": round(self.centre_off_A, 2),
            "ranking": [{"start": s.number + 1, "evidence_nats_per_particle": round(s.score, 3)} for s in self.starts],
            "agreement_A": {str(c.number + 1): _finite(c.agreement_A) for c in self.comparisons},
            "symmetry": self.settings.start_symmetry,
            **_symmetry_summary(self.symmetry),
            "class_shares": [round(float(w), 4) for w in self.starts[0].model.class_weight],
            "particles": len(self.particles),
            "excluded": len(self.excluded),
            "working_pixel_size_A": round(self.working_pixel_size_A, 4),
            "seconds": round(self.seconds, 1),
        }


def _symmetry_summary(symmetry: SymmetryFound | None) -> dict[str, Any]:
    if symmetry is None:
        return {}
    return {
        "symmetry_sentence": symmetry.sentence,
        "symmetry_gain_nats": _finite(symmetry.gain),
        "symmetry_candidates": [
            {
                "symmetry": s.symmetry,
                "score": round(s.score, 3),
                "worst_element": round(s.worst, 3),
                "standard_deviations": round(s.significance, 1),
                "fits": s.fits,
            }
            for s in symmetry.scores
        ],
    }


def _finite(value: float) -> float | None:
    return round(value, 2) if np.isfinite(value) else None


def find_initial_model(
    particles: Particles,
    settings: AbInitioSettings | None = None,
    *,
    flip_hand: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    listener: Listener | None = None,
    **changes: Any,
) -> AbInitio:
    """A first map from particles alone, with a verdict on whether to believe it; on arrays, nothing is written.

    Parameters
    ----------
    particles : Particles
        With images and CTFs.
    settings : AbInitioSettings, optional
        All choices at once; what is given beside them goes before.
    flip_hand : bool
        Give the other hand.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``: where images are scored and added up.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, optional
        Who is told how it goes; nobody by default.
    **changes
        Single choices, as the fields of :class:`AbInitioSettings`.

    Returns
    -------
    AbInitio

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds; all of them are named.
    InputError
        Fewer than 50 particles can be used, they have no images or no CTF.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.initial_model import AbInitioSettings, find_initial_model
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> particles = vg.simulate.particles(model, 80, 32, 5.0, snr=1.0, seed=1)
    >>> settings = AbInitioSettings(diameter_A=125, starts=1, iterations=2, full_iterations=1)
    >>> result = find_initial_model(particles, settings)
    >>> result.map.box, len(result.particles)
    (32, 80)
    """
    if particles.source is None:
        raise InputError(f"{particles.where}: these particles have no images")
    resolved_settings = settings_from("abinitio", AbInitioSettings, settings, **changes)
    where = Where(one_device("abinitio", device), threads)
    return search_initial_model(
        for_job(particles, "abinitio"), resolved_settings, where, flip_hand=flip_hand, records=StartRecords(listener)
    )


def search_initial_model(
    source: Particles,
    resolved_settings: AbInitioSettings,
    where: Where,
    *,
    flip_hand: bool,
    records: StartRecords,
) -> AbInitio:
    """:func:`find_initial_model` of particles on one grid, as :func:`verglas.optics.for_job` gives them."""
    start_time, listener = time.perf_counter(), records.listener
    draw = _draw_particles(source, resolved_settings, where, listener)
    sigma2 = _first_noise(draw.problem, draw.power)
    problem = centre_particles(draw.problem, resolved_settings, sigma2, listener.progress)
    records.take_problem(problem)
    held_out = np.sort(
        np.random.default_rng((resolved_settings.seed, 2**32)).permutation(len(problem))[
            : count_held_out(problem, resolved_settings)
        ]
    )
    starts, found_symmetry = all_starts(problem, resolved_settings, sigma2, held_out, records), None
    if resolved_settings.symmetry.lower() == AUTO and starts.verdict.kind != "noise":
        starts, found_symmetry = _impose_group(
            starts,
            lambda: _resample_finely(source[draw.rows], problem, resolved_settings, where),
            sigma2,
            held_out,
            records,
        )
    problem, resolved_settings, runs = starts.problem, starts.settings, starts.made
    # Merged before it is finished: finishing adds the held-out particles, which judge the merging.
    mean, merged = merge_starts(starts, held_out)
    tick = count_phase(listener.progress, "final poses, particles", len(problem))
    best = finish_start(problem, resolved_settings, centre_start(problem, mean), tick)
    placing = _Placed(problem, draw.rows, best.poses, draw.excluded)
    if len(draw.rows) < len(source) - len(draw.excluded):
        placing = _place_all(source, draw.excluded, resolved_settings, best, records, where)
    return AbInitio(
        _final_maps(best, problem, source, flip_hand),
        starts.verdict,
        [best, *runs[1:]],
        starts.others,
        _with_poses(source[placing.rows], placing, flip_hand),
        placing.excluded,
        problem.pixel_size_A,
        resolved_settings,
        time.perf_counter() - start_time,
        problem.sphere,
        found_symmetry,
        merged,
    )


def problem_of(particles: Particles, settings: AbInitioSettings, where: Where) -> Problem:
    """As many particles as starts learn from, the first instead of a draw, as a search sees them; no image is read."""
    some = particles[: min(len(particles), settings.most_particles)]
    return _problem(_crop_particles(some, settings), {}, settings, where)


def _impose_group(
    starts: Starts,
    finer: Callable[[], NoisyProblem],
    sigma2: FloatArray,
    held_out: IntArray,
    records: StartRecords,
) -> tuple[Starts, SymmetryFound]:
    """The starts under the group that the best map shows, or else that wins the contest of groups."""
    best = with_symmetry(starts.problem, starts.settings, starts.made[0], held_out)
    symmetry = best.symmetry
    if symmetry.symmetry != "C1":  # the best map was turned
        return starts.replace_best(best.start, best.problem, best.settings), symmetry
    if not starts.nearly_round:
        return starts, symmetry
    starts, result = contest_groups(starts, finer, sigma2, held_out, records)
    return starts, describe_contest(symmetry, result)


def _resample_finely(members: Particles, problem: Problem, settings: AbInitioSettings, where: Where) -> NoisyProblem:
    """The same particles, centred as they are, at the pixel size of the contest of groups."""
    fine = replace(settings, final_resolution_A=min(FINEST_A, settings.final_resolution_A))
    small = in_memory(_crop_particles(members, fine))
    fine_problem = _problem(small, {}, fine, where)
    power = survey(small, **where.of_ops).power
    origin = problem.first_origin_px
    if origin is not None:
        # Shifts are in pixels of the problem, whose size has changed.
        origin = origin * (problem.pixel_size_A / fine_problem.pixel_size_A)
    return NoisyProblem(replace(fine_problem, first_origin_px=origin), _first_noise(fine_problem, power))


def count_held_out(problem: Problem, settings: AbInitioSettings) -> int:
    """Particles that no start learns from."""
    return max(10, round(settings.held_out * len(problem)))


def _problem(particles: Particles, excluded: dict[int, str], settings: AbInitioSettings, where: Where) -> Problem:
    """As for refinement, but edges of masks have a width in angstrom: five large pixels would let neighbours in."""
    problem = Problem.of(
        particles,
        excluded,
        job="abinitio",
        seed=settings.seed,
        symmetry=settings.start_symmetry,
        diameter_A=settings.diameter_A,
        threads=where.threads,
        devices=(where.device,),
    )
    return replace(problem, edge_px=float(np.clip(_EDGE_A / problem.pixel_size_A, 1.5, problem.edge_px)))


def _crop_particles(particles: Particles, settings: AbInitioSettings) -> Particles:
    """Particles at the pixel size that the final resolution needs, read when asked for."""
    box = working_box(particles.box, particles.pixel_size_A, settings.final_resolution_A)
    if box == particles.box:
        return particles
    return resample_particles(particles, plan_resample(particles.box, particles.pixel_size_A, None, box))


@dataclass(frozen=True)
class _Drawn:
    """The particles that starts learn from.

    Attributes
    ----------
    problem : Problem
        In memory, small.
    power : (n, shells) float32
        Power spectra.
    excluded : dict
        Particle number in the input -> reason.
    rows : (n,) int64
        Of the input.
    """

    problem: Problem
    power: Float32Array
    excluded: dict[int, str]
    rows: IntArray


@dataclass(frozen=True)
class _Placed:
    """Particles with poses against the maps: rows of the input, and who was set aside."""

    problem: Problem
    rows: IntArray
    poses: PoseTable
    excluded: dict[int, str]


def _draw_particles(particles: Particles, settings: AbInitioSettings, where: Where, listener: Listener) -> _Drawn:
    """As many as starts need, at random, of those that can be used."""
    rows = np.arange(len(particles))
    if len(particles) > settings.most_particles:
        rows = np.sort(
            np.random.default_rng((settings.seed, 2**33)).choice(rows, settings.most_particles, replace=False)
        )
    small = in_memory(_crop_particles(particles[rows], settings), listener)
    inspection = survey(small, **where.of_ops, progress=phase_progress(listener, "inspecting particles"))
    usable = len(rows) - len(inspection.excluded)
    if usable < _FEWEST:
        raise InputError(f"abinitio: {usable} of {len(particles)} particles can be used; it takes {_FEWEST} or more")
    problem = _problem(small, inspection.excluded, settings, where)
    used = np.setdiff1d(np.arange(len(rows)), list(inspection.excluded))
    reasons = {int(rows[i]): reason for i, reason in inspection.excluded.items()}
    return _Drawn(problem, inspection.power[used], reasons, rows[used])


def _first_noise(problem: Problem, power: Float32Array) -> FloatArray:
    """Mean power of each noise group's images, (groups, shells)."""
    return first_noise(mean_power(power, problem.group, problem.n_groups), job="abinitio")


def _place_all(
    particles: Particles,
    excluded: dict[int, str],
    settings: AbInitioSettings,
    best: Start,
    records: StartRecords,
    where: Where,
) -> _Placed:
    """Poses of all particles against the maps learned from some of them."""
    small = _crop_particles(particles, settings)
    inspection = survey(small, **where.of_ops, progress=phase_progress(records.listener, "inspecting all particles"))
    whole = _problem(small, inspection.excluded, settings, where)
    used = np.setdiff1d(np.arange(len(particles)), list(inspection.excluded))
    # Micrographs are numbered anew in the whole set: scales learned from the drawn ones would meet others.
    model = replace(best.model, scale=np.ones(whole.n_micrographs))
    if whole.n_groups != len(model.sigma2):
        raise InputError("abinitio: an optics group has no particle among those drawn; raise most_particles")
    noise = _first_noise(whole, inspection.power[used])
    whole = centre_particles(whole, settings, noise, records.listener.progress)
    poses = place_particles(
        whole,
        settings,
        model,
        phase_progress(records.listener, "poses of all particles"),
        keeper=records.of_poses(),
    )
    return _Placed(whole, used, poses, {**excluded, **inspection.excluded})


def _final_maps(best: Start, problem: Problem, particles: Particles, flip_hand: bool) -> list[Map]:
    """Maps back on the particles' grid; grey values are per voxel, so that they project to the images' scale."""
    maps = []
    for volume in best.model.volumes:
        data = volume * problem.sphere
        if flip_hand:
            data = mirror_map(data)
        maps.append(Map(resample_to_box(data, particles.box), particles.pixel_size_A))
    return maps


def _with_poses(members: Particles, placing: _Placed, flip_hand: bool) -> Particles:
    poses = placing.poses
    angles = poses.angles_deg.copy()
    if flip_hand:  # V(-x, y, z) = V(-r) turned by 180 degrees about x; the projection of V(-r) along d is that along -d
        angles = mirrored_angles(angles)
    with_angles = members.with_poses(Poses(angles, poses.origin_px * placing.problem.pixel_size_A))
    return with_angles.with_columns(
        rlnClassNumber=poses.class_number + 1,
        rlnMaxValueProbDistribution=poses.max_probability,
        rlnLogLikeliContribution=poses.log_evidence,
    )
