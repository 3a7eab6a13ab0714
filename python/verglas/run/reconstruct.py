"""Jobs on files: reconstruction from known poses, and projections of a map."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import default_threads
from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.fsc import FSC, fsc, ssnr_from_fsc
from verglas.errors import InputError, VerglasWarning
from verglas.geometry import orientation_grid
from verglas.io import check_writable, read_map, read_particles, write_map, write_particles
from verglas.io.rules import RECALIBRATED
from verglas.ops import Grid
from verglas.optics import Aberrations, common_size, for_job, with_aberrations
from verglas.reconstruction import Reconstruction, ReconstructSettings, project, reconstruct_report
from verglas.reconstruction.accumulate import direct_grid, images_of_a_batch
from verglas.reconstruction.ewald import Sign
from verglas.reconstruction.iterated import ITERATED
from verglas.reconstruction.known_poses import max_radius_for
from verglas.reconstruction.least_squares import kernel_grid
from verglas.run.kept_inputs import keeps_inputs
from verglas.types import Map, Particles, Poses
from verglas.types import _columns as col


@dataclass(frozen=True)
class ReconstructJob:
    """What ``verglas reconstruct`` is asked for.

    Attributes
    ----------
    particles : Path
        STAR or CS file with poses.
    out : Path
        Map to write; half maps go beside it as ``<stem>_half1.mrc`` and ``<stem>_half2.mrc``.
    settings : ReconstructSettings
        Symmetry, resolution, method.
    halves : bool
        Also half maps and their FSC.
    wiener : bool
        Weight the full map by the SSNR that the half maps give; implies ``halves``.
    stack : Path, optional
        Image stack in place of the one the file names.
    threads : int, optional
        Threads; all by default.
    device : str
        As in :func:`verglas.reconstruct`.
    dtype : str, optional
        Of the maps; see :func:`verglas.io.write_map`.
    """

    particles: Path
    out: Path
    settings: ReconstructSettings = field(default_factory=ReconstructSettings)
    halves: bool = False
    wiener: bool = False
    stack: Path | None = None
    threads: int | None = None
    device: str = "cpu"
    dtype: str | None = None


@dataclass(frozen=True)
class ReconstructSummary:
    """What ``verglas reconstruct`` reports.

    Attributes
    ----------
    result : Reconstruction
        Maps, particles set aside, residual.
    fsc : FSC or None
        Between the half maps, unmasked.
    files : list of Path
        What was written.
    seconds : float
        Wall time.
    """

    result: Reconstruction
    fsc: FSC | None
    files: list[Path]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        tv = self.result.tv
        resolution = None if self.fsc is None else self.fsc.resolution_A(0.143)
        return {
            "particles_used": self.result.used,
            "particles_excluded": {str(i): reason for i, reason in self.result.excluded.items()},
            "resolution_A_half_maps_0.143_unmasked": resolution if resolution and np.isfinite(resolution) else None,
            "residual": None if np.isnan(self.result.residual) else self.result.residual,
            **({} if tv is None else {"tv_weight": tv.weight, "tv_tried": [list(one) for one in tv.tried]}),
            **({} if self.result.ewald is None else self.result.ewald.as_dict()),
            "files": [str(path) for path in self.files],
            "seconds": round(self.seconds, 2),
        }


def memory_plan_GB(box: int, max_radius: int, method: str, halves: bool, images: int | None = None) -> float:
    """Peak memory of a reconstruction in GB, images apart: sums of each half, and the largest step after their reading.

    Measured against the process's peak in ``bench/bench_reconstruct.py``.

    Examples
    --------
    >>> from verglas.run.reconstruct import memory_plan_GB
    >>> memory_plan_GB(256, 127, "least-squares", True) > memory_plan_GB(128, 63, "least-squares", True)
    True
    """
    batch = images_of_a_batch(box) if images is None else min(images, images_of_a_batch(box))
    # Both halves, and their sum while the full map is solved; total variation takes its weight from halves in any case.
    sets = 3 if halves or method == "tv" else 1
    if method == "least-squares" or method in ITERATED:
        values = float(np.prod(Grid(box, max_radius=max_radius).shape)) * 16
        weights = float(np.prod(kernel_grid(box, max_radius).shape)) * 8
        solution = float(2 * box) ** 3 * 4 * 5.3  # transfer, transform, padded map and one temporary
        # The operators of both halves at once, a transfer and what preconditions it each.
        operators = float(2 * box) ** 3 * 2.3 * 2 if method == "tv" else 0.0
        room = kernel_grid(box, max_radius).insertion_bytes(batch, max_radius)
        steps = max(solution + operators + (values + weights if sets == 3 else 0.0), room)
        return (min(sets, 2) * (values + weights) + steps) / 1e9
    grid = direct_grid(box, max_radius)
    sums = float(np.prod(grid.shape)) * 24
    # While images are inserted there is no sum of both halves yet.
    room = grid.insertion_bytes(batch)
    return max((sets + 1.35) * sums, min(sets, 2) * sums + room) / 1e9


@keeps_inputs("reconstruct")
def reconstruct_files(job: ReconstructJob, *, listener: ListenerChoice = "screen") -> ReconstructSummary:
    """Read particles, reconstruct, write maps.

    Parameters
    ----------
    job : ReconstructJob
        What to do.
    listener : Listener, "screen" or None
        Who is told (:class:`verglas.types.listener.Listener`): :func:`plan_sentence` once the particles' file is read,
        then how it goes.

    Returns
    -------
    ReconstructSummary

    Raises
    ------
    InputError
        See :func:`verglas.reconstruct`.
    """
    start_time = time.perf_counter()
    # First: a folder that cannot be written is told before hours of work, not after them.
    check_writable(job.out)
    particles = read_particles(job.particles, stack=job.stack)
    ssnr = _ssnr_of_halves(job, particles) if job.wiener else None
    with shown_to(listener) as heard:
        heard.say(plan_sentence(job, particles))
        where: dict[str, Any] = {"threads": job.threads, "device": job.device, "listener": heard}
        result = reconstruct_report(particles, job.settings, halves=job.halves, ssnr=ssnr, **where)
    curve = None if result.half_maps is None else fsc(*result.half_maps)
    files = [job.out]
    write_map(job.out, result.map, dtype=job.dtype)
    for number, half in enumerate(result.half_maps or (), start=1):
        files.append(job.out.with_name(f"{job.out.stem}_half{number}{job.out.suffix}"))
        write_map(files[-1], half, dtype=job.dtype)
    return ReconstructSummary(result, curve, files, time.perf_counter() - start_time)


def _ssnr_of_halves(job: ReconstructJob, particles: Particles) -> Callable[[Map, Map], npt.NDArray[np.float64]]:
    """FSC of half maps to SSNR of the full map, which is twice that of a half."""
    box, pixel_size_A = common_size(particles)
    radius = max_radius_for(box, pixel_size_A, job.settings.max_resolution_A)
    # Below 1: shells without noise would have an infinite ratio.
    return lambda one, two: 2 * ssnr_from_fsc(np.clip(fsc(one, two).curve[: radius + 1], 0, 0.9999))


def plan_sentence(job: ReconstructJob, particles: Particles) -> str:
    """One line that says what will run, before it runs."""
    box, pixel_size_A = common_size(particles)
    radius = max_radius_for(box, pixel_size_A, job.settings.max_resolution_A)
    halves = job.halves or job.wiener
    memory = memory_plan_GB(box, radius, job.settings.method, halves, len(particles))
    finest = box * pixel_size_A / radius
    where = f"{job.threads or default_threads()} threads" if job.device == "cpu" else job.device
    return (
        f"{len(particles)} particles of {box} px, {pixel_size_A:g} A/px, to {finest:.2f} A, "
        f"{job.settings.symmetry}, {job.settings.method}, {where}; "
        f"about {memory:.2f} GB of sums and solution"
    )


@dataclass(frozen=True)
class ProjectJob:
    """What ``verglas project`` is asked for.

    Attributes
    ----------
    map : Path
        Cubic map.
    out : Path
        Stack to write (.mrcs); a STAR file with the poses goes beside it.
    particles : Path, optional
        STAR or CS file whose poses (and optics) to use.
    step_deg : float
        Without particles: spacing of an orientation grid, in-plane angle 0.
    symmetry : str
        Its asymmetric unit.
    ctf : bool
        Apply the CTF of the particles.
    ewald_sign : {"positive", "negative"}, optional
        Follow Ewald's sphere, curved this way; flat slices without.
    dtype : str
        Of the stack.
    """

    map: Path
    out: Path
    particles: Path | None = None
    step_deg: float = 15.0
    symmetry: str = "C1"
    ctf: bool = True
    ewald_sign: Sign | None = None
    dtype: str = "float32"


@keeps_inputs("project")
def project_files(job: ProjectJob, *, threads: int | None = None, listener: ListenerChoice = "screen") -> Particles:
    """Project a map, write the stack and its STAR file.

    Parameters
    ----------
    job : ProjectJob
        What to do.
    threads : int, optional
        Threads; all by default.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    Particles
        As written.

    Raises
    ------
    InputError
        The particles have no poses, or the map is not a cube.
    """
    check_writable(job.out)
    with shown_to(listener) as heard:
        heard.progress("project", 0, 2)
        projections = _projections(job, threads)
        heard.progress("project", 1, 2)
        write_particles(job.out.with_suffix(".star"), projections, stack=job.out, dtype=job.dtype)
        heard.progress("project", 2, 2)
    return projections


def _warn_of_sampling(job: ProjectJob, volume: Map, particles: Particles) -> None:
    """Projections have the map's sampling; beside images of another they would be compared pixel by pixel."""
    # Of the metadata alone: the images need not be there.
    known_A = col.pixel_sizes_A(col.Tables(particles.table, particles.optics_table, particles.where))
    if known_A is not None and (np.abs(volume.pixel_size_A / known_A - 1) > RECALIBRATED).any():
        warnings.warn(
            f"project: {job.map} has {volume.pixel_size_A:g} A/px, the images of {job.particles} {known_A[0]:g}: the "
            "projections have the map's",
            VerglasWarning,
            stacklevel=4,
        )


def _projections(job: ProjectJob, threads: int | None) -> Particles:
    volume = read_map(job.map)
    if job.ewald_sign is not None and (job.particles is None or not job.ctf):
        raise InputError("project: Ewald's sphere needs particles with CTFs (--particles, without --no-ctf)")
    if job.particles is None:
        directions, _ = orientation_grid(job.step_deg, job.symmetry)
        poses = Poses(np.column_stack([directions, np.zeros(len(directions))]))
        images = project(volume, poses, threads=threads)
        projections = Particles.from_images(images, volume.pixel_size_A, poses=poses)
    else:
        particles = read_particles(job.particles)
        aberrations = Aberrations.of(particles) if job.ctf else None
        particles = for_job(particles, "project", ctf=job.ctf)
        poses_of_file = particles.poses
        if poses_of_file is None:
            raise InputError(f"{job.particles}: no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) to project at")
        _warn_of_sampling(job, volume, particles)
        optics = particles.optics if job.ctf else None
        bad = {} if optics is None else optics.unusable()
        if bad:
            row, why = next(iter(bad.items()))
            raise InputError(f"{job.particles}, particle {row} (row from 0): {why}; there is no CTF to project with")
        curved: dict[str, Any] = {} if job.ewald_sign is None else {"ewald": True, "ewald_sign": job.ewald_sign}
        images = project(volume, poses_of_file, optics, threads=threads, **curved)
        if aberrations is not None:
            images = aberrations.apply(images, np.arange(len(images)), volume.pixel_size_A)
        projections = Particles.from_images(images, volume.pixel_size_A, poses=poses_of_file, optics=optics)
        if aberrations is not None:
            projections = with_aberrations(projections, aberrations)
    return projections
