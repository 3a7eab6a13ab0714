"""What several commands check of their options: a wrong value is a wrong call (exit status 2), not a failed job."""

from __future__ import annotations

import math
from collections.abc import Mapping

import typer


def refuse_unless_positive(given: Mapping[str, float | None], unit: str = "", *, finite: bool = False) -> None:
    """Refuse a value, by its option's name, that is not more than 0; NaN is not. Options that were not given pass."""
    what = "a positive number" + (f" of {unit}" if unit else "")
    for name, value in given.items():
        if value is not None and not (value > 0 and (math.isfinite(value) or not finite)):
            raise typer.BadParameter(f"expected {what}, got {value:g}", param_hint=name)
