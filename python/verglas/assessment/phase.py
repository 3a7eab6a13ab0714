"""The differential phase residual, the older sibling of the Fourier shell correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.assessment.fsc import FSC, first_crossing, fsc
from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.convert import MapLike, values_of
from verglas.types.display import one_line

_MEAN_SQUARE, _VARIANCE_OF_SQUARE = np.pi**2 / 3, 4 * np.pi**4 / 45  # of a uniform phase, radians
_FEWEST = 1e-3  # phases: of an empty shell nothing is known


@one_line
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
    phases : (n_shells,) float64
        Independent phases of each shell that would have the variance of the weighted mean: half the voxels that count
        under Friedel symmetry and mask, times the square of the mean weight over the mean square.
    """

    frequency_per_A: FloatArray
    residual_deg: FloatArray
    fsc: FSC
    phases: FloatArray

    def resolution_A(self, limit_deg: float | npt.ArrayLike = 45.0) -> float:
        """First crossing of a limit (45 and 85 degrees are usual); conventions as in :meth:`FSC.resolution_A`.

        A limit for each shell is taken, too: that of :meth:`noise_bound_deg` asks how far maps agree beyond chance.
        Shells whose limit is 0 are not tested; NaN if there is no other.
        """
        limit = np.broadcast_to(np.asarray(limit_deg, np.float64), self.residual_deg.shape)
        tested = np.flatnonzero(limit[1:] > 0) + 1
        if not tested.size:
            return float("nan")
        first = int(tested[0]) - 1  # stands for the shell 0 of the crossing
        above = np.where(limit > 0, limit - self.residual_deg, 0.0)
        return first_crossing(self.frequency_per_A[first:], above[first:])[0]

    def noise_bound_deg(self, false_alarm: float = 0.05) -> FloatArray:
        r"""What the residual of noise lies above in each shell, but for at most ``false_alarm`` of the cases.

        Phases of noise are uniform: the square of one has mean :math:`\pi^2/3` and variance :math:`4\pi^4/45`, and
        the residual's square, a mean of m of them, lies below the bound with a probability of at most
        :math:`\alpha` by Chebyshev's inequality (its one-sided form, Cantelli's), whatever its distribution:

        .. math:: DPR^2 \ge \frac{\pi^2}{3} - \sqrt{\frac{1-\alpha}{\alpha}}\, \sqrt{\frac{4 \pi^4}{45\, m}}

        Parameters
        ----------
        false_alarm : float
            :math:`\alpha`, of one shell.

        Returns
        -------
        (n_shells,) float64
            Degrees; 0 where a shell has too few voxels to exclude chance.

        Examples
        --------
        >>> import numpy as np
        >>> from verglas.assessment import differential_phase_residual
        >>> noise = np.random.default_rng(0).normal(size=(2, 24, 24, 24))
        >>> found = differential_phase_residual(*noise)
        >>> bool((found.residual_deg[1:] > found.noise_bound_deg()[1:]).all())
        True
        """
        if not 0 < false_alarm < 1:
            raise InputError(f"noise_bound_deg: false_alarm is a probability between 0 and 1, got {false_alarm:g}")
        deviation = np.sqrt(_VARIANCE_OF_SQUARE / np.maximum(self.phases, _FEWEST))
        square = _MEAN_SQUARE - np.sqrt((1 - false_alarm) / false_alarm) * deviation
        return np.rad2deg(np.sqrt(np.maximum(square, 0)))


@any_arrays
def differential_phase_residual(
    a: MapLike | npt.ArrayLike,
    b: MapLike | npt.ArrayLike,
    mask: MapLike | npt.ArrayLike | None = None,
    *,
    pixel_size_A: float | None = None,
    symmetry_order: int = 1,
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
    symmetry_order : int
        Order of the point group that was imposed on both: it counts for :meth:`PhaseResidual.noise_bound_deg`.
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
    # checks what both need
    correlation = fsc(a, b, mask, pixel_size_A=pixel_size_A, symmetry_order=symmetry_order, threads=threads)
    arrays = [np.asarray(values_of(x, "differential_phase_residual"), np.float64) for x in (a, b)]
    shape = arrays[0].shape
    if mask is not None:
        arrays = [x * np.asarray(values_of(mask, "differential_phase_residual: the mask"), np.float64) for x in arrays]
    first, second = (fourier.forward(x, len(shape), threads=threads) for x in arrays)
    weight = np.abs(first) + np.abs(second)
    square = np.rad2deg(np.angle(first * second.conj())) ** 2 * weight
    total = fourier.radial_mean(weight, shape)
    mean = np.divide(fourier.radial_mean(square, shape), total, out=np.zeros_like(total), where=total > 0)
    squared = fourier.radial_mean(weight**2, shape)
    evenness = np.divide(total**2, squared, out=np.zeros_like(total), where=squared > 0)
    return PhaseResidual(correlation.frequency_per_A, np.sqrt(mean), correlation, 0.5 * correlation.n * evenness)
