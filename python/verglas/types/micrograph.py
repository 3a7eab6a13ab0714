"""One micrograph, and where particles lie in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import host_array
from verglas.types.ctf_ranges import check_pixel_size
from verglas.types.display import Shown, one_line


@dataclass(frozen=True, eq=False, repr=False)
class Micrograph(Shown):
    """One image of the detector, rows as read from the file, particles dark as recorded.

    Attributes
    ----------
    data : (y, x) float32
        Grey values.
    pixel_size_A : float
        Pixel size in angstrom; NaN where neither the file nor the caller knows it.
    name : str
        What rlnMicrographName calls it.

    Raises
    ------
    InputError
        The data are not two-dimensional, or the pixel size is zero or negative.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types import Micrograph
    >>> Micrograph(np.zeros((3, 4), np.uint8), 1.5).shape
    (3, 4)
    """

    data: npt.NDArray[np.float32]
    pixel_size_A: float = float("nan")
    name: str = ""

    def __post_init__(self) -> None:
        """Check once, here."""
        given = host_array(self.data)
        if given.dtype.kind == "c":
            raise InputError(f"Micrograph {self.name}: the data are complex; grey values are real: take .real")
        data = np.ascontiguousarray(given, dtype=np.float32)
        if data.ndim != 2:
            raise InputError(f"Micrograph {self.name}: expected a (y, x) array, got shape {data.shape}")
        if self.pixel_size_A <= 0 or np.isinf(self.pixel_size_A):
            raise InputError(
                f"Micrograph {self.name}: expected a positive pixel size in angstrom or NaN, got {self.pixel_size_A}"
            )
        check_pixel_size(self.pixel_size_A, f"Micrograph {self.name}")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "pixel_size_A", float(self.pixel_size_A))

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.data.shape))
        return f"Micrograph({self.name or 'in memory'}: {size} (y, x), {self.pixel_size_A:.5g} A per pixel)"

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) in pixels."""
        return int(self.data.shape[0]), int(self.data.shape[1])


@one_line
@dataclass(frozen=True)
class Picks:
    """Where particles lie in one micrograph.

    Attributes
    ----------
    xy_px : (n, 2) float64
        Centres (x, y) in pixels of the unbinned micrograph: x to the right, y the row of the array as read, the first
        pixel is (0, 0).
    micrograph : str
        What rlnMicrographName calls the micrograph.
    columns : mapping of str -> (n,) array
        What else is known of every particle, by RELION's labels: rlnAutopickFigureOfMerit, poses, classes.

    Raises
    ------
    InputError
        Not (n, 2) finite coordinates, or a column of another length.

    Examples
    --------
    >>> from verglas.types import Picks
    >>> p = Picks([[10, 20], [30.5, 40]], "a.tif", {"rlnAutopickFigureOfMerit": [0.9, 0.4]})
    >>> len(p), p[p.columns["rlnAutopickFigureOfMerit"] > 0.5].xy_px.tolist(), p.flipped_y(100).xy_px[0].tolist()
    (2, [[10.0, 20.0]], [10.0, 79.0])
    """

    xy_px: npt.NDArray[np.float64]
    micrograph: str = ""
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check once, here."""
        xy = np.asarray(host_array(self.xy_px), dtype=np.float64)
        xy = np.ascontiguousarray(xy.reshape(0, 2) if xy.size == 0 else xy)
        if xy.ndim != 2 or xy.shape[1] != 2:
            raise InputError(f"Picks of {self.micrograph}: expected (n, 2) coordinates, got shape {xy.shape}")
        bad = np.flatnonzero(~np.isfinite(xy).all(axis=1))
        if bad.size:
            raise InputError(f"Picks of {self.micrograph}: coordinates of particle {bad[0]} (from 0) are not finite")
        columns = {name: host_array(values) for name, values in self.columns.items()}
        for name, values in columns.items():
            if len(values) != len(xy):
                raise InputError(f"Picks of {self.micrograph}: column {name} has {len(values)} values for {len(xy)}")
        object.__setattr__(self, "xy_px", xy)
        object.__setattr__(self, "columns", columns)

    def __len__(self) -> int:
        return len(self.xy_px)

    def __getitem__(self, index: Any) -> Picks:
        """A subset by mask, indices or slice."""
        return Picks(self.xy_px[index], self.micrograph, {name: v[index] for name, v in self.columns.items()})

    def flipped_y(self, height_px: int) -> Picks:
        """The same particles counted from the other edge: y becomes height - 1 - y."""
        return replace(self, xy_px=self.xy_px * (1, -1) + (0, height_px - 1))
