"""What of a job can be removed without losing a result: earlier tries, and what only resuming needs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verglas.errors import InputError
from verglas.run.tenure import is_locked
from verglas.window.folders import folder_bytes
from verglas.window.job import Job

_CHECKPOINT, _HISTORY = "checkpoint", "history"


@dataclass(frozen=True)
class Removable:
    """A folder of a job, what it is for, and its size."""

    name: str
    purpose: str
    n_bytes: int


def removable(job: Job) -> list[Removable]:
    """Folders of a job that has ended which hold no result of it.

    A checkpoint of a job that was stopped is what it goes on from: it is offered only of one that has finished.
    """
    if not job.changeable or job.goes_on or is_locked(job.folder):
        return []
    offered: list[tuple[Path, str]] = []
    if job.state == "finished":
        offered += [
            (job.folder / _CHECKPOINT, "to resume from; the job has finished"),
            (job.folder / _HISTORY, "slices of every iteration, for the page"),
        ]
    if job.command == "process":
        offered += [(path, "an earlier try of this stage") for path in sorted(job.folder.glob("*.before"))]
    # A link would be followed to what is not the job's.
    real = [(path, purpose) for path, purpose in offered if path.is_dir() and not path.is_symlink()]
    return [Removable(path.name, purpose, folder_bytes(path)) for path, purpose in real]


def clean(job: Job, names: Sequence[object]) -> str:
    """Remove folders that :func:`removable` offers.

    Raises
    ------
    InputError
        Another name, or the job works.
    """
    offered = {one.name: one for one in removable(job)}
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name in offered for name in names):
        raise InputError(
            f"{job.folder}: expected some of {', '.join(offered) or 'nothing: there is nothing to remove'}"
        )
    total = 0
    for name in dict.fromkeys(str(name) for name in names):
        total += offered[name].n_bytes
        shutil.rmtree(job.folder / name)
    return f"removed {len(set(map(str, names)))} folders, {total / 1e6:.3g} MB"
