"""Files of SPIDER: documents (tables of numbers by key) and images, read and, documents, written.

A document line holds a key, the number of values, and the values; lines that start with ``;`` are comments. SPIDER
counts pixels from 1. The header of an image is of 32-bit floats in either byte order, whose fields are numbered from 1
in the documentation: 1 NZ, 2 NY, 5 IFORM, 12 NX, 13 LABREC, 22 LABBYT, 23 LENBYT, 24 ISTACK, 26 MAXIM, 38 pixel size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import FormatError, InputError
from verglas.io.atomic import write_text
from verglas.io.mrc_header import PathLike, require_file

_LINE = re.compile(r"\s*(-?\d+)\s+(\d+)(?=[\s+-])(.*)")
# Documents of version 5 and earlier fill fixed columns, so that numbers may touch: -1.0-2.0
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?")
_IMAGE, _VOLUME = 1, 3


def is_document(path: PathLike) -> bool:
    """Whether a file looks like a document of SPIDER: a comment that starts with ``;``, then key, count and values."""
    with open(path, "rb") as handle:
        lines = handle.read(4096).decode("latin-1").splitlines()
    if not lines or not lines[0].lstrip().startswith(";"):
        return False
    match = next((_LINE.fullmatch(line.rstrip()) for line in lines if not line.lstrip().startswith(";")), None)
    return match is not None and int(match.group(2)) == len(_NUMBER.findall(match.group(3)))


def read_spider_document(path: PathLike) -> pd.DataFrame:
    r"""A document of SPIDER: one row per key, columns 1, 2, ...; a key that comes again replaces the row before.

    Raises
    ------
    FormatError
        A line with another number of values than it says, lines of different lengths, or no line at all.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from verglas.io.spider import read_spider_document
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "dcb001.spi"
    ...     _ = file.write_text(" ;spi/spi\n    1 2   10.5      20.\n    3 2   30.       40.\n")
    ...     read_spider_document(file).loc[3].tolist()
    [30.0, 40.0]
    """
    path = require_file(path)
    rows: dict[int, list[float]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a text (byte {error.start}), so no document of SPIDER") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise FormatError(f"{path}, line {number}: expected a key, a count and values, got {line.strip()[:60]!r}")
        # Fortran writes 1.0D+00.
        values = [float(v.lower().replace("d", "e")) for v in _NUMBER.findall(match.group(3))]
        if len(values) != int(match.group(2)):
            raise FormatError(f"{path}, line {number}: {len(values)} values where {match.group(2)} are announced")
        rows[int(match.group(1))] = values
    if not rows:
        raise FormatError(f"{path}: no lines with a key and values, so no document of SPIDER")
    width = max(map(len, rows.values()))
    short = next((key for key, values in rows.items() if len(values) != width), None)
    if short is not None:
        raise FormatError(f"{path}: key {short} has {len(rows[short])} values, others {width}")
    return pd.DataFrame.from_dict(rows, orient="index", columns=range(1, width + 1)).rename_axis("key")


def write_spider_document(path: PathLike, table: pd.DataFrame) -> None:
    """Write numbers as a document of SPIDER; keys 1, 2, ..., or the index if it is called ``key``.

    Raises
    ------
    InputError
        A value is not a finite number.
    """
    values = table.to_numpy(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise InputError(f"cannot write {path}: row {bad[0][0]}, column {table.columns[bad[0][1]]} is not finite")
    keys = table.index.to_numpy(np.int64) if table.index.name == "key" else np.arange(1, len(table) + 1)
    names = "".join(f"{str(label)[:13]:>14}" for label in table.columns)
    lines = [f" ; /       {names}"]
    lines += [
        f"{key:5d} {len(row):2d} " + "".join(f"{value:14.7g}" for value in row)
        for key, row in zip(keys, values, strict=True)
    ]
    write_text(path, "\n".join(lines) + "\n")


@dataclass(frozen=True)
class SpiderHeader:
    """What the header of a SPIDER file says.

    Attributes
    ----------
    path : Path
    dtype : str
        ``"<f4"`` or ``">f4"``.
    shape : (nz or images, ny, nx)
    offset : int
        Bytes before the first value.
    stack : bool
        Images one after another, each with a header of its own of ``offset`` bytes.
    pixel_size_A : float
        0 where unknown.
    """

    path: Path
    dtype: str
    shape: tuple[int, int, int]
    offset: int
    stack: bool
    pixel_size_A: float


def spider_header(path: PathLike) -> SpiderHeader | None:
    """The header of a SPIDER image, stack or volume; None if the file is none."""
    path = require_file(path)
    with open(path, "rb") as handle:
        raw = handle.read(1024)
    size = path.stat().st_size
    if len(raw) < 1024:
        return None
    for dtype in ("<f4", ">f4"):
        with np.errstate(invalid="ignore"):  # bytes of another order are no numbers
            field = np.frombuffer(raw, dtype)[:40].astype(np.float64)
        nz, ny, form, nx, records, length, line = (field[i] for i in (0, 1, 4, 11, 12, 21, 22))
        counts = (nz, ny, nx, records, length, line)
        if not all(np.isfinite(v) and v == int(v) and 0 < v < 2**31 for v in map(abs, counts)):
            continue
        if form not in (_IMAGE, _VOLUME) or ny < 0 or line != 4 * nx or length != records * line or length < 1024:
            continue
        stack, images = field[23] > 0, int(max(field[25], 1)) if field[23] > 0 else 1
        shape = (images if stack else int(abs(nz)), int(ny), int(nx))
        each = int(abs(nz)) * shape[1] * shape[2] * 4
        expected = int(length) + (images * (int(length) + each) if stack else each)
        if size < expected or (stack and abs(nz) != 1):
            raise FormatError(f"{path}: a SPIDER file of {size} bytes, expected {expected}; truncated?")
        pixel = float(field[37]) if np.isfinite(field[37]) and 0 < field[37] < 1000 else 0.0
        return SpiderHeader(path, dtype, shape, int(length), bool(stack), pixel)
    return None


def read_spider(header: SpiderHeader) -> npt.NDArray[np.float32]:
    """Values of a SPIDER file, (nz or images, ny, nx) float32."""
    n, ny, nx = header.shape
    if header.stack:
        each = np.dtype([("header", np.uint8, header.offset), ("image", header.dtype, (ny, nx))])
        values = np.fromfile(header.path, each, n, offset=header.offset)["image"]
    else:
        values = np.fromfile(header.path, header.dtype, n * ny * nx, offset=header.offset).reshape(n, ny, nx)
    with np.errstate(invalid="ignore"):  # a NaN stays one
        return values.astype(np.float32)
