"""STAR files: a scan finds what is wrong with one, by table and line; pandas parses the bytes of each loop.

A parser of all of CIF fits RELION's files badly: a row of theirs is a line, and a short row before a long one a damaged
file; their values start with data_, [ or $ and hold other letters than ASCII, as names of files do. `bench_io.py
--star-only` times gemmi.cif beside this reader: twice the processor time.
"""

from __future__ import annotations

import contextlib
import csv
import io
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import FormatError, InputError
from verglas.io.atomic import atomic_path
from verglas.io.kinds import HEAD_BYTES, describe_kind, require_file
from verglas.io.mrc import PathLike

_BLOCK = re.compile(rb"data_(\S*)[ \t]*(?:#.*)?\r?$", re.MULTILINE)
_NA = ["nan", "NaN", "<NA>"]


@dataclass
class Block:
    """One table as the scan found it; lines count from 1, bytes from the start of the file."""

    name: str
    line: int
    end: int
    loop: bool = False
    labels: list[str] = field(default_factory=list)
    rows_at: int = 0
    rows_line: int = 0
    n_rows: int = 0


def read_star(path: PathLike) -> dict[str, pd.DataFrame | dict[str, Any]]:
    """All tables of a STAR file by name, in the order of the file.

    Loops become data frames, lists of single values dictionaries. Labels that end in Name or File stay text, so that
    a micrograph called 001 keeps its zeros.

    Raises
    ------
    FormatError
        No table; a label or table twice; a row with more or fewer values than there are labels; text that is no STAR.
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size == 0:
        raise FormatError(f"{path}: empty file")
    with open(path, "rb") as handle:
        # never closed by hand: an array that looks into it may live on in the traceback of an error
        text = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    blocks = scan(path, text)
    return {block.name: parse_block(path, block, text) for block in blocks}


def text_labels(labels: list[str]) -> list[str]:
    """Labels whose values stay text whatever they look like."""
    return [label for label in labels if label.endswith(("Name", "File", "/path", "_path", "/type"))]


# ---- scan


FileText = mmap.mmap | bytes  # of a file that lies on disk, or in memory


def scan(path: Path, text: FileText) -> list[Block]:
    """Find the tables and check their labels and rows."""
    data = np.frombuffer(text, dtype=np.uint8)
    starts = [(start, after, name) for start, after, name in _block_starts(text) if name is not None]
    if not starts:
        kind = describe_kind(path, bytes(text[:HEAD_BYTES]))
        raise FormatError(f"{path}: no line that starts with data_; not a STAR file{', but ' * bool(kind)}{kind}")
    blocks: list[Block] = []
    line, at = 1, 0
    for number, (start, after, name) in enumerate(starts):
        line, at = line + _count_lines(data, at, start), start
        end = starts[number + 1][0] if number + 1 < len(starts) else len(text)
        block = Block(name, line, end)
        if any(other.name == name for other in blocks):
            raise FormatError(f"{path}, line {line}: table '{name}' appears twice; rename one of them")
        _scan_block(path, text, data, block, after)
        blocks.append(block)
    return blocks


def _block_starts(text: FileText) -> Iterator[tuple[int, int, str | None]]:
    """(start of the line, end of the mark, name) of every line that is ``data_name`` and nothing else.

    The name is None for a row whose first value merely starts like that.
    """
    at = text.find(b"data_")
    while at >= 0:
        begin = text.rfind(b"\n", 0, at) + 1
        match = _BLOCK.match(text, at)
        if not text[begin:at].strip():
            yield begin, match.end() if match else at, match.group(1).decode(errors="replace") if match else None
        at = text.find(b"data_", at + 5)


def _count_lines(data: npt.NDArray[np.uint8], start: int, stop: int) -> int:
    step = 64 << 20
    return sum(int(np.count_nonzero(data[a : min(a + step, stop)] == 10)) for a in range(start, stop, step))


def _lines(text: FileText, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, stripped line) for the lines in [at, end)."""
    while at < end:
        stop = text.find(b"\n", at, end)
        stop = end if stop < 0 else stop
        yield at, text[at:stop].strip()
        at = stop + 1


def _scan_block(path: Path, text: FileText, data: npt.NDArray[np.uint8], block: Block, after: int) -> None:
    where = f"{path}, table '{block.name}'"
    lines: dict[str, int] = {}
    block.rows_at = after  # of a loop: moved to its first row below
    for number, (at, line) in enumerate(_lines(text, after, block.end)):
        here = block.line + number
        if not line or line.startswith(b"#"):
            continue
        if line.split()[0] == b"loop_" and not lines:
            block.loop = True
        elif line.startswith(b"_"):
            tokens = _tokens(line, f"{where}, line {here}")
            label = tokens[0][1:].decode(errors="replace")
            if label in lines:
                raise FormatError(f"{where}, line {here}: label _{label} appears twice (first on line {lines[label]})")
            lines[label] = here
            if not block.loop and len(tokens) != 2:
                raise FormatError(f"{where}, line {here}: _{label}: expected one value, got {len(tokens) - 1}")
        elif block.loop and lines:
            block.rows_at, block.rows_line = at, here
            break
        else:
            raise FormatError(
                f"{where}, line {here}: expected loop_ or a label, got {line[:60].decode(errors='replace')!r}"
            )
    block.labels = list(lines)
    if not lines:
        raise FormatError(f"{where}, line {block.line}: the table has no labels")
    if block.loop and block.rows_line:
        _check_rows(where, text, data, block)


def _check_rows(where: str, text: FileText, data: npt.NDArray[np.uint8], block: Block, chunk: int = 4 << 20) -> None:
    """Every row has one value per label. Counts the starts of words in pieces; lines with quotes or # one by one."""
    at, line, expected = block.rows_at, block.rows_line, len(block.labels)
    while at < block.end:
        stop = block.end
        if at + chunk < block.end:
            stop = text.rfind(b"\n", at, at + chunk) + 1
            if not stop:
                raise FormatError(f"{where}, line {line}: a line of more than {chunk} bytes")
        piece = data[at:stop]
        _check_bytes(where, piece, line)
        space = piece <= 32
        starts = np.empty(len(piece), dtype=np.uint8)
        starts[0] = not space[0]
        np.greater(space[:-1], space[1:], out=starts[1:].view(bool))
        begins = np.flatnonzero(piece == 10) + 1
        begins = np.r_[0, begins[begins < len(piece)]]
        counts = np.add.reduceat(starts, begins, dtype=np.int32)
        for special in sorted({_line_of(begins, offset - at) for offset in _special(text, at, stop)}):
            end = begins[special + 1] if special + 1 < len(begins) else len(piece)
            words = _tokens(piece[begins[special] : end].tobytes(), f"{where}, line {line + special}")
            counts[special] = len(words)
        bad = np.flatnonzero((counts != expected) & (counts != 0))
        if bad.size:
            raise FormatError(
                f"{where}, line {line + bad[0]}: {counts[bad[0]]} values for {expected} labels"
                + ("; is a label missing in the header?" if counts[bad[0]] > expected else "; is the row cut off?")
            )
        block.n_rows += int(np.count_nonzero(counts))
        at, line = stop, line + len(begins)
        forget(text)


def forget(text: FileText) -> None:
    """Give back pages that were read, or they count as memory of this process; they stay in the system's cache."""
    if hasattr(text, "madvise"):
        text.madvise(mmap.MADV_DONTNEED)


def _check_bytes(where: str, piece: npt.NDArray[np.uint8], line: int) -> None:
    """Bytes that pandas and this scan would take differently: control characters, and line ends of one CR."""
    if not (control := np.flatnonzero((piece < 32) & (piece != 9) & (piece != 10))).size:
        return
    after = piece[np.minimum(control + 1, len(piece) - 1)]
    bad = control[(piece[control] != 13) | ((after != 10) & (control + 1 < len(piece)))]
    if bad.size:
        here = line + int(np.count_nonzero(piece[: bad[0]] == 10))
        raise FormatError(
            f"{where}, line {here}: a byte {piece[bad[0]]:#04x}, which no text of a STAR file holds; is it damaged?"
        )


def _line_of(begins: npt.NDArray[np.int64], offset: int) -> int:
    return int(np.searchsorted(begins, offset, side="right")) - 1


def _special(text: FileText, at: int, stop: int) -> Iterator[int]:
    """Where the characters stand that split words otherwise than blanks do."""
    for mark in (b"#", b"'", b'"'):
        place = text.find(mark, at, stop)
        while place >= 0:
            yield place
            place = text.find(mark, place + 1, stop)


_WORD = re.compile(rb"\"[^\"]*\"(?=\s|$)|'[^']*'(?=\s|$)|\S+")


def _tokens(line: bytes, where: str) -> list[bytes]:
    """The values of a line up to a comment; what the library would misread is an error."""
    words: list[bytes] = []
    for word in _WORD.findall(line):
        if word.startswith(b"#"):
            break
        quoted = word[:1] in b"'\"" and len(word) > 1 and word[:1] == word[-1:]
        inside = word[1:-1] if quoted else word
        if re.search(rb"['\"]" if quoted else rb"['\"#]", inside):
            raise FormatError(
                f"{where}: {word.decode(errors='replace')}: a quote or # inside a value cannot be read "
                "reliably; rename what it names"
            )
        words.append(word)
    return words


# ---- direct parsing


class _Region(io.RawIOBase):
    """A part of a file as a stream, so that pandas reads it without a copy in memory."""

    def __init__(self, handle: Any, start: int, end: int) -> None:
        self._handle, self._left = handle, end - start
        handle.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # pandas knows one quote mark; the scan has refused both inside values, so that each ' here begins or ends one
        piece = self._handle.read(min(len(buffer), self._left)).replace(b"'", b'"')
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        return len(piece)


def parse_block(
    path: Path, block: Block, text: FileText, more_text: Sequence[str] = ()
) -> pd.DataFrame | dict[str, Any]:
    """One scanned table: a dictionary of single values, or a data frame of a loop by ``pandas.read_csv``.

    A column is of integers or floats where all of its values are, else text; nan, NaN and <NA> are missing values.
    Labels of ``more_text`` stay text, too.
    """
    as_text = [*text_labels(block.labels), *more_text]
    if not block.loop:
        pairs = [_tokens(line, str(path)) for _, line in _lines(text, block.rows_at, block.end) if line[:1] == b"_"]
        values = {
            label[1:].decode(errors="replace"): _decode(value, path, block).strip("'\"") for label, value in pairs
        }
        return {k: v if k in as_text else _number_or_text(v) for k, v in values.items()}
    if not block.n_rows:
        return pd.DataFrame(np.zeros((0, len(block.labels))), columns=block.labels)
    try:
        table = _read_rows(path, block, as_text)
    except UnicodeDecodeError:
        raise _not_utf8(path, block, text) from None
    for label in table.columns:
        if label not in as_text and not pd.api.types.is_numeric_dtype(table[label]):
            with contextlib.suppress(ValueError):
                table[label] = pd.to_numeric(table[label])
    return table


def _read_rows(path: Path, block: Block, as_text: list[str]) -> pd.DataFrame:
    with open(path, "rb", buffering=0) as handle:
        return pd.read_csv(
            io.BufferedReader(_Region(handle, block.rows_at, block.end), 1 << 20),
            sep=r"\s+",
            header=None,
            names=block.labels,
            index_col=False,
            comment="#",
            engine="c",
            dtype=dict.fromkeys(as_text, str),
            # A micrograph may be called NA or null; pandas would make it a missing value.
            keep_default_na=False,
            na_values=_NA,
            # In one piece: by chunks, a column could come out as numbers in one and as text in the next.
            low_memory=False,
        )


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|NaN|<NA>|[+-]?inf", re.ASCII)


def _number_or_text(value: str) -> int | float | str:
    if not _NUMBER.fullmatch(value):
        return value
    return int(value) if re.fullmatch(r"[+-]?\d+", value, re.ASCII) else float(value.replace("<NA>", "nan"))


def _decode(value: bytes, path: Path, block: Block) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise FormatError(
            f"{path}, table '{block.name}': {value[:60]!r} is not UTF-8; write the file in UTF-8"
        ) from None


def _not_utf8(path: Path, block: Block, text: FileText) -> FormatError:
    """The error of a loop with bytes that are no UTF-8, by line; looked for only when it is raised."""
    for number, (_, line) in enumerate(_lines(text, block.rows_at, block.end)):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            where = f"{path}, table '{block.name}', line {block.rows_line + number}"
            return FormatError(f"{where}: {line[error.start - 20 :][:60]!r} is not UTF-8; write the file in UTF-8")
    return FormatError(f"{path}, table '{block.name}': not UTF-8")


# ---- writing


def write_star(path: PathLike, tables: Mapping[str, pd.DataFrame | Mapping[str, Any]]) -> None:
    """Write tables in the order given, each under a ``# version 30001`` line, as RELION 3.1 and later expect.

    Numbers keep 12 significant digits, missing values are written as nan, text with a blank in it is quoted.

    Raises
    ------
    InputError
        A text value holds a quote, a line break or a # that a reader would misunderstand.
    """
    for name, table in tables.items():
        _check_text(path, name, table)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as out:
        star_text(out, tables)


def star_text(out: Any, tables: Mapping[str, pd.DataFrame | Mapping[str, Any]]) -> None:
    """Write tables as text, as :func:`write_star` does; nothing is checked."""
    for name, table in tables.items():
        out.write("\n# version 30001\n\n")
        if isinstance(table, pd.DataFrame):
            write_loop(out, name, table)
        else:
            rows = "".join(f"_{label}\t\t\t{_single(value)}\n" for label, value in table.items())
            out.write(f"data_{name}\n\n{rows}\n\n")


# Twelve digits: finer than anything measured, and 0.1 + 0.2 is written as 0.3.
_FLOAT = "%.12g"


def _single(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) and (" " in value or not value) else str(value)


def write_loop(out: Any, name: str, table: pd.DataFrame) -> None:
    """A loop, tabs between its values; only columns with a blank in a value are gone through in Python."""
    out.write(f"data_{name}\n\nloop_\n" + "".join(f"_{label} #{i}\n" for i, label in enumerate(table.columns, 1)))
    quoted = table.copy(deep=False)
    for label in table.columns:
        if not pd.api.types.is_numeric_dtype(table[label]):
            blank = [isinstance(v, str) and (" " in v or not v) for v in table[label]]
            if any(blank):
                quoted[label] = [f'"{v}"' if b else v for v, b in zip(table[label], blank, strict=True)]
    quoted.to_csv(
        out,
        sep="\t",
        header=False,
        index=False,
        float_format=_FLOAT,
        na_rep="nan",
        quoting=csv.QUOTE_NONE,
        chunksize=50_000,
    )
    out.write("\n\n")


_UNSAFE = re.compile("['\"#\x00-\x1f\ud800-\udfff]")


def writable(text: str) -> bool:
    """Whether every reader of STAR files would read this value as it is.

    Examples
    --------
    >>> from verglas.io.star import writable
    >>> writable("a b.mrc"), writable("it's.mrc")
    (True, False)
    """
    return not _UNSAFE.search(text)


def _check_text(path: PathLike, name: str, table: pd.DataFrame | Mapping[str, Any]) -> None:
    columns = table.items() if isinstance(table, pd.DataFrame) else ((k, [v]) for k, v in table.items())
    for number, (label, values) in enumerate(columns):
        if isinstance(values, pd.Series) and pd.api.types.is_numeric_dtype(values):
            continue
        texts = [value for value in pd.unique(pd.Series(values)) if isinstance(value, str)]
        bad = [value for value in texts if _UNSAFE.search(value)]
        # a row that starts so would be taken for a label, or a lone value for a table
        bad += [
            value
            for value in texts
            if number == 0
            and (value.startswith("_") or value[:5] in ("data_", "loop_"))
            and isinstance(table, pd.DataFrame)
            and (value[0] == "_" or table.shape[1] == 1)
        ]
        if bad:
            raise InputError(
                f"cannot write {path}: table '{name}', column {label}: {bad[0]!r} would be misread in a STAR file: it "
                "holds a quote, a #, a tab or a line break, or starts a row like a label or a table"
            )
