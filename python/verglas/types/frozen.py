"""A data frame whose columns cannot be set: what a frozen set of particles hands out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pandas as pd

from verglas.errors import InputError


class FrozenTable(pd.DataFrame):
    """A frame that shares its columns with a frozen set; what is computed from it are plain frames.

    Setting a column is refused, with what to do instead. Values set through ``loc`` and its kin change this frame only:
    pandas copies what is shared when it is written to (from version 3 on).

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.types.frozen import FrozenTable
    >>> table = FrozenTable.of(pd.DataFrame({"x": [1, 2]}))
    >>> table["x"].tolist(), type(table.assign(y=3)).__name__
    ([1, 2], 'DataFrame')
    >>> table["y"] = 3
    Traceback (most recent call last):
    verglas.errors.InputError: the table of a frozen set: cannot set y; use particles.with_columns(...), or table.copy()
    """

    @classmethod
    def of(cls, table: pd.DataFrame) -> FrozenTable:
        """A frame of its own over the same values."""
        return cls(table, copy=False)

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse(f"set {key}")

    def insert(self, loc: int, column: Any, value: Any, *_: Any, **__: Any) -> None:
        """Refused, as setting is."""
        _refuse(f"insert {column}")


def _refuse(what: str) -> NoReturn:
    raise InputError(f"the table of a frozen set: cannot {what}; use particles.with_columns(...), or table.copy()")
