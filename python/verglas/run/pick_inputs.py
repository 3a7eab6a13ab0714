"""What a job that picks reads of templates and of its table of micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import InputError
from verglas.io import (
    read_header,
    read_map,
    read_stack,
)
from verglas.io.micrographs import PIXEL
from verglas.picking import (
    Averages,
)
from verglas.picking.particles import Templates
from verglas.types import Optics

_OPTICS = {
    "defocus_u_A": "rlnDefocusU",
    "defocus_v_A": "rlnDefocusV",
    "defocus_angle_deg": "rlnDefocusAngle",
    "voltage_kV": "rlnVoltage",
    "cs_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "phase_shift_deg": "rlnPhaseShift",
}
# A template's CTF needs these two; the rest have defaults.
_NEEDED = ("rlnDefocusU", "rlnVoltage")


def read_templates(path: Path) -> Templates:
    """A map to project, or class averages (.mrcs) to turn.

    Raises
    ------
    InputError
        A stack without pixel size.
    """
    if path.suffix.lower() != ".mrcs":
        return read_map(path)
    header = read_header(path)
    if not header.pixel_size_A > 0:
        raise InputError(f"{path}: class averages without pixel size in their header; write it there first")
    return Averages(read_stack(path), header.pixel_size_A)


def optics_of(row: pd.Series[Any]) -> Optics | None:
    """CTF of one micrograph; None where the list does not say it."""
    values = {name: float(row[label]) for name, label in _OPTICS.items() if label in row and np.isfinite(row[label])}
    if any(label not in row or not np.isfinite(row[label]) for label in _NEEDED):
        return None
    return Optics(**{name: [value] for name, value in values.items()})  # type: ignore[arg-type]


def pixel_size_of(row: pd.Series[Any]) -> float | None:
    """Pixel size of a row of a table of micrographs, where it has one."""
    return float(row[PIXEL]) if PIXEL in row and np.isfinite(row[PIXEL]) else None
