"""Values of records as a person reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from verglas.report.html import name_text, value_text


def size_text(n_bytes: float) -> str:
    """Bytes in words.

    Examples
    --------
    >>> from verglas.window.said import size_text
    >>> size_text(812), size_text(45_300_000), size_text(2.3e12)
    ('812 B', '45.3 MB', '2.3 TB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"


def number_text(value: object) -> str:
    """A number of a job's head: four digits say what it is.

    Examples
    --------
    >>> from verglas.window.said import number_text
    >>> number_text(6.05741), number_text(16.5732), number_text(123456), number_text(0.5)
    ('6.057', '16.57', '123,456', '0.5')
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else value_text(value)


def numbers_text(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of a job's numbers; a part and the whole that it is of are one.

    Examples
    --------
    >>> from verglas.window.said import numbers_text
    >>> numbers_text({"particles": 487, "of_particles": 1488, "resolution_A": 4.1314})
    [('particles', '487 of 1,488'), ('resolution (Å)', '4.131')]
    """
    shown = []
    for name, value in numbers.items():
        if name.startswith("of_") and name[3:] in numbers:
            continue
        whole = f" of {number_text(numbers[f'of_{name}'])}" if f"of_{name}" in numbers else ""
        shown.append((name_text(name), number_text(value) + whole))
    return shown


# STAR labels as one says them; a label that is none of these is taken apart at its capitals.
_COLUMNS = {
    "rlnDefocusU": "defocus U (Å)",
    "rlnDefocusV": "defocus V (Å)",
    "rlnDefocusAngle": "astigmatism angle (°)",
    "rlnCtfAstigmatism": "astigmatism (Å)",
    "rlnCtfMaxResolution": "Thon rings to (Å)",
    "rlnCtfFigureOfMerit": "CTF merit",
    "rlnCtfBfactor": "CTF B-factor (Å²)",
    "rlnCtfScalefactor": "CTF scale",
    "rlnPhaseShift": "phase shift (°)",
    "rlnAngleRot": "rot (°)",
    "rlnAngleTilt": "tilt (°)",
    "rlnAnglePsi": "psi (°)",
    "rlnOriginXAngst": "shift x (Å)",
    "rlnOriginYAngst": "shift y (Å)",
    "rlnOriginX": "shift x (px)",
    "rlnOriginY": "shift y (px)",
    "rlnBeamTiltX": "beam tilt x (mrad)",
    "rlnBeamTiltY": "beam tilt y (mrad)",
    "rlnAutopickFigureOfMerit": "merit of the pick",
    "rlnClassNumber": "class",
    "rlnRandomSubset": "half set",
    "rlnMaxValueProbDistribution": "largest posterior",
    "rlnLogLikeliContribution": "log-likelihood",
    "rlnNrOfSignificantSamples": "poses that carry weight",
    "rlnNormCorrection": "norm correction",
    "rlnHelicalTubeID": "helix",
}


def column_text(label: str) -> str:
    """A column of a table of particles as a person reads it, its unit in brackets where it is known.

    Examples
    --------
    >>> from verglas.window.said import column_text
    >>> column_text("rlnDefocusU"), column_text("verglasCoordinate2"), column_text("rlnParticleSelectZScore")
    ('defocus U (Å)', 'coordinate 2', 'particle select z score')
    >>> column_text("alignments3D/cross_cor")
    'alignments3D: cross cor'
    """
    if label in _COLUMNS:
        return _COLUMNS[label]
    if not label.startswith(("rln", "verglas")):
        return label.replace("/", ": ").replace("_", " ")
    inner = label.removeprefix("rln").removeprefix("verglas")
    unit = " (Å)" if inner.endswith("Angst") else ""
    words = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[A-Z][a-z])", " ", inner.removesuffix("Angst"))
    return words.lower() + unit


def time_text(utc: str) -> str:
    """A time of a record without its seconds and zone; what is none stays as it is.

    Examples
    --------
    >>> from verglas.window.said import time_text
    >>> time_text("2026-11-29T17:17:51+00:00"), time_text("")
    ('2026-11-29 17:17', '')
    """
    try:
        return f"{datetime.fromisoformat(utc):%Y-%m-%d %H:%M}" if utc else ""
    except ValueError:
        return utc


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by a point.

    Examples
    --------
    >>> from verglas.window.said import flat
    >>> flat({"mask": {"source": "map", "fraction": 0.2}, "seed": 0})
    {'mask.source': 'map', 'mask.fraction': 0.2, 'seed': 0}
    """
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{above}{name}.")
        else:
            out[f"{above}{name}"] = value
    return out


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings in which two jobs differ: name, value of each; None where one has it not.

    Examples
    --------
    >>> from verglas.window.said import differences
    >>> differences({"seed": 0, "box": 64}, {"seed": 1, "box": 64})
    [('seed', 0, 1)]
    """
    a, b = flat(first), flat(second)
    return [(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
