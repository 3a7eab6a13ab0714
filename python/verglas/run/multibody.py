"""``vg.multibody``: several bodies of a particle, each with poses, half maps and FSC of its own, and how they move."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verglas._devices import device_names
from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.errors import InputError
from verglas.heterogeneity.bodies import Body, make_bodies
from verglas.heterogeneity.motions import Motions, lay_in_place, map_along, principal_motions
from verglas.heterogeneity.multibody import Multibodies, refine_bodies, start_multibody, subtraction_bytes
from verglas.heterogeneity.settings import MultibodySettings
from verglas.image import in_memory
from verglas.io import read_particles, write_csv, write_json, write_map, write_particles, write_text
from verglas.optics import for_job
from verglas.reconstruction.half_sets import split_halves
from verglas.report.html import render
from verglas.report.multibody import multibody_page
from verglas.run.checkpoint import Checkpoints
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.live_page import footer_text
from verglas.run.machine import allowed_memory_GB
from verglas.run.multibody_result import (
    BodyResult,
    body_result,
    doubts_of,
    foreign_halves,
    halves_of_whole,
    sentence_of,
)
from verglas.run.numbered_files import remove_numbered
from verglas.run.refine_inputs import as_map, close_identity, fit_to_particles, fits_in_memory, reference_name
from verglas.run.refine_memory import plan_memory, with_plan
from verglas.run.set_aside import set_aside_sentence, write_set_aside
from verglas.run.tenure import now_text, tenure
from verglas.search.problem import survey
from verglas.types import Keeper, Map, Particles, Poses
from verglas.types.arrays import FloatArray
from verglas.types.convert import particles_of
from verglas.types.listener import Listener, phase_progress
from verglas.types.settings import result_settings, settings_from

Reference = Map | str | Path

_STATES = 5  # maps along a motion
_COORDINATE = "verglasMotion"


@dataclass(frozen=True, eq=False, repr=False)
class Multibody:
    """What a multibody refinement found.

    Attributes
    ----------
    bodies : list of BodyResult
        In the order of the masks.
    poses : list of Poses
        Of every body: the poses of the whole particle at which it lies where it was found. ``vg.reconstruct`` with
        them makes the body sharp, in place.
    components : Motions
        Principal motions of the bodies against each other.
    particles : Particles
        Those in use, with the poses of the whole and half sets.
    excluded : dict
        Number in the input -> reason.
    sentence : str
        What a reader must know.
    warnings : tuple of str
        What makes the numbers doubtful: masks, half sets.
    iterations : int
    seconds : float
    settings : MultibodySettings
    """

    bodies: list[BodyResult]
    poses: list[Poses]
    components: Motions
    particles: Particles
    excluded: dict[int, str]
    sentence: str
    warnings: tuple[str, ...]
    iterations: int
    seconds: float
    settings: MultibodySettings
    _bodies: list[Body]

    def __repr__(self) -> str:
        return f"Multibody({self.sentence})"

    def particles_of(self, body: int) -> Particles:
        """The particles with the poses of a body, from 0."""
        return self.particles.with_poses(self.poses[body])

    def map_along(self, motion: int, coordinate_A: float) -> Map:
        """The particle with its bodies moved along a motion, from 0, by so much (root mean square of its voxels)."""
        maps = [np.asarray(one.map.data * one.mask.data, np.float32) for one in self.bodies]
        pixel_size_A = self.bodies[0].map.pixel_size_A
        return map_along(maps, self._bodies, self.components, motion, coordinate_A, pixel_size_A)

    def trajectory(self, motion: int, count: int) -> tuple[FloatArray, list[Map]]:
        """Coordinates from the 5th to the 95th percentile of the particles along a motion, and a map at each."""
        points = self.components.range_A(motion, count)
        return points, [self.map_along(motion, float(point)) for point in points]

    def summary(self) -> dict[str, Any]:
        """What ``verglas multibody --json`` prints."""
        motions = self.components
        return {
            "sentence": self.sentence,
            "warnings": list(self.warnings),
            "bodies": [
                {
                    "body": number,
                    "resolution_A": one.resolution_A,
                    "whole_resolution_A": one.whole_resolution_A,
                    "vouched": one.vouched,
                    "ends_with_data": one.ends_with_data,
                    "accuracy_deg": one.accuracy_deg,
                    "turn_deg": one.turn_deg,
                }
                for number, one in enumerate(self.bodies, 1)
            ],
            "motions": motions.n_motions,
            "variance_A2": motions.variance.tolist(),
            "variance_share": motions.share.tolist(),
            "signal_variance_A2": motions.signal_variance.tolist(),
            "reliability": motions.reliability.tolist(),
            "particles": len(self.particles),
            "excluded": len(self.excluded),
            "iterations": self.iterations,
            "seconds": round(self.seconds, 1),
        }


@keeps_inputs("multibody")
def multibody(
    particles: Particles | str | Path,
    map: Reference,
    masks: Sequence[Reference],
    settings: MultibodySettings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    memory_GB: float | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Multibody:
    r"""Refine rigid bodies of a particle that move against each other, and find how they move.

    .. math:: X_i = C_i \sum_b P(R_{ib}, t_{ib}) [M_b V_b] + n

    Every body has a pose of its own in every image, with a Gaussian prior about that of the whole particle, and turns
    about the centre of its mask. One body at a time is refined in images from which the projections of all others are
    taken as they are read. Half sets stay apart throughout: take the particles of a refinement, with their half sets.

    Parameters
    ----------
    particles : Particles or path
        RELION STAR or cryoSPARC CS, with poses.
    map : Map or path
        Of the whole particle, at these poses.
    masks : sequence of Map or path
        Two or more bodies, on the particles' grid; together they should cover the particle.
    settings : MultibodySettings, optional
        All choices at once; what is given beside them goes before.
    out : path, optional
        Folder for maps, particles, summary and page; nothing is written without.
    resume : bool
        There must be a checkpoint in ``out`` to go on from; if there is one, it is used in any case.
    device : str
        ``"cpu"``, ``"cuda:0"``, several, or ``"cuda"``: of poses and maps.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    memory_GB : float, optional
        Not to be passed; four fifths of what the machine allows by default.
    listener : Listener, "screen" or None
        Who is told how it goes.
    **changes
        Single choices, as the fields of :class:`verglas.heterogeneity.MultibodySettings`: ``prior_deg``, ...

    Returns
    -------
    Multibody

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds.
    InputError
        Poses are missing; one mask, masks on another grid, where the map is empty, or that are one; images that do not
        resemble the map; too little memory; a run with other settings or particles in the folder.

    References
    ----------
    Nakane et al. (2018) eLife 7, e36861.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> model = vg.simulate.phantom(24, 5.0, 90.0, shape="dumbbell")
    >>> p = vg.simulate.particles(model, 40, 24, 5.0, snr=1.0, seed=1, listener=None)
    >>> whole = vg.simulate.density(model, 24, 5.0)
    >>> lower = np.where(np.arange(24) < 12, 1.0, 0.0)[:, None, None] * vg.masks.soft_sphere(24, 9.0, 2.0)
    >>> upper = np.where(np.arange(24) < 12, 0.0, 1.0)[:, None, None] * vg.masks.soft_sphere(24, 9.0, 2.0)
    >>> made = vg.multibody(p, whole, [vg.Map(m, 5.0) for m in (lower, upper)], iterations=1, listener=None)
    >>> len(made.bodies), made.components.turns_deg.shape, len(made.poses[1])
    (2, (40, 2, 3), 40)
    """
    chosen = settings_from("multibody", MultibodySettings, settings, **changes)
    given = particles_of(particles, "multibody: particles")
    _refuse(given, masks)
    folder = None if out is None else Path(out)
    if folder is None and resume:
        raise InputError("multibody: resume needs the run folder (out)")
    devices = tuple(device_names("cpu" if device == "auto" else device))
    job = _Job(given, map, list(masks), chosen, threads, devices, memory_GB)
    with shown_to(listener) as heard:
        if folder is None:
            return job.run(heard, None)
        with tenure(folder, "multibody", heard) as held:
            checkpoints = Checkpoints(folder, job.record(), close_identity(given), held.say)
            checkpoints.open(resume=resume)
            held.write(state="running", n_particles=len(given), settings=asdict(chosen))
            made = job.run(held, checkpoints.part("multibody"))
            _write(folder, made)
            write_set_aside(folder, given, made.excluded)
            checkpoints.remove()
            return made


def _refuse(particles: Particles, masks: Sequence[Reference]) -> None:
    """What cannot be done, before anything is read."""
    if particles.source is None:
        raise InputError(f"{particles.where}: these particles have no images")
    if particles.poses is None:
        raise InputError(
            f"{particles.where}: multibody needs poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) and these particles "
            "have none; refine them first (verglas refine)"
        )
    if isinstance(masks, Map | str | Path):
        raise InputError("multibody: masks: expected a sequence of two or more, got one")


@dataclass(frozen=True)
class _Job:
    """All that a multibody refinement is given."""

    particles: Particles
    map: Reference
    masks: list[Reference]
    settings: MultibodySettings
    threads: int | None
    devices: tuple[str, ...]
    memory_GB: float | None

    def record(self) -> dict[str, Any]:
        """Of a run that goes on: the choices and maps that it must have been given, too."""
        names = {"map": reference_name(self.map), "masks": [reference_name(m) for m in self.masks]}
        return result_settings(self.settings) | names

    def run(self, listener: Listener, keeper: Keeper | None) -> Multibody:
        """Refine the bodies, and look at their motions."""
        begun = time.perf_counter()
        work = for_job(self.particles, "multibody", posed=True)
        volume, notes = fit_to_particles(as_map(self.map), work, "the map")
        bodies, more = make_bodies(volume, [as_map(mask) for mask in self.masks])
        notes = notes + more + foreign_halves(self.particles)
        for note in notes:
            listener.note(note.code, note.sentence)
        limit_GB = allowed_memory_GB() if self.memory_GB is None else self.memory_GB
        cached = fits_in_memory(work, limit_GB)
        if cached:
            work = in_memory(work, listener)
        made, excluded = self._start(work, volume, bodies, listener)
        self._plan(made, limit_GB, cached, listener)
        refine_bodies(made, listener=listener, keeper=keeper)
        lay_in_place(made)
        whole = halves_of_whole(made, listener)
        results = [body_result(made, index, whole) for index in range(len(bodies))]
        doubts = doubts_of(results)
        for note in doubts:
            listener.note(note.code, note.sentence)
        motions = principal_motions(made, made.looks(listener))
        kept = np.setdiff1d(np.arange(len(self.particles)), list(excluded))
        used = self.particles[kept] if excluded else self.particles
        used = used.with_columns(rlnRandomSubset=made.bodies[0].problem.half)
        poses = [one.whole_poses() for one in made.bodies]
        seconds = time.perf_counter() - begun
        warnings = [note for note in notes + doubts if note.state == "warn"]
        return Multibody(
            results,
            poses,
            motions,
            used,
            excluded,
            sentence_of(results, motions, warnings),
            tuple(note.sentence for note in warnings),
            made.iteration,
            seconds,
            self.settings,
            bodies,
        )

    def _start(
        self, work: Particles, volume: Map, bodies: list[Body], listener: Listener
    ) -> tuple[Multibodies, dict[int, str]]:
        progress = phase_progress(listener, "inspecting particles")
        seen = survey(work, threads=self.threads, device=self.devices[0], progress=progress)
        if seen.excluded:
            listener.note("set_aside", set_aside_sentence(seen.excluded))
        usable = np.setdiff1d(np.arange(len(work)), list(seen.excluded))
        if not len(usable):
            raise InputError(f"{work.where}: multibody: no particle can be used ({set_aside_sentence(seen.excluded)})")
        members = work[usable] if seen.excluded else work
        split = split_halves(members, seed=self.settings.seed)
        for note in split.notes:
            listener.say(note.sentence)
        members = members.with_columns(rlnRandomSubset=split.half)
        made = start_multibody(
            members,
            seen.power[usable],
            volume,
            bodies,
            self.settings,
            threads=self.threads,
            devices=self.devices,
        )
        listener.say(f"the map was multiplied by {made.scale:.4g} to match the grey scale of the images")
        return made, seen.excluded

    def _plan(self, made: Multibodies, limit_GB: float, cached: bool, listener: Listener) -> None:
        """Images at a time, so that memory suffices beside what all bodies hold."""
        beside_GB = subtraction_bytes(made) / 1e9
        for one in made.bodies:
            plan = plan_memory(one.problem, limit_GB - beside_GB, cached=cached)
            one.problem = with_plan(one.problem, plan)
        listener.say(f"{len(made.bodies)} bodies: {beside_GB:.2f} GB beside one body's {plan}")


def _write(folder: Path, made: Multibody) -> None:
    shown = min(made.settings.components, len(made.components.variance))
    remove_numbered(folder, r"(map|half[12]|mask)_body(?P<number>\d+)\.mrc", len(made.bodies))
    remove_numbered(folder, r"particles_body(?P<number>\d+)\.star", len(made.bodies))
    remove_numbered(folder, r"motion(?P<number>\d+)(_state\d+\.mrc|\.png)", shown)
    curves: dict[str, Any] = {"frequency_per_A": made.bodies[0].fsc.frequency_per_A}
    for number, one in enumerate(made.bodies, 1):
        write_map(folder / f"map_body{number}.mrc", one.map)
        write_map(folder / f"mask_body{number}.mrc", one.mask)
        for half, volume in enumerate(one.half_maps, 1):
            write_map(folder / f"half{half}_body{number}.mrc", volume)
        curves[f"body{number}"] = one.fsc.curve
        write_particles(folder / f"particles_body{number}.star", made.particles_of(number - 1))
    write_csv(folder / "fsc.csv", curves)
    trajectories = []
    for motion in range(shown):
        trajectories.append(made.trajectory(motion, _STATES))
        for state, volume in enumerate(trajectories[-1][1], 1):
            write_map(folder / f"motion{motion + 1}_state{state}.mrc", volume)
    names = [str(name) for name in made.particles.table if str(name).startswith(_COORDINATE)]  # of an earlier run
    columns: dict[str, Any] = dict.fromkeys(names)
    columns |= {f"{_COORDINATE}{q + 1}": made.components.coordinates[:, q] for q in range(shown)}
    write_particles(folder / "particles.star", made.particles.with_columns(**columns))
    summary = made.summary()
    record = {"verglas": __version__, "command": "multibody", "finished": now_text(), "settings": asdict(made.settings)}
    write_json(folder / "multibody.json", record | summary)
    page = multibody_page(
        summary,
        [(one.map, one.mask, one.fsc) for one in made.bodies],
        made.components,
        trajectories,
        asdict(made.settings),
        footer_text(),
    )
    write_text(folder / "report.html", render(page))


def multibody_files(
    particles: Path, map: Path, masks: Sequence[Path], *, stack: Path | None = None, **more: Any
) -> Multibody:
    """What ``verglas multibody`` does: read, :func:`multibody`, leave everything in the folder."""
    return multibody(read_particles(particles, stack=stack), map, list(masks), **more)


__all__ = ["BodyResult", "Multibody", "MultibodySettings", "multibody", "multibody_files"]
