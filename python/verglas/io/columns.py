"""Numbers of a particle file by column, kept in one file that is mapped into memory: a million rows are there at once.

A STAR file is parsed as a whole whatever is asked of it. Kept columns hold what varies in it as float64, one column
after the other, and beside each value the bin of its histogram, so that a choice among millions is counted without
sorting them. They say which state of which file they are of, and are not read for another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.io.atomic import atomic_path
from verglas.io.mrc import PathLike
from verglas.io.particles import read_particles
from verglas.types.arrays import FloatArray

N_BINS, NO_BIN = 60, 255
COLUMNS_FOLDER = ".columns"  # beside the particle file
LARGE_BYTES = 20 << 20  # a smaller file is read as quickly as a person looks
_MAGIC = b"verglas columns 1\n"
_ALIGNED = 4096
_EDGE_BYTES = 64 << 10


@dataclass(frozen=True)
class Columns:
    """Columns of numbers that vary.

    Attributes
    ----------
    names : sequence of str
        c columns.
    values : (c, n) float64 array
        NaN or infinite where a row has no value.
    bins : (c, n) uint8 array
        Bin of the histogram, from 0 to ``N_BINS`` - 1; ``NO_BIN`` without a value.
    limits : (c, 2) float64 array
        Of the histogram: the 0.1st and the 99.9th percentile. What lies beyond is in the outermost bins.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.io.columns import Columns
    >>> columns = Columns.of_table(pd.DataFrame({"a": [0.0, 1.0, 2.0], "same": [5, 5, 5], "name": ["x", "y", "z"]}))
    >>> list(columns.names), columns.n_rows, columns.counts("a").sum().item()
    (['a'], 3, 3)
    """

    names: Sequence[str]
    values: FloatArray
    bins: npt.NDArray[np.uint8]
    limits: FloatArray

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> Columns:
        """Columns of a table that hold numbers of which two differ."""
        names, values, bins, limits = [], [], [], []
        for name in map(str, table.columns):
            if not pd.api.types.is_numeric_dtype(table[name]):
                continue
            column = table[name].to_numpy(np.float64)  # as `verglas select` reads it: a limit may be a value
            finite = np.isfinite(column)
            good = column[finite]
            if not len(good) or good.min() == good.max():
                continue
            low, high = (float(f"{v:.6g}") for v in np.percentile(good, (0.1, 99.9)))
            if not low < high:
                low, high = float(good.min()), float(good.max())
            place = np.full(len(column), NO_BIN, np.uint8)
            place[finite] = np.clip((good - low) * (N_BINS / (high - low)), 0, N_BINS - 1).astype(np.uint8)
            names.append(name)
            values.append(column)
            bins.append(place)
            limits.append((low, high))
        shape = (len(names), len(table))
        return cls(
            names,
            np.array(values, np.float64).reshape(shape),
            np.array(bins, np.uint8).reshape(shape),
            np.array(limits, np.float64).reshape(-1, 2),
        )

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return int(self.values.shape[1])

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def of(self, name: str) -> FloatArray:
        """Values (n,) of a column."""
        return self.values[self.names.index(name)]

    def counts(self, name: str, kept: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """(N_BINS,) rows in each bin of a column's histogram, of all or of those kept."""
        place = self.bins[self.names.index(name)]
        counted = np.bincount(place if kept is None else place[kept], minlength=NO_BIN + 1)
        return counted[:N_BINS].astype(np.int64)


def columns_of(path: PathLike) -> Columns:
    """Columns of a particle file, read as a whole.

    Raises
    ------
    FormatError
        As :func:`verglas.read_particles`.
    """
    return Columns.of_table(read_particles(path).table)


def columns_file(path: PathLike, folder: PathLike | None = None) -> Path:
    """Where the columns of a particle file are kept: beside it, or in a folder for those of many."""
    path = Path(path)
    if folder is None:
        return path.parent / COLUMNS_FOLDER / f"{path.name}.columns"
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return Path(folder) / f"{name}.columns"


def keep_columns(path: PathLike, folder: PathLike | None = None) -> Path:
    """Read a particle file and keep its columns; the folder is made if it is not there.

    Raises
    ------
    FormatError
        As :func:`verglas.read_particles`.
    OSError, InputError
        They cannot be written.
    """
    state = _state(Path(path))  # before it is read: what changes meanwhile must not pass for what was read
    columns, kept = columns_of(path), columns_file(path, folder)
    kept.parent.mkdir(parents=True, exist_ok=True)
    record = {"state": state, "names": list(columns.names), "rows": columns.n_rows, "limits": columns.limits.tolist()}
    head = _MAGIC + json.dumps(record).encode() + b"\n"
    with atomic_path(kept) as temporary, open(temporary, "wb") as out:
        out.write(head.ljust(-(-len(head) // _ALIGNED) * _ALIGNED, b" "))
        columns.values.tofile(out)
        columns.bins.tofile(out)
    return kept


def read_columns(path: PathLike, folder: PathLike | None = None) -> Columns | None:
    """Kept columns of a particle file, mapped and not read; None where there are none of its present state.

    Examples
    --------
    >>> import tempfile, numpy as np, verglas as vg
    >>> from verglas.io.columns import keep_columns, read_columns
    >>> p = vg.Particles.from_images(np.ones((5, 8, 8), np.float32), 2.0).with_columns(rlnDefocusU=[1.0, 2, 3, 4, 5])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     vg.write_particles(f"{folder}/p.star", p)
    ...     kept = keep_columns(f"{folder}/p.star")
    ...     read_columns(f"{folder}/p.star").of("rlnDefocusU").tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    kept = columns_file(path, folder)
    try:
        with open(kept, "rb") as handle:
            if handle.readline(len(_MAGIC)) != _MAGIC:
                return None
            record, start = json.loads(handle.readline()), handle.tell()
        if record["state"] != _state(Path(path)):
            return None
        return _mapped(kept, record, -(-start // _ALIGNED) * _ALIGNED)
    except (OSError, ValueError, LookupError, TypeError):  # being replaced, cut off, or of another version
        return None


def _mapped(kept: Path, record: Mapping[str, Any], start: int) -> Columns:
    names, shape = record["names"], (len(record["names"]), int(record["rows"]))
    limits = np.array(record["limits"], np.float64).reshape(len(names), 2)
    if not names or not shape[1]:
        return Columns([], np.zeros((0, shape[1])), np.zeros((0, shape[1]), np.uint8), limits)
    after = start + 8 * shape[0] * shape[1]
    values = np.memmap(kept, np.float64, "r", start, shape)
    bins = np.memmap(kept, np.uint8, "r", after, shape)
    return Columns(names, values, bins, limits)


def _state(path: Path) -> list[Any]:
    """Size, time and the two ends of a file: another file in its place, and one that was changed, differ."""
    now = path.stat()
    with open(path, "rb") as handle:
        edges = hashlib.sha256(handle.read(_EDGE_BYTES))
        handle.seek(max(0, now.st_size - _EDGE_BYTES))
        edges.update(handle.read(_EDGE_BYTES))
    return [now.st_size, now.st_mtime_ns, edges.hexdigest()]
