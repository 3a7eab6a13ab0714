"""Job on files: ``verglas sieve``."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.errors import InputError
from verglas.io import (
    read_json,
    read_map,
    read_particles,
    write_csv,
    write_json,
    write_map,
    write_particles,
    write_text,
)
from verglas.io.atomic import remove_file
from verglas.report.sieve import sieve_page
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.live_page import footer_text
from verglas.run.sieve import REASON, Sieved, SieveSettings, sieve
from verglas.run.tenure import now_text, tenure
from verglas.types.listener import Listener


@dataclass(frozen=True)
class SieveJob:
    """What ``verglas sieve`` is asked for.

    Attributes
    ----------
    particles : Path
        STAR file, or the folder of a refinement, whose particles.star, half maps, mask and point group are then taken
        where others are not given.
    out : Path
        Folder to write.
    half_maps : (Path, Path), optional
    mask, previous, stack : Path, optional
    settings : SieveSettings
    threads : int, optional
    """

    particles: Path
    out: Path
    half_maps: tuple[Path, Path] | None = None
    mask: Path | None = None
    previous: Path | None = None
    stack: Path | None = None
    settings: SieveSettings = field(default_factory=SieveSettings)
    threads: int | None = None


def of_folder(job: SieveJob, symmetry_given: bool) -> SieveJob:
    """The job with what a run's folder holds in place of what is not given; itself where a file is named.

    Raises
    ------
    InputError
        The folder has no particles.star, or is the one to be written.
    """
    if not job.particles.is_dir():
        return job
    folder = job.particles
    if job.out.resolve() == folder.resolve():
        raise InputError(f"sieve: {folder} holds the run; name another folder to write (--out)")
    star, run = folder / "particles.star", folder / "run.json"
    if not star.is_file():
        raise InputError(f"{folder}: no particles.star; expected a STAR file, or the folder of a finished refinement")
    halves = (folder / "half1.mrc", folder / "half2.mrc")
    settings, mask = job.settings, folder / "mask.mrc"
    stated = read_json(run).get("symmetry") if run.is_file() else None
    if stated and not symmetry_given:
        settings = replace(settings, symmetry=str(stated))
    return replace(
        job,
        particles=star,
        half_maps=job.half_maps or (halves if all(path.is_file() for path in halves) else None),
        mask=job.mask or (mask if mask.is_file() else None),
        settings=settings,
    )


@keeps_inputs("sieve")
def sieve_files(
    job: SieveJob, *, symmetry_given: bool = False, listener: ListenerChoice = "screen"
) -> tuple[Sieved, dict[str, Any]]:
    """Read, sieve, write; the result and its summary.

    Writes kept.star, removed.star (with ``verglasSieveReason``), half1.mrc, half2.mrc, rounds.csv, sieve.json and
    report.html. Where nothing can be scored, kept.star is the input without copies and what cannot be used.
    """
    job = of_folder(job, symmetry_given)
    given = read_particles(job.particles, stack=job.stack)
    maps = None if job.half_maps is None else (read_map(job.half_maps[0]), read_map(job.half_maps[1]))
    # the particles' pixel size, whatever the mask's header says: many programs leave it empty
    mask = None if job.mask is None else read_map(job.mask, given.pixel_size_A)
    before = None if job.previous is None else read_particles(job.previous)
    with shown_to(listener) as heard, tenure(job.out, "sieve", heard) as held:
        held.write(state="running", n_particles=len(given))
        told: Listener = held
        sieved = sieve(
            given,
            maps,
            mask=mask,
            previous=before,
            settings=job.settings,
            threads=job.threads,
            listener=told,
        )
        summary = summary_of(sieved)
        _write(job.out, sieved, summary)
    return sieved, summary


def summary_of(sieved: Sieved) -> dict[str, Any]:
    """Figures of a sieve for JSON."""
    reasons = Counter(_kind(str(why)) for why in sieved.removed.table[REASON])
    columns = ("resolution_A", "resolution_A_control", "b_factor_A2", "b_factor_A2_control")
    rounds = sieved.rounds.to_dict("records")
    for row in rounds:
        row |= {name: row[name] if np.isfinite(row[name]) else None for name in columns}
    return {
        "sentence": sieved.sentence,
        "verdict": sieved.verdict.as_dict(),
        "particles": len(sieved.kept) + len(sieved.removed),
        "kept": len(sieved.kept),
        "removed": len(sieved.removed),
        "reasons": dict(reasons),
        "round": sieved.round,
        "rounds": rounds,
        "settings": asdict(sieved.settings),
        "seconds": round(sieved.seconds, 1),
    }


def _kind(why: str) -> str:
    """The reason without what is one particle's own."""
    if why.startswith("copy of particle"):
        return "copy of a particle" + (" in the other half set" if "other half" in why else "")
    return re.sub(r" of -?[\d.e+-]+ among", " among", why)


def _write(folder: Path, sieved: Sieved, summary: dict[str, Any]) -> None:
    write_particles(folder / "kept.star", sieved.kept)
    removed = folder / "removed.star"
    if len(sieved.removed):
        write_particles(removed, sieved.removed)
    else:
        remove_file(removed)  # of an earlier sieve
    for name, volume in zip(("half1.mrc", "half2.mrc"), sieved.half_maps, strict=True):
        write_map(folder / name, volume)
    write_csv(folder / "rounds.csv", {str(name): sieved.rounds[name].to_numpy() for name in sieved.rounds})
    write_json(folder / "sieve.json", {"verglas": __version__, "command": "sieve", "finished": now_text(), **summary})
    page = sieve_page(_with_images(sieved), sieved.is_removed, sieved.rounds, sieved.verdict, summary, footer_text())
    write_text(folder / "report.html", page)


def _with_images(sieved: Sieved) -> pd.DataFrame:
    """Scores with the name of each image and its defocus, where those are known."""
    scores, gone = sieved.scores.copy(), sieved.is_removed
    for name, column in (("image", "rlnImageName"), ("defocus_A", "rlnDefocusU")):
        parts = [of.table[column].to_numpy() for of in (sieved.kept, sieved.removed) if column in of.table]
        if len(parts) == 2 and sum(map(len, parts)) == len(scores):
            values = np.empty(len(scores), object)
            values[~gone], values[gone] = parts
            scores[name] = values if name == "image" else pd.to_numeric(pd.Series(values), errors="coerce").to_numpy()
    return scores
