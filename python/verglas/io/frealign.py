"""Particles of Frealign (.par) and cisTEM (STAR files with cisTEM labels): one stack, a row per image.

Angles are RELION's (phi = rot, theta = tilt, psi), shifts in angstrom the opposite: cisTEM reads a STAR file of RELION
by xshift = -rlnOriginXAngst. Defoci in angstrom, phase shifts in degrees. A .par of Frealign 8 gives shifts in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import FormatError, InputError
from verglas.io.atomic import write_text
from verglas.io.coordinate_text import finite_number, read_lines
from verglas.types import Particles
from verglas.types import _columns as col

# columns of .par files: version 9, FrealignX with phase shifts, and version 8
_FIRST = ["C", "PSI", "THETA", "PHI", "SHX", "SHY", "MAG", "FILM", "DF1", "DF2", "ANGAST"]
_SCORES = ["OCC", "LOGP", "SIGMA", "SCORE", "CHANGE"]
_VERSION_9, _VERSION_X = [*_FIRST, *_SCORES], [*_FIRST, "PSHIFT", *_SCORES]
_VERSION_8 = [*_FIRST, "PRESA", "DPRES"]
_ANGLES = {"PHI": "rlnAngleRot", "THETA": "rlnAngleTilt", "PSI": "rlnAnglePsi"}
_CTF = {"DF1": "rlnDefocusU", "DF2": "rlnDefocusV", "ANGAST": "rlnDefocusAngle", "PSHIFT": "rlnPhaseShift"}
_KEPT = {"SCORE": "frealignScore", "OCC": "frealignOccupancy", "LOGP": "frealignLogP", "SIGMA": "frealignSigma"}
_HEADER = {
    "Input particle images": "stack",
    "Beam energy (keV)": "rlnVoltage",
    "Spherical aberration (mm)": "rlnSphericalAberration",
    "Amplitude contrast": "rlnAmplitudeContrast",
    "Pixel size of images (A)": "rlnImagePixelSize",
}
_CISTEM = {
    "cisTEMAnglePhi": ("rlnAngleRot", 1.0),
    "cisTEMAngleTheta": ("rlnAngleTilt", 1.0),
    "cisTEMAnglePsi": ("rlnAnglePsi", 1.0),
    "cisTEMXShift": ("rlnOriginXAngst", -1.0),
    "cisTEMYShift": ("rlnOriginYAngst", -1.0),
    "cisTEMDefocus1": ("rlnDefocusU", 1.0),
    "cisTEMDefocus2": ("rlnDefocusV", 1.0),
    "cisTEMDefocusAngle": ("rlnDefocusAngle", 1.0),
    "cisTEMPhaseShift": ("rlnPhaseShift", 1.0),
    "cisTEMPixelSize": ("rlnImagePixelSize", 1.0),
    "cisTEMMicroscopeVoltagekV": ("rlnVoltage", 1.0),
    "cisTEMMicroscopeCsMM": ("rlnSphericalAberration", 1.0),
    "cisTEMAmplitudeContrast": ("rlnAmplitudeContrast", 1.0),
    "cisTEMBest2DClass": ("rlnClassNumber", 1.0),
}
POSITION = "cisTEMPositionInStack"


def read_par(path: Path) -> pd.DataFrame:
    """The rows of a .par file under RELION's labels, with rlnImageName ``index@stack``.

    The stack is the one that the head names, else the file's own name with .mrc. Film numbers become rlnMicrographName.

    Raises
    ------
    FormatError
        No rows, a row with another number of values, or a value that is no number; the line is named.
    """
    head: dict[str, str] = {}
    names: list[str] | None = None
    rows: list[list[float]] = []
    for number, line in enumerate(read_lines(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if words[0].upper().startswith("C"):
            if rows:  # statistics below the rows
                continue
            key, colon, value = line.strip()[1:].partition(":")
            if colon and key.strip() in _HEADER:
                head[_HEADER[key.strip()]] = value.strip()
            elif "PSI" in words and "THETA" in words:
                names = [word.upper() for word in words]
            continue
        if names is None:
            names = _names_of(len(words), path, number)
        if len(words) != len(names):
            raise FormatError(f"{path}, line {number}: {len(words)} values for {len(names)} columns; cut off?")
        rows.append([finite_number(word, path, number) for word in words])
    if not rows or names is None:
        raise FormatError(f"{path}: no rows, so no parameters of Frealign in it")
    return _translate(path, pd.DataFrame(rows, columns=names), head)


def _names_of(count: int, path: Path, number: int) -> list[str]:
    for names in (_VERSION_9, _VERSION_X, _VERSION_8):
        if count == len(names):
            return names
    raise FormatError(
        f"{path}, line {number}: {count} columns without a header; a .par file of Frealign has 13, 16 or 17"
    )


def _translate(path: Path, parameters: pd.DataFrame, head: Mapping[str, str]) -> pd.DataFrame:
    missing = [name for name in ("C", *_ANGLES, "SHX", "SHY", "DF1", "DF2", "ANGAST") if name not in parameters]
    if missing:
        raise FormatError(f"{path}: no column {', '.join(missing)}; it has {', '.join(map(str, parameters))}")
    first = parameters["C"].to_numpy()
    bad = np.flatnonzero((first < 1) | (first % 1 != 0))
    if bad.size:
        raise FormatError(f"{path}, row {bad[0]} (from 0): image number {first[bad[0]]:g}; expected 1, 2, ...")
    stack = head.get("stack") or path.with_suffix(".mrc").name
    table = pd.DataFrame({"rlnImageName": [f"{int(c):07d}@{stack}" for c in first]})
    table = table.assign(
        **{label: parameters[name] for name, label in {**_ANGLES, **_CTF, **_KEPT}.items() if name in parameters}
    )
    pixels = "PRESA" in parameters  # version 8
    for name, px, label in zip(("SHX", "SHY"), col.SHIFTS_PX, col.SHIFTS_A, strict=True):
        table[px if pixels else label] = -parameters[name]
    if "FILM" in parameters:
        table["rlnMicrographName"] = [f"film{int(f):06d}" for f in parameters["FILM"]]
    for label in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize"):
        if label in head:
            table[label] = finite_number(head[label].split()[0], path, 1)
    return table


def from_cistem(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table with cisTEM's labels under RELION's; columns that have none keep their names."""
    if POSITION not in table:
        raise FormatError(f"{path}: labels of cisTEM, but no column {POSITION}")
    position = col.number_column(table[POSITION], POSITION, str(path)).astype(np.int64)
    names = table["cisTEMStackFilename"].astype(str).str.strip("'\"") if "cisTEMStackFilename" in table else None
    stacks = [path.with_suffix(".mrc").name] * len(table) if names is None else names.tolist()
    rln_table = pd.DataFrame({"rlnImageName": [f"{i:07d}@{s}" for i, s in zip(position, stacks, strict=True)]})
    for label in map(str, table.columns):
        values = table[label]
        if label in _CISTEM:
            name, factor = _CISTEM[str(label)]
            rln_table[name] = col.number_column(values, str(label), str(path)) * factor
        elif label not in (POSITION, "cisTEMStackFilename"):
            rln_table[str(label)] = values.to_numpy()
    return rln_table


def write_par(path: Path, particles: Particles) -> None:
    """Write particles as a .par file of Frealign 9 / FrealignX; its images are those of one stack, in this order.

    Raises
    ------
    InputError
        No poses, or no CTF.
    """
    poses, optics = particles.poses, particles.optics
    if poses is None:
        raise InputError(f"cannot write {path}: the particles have no poses, which a .par file holds")
    bad = optics.unusable()
    if bad:
        row, why = next(iter(bad.items()))
        raise InputError(f"cannot write {path}: particle {row} (row from 0): {why}")
    n = len(particles)
    film = np.ones(n, np.int64)
    if "rlnMicrographName" in particles.table:
        film = pd.factorize(particles.table["rlnMicrographName"])[0] + 1
    columns = {
        "C": np.arange(1, n + 1),
        "PSI": poses.angles_deg[:, 2],
        "THETA": poses.angles_deg[:, 1],
        "PHI": poses.angles_deg[:, 0],
        "SHX": -poses.shifts_A[:, 0],
        "SHY": -poses.shifts_A[:, 1],
        # The pixel size is given to Frealign by itself; a magnification of 10000 goes with a detector pitch in um equal
        # to it in A.
        "MAG": np.full(n, 10000),
        "FILM": film,
        "DF1": optics.defocus_u_A,
        "DF2": optics.defocus_v_A,
        "ANGAST": optics.defocus_angle_deg,
        "PSHIFT": optics.phase_shift_deg,
        "OCC": np.full(n, 100.0),
        "LogP": np.zeros(n, np.int64),
        "SIGMA": np.ones(n),
        "SCORE": np.zeros(n),
        "CHANGE": np.zeros(n),
    }
    scores = ["8.2f", "10d", "11.4f", "8.2f", "8.2f"]
    widths = ["7d", *["8.2f"] * 3, *["10.2f"] * 2, "8d", "6d", *["9.1f"] * 2, *["8.2f"] * 2, *scores]
    line = "".join(f"{{:{width}}}" for width in widths)
    names = "".join(f"{name:>{width.rstrip('df').split('.')[0]}}" for name, width in zip(columns, widths, strict=True))
    head = "C" + names.replace("C", " ", 1)[1:]
    rows = [line.format(*values) for values in zip(*(v.tolist() for v in columns.values()), strict=True)]
    write_text(path, "\n".join([head, *rows]) + "\n")


def is_cistem(table: Any) -> bool:
    """Whether a table has cisTEM's labels."""
    return any(str(label).startswith("cisTEM") for label in table)
