r"""Terms of the CTF that particles of one micrograph share: astigmatism, phase shift, B-factor with scale.

A change delta of the CTF's phase that is the same for all particles of a micrograph meets sums over them that hold its
likelihood exactly: with amplitude a of the reference, slice P, noise power sigma^2 and the phase chi of each particle,

.. math::
    L = \sum_k \left[2 E (S_s \cos\delta + S_c \sin\delta)
        - E^2 (P_{ss} \cos^2\delta + 2 P_{sc} \sin\delta \cos\delta + P_{cc} \sin^2\delta)\right]

S = sum a Re(X conj P) (sin chi, cos chi) / sigma^2, P likewise of a^2 \|P\|^2. delta is
:math:`\pi\lambda [x (k_x^2 - k_y^2) + 2 y k_x k_y]` of astigmatism, a constant of the phase shift, and
:math:`E = e^{g - B k^2/4}`. Each term has a normal prior about no change, as wide as micrographs of a session differ.

What scales and B-factors of all micrographs have in common is the reference's amplitude, which is fitted before them:
they tell differences, and their mean, weighted by what is known of each, is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from verglas._array_module import array_module, to_host
from verglas.optics.refine.held_out import HeldOutGain
from verglas.optics.refine.passes import Calibration, Setting, evaluate
from verglas.optics.refine.pixels import Pixels
from verglas.optics.transfer import wavelength_A
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.listener import Listener, phase_progress

Term = Literal["astigmatism", "phase_shift", "b_factor"]
# Widths of the priors: half difference of the defoci along x and diagonal (A), phase (rad), log scale and B (A^2).
_WIDTHS: dict[Term, tuple[float, ...]] = {
    "astigmatism": (200.0, 200.0),
    "phase_shift": (0.35,),
    "b_factor": (0.3, 30.0),
}
_NUISANCE: dict[Term, int] = {"astigmatism": 0, "phase_shift": 0, "b_factor": 1}  # fitted without the term as well
_RELATIVE: tuple[Term, ...] = ("b_factor",)  # what all micrographs have in common is not told
_FOLDS = 2
LEAST_PARTICLES = 4  # of a micrograph; fewer leave it as it is


@dataclass(frozen=True)
class MicrographFit(HeldOutGain):
    """A term of every micrograph.

    Attributes
    ----------
    term : str
    change, standard_error : (micrographs, parameters) float64
        Posterior mode and its standard deviation; 0 and the prior's width where there were too few particles. Scales
        and B-factors are relative to the mean of the micrographs.
    gain_nats, gain_error_nats : float
        What particles gain by the fit to the other half of their micrograph, all micrographs together, and its
        standard error.
    """

    term: Term
    change: FloatArray
    standard_error: FloatArray
    gain_nats: float
    gain_error_nats: float


class _Likelihood:
    """Sums over some particles of one micrograph, and the likelihood of changes of one term."""

    def __init__(self, pixels: Pixels, term: Term, wavelength: float) -> None:
        self.term = term
        self.cross, self.power = np.zeros((2, len(pixels))), np.zeros((3, len(pixels)))
        turns = np.pi * wavelength
        self.phases = {
            "astigmatism": np.stack([turns * (pixels.kx**2 - pixels.ky**2), 2 * turns * pixels.kx * pixels.ky]),
            "phase_shift": np.ones((1, len(pixels))),
            "b_factor": np.stack([np.ones(len(pixels)), -pixels.k2 / 4]),
        }[term]

    def __add__(self, other: _Likelihood) -> _Likelihood:
        total = object.__new__(_Likelihood)
        total.term, total.phases = self.term, self.phases
        total.cross, total.power = self.cross + other.cross, self.power + other.power
        return total

    def value(self, z: FloatArray) -> tuple[float, FloatArray]:
        """Log-likelihood and its gradient."""
        moved = z @ self.phases
        if self.term == "b_factor":
            e = np.exp(moved)
            per_pixel = 2 * e * self.cross[0] - e**2 * self.power[0]
            slope = 2 * e * self.cross[0] - 2 * e**2 * self.power[0]
        else:
            c, s = np.cos(moved), np.sin(moved)
            ss, sc, cc = self.power
            per_pixel = 2 * (self.cross[0] * c + self.cross[1] * s) - (ss * c**2 + 2 * sc * s * c + cc * s**2)
            slope = 2 * (self.cross[1] * c - self.cross[0] * s)
            slope -= 2 * (cc - ss) * s * c + 2 * sc * (c**2 - s**2)
        return float(per_pixel.sum()), np.asarray(self.phases @ slope)

    def apart(self, z: FloatArray, other: FloatArray) -> float:
        """Squared distance of two models, over the noise power."""
        one, two = z @ self.phases, other @ self.phases
        if self.term == "b_factor":
            return float(((np.exp(one) - np.exp(two)) ** 2 * self.power[0]).sum())
        c, s = np.cos(one) - np.cos(two), np.sin(one) - np.sin(two)
        return float((c**2 * self.power[0] + 2 * s * c * self.power[1] + s**2 * self.power[2]).sum())

    def information(self, z: FloatArray) -> FloatArray:
        """Expected second derivative, negated."""
        moved = z @ self.phases
        if self.term == "b_factor":
            weight = 2 * np.exp(2 * moved) * self.power[0]
        else:
            c, s = np.cos(moved), np.sin(moved)
            weight = 2 * (self.power[0] * s**2 - 2 * self.power[1] * s * c + self.power[2] * c**2)
        return np.asarray(self.phases * weight @ self.phases.T)

    def maximum(self, used: int | None = None) -> FloatArray:
        """Posterior mode; with ``used``, of the first parameters alone, the others 0."""
        width = np.asarray(_WIDTHS[self.term])
        count = len(width) if used is None else used
        whole = np.zeros(len(width))
        if count == 0:
            return whole

        def score(t: FloatArray) -> tuple[float, FloatArray]:  # in units of the prior's width
            z = whole.copy()
            z[:count] = t * width[:count]
            value, slope = self.value(z)
            return 0.5 * float(t @ t) - value, t - slope[:count] * width[:count]

        whole[:count] = minimize(score, np.zeros(count), jac=True, method="BFGS").x * width[:count]
        return whole


def micrograph_pass(
    setting: Setting,
    calibration: Calibration,
    term: Term,
    micrograph: IntArray,
    listener: Listener | None = None,
) -> MicrographFit:
    """Fit a term of every micrograph; sums are held of one micrograph at a time.

    Parameters
    ----------
    setting : Setting
    calibration : Calibration
    term : {"astigmatism", "phase_shift", "b_factor"}
    micrograph : (n,) int64
        Numbers from 0.
    listener : Listener, optional

    Returns
    -------
    MicrographFit
    """
    optics, pixels = setting.particles.optics, setting.pixels
    params, wavelength = optics.as_params(), wavelength_A(optics.voltage_kV)
    width = np.asarray(_WIDTHS[term])
    total = int(micrograph.max()) + 1
    change, error = np.zeros((total, len(width))), np.tile(width, (total, 1))
    known = np.zeros((total, len(width)))
    gain = variance = 0.0
    order = np.argsort(micrograph, kind="stable")
    bounds = np.searchsorted(micrograph[order], np.arange(total + 1))
    tell: Callable[[int, int], None] = lambda done, of: None  # noqa: E731
    if listener is not None:
        tell = phase_progress(listener, f"micrographs for their {term.replace('_', ' ')}")
    for number in range(total):
        rows = order[bounds[number] : bounds[number + 1]]
        tell(number + 1, total)
        if len(rows) < LEAST_PARTICLES:
            continue
        folds = [_Likelihood(pixels, term, float(wavelength[rows[0]])) for _ in range(_FOLDS)]
        for part in setting.batches(rows):
            _add(folds, setting, calibration, part, params)
        whole = folds[0] + folds[1]
        change[number] = whole.maximum()
        information = whole.information(change[number])
        known[number] = np.diag(information)
        covariance = np.linalg.inv(information + np.diag(width**-2.0))
        error[number] = np.sqrt(np.diag(covariance))
        for f in range(_FOLDS):
            one, spread = _gain(folds[f], folds[1 - f])
            gain, variance = gain + one, variance + spread
    if term in _RELATIVE:
        change = _relative(change, known)
    return MicrographFit(term, change, error, gain, float(np.sqrt(variance)))


def _relative(change: FloatArray, known: FloatArray) -> FloatArray:
    """Changes less their mean, weighted by what is known of each; micrographs that were not fitted keep none."""
    total = known.sum(axis=0)
    mean = np.divide((known * change).sum(axis=0), total, out=np.zeros(len(total)), where=total > 0)
    return np.where(known > 0, change - mean, 0.0)


def _add(
    folds: list[_Likelihood], setting: Setting, calibration: Calibration, rows: IntArray, params: FloatArray
) -> None:
    """Sums of particles of one half and group to their folds."""
    batch, _ = evaluate(setting, calibration, rows, params)
    xp = array_module(batch.cross)
    a = xp.asarray(calibration.amplitude[setting.half[rows[0]]][setting.pixels.shell])
    real, power = batch.cross.real * a, batch.power * a**2
    cross = (real * batch.sine, real * batch.cosine)
    powers = (power * batch.sine**2, power * batch.sine * batch.cosine, power * batch.cosine**2)
    for f, likelihood in enumerate(folds):
        mine = xp.asarray(np.flatnonzero(setting.fold[rows] == f))
        for i, values in enumerate(cross):
            likelihood.cross[i] += to_host(values[mine].sum(axis=0))
        for i, values in enumerate(powers):
            likelihood.power[i] += to_host(values[mine].sum(axis=0))


def _gain(seen: _Likelihood, unseen: _Likelihood) -> tuple[float, float]:
    """What unseen particles gain by the term over what is fitted without it, and its variance."""
    best, without = seen.maximum(), seen.maximum(_NUISANCE[seen.term])
    # noise moves 2 (m - m0) . n by its variance, 2 |m - m0|^2
    return unseen.value(best)[0] - unseen.value(without)[0], 2 * unseen.apart(best, without)
