"""What is known of particles and of the maps they were compared with; both go into checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.types.arrays import FloatArray, IntArray


@dataclass
class PoseTable:
    """What is known of each particle.

    Attributes
    ----------
    angles_deg : (n, 3) float64
        rot, tilt, psi.
    origin_px : (n, 2) float64
        Shift that brings the particle to the centre.
    class_number : (n,) int64
        Best class, from 0.
    log_evidence : (n,) float64
        Log marginal likelihood over poses and classes.
    max_probability : (n,) float64
        Posterior of the best pose.
    effective_poses : (n,) float64
        exp of the posterior's entropy.
    norm : (n,) float64
        Noise level of the image on that of its group: images are divided by it.
    angle_error_deg, shift_error_px : (n,) float64
        Cramer-Rao bound at the best pose; NaN where it was not computed.
    """

    angles_deg: FloatArray
    origin_px: FloatArray
    class_number: IntArray
    log_evidence: FloatArray
    max_probability: FloatArray
    effective_poses: FloatArray
    norm: FloatArray
    angle_error_deg: FloatArray
    shift_error_px: FloatArray

    @classmethod
    def unknown(cls, n: int) -> PoseTable:
        """Nothing is known yet."""
        nan = np.full(n, np.nan)
        return cls(
            np.zeros((n, 3)),
            np.zeros((n, 2)),
            np.zeros(n, np.int64),
            nan.copy(),
            nan.copy(),
            nan.copy(),
            np.ones(n),
            nan.copy(),
            nan.copy(),
        )

    def take(self, rows: IntArray, other: PoseTable) -> None:
        """These rows from another table."""
        for name, value in vars(self).items():
            value[rows] = getattr(other, name)[rows]

    def of(self, rows: IntArray) -> PoseTable:
        """These rows, as a table of their own."""
        return PoseTable(**{name: value[rows] for name, value in vars(self).items()})

    def put(self, rows: IntArray, other: PoseTable) -> None:
        """Replace these rows by those of a table that holds no others."""
        for name, value in vars(self).items():
            value[rows] = getattr(other, name)

    def concatenate(self, other: PoseTable) -> PoseTable:
        """Both tables, end to end."""
        return PoseTable(**{name: np.concatenate([v, getattr(other, name)]) for name, v in vars(self).items()})

    def copy(self) -> PoseTable:
        """Independent arrays."""
        return PoseTable(**{name: value.copy() for name, value in vars(self).items()})


@dataclass
class HalfModel:
    """What one half set has taught; the other half never sees it.

    Attributes
    ----------
    volumes : (classes, N, N, N) float32
        Maps, regularised, not masked.
    sigma2 : (groups, shells) float64
        Noise variance of one coefficient of the unnormalised transform.
    scale : (micrographs,) float64
        Grey scale.
    class_weight : (classes,) float64
        Share of the particles in each class.
    """

    volumes: npt.NDArray[np.float32]
    sigma2: FloatArray
    scale: FloatArray
    class_weight: FloatArray
