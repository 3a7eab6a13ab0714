"""From RELION labels to arrays: where a value stands in the tables, and what to say when it does not.

Values of the optics table go to the particles of their group; the particle table answers where there is no optics
table or it lacks the label (RELION 3.0). Sources: RELION 3.1 and 5 output, and the label definitions printed by
``relion_refine --print_metadata_labels``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError
from verglas.types.arrays import FloatArray
from verglas.types.ctf_ranges import refuse_outside
from verglas.types.mtf import MTF_FILE, NO_FILE

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
SHIFTS_A = ("rlnOriginXAngst", "rlnOriginYAngst")
# what a column says of images without this aberration
NO_ABERRATION: dict[str, float | str] = {
    "rlnBeamTiltX": 0.0,
    "rlnBeamTiltY": 0.0,
    "rlnOddZernike": "[0]",
    "rlnMagMat00": 1.0,
    "rlnMagMat01": 0.0,
    "rlnMagMat10": 0.0,
    "rlnMagMat11": 1.0,
    MTF_FILE: NO_FILE,
}
SHIFTS_PX = ("rlnOriginX", "rlnOriginY")

# Optics field -> (label, needed, default). Needed: no CTF can be computed without it.
OPTICS_LABELS: dict[str, tuple[str, bool, float]] = {
    "defocus_u_A": ("rlnDefocusU", True, 0.0),
    "defocus_v_A": ("rlnDefocusV", True, 0.0),
    "defocus_angle_deg": ("rlnDefocusAngle", False, 0.0),
    "voltage_kV": ("rlnVoltage", True, 300.0),
    "cs_mm": ("rlnSphericalAberration", True, 2.7),
    "amplitude_contrast": ("rlnAmplitudeContrast", True, 0.1),
    "phase_shift_deg": ("rlnPhaseShift", False, 0.0),
    "b_factor_A2": ("rlnCtfBfactor", False, 0.0),
    "scale": ("rlnCtfScalefactor", False, 1.0),
}


@dataclass(frozen=True)
class Tables:
    """The particle table, the optics table if there is one, and what to call them in a message."""

    particles: pd.DataFrame
    optics: pd.DataFrame | None
    where: str

    def __len__(self) -> int:
        return len(self.particles)

    def has(self, label: str) -> bool:
        """Whether either table holds the label."""
        return label in self.particles or (self.optics is not None and label in self.optics)

    def group(self) -> npt.NDArray[np.int64]:
        """Row of the optics table each particle belongs to; all 0 without an optics table and without groups."""
        if "rlnOpticsGroup" not in self.particles:
            if self.optics is not None and len(self.optics) > 1:
                raise InputError(
                    f"{self.where}: the optics table has {len(self.optics)} groups but the particle table has no "
                    "column rlnOpticsGroup to say which is whose; add it"
                )
            return np.zeros(len(self), dtype=np.int64)
        numbers = number_column(self.particles["rlnOpticsGroup"], "rlnOpticsGroup", self.where)
        if self.optics is None:
            return np.unique(numbers, return_inverse=True)[1].astype(np.int64)
        if "rlnOpticsGroup" in self.optics:
            known = number_column(self.optics["rlnOpticsGroup"], "rlnOpticsGroup", f"{self.where}, optics table")
        else:
            known = np.arange(1.0, len(self.optics) + 1)
        order = np.argsort(known, kind="stable")
        at = np.searchsorted(known[order], numbers).clip(0, max(len(known) - 1, 0))
        bad = np.flatnonzero(known[order][at] != numbers) if len(known) else np.arange(len(numbers))
        if bad.size:
            raise InputError(
                f"{self.where}: particle {bad[0]} belongs to optics group {numbers[bad[0]]:g}, which the optics table "
                f"does not have (it has {', '.join(f'{k:g}' for k in known)}); {bad.size} particles concerned"
            )
        return order[at].astype(np.int64)

    def value(self, label: str, *, optics_first: bool, missing: bool = False) -> FloatArray | None:
        """The label's value for every particle, or None where no table has it; ``missing``: rows may hold NaN."""
        in_optics = self.optics is not None and label in self.optics
        if in_optics and (optics_first or label not in self.particles):
            assert self.optics is not None
            column = number_column(self.optics[label], label, f"{self.where}, optics table")
            if not len(column):
                raise InputError(f"{self.where}: the optics table has a column {label} but no row; add its groups")
            return column[self.group()]
        if label in self.particles:
            return number_column(self.particles[label], label, self.where, missing=missing)
        return None


def number_column(column: pd.Series[Any], label: str, where: str, *, missing: bool = False) -> FloatArray:
    """The column as float64; a value that is no finite number is named by its particle.

    With ``missing``, numbers that are not finite and empty values come through as NaN; text is an error still.
    """
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(values))
    if missing and bad.size:
        values = np.where(np.isfinite(values), values, np.nan)
        bad = bad[column.iloc[bad].map(_is_text).to_numpy(bool)]
    if bad.size:
        value = column.iloc[bad[0]]
        shown = repr(value) if isinstance(value, str) else str(value)
        raise InputError(
            f"{where}: column {label}, row {bad[0]} (from 0): expected a finite number, got {shown}"
            + (f"; {bad.size} rows concerned" if bad.size > 1 else "")
        )
    return values


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() not in ("nan", "<na>", "inf", "-inf", "")


# Of images of several sizes that are brought to one when they are read; never in files.
GRID_PIXEL, GRID_BOX = "vgGridPixelSize", "vgGridImageSize"


def pixel_sizes_A(tables: Tables) -> FloatArray | None:
    """Pixel size of every particle: rlnImagePixelSize, else detector pixel (micron) over magnification (RELION 3.0)."""
    if GRID_PIXEL in tables.particles:
        return number_column(tables.particles[GRID_PIXEL], GRID_PIXEL, tables.where)
    for label in ("rlnImagePixelSize", "rlnPixelSize"):
        sizes = tables.value(label, optics_first=True)
        if sizes is not None:
            return _positive(sizes, label, tables.where)
    detector = tables.value("rlnDetectorPixelSize", optics_first=False)
    magnification = tables.value("rlnMagnification", optics_first=False)
    if detector is None or magnification is None:
        return None
    if (magnification <= 0).any():
        row = int(np.flatnonzero(magnification <= 0)[0])
        raise InputError(
            f"{tables.where}: rlnMagnification of particle {row}: expected more than 0, got {magnification[row]:g}"
        )
    return _positive(detector * 1e4 / magnification, "rlnDetectorPixelSize", tables.where)


def _positive(values: FloatArray, label: str, where: str) -> FloatArray:
    bad = np.flatnonzero(values <= 0)
    if bad.size:
        raise InputError(f"{where}: {label} of particle {bad[0]}: expected more than 0, got {values[bad[0]]:g}")
    refuse_outside({"pixel_size_A": values}, where, {"pixel_size_A": label})
    return values


def one_value(values: npt.NDArray[Any], what: str, where: str, instead: str) -> Any:
    """The value all particles share; several are an error that lists them."""
    unique = np.unique(values)
    if not len(unique):
        raise InputError(f"{where}: there are no particles in it")
    if len(unique) != 1:
        shown = ", ".join(f"{v:g}" for v in unique[:5]) + (", ..." if len(unique) > 5 else "")
        raise InputError(f"{where}: particles of several {what}: {shown}. {instead}")
    return unique[0]
