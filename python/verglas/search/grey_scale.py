"""Grey scale of a map against images whose poses are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from verglas.types.arrays import FloatArray

Value = TypeVar("Value", float, FloatArray)
INVERTED = 1.2  # correlation with minus a map, on that with the map, that is no accident


@dataclass(frozen=True)
class CrossPower(Generic[Value]):
    """Terms of the log-likelihood at a grey scale s: s cross - s^2 power / 2; the best scale is cross / power."""

    cross: Value
    power: Value


def cross_and_power(score_at: Callable[[float], Value]) -> CrossPower[Value]:
    """From the log-likelihood at the scales 1 and 2, of one image, of each, or summed over many.

    Examples
    --------
    >>> from verglas.search.grey_scale import cross_and_power
    >>> result = cross_and_power(lambda s: 6 * s - 3 * s**2 / 2)
    >>> result.cross, result.power, result.cross / result.power
    (6.0, 3.0, 2.0)
    """
    once, twice = score_at(1.0), score_at(2.0)
    power = 2 * once - twice
    return CrossPower(once + power / 2, power)
