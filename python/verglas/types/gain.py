"""A gain reference: what levels the pixels of a detector."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import Float32Array, host_array
from verglas.types.display import one_line

# Quarter turns as numpy.rot90 makes them, then the order of the columns reversed or not.
PLACEMENTS = ("0", "90", "180", "270", "0-flip", "90-flip", "180-flip", "270-flip")


@one_line
@dataclass(frozen=True, eq=False)
class Gain:
    """A gain reference as a file holds it.

    Attributes
    ----------
    data : (y, x) float32
        Factors about some mean; 0 marks a pixel without signal.
    divides : bool
        Frames are divided by it (EPU's .gain files), not multiplied.
    name : str
        For messages.

    Raises
    ------
    InputError
        Not two-dimensional, NaN, negative, or zero everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types.gain import Gain
    >>> gain = Gain(np.array([[1.0, 2.0], [0.0, 4.0]]), divides=True)
    >>> gain.factors.tolist(), gain.dead.tolist()
    ([[1.0, 0.5], [1.0, 0.25]], [[False, False], [True, False]])
    >>> gain.place("90-flip").data.tolist()
    [[4.0, 2.0], [0.0, 1.0]]
    """

    data: Float32Array
    divides: bool = False
    name: str = "gain"

    def __post_init__(self) -> None:
        """Check once."""
        data = np.ascontiguousarray(host_array(self.data), np.float32)
        if data.ndim != 2:
            raise InputError(f"{self.name}: expected a gain of rows and columns, got shape {data.shape}")
        bad = data.size - int(np.count_nonzero(np.isfinite(data) & (data >= 0)))
        if bad:
            raise InputError(
                f"{self.name}: {bad} of {data.size} values of the gain are NaN, infinite or negative; "
                "expected factors, 0 for dead pixels"
            )
        if not data.any():
            raise InputError(f"{self.name}: the gain is zero everywhere; expected factors about 1")
        object.__setattr__(self, "data", data)

    @property
    def dead(self) -> npt.NDArray[np.bool_]:
        """(y, x): pixels whose gain is 0, defects."""
        return np.asarray(self.data == 0)

    @property
    def factors(self) -> Float32Array:
        """(y, x): what multiplies a frame; 1 at dead pixels."""
        alive = np.where(self.dead, np.float32(1), self.data)
        return np.asarray(1 / alive if self.divides else alive, np.float32)

    def place(self, placement: str) -> Gain:
        """Turned and flipped.

        Parameters
        ----------
        placement : str
            ``"0"``, ``"90"``, ``"180"`` or ``"270"`` degrees as ``numpy.rot90`` turns, then, with ``"-flip"``, columns
            reversed.
        """
        if placement not in PLACEMENTS:
            raise InputError(f"placement of the gain: expected one of {', '.join(PLACEMENTS)}, got {placement!r}")
        turned = np.rot90(self.data, int(placement.split("-")[0]) // 90)
        return replace(self, data=turned[:, ::-1] if placement.endswith("flip") else turned)

    def fit_to_frames(self, shape: tuple[int, int]) -> Gain:
        """Brought to the pixels of frames.

        A gain of super-resolution is binned: counts of the small pixels add up, so sensitivities are averaged (of
        factors, the harmonic mean). One coarser than the frames (up-sampled EER) is repeated.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the frames.

        Raises
        ------
        InputError
            Neither is a whole multiple of the other.
        """
        ny, nx = self.data.shape
        if (ny, nx) == shape:
            return self
        for times in range(2, 9):
            if (ny, nx) == (times * shape[0], times * shape[1]):
                return self._bin(shape, times)
            if (times * ny, times * nx) == shape:
                return replace(self, data=self.data.repeat(times, 0).repeat(times, 1))
        turned = "; turned by 90 degrees it would fit" if (nx, ny) == shape else ""
        raise InputError(
            f"{self.name}: the gain has {nx} x {ny} pixels, the frames {shape[1]} x {shape[0]}{turned}; "
            "expected the same, or a whole multiple (super-resolution)"
        )

    def _bin(self, shape: tuple[int, int], times: int) -> Gain:
        small = self.factors.astype(np.float64).reshape(shape[0], times, shape[1], times)
        sensitivity = (1 / small).mean(axis=(1, 3))
        dead = self.dead.reshape(shape[0], times, shape[1], times).any(axis=(1, 3))
        data = sensitivity if self.divides else 1 / sensitivity
        return replace(self, data=np.where(dead, 0, data).astype(np.float32))
