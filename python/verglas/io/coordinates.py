"""Particle coordinates of other programs: RELION STAR, cryoSPARC, EMAN boxes, plain tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import FormatError, InputError
from verglas.io import cs
from verglas.io.mrc import PathLike
from verglas.io.star import read_star, write_star
from verglas.io.tomography import refuse_tomography
from verglas.types import Picks
from verglas.types import _columns as col

MICROGRAPH, X, Y = "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"
_X_NAMES = ("rlncoordinatex", "x", "x_px", "xcoord", "x_coord", "coordinate_x", "center_x", "centre_x", "x-coordinate")
_Y_NAMES = ("rlncoordinatey", "y", "y_px", "ycoord", "y_coord", "coordinate_y", "center_y", "centre_y", "y-coordinate")
_NAME_NAMES = ("rlnmicrographname", "micrograph", "micrograph_name", "image", "image_name", "filename", "file")
_PICKER_ENDINGS = ("_autopick", "_manualpick", "_picks", "_coords", "_boxes")
_CRYOSPARC_UID = re.compile(r"^\d{15,}_")


def read_picks(path: PathLike) -> dict[str, Picks]:
    r"""Particle coordinates of a file, by micrograph.

    Parameters
    ----------
    path : path
        ``.star`` with rlnCoordinateX and rlnCoordinateY (RELION); ``.cs`` with location/* (cryoSPARC); ``.box`` with
        corner and size of each box (EMAN); ``.csv``, ``.tsv`` or ``.txt`` with a header that has x and y (and
        micrograph), or without one and with columns x y or micrograph x y.

    Returns
    -------
    dict of str -> Picks
        By the micrograph's name in the file. Where the file does not say it, the name is the file's own without
        suffix and without a picker's ending (``_autopick``), for files of one micrograph each.

    Raises
    ------
    FormatError
        Not such a file, or a coordinate that is no number; the message names the line.

    Notes
    -----
    Coordinates are taken as pixels of the micrograph as read. RELION flips TIFF micrographs when it reads them: its
    coordinates on TIFF need :meth:`verglas.types.Picks.flipped_y`.

    Examples
    --------
    >>> import pathlib, tempfile, verglas as vg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "picks.csv"
    ...     _ = file.write_text("micrograph,x,y\na.tif,10,20\nb.tif,5,6\na.tif,30,40\n")
    ...     {name: p.xy_px.tolist() for name, p in vg.io.read_picks(file).items()}
    {'a.tif': [[10.0, 20.0], [30.0, 40.0]], 'b.tif': [[5.0, 6.0]]}
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: is a folder, expected a file" if path.is_dir() else f"{path}: no such file")
    readers = {".star": _from_star, ".cs": _from_cs, ".box": _from_box}
    table = readers.get(path.suffix.lower(), _from_text)(path)
    if not len(table):
        return {} if MICROGRAPH in table else {name_of_picks(path): Picks(np.zeros((0, 2)), name_of_picks(path))}
    if MICROGRAPH not in table:
        table = table.assign(**{MICROGRAPH: name_of_picks(path)})
    return picks_of_table(table, str(path))


def picks_of_table(table: pd.DataFrame, where: str) -> dict[str, Picks]:
    """Split a table with rlnMicrographName, rlnCoordinateX and Y by micrograph, in order of first appearance."""
    missing = [label for label in (MICROGRAPH, X, Y) if label not in table]
    if missing:
        raise FormatError(f"{where}: no column {', '.join(missing)}; it has {', '.join(map(str, list(table)[:8]))}")
    xy = np.column_stack([col.number_column(table[label], label, where) for label in (X, Y)])
    others = [str(label) for label in table if label not in (MICROGRAPH, X, Y)]
    found: dict[str, Picks] = {}
    for name, rows in table.groupby(MICROGRAPH, sort=False).indices.items():
        rows = np.sort(rows)
        columns = {label: table[label].to_numpy()[rows] for label in others}
        found[str(name)] = Picks(xy[rows], str(name), columns)
    return found


def write_picks(path: PathLike, picks: Mapping[str, Picks]) -> None:
    """Write coordinates of many micrographs as one STAR file that RELION reads.

    Parameters
    ----------
    path : path
        ``.star``.
    picks : mapping of str -> Picks
        Columns that only some have are filled with nan.
    """
    if Path(path).suffix.lower() != ".star":
        raise InputError(f"cannot write {path}: expected the suffix .star")
    tables = [
        pd.DataFrame({MICROGRAPH: name, X: p.xy_px[:, 0], Y: p.xy_px[:, 1], **p.columns}) for name, p in picks.items()
    ]
    empty = pd.DataFrame({MICROGRAPH: pd.Series(dtype=str), X: pd.Series(dtype=float), Y: pd.Series(dtype=float)})
    filled = [table for table in tables if len(table)]
    write_star(path, {"": pd.concat(filled, ignore_index=True) if filled else empty})


def name_of_picks(path: Path) -> str:
    """Name of the micrograph that a file of coordinates belongs to, without suffix."""
    stem = path.stem
    for ending in _PICKER_ENDINGS:
        stem = stem.removesuffix(ending)
    return stem


# ---- formats


def _from_star(path: Path) -> pd.DataFrame:
    tables = read_star(path)
    refuse_tomography(path, tables)
    for table in tables.values():
        if X in table and Y in table:
            return table if isinstance(table, pd.DataFrame) else pd.DataFrame({k: [v] for k, v in table.items()})
    raise FormatError(f"{path}: no table has the columns {X} and {Y}, so there are no coordinates in it")


def _from_cs(path: Path) -> pd.DataFrame:
    array = cs.load(path)
    location = cs.location({name: array[name] for name in array.dtype.names or ()})
    if X not in location:
        raise FormatError(
            f"{path}: no coordinates: expected location/center_x_frac, location/center_y_frac and "
            "location/micrograph_shape (they are often in the passthrough file)"
        )
    return pd.DataFrame(location)


def _from_box(path: Path) -> pd.DataFrame:
    """EMAN: x, y of the corner of the box, its width and height; the particle is at pixel N // 2 of it."""
    rows = []
    for number, words in _lines(path):
        if len(words) < 4:
            raise FormatError(
                f"{path}, line {number}: expected x, y, width and height of a box, got {len(words)} values"
            )
        x, y, width, height = (_number(word, path, number) for word in words[:4])
        rows.append((x + width // 2, y + height // 2))
    return pd.DataFrame(rows, columns=[X, Y], dtype=np.float64)


def _from_text(path: Path) -> pd.DataFrame:
    lines = list(_lines(path))
    if not lines:
        return pd.DataFrame({X: [], Y: []})
    number, first = lines[0]
    names = [word.lower() for word in first]
    x, y = _position(names, _X_NAMES), _position(names, _Y_NAMES)
    if x is None or y is None:
        x, y, name, start = _without_header(path, number, first)
    else:
        name, start = _position(names, _NAME_NAMES), 1
    values: dict[str, list[Any]] = {MICROGRAPH: [], X: [], Y: []}
    for number, words in lines[start:]:
        if len(words) <= max(x, y, name or 0):
            raise FormatError(
                f"{path}, line {number}: {len(words)} values, expected at least {max(x, y, name or 0) + 1}"
            )
        values[X].append(_number(words[x], path, number))
        values[Y].append(_number(words[y], path, number))
        values[MICROGRAPH].append("" if name is None else words[name])
    table = pd.DataFrame(values)
    return table.drop(columns=MICROGRAPH) if name is None else table


def _without_header(path: Path, number: int, first: list[str]) -> tuple[int, int, int | None, int]:
    """Columns of x, y and the name where the first line holds values."""
    for x, name in ((0, None), (1, 0)):
        if len(first) >= x + 2 and all(_is_number(word) for word in first[x : x + 2]):
            return x, x + 1, name, 0
    raise FormatError(
        f"{path}, line {number}: expected a header with x and y (and micrograph), or lines of x y or micrograph x y, "
        f"got {' '.join(first)[:60]!r}"
    )


def _position(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, values) of lines that are neither empty nor comments; comma, tab, semicolon or blanks between."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise FormatError(
            f"{path}: not a text file; expected coordinates as .star, .cs, .box, .csv, .tsv or .txt"
        ) from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        mark = next((m for m in ("\t", ",", ";") if m in line), None)
        words = line.split() if mark is None else next(csv.reader([line], delimiter=mark))
        found.append((number, [word.strip() for word in words]))
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _number(word: str, path: Path, number: int) -> float:
    if not _is_number(word) or not np.isfinite(float(word)):
        raise FormatError(f"{path}, line {number}: expected a finite number, got {word!r}")
    return float(word)


# ---- which micrograph a name means


def name_keys(name: str) -> list[str]:
    """What a micrograph's name is compared by, strictest first: whole, file name, file name without suffix and uid."""
    base = Path(name).name
    plain = _CRYOSPARC_UID.sub("", base)
    stem = re.sub(r"(\.(mrc|mrcs|tif|tiff|bz2|gz|map|rec|eer))+$", "", plain, flags=re.IGNORECASE)
    return list(dict.fromkeys((name, base, plain, stem, name_of_picks(Path(stem + ".x")))))


def match_names(wanted: list[str], known: list[str]) -> npt.NDArray[np.int64]:
    """For each wanted name the index of the known one that it means, -1 where there is none.

    Raises
    ------
    InputError
        A name that means several.
    """
    index: dict[str, set[int]] = {}
    for number, name in enumerate(known):
        for key in name_keys(name):
            index.setdefault(key, set()).add(number)
    out = np.full(len(wanted), -1, np.int64)
    for row, name in enumerate(wanted):
        hits = next((index[key] for key in name_keys(name) if key in index), set())
        if len(hits) > 1:
            several = ", ".join(known[i] for i in sorted(hits)[:3])
            raise InputError(f"{name} means several micrographs: {several}; give their paths as they are named")
        out[row] = next(iter(hits), -1)
    return out
