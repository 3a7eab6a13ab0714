"""Lists of micrographs with their CTFs: files, folders of names, RELION STAR, plain tables of defoci."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import FormatError, InputError
from verglas.io.coordinate_text import read_lines
from verglas.io.coordinates import MICROGRAPH, match_names
from verglas.io.inputs import note_named
from verglas.io.kinds import require_file
from verglas.io.mrc import PathLike
from verglas.io.rules import search_folders
from verglas.io.star import read_star, writable, write_star
from verglas.io.tiff import PICTURES
from verglas.io.tomography import refuse_tomography
from verglas.types import _columns as col
from verglas.types.ctf_ranges import check_ctf_columns
from verglas.types.even_aberrations import EVEN_ZERNIKE

# Row columns of a list of micrographs, and what they hold where nothing is known.
PATH = "path"
PIXEL = "rlnMicrographPixelSize"
_ORIGINAL = "rlnMicrographOriginalPixelSize"  # of the movie's frames, where these were binned
OF_GROUPS = (*col.NO_ABERRATION, EVEN_ZERNIKE)  # what groups of particles have from those of their micrographs
SHARED = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
SPECTRUM = "rlnCtfPowerSpectrum"
METADATA = "rlnMicrographMetadata"  # the file of the movie's motion, with the detector's bad pixels
GRADIENT = ("vgDefocusGradientX", "vgDefocusGradientY")
_SUFFIXES = (".tif", ".tiff", ".mrc", ".map", *PICTURES)
_PACKED = ("", ".gz", ".bz2")
# Header of a plain table of defoci -> label
_PLAIN = {
    "micrograph": MICROGRAPH,
    "micrograph_name": MICROGRAPH,
    "image": MICROGRAPH,
    "filename": MICROGRAPH,
    "defocus_u_a": "rlnDefocusU",
    "defocus_v_a": "rlnDefocusV",
    "defocus_angle_deg": "rlnDefocusAngle",
    "astigmatism_angle_deg": "rlnDefocusAngle",
    "phase_shift_deg": "rlnPhaseShift",
    "voltage_kv": "rlnVoltage",
    "cs_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}


def find_micrographs(source: PathLike | Iterable[PathLike], *, checked: bool = True) -> pd.DataFrame:
    """The micrographs that a pattern, a folder, a list or a STAR file names, in order, with what the STAR says of them.

    Parameters
    ----------
    source : path, pattern, or several
        ``"mics/*.tif"``, ``mics/`` (TIFF and MRC files in it), a STAR file with rlnMicrographName, one micrograph, or a
        list of these. Patterns and folders are sorted by name.
    checked : bool
        Refuse names that do not tell the files apart, or that a STAR file cannot hold.

    Returns
    -------
    DataFrame
        One row each: ``rlnMicrographName``, ``path``, and of a STAR file pixel size, voltage, Cs, amplitude contrast,
        CTF and optics group, whatever it has.

    Raises
    ------
    InputError
        Nothing is found, a file twice, two files under one name, or a name with a quote or # in it.

    Examples
    --------
    >>> from verglas.io import find_micrographs
    >>> find_micrographs("nowhere/*.tif")
    Traceback (most recent call last):
    verglas.errors.InputError: nowhere/*.tif: no micrographs found; expected TIFF or MRC files or a STAR file of them
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    tables = [_find_in_source(os.fspath(one)) for one in sources]
    for one, table in zip(sources, tables, strict=True):
        note_named(Path(one), [Path(path) for path in table[PATH]].copy)
    tables = [table for table in tables if len(table)]
    if not tables:
        shown = ", ".join(os.fspath(s) for s in sources[:3]) or "an empty list"
        raise InputError(f"{shown}: no micrographs found; expected TIFF or MRC files or a STAR file of them")
    table = pd.concat(tables, ignore_index=True)
    twice = table[PATH][table[PATH].duplicated()]
    if len(twice):
        raise InputError(f"{twice.iloc[0]} is named twice among the micrographs ({len(twice)} are); name each once")
    files = table[PATH].map(os.path.realpath)
    if files.duplicated().any():  # a link to another: its particles would be in both half sets
        same = table[PATH][files == files[files.duplicated()].iloc[0]]
        raise InputError(f"{same.iloc[0]} and {same.iloc[1]} are one and the same file; name each micrograph once")
    if checked:
        check_micrograph_names(table)
    return table


def check_micrograph_names(table: pd.DataFrame) -> None:
    """Refuse, before any work, names that several files have and names that no STAR file can hold."""
    names = table[MICROGRAPH]
    same = np.flatnonzero(names.duplicated(keep=False))
    if same.size:
        first = same[names.iloc[same] == names.iloc[same[0]]]
        files = ", ".join(str(p) for p in table[PATH].iloc[first[:3]])
        raise InputError(
            f"micrograph name {names.iloc[same[0]]} stands for {len(first)} files ({files}): particles could not be "
            "told apart; give each a name of its own"
        )
    bad = names[names.map(lambda name: not writable(str(name)))]
    if len(bad):
        raise InputError(
            f"micrograph {bad.iloc[0]!r}: a quote, a #, a tab, a line break or a byte that is not UTF-8 in its name "
            f"cannot be written to a STAR file ({len(bad)} such names); rename the file"
        )


def _find_in_source(source: str) -> pd.DataFrame:
    path = Path(source)
    if path.suffix.lower() == ".star":
        return read_micrographs(path)
    if path.is_dir():
        endings = tuple(kind + packed for kind in _SUFFIXES for packed in _PACKED)
        names = sorted(str(p) for p in path.iterdir() if p.name.lower().endswith(endings) and p.name[0] != ".")
    elif path.exists() or not glob.has_magic(source):
        names = [source]
    else:
        names = sorted(p for p in glob.glob(source, recursive=True) if Path(p).is_file())
    return pd.DataFrame({MICROGRAPH: names, PATH: names}, dtype=object)


def read_micrographs(path: PathLike) -> pd.DataFrame:
    """A STAR file of micrographs, optics columns given to every row; ``path`` is where each file should lie.

    Relative names are looked for beside the STAR file, in the folders above it, then in the working directory. A list
    of files of coordinates (``picks.star``, RELION's ``autopick.star``) is one of micrographs.

    Raises
    ------
    FormatError
        No table has rlnMicrographName, or its rows are particles.
    """
    path = Path(path)
    tables = read_star(path)
    refuse_tomography(path, tables)
    name = next((n for n, t in tables.items() if MICROGRAPH in t and n != "optics"), None)
    if name is None:
        raise FormatError(f"{path}: no table has the column {MICROGRAPH}, so there are no micrographs in it")
    table, optics = _frame(tables[name]), _frame(tables["optics"]) if "optics" in tables else None
    if "rlnCoordinateX" in table:
        raise FormatError(f"{path}: has rlnCoordinateX: these are particles or coordinates, not a list of micrographs")
    # A list of files of coordinates, as pickers write it, names every micrograph once.
    table = table.drop(columns="rlnMicrographCoordinates", errors="ignore")
    parts = col.Tables(table, optics, str(path))
    out: dict[str, Any] = {MICROGRAPH: [str(n) for n in table[MICROGRAPH]]}
    folders = [path.parent, *search_folders(path)[1:]]
    out[PATH] = [_find_from(folders, n) for n in out[MICROGRAPH]]
    out |= _shared_values(parts)
    for label in ("rlnOpticsGroupName", *OF_GROUPS):
        if optics is not None and label in optics:
            out[label] = optics[label].to_numpy()[parts.group()]
    for label in table.columns.astype(str):
        if label not in out and label != "rlnOpticsGroup":
            out[label] = table[label].to_numpy()
    for label in (SPECTRUM, METADATA):
        if label in out:
            out[label] = [_find_from(folders, str(name)) for name in out[label]]
    micrographs = pd.DataFrame(out)
    check_ctf_columns(micrographs, str(path))
    return micrographs


def _shared_values(parts: col.Tables) -> dict[str, Any]:
    """Pixel sizes and the microscope, a value for each row; the pixels of the movie stand for those of its sum."""
    values = {label: parts.value(label, optics_first=True) for label in (PIXEL, _ORIGINAL, *SHARED)}
    pixel = next((values[label] for label in (PIXEL, _ORIGINAL) if values[label] is not None), None)
    values[PIXEL] = col.pixel_sizes_A(parts) if pixel is None else pixel
    return {label: value for label, value in values.items() if value is not None}


def _frame(table: pd.DataFrame | Mapping[str, Any]) -> pd.DataFrame:
    return table if isinstance(table, pd.DataFrame) else pd.DataFrame({k: [v] for k, v in table.items()})


def _find_from(folders: list[Path], name: str) -> str:
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    return name


def write_micrographs(path: PathLike, table: pd.DataFrame) -> None:
    """Write a list of micrographs as a STAR file with an optics table, one group per distinct microscope setting."""
    optics, group = optics_of(table)
    of_groups = ("rlnOpticsGroupName", PIXEL, _ORIGINAL, *SHARED, *OF_GROUPS)
    rows = table.drop(columns=[c for c in (PATH, *of_groups) if c in table])
    rows = rows.assign(rlnOpticsGroup=group)
    write_star(path, {"optics": optics, "micrographs": rows})


def optics_of(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Optics table of a list of micrographs and the group (from 1) of each, numbered as they first appear."""
    labels = [label for label in (PIXEL, _ORIGINAL, *SHARED, "rlnOpticsGroupName", *OF_GROUPS) if label in table]
    # groupby leaves rows with a NaN out of every group.
    keys = table[labels].astype(object).where(table[labels].notna(), "nan")
    group = keys.groupby(labels, sort=False).ngroup().to_numpy() if labels else np.zeros(len(table), np.int64)
    first = np.unique(group, return_index=True)[1]
    count = len(first)
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": table["rlnOpticsGroupName"].to_numpy()[first]
            if "rlnOpticsGroupName" in table
            else [f"opticsGroup{i + 1}" for i in range(count)],
            "rlnOpticsGroup": np.arange(1, count + 1),
        }
    )
    for label in labels:
        if label in OF_GROUPS:
            optics[label] = table[label].to_numpy()[first]
        elif label != "rlnOpticsGroupName":
            optics[label] = table[label].to_numpy(np.float64)[first]
            if label == PIXEL and _ORIGINAL not in table:
                optics[_ORIGINAL] = optics[label]
    return optics, group + 1


def read_ctf_table(path: PathLike) -> pd.DataFrame:
    """CTFs of micrographs, one row each, from a STAR file or a plain table.

    Parameters
    ----------
    path : path
        ``.star`` with rlnMicrographName and rlnDefocusU, or a ``.tsv``/``.csv`` whose header has micrograph and
        defocus_A, or defocus_u_A, defocus_v_A, defocus_angle_deg, phase_shift_deg; lines that start with # are skipped.

    Returns
    -------
    DataFrame
        rlnMicrographName, rlnDefocusU, rlnDefocusV, rlnDefocusAngle and whatever else of a CTF the file has.

    Raises
    ------
    FormatError
        No name, no defocus, a value that is no number, or a micrograph twice.
    """
    path = Path(path)
    star = path.suffix.lower() == ".star"
    table = read_micrographs(path).drop(columns=PATH) if star else _plain_ctf(path)
    if "rlnDefocusU" not in table:
        raise FormatError(
            f"{path}: no defocus: expected rlnDefocusU in a STAR file, defocus_A or defocus_u_A in a table"
        )
    for label, other in (("rlnDefocusV", table["rlnDefocusU"]), ("rlnDefocusAngle", 0.0)):
        if label not in table:
            table[label] = other
    twice = table[MICROGRAPH][table[MICROGRAPH].duplicated()]
    if len(twice):
        raise FormatError(f"{path}: {twice.iloc[0]} has more than one CTF")
    check_ctf_columns(table, str(path))
    return table


def _plain_ctf(path: Path) -> pd.DataFrame:
    require_file(path)
    text = read_lines(path)
    if "output from ctffind" in text[:1000].lower():
        raise FormatError(
            f"{path}: a result of CTFFIND, which holds one micrograph and names no columns; expected one table of "
            "all: a header micrograph, defocus_u_A, defocus_v_A, defocus_angle_deg, phase_shift_deg (there in radians)"
        )
    lines = [
        (n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise FormatError(f"{path}: no rows")
    mark = next((m for m in ("\t", ",", ";") if m in lines[0][1]), None)
    rows = [(n, line.split() if mark is None else next(csv.reader([line], delimiter=mark))) for n, line in lines]
    header = [word.strip() for word in rows[0][1]]
    labels = [_PLAIN.get(word.lower(), "rlnDefocusU" if word.lower() == "defocus_a" else word) for word in header]
    if MICROGRAPH not in labels:
        raise FormatError(f"{path}, line {rows[0][0]}: no column micrograph; the header has {', '.join(header)}")
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise FormatError(f"{path}, line {rows[0][0]}: two columns for {twice}; the header has {', '.join(header)}")
    columns: dict[str, list[Any]] = {label: [] for label in labels}
    for number, words in rows[1:]:
        if len(words) != len(labels):
            raise FormatError(f"{path}, line {number}: {len(words)} values for {len(labels)} columns")
        for label, word in zip(labels, words, strict=True):
            columns[label].append(word.strip())
    table = pd.DataFrame(columns)
    for label in set(labels) & {*CTF, *SHARED}:
        table[label] = col.number_column(table[label], label, str(path))
    return table[[label for label in labels if label.startswith("rln")]]


def join_ctf(table: pd.DataFrame, ctf: pd.DataFrame) -> pd.DataFrame:
    """Give micrographs the columns of a table of CTFs, matched by name; those without a CTF get nan."""
    at = match_names(table[MICROGRAPH].tolist(), ctf[MICROGRAPH].tolist())
    out = table.copy(deep=False)
    for label in ctf.columns:
        if label != MICROGRAPH:
            values = ctf[label].to_numpy()
            values = values.astype(np.float64) if values.dtype.kind in "iu" else values
            missing: Any = np.nan if values.dtype.kind == "f" else None
            out[label] = np.where(at >= 0, values[np.maximum(at, 0)], missing)
    return out
