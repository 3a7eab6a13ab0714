"""How a movie was recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas.types.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Exposure:
    """What is known of how a movie was recorded.

    Attributes
    ----------
    pixel_size_A : float
    dose_per_frame_e_A2 : float or None
        None: frames are taken to show the same, without damage.
    voltage_kV : float
    pre_exposure_e_A2 : float
    """

    pixel_size_A: float
    dose_per_frame_e_A2: float | None = None
    voltage_kV: float = 300.0
    pre_exposure_e_A2: float = 0.0

    def middle_of(self, used: IntArray) -> FloatArray | None:
        """Exposure by the middle of frames, e/A2."""
        dose = self.dose_per_frame_e_A2
        return None if dose is None else np.asarray(self.pre_exposure_e_A2 + dose * (used + 0.5), float)
