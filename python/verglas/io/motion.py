"""Motion of movies in files: RELION's STAR per micrograph, and logs of MotionCor2 and MotionCor3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import FormatError
from verglas.io.mrc import PathLike
from verglas.io.mrc_header import require_file
from verglas.io.star import read_star, write_star
from verglas.types.arrays import FloatArray
from verglas.types.trajectory import Trajectory

# RELION's label -> attribute of a trajectory
_GENERAL = {
    "rlnMicrographMovieName": "movie",
    "rlnMicrographGainName": "gain",
    "rlnMicrographOriginalPixelSize": "pixel_size_A",
    "rlnMicrographDoseRate": "dose_per_frame_e_A2",
    "rlnMicrographPreExposure": "pre_exposure_e_A2",
    "rlnVoltage": "voltage_kV",
    "rlnMicrographBinning": "binning",
}
_SIZES = ("rlnImageSizeX", "rlnImageSizeY", "rlnImageSizeZ")
_OWN = {*_GENERAL, *_SIZES, "rlnMicrographStartFrame", "rlnMotionModelVersion"}
_SHIFT = ["rlnMicrographShiftX", "rlnMicrographShiftY"]
_LATTICE = "verglas_lattice"  # a table of our own: other programs read the tables that they know by name
_PATCH_COLUMNS = ["frame", "x_px", "y_px", "dx_px", "dy_px"]


# ---- RELION


def read_motion_star(path: PathLike) -> Trajectory:
    """Read the STAR file that RELION writes of one movie (rlnMicrographMetadata).

    Parameters
    ----------
    path : path

    Returns
    -------
    Trajectory
        With its signs: RELION's file holds minus the displacement.

    Raises
    ------
    FormatError
        No such tables, a frame that is missing, or another number of coefficients than 36.
    """
    path = Path(path)
    tables = read_star(path)
    general, shifts = tables.get("general"), tables.get("global_shift")
    if not isinstance(general, dict) or not isinstance(shifts, pd.DataFrame) or not {*_SHIFT} <= {*shifts}:
        raise FormatError(
            f"{path}: expected the tables general and global_shift of RELION's motion correction; it has "
            f"{', '.join(tables)}"
        )
    version = int(general.get("rlnMotionModelVersion", 0))
    if version not in (0, 1):
        raise FormatError(f"{path}: rlnMotionModelVersion {version}; expected 0 (none) or 1 (polynomial)")
    attributes: dict[str, Any] = {name: general[label] for label, name in _GENERAL.items() if label in general}
    attributes = {name: str(v) if name in ("movie", "gain") else float(v) for name, v in attributes.items()}
    if all(label in general for label in _SIZES):
        attributes["shape"] = (int(general["rlnImageSizeY"]), int(general["rlnImageSizeX"]))
    first = int(general.get("rlnMicrographStartFrame", 1))
    return Trajectory(
        # Minus: files hold the shift that brings a frame back, a trajectory where the specimen went.
        -_in_order(path, shifts),
        _polynomial(path, tables) if version == 1 else None,
        _patches(tables),
        _hot(tables),
        first_frame=first - 1,
        lattice_px=_lattice(path, tables),
        more={k: v for k, v in general.items() if k not in _OWN},
        **attributes,
    )


def _in_order(path: Path, table: pd.DataFrame) -> FloatArray:
    """(n, 2) shifts as stored, by the frames' numbers; frames outside the range used have none and are left out."""
    rows = table.dropna(subset=_SHIFT)
    numbers = rows["rlnMicrographFrameNumber"].to_numpy(np.int64)
    order = np.argsort(numbers, kind="stable")
    if not len(order) or (np.diff(numbers[order]) != 1).any():
        raise FormatError(
            f"{path}: global_shift has the frames {numbers.tolist()[:8]}...; expected each once, in a row"
        )
    return rows[_SHIFT].to_numpy(np.float64)[order]


def _polynomial(path: Path, tables: Mapping[str, Any]) -> FloatArray | None:
    table = tables.get("local_motion_model")
    if table is None:
        return None
    terms = np.asarray(table["rlnMotionModelCoeff"], np.float64)[np.argsort(table["rlnMotionModelCoeffsIdx"])]
    if len(terms) != 36:
        raise FormatError(f"{path}: {len(terms)} coefficients of local motion; expected 36, 18 for x and 18 for y")
    return np.asarray(-terms.reshape(2, 18))


def _lattice(path: Path, tables: Mapping[str, Any]) -> FloatArray | None:
    """Nodes of the field itself, which our files hold beside the polynomial."""
    table = tables.get(_LATTICE)
    if table is None:
        return None
    places = [table[label].to_numpy(np.int64) for label in ("rlnMicrographFrameNumber", "vgNodeY", "vgNodeX")]
    places[0] = places[0] - places[0].min()
    sides = tuple(int(place.max()) + 1 for place in places)
    if np.unique(np.ravel_multi_index(places, sides)).size != np.prod(sides) or len(table) != np.prod(sides):
        raise FormatError(f"{path}: {_LATTICE}: {len(table)} rows for {sides} frames and nodes; expected each once")
    nodes = np.empty((*sides, 2))
    nodes[tuple(places)] = -table[_SHIFT].to_numpy(np.float64)
    return nodes


def _patches(tables: Mapping[str, Any]) -> pd.DataFrame | None:
    table = tables.get("local_shift")
    if table is None or not len(table):
        return None
    shift = table[_SHIFT].to_numpy(np.float64)
    frame = table["rlnMicrographFrameNumber"].to_numpy(np.int64) - 1
    x, y = (np.asarray(table[label], np.float64) for label in ("rlnCoordinateX", "rlnCoordinateY"))
    return pd.DataFrame({"frame": frame, "x_px": x, "y_px": y, "dx_px": -shift[:, 0], "dy_px": -shift[:, 1]})


def _hot(tables: Mapping[str, Any]) -> Any:
    table = tables.get("hot_pixels")
    if table is None:
        return None
    columns = [np.atleast_1d(np.asarray(table[label], np.float64)) for label in ("rlnCoordinateY", "rlnCoordinateX")]
    return np.column_stack(columns).astype(np.int64)


def write_motion_star(path: PathLike, motion: Trajectory, *, micrograph: str | None = None) -> None:
    """Write what RELION's polishing reads of one movie.

    Parameters
    ----------
    path : path
        ``.star``.
    motion : Trajectory
        Rows as RELION counts them: :meth:`Trajectory.flipped_y` first where the movie is a TIFF file.
    micrograph : str, optional
        Name of the corrected micrograph.

    Raises
    ------
    FormatError
        The size of the frames is not known.
    """
    if motion.shape is None:
        raise FormatError(f"{path}: RELION's motion files name the size of the frames, which is not known")
    general: dict[str, Any] = dict(zip(_SIZES, (motion.shape[1], motion.shape[0], len(motion)), strict=True))
    general |= {label: getattr(motion, name) for label, name in _GENERAL.items() if getattr(motion, name) is not None}
    if micrograph is not None:
        general["rlnMicrographName"] = micrograph
    general |= {
        "rlnMicrographStartFrame": motion.first_frame + 1,
        "rlnMotionModelVersion": 0 if motion.polynomial is None else 1,
        **motion.more,
    }
    frames = np.arange(1, len(motion) + 1) + motion.first_frame
    shifts = dict(zip(_SHIFT, -motion.global_px.T, strict=True))
    tables: dict[str, Any] = {
        "general": general,
        "global_shift": pd.DataFrame({"rlnMicrographFrameNumber": frames, **shifts}),
    }
    if motion.polynomial is not None:
        tables["local_motion_model"] = pd.DataFrame(
            {"rlnMotionModelCoeffsIdx": np.arange(36), "rlnMotionModelCoeff": -motion.polynomial.reshape(36)}
        )
    if motion.lattice_px is not None:
        f, y, x = (axis.ravel() for axis in np.indices(motion.lattice_px.shape[:3]))
        nodes = -motion.lattice_px.reshape(-1, 2).T
        numbers = {"rlnMicrographFrameNumber": f + 1 + motion.first_frame, "vgNodeY": y, "vgNodeX": x}
        tables[_LATTICE] = pd.DataFrame({**numbers, **dict(zip(_SHIFT, nodes, strict=True))})
    if len(motion.hot_pixels):
        y, x = motion.hot_pixels.T.astype(np.float64)
        tables["hot_pixels"] = pd.DataFrame({"rlnCoordinateX": x, "rlnCoordinateY": y})
    if motion.patches is not None:
        p = motion.patches
        tables["local_shift"] = pd.DataFrame(
            {
                "rlnMicrographFrameNumber": p["frame"] + 1,
                "rlnCoordinateX": p["x_px"],
                "rlnCoordinateY": p["y_px"],
                _SHIFT[0]: -p["dx_px"],
                _SHIFT[1]: -p["dy_px"],
            }
        )
    write_star(path, tables)


# ---- MotionCor2 and MotionCor3


def read_motioncor(path: PathLike) -> Trajectory:
    """Read a trajectory of MotionCor2 or MotionCor3.

    Parameters
    ----------
    path : path
        ``...-Full.log`` or ``...-Patch-Full.log`` (shifts of frames), ``...-Patch-Frame.log`` or
        ``...-Patch-Patch.log`` (shifts of patches beyond none: those of the whole frame are part of them in
        MotionCor2's files, so that ``global_px`` is their mean), or MotionCor3's ``.aln`` (both).

    Returns
    -------
    Trajectory
        With its signs: the files hold minus the displacement.

    Raises
    ------
    FormatError
        None of these.
    """
    path = require_file(path)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if any(line.strip() == "globalShift" for line in lines):
        return _aln(path, lines)
    size = next((m for m in (re.search(r"Movie size:\s+(\d+)\s+(\d+)\s+(\d+)", line) for line in lines) if m), None)
    shape = (int(size[2]), int(size[1])) if size else None
    rows = _number_rows(path, lines, 1)
    widths = {len(row) for row in rows}
    if widths == {3}:
        table = np.array(rows)
        return Trajectory(-_values_in_order(path, table[:, 0], table[:, 1:]), shape=shape)
    if widths and min(widths) >= 5:
        return _of_patches(path, np.array([row[:5] for row in rows]), shape)
    raise FormatError(
        f"{path}: expected rows of frame, x, y, or frame, x, y, shift x, shift y; this is neither a log "
        "of MotionCor2's shifts nor an .aln of MotionCor3"
    )


def _number_rows(path: Path, lines: list[str], first: int) -> list[list[float]]:
    rows = []
    for number, line in enumerate(lines, first):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise FormatError(f"{path}, line {number}: {line.strip()[:60]!r}; expected numbers") from None
    return rows


def _values_in_order(path: Path, numbers: Any, values: FloatArray) -> FloatArray:
    order = np.argsort(numbers, kind="stable")
    if (np.diff(np.asarray(numbers)[order]) != 1).any():
        raise FormatError(f"{path}: the frames are not numbered in a row, each once")
    return values[order]


def _of_patches(path: Path, rows: FloatArray, shape: tuple[int, int] | None) -> Trajectory:
    patches = pd.DataFrame(rows, columns=_PATCH_COLUMNS)
    patches["frame"] = patches["frame"].astype(np.int64) - 1
    patches[["dx_px", "dy_px"]] *= -1
    means = patches.groupby("frame")[["dx_px", "dy_px"]].mean()
    moves = _values_in_order(path, means.index.to_numpy(), means.to_numpy(np.float64))
    # MotionCor2's patch logs hold the whole movement: the part common to all patches is the global one.
    patches[["dx_px", "dy_px"]] -= moves[patches["frame"] - patches["frame"].min()]
    return Trajectory(moves, patches=patches, shape=shape)


def _aln(path: Path, lines: list[str]) -> Trajectory:
    """MotionCor3's alignment: sections setting, globalShift and localShift, frames from 0."""
    setting: dict[str, list[int]] = {}
    parts: dict[str, list[tuple[int, str]]] = {"globalShift": [], "localShift": []}
    part = ""
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        if text in ("setting", *parts):
            part = text
        elif part == "setting" and ":" in text:
            key, _, value = text.partition(":")
            setting[key.strip()] = [int(word) for word in value.split()]
        elif part in parts and text and not text[0].isalpha():
            parts[part].append((number, text))
    numbers = {name: [_number_rows(path, [text], n)[0] for n, text in rows] for name, rows in parts.items()}
    if not numbers["globalShift"] or any(len(row) != 3 for row in numbers["globalShift"]):
        raise FormatError(f"{path}: no rows of frame, x, y after globalShift")
    table = np.array(numbers["globalShift"])
    size, throw = setting.get("stackSize"), setting.get("throw", [0])
    patches = None
    if numbers["localShift"]:
        patches = pd.DataFrame(numbers["localShift"], columns=_PATCH_COLUMNS)
        patches["frame"] = patches["frame"].astype(np.int64)
        patches[["dx_px", "dy_px"]] *= -1
    return Trajectory(
        -_values_in_order(path, table[:, 0], table[:, 1:]),
        patches=patches,
        first_frame=throw[0],
        shape=(size[1], size[0]) if size else None,
    )
