"""How objects show themselves: one line, compared by value, a card in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

# Draws the card of a notebook; left here by ``import verglas``, since what draws is none of the types' business.
drawers: list[Callable[[Any], str]] = []


class Shown:
    """Base of data classes that hold arrays: equal by value, and a card in a notebook."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def _repr_html_(self) -> str | None:
        """What a notebook shows; None, and so the one line, where nothing draws."""
        return drawers[0](self) if drawers else None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")
    return bool(one == other)


def span(values: Any, unit: str = "") -> str:
    """Smallest and largest of some values in words.

    Examples
    --------
    >>> from verglas.types.display import span
    >>> span([300.0, 300.0], "kV"), span([15000, 20000.4], "A"), span([])
    ('300 kV', '15000 to 20000.4 A', 'none')
    """
    array = np.asarray(values, np.float64)
    good = array[np.isfinite(array)]
    if not good.size:
        return "none" if not array.size else "unknown"
    low, high = float(good.min()), float(good.max())
    text = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    return f"{text} {unit}".rstrip()
