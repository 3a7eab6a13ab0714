"""Small tables and records of a run folder: CSV and JSON, written whole or not at all."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import FormatError
from verglas.io.atomic import atomic_path
from verglas.io.mrc import PathLike
from verglas.io.star import Block, parse_block, scan

_WINDOWS = 64


def write_csv(path: PathLike, columns: Mapping[str, npt.ArrayLike]) -> None:
    """Write columns of one length under a line of their names; NaN is an empty cell.

    Examples
    --------
    >>> import tempfile
    >>> from verglas.io.tables import read_csv, write_csv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_csv(f"{folder}/a.csv", {"x": [1, 2], "y": [0.5, float("nan")]})
    ...     read_csv(f"{folder}/a.csv")["y"].tolist()
    [0.5, nan]
    """
    table = pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")


def read_csv(path: PathLike, required: tuple[str, ...] = (), texts: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a table with a line of column names; columns of texts stay as they are written (``001``).

    Raises
    ------
    FormatError
        The file is not there, is no table, or lacks a required column.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: no such file")
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(texts, str))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a CSV table: {str(error).strip().splitlines()[0]}") from error
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise FormatError(f"{path}: no column {missing[0]!r}; found {', '.join(map(str, table.columns))}")
    return table


def write_json(path: PathLike, record: Mapping[str, Any]) -> None:
    """Write a record; a NaN or infinite number is an error, since JSON has none."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: PathLike) -> dict[str, Any]:
    """Read a record.

    Raises
    ------
    FormatError
        The file is not there, or holds something else than one JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: no such file")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(record).__name__}")
    return record


def sample_star(path: PathLike, most: int = 200_000) -> tuple[dict[str, pd.DataFrame | dict[str, Any]], int]:
    """Tables of a STAR file, of large ones rows from 64 places evenly spread over the file.

    For figures of millions of particles, which a fraction of them draws as well.

    Parameters
    ----------
    path : path
        A STAR file.
    most : int
        About so many rows of a table are read.

    Returns
    -------
    tables : dict
        As :func:`verglas.io.read_star`.
    rows : int
        Of the largest table in the file.

    Raises
    ------
    FormatError
        As :func:`verglas.io.read_star`.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise FormatError(f"{path}: no such file, or an empty one")
    with open(path, "rb") as handle:
        text = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    tables, rows = {}, 0
    for block in scan(path, text):
        rows = max(rows, block.n_rows)
        tables[block.name] = (
            parse_block(path, block, text) if block.n_rows <= most else _windows(path, block, text, most)
        )
    return tables, rows


def _windows(path: Path, block: Block, text: mmap.mmap, most: int) -> pd.DataFrame:
    size = block.end - block.rows_at
    length = int(size * most / block.n_rows / _WINDOWS)
    parts = []
    for start in np.linspace(block.rows_at, block.end - length, _WINDOWS).astype(np.int64).tolist():
        # A window starts after a line's end, or the first row would be half of one.
        begin = start if start == block.rows_at else text.find(b"\n", start - 1) + 1
        stop = text.find(b"\n", start + length - 1) + 1
        rows = len(text[begin:stop].split(b"\n")) - 1
        piece = Block(block.name, block.line, stop, True, block.labels, begin, block.rows_line, rows)
        table = parse_block(path, piece, text)
        assert isinstance(table, pd.DataFrame)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)
