"""Picks by micrograph, each file of them read when it is asked for: a job of ten thousand has as many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from verglas.errors import FormatError
from verglas.io import read_picks, read_star
from verglas.io.coordinates import LISTED, MICROGRAPH
from verglas.io.rules import search_folders
from verglas.types import Picks


def picks_by_micrograph(path: Path) -> Mapping[str, Picks]:
    """As :func:`verglas.io.read_picks`, without reading the coordinates of a list of files before they are asked for.

    Parameters
    ----------
    path : Path
        picks.star of a job.
    """
    files = _files(path)
    return read_picks(path) if files is None else ListedPicks(files)


def _files(path: Path) -> dict[str, Path] | None:
    """Files of coordinates by micrograph, those that hold some; None where the file is no list, or one is missing."""
    table = next((t for t in read_star(path).values() if isinstance(t, pd.DataFrame) and LISTED in t), None)
    if table is None or MICROGRAPH not in table:
        return None
    folders, found = search_folders(path), dict[str, Path]()
    for name, listed in zip(table[MICROGRAPH].astype(str), table[LISTED].astype(str), strict=True):
        file = next((folder / listed for folder in folders if (folder / listed).is_file()), None)
        if file is None or file.suffix.lower() != ".star" or name in found:
            return None  # read_picks says what is wrong, or knows the format
        if _has_rows(file):
            found[name] = file
    return found


def _has_rows(file: Path) -> bool:
    """Whether a STAR file holds coordinates; without reading it where its end says so."""
    content = file.read_bytes()
    last = content.rstrip().rpartition(b"\n")[2].split()
    if content.count(b"data_") != 1 or not last or last[0].startswith(b"#"):
        return any(len(one) for one in read_picks(file).values())  # its end says nothing of its coordinates
    if last[0].startswith(b"_"):  # a label of a loop without rows, or a value
        return len(last) > 1 and not last[1].startswith(b"#")
    return last[0] != b"loop_" and not last[0].startswith(b"data_")


class ListedPicks(Mapping[str, Picks]):
    """Picks whose files are read one by one.

    Parameters
    ----------
    files : mapping of micrograph -> Path
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> Picks:
        found = list(read_picks(self._files[name]).values())
        if len(found) > 1 or not found:
            raise FormatError(f"{self._files[name]}: expected the picks of one micrograph, got those of {len(found)}")
        return Picks(found[0].xy_px, name, found[0].columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
