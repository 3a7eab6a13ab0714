"""One micrograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError


@dataclass(frozen=True)
class Micrograph:
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
        data = np.ascontiguousarray(self.data, dtype=np.float32)
        if data.ndim != 2:
            raise InputError(f"Micrograph {self.name}: expected a (y, x) array, got shape {data.shape}")
        if self.pixel_size_A <= 0 or np.isinf(self.pixel_size_A):
            raise InputError(f"Micrograph {self.name}: expected a positive pixel size in angstrom or NaN, "
                             f"got {self.pixel_size_A}")  # fmt: skip
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "pixel_size_A", float(self.pixel_size_A))

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) in pixels."""
        return int(self.data.shape[0]), int(self.data.shape[1])
