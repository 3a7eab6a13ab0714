"""How amplitudes fall with resolution: the Guinier plot, its B-factor, and sharpening.

Everywhere amplitudes fall as exp(-B s^2 / 4), s = 1/d: a positive B is a blurred map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from verglas import filters, fourier
from verglas.errors import InputError
from verglas.types import Map
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.convert import MapLike, map_of

# Coarser than this, the molecule's shape and its solvent set the amplitudes, not the disorder of its atoms.
WILSON_FROM_A = 10.0
_FEWEST_SHELLS = 4


def b_factor_of_displacement(sigma_A: float) -> float:
    r"""B-factor of atoms that scatter about their places: :math:`B = 8 \pi^2 \sigma^2`.

    Displacements of standard deviation sigma along each axis multiply the mean transform with
    :math:`e^{-2\pi^2\sigma^2 s^2} = e^{-B s^2/4}`.

    Parameters
    ----------
    sigma_A : float
        Along each axis, in angstrom.

    Returns
    -------
    float
        In angstrom^2.

    Examples
    --------
    >>> from verglas.assessment import b_factor_of_displacement
    >>> round(b_factor_of_displacement(1.0), 2)
    78.96
    """
    return float(8.0 * np.pi**2 * sigma_A**2)


def displacement_of_b_factor(b_factor_A2: float) -> float:
    """Inverse of :func:`b_factor_of_displacement`.

    Examples
    --------
    >>> from verglas.assessment import displacement_of_b_factor
    >>> round(displacement_of_b_factor(80.0), 3)
    1.007
    """
    return float(np.sqrt(b_factor_A2 / (8.0 * np.pi**2)))


def amplitude_spectrum(volume: MapLike, *, threads: int | None = None) -> FloatArray:
    """Root mean square of abs(F) over each shell, shells 0 to N // 2.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import amplitude_spectrum
    >>> x = np.zeros((8, 8, 8)); x[4, 4, 4] = 3
    >>> amplitude_spectrum(vg.Map(x, 1.0)).round(6).tolist()
    [3.0, 3.0, 3.0, 3.0, 3.0]
    """
    volume = map_of(volume, "amplitude_spectrum: the map")
    shape = (volume.box,) * 3
    power = fourier.shell_sums([fourier.forward(volume.data, 3, threads=threads)], shape)[0]
    return np.sqrt(power / fourier.shell_counts(shape)[0])


@dataclass(frozen=True)
class Guinier:
    """Guinier plot: the logarithm of the amplitude against s^2, and the line through it.

    Attributes
    ----------
    s2_per_A2 : (n_shells,) float64
        s^2.
    ln_amplitude : (n_shells,) float64
        ln of the root-mean-square amplitude; NaN for an empty shell.
    ln_weighted : (n_shells,) float64
        The same times C_ref: the amplitude of what both half maps share; NaN where they share nothing.
    b_factor_A2 : float or None
        -4 times the slope of the line; None where no line was fitted.
    intercept : float or None
        ln amplitude of the line at s = 0.
    band_A : tuple of float or None
        Coarse and fine end of the fit.
    reason : str
        Why no line was fitted; empty if one was.
    b_error_A2 : float or None
        Standard error of B from the scatter of the shells about the line.
    """

    s2_per_A2: FloatArray
    ln_amplitude: FloatArray
    ln_weighted: FloatArray
    b_factor_A2: float | None = None
    intercept: float | None = None
    band_A: tuple[float, float] | None = None
    reason: str = ""
    b_error_A2: float | None = None

    @property
    def fit(self) -> FloatArray:
        """The line, within the band; NaN elsewhere."""
        line = np.full_like(self.s2_per_A2, np.nan)
        if self.b_factor_A2 is not None and self.intercept is not None and self.band_A is not None:
            inside = _inside(self.s2_per_A2, self.band_A)
            # A quarter: the amplitude falls as exp(-B s^2 / 4), the power as exp(-B s^2 / 2).
            line[inside] = self.intercept - 0.25 * self.b_factor_A2 * self.s2_per_A2[inside]
        return line


def _inside(s2: FloatArray, band_A: tuple[float, float]) -> npt.NDArray[np.bool_]:
    coarse, fine = band_A
    slack = 1.0 + 1e-9  # a shell that lies on the end belongs to the band
    return np.asarray((s2 * slack >= 1.0 / coarse**2) & (s2 <= slack / fine**2))


class GuinierLine(NamedTuple):
    """Line through a Guinier plot: its slope, B = -4 slope with standard error, and the value at s = 0."""

    slope_A2: float
    intercept: float
    b_factor_A2: float
    b_error_A2: float


@any_arrays
def fit_guinier(
    s2_per_A2: npt.ArrayLike, ln_amplitude: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> GuinierLine:
    """Straight line through points of a Guinier plot.

    Parameters
    ----------
    s2_per_A2, ln_amplitude : (n,) float
        At least four points.
    weight : (n,) float, optional
        A residual counts with its square; equal if not given.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import fit_guinier
    >>> s2 = np.linspace(0.01, 0.1, 10)
    >>> round(fit_guinier(s2, 3 - 30 * s2).b_factor_A2, 6)
    120.0
    """
    # np.polyfit's weights multiply residuals, not their squares: a shell counts by its weight squared.
    s2, values = np.asarray(s2_per_A2, np.float64), np.asarray(ln_amplitude, np.float64)
    share = np.ones_like(s2) if weight is None else np.asarray(weight, np.float64)
    (slope, intercept), covariance = np.polyfit(s2, values, 1, w=share, cov=True)
    error = float(4.0 * np.sqrt(covariance[0, 0]))
    return GuinierLine(float(slope), float(intercept), float(-4.0 * slope), error)


@any_arrays
def guinier(
    volume: MapLike,
    weight: npt.ArrayLike | None = None,
    band_A: tuple[float, float] | None = None,
    *,
    threads: int | None = None,
) -> Guinier:
    r"""Guinier plot of a map and the B-factor of a weighted straight line.

    .. math::
        \ln |F(s)| = \ln |F_0| - \frac{B}{4} s^2

    The line goes through the logarithm of amplitude times weight; a shell counts with the square of its weight, the
    share of its power that is signal, so the noisy end of the band does not pull.

    Parameters
    ----------
    volume : Map
        A cube, best masked.
    weight : (n_shells,) float, optional
        C_ref per shell (:func:`verglas.assessment.c_ref`), 1 if not given.
    band_A : tuple of float, optional
        Coarse and fine end of the fit in angstrom; 10 A to the last shell if not given.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Guinier
        Without a line, and with the reason, if fewer than four shells with signal lie in the band.

    References
    ----------
    Rosenthal & Henderson, J. Mol. Biol. 333 (2003) 721.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import guinier
    >>> x = np.zeros((48, 48, 48)); x[24, 24, 24] = 1
    >>> blurred = vg.filters.apply(vg.Map(x, 1.5), vg.filters.b_factor(120.0))
    >>> abs(guinier(blurred).b_factor_A2 - 120.0) < 0.5
    True
    """
    volume = map_of(volume, "guinier: the map")
    amplitude = amplitude_spectrum(volume, threads=threads)
    s2 = (np.arange(len(amplitude)) / (volume.box * volume.pixel_size_A)) ** 2
    c = np.ones_like(amplitude) if weight is None else np.clip(np.asarray(weight, np.float64), 0.0, 1.0)
    if c.shape != amplitude.shape:
        raise InputError(f"guinier: expected {len(amplitude)} weights, one per shell, got shape {c.shape}")
    with np.errstate(divide="ignore"):
        plain, weighted = np.log(amplitude), np.log(amplitude * c)
    plain[~np.isfinite(plain)], weighted[~np.isfinite(weighted)] = np.nan, np.nan
    coarse, fine = band_A or (WILSON_FROM_A, float(1.0 / np.sqrt(s2[-1])))
    chosen = _inside(s2, (coarse, fine)) & np.isfinite(weighted)
    if not coarse > fine or np.count_nonzero(chosen) < _FEWEST_SHELLS:
        ends = f"to {fine:.3g} A" if coarse > fine else "and the maps hold no signal that is as fine"
        reason = (
            f"no B-factor was fitted: the line goes from {coarse:.3g} A, where amplitudes begin to show the B-factor "
            f"rather than the molecule's shape, {ends}; it needs {_FEWEST_SHELLS} shells with signal, found "
            f"{np.count_nonzero(chosen)}"
        )
        return Guinier(s2, plain, weighted, reason=reason)
    line = fit_guinier(s2[chosen], weighted[chosen], c[chosen])
    band = (float(coarse), float(fine))
    return Guinier(s2, plain, weighted, line.b_factor_A2, line.intercept, band, b_error_A2=line.b_error_A2)


def match_spectrum(
    volume: MapLike, reference: MapLike, resolution_A: float | None = None, *, threads: int | None = None
) -> Map:
    """Sharpen a map to the amplitudes of a reference, shell by shell; phases stay.

    Parameters
    ----------
    volume, reference : Map
        Cubes of one box and pixel size; the reference is for example the density of a model.
    resolution_A : float, optional
        Low-pass of the result; without it noise beyond the resolution gets the reference's amplitudes, too.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Map
        Shells where the map is empty stay so.

    Raises
    ------
    InputError
        Boxes or pixel sizes differ.

    References
    ----------
    Fernandez et al., J. Struct. Biol. 164 (2008) 170.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import amplitude_spectrum, match_spectrum
    >>> truth = vg.Map(np.random.default_rng(0).normal(size=(16, 16, 16)), 2.0)
    >>> blurred = vg.filters.apply(truth, vg.filters.b_factor(50.0))
    >>> ratio = amplitude_spectrum(match_spectrum(blurred, truth)) / amplitude_spectrum(truth)
    >>> bool(abs(ratio - 1).max() < 0.02)
    True
    """
    volume, reference = map_of(volume, "match_spectrum: the map"), map_of(reference, "match_spectrum: the reference")
    if volume.box != reference.box or abs(volume.pixel_size_A - reference.pixel_size_A) > 1e-3 * volume.pixel_size_A:
        raise InputError(
            f"match_spectrum: the map has {volume.box} voxels of {volume.pixel_size_A:g} A, the reference "
            f"{reference.box} of {reference.pixel_size_A:g} A; resample one"
        )
    have, want = (amplitude_spectrum(m, threads=threads) for m in (volume, reference))
    shell = np.divide(want, have, out=np.zeros_like(have), where=have > 1e-6 * have.max())
    gain = filters.from_curve(np.arange(len(shell)) / (volume.box * volume.pixel_size_A), shell)
    if resolution_A is not None:
        gain = filters.product(gain, filters.low_pass(resolution_A))
    return filters.apply(volume, gain, threads=threads)
