"""Picks that a person has changed in the window: a project extracts those instead of its picker's."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from verglas.io import read_picks
from verglas.io.coordinates import unique_stems
from verglas.io.rules import written_name
from verglas.pipeline.micrographs import picks_of
from verglas.pipeline.project import Project, Shot
from verglas.pipeline.stage import file_digest
from verglas.run.edited_picks import EDITED, RECORD, Edits, listed_names, picks_mark
from verglas.types import Picks


@dataclass(frozen=True)
class EditedPicks:
    """What lies beside a project's picks.

    Attributes
    ----------
    edits : Edits
    files : dict of str -> Path
        Coordinates as changed, by the micrograph's name in picks.star.
    """

    edits: Edits
    files: dict[str, Path] = field(default_factory=dict)

    def file(self, project: Project, shot: Shot) -> Path | None:
        """The picks of a micrograph as a person has left them; None where they are the picker's, or were changed before
        the job picked again.
        """
        if not self.files:
            return None
        name = written_name(project.micrograph_of(shot), self.edits.folder)
        path = self.files.get(name)
        return path if path is not None and self.edits.of[name] == picks_mark(picks_of(project, shot)) else None


def edited_picks(project: Project) -> EditedPicks:
    """Edits of a project's picks, read again when they change.

    Raises
    ------
    FormatError
        A record of another shape.
    """
    folder = project.folder("pick")
    record = folder / EDITED / RECORD
    if not record.is_file() or not (folder / "picks.star").is_file():
        return EditedPicks(Edits(folder))
    return _read(folder, record.stat().st_mtime_ns, (folder / "picks.star").stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(folder: Path, *state: int) -> EditedPicks:
    """Once for all micrographs: the record names each of them."""
    edits, names = Edits.read(folder), listed_names(folder / "picks.star")
    places = dict(zip(names, unique_stems(names, "_picks.star"), strict=True))
    paths = {name: folder / EDITED / places[name] for name in edits.of if name in places}
    return EditedPicks(edits, {name: path for name, path in paths.items() if path.is_file()})


def read_edited(path: Path, name: str) -> Picks:
    """The picks of one file of edits."""
    return next(iter(read_picks(path).values()), Picks(np.zeros((0, 2)), name))


def edited_mark(path: Path | None) -> list[str]:
    """What a digest has more of where picks were changed: nothing where they were not, so that it stays as it was."""
    return [] if path is None else [file_digest(path)]
