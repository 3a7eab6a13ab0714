"""Commands that take what a person decided, with what their jobs know filled in: they run as they are shown."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pandas as pd

from verglas.errors import VerglasError
from verglas.io import read_star
from verglas.pipeline.particles import box_for
from verglas.run.candidates import FOLDER as CANDIDATES
from verglas.run.candidates import read_candidates
from verglas.window.control import given_option
from verglas.window.job import Job

#: What a command needs and no file of a job says: its option with the word that stands for it, since a folder may have
#: that word in its name, and how a reader is asked for it.
ASKED = {"--diameter DIAMETER": "Diameter of the particle (Å)", "--box BOX": "Side of a particle's box (pixels)"}
_EXTRACTIONS = ("extract", "03_extract")  # its folder, now and in projects of earlier versions


def asked_words(command: str) -> dict[str, str]:
    """What a reader is asked for before a command runs: options with words that stand for something, and the questions.

    Examples
    --------
    >>> from verglas.window.commands import asked_words
    >>> asked_words("verglas pick kept.star --diameter DIAMETER --out pick")
    {'--diameter DIAMETER': 'Diameter of the particle (Å)'}
    """
    return {word: words for word, words in ASKED.items() if f" {word} " in command}


def process_command(project: Path, *more: str) -> str:
    """``verglas process`` with more words."""
    return shlex.join(["verglas", "process", "--out", str(project), *more])


def keep_command(project: Path, listed: Path) -> str:
    """What takes a list of micrographs; an extraction that has finished is done again, or it would be refused."""
    again = ["--redo", "extract"] if any((project / name / "stage.json").is_file() for name in _EXTRACTIONS) else []
    return process_command(project, "--keep", str(listed), *again)


def extract_command(job: Job, micrographs: Path, picks: Path) -> str:
    """What cuts out picks of a job: boxes as ``verglas process`` makes them; BOX where no diameter is known."""
    box = box_of(job)
    words = ["verglas", "extract", str(micrographs), "--picks", str(picks), "--box", "BOX" if box is None else str(box)]
    fitted = _ctfs_of(job)
    words += ["--ctf", str(fitted)] if fitted is not None else []  # or the particles would have none
    return shlex.join([*words, "--out", str(job.folder.with_name(f"{job.folder.name}_particles"))])


def _ctfs_of(job: Job) -> Path | None:
    """The CTFs that a job was given, or the list with CTFs among what it was begun with; None where there are none."""
    given = given_option(job, "--ctf")
    if given is not None and given.is_file():
        return given
    for path in map(Path, job.sources):
        if path.suffix != ".star" or not path.is_file():
            continue
        try:
            tables = read_star(path).values()
        except (VerglasError, OSError):
            continue
        # Those of particles, as of picks to compare with, are no list of micrographs.
        if any(isinstance(t, pd.DataFrame) and "rlnDefocusU" in t and "rlnCoordinateX" not in t for t in tables):
            return path
    return None


def diameter_word(job: Job) -> str:
    """The diameter that a job was asked for; DIAMETER where it was not."""
    diameter = job.settings.get("diameter_A")
    return f"{diameter:g}" if isinstance(diameter, int | float) else "DIAMETER"


def box_of(job: Job) -> int | None:
    """Side of a box for the particles of a job, in pixels of the micrograph; None where no diameter is known."""
    for path in sorted((job.folder / CANDIDATES).glob("*.star")):
        try:
            diameter_px = read_candidates(path).diameter_px
        except (VerglasError, OSError, ValueError, LookupError):
            continue  # of a job that is writing it: the next one says the same
        if np.isfinite(diameter_px) and diameter_px > 0:
            return box_for(diameter_px, 1.0)
    diameter, pixel = (job.settings.get(name) for name in ("diameter_A", "pixel_size_A"))
    if isinstance(diameter, int | float) and isinstance(pixel, int | float) and min(diameter, pixel) > 0:
        return box_for(float(diameter), float(pixel))
    return None
