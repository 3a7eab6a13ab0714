"""Which jobs lie under some folders: found anew at each look, from their files alone.

A look reads the names in folders that may hold a job, and again only those records whose files have changed since: the
folders of single micrographs (records, pictures, stacks), which can hold ten thousands of files, are never entered.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from verglas.errors import FormatError, VerglasError
from verglas.io import read_json
from verglas.run.status import status
from verglas.window import cryosparc, relion
from verglas.window.job import Job, key_of
from verglas.window.kept import file_stamp

_DEPTH = 6
_FAR = 3  # folders that a file may lie below its job's
_MOST_FOLDERS = 20_000
_MARKS = ("run.json", "stage.json", "postprocess.json", "verdict.json", "map_model.json")
# What a record of another version, or one that a hand has changed, may raise.
_BAD = (VerglasError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
# What jobs keep one file a micrograph or iteration in.
_NO_JOBS = frozenset(
    {
        "records",
        "pictures",
        "candidates",
        "picks_edited",
        "png",
        "curves",
        "picks",
        "stacks",
        "history",
        "checkpoint",
        "Movies",
        "thumbnails",
        "__pycache__",
    }
)


@dataclass
class Folders:
    """Jobs under some folders.

    Parameters
    ----------
    roots : sequence of Path
        Looked under, six folders deep.
    """

    roots: Sequence[Path]
    _read: dict[Path, tuple[object, list[Job]]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def jobs(self) -> dict[str, Job]:
        """All jobs by key, in the order of their folders."""
        with self._lock:  # two readers at once would both read everything
            every: dict[str, Job] = {}
            seen: dict[Path, tuple[object, list[Job]]] = {}
            for root in self.roots:
                for folder, names in _walk(root):
                    if folder not in seen:
                        seen[folder] = self._of_folder(folder, names)
                        every |= {job.key: job for job in seen[folder][1]}
            self._read = seen
        return _relate(every)

    def _of_folder(self, folder: Path, names: frozenset[str]) -> tuple[object, list[Job]]:
        reader = next(((mark, read) for mark, read in _READERS if mark in names), None)
        if reader is None:
            return None, []
        mark, read = reader
        stamp = (mark, *(_stamp(folder / name) for name in (*_MARKS, "iterations.csv", mark) if name in names))
        had = self._read.get(folder)
        # The state of a job that goes on changes with the clock alone: a heartbeat that does not come.
        if had is not None and had[0] == stamp and not any(job.goes_on for job in had[1]):
            return had
        try:
            return stamp, read(folder)
        except _BAD as error:  # one bad record must not take the pages of all other jobs with it
            return stamp, [_unreadable(folder, error)]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        return file_stamp(path)
    except OSError:
        return 0, 0


def _walk(root: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """(folder, names of its files), each folder once, in order; links to folders are not followed."""
    todo = [(root, 0)]
    for _ in range(_MOST_FOLDERS):
        if not todo:
            return
        folder, depth = todo.pop()
        try:
            with os.scandir(folder) as entries:
                entered, names = list[os.DirEntry[str]](), set[str]()
                for entry in entries:
                    if not entry.is_dir():
                        names.add(entry.name)
                    elif not entry.is_symlink() and entry.name[0] != ".":
                        entered.append(entry)
                below = [entry.name for entry in entered if _may_hold_jobs(entry, names)]
        except OSError:  # another's folder, or one that has just gone
            continue
        yield folder, frozenset(names)
        inside = depth < _DEPTH and relion.PIPELINE not in names
        todo += [(folder / name, depth + 1) for name in sorted(below, reverse=True) if inside]


def _may_hold_jobs(entry: os.DirEntry[str], beside: Collection[str]) -> bool:
    """A job may have any name, that of a folder of single micrographs too, as after ``verglas pick --out picks``; but
    inside a job such a folder is the job's own, as its checkpoint, which holds a copy of its record.
    """
    if entry.name not in _NO_JOBS:
        return True
    if "project.json" not in beside and any(mark in beside for mark in _MARKS):
        return False
    return any(os.path.exists(os.path.join(entry.path, mark)) for mark in _MARKS)


def _unreadable(folder: Path, error: Exception) -> Job:
    return Job(key_of(folder), folder.name, folder, "verglas", "", "failed", f"its records cannot be read: {error}")


def _verglas_jobs(folder: Path) -> list[Job]:
    run = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    stage = read_json(folder / "stage.json") if (folder / "stage.json").is_file() else {}
    verdict = _verdict(folder, run)
    record = {**stage, **run}
    settings = record.get("settings") or {}
    if not isinstance(settings, dict):
        raise FormatError(f"{folder}: settings: expected an object, got {type(settings).__name__}")
    job = Job(
        key_of(folder),
        folder.name,
        folder,
        "verglas",
        str(run.get("command") or stage.get("stage") or _command(folder, verdict is not None)),
        str(stage.get("state", "finished")),
        verdict=str((verdict or {}).get("state", "")),
        reasons=[str(reason) for reason in (verdict or {}).get("reasons", [])],
        started=str(record.get("started") or ""),
        finished=str(record.get("finished") or ""),
        seconds=_seconds(record),
        settings=settings,
        numbers=_numbers(folder, run, verdict or {}),
        sources=_sources(run),
    )
    if job.state not in ("starting", "running", "stopped", "failed", "finished"):
        job = replace(job, state="finished")
    if not run:
        return [job]
    now = status(folder)
    eta = _number(run.get("eta_seconds")) if now.state == "running" else None
    job = replace(job, phase=now.phase, done=now.done, total=now.total)
    return [replace(job, state=now.state, sentence=now.sentence, eta_s=eta)]


def _command(folder: Path, judged: bool) -> str:
    """What made a folder that no record of a run names."""
    if (folder / "map_model.json").is_file():
        return "map-model"
    return folder.name if judged else "postprocess"


def _verdict(folder: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    path = folder / "verdict.json"
    verdict = read_json(path) if path.is_file() else run.get("verdict")
    if isinstance(verdict, dict) and isinstance(verdict.get("verdict"), dict):  # of picking: the numbers about it
        verdict = {**verdict["verdict"], "numbers": verdict}
    return verdict if isinstance(verdict, dict) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _seconds(record: dict[str, Any]) -> float | None:
    """Time taken: as it was recorded, or from the beginning to the end."""
    told = _number(record.get("seconds"))
    if told is not None or record.get("state") != "finished":
        return told
    try:
        begun, ended = (datetime.fromisoformat(str(record[name])) for name in ("started", "finished"))
        return max(0.0, (ended - begun).total_seconds())
    except (LookupError, ValueError, TypeError):  # TypeError: of one the zone is known
        return None


def _sources(run: dict[str, Any]) -> list[str]:
    """Paths among the words of the command that began a job, from the folder in which it was given."""
    call = run.get("call")
    if not isinstance(call, dict) or not isinstance(call.get("arguments"), list):
        return []
    words = [word for word in call["arguments"][1:] if isinstance(word, str) and not word.startswith("-")]
    paths = [os.path.normpath(os.path.join(str(call.get("folder", "")), word)) for word in words]
    # Of a pattern its folder is there; a number or a name of a method is no file.
    return [path for path in paths if os.path.exists(os.path.dirname(path) if "*" in path else path)]


_TOLD = (
    "resolution_A",
    "b_factor_A2",
    "q_mean",
    "atoms",
    "particles",
    "of_particles",
    "micrographs",
    "picks",
    "classes",
    "iterations",
)


def _numbers(folder: Path, run: dict[str, Any], verdict: dict[str, Any]) -> dict[str, Any]:
    numbers = {**(verdict.get("numbers") or {})}
    post = folder / "postprocess.json"
    if "resolution_A" not in numbers and post.is_file():
        numbers |= {k: v for k, v in read_json(post).items() if k in ("resolution_A", "b_factor_A2")}
    model = folder / "map_model.json"
    if model.is_file():
        numbers |= {k: v for k, v in read_json(model).items() if k in ("q_mean", "atoms", "resolution_A")}
    if "n_particles" in run:
        numbers.setdefault("particles", run["n_particles"])
    if numbers.get("b_factor_A2") == 0:  # none was fitted
        del numbers["b_factor_A2"]
    return {name: numbers[name] for name in _TOLD if isinstance(numbers.get(name), int | float)}


_READERS: tuple[tuple[str, Callable[[Path], list[Job]]], ...] = (
    (relion.PIPELINE, relion.relion_jobs),
    *((mark, _verglas_jobs) for mark in _MARKS),
    (cryosparc.RECORD, cryosparc.cryosparc_jobs),
)


def _relate(jobs: dict[str, Job]) -> dict[str, Job]:
    """Jobs with what links them: the project that a folder is part of, and the jobs whose files one took."""
    by_folder = {job.folder: job for job in jobs.values() if job.package == "verglas"}
    related = {}
    for key, job in jobs.items():
        if job.package == "verglas":
            above = by_folder.get(job.folder.parent)
            project = above.key if above is not None and above.command == "process" else ""
            job = replace(job, project=project, parents=_parents(job, by_folder))
        related[key] = job
    return _judged(related)


_GRAVITY = {"": 0, "go on": 1, "warn": 2, "stop": 3}


def _judged(jobs: dict[str, Job]) -> dict[str, Job]:
    """Projects with the gravest verdict of their stages, and why; those kept aside (NAME.before) count for nothing."""
    stages: dict[str, list[Job]] = {}
    for job in jobs.values():
        if job.project and job.folder.suffix != ".before":
            stages.setdefault(job.project, []).append(job)
    judged = {}
    for key, parts in stages.items():
        if key in jobs and not jobs[key].verdict:
            parts.sort(key=lambda one: one.started)
            verdict = max((one.verdict for one in parts), key=lambda one: _GRAVITY.get(one, 0))
            if verdict == "go on" and jobs[key].state != "finished":
                continue  # what its stages to come find is not known
            grave = [one for one in parts if one.verdict == verdict and verdict in ("warn", "stop")]
            reasons = [f"{one.name}: {reason}" for one in grave for reason in one.reasons]
            judged[key] = replace(jobs[key], verdict=verdict, reasons=reasons)
    return {key: judged.get(key, job) for key, job in jobs.items()}


def _parents(job: Job, by_folder: dict[Path, Job]) -> list[str]:
    stage = job.folder / "stage.json"
    keys: list[str] = []
    if stage.is_file():
        try:
            names = [name.partition("/")[0] for name in read_json(stage).get("inputs", {})]
        except _BAD:
            names = []
        # What was done before, and was kept aside as NAME.before, is nobody's source.
        beside = [one for folder, one in by_folder.items() if folder.parent == job.folder.parent]
        siblings = {one.command: one for one in beside if one.folder.suffix != ".before"}
        # The micrographs of a project of movies are those that its motion correction made.
        names = ["motion" if name == "micrographs" else name for name in names]
        folders = [siblings[name].folder for name in names if name in siblings]
    else:
        values = [job.settings.get(name) for name in ("particles", "references", "reference", "half1", "map", "mask")]
        texts = [str(one) for value in values for one in (value if isinstance(value, list) else [value]) if one]
        folders = [(job.folder.parent / text).parent for text in texts] + [Path(text).parent for text in texts]
        folders += [found for text in job.sources if (found := _job_above(Path(text), job, by_folder)) is not None]
    for folder in folders:
        other = by_folder.get(folder)
        if other is not None and other is not job and other.key not in keys:
            keys.append(other.key)
    return keys


def _job_above(path: Path, job: Job, by_folder: dict[Path, Job]) -> Path | None:
    """The folder of the job that a file belongs to, nearest first; the job's own folder is nobody's source."""
    for folder in (path, *path.parents[:_FAR]):
        if folder in by_folder:
            return None if folder == job.folder or job.folder in folder.parents else folder
    return None


def folder_bytes(folder: Path) -> int:
    """Disk use of a folder and all below it; links count as nothing."""
    total, todo = 0, [folder]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # it has just gone
            continue
    return total
