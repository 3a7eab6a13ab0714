"""Radiation damage: what an exposure leaves of a structure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays


@any_arrays
def critical_exposure_e_A2(k_per_A: npt.ArrayLike, voltage_kV: float = 300.0) -> FloatArray:
    r"""Exposure at which the amplitude of a structure's Fourier terms has fallen to exp(-1/2).

    .. math:: N_c(k) = s\,(0.245\,k^{-1.665} + 2.81), \quad
        s = 1 \text{ at } 300,\ 0.8 \text{ at } 200,\ 0.64 \text{ at } 100\text{ kV}

    At exposure N there is left exp(-N / (2 N_c)) of the amplitude. Between these voltages s is linear; the curve was
    measured at 300 kV, the factors are those of RELION and cisTEM. Grant and Grigorieff (2015) eLife 4, e06980.

    Parameters
    ----------
    k_per_A : array_like
        Spatial frequency, 1/A; infinity comes out at 0.
    voltage_kV : float
        80 to 350.

    Returns
    -------
    float64, same shape
        e/A^2.

    Raises
    ------
    InputError
        A voltage for which nothing is known.

    Examples
    --------
    >>> from verglas import optics
    >>> optics.critical_exposure_e_A2([0.1, 0.25, 0.5]).round(2).tolist()
    [14.14, 5.27, 3.59]
    """
    if not 80 <= voltage_kV <= 350:
        raise InputError(f"no critical exposure is known at {voltage_kV:g} kV; expected 80 to 350")
    scale = float(np.interp(voltage_kV, [100, 200, 300], [0.64, 0.8, 1.0]))
    with np.errstate(divide="ignore"):
        return np.asarray(scale * (0.245 * np.asarray(k_per_A, np.float64) ** -1.665 + 2.81))
