"""How objects show themselves: one line, compared by value, a card in a notebook."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

_Thing = TypeVar("_Thing")
_LINE, _FEW, _SHORT = 160, 3, 60  # characters of a line, entries and characters of a value that is told in full

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


def one_line(cls: type[_Thing]) -> type[_Thing]:
    """A data class whose ``repr`` is one line: arrays and tables by their size, not by their values.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from verglas.types.display import one_line
    >>> @one_line
    ... @dataclass
    ... class Curve:
    ...     name: str
    ...     values: np.ndarray
    >>> Curve("fsc", np.zeros(65))
    Curve(name='fsc', values=(65,) float64)
    """
    cls.__repr__ = _repr_in_one_line  # type: ignore[method-assign]
    return cls


def _repr_in_one_line(self: Any) -> str:
    told = [(f.name, getattr(self, f.name)) for f in fields(self) if f.repr]
    text = ", ".join(f"{name}={_brief(value)}" for name, value in told if value is not None)
    return f"{type(self).__name__}({textwrap.shorten(text, _LINE, placeholder=' ...')})"


def _brief(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, np.ndarray):
        if value.size <= _FEW and value.ndim == 1:
            return str(value.tolist() if value.dtype.kind != "f" else [float(f"{v:.4g}") for v in value])
        return f"{value.shape} {value.dtype}"
    if hasattr(value, "iloc"):
        return f"table of {len(value)}"
    if isinstance(value, (list, tuple, set, dict)) and not hasattr(value, "_fields"):
        text = repr(value) if len(value) <= _FEW and not isinstance(value, dict) else ""
        return text if 0 < len(text) <= _SHORT and "\n" not in text else f"{type(value).__name__} of {len(value)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value)
    return text if len(text) <= _SHORT and "\n" not in text else type(value).__name__


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
