"""Contrast-transfer parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, host_array
from verglas.types.ctf_ranges import refuse_outside
from verglas.types.display import Shown, span
from verglas.types.even_aberrations import FOURTH_ORDER

# Default of a column that __post_init__ fills in; typed so that readers of the class see the arrays it then holds.
_ABSENT: Any = None


_OPTICS_DEFAULTS = {
    "defocus_u_A": 0.0,
    "defocus_v_A": 0.0,
    "defocus_angle_deg": 0.0,
    "voltage_kV": 300.0,
    "cs_mm": 2.7,
    "amplitude_contrast": 0.1,
    "phase_shift_deg": 0.0,
    "b_factor_A2": 0.0,
    "scale": 1.0,
    **dict.fromkeys(FOURTH_ORDER, 0.0),
}


@dataclass(frozen=True, eq=False, repr=False)
class Optics(Shown):
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
    spherical4_A4, astigmatism4_x_A4, astigmatism4_y_A4, tetrafoil_x_A4, tetrafoil_y_A4 : (n,) float64
        Even aberrations of fourth order beside Cs: the phase chi gains k^4 times (first + second cos 2t + third sin 2t
        + fourth cos 4t + fifth sin 4t), t the angle of k from +x towards +y; radians, k in 1/A.

    Examples
    --------
    >>> from verglas import Optics
    >>> o = Optics(defocus_u_A=[15000, 16000], defocus_v_A=[14800, 15700])
    >>> len(o), o.voltage_kV.tolist(), o.as_params().shape
    (2, [300.0, 300.0], (2, 14))
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
    spherical4_A4: FloatArray = _ABSENT
    astigmatism4_x_A4: FloatArray = _ABSENT
    astigmatism4_y_A4: FloatArray = _ABSENT
    tetrafoil_x_A4: FloatArray = _ABSENT
    tetrafoil_y_A4: FloatArray = _ABSENT

    def __post_init__(self) -> None:
        """Broadcast every column to one length and check the ranges; a NaN is let pass: its image is set aside."""
        given: dict[str, Any] = {}
        for name, default in (*_OPTICS_DEFAULTS.items(), ("group", 0), ("pixel_size_A", np.nan)):
            value = getattr(self, name)
            given[name] = np.atleast_1d(host_array(default if value is None else value))
        lengths = {name: len(value) for name, value in given.items() if len(value) != 1}
        if len(set(lengths.values())) > 1:
            raise InputError(f"Optics: columns of different lengths: {lengths}")
        n = next(iter(lengths.values()), 1)
        for name, value in given.items():
            dtype = np.int64 if name == "group" else np.float64
            object.__setattr__(self, name, np.ascontiguousarray(np.broadcast_to(value, n), dtype=dtype))
        refuse_outside({name: getattr(self, name) for name in given}, "Optics", {name: name for name in given})

    def __repr__(self) -> str:
        return (
            f"Optics({len(self)} images, defocus {span(self.defocus_u_A, 'A')}, {span(self.voltage_kV, 'kV')}, "
            f"Cs {span(self.cs_mm, 'mm')}, amplitude contrast {span(self.amplitude_contrast)})"
        )

    def __len__(self) -> int:
        return len(self.defocus_u_A)

    def __getitem__(self, index: Any) -> Optics:
        index = np.atleast_1d(np.arange(len(self))[index])
        return Optics(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})

    def unusable(self) -> dict[int, str]:
        """Number of each image whose CTF says nothing -> why: parameters that are not finite, or a scale of zero.

        Examples
        --------
        >>> Optics([15000, float("nan")], [15000, 15000], scale=[0, 1]).unusable()
        {1: 'its CTF parameters are not finite', 0: 'its CTF scale factor is zero: it has no weight'}
        """
        bad = np.flatnonzero(~np.isfinite(self.as_params()).all(axis=1))
        zero = np.setdiff1d(np.flatnonzero(self.scale == 0), bad)
        return {
            **{int(i): "its CTF parameters are not finite" for i in bad},
            **{int(i): "its CTF scale factor is zero: it has no weight" for i in zero},
        }

    def as_params(self) -> FloatArray:
        """The (n, 14) float64 table of :func:`verglas.ops.ctf`."""
        return np.column_stack([getattr(self, name) for name in _OPTICS_DEFAULTS])
