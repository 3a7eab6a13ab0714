"""``verglas abinitio --method NAME`` for methods that take class averages, or particles that averages are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.classification import Class2DSettings
from verglas.errors import InputError
from verglas.initial_model.averages import METHODS, SWARM, AveragesMap, find_from_averages
from verglas.initial_model.averages.find import FEWEST, USED_SETTINGS, check_request
from verglas.initial_model.settings import AbInitioSettings
from verglas.io import check_folder, read_map, read_particles, write_json, write_map, write_particles
from verglas.report.abinitio import write_abinitio_page
from verglas.run.abinitio_page import SUMMARY, shown_record, shown_result
from verglas.run.class2d import Class2DJob, class2d_files
from verglas.run.common_lines import read_averages
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.tenure import now_text, tenure
from verglas.types.arrays import Float32Array
from verglas.types.listener import Listener
from verglas.types.settings import settings_from

AVERAGES_METHODS = (*METHODS, SWARM)
# Less than half of single starts from 60 averages were right: bench/results/abinitio_methods.json.
NOT_RECOMMENDED = ("diffusion-map",)
_PARTICLES = 1000  # more images than this are particles, and are made into averages first
_OF_A_CLASS = 60
_CLASSES = (24, 120)


@dataclass(frozen=True)
class AveragesJob:
    """What is asked for.

    Attributes
    ----------
    images : Path
        Class averages (.mrcs, .star, .cs); or particles, of which averages are made first.
    out : Path
        Folder for map.mrc, particles.star (averages with poses), abinitio.json and report.html.
    method : str
        One of :data:`AVERAGES_METHODS`.
    settings : mapping
        Fields of :class:`verglas.initial_model.AbInitioSettings` that these methods use.
    maps : sequence of Path
        Of swarm-consensus.
    flip_hand : bool
    threads : int, optional
    """

    images: Path
    out: Path
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    maps: Sequence[Path] = ()
    flip_hand: bool = False
    threads: int | None = None


@keeps_inputs("abinitio")
def averages_files(job: AveragesJob, *, listener: ListenerChoice = "screen") -> AveragesMap:
    """Read, make a map of averages, write map, poses, summary and page.

    Parameters
    ----------
    job : AveragesJob
        What to do.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    AveragesMap

    Raises
    ------
    InputError
        A setting that these methods do not use, maps for another method than swarm-consensus, too few averages.
    """
    check_folder(job.out)
    unused = sorted(set(job.settings) - set(USED_SETTINGS))
    if unused:
        raise InputError(
            f"abinitio: method {job.method} does not use {', '.join(unused)}; it uses {', '.join(USED_SETTINGS)}"
        )
    settings = settings_from("abinitio", AbInitioSettings, **job.settings)
    # All that can be refused is, before particles are classified for minutes.
    check_request(job.method, settings, len(job.maps))
    volumes = [read_map(path) for path in job.maps]
    with shown_to(listener) as heard, tenure(job.out, "abinitio", heard) as hold:
        hold.write(state="running")
        images, pixel_size_A, used = _images(job, settings, hold)
        result = find_from_averages(
            images,
            pixel_size_A,
            job.method,
            settings,
            volumes=volumes,
            flip_hand=job.flip_hand,
            threads=job.threads,
            listener=hold,
        )
        _write(job, settings, result, used)
    return result


def _write(job: AveragesJob, settings: AbInitioSettings, result: AveragesMap, used: list[int]) -> None:
    write_map(job.out / "map.mrc", result.map)
    write_particles(job.out / "particles.star", result.particles)
    chosen = {name: getattr(settings, name) for name in USED_SETTINGS} | {"method": job.method}
    summary = {**result.summary(), "averages_used": used}
    record = {"verglas": __version__, "command": "abinitio", "finished": now_text(), "settings": chosen, **summary}
    shown = shown_result(result, summary, chosen, items="averages", baseline="a map of random phases")
    write_json(job.out / SUMMARY, record | shown_record(job.out, shown))
    write_abinitio_page(job.out, shown, f"verglas {__version__}, {now_text()}")


def _images(job: AveragesJob, settings: AbInitioSettings, heard: Listener) -> tuple[Float32Array, float, list[int]]:
    """Averages as they are; or of particles, in as many classes as make about sixty particles each."""
    if job.images.suffix.lower() in (".star", ".cs"):
        particles = read_particles(job.images)
        if len(particles) > _PARTICLES:
            classes = int(np.clip(len(particles) // _OF_A_CLASS, *_CLASSES))
            heard.say(f"{len(particles)} particles: {classes} class averages of them are made first, in {job.out}")
            folder = job.out / "class2d"
            classify = Class2DSettings(classes=classes, diameter_A=settings.diameter_A, seed=settings.seed)
            class2d_files(Class2DJob(job.images, folder, classify, threads=job.threads), listener=heard)
            return read_averages(folder / "averages.mrcs", heard, FEWEST)
    return read_averages(job.images, heard, FEWEST)
