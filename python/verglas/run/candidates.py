"""What picking thought of but did not pick: all peaks of a micrograph with their figures of merit, a small file each.

Another threshold is then chosen without picking again, and picks of a job that goes on can be looked at as they come.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import FormatError, InputError
from verglas.io import read_picks, read_star
from verglas.io.coordinates import match_names
from verglas.io.star import star_text
from verglas.picking import PickResult
from verglas.picking.particles import MERIT
from verglas.types import Picks

FOLDER = "candidates"
_NAME, _HEAD_BYTES = re.compile(rb'^_rlnMicrographName[ \t]+(?:"([^"\r\n]*)"|(\S+))[ \t]*\r?$', re.MULTILINE), 16_384
_GENERAL, _PEAKS = "picking", "candidates"
_X, _Y = "rlnCoordinateX", "rlnCoordinateY"
_MOST = 5000  # of a micrograph, the best first
RADIUS = "verglasRadius"  # of an area left out, in pixels of the micrograph


@dataclass(frozen=True)
class Candidates:
    """Peaks of a micrograph.

    Attributes
    ----------
    peaks : Picks
        Best first, with rlnAutopickFigureOfMerit.
    threshold : float
        Of the picks.
    diameter_px : float
        Of the particle.
    """

    peaks: Picks
    threshold: float
    diameter_px: float


def candidates_star(picks: PickResult, name: str) -> bytes:
    """The peaks of a micrograph as a STAR file.

    Parameters
    ----------
    picks : PickResult
    name : str
        Of the micrograph, as picks.star has it.
    """
    peaks = picks.candidates[:_MOST]
    factor = float(np.mean(picks.small.factor))
    general: dict[str, Any] = {"rlnMicrographName": name, "verglasThreshold": f"{picks.cut.threshold:.9g}"}
    general["verglasDiameter"] = f"{2 * picks.small.radius_px * factor:.6g}"
    xy, merit = np.round(peaks.xy_px, 2), np.asarray(peaks.columns[MERIT], np.float64)
    table = pd.DataFrame({_X: xy[:, 0], _Y: xy[:, 1], MERIT: merit})
    out = io.StringIO()
    star_text(out, {_GENERAL: general, _PEAKS: table})
    return out.getvalue().encode("utf-8")


def read_candidates(path: Path) -> Candidates:
    """Read what :func:`candidates_star` has written.

    Raises
    ------
    FormatError
        Another file.
    """
    tables = read_star(path)
    general, table = tables.get(_GENERAL), tables.get(_PEAKS)
    if not isinstance(general, dict) or not isinstance(table, pd.DataFrame) or not {_X, _Y, MERIT} <= set(table):
        raise FormatError(f"{path}: expected the candidates of a micrograph, as `verglas pick` writes them")
    name = str(general.get("rlnMicrographName", path.stem))
    peaks = Picks(table[[_X, _Y]].to_numpy(np.float64), name, {MERIT: table[MERIT].to_numpy(np.float64)})
    try:
        values = [float(general.get(label, "nan")) for label in ("verglasThreshold", "verglasDiameter")]
    except ValueError as error:
        raise FormatError(f"{path}: expected numbers as threshold and diameter: {error}") from None
    return Candidates(peaks, *values)


def candidates_name(path: Path) -> str:
    """The micrograph of a file of candidates, from its first lines alone: a page asks it of ten thousand files.

    Raises
    ------
    FormatError
        Another file.
    """
    with open(path, "rb") as handle:
        match = _NAME.search(handle.read(_HEAD_BYTES).partition(b"\ndata_candidates")[0])
    if match is None:
        raise FormatError(f"{path}: expected the candidates of a micrograph, as `verglas pick` writes them")
    return (match[1] or match[2]).decode("utf-8", "replace")


class LeftOut:
    """Areas that a person has drawn on micrographs: discs in which nothing is picked.

    Parameters
    ----------
    path : Path
        STAR file with rlnMicrographName, rlnCoordinateX, rlnCoordinateY and verglasRadius, in pixels of the micrograph.

    Attributes
    ----------
    areas : dict of str -> (n, 3) float64
        x, y, radius by micrograph.

    Raises
    ------
    InputError
        Another file, or a radius that is not positive.
    """

    def __init__(self, path: Path) -> None:
        regions = read_picks(path)
        bad = [name for name, one in regions.items() if len(one) and RADIUS not in one.columns]
        if bad:
            raise InputError(f"{path}: no column {RADIUS}; expected discs: name of the micrograph, x, y and radius")
        self.path = path
        self.areas = {n: np.column_stack([p.xy_px, p.columns[RADIUS]]) for n, p in regions.items() if len(p)}
        for name, discs in self.areas.items():
            if not (np.isfinite(discs).all() and (discs[:, 2] > 0).all()):
                raise InputError(f"{path}: {name}: expected finite places and positive radii")

    def of(self, names: list[str]) -> list[npt.NDArray[np.float64] | None]:
        """(n, 3) x, y, radius for each micrograph; None where nothing is left out.

        Raises
        ------
        InputError
            There are areas, and none of them lies on any of these micrographs.
        """
        known = list(self.areas)
        places = match_names(names, known).tolist()
        if known and names and max(places) < 0:
            raise InputError(
                f"{self.path}: its areas lie on none of {len(names)} micrographs, such as {names[0]}; they are of "
                f"{', '.join(known[:3])}"
            )
        return [None if at < 0 else self.areas[known[at]] for at in places]

    def on(self, name: str) -> npt.NDArray[np.float64] | None:
        """(n, 3) x, y, radius on one micrograph; None without. :meth:`of` tells areas that lie on none of a set."""
        known = list(self.areas)
        (at,) = match_names([name], known).tolist()
        return None if at < 0 else self.areas[known[at]]


__all__ = ["FOLDER", "RADIUS", "Candidates", "LeftOut", "candidates_name", "candidates_star", "read_candidates"]
