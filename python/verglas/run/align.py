"""Job on files: global alignment of particles to a map."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas.geometry import angular_distance
from verglas.io import check_writable, read_map, read_particles, write_particles
from verglas.run.kept_inputs import keeps_inputs
from verglas.search import AlignSettings, align, align_plan
from verglas.types import Particles


@dataclass(frozen=True)
class AlignJob:
    """What ``verglas align`` is asked for.

    Attributes
    ----------
    particles, reference, out : Path
        STAR or CS file, map, STAR file to write.
    settings : AlignSettings
        How to search.
    stack : Path, optional
        Image stack in place of the one the file names.
    device : str
        Where to search; see :func:`verglas.align`.
    threads : int, optional
        Threads; all by default.
    """

    particles: Path
    reference: Path
    out: Path
    settings: AlignSettings = field(default_factory=AlignSettings)
    stack: Path | None = None
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class AlignSummary:
    """What ``verglas align`` reports.

    Attributes
    ----------
    particles : Particles
        With poses.
    read : int
        Particles in the file; those missing from ``particles`` were set aside.
    seconds : float
        Wall time.
    change_deg : float or None
        Median angular distance to the poses the file had.
    """

    particles: Particles
    read: int
    seconds: float
    change_deg: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        """JSON-ready."""
        probability = self.particles.table["rlnMaxValueProbDistribution"].to_numpy()
        return {
            "particles_read": self.read,
            "particles_aligned": len(self.particles),
            "seconds": round(self.seconds, 2),
            "particles_per_second": round(self.read / self.seconds, 1),
            "median_max_probability": float(np.median(probability)),
            "median_change_deg": self.change_deg,
        }


@keeps_inputs("align")
def align_files(job: AlignJob, *, listener: ListenerChoice = "screen") -> AlignSummary:
    """Read, align, write.

    Parameters
    ----------
    job : AlignJob
        What to do.
    listener : Listener, "screen" or None
        Told :func:`verglas.search.align_plan` before the work, then how it goes.

    Returns
    -------
    AlignSummary

    Raises
    ------
    InputError
        See :func:`verglas.align`.
    """
    start_time = time.perf_counter()
    check_writable(job.out)
    particles, reference = read_particles(job.particles, stack=job.stack), read_map(job.reference)
    with shown_to(listener) as heard:
        heard.say(align_plan(particles, job.settings, threads=job.threads))
        how: dict[str, Any] = {"device": job.device, "threads": job.threads, "listener": heard}
        aligned_particles = align(particles, reference, settings=job.settings, **how)
    write_particles(job.out, aligned_particles)
    change, before, after = None, particles.poses, aligned_particles.poses
    # With some set aside, rows are no longer those of the file.
    if before is not None and after is not None and len(aligned_particles) == len(particles):
        change = float(np.median(angular_distance(before.angles_deg, after.angles_deg, job.settings.symmetry)))
    return AlignSummary(aligned_particles, len(particles), time.perf_counter() - start_time, change)
