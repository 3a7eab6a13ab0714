"""From class averages to a first map by common lines: ``verglas abinitio --method common-lines``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.classification import select_classes
from verglas.errors import InputError
from verglas.initial_model.common_lines import Synchronised, find_common_lines, synchronise
from verglas.io import make_folder, read_particles, read_stack, write_json, write_map, write_particles
from verglas.io.mrc_header import read_header
from verglas.map_geometry.hand import flip_hand, mirrored_angles
from verglas.masks import soft_sphere
from verglas.reconstruction import reconstruct
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.select import class_table
from verglas.types import Map, Particles, Poses
from verglas.types.listener import Listener

_SURE, _DOUBTFUL = 0.3, 0.2  # share of agreeing lines; docs/guide/abinitio.md has what simulations give
_EDGE_PX = 4.0
_FEWEST = 4
_SHOWN = 20  # numbers of averages in a sentence


@dataclass(frozen=True)
class CommonLinesJob:
    """What is asked for.

    Attributes
    ----------
    averages : Path
        Class averages: a stack (.mrcs), centred and CTF corrected, or particles (.star, .cs) of high signal.
    out : Path
        Folder for map.mrc, particles.star (averages with poses) and common_lines.json.
    diameter_A : float, optional
        Of the particle; four fifths of the box by default.
    resolution_A : float
        Data beyond are not used.
    symmetry : str
        C1: where the axes lie is not known before the map is.
    flip_hand : bool
        Write the mirror image.
    n_theta : int
        Directions on the full circle.
    threads : int, optional
        Threads; all by default.
    """

    averages: Path
    out: Path
    diameter_A: float | None = None
    resolution_A: float = 12.0
    symmetry: str = "C1"
    flip_hand: bool = False
    n_theta: int = 180
    threads: int | None = None


@dataclass(frozen=True)
class CommonLinesMap:
    """What was made: the map, averages with poses, the numbers of those used (from 1), orientations, verdict."""

    volume: Map
    particles: Particles
    used: list[int]
    orientations: Synchronised
    state: str
    sentence: str
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        orientations = self.orientations
        return {
            "state": self.state,
            "reasons": [self.sentence],
            "averages_used": self.used,
            "gap": orientations.gap,
            "eigenvalues": orientations.eigenvalues.tolist(),
            "agreeing": orientations.agreeing,
            "consistency_deg": orientations.consistency_deg,
            "seconds": round(self.seconds, 2),
        }


@keeps_inputs("abinitio")
def common_lines_files(job: CommonLinesJob, *, listener: ListenerChoice = "screen") -> CommonLinesMap:
    """Read averages, orient them by their common lines, reconstruct, write.

    Beside averages of class2d (``classes.star``) only the classes that look like particles are used.

    Parameters
    ----------
    job : CommonLinesJob
        What to do.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    CommonLinesMap

    Raises
    ------
    InputError
        Fewer than four averages, a diameter that does not fit, or a symmetry other than C1.
    """
    start_time = time.perf_counter()
    if job.symmetry.upper() != "C1":
        raise InputError(
            f"common lines: expected symmetry C1, got {job.symmetry}: where the axes lie is not known yet; "
            "refine the map with it"
        )
    with shown_to(listener) as heard:
        images, pixel_size_A, used = read_averages(job.averages, heard)
    box = images.shape[-1]
    diameter = 0.8 * box * pixel_size_A if job.diameter_A is None else job.diameter_A
    if not 0 < diameter <= box * pixel_size_A:
        raise InputError(
            f"common lines: expected a diameter of at most the box, {box * pixel_size_A:g} A, got {diameter:g} A"
        )
    radius = int(np.clip(round(box * pixel_size_A / job.resolution_A), 3, (box - 1) // 2))
    lines = find_common_lines(
        images, radius, diameter_px=diameter / pixel_size_A, n_theta=job.n_theta, threads=job.threads
    )
    with shown_to(listener) as heard:
        orientations = synchronise(lines, threads=job.threads, listener=heard)
    particles = Particles.from_images(
        images, pixel_size_A, poses=Poses(orientations.angles_deg, np.zeros((len(images), 2)))
    )
    # Averages have been corrected for the CTF already.
    density = reconstruct(particles, ctf=False, threads=job.threads, listener=None).data
    density = density * soft_sphere(box, max(diameter / pixel_size_A / 2 - _EDGE_PX, 1.0), _EDGE_PX)
    if job.flip_hand:
        density = flip_hand(density)
        particles = particles.with_poses(Poses(mirrored_angles(orientations.angles_deg), np.zeros((len(images), 2))))
    state, sentence = _verdict(orientations, len(images))
    result = CommonLinesMap(
        Map(np.ascontiguousarray(density, np.float32), pixel_size_A),
        particles,
        used,
        orientations,
        state,
        sentence,
        time.perf_counter() - start_time,
    )
    make_folder(job.out)
    write_map(job.out / "map.mrc", result.volume)
    write_particles(job.out / "particles.star", particles)
    write_json(
        job.out / "common_lines.json",
        {"verglas": __version__, "command": "abinitio --method common-lines"} | result.as_dict(),
    )
    return result


def read_averages(
    path: Path, heard: Listener, fewest: int = _FEWEST
) -> tuple[npt.NDArray[np.float32], float, list[int]]:
    """Images that show something, their pixel size, their numbers from 1; those left out are said to the listener."""
    if path.suffix.lower() in (".star", ".cs"):
        particles = read_particles(path)
        images, pixel_size_A = particles.images(), particles.pixel_size_A
    else:
        images, pixel_size_A = read_stack(path), read_header(path).pixel_size_A
        if not pixel_size_A > 0:
            raise InputError(f"averages: the header of {path} has no pixel size; name a STAR file of the averages")
    use: npt.NDArray[np.bool_] = np.isfinite(images).all(axis=(1, 2)) & (images != 0).any(axis=(1, 2))
    table = path.with_name("classes.star")
    if path.name == "averages.mrcs" and table.is_file():
        classes = class_table(table)
        if "particles" in classes and len(classes) == len(images):
            use &= np.isin(np.arange(1, len(images) + 1), select_classes(classes).classes)
    if use.sum() < fewest:
        raise InputError(
            f"averages: {int(use.sum())} of {len(use)} images of {path} can be used (not blank, all values finite, of "
            f"classes that look like particles); expected {fewest} or more"
        )
    if not use.all():
        left = (np.flatnonzero(~use) + 1).tolist()
        shown = ", ".join(map(str, left[:_SHOWN])) + (", ..." if len(left) > _SHOWN else "")
        heard.say(
            f"{len(left)} of {len(use)} averages are left out (blank, not finite, not like particles): numbers {shown}"
        )
    return np.ascontiguousarray(images[use]), pixel_size_A, (np.flatnonzero(use) + 1).tolist()


def _verdict(orientations: Synchronised, n: int) -> tuple[str, str]:
    text = (
        f"{100 * orientations.agreeing:.0f} % of the common lines of {n} averages agree within 10 degrees (gap of the "
        f"spectrum {orientations.gap:.2f}). The hand is undetermined."
    )
    if orientations.agreeing >= _SURE:
        return "go on", text
    if orientations.agreeing >= _DOUBTFUL:
        return "warn", text + " That is little: compare with a map from particles."
    return "stop", text + " That is what noise gives: do not use the map."
