"""What an extraction writes: stacks, the table of all particles with their optics groups, what was set aside."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.extraction import Cut, ExtractSettings
from verglas.io import (
    StackWriter,
    atomic_path,
)
from verglas.io.coordinates import MICROGRAPH, X, Y
from verglas.io.micrographs import CTF, GRADIENT, PIXEL, SHARED, optics_of
from verglas.run.extract_optics import move_to_groups, settle_defoci
from verglas.types import ArraySource, Particles, Picks
from verglas.types import _columns as col

# Columns of an earlier extraction that a new one replaces.
_REPLACED = {
    "rlnImageName",
    "rlnImageSize",
    "rlnImagePixelSize",
    "rlnOpticsGroup",
    "rlnDetectorPixelSize",
    "rlnMagnification",
    "rlnOriginX",
    "rlnOriginY",
    "rlnNormCorrection",
    MICROGRAPH,
    X,
    Y,
}


@dataclass
class Piece:
    """One micrograph on its way: a row of the list, its picks, what was cut, or the problem that kept it from being."""

    row: int  # in the list of micrographs
    picks: Picks
    cut: Cut | None = None
    settings: ExtractSettings | None = None
    problem: str = ""
    shifts_A: npt.NDArray[np.float64] | None = None
    name: str = ""
    excess: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    contrast: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def write_piece(folder: Path, name: str, piece: Piece, dtype: str) -> str:
    """Write the images of one micrograph as a stack; its name."""
    assert piece.cut is not None
    assert piece.settings is not None
    plan = piece.settings.plan
    with StackWriter(folder / name, len(piece.cut.images), plan.new_box, plan.pixel_size_A, dtype) as stack:
        stack.append(piece.cut.images)
    return name


def particles_of(
    table: pd.DataFrame,
    pieces: Sequence[Piece],
    images: Sequence[npt.NDArray[np.float32]],
    *,
    keep_defoci: bool = True,
) -> Particles:
    """One table of all particles, with the optics groups of their micrographs."""
    sources = table.iloc[[piece.row for piece in pieces]].reset_index(drop=True)
    sources[PIXEL] = [piece.settings.pixel_size_A for piece in pieces if piece.settings is not None]
    sources["_new_A"] = [piece.settings.plan.pixel_size_A for piece in pieces if piece.settings is not None]
    rows = [_rows(sources.iloc[i], piece) for i, piece in enumerate(pieces)]
    own = [
        {label: values[piece.cut.kept] for label, values in piece.picks.columns.items() if label in CTF}
        for piece in pieces
        if piece.cut is not None
    ]
    rows = settle_defoci(rows, own, keep=keep_defoci)
    for label in SHARED:  # of the coordinates' own file, where the micrographs say nothing
        if label not in sources and all(label in part for part in rows):
            sources[label] = [float(part[label].iloc[0]) for part in rows]
    optics, group = optics_of(sources)
    plan = pieces[0].settings.plan if pieces[0].settings else None
    assert plan is not None
    first = np.unique(group, return_index=True)[1]
    optics["rlnImagePixelSize"] = sources["_new_A"].to_numpy()[first]
    optics["rlnImageSize"] = plan.new_box
    optics["rlnImageDimensionality"] = 2
    optics["rlnCtfDataAreCtfPremultiplied"] = 0
    optics = optics.drop(columns=[PIXEL] if PIXEL in optics else [])
    body = pd.concat([part.assign(rlnOpticsGroup=g) for part, g in zip(rows, group, strict=True)], ignore_index=True)
    body, optics = move_to_groups(body.drop(columns=[label for label in SHARED if label in body]), optics)
    source = ArraySource(np.concatenate(images), plan.pixel_size_A) if images else None
    return Particles(body, source, optics_table=optics, where="extracted particles")


def _rows(micrograph: pd.Series[Any], piece: Piece) -> pd.DataFrame:
    """Metadata of the particles of one micrograph."""
    boxes = piece.cut
    assert boxes is not None
    assert piece.settings is not None
    count = len(boxes.kept)
    columns: dict[str, Any] = {X: boxes.centres_px[:, 0], Y: boxes.centres_px[:, 1]}
    if piece.name:
        columns["rlnImageName"] = [f"{i:06d}@{piece.name}" for i in range(1, count + 1)]
    columns[MICROGRAPH] = str(micrograph[MICROGRAPH])
    columns.update(_ctf_columns(micrograph, boxes, piece.settings.pixel_size_A))
    for label, values in piece.picks.columns.items():
        if label not in columns and label not in _REPLACED:
            columns[label] = values[boxes.kept]
    if piece.shifts_A is not None:
        columns.update(zip(col.SHIFTS_A, piece.shifts_A.T, strict=True))
    return pd.DataFrame(columns, index=pd.RangeIndex(count))


def _ctf_columns(micrograph: pd.Series[Any], boxes: Cut, pixel_A: float) -> dict[str, Any]:
    """CTF of each particle: the micrograph's, with the defocus of its place where a tilt plane is known."""
    values = {label: float(micrograph[label]) for label in CTF if label in micrograph and pd.notna(micrograph[label])}
    columns: dict[str, Any] = dict(values)
    if "rlnDefocusU" in values and all(label in micrograph for label in (*GRADIENT, "vgCentreX", "vgCentreY")):
        centre = np.array([float(micrograph["vgCentreX"]), float(micrograph["vgCentreY"])])
        slope = np.array([float(micrograph[label]) for label in GRADIENT])
        local = (boxes.centres_px - centre) * pixel_A @ slope
        for label in ("rlnDefocusU", "rlnDefocusV"):
            columns[label] = values[label] + local
    return columns


class UnusedPick(NamedTuple):
    """A pick that became no particle: its place among those of its micrograph, from 0, or -1 for all of them."""

    micrograph: str
    pick: int
    x_px: float
    y_px: float
    reason: str


def write_excluded(path: Path, excluded: Iterable[UnusedPick]) -> None:
    """Write the picks that were set aside, a line each."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(UnusedPick._fields)
        writer.writerows(excluded)
