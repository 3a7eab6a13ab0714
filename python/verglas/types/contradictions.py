"""What the tables of a set of particles say twice, and not alike: told of when they are read."""

from __future__ import annotations

import warnings

import numpy as np

from verglas.errors import InputError, VerglasWarning
from verglas.types import _columns as col
from verglas.types.arrays import FloatArray

# Relative difference from which two values are not the same; magnifications are often nominal.
_SAME, _SAME_BY_MAGNIFICATION = 0.01, 0.05
_SAME_SHIFT_PX = 0.5
_SHARED = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize")


def warn_of_contradictions(tables: col.Tables) -> None:
    """Say where two columns give one quantity with different values, and which is used.

    Parameters
    ----------
    tables : Tables

    Warns
    -----
    VerglasWarning
        Optics table and particle table have other voltages, Cs, amplitude contrasts or pixel sizes; the pixel size is
        not detector pixel over magnification; shifts in angstrom are not those in pixels.

    Raises
    ------
    InputError
        The optics table has a group twice, with other values.
    """
    _refuse_groups_of_one_number(tables)
    for label in _SHARED:
        if tables.optics is not None and label in tables.optics and label in tables.particles:
            used, other = (tables.value(label, optics_first=first, missing=not first) for first in (True, False))
            _compare(tables, used, other, f"{label} of the optics table", "that of the particle table", _SAME)
    used = next(
        (
            v
            for v in (tables.value(n, optics_first=True) for n in ("rlnImagePixelSize", "rlnPixelSize"))
            if v is not None
        ),
        None,
    )
    detector, magnification = (
        tables.value(label, optics_first=False, missing=True) for label in ("rlnDetectorPixelSize", "rlnMagnification")
    )
    if used is not None and detector is not None and magnification is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            other = np.where(magnification > 0, detector * 1e4 / magnification, np.nan)
        what = "the pixel size by rlnDetectorPixelSize and rlnMagnification"
        _compare(tables, used, other, "the pixel size", what, _SAME_BY_MAGNIFICATION)
    _compare_shifts(tables, used)


def _refuse_groups_of_one_number(tables: col.Tables) -> None:
    """Joined STAR files: particles of two microscopes would all get the CTF of the first."""
    if tables.optics is None or "rlnOpticsGroup" not in tables.optics:
        return
    values = tables.optics.drop(columns="rlnOpticsGroupName", errors="ignore").drop_duplicates()
    numbers = values["rlnOpticsGroup"]
    twice = numbers[numbers.duplicated()]
    if twice.empty:
        return
    rows = values[numbers == twice.iloc[0]]
    label = next(name for name in rows if rows[name].nunique(dropna=False) > 1)
    raise InputError(
        f"{tables.where}, optics table: group {twice.iloc[0]} stands there {len(rows)} times with other values "
        f"({label}: {', '.join(str(v) for v in rows[label].unique()[:3])}), and nothing says which particle has which; "
        "join the sets with verglas merge, which numbers groups anew"
    )


def _compare(
    tables: col.Tables, used: FloatArray | None, other: FloatArray | None, name: str, beside: str, limit: float
) -> None:
    if used is None or other is None:
        return
    off = np.flatnonzero(np.abs(used - other) > limit * np.maximum(np.abs(used), np.abs(other)))
    if off.size:
        _warn(
            f"{tables.where}: {name} is {used[off[0]]:g} for particle {off[0]}, and {beside} {other[off[0]]:g} "
            f"({off.size} of {len(tables)} particles); the first is used"
        )


def _compare_shifts(tables: col.Tables, pixel_A: FloatArray | None) -> None:
    for in_A, in_px in zip(col.SHIFTS_A, col.SHIFTS_PX, strict=True):
        if pixel_A is None or in_A not in tables.particles or in_px not in tables.particles:
            continue
        used, other = (col.number_column(tables.particles[label], label, tables.where) for label in (in_A, in_px))
        off = np.flatnonzero(np.abs(used / pixel_A - other) > _SAME_SHIFT_PX)
        if off.size:
            _warn(
                f"{tables.where}: {in_A} is {used[off[0]]:g} for particle {off[0]}, {used[off[0]] / pixel_A[off[0]]:g} "
                f"px, and {in_px} {other[off[0]]:g} ({off.size} of {len(tables)} particles); the first is used"
            )
            return


def _warn(message: str) -> None:
    warnings.warn(message, VerglasWarning, stacklevel=4)
