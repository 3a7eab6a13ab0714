"""Gain references and lists of bad pixels in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from verglas.errors import FormatError
from verglas.io.coordinate_text import NumberedLine
from verglas.io.frames import open_frames
from verglas.io.mrc import PathLike
from verglas.io.mrc_header import require_file
from verglas.types.arrays import IntArray
from verglas.types.gain import Gain

# SerialEM's list of defects (its manual, "Camera defects"): keyword -> numbers per entry
_SERIALEM = {"badcolumns": 1, "partialbadcolumn": 3, "badrows": 1, "partialbadrow": 3, "badpixels": 2}


def read_gain(path: PathLike, *, divides: bool | None = None) -> Gain:
    """Read a gain reference.

    Parameters
    ----------
    path : path
        MRC, TIFF or EPU's ``.gain``, plain or compressed; rows as in the file.
    divides : bool, optional
        Frames are divided by it; by default where the name ends in ``.gain``, as Falcon's do. K2's, K3's and SerialEM's
        multiply.

    Returns
    -------
    Gain

    Raises
    ------
    FormatError, InputError
        Not one image, or values that are no gain.
    """
    path = require_file(path)
    data = _one_image(path, "a gain reference")
    return Gain(data.astype(np.float32), path.suffix.lower() == ".gain" if divides is None else divides, str(path))


def _one_image(path: Path, what: str) -> npt.NDArray[np.float64]:
    source, _ = open_frames(path, unit_A=lambda page: float("nan"))
    if len(source) != 1:
        raise FormatError(f"{path}: {len(source)} images; expected one, {what}")
    return np.asarray(source.read(0), np.float64)


def read_defects(path: PathLike) -> IntArray | npt.NDArray[np.bool_]:
    """Read bad pixels of a detector.

    Parameters
    ----------
    path : path
        A map (MRC, TIFF: pixels that are not 0), or text: lines ``x y width height`` of rectangles (MotionCor, RELION)
        or ``x y`` of pixels, from 0; or SerialEM's list (``BadColumns``, ``PartialBadColumn x y1 y2``, ``BadRows``,
        ``PartialBadRow y x1 x2``, ``BadPixels x y ...``, with ``CameraSizeX`` and ``CameraSizeY``). Rows are counted as
        the movie's file stores them.

    Returns
    -------
    (n, 2) int64 rows (y, x), or (y, x) bool

    Raises
    ------
    FormatError
        A line that is none of these.
    """
    path = require_file(path)
    with open(path, "rb") as handle:
        text = b"\0" not in handle.read(4096)
    if not text:
        return np.asarray(_one_image(path, "a map of defects") != 0)
    content = path.read_text(errors="replace")
    lines = [NumberedLine(n, line.split("#")[0].split()) for n, line in enumerate(content.splitlines(), 1)]
    lines = [line for line in lines if line.words]
    if any(words[0].lower() in _SERIALEM for _, words in lines):
        return _serialem(path, lines)
    rows = []
    for n, words in lines:
        numbers = _whole_numbers(path, n, words)
        if len(numbers) not in (2, 4):
            raise FormatError(f"{path}, line {n}: {len(numbers)} numbers; expected x y, or x y width height")
        x, y, width, height = (*numbers, 1, 1)[:4]
        rows.append(_rectangle(y, y + height, x, x + width))
    return np.concatenate(rows) if rows else np.zeros((0, 2), np.int64)


def _whole_numbers(path: Path, line: int, words: list[str]) -> list[int]:
    try:
        return [int(word) for word in words]
    except ValueError:
        raise FormatError(f"{path}, line {line}: {' '.join(words)!r}; expected whole numbers") from None


def _rectangle(y0: int, y1: int, x0: int, x1: int) -> IntArray:
    y, x = np.mgrid[y0:y1, x0:x1]
    return np.column_stack([y.ravel(), x.ravel()]).astype(np.int64)


def _serialem(path: Path, lines: list[NumberedLine]) -> IntArray:
    size = {words[0].lower()[-1]: int(words[1]) for _, words in lines if words[0].lower().startswith("camerasize")}
    if set(size) != {"x", "y"}:
        raise FormatError(f"{path}: bad columns and rows without CameraSizeX and CameraSizeY; expected both")
    rows = []
    for n, words in lines:
        key = words[0].lower()
        if key not in _SERIALEM:
            continue
        numbers, step = _whole_numbers(path, n, words[1:]), _SERIALEM[key]
        if len(numbers) % step or not numbers:
            raise FormatError(f"{path}, line {n}: {len(numbers)} numbers after {words[0]}; expected {step} for each")
        for entry in zip(*[iter(numbers)] * step, strict=True):
            if key == "badcolumns":
                rows.append(_rectangle(0, size["y"], entry[0], entry[0] + 1))
            elif key == "badrows":
                rows.append(_rectangle(entry[0], entry[0] + 1, 0, size["x"]))
            elif key == "partialbadcolumn":
                # SerialEM: column, first and last row, both included.
                rows.append(_rectangle(entry[1], entry[2] + 1, entry[0], entry[0] + 1))
            elif key == "partialbadrow":
                rows.append(_rectangle(entry[0], entry[0] + 1, entry[1], entry[2] + 1))
            else:
                rows.append(_rectangle(entry[1], entry[1] + 1, entry[0], entry[0] + 1))
    return np.concatenate(rows) if rows else np.zeros((0, 2), np.int64)
