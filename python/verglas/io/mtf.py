"""Files of the MTF of a detector, and those that particles name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from verglas.errors import FormatError
from verglas.io.stack import StackPaths
from verglas.io.star import read_star
from verglas.types.arrays import FloatArray
from verglas.types.mtf import FREQUENCY, NO_FILE, VALUE, check_mtf, read_names, table_of


def read_mtf_table(path: Path) -> FloatArray:
    """(n, 2) frequency in 1/pixel and value, of a STAR file (RELION's labels) or a text file of two columns.

    Raises
    ------
    FormatError
        The file holds no such table.
    InputError
        It is no MTF: see :func:`verglas.types.mtf.check_mtf`.
    """
    if not path.is_file():
        raise FormatError(f"{path}: no such file")
    if path.suffix.lower() == ".star":
        for table in read_star(path).values():
            if isinstance(table, pd.DataFrame) and {FREQUENCY, VALUE} <= set(table.columns):
                values = table[[FREQUENCY, VALUE]].apply(pd.to_numeric, errors="coerce")
                return check_mtf(values.to_numpy(np.float64), f"{path}: MTF")
        raise FormatError(f"{path}: no table with {FREQUENCY} and {VALUE}")
    try:
        values_of_text = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise FormatError(f"{path}: expected two columns, frequency in 1/pixel and value: {error}") from error
    return check_mtf(values_of_text, f"{path}: MTF")


def mtf_tables(tables: Iterable[pd.DataFrame | None], paths: StackPaths) -> dict[str, pd.DataFrame]:
    """Curves of the files that ``rlnMtfFileName`` names and that are found, by :func:`verglas.types.mtf.table_of`.

    They are looked for as stacks are, and beside the particles under their last name.
    """
    curves: dict[str, pd.DataFrame] = {}
    for table in tables:
        names = read_names(table)
        for name in [] if names is None else pd.unique(names).tolist():
            path = None if name == NO_FILE else _find(name, paths)
            if path is not None:
                values = read_mtf_table(path)
                curves[table_of(name)] = pd.DataFrame({FREQUENCY: values[:, 0], VALUE: values[:, 1]})
    return curves


def _find(name: str, paths: StackPaths) -> Path | None:
    mapped = Path(paths.map_prefix(name)).expanduser()
    folders = (*paths.given_roots, *paths.roots)
    tried = [mapped] if mapped.is_absolute() else [folder / mapped for folder in folders]
    tried += [folder / mapped.name for folder in folders]
    return next((path for path in tried if path.is_file()), None)
