"""Picks that a person has changed, beside those of the job: of which picks they are, and what becomes of them when the
job picks again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import FormatError
from verglas.io import read_json, read_picks, read_star, write_json, write_picks, write_star
from verglas.io.coordinates import unique_stems
from verglas.types import Picks

EDITED = "picks_edited"
BEFORE = f"{EDITED}_before"
RECORD = "edits.json"
_FILES = "rlnMicrographCoordinates"  # in a list of picks


def picks_mark(picks: Picks) -> str:
    """What tells picks of a micrograph from others: a digest of their places to a tenth of a pixel, in any order.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.run.edited_picks import picks_mark
    >>> picks_mark(vg.Picks([[1, 2], [3, 4]])) == picks_mark(vg.Picks([[3, 4], [1, 2.01]]))
    True
    """
    places = np.rint(10 * np.asarray(picks.xy_px, np.float64).reshape(-1, 2)).astype(np.int64)
    return hashlib.sha1(places[np.lexsort(places.T)].tobytes(), usedforsecurity=False).hexdigest()[:16]


@dataclass
class Edits:
    """What was changed in a folder of picks.

    Attributes
    ----------
    folder : Path
        Of the job.
    of : dict of str -> str
        Micrograph -> mark of the picks that were changed.
    left_out : dict of str -> list of [x, y, radius]
        Areas drawn in micrographs, in pixels.
    """

    folder: Path
    of: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, list[list[float]]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Edits:
        """As they stand; none where there is no record.

        Raises
        ------
        FormatError
            A record of another shape.
        """
        path = folder / EDITED / RECORD
        if not path.is_file():
            return cls(folder)
        record: Any = read_json(path)
        of, left_out = (record.get(name) if isinstance(record, dict) else None for name in ("of", "left_out"))
        if not isinstance(of, dict) or not isinstance(left_out, dict) or not all(map(_are_discs, left_out.values())):
            raise FormatError(f"{path}: expected what was changed, as the pages write it; move {EDITED} away")
        return cls(folder, of, left_out)

    def write(self) -> None:
        """Replace the record."""
        write_json(self.folder / EDITED / RECORD, {"of": self.of, "left_out": self.left_out})

    def stale(self, picks: Mapping[str, Picks]) -> list[str]:
        """Micrographs whose picks are no longer those that were changed."""
        now = {name: picks_mark(picks[name]) for name in self.of if name in picks}
        return [name for name, mark in self.of.items() if now.get(name) != mark]


def set_aside_edits(folder: Path, picks: Mapping[str, Picks]) -> str:
    """Give another name to edits of picks that a job has replaced; the sentence that says so, empty where none are.

    Their list and folder become ``picks_edited_before_TIME``: they are kept, and nothing takes them for edits of the
    new picks. Edits of micrographs whose picks are the same stay, whatever became of others or came since, and so do
    areas left out: they are of the micrograph, not of its picks.

    Parameters
    ----------
    folder : Path
        Of the job.
    picks : mapping of str -> Picks
        Those of picks.star, by its names.
    """
    listed = folder / f"{EDITED}.star"
    if not listed.is_file():
        return ""
    edits = Edits.read(folder)
    stale = set(edits.stale(picks))
    if edits.of and set(listed_names(listed)) == set(picks) and not stale:
        return ""
    good = {name: mark for name, mark in edits.of.items() if name not in stale}
    changed = {name: one for name, one in read_picks(listed).items() if name in good} if good else {}
    said = _move(folder, listed) if stale or not good else ""
    if good:
        write_picks(listed, {name: changed.get(name, one) for name, one in picks.items()})
    if good or edits.left_out:
        (folder / EDITED).mkdir(exist_ok=True)
        Edits(folder, good, edits.left_out).write()
    return said


def _move(folder: Path, listed: Path) -> str:
    name = first = f"{BEFORE}_{datetime.now(timezone.utc):%Y%m%d_%H%M%S}"
    for number in count(2):
        if not (folder / name).exists() and not (folder / f"{name}.star").exists():
            break
        name = f"{first}_{number}"
    if (folder / EDITED).is_dir():
        (folder / EDITED).rename(folder / name)
    _write_moved(listed, folder / f"{name}.star")
    listed.unlink()
    return f"edits of the picks before are kept as {name}: they are not of these picks"


def _write_moved(listed: Path, moved: Path) -> None:
    """The list once more, of the files where they lie now: as it was it would name those of the next edits."""
    tables = read_star(listed)
    for table in tables.values():
        if isinstance(table, pd.DataFrame) and _FILES in table:
            paths = [Path(str(name)) for name in table[_FILES]]
            named = [one.parent.with_name(moved.stem) / one.name if one.parent.name == EDITED else one for one in paths]
            table[_FILES] = [str(one) for one in named]
    write_star(moved, tables)


def _are_discs(areas: Any) -> bool:
    return isinstance(areas, list) and all(
        isinstance(one, list) and len(one) == 3 and all(isinstance(v, int | float) for v in one) for one in areas
    )


def listed_names(listed: Path) -> list[str]:
    """Micrographs that a list of picks names, without reading their coordinates."""
    for table in read_star(listed).values():
        if not isinstance(table, dict) and "rlnMicrographName" in table:
            return list(dict.fromkeys(table["rlnMicrographName"].astype(str)))
    return []


def edited_file(folder: Path, names: list[str], number: int) -> Path:
    """The coordinates of one micrograph as changed."""
    return folder / EDITED / unique_stems(names, "_picks.star")[number]
