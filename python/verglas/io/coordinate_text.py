"""Coordinates in text: tables with and without a header, boxes, and the files of other pickers.

Columns are taken by a header, or where only one reading is possible: two numbers, or a name and two numbers. A table of
more columns without a header is refused with what was seen: an index or a contour number in front of x would be taken
for x.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from verglas.errors import FormatError, VerglasWarning

MICROGRAPH, X, Y = "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"
FIGURE_OF_MERIT = "rlnAutopickFigureOfMerit"
# What RELION has no label for: sides of a picker's box, in pixels of the micrograph.
BOX_WIDTH, BOX_HEIGHT = "verglasBoxWidth", "verglasBoxHeight"
TUBE = "rlnHelicalTubeID"
_NAMES = (
    "rlncoordinate{0} {0} {0}_px {0}coord {0}coor {0}_coord coordinate_{0} center_{0} centre_{0} {0}-coordinate "
    "coordinate{0}"
)
_X_NAMES, _Y_NAMES = (_NAMES.format(axis).split() for axis in "xy")
_X_NAMES.append("axis-1")  # of napari, whose axes are those of the array
_Y_NAMES.append("axis-0")
_SCORE_NAMES = ("score", "confidence", "figure_of_merit", FIGURE_OF_MERIT.lower())  # the first is topaz's
_NAME_NAMES = ("rlnmicrographname", "micrograph", "micrograph_name", "image", "image_name", "filename", "file")
_KNOWN = (
    "expected a header with x and y (and micrograph), or lines of x y or micrograph x y; also read: .star, .cs, .box, "
    ".cbox, .pos, .json of EMAN2"
)


def from_text(path: Path) -> pd.DataFrame:
    """A table with or without a header; x, y, and micrograph and score where they are known, by RELION's labels."""
    lines = numbered_lines(path)
    if not lines:
        return pd.DataFrame({X: [], Y: []})
    number, first = lines[0]
    names = [word.lower() for word in first]
    if "axis-2" in names:
        raise FormatError(f"{path}, line {number}: axis-2: points in a stack or a volume, not in one micrograph")
    x, y = _position(names, _X_NAMES), _position(names, _Y_NAMES)
    if x is not None and y is not None:
        table = _columns(path, lines[1:], x, y, _position(names, _NAME_NAMES))
        score = _position(names, _SCORE_NAMES)
        return table if score is None else table.assign(**{FIGURE_OF_MERIT: _scores(path, lines[1:], score)})
    if any(not is_number(word) for word in first[1:]) or not is_number(first[-1]):
        raise FormatError(f"{path}, line {number}: {_KNOWN}; got {' '.join(first)[:60]!r}")
    if len(first) == 2 and is_number(first[0]):
        return _columns(path, lines, 0, 1, None, width=2)
    if len(first) == 3 and not is_number(first[0]):
        return _columns(path, lines, 1, 2, 0, width=3)
    if boxes := _boxes(lines):
        warnings.warn(
            f"{path}: four columns, the last two the same in every line: taken for EMAN boxes, corner x, corner y, "
            "width, height; the particles are in their middles",
            VerglasWarning,
            stacklevel=4,
        )
        return pd.DataFrame(boxes, columns=[X, Y, BOX_WIDTH, BOX_HEIGHT], dtype=np.float64)
    raise FormatError(
        f"{path}, line {number}: {len(first)} columns without a header ({' '.join(first)[:60]!r}): which are x and y "
        f"cannot be told{_looks_like(lines)}; write a header, or only x and y. {_KNOWN}"
    )


class NumberedLine(NamedTuple):
    """The values of a line, and its number in the file from 1."""

    number: int
    words: list[str]


def _columns(
    path: Path, lines: Sequence[NumberedLine], x: int, y: int, name: int | None, width: int | None = None
) -> pd.DataFrame:
    least = max(x, y, name or 0) + 1
    values: dict[str, list[Any]] = {MICROGRAPH: [], X: [], Y: []}
    for number, words in lines:
        if len(words) < least or (width is not None and len(words) != width):
            raise FormatError(f"{path}, line {number}: {len(words)} values, expected {width or f'at least {least}'}")
        values[X].append(finite_number(words[x], path, number))
        values[Y].append(finite_number(words[y], path, number))
        values[MICROGRAPH].append("" if name is None else words[name])
    table = pd.DataFrame(values)
    return table.drop(columns=MICROGRAPH) if name is None else table


def _scores(path: Path, lines: Sequence[NumberedLine], at: int) -> list[float]:
    short = next((line for line in lines if len(line.words) <= at), None)
    if short is not None:
        raise FormatError(
            f"{path}, line {short.number}: {len(short.words)} values, expected a score in column {at + 1}"
        )
    return [finite_number(words[at], path, number) for number, words in lines]


def _boxes(lines: Sequence[NumberedLine]) -> list[tuple[float, float, float, float]]:
    """Middles and sides of boxes, if every line is x, y and one and the same size twice; none if not."""
    if any(len(words) not in (4, 5) or not all(map(is_number, words)) for _, words in lines):
        return []
    numbers = np.array([[float(word) for word in words[:4]] for _, words in lines])
    sizes = numbers[:, 2:]
    if not (sizes == sizes[0, 0]).all() or not sizes[0, 0] >= 2 or sizes[0, 0] % 1:
        return []
    # N // 2, not N / 2: the pixel that EMAN calls the centre of a box.
    return [(float(x + w // 2), float(y + h // 2), float(w), float(h)) for x, y, w, h in numbers]


def _looks_like(lines: Sequence[NumberedLine]) -> str:
    rows = [words for _, words in lines if all(map(is_number, words))]
    if not rows or len({len(words) for words in rows}) != 1:
        return ""
    numbers = np.array(rows, np.float64)
    counts = np.arange(len(numbers))
    if numbers.shape[1] == 3 and any(np.array_equal(numbers[:, 0], counts + k) for k in (0, 1)):
        return " (index, x, y?)"
    if numbers.shape[1] in (4, 5) and (numbers[:, : numbers.shape[1] - 3] % 1 == 0).all():
        return " (points of an IMOD model: object, contour, x, y, z?)"
    return ""


def from_box(path: Path) -> pd.DataFrame:
    """EMAN: x, y of the corner of the box, its width and height; the particle is at pixel N // 2 of it.

    Lines ``#helix`` of EMAN's helices (crYOLO's EMAN_HELICON) begin a helix each, whose number becomes
    rlnHelicalTubeID. Ends of helices (flags -1 and -2) are no particles and refused.
    """
    rows = []
    for number, words in numbered_lines(path):
        if len(words) < 4:
            raise FormatError(
                f"{path}, line {number}: expected x, y, width and height of a box, got {len(words)} values"
            )
        x, y, width, height = (finite_number(word, path, number) for word in words[:4])
        if width <= 0 or height <= 0:
            raise FormatError(f"{path}, line {number}: a box of {width:g} x {height:g} px; expected more than 0")
        if len(words) > 4 and is_number(words[4]) and float(words[4]) in _HELIX_ENDS:
            raise FormatError(
                f"{path}, line {number}: the flag {words[4]} marks an end of a helix, not a particle; export segments "
                "(EMAN_HELICON or CBOX_FILAMENT of crYOLO, or a STAR file)"
            )
        rows.append((x + width // 2, y + height // 2, width, height))
    table = pd.DataFrame(rows, columns=[X, Y, BOX_WIDTH, BOX_HEIGHT], dtype=np.float64)
    tubes = _helices(path)
    return table.assign(**{TUBE: tubes}) if tubes else table


_HELIX_ENDS = (-1.0, -2.0)  # EMAN's flags of the start and the end of a helix; -3 is that of a particle


def _helices(path: Path) -> list[int]:
    """Number of the helix of each line, from 1; empty where no line begins one."""
    tubes, count = [], 0
    for line in read_lines(path).splitlines():
        if line.lstrip().lower().startswith("#helix:"):
            count += 1
        elif line.strip() and not line.lstrip().startswith("#"):
            tubes.append(count)
    return tubes if count else []


def from_eman_json(path: Path) -> pd.DataFrame:
    """EMAN2's info files: ``{"boxes": [[x, y, "auto_ref", score], ...]}``, middles of boxes; ``boxes_rct`` of pairs."""
    try:
        record = json.loads(read_lines(path))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from None
    boxes = record.get("boxes", record.get("boxes_rct")) if isinstance(record, dict) else None
    if not isinstance(boxes, list):
        raise FormatError(f'{path}: no list "boxes", as EMAN2 keeps particles in')
    rows = []
    for number, box in enumerate(boxes):
        try:
            x, y = (float(v) for v in box[:2] if isinstance(v, int | float))
        except (
            TypeError,
            KeyError,
            ValueError,
            OverflowError,
        ):  # no list, no two numbers, or one that no float64 holds
            raise FormatError(f"{path}: box {number} (from 0): expected [x, y, ...], got {str(box)[:60]}") from None
        rows.append((x, y))
    table = pd.DataFrame(rows, columns=[X, Y], dtype=np.float64)
    scores = [box[3] if len(box) > 3 and isinstance(box[3], int | float) else None for box in boxes]
    # Boxes by hand have no score, and 0 may be one: only where all have one can they be ranked.
    return table if not scores or None in scores else table.assign(**{FIGURE_OF_MERIT: np.array(scores, np.float64)})


def numbered_lines(path: Path) -> list[NumberedLine]:
    """(line number, values) of lines that are neither empty nor comments; comma, tab, semicolon or blanks between."""
    lines = []
    for number, line in enumerate(read_lines(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        mark = next((m for m in ("\t", ",", ";") if m in line), None)
        try:
            words = line.split() if mark is None else next(csv.reader([line], delimiter=mark))
        except csv.Error as error:
            raise FormatError(f"{path}, line {number}: {error}") from None
        lines.append(NumberedLine(number, [word.strip() for word in words]))
    return lines


def read_lines(path: Path) -> str:
    """The text of a file in UTF-8."""
    try:
        # With -sig: tables saved by spreadsheets start with a byte-order mark, which would become part of the first
        # name.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}: not a text in UTF-8 (byte {error.start}); expected coordinates as .star, .cs, .box, .csv, .tsv "
            "or .txt"
        ) from None


def _position(names: list[str], candidates: Sequence[str]) -> int | None:
    return next((names.index(name) for name in candidates if name in names), None)


def is_number(word: str) -> bool:
    """Whether a word is a number, infinities and NaN included."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def finite_number(word: str, path: Path, number: int) -> float:
    """The number, or an error that names the line."""
    if not is_number(word) or not np.isfinite(float(word)):
        raise FormatError(f"{path}, line {number}: expected a finite number, got {word!r}")
    return float(word)
