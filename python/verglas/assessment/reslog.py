"""ResLog: resolution against the number of particles, whose slope is a B factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays


@dataclass(frozen=True)
class ResLog:
    """A line through 1 / d^2 against ln N.

    Attributes
    ----------
    b_factor_A2 : float
        2 / slope.
    b_factor_error_A2 : float
        Its standard error; NaN of two points.
    slope, intercept : float
        1 / d^2 = slope ln N + intercept, 1/A^2.
    """

    b_factor_A2: float
    b_factor_error_A2: float
    slope: float
    intercept: float

    def resolution_A(self, n_particles: npt.ArrayLike) -> FloatArray:
        """Resolution that so many particles give on this line; NaN where it says none."""
        inverse = self.slope * np.log(np.asarray(n_particles, float)) + self.intercept
        return np.asarray(np.where(inverse > 0, 1 / np.sqrt(np.maximum(inverse, 1e-12)), np.nan))

    def particles(self, resolution_A: npt.ArrayLike) -> FloatArray:
        """Particles that a resolution takes on this line."""
        return np.asarray(np.exp((np.asarray(resolution_A, float) ** -2 - self.intercept) / self.slope))


@any_arrays
def reslog(n_particles: npt.ArrayLike, resolutions_A: npt.ArrayLike) -> ResLog:
    r"""Fit the line of a ResLog plot.

    .. math:: N \propto e^{B / (2 d^2)} \;\Rightarrow\; \frac{1}{d^2} = \frac{2}{B} \ln N + \mathrm{const.}

    Parameters
    ----------
    n_particles, resolutions_A : (n,) array_like
        Subsets of one set of particles, each refined.

    Raises
    ------
    InputError
        Fewer than two different numbers, a value that is not positive, or a resolution that does not get better.

    Notes
    -----
    P. B. Rosenthal and R. Henderson (2003) J. Mol. Biol. 333, 721; S. M. Stagg et al. (2014) J. Struct. Biol. 185, 418.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import reslog
    >>> n = np.array([1e3, 1e4, 1e5])
    >>> line = reslog(n, 1 / np.sqrt(2 / 100 * np.log(n) - 0.1))
    >>> round(line.b_factor_A2, 6), line.resolution_A(1e6).round(3).item()
    (100.0, 2.382)
    """
    n, d = np.asarray(n_particles, float), np.asarray(resolutions_A, float)
    if n.shape != d.shape or n.ndim != 1 or len(np.unique(n)) < 2:
        raise InputError(f"reslog: expected resolutions of two and more numbers of particles, got {n.shape}, {d.shape}")
    if not (np.all(n > 0) and np.all(d > 0) and np.isfinite(n).all() and np.isfinite(d).all()):
        raise InputError("reslog: numbers of particles and resolutions are positive and finite")
    design = np.stack([np.log(n), np.ones(len(n))], 1)
    values = d**-2
    (slope, intercept), *_ = np.linalg.lstsq(design, values, rcond=None)
    if slope <= 0:
        raise InputError("reslog: the resolution does not get better with more particles, so there is no B factor")
    error = float("nan")
    if len(n) > 2:
        variance = ((values - design @ [slope, intercept]) ** 2).sum() / (len(n) - 2)
        # B = 2 / slope, so its error is 2 / slope^2 times that of the slope.
        error = 2 / slope**2 * float(np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0]))
    return ResLog(2 / float(slope), error, float(slope), float(intercept))
