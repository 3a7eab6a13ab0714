"""Which particles lie in regions drawn about their values: inside a line round points of two, or within limits of one.

A choice is a list of steps, each applied to what the ones before have left; written down it is a small file, whatever
the number of particles, and taken again it chooses the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError
from verglas.types.arrays import FloatArray

ACTIONS = ("keep", "drop", "add")
_MOST_STEPS, _MOST_CORNERS = 200, 2000


@dataclass(frozen=True)
class Region:
    """One step of a choice.

    Attributes
    ----------
    action : {"keep", "drop", "add"}
        Only what is inside stays; what is inside goes; what is inside comes back.
    x, y : str
        Columns. Without ``y`` the region is ``low`` to ``high`` of ``x``.
    corners : sequence of (float, float)
        Of the polygon in ``x`` and ``y``, which closes itself; what it crosses twice lies outside (even-odd rule).
    low, high : float
        Limits, which belong to the region.

    Raises
    ------
    InputError
        Another action, fewer than three corners, or values that are no numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.heterogeneity import Region, in_regions
    >>> table = pd.DataFrame({"a": [0.1, 0.5, 2.0, float("nan")], "b": [0.1, 0.9, 0.5, 0.5]})
    >>> triangle = Region("keep", "a", "b", [(0, 0), (1, 0), (0, 1)])
    >>> in_regions(table, [triangle]).tolist()
    [True, False, False, False]
    >>> in_regions(table, [triangle, Region("add", "a", low=2.0)]).tolist()
    [True, False, True, False]
    """

    action: Literal["keep", "drop", "add"]
    x: str
    y: str = ""
    corners: Sequence[tuple[float, float]] = ()
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        """Check once."""
        if self.action not in ACTIONS:
            raise InputError(f"region: expected an action of {', '.join(ACTIONS)}, got {self.action!r}")
        if self.y and not 3 <= len(self.corners) <= _MOST_CORNERS:
            raise InputError(f"region: expected 3 to {_MOST_CORNERS} corners, got {len(self.corners)}")
        if not np.isfinite(np.asarray(self.corners, np.float64)).all() or math.isnan(self.low) or math.isnan(self.high):
            raise InputError("region: expected finite corners and limits that are numbers")

    @classmethod
    def of(cls, record: Any, where: str = "region") -> Region:
        """A region from the record of a file or a page.

        Parameters
        ----------
        record : mapping
            action, x, and either y and corners, or low and high, of which null or none stands for no limit.
        where : str
            For messages.

        Raises
        ------
        InputError
            A record of another shape.
        """
        if not isinstance(record, Mapping):
            raise InputError(f"{where}: expected an object with action, x and corners or limits")
        try:
            corners = [(float(x), float(y)) for x, y in record.get("corners") or ()]
            limits = [record.get(name) for name in ("low", "high")]
            low, high = (d if v is None else float(v) for v, d in zip(limits, (-math.inf, math.inf), strict=True))
            names = [record.get("x"), record.get("y") or ""]
            if not all(isinstance(name, str) for name in names) or not names[0]:
                raise InputError(f"{where}: expected the names of columns, got {names}")
            return cls(record.get("action"), names[0], names[1], corners, low, high)  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where}: expected numbers: {error}") from None

    def as_record(self) -> dict[str, Any]:
        """For a file."""
        if self.y:
            return {"action": self.action, "x": self.x, "y": self.y, "corners": [list(one) for one in self.corners]}
        limits = {"low": self.low, "high": self.high}
        return {"action": self.action, "x": self.x} | {k: v for k, v in limits.items() if math.isfinite(v)}

    def holds(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Which rows lie inside; one without a value lies nowhere.

        Raises
        ------
        InputError
            A column that there is not, or one that holds no numbers.
        """
        x = _column(table, self.x)
        if not self.y:
            return np.asarray((x >= self.low) & (x <= self.high))
        return _inside(np.asarray(self.corners, np.float64), x, _column(table, self.y))


def regions_of(steps: Any, where: str = "regions") -> list[Region]:
    """Steps of a file or a page as regions.

    Raises
    ------
    InputError
        No list of them.
    """
    if not isinstance(steps, list) or len(steps) > _MOST_STEPS:
        raise InputError(f"{where}: expected a list of at most {_MOST_STEPS} steps")
    return [Region.of(one, f"{where}: step {number}") for number, one in enumerate(steps, 1)]


def in_regions(table: pd.DataFrame, regions: Sequence[Region]) -> npt.NDArray[np.bool_]:
    """Which rows of a table are left after all steps; before the first all are there.

    Raises
    ------
    InputError
        A region about a column that the table has not.
    """
    kept = np.ones(len(table), bool)
    for one in regions:
        held = one.holds(table)
        kept = kept & held if one.action == "keep" else kept & ~held if one.action == "drop" else kept | held
    return kept


def _column(table: pd.DataFrame, name: str) -> FloatArray:
    if name not in table:
        raise InputError(f"region: the particles have no column {name}")
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    if len(values) and not np.isfinite(values).any():
        raise InputError(f"region: the column {name} holds no numbers")
    return values


def _inside(corners: FloatArray, x: FloatArray, y: FloatArray) -> npt.NDArray[np.bool_]:
    """Even-odd rule: edges that a ray towards positive x crosses."""
    odd = np.zeros(len(x), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, 1, axis=0), strict=True):
        crossed = (y0 > y) != (y1 > y)
        if y0 != y1:  # a level edge is crossed by none
            odd ^= crossed & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return odd
