"""Where a long computation stands between two iterations, and who keeps it: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
Kind = TypeVar("Kind")


@dataclass
class Snapshot:
    """Everything that the next iteration needs.

    Attributes
    ----------
    arrays : dict of name -> array
    record : dict
        What is no array, as JSON can hold it.
    """

    arrays: Arrays
    record: dict[str, Any] = field(default_factory=dict)


class Keeper(Protocol):
    """Keeps where one computation stands; stages know no files, so the run gives them one of these."""

    def load(self) -> Snapshot | None:
        """What was kept last; None at a fresh start."""

    def save(self, snapshot: Snapshot, *, needed: bool = False) -> None:
        """Keep it in place of what was kept before.

        Parameters
        ----------
        snapshot : Snapshot
            Arrays that the caller may change afterwards.
        needed : bool
            Never left out for the sake of time.
        """


def to_arrays(prefix: str, thing: Any) -> Arrays:
    """Fields of a dataclass, all of them arrays and numbers, as arrays with names under a prefix.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from verglas.types.snapshot import from_arrays, to_arrays
    >>> @dataclass
    ... class Point:
    ...     name: int
    ...     x: float
    >>> sorted(to_arrays("p.", Point(3, 0.1)))
    ['p.name', 'p.x']
    >>> from_arrays(Point, "p.", to_arrays("p.", Point(3, 0.1)))
    Point(name=3, x=0.1)
    """
    return {prefix + f.name: np.asarray(getattr(thing, f.name)) for f in fields(thing)}


def from_arrays(kind: type[Kind], prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Kind:
    """The dataclass that :func:`to_arrays` took apart; arrays without axes become numbers again."""
    arrays_of_part = {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
    return kind(**{name: a if a.ndim else a.item() for name, a in arrays_of_part.items()})
