"""Ranges and units of CTF parameters: one check for every way by which they come in.

Files and options give defocus in micrometres, Cs in micrometres, voltages in volts, contrast in percent; each of these
is a number like any other to a CTF, which then is wrong without a word. A value that no microscope has is refused; one
that is merely unlikely, and looks like another unit, is a warning. Both name the column and the unit it looks like.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError, VerglasWarning

_PHASE_PLATE_DEG = 20.0  # from this phase shift on, images are also recorded near focus
_LEAST_PHASE = 0.1  # radians that a phase plate gives at least
_NEAR_FOCUS_A = 2500.0  # below: seldom without a phase plate, and where micrometres of defocus lie in nanometres
_NO_DEFOCUS_A = 10.0  # nothing is focused this well: micrometres or metres
_FAR_A = 100_000.0  # 10 micrometres


@dataclass(frozen=True)
class Quantity:
    """Allowed range of a value in its unit, ends included, and what lies outside: (smaller than, larger than)."""

    label: str
    unit: str
    low: float
    high: float
    below: str = ""
    above: str = ""


_METRES = "in metres or micrometres? it is expected in angstrom"
QUANTITIES = {
    "voltage_kV": Quantity("rlnVoltage", "kV", 10.0, 3000.0, "in MV, or negative?", "in volts? it is expected in kV"),
    "cs_mm": Quantity(
        "rlnSphericalAberration",
        "mm",
        0.0,
        100.0,
        "Cs is not negative in a microscope with round lenses; after correction write 0.01",
        "in micrometres or angstrom? it is expected in mm, as 2.7",
    ),
    "amplitude_contrast": Quantity(
        "rlnAmplitudeContrast", "", 0.0, 1.0, "", "in percent? it is expected as a fraction, as 0.1"
    ),
    "b_factor_A2": Quantity(
        "rlnCtfBfactor",
        "A^2",
        -50.0,
        1e5,
        "a negative B-factor amplifies: exporters of tilt series write minus 4 times the dose; change the sign",
        "nothing is left of such an image",
    ),
    "scale": Quantity("rlnCtfScalefactor", "", 0.0, 1e6, "a negative scale turns the contrast over", ""),
    "pixel_size_A": Quantity(
        "rlnImagePixelSize", "A", 0.01, 1000.0, "in nm, micrometres or metres? it is expected in angstrom", "in pm?"
    ),
    "defocus_u_A": Quantity("rlnDefocusU", "A", -1e7, 1e7, _METRES, "in pm or fm? it is expected in angstrom"),
    "defocus_v_A": Quantity("rlnDefocusV", "A", -1e7, 1e7, _METRES, "in pm or fm? it is expected in angstrom"),
}

# What the microscope is told by, in Python and on the command line.
OPTIONS = {
    "pixel_size_A": "pixel_size_A (--pixel-size)",
    "voltage_kV": "voltage_kV (--voltage)",
    "cs_mm": "cs_mm (--cs)",
    "amplitude_contrast": "amplitude_contrast (--amplitude-contrast)",
}


def check_ctf(
    values: Mapping[str, npt.ArrayLike | None],
    where: str,
    names: Mapping[str, str] | None = None,
    *,
    warned: set[str] | None = None,
) -> None:
    """Refuse CTF parameters that no microscope has, warn of unlikely ones.

    Parameters
    ----------
    values : mapping of name -> (n,) float64 or float
        By the names of the fields of :class:`verglas.Optics`; None and NaN are passed over.
    where : str
        What messages start with.
    names : mapping of name -> str
        What the user calls each (``--voltage``); RELION's label by default.
    warned : set of str, optional
        Names in ``values`` that were warned of before, as of the set that these particles are some of: they are not
        warned of again, and those that are warned of now are added.

    Raises
    ------
    InputError
        A value outside its range; row, column and the likely unit are named.

    Warns
    -----
    VerglasWarning
        Defoci whose median is overfocus, beyond 10 micrometres, or so near focus that they may be in nanometres; a Cs
        that looks like metres; phase shifts that look like radians; a negative B-factor.

    Examples
    --------
    >>> from verglas.types.ctf_ranges import check_ctf
    >>> check_ctf({"cs_mm": 2700.0}, "extract", {"cs_mm": "--cs"})
    Traceback (most recent call last):
    verglas.errors.InputError: extract: --cs: expected 0 to 100 mm, got 2700: in micrometres or angstrom? ...
    """
    known = refuse_outside(values, where, names)
    shown = {name: (names or {}).get(name, quantity.label) for name, quantity in QUANTITIES.items()}
    warned = set() if warned is None else warned
    given = values.get("phase_shift_deg")
    phase = np.abs(np.atleast_1d(np.asarray(0.0 if given is None else given, np.float64)))
    if _in_radians(phase):
        known["phase_shift_deg"], shown["phase_shift_deg"] = (
            phase,
            (names or {}).get("phase_shift_deg", "rlnPhaseShift"),
        )
    for name, column in known.items():
        unlikely = ""
        if name == "phase_shift_deg":
            unlikely = f"the median is {np.nanmedian(column):g} degrees; if it is in radians, multiply by 57.3"
        elif name in ("defocus_u_A", "defocus_v_A"):
            unlikely = _judge_defocus(column, phase, f"{where}: {shown[name]}")
        elif name == "cs_mm":
            unlikely = _unlikely_cs(column)
        elif name == "b_factor_A2" and (column < 0).any():
            unlikely = (
                f"{np.count_nonzero(column < 0)} values are negative, down to {column[column < 0].min():g} A^2: they "
                "amplify high resolution"
            )
        if unlikely and name not in warned:
            warned.add(name)
            warnings.warn(f"{where}: {shown[name]}: {unlikely}", VerglasWarning, stacklevel=3)


def check_pixel_size(pixel_size_A: float, where: str) -> None:
    """Refuse a pixel size that no image and no map has; NaN is unknown, and passes."""
    _refuse_outside(QUANTITIES["pixel_size_A"], np.array([pixel_size_A], np.float64), f"{where}: pixel size")


def check_ctf_columns(table: pd.DataFrame, where: str) -> None:
    """:func:`check_ctf` of a table with RELION's labels, of particles or micrographs; other columns are passed over."""
    labels = {quantity.label: name for name, quantity in QUANTITIES.items()} | {
        "rlnMicrographPixelSize": "pixel_size_A",
        "rlnPhaseShift": "phase_shift_deg",
    }
    present = {labels[str(label)]: str(label) for label in table if str(label) in labels}
    columns = {
        name: pd.to_numeric(table[label], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        for name, label in present.items()
    }
    check_ctf(columns, where, present)


def refuse_outside(
    values: Mapping[str, npt.ArrayLike | None], where: str, names: Mapping[str, str] | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """The first half of :func:`check_ctf`: only what is refused; returns the values that have a range, as columns."""
    known = {
        name: np.atleast_1d(np.asarray(values[name], np.float64)) for name in QUANTITIES if values.get(name) is not None
    }
    for name, column in known.items():
        _refuse_outside(QUANTITIES[name], column, f"{where}: {(names or {}).get(name, QUANTITIES[name].label)}")
    return known


def _refuse_outside(quantity: Quantity, column: npt.NDArray[np.float64], where: str) -> None:
    bad = np.flatnonzero((column < quantity.low) | (column > quantity.high))  # a NaN is for others to judge
    if not bad.size:
        return
    value = column[bad[0]]
    why = quantity.below if value < quantity.low else quantity.above
    row = f" in row {bad[0]} (from 0, {bad.size} of {len(column)} rows)" if len(column) > 1 else ""
    unit = f" {quantity.unit}" if quantity.unit else ""
    raise InputError(
        f"{where}: expected {quantity.low:g} to {quantity.high:g}{unit}, got {value:g}{row}{': ' * bool(why)}{why}"
    )


def _judge_defocus(column: npt.NDArray[np.float64], phase: npt.NDArray[np.float64], where: str) -> str:
    finite = column[np.isfinite(column)]
    if not finite.size or not finite.any():
        return ""  # 0 throughout: no CTF
    median, plate = float(np.median(finite)), float(np.nanmedian(phase)) >= _PHASE_PLATE_DEG
    size = float(np.median(np.abs(finite)))
    if size < _NO_DEFOCUS_A and not plate:
        unit, factor = ("micrometres", 1e4) if size > 1e-3 else ("metres", 1e10)
        raise InputError(
            f"{where}: the median is {median:g}, expected angstrom, as 15000: in {unit}? multiply by {factor:g}"
        )
    if median < 0:
        return f"the median is {median:g} A; negative is overfocus: is the sign turned over?"
    if median > _FAR_A:
        return f"the median is {median:g} A, more than 10 micrometres: is it in angstrom?"
    if size < _NEAR_FOCUS_A and not plate:
        return f"the median is {median:g} A, very near focus; if it is in nanometres, multiply by 10"
    return ""


def _in_radians(phase: npt.NDArray[np.float64]) -> bool:
    """Phase shifts that a phase plate would have in radians, and that nothing makes in degrees."""
    finite = phase[np.isfinite(phase)]
    return bool(finite.size and finite.max() <= np.pi and np.median(finite) > _LEAST_PHASE)


def _unlikely_cs(cs: npt.NDArray[np.float64]) -> str:
    metres = cs[(cs > 0.0011) & (cs < 0.0061)]
    if not metres.size:
        return ""
    return f"{metres[0]:g} mm; if it is in metres, write {metres[0] * 1000:g} (corrected microscopes: 0.01 or 0)"
