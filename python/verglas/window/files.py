"""Files of a job that a reader may see: those in its folder, by their names, and the end of what it wrote last."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from verglas.window.job import Job

_SHOWN = frozenset(
    {
        ".html",
        ".json",
        ".csv",
        ".star",
        ".log",
        ".txt",
        ".out",
        ".err",
        ".png",
        ".jpg",
        ".pdf",
        ".mrc",
        ".mrcs",
        ".cs",
        ".job",
        ".cif",
        ".pdb",
        ".ent",
    }
)
_LOGS = ("run.log", "stalled.log", "error.log", "run.err", "run.out", "job.log")
_MOST_FILES = 300
_TAIL_BYTES = 8192


def file_of(job: Job, name: str) -> Path | None:
    """The file of a job by its path in the job's folder; None for what lies elsewhere, is hidden, or is not shown.

    Parameters
    ----------
    job : Job
    name : str
        As a stranger may have written it.
    """
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or any(part.startswith((".", "/")) for part in parts):
        return None
    try:
        # Links are followed before the place is judged: one in the folder may lead anywhere.
        folder, path = job.folder.resolve(strict=True), job.folder.joinpath(*parts).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    inside = path.is_relative_to(folder) and path.is_file()
    return path if inside and path.suffix.lower() in _SHOWN else None


@dataclass(frozen=True)
class ListedFile:
    """A file of the list: its path in the folder, and its size."""

    name: str
    n_bytes: int


def files_of(job: Job) -> list[ListedFile]:
    """Files in the folder of a job that are shown, by name."""
    listed = []
    try:
        with os.scandir(job.folder) as entries:
            for entry in entries:
                if entry.is_file() and entry.name[0] != "." and Path(entry.name).suffix.lower() in _SHOWN:
                    # A name that is no UTF-8 can stand in no page and no address: it is listed, and not reached.
                    name = os.fsencode(entry.name).decode("utf-8", "replace")
                    listed.append(ListedFile(name, entry.stat().st_size))
    except OSError:  # the folder of a job of another package may be gone
        return []
    return sorted(listed, key=lambda one: one.name)[:_MOST_FILES]


def tail_of(job: Job) -> tuple[str, str]:
    """Name and last lines of the log that was written last; empty where there is none."""
    newest = max(
        (path for name in _LOGS if (path := file_of(job, name)) is not None and path.stat().st_size),
        key=lambda path: path.stat().st_mtime,
        default=None,
    )
    if newest is None:
        return "", ""
    with open(newest, "rb") as handle:
        handle.seek(max(0, newest.stat().st_size - _TAIL_BYTES))
        text = handle.read(_TAIL_BYTES).decode("utf-8", "replace")
    # A progress bar writes over its line: what a terminal would show of it is the last of them.
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").rstrip("\n").split("\n")]
    return newest.name, "\n".join(lines[-60:])
