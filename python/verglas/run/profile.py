"""``profile.json`` of a run folder: time, processor time, ops and bytes read, by phase of the job.

A job tells its phases as it tells how far it is. A folder that is worked in again gets a session more.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verglas._version import __version__
from verglas.errors import InputError
from verglas.io import read_json, write_json
from verglas.types.profile import Counts, counts

NAME = "profile.json"
_MOST_SESSIONS, _MOST_PHASES = 20, 500


@dataclass(frozen=True)
class _Mark:
    """Where a phase began."""

    name: str
    wall: float
    processor: float
    counted: Counts

    @classmethod
    def now(cls, name: str) -> _Mark:
        return cls(name, time.perf_counter(), time.process_time(), counts())


class ProfileRecorder:
    """Times the phases of a job.

    Parameters
    ----------
    folder : Path
        Where ``profile.json`` is written.
    started : str
        When the session began.
    """

    def __init__(self, folder: Path, started: str) -> None:
        self.path, self.started = folder / NAME, started
        self._lock, self._mark = threading.Lock(), _Mark.now("starting")
        self._phases: list[dict[str, Any]] = []
        self._before: list[Any] | None = None

    def progress(self, name: str, done: int, total: int) -> None:
        """A phase begins or goes on.

        Many jobs speak of a phase only when a part of it is done. So what follows a phase that is through counts for
        the one that is told next, or for the iteration that ends next.
        """
        if name == self._mark.name and done < total:
            return
        with self._lock:
            if not self._mark.name:
                self._mark = replace(self._mark, name=name)
            elif name != self._mark.name:
                self._next(name)
            if done >= total > 0:
                self._next("")

    def iteration(self) -> None:
        """An iteration ends here: maps that were made after its particles are part of it."""
        with self._lock:
            if not self._mark.name and self._phases:
                self._mark = replace(self._mark, name=str(self._phases[-1]["phase"]))
            if self._mark.name:
                self._next("")

    def _next(self, name: str) -> None:
        """End the phase that goes on, and begin another; without a name until one is told."""
        mark, now = self._mark, _Mark.now(name)
        self._mark = now
        counted = now.counted.since(mark.counted)
        if not self._phases or self._phases[-1]["phase"] != mark.name:
            if len(self._phases) >= _MOST_PHASES:  # jobs of thousands of iterations keep the last ones
                del self._phases[0]
            self._phases.append(
                {"phase": mark.name, "seconds": 0.0, "processor_seconds": 0.0, "bytes_read": 0, "ops": {}}
            )
        phase = self._phases[-1]
        phase["seconds"] = round(phase["seconds"] + now.wall - mark.wall, 3)
        phase["processor_seconds"] = round(phase["processor_seconds"] + now.processor - mark.processor, 3)
        phase["bytes_read"] += counted.bytes_read
        for name, seconds in counted.seconds.items():
            op = phase["ops"].setdefault(name, {"seconds": 0.0, "calls": 0})
            op["seconds"], op["calls"] = round(op["seconds"] + seconds, 4), op["calls"] + counted.calls[name]

    def write(self, *, last: bool = False) -> None:
        """Replace the file: the phases that have ended; at the ``last`` call also the one that ends with the job."""
        with self._lock:
            if last:
                self._mark = replace(self._mark, name=self._mark.name or "ending")
                self._next("")
            if self._before is None:
                self._before = _sessions(self.path)
            session = {"verglas": __version__, "started": self.started, "phases": self._phases}
            write_json(self.path, {"sessions": [*self._before, session][-_MOST_SESSIONS:]})


def _sessions(path: Path) -> list[Any]:
    try:
        sessions = read_json(path).get("sessions", []) if path.is_file() else []
    except InputError:
        return []  # of a disk that was full: figures of times are no reason to end a job
    return sessions if isinstance(sessions, list) else []
