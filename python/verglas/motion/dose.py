"""Radiation damage: how much of the signal a dose leaves, and the weights that make the best of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from verglas.errors import InputError
from verglas.optics import critical_exposure_e_A2
from verglas.types.arrays import FloatArray, any_arrays


def accumulated_dose(n_frames: int, dose_per_frame_e_A2: float, pre_exposure_e_A2: float = 0.0) -> FloatArray:
    """Exposure at the end of each frame: (n_frames,) e/A2.

    Raises
    ------
    InputError
        A dose that is not positive, a pre-exposure below 0.
    """
    if not dose_per_frame_e_A2 > 0 or not np.isfinite(dose_per_frame_e_A2):
        raise InputError(f"dose weighting: expected a positive dose per frame in e/A2, got {dose_per_frame_e_A2:g}")
    if not 0 <= pre_exposure_e_A2 < np.inf:
        raise InputError(f"dose weighting: expected a pre-exposure of 0 e/A2 or more, got {pre_exposure_e_A2:g}")
    return pre_exposure_e_A2 + dose_per_frame_e_A2 * np.arange(1.0, n_frames + 1)


@any_arrays
def dose_weights(frequency_per_A: npt.ArrayLike, dose_e_A2: npt.ArrayLike, voltage_kV: float = 300.0) -> FloatArray:
    r"""What each frame counts at each frequency, q / sqrt(sum q^2) with q = exp(-N / (2 N_c(k))).

    The squares add up to 1, so white noise of the frames stays white and keeps its variance. There is no cut-off: the
    weights are those of the best signal-to-noise ratio whatever the dose.

    Parameters
    ----------
    frequency_per_A : (k...) array_like
    dose_e_A2 : (n_frames,) array_like
        N at the end of each frame.
    voltage_kV : float

    Returns
    -------
    (n_frames, k...) float64
        At k = 0 all frames alike.

    Examples
    --------
    >>> from verglas.motion.dose import dose_weights
    >>> w = dose_weights([0.0, 0.2], [1.0, 21.0])
    >>> w.round(3).tolist(), (w**2).sum(0).round(9).tolist()
    ([[0.707, 0.979], [0.707, 0.204]], [1.0, 1.0])
    """
    critical = critical_exposure_e_A2(frequency_per_A, voltage_kV)
    dose = np.asarray(dose_e_A2, float).reshape(-1, *(1,) * critical.ndim)
    # only ratios count: the least dose is taken off, so that a large pre-exposure cannot turn them into 0 / 0
    q = np.exp(-(dose - dose.min()) / (2 * critical))
    return np.asarray(q / np.sqrt((q**2).sum(0)))


def separable_weights(
    dose_e_A2: npt.ArrayLike,
    highest_frequency_per_A: float,
    voltage_kV: float = 300.0,
    *,
    used: npt.ArrayLike | None = None,
    tolerance: float = 1e-4,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Dose weights as a short sum of products: w_f(k) = sum_r a_fr b_r(k), to ``tolerance`` of the largest.

    The dose-weighted sum of all frames then takes one transform for each r, not one for each frame: about six.

    Returns
    -------
    frame_factors : (n_frames, r) float64
    frequencies_per_A : (m,) float64
        Where the curves are given, from 0 to the highest frequency.
    curves : (r, m) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.motion.dose import accumulated_dose, dose_weights, separable_weights
    >>> dose = accumulated_dose(40, 1.0)
    >>> a, k, b = separable_weights(dose, 0.7)
    >>> a.shape[1] < 9, bool(np.abs(a @ b - dose_weights(k, dose)).max() < 1e-4)
    (True, True)
    """
    k = np.linspace(0, highest_frequency_per_A, 513)
    dose = np.asarray(dose_e_A2, float)
    keep = np.ones(len(dose), bool) if used is None else np.asarray(used, bool)
    weights = dose_weights(k, dose[keep], voltage_kV)
    with threadpool_limits(1, user_api="blas"):  # a small system: several threads mostly wait for each other
        left, size, right = np.linalg.svd(weights, full_matrices=False)
    parts = left * size
    rank = next(
        r
        for r in range(1, len(size) + 1)
        if r == len(size) or np.abs(parts[:, :r] @ right[:r] - weights).max() < tolerance
    )
    factors = np.zeros((len(dose), rank))
    factors[keep] = parts[:, :rank]
    return factors, k, right[:rank]
