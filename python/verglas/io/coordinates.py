"""Particle coordinates of other programs: RELION STAR, cryoSPARC, EMAN boxes, plain tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import FormatError, InputError
from verglas.io import cs
from verglas.io.coordinate_text import (
    BOX_HEIGHT,
    BOX_WIDTH,
    FIGURE_OF_MERIT,
    MICROGRAPH,
    TUBE,
    X,
    Y,
    from_box,
    from_eman_json,
    from_text,
)
from verglas.io.kinds import require_file
from verglas.io.mrc import PathLike
from verglas.io.rules import search_folders, written_name
from verglas.io.spider import is_document, read_spider_document
from verglas.io.star import read_star, write_star
from verglas.io.tomography import refuse_tomography
from verglas.types import Picks
from verglas.types import _columns as col

LISTED = "rlnMicrographCoordinates"
_PICKER_ENDINGS = ("_info", "_autopick", "_manualpick", "_picks", "_coords", "_boxes")
# Fields of cryoSPARC's pickers and filament tracer.
_NCC, _FILAMENT = "pick_stats/ncc_score", "filament/filament_uid"
_CRYOSPARC_UID = re.compile(r"^\d{15,}_")


def read_picks(path: PathLike) -> dict[str, Picks]:
    r"""Particle coordinates of a file, by micrograph.

    Parameters
    ----------
    path : path
        ``.star`` with rlnCoordinateX and rlnCoordinateY, or the list of such files that picking jobs of RELION 4 and 5
        leave; ``.cs`` with location/* (cryoSPARC); ``.box`` with corner and size of each box, ``.json`` (EMAN);
        ``.cbox`` (crYOLO); ``.pos`` (Xmipp); documents of SPIDER that hold x and y; ``.csv``, ``.tsv`` or ``.txt``
        with a header that has x and y (and micrograph and score, as topaz's tables; or axis-1 and axis-0 of napari),
        or without one and with columns x y or micrograph x y.

    Returns
    -------
    dict of str -> Picks
        By the micrograph's name in the file. Where the file does not say it, the name is the file's own without
        suffix and without a picker's ending (``_autopick``), for files of one micrograph each. A score (crYOLO's
        confidence, cryoSPARC's NCC, topaz's and EMAN2's score) is the column rlnAutopickFigureOfMerit, sides of boxes
        are verglasBoxWidth and verglasBoxHeight in pixels, filaments rlnHelicalTubeID, from 1.

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
    require_file(path)
    readers = {".star": _from_star, ".cs": _from_cs, ".box": from_box, ".json": from_eman_json}
    readers |= {".cbox": _from_cbox, ".pos": _from_pos}
    table = readers.get(path.suffix.lower(), _from_spider if is_document(path) else from_text)(path)
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
    picks: dict[str, Picks] = {}
    for name, rows in table.groupby(MICROGRAPH, sort=False).indices.items():
        rows = np.sort(rows)
        columns = {label: table[label].to_numpy()[rows] for label in others}
        picks[str(name)] = Picks(xy[rows], str(name), columns)
    return picks


def write_picks(
    path: PathLike, picks: Mapping[str, Picks], *, one_file: bool = False, paths: str | None = None
) -> list[Path]:
    """Write coordinates as picking jobs of RELION 4 and 5 do: a list of files, and one STAR file per micrograph.

    Parameters
    ----------
    path : path
        ``.star``; the files of the micrographs go to a folder beside it that has its name.
    picks : mapping of str -> Picks
        By the names that the list of micrographs has: RELION joins them by name.
    one_file : bool
        One table with all coordinates instead, as other programs and RELION 3 read it; columns that only some
        micrographs have are filled with nan.
    paths : "relion", "star" or "absolute", optional
        Names of the coordinate files; see :func:`verglas.io.write_particles`.

    Returns
    -------
    list of Path
        What was written.
    """
    path = Path(path)
    if path.suffix.lower() != ".star":
        raise InputError(f"cannot write {path}: expected the suffix .star")
    if one_file:
        tables = [_table_of(p, name) for name, p in picks.items()]
        filled = [table for table in tables if len(table)]
        write_star(path, {"": pd.concat(filled, ignore_index=True) if filled else _table_of(_NONE, "").iloc[:0]})
        return [path]
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    files = unique_stems(list(picks), "_picks.star")
    for file, p in zip(files, picks.values(), strict=True):
        write_star(folder / file, {"": _table_of(p)})
    names = [written_name(folder / file, path.parent, paths) for file in files]
    listed = pd.DataFrame({MICROGRAPH: list(picks), LISTED: names}, dtype=object)
    write_star(path, {"coordinate_files": listed})
    return [path, *(folder / file for file in files)]


_NONE = Picks(np.zeros((0, 2)))


def _table_of(picks: Picks, micrograph: str | None = None) -> pd.DataFrame:
    name = {} if micrograph is None else {MICROGRAPH: np.full(len(picks), micrograph, dtype=object)}
    return pd.DataFrame({**name, X: picks.xy_px[:, 0], Y: picks.xy_px[:, 1], **picks.columns})


def unique_stems(names: Sequence[str], ending: str) -> list[str]:
    """A file name for each path: its stem and the ending, numbered where it is taken, whatever other stems look like.

    Examples
    --------
    >>> from verglas.io.coordinates import unique_stems
    >>> unique_stems(["x/a.mrc", "y/a.mrc", "z/a_2.mrc"], ".mrcs")
    ['a.mrcs', 'a_3.mrcs', 'a_2.mrcs']
    """
    stems = [Path(name).stem for name in names]
    names_in_use, files = set(stems), []
    counts: dict[str, int] = {}
    for stem in stems:
        counts[stem] = counts.get(stem, 0) + 1
        name = stem
        while counts[stem] > 1 and name in names_in_use:
            name = f"{stem}_{counts[stem]}"
            counts[stem] += name in names_in_use
        names_in_use.add(name)
        files.append(name + ending)
    return files


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
            return _frame(table)
    for table in tables.values():
        if LISTED in table and MICROGRAPH in table:
            return _read_listed(path, _frame(table))
    raise FormatError(f"{path}: no table has the columns {X} and {Y}, so there are no coordinates in it")


def _frame(table: Any) -> pd.DataFrame:
    return table if isinstance(table, pd.DataFrame) else pd.DataFrame({k: [v] for k, v in table.items()})


def _read_listed(path: Path, files: pd.DataFrame) -> pd.DataFrame:
    """The coordinates in the files that a list of RELION 4 or 5 names, from the folder of the project or beside it."""
    tables = []
    for micrograph, name in zip(files[MICROGRAPH].astype(str), files[LISTED].astype(str), strict=True):
        file = next((f / name for f in search_folders(path) if (f / name).is_file()), None)
        if file is None:
            raise FormatError(
                f"{path}: coordinates of {micrograph}: {name} not found beside the list, in the folders above it or in "
                f"{Path.cwd()}"
            )
        if file.suffix.lower() == ".star" and any(LISTED in table for table in read_star(file).values()):
            raise FormatError(f"{path}: coordinates of {micrograph}: {name} is a list of files again")
        for p in read_picks(file).values():
            tables.append(pd.DataFrame({MICROGRAPH: micrograph, X: p.xy_px[:, 0], Y: p.xy_px[:, 1], **p.columns}))
    tables = [table for table in tables if len(table)]
    empty = pd.DataFrame({MICROGRAPH: pd.Series(dtype=str), X: pd.Series(dtype=float), Y: pd.Series(dtype=float)})
    return pd.concat(tables, ignore_index=True) if tables else empty


def _from_cbox(path: Path) -> pd.DataFrame:
    """Boxes of crYOLO: corner, width and height; in three dimensions also z, which is refused."""
    table = next((t for n, t in read_star(path).items() if n == "cryolo"), None)
    needed = ("CoordinateX", "CoordinateY", "Width", "Height")
    if table is None or any(label not in table for label in needed):
        raise FormatError(f"{path}: no table data_cryolo with {', '.join(needed)}")
    table = _frame(table)
    if "CoordinateZ" in table and pd.to_numeric(table["CoordinateZ"], errors="coerce").nunique() > 1:
        raise FormatError(f"{path}: boxes at several z: of a tomogram, not of one micrograph")
    x, y, width, height = (col.number_column(table[label], label, str(path)) for label in needed)
    # crYOLO's boxes name their corner, like EMAN's; the particle is the pixel N // 2 of the box.
    picks = pd.DataFrame({X: x + width // 2, Y: y + height // 2, BOX_WIDTH: width, BOX_HEIGHT: height})
    if "Confidence" in table:
        picks[FIGURE_OF_MERIT] = col.number_column(table["Confidence"], "Confidence", str(path))
    if "filamentid" in table:
        filament = pd.to_numeric(table["filamentid"], errors="coerce")  # <NA> where none was traced
        if filament.notna().all():
            picks[TUBE] = filament.astype(np.int64).to_numpy() - int(filament.min()) + 1
    return picks


def _from_pos(path: Path) -> pd.DataFrame:
    """Positions of Xmipp: a STAR file with xcoor and ycoor, middles of particles."""
    for table in read_star(path).values():
        if "xcoor" in table and "ycoor" in table:
            frame = _frame(table)
            return pd.DataFrame({X: frame["xcoor"], Y: frame["ycoor"]})
    raise FormatError(f"{path}: no table with xcoor and ycoor, so there are no positions of Xmipp in it")


def _from_spider(path: Path) -> pd.DataFrame:
    """A document whose first two columns are x and y, counted from 1 as SPIDER does, and whose others are 0.

    Or one of the markers that SPIDER's WEB leaves of tilt pairs: number, x, y, both again on the reduced image, flag.
    """
    table = read_spider_document(path)
    if _is_of_web(table):
        table = table[[2, 3]]
    if table.shape[1] < 2 or table.iloc[:, 2:].to_numpy().any():
        raise FormatError(
            f"{path}: a SPIDER document with {table.shape[1]} columns: which are x and y cannot be told; read it with "
            "verglas.io.read_spider_document and write x and y with a header"
        )
    return pd.DataFrame({X: table.iloc[:, 0].to_numpy() - 1, Y: table.iloc[:, 1].to_numpy() - 1})


def _is_of_web(table: pd.DataFrame) -> bool:
    if table.shape[1] != 6 or not np.array_equal(table[1], table.index):
        return False
    full, reduced = table[[2, 3]].to_numpy(), table[[4, 5]].to_numpy()
    factor = full.sum() / max(reduced.sum(), 1e-9)
    return bool(factor >= 1 and np.abs(full - factor * reduced).max() < 1e-3 * max(full.max(), 1))


def _from_cs(path: Path) -> pd.DataFrame:
    array = cs.load(path)
    location = cs.location({name: array[name] for name in array.dtype.names or ()})
    if X not in location:
        raise FormatError(
            f"{path}: no coordinates: expected location/center_x_frac, location/center_y_frac and "
            "location/micrograph_shape (they are often in the passthrough file)"
        )
    table = pd.DataFrame(location)
    if _NCC in (array.dtype.names or ()):
        table[FIGURE_OF_MERIT] = array[_NCC].astype(np.float64)
    if _FILAMENT in (array.dtype.names or ()):
        names = table.get(MICROGRAPH, pd.Series("", index=table.index))
        # RELION counts the tubes of each micrograph from 1; cryoSPARC's are long numbers.
        table[TUBE] = pd.Series(array[_FILAMENT]).groupby(names).transform(lambda uid: pd.factorize(uid)[0] + 1)
    return table


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
