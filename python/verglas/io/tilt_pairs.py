"""Which micrographs are tilt pairs, and how they lie to each other, as other programs write it.

Angles are turned to those of :class:`verglas.tilting.TiltGeometry`, from +y towards -x (SPIDER and Xmipp count the axis
the other way round).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import FormatError
from verglas.io.mrc_header import PathLike, require_file
from verglas.io.spider import is_document, read_spider_document
from verglas.io.star import read_star
from verglas.io.tables import read_csv, read_json

COLUMNS = ("untilted", "tilted", "tilt_deg", "axis_untilted_deg", "axis_tilted_deg")
_XMIPP = {"micrograph": "untilted", "micrographTilted": "tilted", "angleTilt": "tilt_deg"}
_XMIPP |= {"angleY": "axis_untilted_deg", "angleY2": "axis_tilted_deg"}
_FITTED_KEY = 124  # of WEB's documents of a fitted pair: tilt, axis in the untilted image, axis in the tilted one
_EMAN = "tiltparams_micrographs/"


def read_tilt_parameters(path: PathLike) -> pd.DataFrame:
    r"""Tilt pairs of a file: names of the micrographs, tilt and axes, as far as the file has them.

    Parameters
    ----------
    path : path
        ``.xmd`` or ``.star`` of Xmipp (micrograph, micrographTilted, angleTilt, angleY, angleY2); a document of SPIDER
        that WEB left of a fitted pair (key 124); ``.json`` of EMAN2 (info files with tiltparams_micrographs);
        ``.csv`` with columns untilted and tilted, and tilt_deg, axis_untilted_deg, axis_tilted_deg if known.

    Returns
    -------
    DataFrame
        Columns untilted, tilted (names, empty where the file has none), tilt_deg, axis_untilted_deg, axis_tilted_deg
        (degrees, NaN where the file has none).

    Raises
    ------
    FormatError
        None of these files, or an angle that is no number.

    Notes
    -----
    The signs of the axes are Xmipp's as its random conical tilt uses them, and SPIDER's as a pair fitted by both
    programs shows; EMAN2's are read as Scipion reads them and have not been checked against its data.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from verglas.io import read_tilt_parameters
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "pairs.csv"
    ...     _ = file.write_text("untilted,tilted,tilt_deg\na.mrc,a_t.mrc,48\n")
    ...     table = read_tilt_parameters(file)
    >>> table["tilted"].tolist(), table["tilt_deg"].tolist()
    (['a_t.mrc'], [48.0])
    """
    path = require_file(path)
    suffix = path.suffix.lower()
    if suffix in (".xmd", ".star"):
        return _from_xmipp(path)
    if suffix == ".json":
        return _from_eman(path)
    if is_document(path):
        return _from_web(path)
    table = read_csv(path, COLUMNS[:2], texts=COLUMNS[:2])
    return _complete(path, {name: table[name].tolist() for name in COLUMNS if name in table})


def _complete(path: Path, columns: dict[str, list[Any]]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    table = pd.DataFrame({name: columns.get(name, ["" if name in COLUMNS[:2] else np.nan] * n) for name in COLUMNS})
    for name in COLUMNS[:2]:
        table[name] = table[name].fillna("").astype(str)
    for name in COLUMNS[2:]:
        numbers = pd.to_numeric(table[name], errors="coerce")
        bad = np.flatnonzero((numbers.isna() & table[name].notna()) | np.isinf(numbers))
        if len(bad):
            raise FormatError(
                f"{path}: {name} of pair {bad[0] + 1}: expected degrees, got {str(table[name][bad[0]])!r}"
            )
        table[name] = numbers.astype(np.float64)
    return table


def _from_xmipp(path: Path) -> pd.DataFrame:
    for table in read_star(path).values():
        frame = pd.DataFrame([table]) if isinstance(table, dict) else table
        known = {label: name for label, name in _XMIPP.items() if label in frame}
        if {"untilted", "tilted"} <= set(known.values()) or "angleTilt" in known:
            columns = {name: frame[label].tolist() for label, name in known.items()}
            made = _complete(path, columns)
            made[["axis_untilted_deg", "axis_tilted_deg"]] *= -1
            return made
    raise FormatError(f"{path}: no table with micrograph and micrographTilted, or angleTilt, as Xmipp writes pairs")


def _from_web(path: Path) -> pd.DataFrame:
    document = read_spider_document(path)
    if _FITTED_KEY not in document.index or document.shape[1] < 3:
        raise FormatError(f"{path}: a SPIDER document without key {_FITTED_KEY}, where WEB keeps tilt and axes")
    tilt, untilted, tilted = document.loc[_FITTED_KEY].to_numpy()[:3]
    return _complete(path, {"tilt_deg": [tilt], "axis_untilted_deg": [-untilted], "axis_tilted_deg": [-tilted]})


def _is_angle(value: object) -> bool:
    """Finite, and small enough: JSON has whole numbers that no float64 holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e6 < value < 1e6


def _from_eman(path: Path) -> pd.DataFrame:
    record = read_json(path)
    rows = [(key, value) for key, value in record.items() if key.startswith(_EMAN)]
    for key, value in rows:
        if not isinstance(value, list) or len(value) < 3 or not all(map(_is_angle, value[:3])):
            raise FormatError(f"{path}: {key}: expected [tilt, axis tilted, axis untilted], got {str(value)[:60]}")
    if not rows:
        raise FormatError(f"{path}: no entry {_EMAN}..., as EMAN2 keeps the geometry of tilt pairs in")
    return _complete(
        path,
        {
            "tilted": [key.removeprefix(_EMAN) for key, _ in rows],
            "tilt_deg": [value[0] for _, value in rows],
            "axis_untilted_deg": [-value[2] for _, value in rows],
            "axis_tilted_deg": [-value[1] for _, value in rows],
        },
    )
