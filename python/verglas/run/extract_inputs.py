"""What an extraction reads: a list of micrographs with their CTFs, and coordinates by micrograph."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import InputError, SettingError, VerglasError, VerglasWarning
from verglas.extraction import bad_share_of
from verglas.io import (
    cs,
    find_micrographs,
    read_ctf_table,
    read_particles,
    read_picks,
    read_star,
)
from verglas.io.coordinates import MICROGRAPH, X, match_names, picks_of_table, unique_stems
from verglas.io.micrographs import METADATA, PATH, PIXEL, SHARED, check_micrograph_names, join_ctf
from verglas.io.motion import read_motion_star
from verglas.optics.stored import stored_images
from verglas.run.extract_optics import aberration_columns
from verglas.types import Micrograph, Particles, Picks
from verglas.types import _columns as col
from verglas.types.arrays import FloatArray
from verglas.types.ctf_ranges import OPTIONS, check_ctf
from verglas.types.settings import setting

Micrographs = str | os.PathLike[str] | Micrograph | Sequence[Any]


Coordinates = str | os.PathLike[str] | Picks | Particles | Mapping[str, Picks] | Sequence[Any]


@dataclass(frozen=True)
class Microscope:
    """What micrographs were recorded with, where no file says it; None: unknown.

    Attributes
    ----------
    pixel_size_A : float, optional
        Of the micrographs; takes precedence over their headers.
    voltage_kV, cs_mm, amplitude_contrast : float, optional
        Take precedence over STAR files and tables.
    """

    pixel_size_A: float | None = setting(None, "Of the micrographs", default_words="their headers'")
    voltage_kV: float | None = setting(None, "Accelerating voltage", default_words="the files'")
    cs_mm: float | None = setting(None, "Spherical aberration", default_words="the files'")
    amplitude_contrast: float | None = setting(None, "Fraction, as 0.07", default_words="the files'")

    def __post_init__(self) -> None:
        """Check ranges and units once."""
        try:
            check_ctf({name: getattr(self, name) for name in OPTIONS}, "microscope", OPTIONS)
        except InputError as error:  # a wrong call, not a wrong file
            raise SettingError("microscope", [("", str(error).removeprefix("microscope: "))]) from None

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """The list of micrographs with these values in its columns."""
        values = dict(
            zip(
                (PIXEL, *SHARED), (self.pixel_size_A, self.voltage_kV, self.cs_mm, self.amplitude_contrast), strict=True
            )
        )
        return table.assign(**{label: float(value) for label, value in values.items() if value is not None})


def micrograph_table(
    source: Micrographs, microscope: Microscope, ctf: str | os.PathLike[str] | None
) -> tuple[pd.DataFrame, dict[int, Micrograph]]:
    """The list of micrographs with CTFs, and those that are in memory already by row."""
    images: dict[int, Micrograph] = {}
    sources = [source] if isinstance(source, Micrograph) else source
    if isinstance(sources, list | tuple) and sources and all(isinstance(m, Micrograph) for m in sources):
        images = dict(enumerate(sources))
        names = [m.name or f"micrograph{i + 1}" for i, m in images.items()]
        table = pd.DataFrame({MICROGRAPH: names, PATH: names})
        check_micrograph_names(table)
    else:
        table = find_micrographs(sources)  # type: ignore[arg-type]
    if ctf is not None:
        table = join_ctf(table, read_ctf_table(ctf))
    return microscope.apply(table), images


def all_picks(source: Coordinates) -> dict[str, Picks]:
    """Micrograph -> its picks, of every form in which coordinates come."""
    if isinstance(source, Picks):
        return {source.micrograph: source}
    if isinstance(source, Mapping):
        return {name: Picks(p.xy_px, name, p.columns) for name, p in source.items()}
    if isinstance(source, Particles):
        return picks_of_table(_with_optics(source), source.where)
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    by_name: dict[str, Picks] = {}
    for one in sources:
        more = {one.micrograph: one} if isinstance(one, Picks) else _read_one(Path(one))
        twice = next((name for name in more if name in by_name), None)
        if twice is not None:
            raise InputError(f"extract: two files of coordinates for micrograph {twice}; give one")
        by_name.update(more)
    if not by_name:
        raise InputError("extract: no coordinates given")
    return by_name


def _read_one(path: Path) -> dict[str, Picks]:
    """Coordinates of one file; of particles with everything else that is known of them."""
    if path.suffix.lower() == ".cs" and path.is_file() and "blob/path" in (cs.load(path).dtype.names or ()):
        return picks_of_table(_with_optics(read_particles(path)), str(path))
    if path.suffix.lower() == ".star" and path.is_file():
        tables = read_star(path)
        table = next((t for t in tables.values() if isinstance(t, pd.DataFrame) and X in t and MICROGRAPH in t), None)
        if table is not None:
            optics = tables.get("optics")
            groups = optics if isinstance(optics, pd.DataFrame) or optics is None else pd.DataFrame([optics])
            return picks_of_table(_with_optics(Particles(table, None, optics_table=groups, where=str(path))), str(path))
    return read_picks(path)


def _with_optics(particles: Particles) -> pd.DataFrame:
    """The particle table with voltage, Cs, amplitude contrast and aberrations of its groups, and shifts in angstrom."""
    particles = stored_images(particles)  # a refinement's own hold images without aberrations
    # Not deep: columns are added or replaced, none is written into.
    table = particles.table.copy(deep=False)
    parts = col.Tables(particles.table, particles.optics_table, particles.where)
    for label in SHARED:
        values = parts.value(label, optics_first=True)
        if values is not None:
            table[label] = values
    for label, values in aberration_columns(particles).items():
        table[label] = values
    poses = particles.poses
    if poses is not None:
        table[list(col.SHIFTS_A)] = poses.shifts_A
    return table


def assign_picks(table: pd.DataFrame, picks: Mapping[str, Picks]) -> tuple[dict[int, Picks], list[str], list[str]]:
    """Row of a micrograph -> its picks, in the order of the list; names of picks and micrographs left over."""
    names = list(picks)
    if not names:
        raise InputError("extract: no coordinates given")
    if len(table) == 1 and names == [""]:
        # Coordinates without a name can only be those of the one micrograph.
        names_at = np.zeros(1, np.int64)
    else:
        names_at = match_names(names, table[MICROGRAPH].tolist())
    by_row: dict[int, Picks] = {}
    for name, row in zip(names, names_at.tolist(), strict=True):
        if row >= 0 and row in by_row:
            raise InputError(f"extract: two sets of coordinates for micrograph {table[MICROGRAPH][row]}")
        if row >= 0:
            by_row[row] = picks[name]
    unknown = [name for name, row in zip(names, names_at.tolist(), strict=True) if row < 0]
    if not by_row:
        raise InputError(
            f"extract: none of the {len(names)} micrographs that have coordinates ({names[0]}, ...) is among the "
            f"{len(table)} given ({table[MICROGRAPH][0]}, ...)"
        )
    without = [table[MICROGRAPH][row] for row in range(len(table)) if row not in by_row]
    return dict(sorted(by_row.items())), unknown, without


def bad_share(table: pd.DataFrame, row: int, shape: tuple[int, int]) -> FloatArray | None:
    """Share of each pixel that bad pixels of the movie's frames are, as its correction wrote them down.

    None where the list names no motion, or motion of a program that keeps no bad pixels. Files that are not there or
    cannot be read are warned of: particles of a good micrograph are not lost for them.
    """
    name = str(table[METADATA][row]) if METADATA in table else ""
    if not name.lower().endswith(".star"):
        return None
    path = Path(name) if Path(name).is_file() else Path(str(table[PATH][row])).with_name(Path(name).name)
    problem = ""
    if not path.is_file():
        problem = "is not there"
    else:
        try:
            motion = read_motion_star(path)
        except (VerglasError, OSError, KeyError, ValueError) as error:
            problem = f"cannot be read ({error})"
    if problem:
        warnings.warn(
            f"extract: {table[MICROGRAPH][row]}: {name}, which lists the bad pixels of its movie, {problem}: "
            "particles on them are not set aside",
            VerglasWarning,
            stacklevel=2,
        )
        return None
    return bad_share_of(motion.hot_pixels, shape, motion.binning) if len(motion.hot_pixels) else None


def stack_names(table: pd.DataFrame) -> list[str]:
    """Stack of each micrograph; equal names in several folders are numbered."""
    return [f"stacks/{name}" for name in unique_stems(list(table[PATH]), ".mrcs")]
