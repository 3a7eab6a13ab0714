"""The table of a watched folder: every file and its state, in SQLite, so that a kill at any moment loses nothing.

States: *seen* (there), *growing* (its size or time changes, or its header is not complete), *ready* (whole, waiting),
*running* (worked on), *done*, *failed* (cannot be used; the reason is kept). Only one process writes a project (its
lock ends with it), so a row that is *running* when the table is opened was left by a process that died.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from verglas.errors import FormatError

STATES = ("seen", "growing", "ready", "running", "done", "failed")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS micrographs (
    path TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, seen REAL NOT NULL, changed REAL NOT NULL, started REAL,
    finished REAL
)"""
_COLUMNS = "path, state, reason, attempts, bytes, mtime_ns, seen, changed, started, finished"


@dataclass(frozen=True)
class SeenFile:
    """What a look at a folder sees of a file."""

    path: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class WatchRow:
    """One file.

    Attributes
    ----------
    path, state, reason : str
    attempts : int
        Times that work on it was begun.
    bytes, mtime_ns : int
        When it was last looked at.
    seen, changed : float
        First seen, last found changed; seconds since 1970.
    started, finished : float or None
        Of the last attempt.
    """

    path: str
    state: str
    reason: str
    attempts: int
    bytes: int
    mtime_ns: int
    seen: float
    changed: float
    started: float | None
    finished: float | None


class WatchTable:
    """The table; every change is one transaction.

    Parameters
    ----------
    path : Path
        The SQLite file; made if it is not there.

    Raises
    ------
    FormatError
        The file is no such table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.base = sqlite3.connect(path, timeout=30.0, isolation_level=None)
            self.base.execute("PRAGMA journal_mode=WAL")
            # WAL with NORMAL is safe against a killed process; FULL also against a loss of power
            self.base.execute("PRAGMA synchronous=FULL")
            self.base.execute(_SCHEMA)
            self.base.execute(f"SELECT {_COLUMNS} FROM micrographs LIMIT 1")
        except sqlite3.DatabaseError as error:
            raise FormatError(f"{path}: not a table of watched files ({error}); move it away") from error

    def close(self) -> None:
        """Leave one file."""
        self.base.close()

    def rows(self, *states: str) -> list[WatchRow]:
        """All files, or those in some states, in the order in which they were seen."""
        where = f" WHERE state IN ({','.join('?' * len(states))})" if states else ""
        cursor = self.base.execute(f"SELECT {_COLUMNS} FROM micrographs{where} ORDER BY seen, path", states)
        return [WatchRow(*row) for row in cursor]

    def counts(self) -> dict[str, int]:
        """Files by state."""
        numbers = dict(self.base.execute("SELECT state, COUNT(*) FROM micrographs GROUP BY state").fetchall())
        return {state: int(numbers.get(state, 0)) for state in STATES}

    def take_up(self, most_attempts: int) -> list[str]:
        """Rows left running by a process that died: ready again, or failed if that has happened too often."""
        paths = [row.path for row in self.rows("running")]
        with self.base:
            self.base.execute("BEGIN IMMEDIATE")
            self.base.execute(
                "UPDATE micrographs SET state='failed', finished=?, reason="
                "'the process died ' || attempts || ' times while it was worked on' "
                "WHERE state='running' AND attempts>=?",
                (time.time(), most_attempts),
            )
            self.base.execute("UPDATE micrographs SET state='ready' WHERE state='running'")
        return paths

    def look(self, files: Iterable[SeenFile], now: float | None = None) -> int:
        """Enter what a look at the folder found; how many rows are new or have changed."""
        at = time.time() if now is None else now
        rows = {row.path: row for row in self.rows()}
        fresh, changes = [], []
        for file in files:
            row = rows.get(file.path)
            if row is None:
                fresh.append((file.path, file.bytes, file.mtime_ns, at, at))
            elif (row.bytes, row.mtime_ns) != (file.bytes, file.mtime_ns) and row.state != "running":
                changes.append((file.bytes, file.mtime_ns, at, file.path))
        with self.base:
            self.base.execute("BEGIN IMMEDIATE")
            self.base.executemany(
                "INSERT INTO micrographs (path, state, bytes, mtime_ns, seen, changed) VALUES (?, 'seen', ?, ?, ?, ?)",
                fresh,
            )
            # a file that is written again starts anew, whatever had become of it
            self.base.executemany(
                "UPDATE micrographs SET state='growing', reason='', attempts=0, bytes=?, mtime_ns=?, changed=? "
                "WHERE path=?",
                changes,
            )
        return len(fresh) + len(changes)

    def mark(self, paths: Sequence[str], state: str, reason: str = "") -> None:
        """Put files into a state."""
        assert state in STATES
        now = time.time()
        more = {
            "running": ", attempts=attempts+1, started=?",
            "done": ", finished=?",
            "failed": ", finished=?",
        }.get(state, "")
        values = [(state, reason, *((now,) if more else ()), path) for path in paths]
        with self.base:
            self.base.execute("BEGIN IMMEDIATE")
            self.base.executemany(f"UPDATE micrographs SET state=?, reason=?{more} WHERE path=?", values)
