"""Columns of particle files for the pages: a small file is read at once, a large one by a process beside the server.

No page waits for a million rows: whoever asks while they are read is told so, and asks again.
"""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from verglas.errors import InputError, VerglasError
from verglas.io import sample_star
from verglas.io.columns import LARGE_BYTES, Columns, columns_of, read_columns
from verglas.run.columns import keep_columns_apart
from verglas.run.speed import cache_folder
from verglas.window.kept import Kept, file_stamp

_KEPT_TABLES, _KEPT_FILES = 6, 12
_FIRST_ROWS = 12_800  # of a large file, from 64 places: parsed in a fraction of a second


class BeingRead(InputError):
    """A large file that is read for the first time."""


@dataclass(frozen=True)
class Glance:
    """What is known of a large file before it is read: how many rows it has, and the columns of some of them."""

    n_rows: int
    columns: Columns


class ReadColumns:
    """Columns by file, those that were asked for last."""

    def __init__(self) -> None:
        self._tables: Kept[Columns] = Kept(_KEPT_TABLES)
        self._glances: Kept[Glance | None] = Kept(_KEPT_TABLES)
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._reading: dict[tuple[Path, int, int], str] = {}  # what went wrong; empty while it is read
        self._own: tempfile.TemporaryDirectory[str] | None = None

    def of(self, path: Path) -> Columns:
        """Columns of a file.

        Raises
        ------
        BeingRead
            It is large, and nothing has been kept of it yet: it is read now.
        InputError
            It could not be read.
        """
        return self._tables.of_file(path, lambda: self._find(path))

    def glance(self, path: Path) -> Glance | None:
        """Of a file that is being read, rows from places evenly spread over it; None where they say nothing.

        What is wrong with the file is said by the one who reads it.
        """
        return self._glances.of_file(path, lambda: _glance(path)) if path.suffix == ".star" else None

    def _find(self, path: Path) -> Columns:
        for folder in (None, self._folder()):
            kept = read_columns(path, folder)
            if kept is not None:
                return kept
        stamp = file_stamp(path)
        size = stamp[1]
        if size < LARGE_BYTES:
            return columns_of(path)
        key = (path, *stamp)
        with self._lock:
            wrong = self._reading.get(key)
            if wrong:
                raise InputError(wrong)
            if wrong is None:
                self._reading[key] = ""
                threading.Thread(target=self._read, args=key, name="columns", daemon=True).start()
        raise BeingRead(f"reading {path.name} ({size / 1e6:.0f} MB) for the first time")

    def _read(self, path: Path, *state: int) -> None:
        with self._turn:  # one after the other: two would need twice the memory
            folder = self._folder()
            wrong = keep_columns_apart(path, folder)
            for kind in ("*.columns", "*.bins"):
                for old in sorted(folder.glob(kind), key=os.path.getmtime)[:-_KEPT_FILES]:
                    old.unlink(missing_ok=True)
        with self._lock:
            if wrong:
                self._reading[path, state[0], state[1]] = wrong
            else:
                self._reading.pop((path, state[0], state[1]), None)

    def _folder(self) -> Path:
        """For files whose folders are not written into."""
        if self._own is not None:
            return Path(self._own.name)
        try:
            folder = cache_folder() / "columns"
            folder.mkdir(parents=True, exist_ok=True)
            writable = os.access(folder, os.W_OK)
        except (OSError, RuntimeError):
            writable = False
        if writable:
            return folder
        # No home, or none that can be written: kept as long as the server is.
        self._own = tempfile.TemporaryDirectory(prefix="verglas-columns-")
        return Path(self._own.name)


def _glance(path: Path) -> Glance | None:
    try:
        tables, n_rows = sample_star(path, _FIRST_ROWS)
    except (VerglasError, OSError):
        return None
    loops = [one for one in tables.values() if isinstance(one, pd.DataFrame)]
    return Glance(n_rows, Columns.of_table(max(loops, key=len))) if loops else None
