"""Numbers of a particle file for the pages: columns that vary, and beside each value the bin of its histogram.

The values of a STAR file lie in the one file of columns that it has (`verglas.io.star_columns`); what is kept here is
one byte a value, so that a choice among millions is counted without sorting them. Of formats that are no text (.cs)
the values are kept as well. Both say which state of which file they are of, and are not read for another.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError
from verglas.io.atomic import atomic_path
from verglas.io.mrc import PathLike
from verglas.io.particles import read_particles
from verglas.io.star_columns import (
    IMAGE,
    NotColumns,
    StarColumns,
    file_state,
    kept_beside,
    kept_columns,
    open_columns,
    read_footer,
    remove_abandoned,
    write_footer,
)
from verglas.io.tomography import refuse_tomography
from verglas.types.arrays import FloatArray

N_BINS, NO_BIN = 60, 255
LARGE_BYTES = 20 << 20  # a smaller file is read as quickly as a person looks
_MAGIC = b"VGBINS02"


@dataclass(frozen=True)
class Columns:
    """Columns of numbers that vary.

    Attributes
    ----------
    names : sequence of str
        c columns.
    n_rows : int
        n rows of the table.
    bins : (c, n) uint8 array
        Bin of the histogram, from 0 to ``N_BINS`` - 1; ``NO_BIN`` without a value.
    limits : (c, 2) float64 array
        Of the histogram: the 0.1st and the 99.9th percentile. What lies beyond is in the outermost bins.
    read : callable
        Values of a column by its name.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.io.columns import Columns
    >>> columns = Columns.of_table(pd.DataFrame({"a": [0.0, 1.0, 2.0], "same": [5, 5, 5], "name": ["x", "y", "z"]}))
    >>> list(columns.names), columns.n_rows, columns.counts("a").sum().item()
    (['a'], 3, 3)
    """

    names: Sequence[str]
    n_rows: int
    bins: npt.NDArray[np.uint8]
    limits: FloatArray
    read: Callable[[str], npt.NDArray[Any]]

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> Columns:
        """Columns of a table that hold numbers of which two differ."""
        numbers = table.loc[:, [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]]
        return cls.of_numbers(list(map(str, numbers)), len(table), lambda name: numbers[name].to_numpy(np.float64))

    @classmethod
    def of_numbers(cls, labels: Sequence[str], n_rows: int, read: Callable[[str], npt.NDArray[Any]]) -> Columns:
        """Of columns of numbers those of which two differ, looked at one after the other."""
        names, bins, limits = [], [], []
        for name in labels:
            placed = _bin(_float64(read(name)))
            if placed is not None:
                names.append(name)
                bins.append(placed[0])
                limits.append(placed[1])
        stacked = np.array(bins, np.uint8).reshape(len(names), n_rows)
        return cls(names, n_rows, stacked, np.array(limits, np.float64).reshape(-1, 2), read)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def of(self, name: str) -> FloatArray:
        """Values (n,) of a column, NaN or infinite where a row has none."""
        return _float64(self.read(self.names[self.names.index(name)]))

    def counts(self, name: str, kept: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """(N_BINS,) rows in each bin of a column's histogram, of all or of those kept."""
        place = self.bins[self.names.index(name)]
        counted = np.bincount(place if kept is None else place[kept], minlength=NO_BIN + 1)
        return counted[:N_BINS].astype(np.int64)


def _float64(values: npt.NDArray[Any]) -> FloatArray:
    return values.astype(np.float64, copy=False)  # as `verglas select` reads it: a limit may be a value


def _bin(column: FloatArray) -> tuple[npt.NDArray[np.uint8], tuple[float, float]] | None:
    """Bins and limits of a column; None where no two values differ."""
    finite = np.isfinite(column)
    good = column[finite]
    if not len(good) or good.min() == good.max():
        return None
    low, high = (float(f"{v:.6g}") for v in np.percentile(good, (0.1, 99.9)))
    if not low < high:
        low, high = float(good.min()), float(good.max())
    place = np.full(len(column), NO_BIN, np.uint8)
    place[finite] = np.clip((good - low) * (N_BINS / (high - low)), 0, N_BINS - 1).astype(np.uint8)
    return place, (low, high)


def columns_of(path: PathLike) -> Columns:
    """Columns of a particle file, read as a whole.

    Raises
    ------
    FormatError
        As :func:`verglas.read_particles`.
    """
    return Columns.of_table(read_particles(path).table)


def bins_path(path: PathLike, folder: PathLike | None = None) -> Path:
    """Where the bins of a particle file are kept: beside it, or in a folder for those of many."""
    return kept_beside(path, ".bins", folder)


def keep_columns(path: PathLike, folder: PathLike | None = None) -> Path:
    """Read a particle file and keep its columns and their bins; the folder is made if it is not there.

    Raises
    ------
    FormatError
        As :func:`verglas.read_particles`.
    OSError, InputError
        They cannot be written.
    """
    path, target = Path(path), bins_path(path, folder)
    state = file_state(path)  # before it is read: what changes meanwhile must not pass for what was read
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"cannot write {target}: the folder is not writable")
    remove_abandoned(target)
    table, columns = _table_to_keep(path, folder)
    if table is not None and kept_columns(path, folder) is None:
        raise InputError(f"{path}: changed while it was read, or no room for its columns")
    record = {"of": state, "names": list(columns.names), "rows": columns.n_rows, "limits": columns.limits.tolist()}
    with atomic_path(target) as temporary, open(temporary, "wb") as out:
        for name in columns.names if table is None else ():
            columns.of(name).tofile(out)
        columns.bins.tofile(out)
        write_footer(out, record | {"table": table}, _MAGIC)
    return target


def _table_to_keep(path: Path, folder: PathLike | None) -> tuple[str | None, Columns]:
    """Columns, and which table of a STAR file they are of; None where values must be kept with the bins."""
    if path.suffix.lower() == ".star":
        try:
            star = open_columns(path, folder)
        except NotColumns:
            return None, columns_of(path)
        refuse_tomography(path, star.tables)
        holding = [name for name, table in star.tables.items() if IMAGE in table]
        if len(holding) == 1 and star.is_loop(holding[0]):
            return holding[0], _of_star(star, holding[0])
    return None, columns_of(path)  # of cisTEM, or not particles: as they are read, or what is wrong with them


def _of_star(star: StarColumns, table: str) -> Columns:
    labels = [label for label in star.labels(table) if star.is_number(label, table)]
    return Columns.of_numbers(labels, star.n_rows(table), partial(star.numbers, table=table))


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
    path, target = Path(path), bins_path(path, folder)
    try:
        with open(target, "rb") as handle:
            record = read_footer(handle, _MAGIC)
        state = file_state(path)
        if record["of"] != state:
            return None
        if record["table"] is None:
            return _memory_map(target, record, None)
        star = kept_columns(path, folder, state)
        return None if star is None else _memory_map(target, record, partial(star.numbers, table=record["table"]))
    except (OSError, ValueError, LookupError, TypeError, struct.error):  # being replaced, cut off, or another version
        return None


def _memory_map(target: Path, record: Mapping[str, Any], read: Callable[[str], npt.NDArray[Any]] | None) -> Columns:
    names, n_rows = list(record["names"]), int(record["rows"])
    limits, shape = np.array(record["limits"], np.float64).reshape(len(names), 2), (len(names), n_rows)
    if not names or not n_rows:
        return Columns(names, n_rows, np.zeros(shape, np.uint8), limits, read or (lambda name: np.zeros(0)))
    start = 0
    if read is None:
        values = np.memmap(target, np.float64, "r", 0, shape)
        start, read = values.nbytes, lambda name: values[names.index(name)]
    return Columns(names, n_rows, np.memmap(target, np.uint8, "r", start, shape), limits, read)
