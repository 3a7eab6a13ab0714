"""``profile.json`` of a run folder: time, processor time, ops and bytes read, by phase of the job.

A job tells its phases as it tells how far it is; the time from the first word of one phase to the first of the next is
the phase's. A folder that is worked in again gets a session more.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
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

    def phase(self, name: str) -> None:
        """A phase goes on, or begins and ends the one before."""
        if name == self._mark.name:
            return
        with self._lock:
            if name != self._mark.name:
                self._end()
                self._mark = _Mark.now(name)

    def _end(self) -> None:
        mark, now = self._mark, _Mark.now("")
        counted = now.counted.since(mark.counted)
        seconds = now.wall - mark.wall
        if len(self._phases) >= _MOST_PHASES:  # jobs of thousands of iterations keep the last ones
            del self._phases[0]
        self._phases.append(
            {
                "phase": mark.name,
                "seconds": round(seconds, 3),
                "processor_seconds": round(now.processor - mark.processor, 3),
                "bytes_read": counted.bytes_read,
                "ops": {
                    name: {"seconds": round(counted.seconds[name], 4), "calls": counted.calls[name]}
                    for name in sorted(counted.seconds, key=lambda name: -counted.seconds[name])
                },
            }
        )

    def write(self, *, last: bool = False) -> None:
        """Replace the file: the phases that have ended; at the ``last`` call also the one that ends with the job."""
        with self._lock:
            if last:
                self._end()
                self._mark = _Mark.now("after")
            if self._before is None:
                self._before = _sessions(self.path)
            session = {"verglas": __version__, "started": self.started, "phases": self._phases}
            write_json(self.path, {"sessions": [*self._before, session][-_MOST_SESSIONS:]})


def _sessions(path: Path) -> list[Any]:
    try:
        found = read_json(path).get("sessions", []) if path.is_file() else []
    except InputError:
        return []  # of a disk that was full: figures of times are no reason to end a job
    return found if isinstance(found, list) else []
