"""Columns of a large STAR file, mapped into memory from a file beside it: opened in no time, read as far as touched.

``particles.star`` gets ``.particles.star.columns``: every column of every loop as one run of numbers, text as codes
into a list of its distinct values, names of images as number and stack. It is made in pieces, so that neither making
nor opening it takes memory with the number of rows. Removing it loses nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import struct
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io.atomic import atomic_path
from verglas.io.kinds import require_file
from verglas.io.mrc import PathLike
from verglas.io.stack import ImageNames
from verglas.io.star import Block, forget, parse_block, scan

_MAGIC = b"VGCOLUM1"
_PIECE_BYTES = 16 << 20
_WINDOWS, _WINDOW_BYTES = 64, 16 << 10
_ABANDONED_S = 3600.0
IMAGE = "rlnImageName"
_TEXT: Any = "str" if int(pd.__version__.split(".")[0]) > 2 else object  # as read_csv makes text
_KINDS = {"int": "<i8", "float": "<f8", "bool": "|b1", "text": "<i4", "image": "<i4"}


class NotColumns(FormatError):
    """A table that columns do not hold as `read_star` would give it; read as it is."""


@dataclass(frozen=True)
class Column:
    """A column in its file: ``image`` has two runs, codes of (width of the number, stack) and numbers."""

    kind: str
    offset: int
    n_rows: int
    checksums: tuple[int, ...]
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class StarColumns:
    """The tables of a STAR file; of loops, columns that are read when they are asked for.

    Attributes
    ----------
    path : Path
        The STAR file.
    tables : dict
        By name, in the order of the file: of a loop its columns by label, of single values these.

    Examples
    --------
    >>> import tempfile, pandas as pd
    >>> from verglas.io import open_columns, write_star
    >>> table = pd.DataFrame({"rlnMicrographName": ["a.mrc", "a.mrc", "b.mrc"], "rlnDefocusU": [1.5e4, 1.6e4, 2.5]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_star(f"{folder}/p.star", {"particles": table})
    ...     columns = open_columns(f"{folder}/p.star")
    ...     columns.numbers("rlnDefocusU").tolist(), columns.codes("rlnMicrographName")[0].tolist()
    ([15000.0, 16000.0, 2.5], [0, 0, 1])
    """

    path: Path
    tables: dict[str, dict[str, Any]]
    _kept: Path
    _data: mmap.mmap
    _loops: frozenset[str]
    _checked: set[int] = field(default_factory=set, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def largest(self) -> str:
        """Name of the loop of most rows, which stands where no table is named."""
        if not self._loops:
            raise FormatError(f"{self.path}: no loop, only single values")
        return max((name for name in self.tables if name in self._loops), key=self.n_rows)

    def is_loop(self, table: str) -> bool:
        """Whether a table is a loop."""
        return table in self._loops

    def n_rows(self, table: str | None = None) -> int:
        """Rows of a loop."""
        columns = self.tables[self.largest if table is None else table]
        return next(iter(columns.values())).n_rows if columns else 0

    def labels(self, table: str | None = None) -> list[str]:
        """Labels of a table in their order."""
        return list(self.tables[self.largest if table is None else table])

    def is_number(self, label: str, table: str | None = None) -> bool:
        """Whether a column holds numbers."""
        return self._column(label, table).kind in ("int", "float", "bool")

    def numbers(self, label: str, table: str | None = None) -> npt.NDArray[Any]:
        """A column of numbers as it lies in the file: int64, float64 or bool; writing to it changes a copy.

        Raises
        ------
        FormatError
            No such column, one of text, or a damaged file of columns.
        """
        column = self._column(label, table)
        if not self.is_number(label, table):
            raise FormatError(f"{self.path}: {label} is text, expected numbers")
        return self._run(column, 0)

    def codes(self, label: str, table: str | None = None) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
        """A column of text as (code of each row, distinct values in the order in which they come); -1 is missing.

        Raises
        ------
        FormatError
            As :meth:`numbers`; the column holds numbers or names of images, nearly all of which differ.
        """
        column = self._column(label, table)
        if column.kind != "text":
            raise FormatError(f"{self.path}: {label} is no column of text that repeats")
        return self._run(column, 0), np.array(column.values, dtype=object)

    def images(self, label: str = IMAGE, table: str | None = None) -> ImageNames | None:
        """Names of images taken apart; None where not all are number@stack."""
        column = self._column(label, table)
        if column.kind != "image":
            return None
        stacks: dict[str, int] = {}
        stack_of = np.array([stacks.setdefault(name, len(stacks)) for _, name in column.values], np.int64)
        return ImageNames(list(stacks), stack_of[self._run(column, 0)], self._run(column, 1).astype(np.int64) - 1)

    def frame(self, labels: Sequence[str] | None = None, table: str | None = None) -> pd.DataFrame:
        """Columns as `read_star` gives them; numbers stay in the file until they are touched."""
        labels = self.labels(table) if labels is None else list(labels)
        rows = pd.RangeIndex(self.n_rows(table))
        return pd.DataFrame({label: self._series(label, table) for label in labels}, index=rows, copy=False)

    def as_tables(self) -> dict[str, pd.DataFrame | dict[str, Any]]:
        """All tables, as `read_star` gives them."""
        return {name: self.frame(None, name) if name in self._loops else dict(t) for name, t in self.tables.items()}

    def _series(self, label: str, table: str | None) -> Any:
        column = self._column(label, table)
        if column.kind == "text":
            codes, values = self.codes(label, table)
            return pd.Series(np.append(values, np.nan)[codes], dtype=_TEXT)
        if column.kind == "image":
            return pd.Series(self._image_names(column), dtype=_TEXT)
        return self._run(column, 0)

    def _image_names(self, column: Column) -> npt.NDArray[np.object_]:
        names = np.empty(column.n_rows, dtype=object)
        codes, numbers = self._run(column, 0).tolist(), self._run(column, 1).tolist()
        forms = [f"%0{width}d@{name.replace('%', '%%')}" for width, name in column.values]
        names[:] = [forms[code] % number for code, number in zip(codes, numbers, strict=True)]
        return names

    def _column(self, label: str, table: str | None) -> Column:
        name = self.largest if table is None else table
        column = self.tables[name].get(label) if name in self._loops else None
        if not isinstance(column, Column):
            have = ", ".join(self.labels(name)[:6])
            raise FormatError(f"{self.path}: table '{name}' has no column {label}; it has {have}, ...")
        return column

    def _run(self, column: Column, number: int) -> npt.NDArray[Any]:
        dtype = np.dtype(_KINDS[column.kind])
        if not column.n_rows:
            return np.zeros(0, dtype)
        at = column.offset + number * _align(column.n_rows * dtype.itemsize)
        with self._lock:
            run = np.frombuffer(self._data, dtype, column.n_rows, at)
            if at not in self._checked and zlib.crc32(run.data) != column.checksums[number]:
                raise FormatError(f"{self._kept}: damaged; remove it to have it made anew")
            self._checked.add(at)
        return run


def kept_beside(path: PathLike, suffix: str, folder: PathLike | None = None) -> Path:
    """Where something made of a file is kept: beside it, or in a folder for those of many."""
    path = Path(path)
    if folder is None:
        return path.with_name(f".{path.name}{suffix}")
    name = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return Path(folder) / f"{name}{suffix}"


def columns_path(path: PathLike, folder: PathLike | None = None) -> Path:
    """Where the columns of a STAR file lie: beside it, or in a folder for those of many."""
    return kept_beside(path, ".columns", folder)


def kept_columns(
    path: PathLike, folder: PathLike | None = None, mark: dict[str, Any] | None = None
) -> StarColumns | None:
    """Columns kept of a STAR file, beside it or in a folder, of a state or of the one it is in now; None where there
    are none: none are made.
    """
    path, mark = Path(path), file_state(path) if mark is None else mark
    records = (_read_beside(path, columns_path(path, place), mark) for place in dict.fromkeys((None, folder)))
    return next((one for one in records if one is not None), None)


def open_columns(path: PathLike, folder: PathLike | None = None) -> StarColumns:
    """Open a STAR file by its columns: those kept beside it where they are of the file as it is, else made now.

    For pages and jobs that need some columns of millions of rows. The first look reads the file in pieces; memory does
    not grow with the rows. Where the folder cannot be written, columns lie in a temporary file and are made each time.

    Parameters
    ----------
    path : path
        A STAR file.
    folder : path, optional
        Where columns are made if there are none beside the file, in place of there: for files of others.

    Returns
    -------
    StarColumns
        ``numbers(label)`` is the column as it lies in the file, ``codes(label)`` text as codes and distinct values,
        ``frame(labels)`` a data frame of some columns, with the values that `read_star` gives.

    Raises
    ------
    FormatError
        As `read_star`; a table whose columns change their kind (integers beyond 64 bits).

    Notes
    -----
    That the columns are those of the file is seen by its size, its time of change and a hash of 64 places spread over
    it. Every column has a checksum, looked at when it is first touched.

    Examples
    --------
    >>> import tempfile, pandas as pd
    >>> from verglas.io import open_columns, write_star
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_star(f"{folder}/p.star", {"particles": pd.DataFrame({"rlnClassNumber": [1, 2, 1]})})
    ...     columns = open_columns(f"{folder}/p.star")
    ...     len(columns.numbers("rlnClassNumber")), columns.frame(["rlnClassNumber"]).shape
    (3, (3, 1))
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size == 0:
        raise FormatError(f"{path}: empty file")
    mark, target = file_state(path), columns_path(path, folder)
    kept = kept_columns(path, folder, mark)
    if kept is not None:
        return kept
    if os.access(target.parent, os.W_OK):
        remove_abandoned(target)
        try:
            with atomic_path(target) as temporary:
                _write(path, temporary, mark)
            return _memory_map(path, target)
        except FormatError:
            raise
        except InputError as error:  # no room beside the file; perhaps elsewhere
            warnings.warn(f"{error}; columns are kept for this process only", VerglasWarning, stacklevel=2)
    with tempfile.TemporaryDirectory() as folder:
        _write(path, Path(folder) / "columns", mark)
        return _memory_map(path, Path(folder) / "columns")  # stays mapped when its name is gone


def remove_abandoned(target: Path) -> None:
    """What a process that was killed had made so far; one that is still at work has written within the hour."""
    # no glob: the name of a file may hold [ or *
    for part in target.parent.iterdir():
        if part.name.startswith(f".{target.stem}.") and part.name.endswith(f".part{target.suffix}"):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                if time.time() - part.stat().st_mtime > _ABANDONED_S:
                    part.unlink()


def file_state(path: PathLike) -> dict[str, Any]:
    """Of the file as it is now: size, time of change, and a hash of some of its bytes."""
    state = Path(path).stat()
    sha = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        for at in np.unique(np.linspace(0, max(0, state.st_size - _WINDOW_BYTES), _WINDOWS).astype(np.int64)).tolist():
            file.seek(at)
            sha.update(file.read(_WINDOW_BYTES))
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "hash": sha.hexdigest()}


def write_footer(out: BinaryIO, record: dict[str, Any], magic: bytes) -> None:
    """End a file with what it holds, the length of that, and eight bytes that say what the file is."""
    footer = json.dumps(record).encode()
    out.seek(0, os.SEEK_END)
    out.write(footer + struct.pack("<q8s", len(footer), magic))


def read_footer(file: BinaryIO, magic: bytes) -> Any:
    """What :func:`write_footer` wrote; OSError, ValueError or struct.error where it is another file, or cut off."""
    file.seek(-16, os.SEEK_END)
    length, read_magic = struct.unpack("<q8s", file.read(16))
    if read_magic != magic:
        raise ValueError(f"no file of {magic.decode()}")
    file.seek(-16 - length, os.SEEK_END)
    return json.loads(file.read(length))


# ---- the file of columns


def _align(size: int) -> int:
    return -(-size // 64) * 64


def _read_beside(path: Path, target: Path, mark: dict[str, Any]) -> StarColumns | None:
    """The columns beside a file, where there are some of the file as it is."""
    try:
        return _memory_map(path, target, mark)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _memory_map(path: Path, target: Path, mark: dict[str, Any] | None = None) -> StarColumns:
    with open(target, "rb") as file:
        head = read_footer(file, _MAGIC)
        if mark is not None and head["of"] != mark:
            raise ValueError("columns of another file")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    tables: dict[str, dict[str, Any]] = {}
    for one in head["tables"]:
        tables[one["name"]] = one.get("single") or {
            label: Column(kind, offset, one["rows"], tuple(sums), tuple(map(_as_tuple, values)))
            for label, kind, offset, sums, values in one["columns"]
        }
    return StarColumns(path, tables, target, data, frozenset(one["name"] for one in head["tables"] if "columns" in one))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _write(path: Path, target: Path, mark: dict[str, Any]) -> None:
    """All tables of a STAR file as columns; a column that turns out to be text begins again as such."""
    with open(path, "rb") as handle:
        text = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    head: list[dict[str, Any]] = []
    with open(target, "w+b") as out:
        for block in scan(path, text):
            if not block.loop:
                head.append({"name": block.name, "single": parse_block(path, block, text)})
                continue
            kinds: dict[str, str] = {}
            start = _align(out.seek(0, os.SEEK_END))
            while (columns := _write_loop(path, block, text, out, start, kinds)) is None:
                pass
            head.append({"name": block.name, "rows": block.n_rows, "columns": columns})
        write_footer(out, {"of": mark, "tables": head}, _MAGIC)


def _write_loop(
    path: Path, block: Block, text: mmap.mmap, out: Any, start: int, kinds: dict[str, str]
) -> list[list[Any]] | None:
    """Columns of a loop from an offset on; None if a kind had to change, which is then in ``kinds``."""
    room = _align(8 * block.n_rows) + 128  # the widest column, and two runs of an image's name
    writers = [_ColumnWriter(label, start + k * room, block.n_rows, kinds) for k, label in enumerate(block.labels)]
    out.truncate(start + len(writers) * room)
    as_text = [label for label, kind in kinds.items() if kind in ("text", "image")]
    for piece in _pieces(path, block, text, as_text):
        for writer in writers:
            if not writer.append(out, piece[writer.label]):
                return None
    return [writer.finish(out) for writer in writers]


def _pieces(path: Path, block: Block, text: mmap.mmap, as_text: list[str]) -> Iterator[pd.DataFrame]:
    at, line = block.rows_at, block.rows_line
    while at < block.end and block.n_rows:
        stop = block.end if at + _PIECE_BYTES >= block.end else text.rfind(b"\n", at, at + _PIECE_BYTES) + 1
        here = text[at:stop]
        # pandas refuses a piece without a row; only one that begins with a comment or a blank line needs a closer look
        if (not here[:1].isspace() and here[:1] != b"#") or _has_rows(here):
            piece = Block(block.name, block.line, stop, True, block.labels, at, line, 1)
            table = parse_block(path, piece, text, as_text)
            assert isinstance(table, pd.DataFrame)
            yield table
        line += here.count(b"\n")
        forget(text)
        at = stop


def _has_rows(text: bytes) -> bool:
    return any(line.strip() and not line.lstrip().startswith(b"#") for line in text.split(b"\n"))


_IMAGE_NAME = re.compile(r"\d{1,9}@.+")


def _kind_of(piece: pd.Series[Any]) -> str:
    """The kind of a column by a part of it."""
    if pd.api.types.is_bool_dtype(piece):
        return "bool"
    if piece.dtype == np.int64:
        return "int"
    if pd.api.types.is_float_dtype(piece):
        return "float"
    if isinstance(piece.dtype, pd.StringDtype) or pd.api.types.infer_dtype(piece) in ("string", "empty"):
        # as objects at once: one by one, text of Arrow takes longer to hand over than to look at
        is_image = piece.name == IMAGE and all(
            isinstance(v, str) and _IMAGE_NAME.fullmatch(v) for v in piece.to_numpy(object)
        )
        return "image" if is_image else "text"
    raise NotColumns(f"column {piece.name}: values of {piece.dtype} are not kept as a column")


class _ColumnWriter:
    """One column as it grows."""

    def __init__(self, label: str, offset: int, n_rows: int, kinds: dict[str, str]) -> None:
        self.label, self.offset, self.n_rows, self.kinds = label, offset, n_rows, kinds
        self.done = 0
        self.values: dict[Any, int] = {}

    def append(self, out: Any, piece: pd.Series[Any]) -> bool:
        """Write a piece; False if the whole column must be read as another kind, as it would be in one piece."""
        own_kind = _kind_of(piece)
        kind = self.kinds.setdefault(self.label, own_kind)
        if {kind, own_kind} == {"int", "float"}:
            self.kinds[self.label] = "float"
            if kind == "int":
                return False
        elif kind != own_kind and kind != "text":
            self.kinds[self.label] = "text"
            return False
        for number, run in enumerate(self._runs(kind, piece)):
            out.seek(self.offset + number * _align(self.n_rows * run.itemsize) + self.done * run.itemsize)
            out.write(run.data)
        self.done += len(piece)
        return True

    def _runs(self, kind: str, piece: pd.Series[Any]) -> list[npt.NDArray[Any]]:
        if kind == "text":
            return [self._encode(piece)]
        if kind == "image":
            return self._image_parts(piece)
        return [np.ascontiguousarray(piece.to_numpy(), _KINDS[kind])]

    def _encode(self, piece: pd.Series[Any]) -> npt.NDArray[np.int32]:
        codes, distinct = pd.factorize(piece)
        ids = [self.values.setdefault(str(value), len(self.values)) for value in distinct]
        return np.array([*ids, -1], np.int32)[codes]

    def _image_parts(self, piece: pd.Series[Any]) -> list[npt.NDArray[Any]]:
        codes, numbers = np.empty(len(piece), np.int32), np.empty(len(piece), np.int32)
        values = self.values
        for i, text in enumerate(piece.to_numpy(object)):
            number, _, name = text.partition("@")
            numbers[i] = int(number)
            codes[i] = values.setdefault((len(number), name), len(values))
        return [codes, numbers]

    def finish(self, out: Any) -> list[Any]:
        """What the head of the file says of the column."""
        kind = self.kinds.get(self.label, "float")
        itemsize, sums = np.dtype(_KINDS[kind]).itemsize, []
        for number in range(2 if kind == "image" else 1):
            out.seek(self.offset + number * _align(self.n_rows * itemsize))
            left, crc = self.n_rows * itemsize, 0
            while left:
                data = out.read(min(left, 1 << 22))
                crc, left = zlib.crc32(data, crc), left - len(data)
            sums.append(crc)
        return [self.label, kind, self.offset, sums, list(self.values)]
