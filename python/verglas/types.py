"""The objects that flow between stages: frozen, columnar, cheap to slice.

Conventions (docs/conventions.md): lengths in angstrom, angles in degrees, images (n, y, x) and volumes (z, y, x)
float32, origin at pixel N // 2, particles white.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError

FloatArray = npt.NDArray[np.float64]

# Default of a column that __post_init__ fills in; typed so that readers of the class see the arrays it then holds.
_ABSENT: Any = None


@dataclass(frozen=True)
class Map:
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
        The data are not three-dimensional, or the pixel size is not a positive number.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> m = vg.Map(np.zeros((4, 4, 4), np.float32), 1.5)
    >>> m.box, m.pixel_size_A
    (4, 1.5)
    """

    data: npt.NDArray[np.float32]
    pixel_size_A: float
    origin_A: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Check once, here, so that no stage has to."""
        data = np.ascontiguousarray(self.data, dtype=np.float32)
        if data.ndim != 3:
            raise InputError(f"Map: expected a (z, y, x) array, got shape {data.shape}")
        if not (np.isfinite(self.pixel_size_A) and self.pixel_size_A > 0):
            raise InputError(f"Map: expected a positive pixel size in angstrom, got {self.pixel_size_A}")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "pixel_size_A", float(self.pixel_size_A))
        object.__setattr__(self, "origin_A", tuple(float(v) for v in self.origin_A))

    @property
    def box(self) -> int:
        """Side in voxels; a map that is not a cube has none and says so."""
        if len(set(self.data.shape)) != 1:
            raise InputError(f"Map: expected a cube, got shape {self.data.shape}")
        return int(self.data.shape[0])

    def with_data(self, data: npt.ArrayLike) -> Map:
        """The same frame with other values."""
        return replace(self, data=np.asarray(data, np.float32))


def _columns(value: npt.ArrayLike, width: int, name: str) -> FloatArray:
    array = np.array(value, dtype=np.float64, ndmin=2)
    if array.ndim != 2 or array.shape[1] != width:
        raise InputError(f"{name}: expected shape (n, {width}), got {array.shape}")
    return array


@dataclass(frozen=True)
class Poses:
    """Orientations and shifts of n particles.

    Attributes
    ----------
    angles_deg : (n, 3) float64
        rot, tilt, psi in RELION's convention (intrinsic Z-Y-Z).
    shifts_A : (n, 2) float64
        x, y as rlnOriginX/YAngst: adding the shift to the image brings the particle to the centre,
        so the particle sits at minus the shift.

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

    def __len__(self) -> int:
        return len(self.angles_deg)

    def __getitem__(self, index: Any) -> Poses:
        index = np.atleast_1d(np.arange(len(self))[index])
        return Poses(self.angles_deg[index], self.shifts_A[index])


_OPTICS_DEFAULTS = {
    "defocus_u_A": 0.0, "defocus_v_A": 0.0, "defocus_angle_deg": 0.0, "voltage_kV": 300.0, "cs_mm": 2.7,
    "amplitude_contrast": 0.1, "phase_shift_deg": 0.0, "b_factor_A2": 0.0, "scale": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Optics:
    """Contrast-transfer parameters of n images, one value per image; a single number stands for all of them.

    Attributes
    ----------
    defocus_u_A, defocus_v_A : (n,) float64
        Underfocus along and across the astigmatism axis, angstrom, underfocus positive.
    defocus_angle_deg : (n,) float64
        Angle of the u axis from +x towards +y.
    voltage_kV, cs_mm, amplitude_contrast, phase_shift_deg : (n,) float64
    b_factor_A2, scale : (n,) float64
        Envelope exp(-B k^2/4) and overall factor (rlnCtfBfactor, rlnCtfScalefactor).
    group : (n,) int64
        Optics group of each image (index from 0).
    pixel_size_A : (n,) float64
        Pixel size of each image, NaN where unknown.

    Examples
    --------
    >>> from verglas import Optics
    >>> o = Optics(defocus_u_A=[15000, 16000], defocus_v_A=[14800, 15700])
    >>> len(o), o.voltage_kV.tolist(), o.as_params().shape
    (2, [300.0, 300.0], (2, 9))
    """

    defocus_u_A: FloatArray
    defocus_v_A: FloatArray
    defocus_angle_deg: FloatArray = _ABSENT
    voltage_kV: FloatArray = _ABSENT
    cs_mm: FloatArray = _ABSENT
    amplitude_contrast: FloatArray = _ABSENT
    phase_shift_deg: FloatArray = _ABSENT
    b_factor_A2: FloatArray = _ABSENT
    scale: FloatArray = _ABSENT
    group: npt.NDArray[np.int64] = _ABSENT
    pixel_size_A: FloatArray = _ABSENT

    def __post_init__(self) -> None:
        """Broadcast every column to one length and check what a CTF needs."""
        given: dict[str, Any] = {}
        for name, default in (*_OPTICS_DEFAULTS.items(), ("group", 0), ("pixel_size_A", np.nan)):
            value = getattr(self, name)
            given[name] = np.atleast_1d(np.asarray(default if value is None else value))
        lengths = {name: len(value) for name, value in given.items() if len(value) != 1}
        if len(set(lengths.values())) > 1:
            raise InputError(f"Optics: columns of different lengths: {lengths}")
        n = next(iter(lengths.values()), 1)
        for name, value in given.items():
            dtype = np.int64 if name == "group" else np.float64
            object.__setattr__(self, name, np.ascontiguousarray(np.broadcast_to(value, n), dtype=dtype))
        for name, low, high in (("voltage_kV", 1.0, 3000.0), ("amplitude_contrast", 0.0, 1.0)):
            column = getattr(self, name)
            bad = np.flatnonzero(~((column >= low) & (column <= high)))
            if bad.size:
                raise InputError(
                    f"Optics.{name}: expected {low:g} to {high:g}, got {column[bad[0]]:g} for image {bad[0]}"
                    + (f" (and {bad.size - 1} more)" if bad.size > 1 else "")
                )

    def __len__(self) -> int:
        return len(self.defocus_u_A)

    def __getitem__(self, index: Any) -> Optics:
        index = np.atleast_1d(np.arange(len(self))[index])
        return Optics(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})

    def as_params(self) -> FloatArray:
        """The (n, 9) float64 table of :func:`verglas.ops.ctf`."""
        return np.column_stack([getattr(self, name) for name in _OPTICS_DEFAULTS])
