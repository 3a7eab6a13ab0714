"""Values of records as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from verglas.report.html import value_text


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
    ('6.057', '16.57', '123456', '0.5')
    """
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else value_text(value)


_UNITS = {
    "_e_A2": " (e/Å²)",
    "_A2": " (Å²)",
    "_A": " (Å)",
    "_deg": " (°)",
    "_px": " (px)",
    "_kV": " (kV)",
    "_mm": " (mm)",
    "_mrad": " (mrad)",
    "_s": " (s)",
    "_GB": " (GB)",
}


def name_text(name: str) -> str:
    """Name of a setting or number as a person reads it, its unit in brackets.

    Examples
    --------
    >>> from verglas.window.said import name_text
    >>> name_text("dose_per_frame_e_A2"), name_text("b_factor_A2"), name_text("shift_range_A"), name_text("seed")
    ('dose per frame (e/Å²)', 'B-factor (Å²)', 'shift range (Å)', 'seed')
    """
    unit = next((end for end in _UNITS if name.endswith(end)), "")
    words = name[: len(name) - len(unit)].replace("_", " ")
    return words.replace("b factor", "B-factor") + _UNITS.get(unit, "")


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
