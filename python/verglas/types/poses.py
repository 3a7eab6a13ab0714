"""Orientations and shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, host_array
from verglas.types.display import Shown

# Default of a column that __post_init__ fills in; typed so that readers of the class see the arrays it then holds.
_ABSENT: Any = None


def _columns(value: npt.ArrayLike, width: int, name: str) -> FloatArray:
    array = np.array(host_array(value), dtype=np.float64, ndmin=2)
    if array.ndim != 2 or array.shape[1] != width:
        raise InputError(f"{name}: expected shape (n, {width}), got {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise InputError(
            f"{name}: particle {bad[0]} has {array[bad[0]].tolist()}; {bad.size} rows are not finite numbers"
        )
    return array


@dataclass(frozen=True, eq=False, repr=False)
class Poses(Shown):
    """Orientations and shifts of n particles.

    Attributes
    ----------
    angles_deg : (n, 3) float64
        rot, tilt, psi in RELION's convention (intrinsic Z-Y-Z).
    shifts_A : (n, 2) float64
        x, y as rlnOriginX/YAngst: adding the shift to the image brings the particle to the centre,
        so the particle sits at minus the shift.

    Raises
    ------
    InputError
        Shapes do not fit, or an angle or shift is no finite number.

    Examples
    --------
    >>> from verglas import Poses
    >>> p = Poses([[10, 20, 30]])
    >>> len(p), p.shifts_A.tolist()
    (1, [[0.0, 0.0]])
    """

    angles_deg: FloatArray
    shifts_A: FloatArray = _ABSENT

    def __post_init__(self) -> None:
        """Check shapes once; missing shifts are zero."""
        angles = _columns(self.angles_deg, 3, "Poses.angles_deg")
        shifts = np.zeros((len(angles), 2)) if self.shifts_A is None else _columns(self.shifts_A, 2, "Poses.shifts_A")
        if len(shifts) != len(angles):
            raise InputError(f"Poses: {len(angles)} orientations but {len(shifts)} shifts")
        object.__setattr__(self, "angles_deg", angles)
        object.__setattr__(self, "shifts_A", shifts)

    def __repr__(self) -> str:
        farthest = float(np.hypot(*self.shifts_A.T).max()) if len(self) else 0.0
        return f"Poses({len(self)} orientations, shifts up to {farthest:.3g} A)"

    def __len__(self) -> int:
        return len(self.angles_deg)

    def __getitem__(self, index: Any) -> Poses:
        index = np.atleast_1d(np.arange(len(self))[index])
        return Poses(self.angles_deg[index], self.shifts_A[index])
