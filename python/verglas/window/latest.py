"""What a job that goes on has come to: its averages so far, and the micrographs that it has picked last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from verglas.errors import VerglasError
from verglas.report.grey import bin_to, grey_bytes, grey_png
from verglas.window.decisions import sheet_of
from verglas.window.job import Job
from verglas.window.picked import PickedMicrographs

_AVERAGES, _SHARES = "model.averages", "model.log_share"
_MOST_CLASSES = 200
_LAST = 6
_SMALL_PX = 320


def _checkpoint(job: Job) -> Path | None:
    """The checkpoint of a 2D classification that was written last."""
    if job.command != "class2d" or not job.changeable:
        return None
    try:
        paths = [path for path in (job.folder / "checkpoint").glob("*.npz") if not path.name.startswith(".")]
        return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)
    except OSError:  # the job has just ended and removed it
        return None


def montage_stamp(job: Job) -> str:
    """Another word for other averages; empty where there are none yet."""
    path = _checkpoint(job)
    try:
        return "" if path is None else f"{path.stat().st_mtime_ns:x}"
    except OSError:
        return ""


def montage(job: Job) -> bytes | None:
    """Averages of the last iteration as one PNG, the largest class first; None where there are none."""
    path = _checkpoint(job)
    try:
        if path is None:
            return None
        with np.load(path, allow_pickle=False) as file:
            if _AVERAGES not in file:
                return None
            averages = file[_AVERAGES]
            if averages.ndim != 3 or averages.dtype.kind != "f" or not averages.size:
                return None
            shares = file[_SHARES] if _SHARES in file else np.zeros(len(averages))
    except (OSError, BadZipFile, ValueError, KeyError):  # it was just replaced, or is of another version
        return None
    order = np.argsort(-np.ravel(shares)[: len(averages)], kind="stable")[:_MOST_CLASSES]
    return sheet_of(averages[order])


@dataclass(frozen=True)
class LastPicked:
    """A micrograph that was just picked: its number, its name, and how many picks it has."""

    number: int
    name: str
    picks: int


def last_picked(job: Job, picked: PickedMicrographs) -> list[LastPicked]:
    """The micrographs that a job of picking has done last, the newest first; none when it has ended."""
    if not picked.has(job) or not picked.goes_on(job):
        return []
    try:
        names = picked.names(job)
        numbers = range(len(names) - 1, max(-1, len(names) - 1 - _LAST), -1)
        return [LastPicked(k, Path(names[k]).name, len(picked.picks(job, k)[0])) for k in numbers]
    except (VerglasError, OSError):  # being written
        return []


def small_picture(job: Job, picked: PickedMicrographs, number: int) -> bytes:
    """A micrograph at 320 pixels with white rings about its picks."""
    data = picked.micrograph(job, number)
    small, step = bin_to(data, _SMALL_PX)
    grey = grey_bytes(small)
    picks, _ = picked.picks(job, number)
    radius = picked.radius_px(job, picked.candidates(job, picked.name(job, number))) / step
    angle = np.linspace(0, 2 * np.pi, int(np.clip(8 * radius, 16, 8 * _SMALL_PX)), endpoint=False)
    xy = (picks.xy_px + 0.5) / step
    x = np.rint(xy[:, :1] + radius * np.cos(angle) - 0.5).astype(int)
    y = np.rint(xy[:, 1:] + radius * np.sin(angle) - 0.5).astype(int)
    here = (x >= 0) & (y >= 0) & (x < grey.shape[1]) & (y < grey.shape[0])
    grey[y[here], x[here]] = 255
    return grey_png(grey)
