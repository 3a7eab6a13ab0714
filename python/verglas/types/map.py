"""A density map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import host_array
from verglas.types.ctf_ranges import check_pixel_size
from verglas.types.display import Shown, span


@dataclass(frozen=True, eq=False, repr=False)
class Map(Shown):
    """A density on a cubic or rectangular grid.

    Attributes
    ----------
    data : (z, y, x) float32
        The density; the origin of the molecule frame is voxel N // 2.
    pixel_size_A : float
        Voxel size in angstrom, isotropic.
    origin_A : tuple of float
        Position (x, y, z) of voxel (0, 0, 0) in the file's frame, as the MRC header's ORIGIN says.

    Raises
    ------
    InputError
        The data are complex or not three-dimensional, or the pixel size is not a positive number.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> m = vg.Map(np.zeros((4, 4, 4), np.float32), 1.5)
    >>> m.box, m.pixel_size_A
    (4, 1.5)
    >>> m == vg.Map(np.zeros((4, 4, 4)), 1.5), np.asarray(m).shape
    (True, (4, 4, 4))
    """

    data: npt.NDArray[np.float32]
    pixel_size_A: float
    origin_A: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Check once, here, so that no stage has to."""
        given = host_array(self.data)
        if np.iscomplexobj(given):
            raise InputError("Map: the data are complex; a density is real: take .real, or the modulus")
        data = np.ascontiguousarray(given, dtype=np.float32)
        if data.ndim != 3:
            raise InputError(f"Map: expected a (z, y, x) array, got shape {data.shape}")
        if not (np.isfinite(self.pixel_size_A) and self.pixel_size_A > 0):
            raise InputError(f"Map: expected a positive pixel size in angstrom, got {self.pixel_size_A}")
        check_pixel_size(self.pixel_size_A, "Map")
        if not np.isfinite(self.origin_A).all():
            raise InputError(f"Map: expected a finite origin in angstrom, got {self.origin_A}")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "pixel_size_A", float(self.pixel_size_A))
        object.__setattr__(self, "origin_A", tuple(float(v) for v in self.origin_A))

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.data.shape))
        values = span(self.data, "") if self.data.size else "no voxels"
        return f"Map({shape}, {self.pixel_size_A:.5g} A per voxel, {values})"

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The density, for NumPy's functions."""
        made = np.asarray(self.data, dtype)
        return made.copy() if copy and made is self.data else made

    @property
    def box(self) -> int:
        """Side in voxels; a map that is not a cube has none and says so."""
        if len(set(self.data.shape)) != 1:
            raise InputError(f"Map: expected a cube, got shape {self.data.shape}")
        return int(self.data.shape[0])

    def with_data(self, data: npt.ArrayLike) -> Map:
        """The same frame with other values."""
        return replace(self, data=np.asarray(data))
