"""The differential phase residual, the older sibling of the Fourier shell correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.assessment.fsc import FSC, first_crossing, fsc
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.convert import MapLike, values_of


@dataclass(frozen=True)
class PhaseResidual:
    """Differential phase residual per shell.

    Attributes
    ----------
    frequency_per_A : (n_shells,) float64
        Spatial frequency.
    residual_deg : (n_shells,) float64
        0 for equal maps, 180 / sqrt(3) = 103.9 without signal.
    fsc : FSC
        Of the same two maps.
    """

    frequency_per_A: FloatArray
    residual_deg: FloatArray
    fsc: FSC

    def resolution_A(self, limit_deg: float = 45.0) -> float:
        """First crossing of a limit (45 and 85 degrees are usual); conventions as in :meth:`FSC.resolution_A`."""
        return first_crossing(self.frequency_per_A, limit_deg - self.residual_deg)[0]


@any_arrays
def differential_phase_residual(
    a: MapLike | npt.ArrayLike,
    b: MapLike | npt.ArrayLike,
    mask: MapLike | npt.ArrayLike | None = None,
    *,
    pixel_size_A: float | None = None,
    threads: int | None = None,
) -> PhaseResidual:
    r"""Differential phase residual of two maps or images.

    .. math::
        DPR(R)^2 = \frac{\sum_{k \in R} \Delta\phi_k^2\,(|A_k| + |B_k|)}{\sum_{k \in R} (|A_k| + |B_k|)}

    Unlike the FSC it depends on the relative scale of the two maps, so maps of equal scale are expected.

    Parameters
    ----------
    a, b : Map or (N, N, N) or (N, N) float
        Maps of one scale.
    mask : Map or array, optional
        Multiplied with both.
    pixel_size_A : float, optional
        For arrays; 1 if not given.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    PhaseResidual

    Raises
    ------
    InputError
        As :func:`fsc`.

    References
    ----------
    Frank, Verschoor & Boublik, Science 214 (1981) 1353; Unser, Trus & Steven, Ultramicroscopy 23 (1987) 39.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import differential_phase_residual
    >>> a, b = np.random.default_rng(0).normal(size=(2, 24, 24, 24))
    >>> result = differential_phase_residual(a, b)
    >>> abs(float(result.residual_deg[4:].mean()) - 103.9) < 1
    True
    """
    correlation = fsc(a, b, mask, pixel_size_A=pixel_size_A, threads=threads)  # checks what both need
    arrays = [np.asarray(values_of(x, "differential_phase_residual"), np.float64) for x in (a, b)]
    shape = arrays[0].shape
    if mask is not None:
        arrays = [x * np.asarray(values_of(mask, "differential_phase_residual: the mask"), np.float64) for x in arrays]
    first, second = (fourier.forward(x, len(shape), threads=threads) for x in arrays)
    weight = np.abs(first) + np.abs(second)
    square = np.rad2deg(np.angle(first * second.conj())) ** 2 * weight
    total = fourier.radial_mean(weight, shape)
    mean = np.divide(fourier.radial_mean(square, shape), total, out=np.zeros_like(total), where=total > 0)
    return PhaseResidual(correlation.frequency_per_A, np.sqrt(mean), correlation)
