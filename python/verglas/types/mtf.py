"""The modulation transfer function (MTF) of a detector: what of a wave's amplitude its pixels keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError
from verglas.types.arrays import FloatArray

MTF_FILE = "rlnMtfFileName"
DETECTOR_PIXEL = "rlnMicrographOriginalPixelSize"
FREQUENCY, VALUE = "rlnResolutionInversePixel", "rlnMtfValue"
NO_FILE = "None"
_NONE = ("", "none", "null", "nan", '""')
_BEGINS, _FIRST = 0.05, 0.2  # first frequency of a table at most, and how far its value is from 1
_ENDS = (0.4, 1.0)  # last frequency, 1/pixel: Nyquist of the detector's pixels, or of half pixels
_TABLE = "MTF of "  # a name with spaces, that no table of a STAR file has


def table_of(name: str) -> str:
    """The key, among the tables of particles, of the curve that a file of this name holds."""
    return f"{_TABLE}{name}"


def is_mtf_table(key: str) -> bool:
    """Whether a key of the tables of particles is one of :func:`table_of`: not of the particles' file."""
    return key.startswith(_TABLE)


def is_mtf_name(name: Any) -> bool:
    """Whether a value of ``rlnMtfFileName`` names a file."""
    return str(name).strip().lower() not in _NONE


def check_mtf(values: npt.ArrayLike, what: str = "MTF") -> FloatArray:
    """Rows of frequency in 1/pixel of the detector and value, as float64.

    Parameters
    ----------
    values : (n, 2) array_like
        Frequencies ascend from 0, where the value is 1, to 0.4 to 1: Nyquist is 0.5.
    what : str
        What an error calls it.

    Raises
    ------
    InputError
        They do not.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or table.shape[1] != 2 or len(table) < 2 or not np.isfinite(table).all():
        raise InputError(f"{what}: expected rows of frequency (1/pixel) and value, got shape {table.shape}")
    if table[:, 1].min() <= 0 or table[:, 1].max() > 1.5:
        raise InputError(
            f"{what}: expected values near 1 at 0 and positive beyond, got {table[:, 1].min():g} to "
            f"{table[:, 1].max():g}"
        )
    frequency = table[:, 0]
    if (np.diff(frequency) <= 0).any() or not 0 <= frequency[0] <= _BEGINS or abs(table[0, 1] - 1) > _FIRST:
        raise InputError(
            f"{what}: expected frequencies that increase from 0, where the value is 1; the first is {frequency[0]:g} "
            f"with {table[0, 1]:g}"
        )
    low, high = _ENDS
    if not low <= frequency[-1] <= high:
        raise InputError(
            f"{what}: its frequencies end at {frequency[-1]:g}; expected 0.5 per pixel of the detector, where it ends "
            f"({low:g} to {high:g}): they count something else, 1/A or pixels of another sampling"
        )
    return table


@dataclass(frozen=True, eq=False)
class Mtf:
    """Of a detector whose pixels have a size on the specimen.

    Attributes
    ----------
    name : str
        Its file, as ``rlnMtfFileName`` has it.
    pixel_size_A : float
        Of the detector, on the specimen.
    table : (n, 2) float64
        Frequency in 1/pixel of the detector, value; see :func:`check_mtf`.
    """

    name: str
    pixel_size_A: float
    table: FloatArray

    def at(self, k_per_A: npt.ArrayLike) -> FloatArray:
        """Values at frequencies in 1/A, between rows on a line; beyond the last, as in the corners of images, the last.

        Examples
        --------
        >>> import numpy as np
        >>> from verglas.types.mtf import Mtf
        >>> Mtf("mtf.star", 2.0, np.array([[0.0, 1.0], [0.5, 0.5]])).at([0.0, 0.125, 0.3]).tolist()
        [1.0, 0.75, 0.5]
        """
        return np.asarray(np.interp(np.asarray(k_per_A) * self.pixel_size_A, self.table[:, 0], self.table[:, 1]))

    def refuse_finer(self, pixel_size_A: float, where: str) -> None:
        """Of images whose pixels are finer than the last row.

        Raises
        ------
        InputError
            They are.
        """
        last_per_A = self.table[-1, 0] / self.pixel_size_A
        if 0.5 / pixel_size_A > 1.03 * max(last_per_A, 0.5 / self.pixel_size_A):
            raise InputError(
                f"{where}: {self.name} ({MTF_FILE}) ends at {last_per_A:.3g} 1/A, pixels of {self.pixel_size_A:g} A "
                f"({DETECTOR_PIXEL}), and the images have finer ones of {pixel_size_A:g} A: it is the MTF of another "
                "sampling of the detector, or the pixel size is that of binned micrographs"
            )


def read_names(table: pd.DataFrame | None) -> npt.NDArray[Any] | None:
    """(n,) ``rlnMtfFileName`` of every row, "None" where there is none; None without the column."""
    if table is None or MTF_FILE not in table:
        return None
    codes, names = pd.factorize(table[MTF_FILE], use_na_sentinel=False)
    read = [str(name).strip() if is_mtf_name(name) else NO_FILE for name in names]
    return np.asarray(read, object)[codes]


def mtf_of(name: str, pixel_size_A: float, tables: Mapping[str, Any]) -> Mtf | None:
    """That of a name, where its curve is among the tables of particles, and the pixel size of the detector is known."""
    curve = tables.get(table_of(name))
    if curve is None or not np.isfinite(pixel_size_A) or pixel_size_A <= 0:
        return None
    return Mtf(name, pixel_size_A, np.column_stack([curve[FREQUENCY], curve[VALUE]]).astype(np.float64))
