"""The field that makes the frames agree best: Newton steps on one objective, with analytic gradients and a prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from verglas import ops
from verglas.motion.fields import Field
from verglas.motion.patches import Patches
from verglas.types.arrays import FloatArray

ITERATIONS = 10
SETTLED_NATS = 0.1  # a step that promises less is not made
LEAST_STEP = 1 / 32
MOST_SHARED = 0.95  # of what all other frames say together, for one frame
STEPS = 8  # halvings and doublings of a standard deviation that the evidence may ask for at once
LEAST_PX, MOST_PX = 0.003, 100.0  # standard deviations of a prior


@dataclass(frozen=True, eq=False)
class Quadratic:
    """The log-likelihood of a field's coefficients about a point: b.c - c.H.c / 2 of each axis, up to a constant.

    Attributes
    ----------
    slope : (2, size) float64
        b.
    information : (size, size) float64
        H, alike for both axes.
    """

    slope: FloatArray
    information: FloatArray

    def solve(self, precision: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coefficients of the highest posterior (2, size), and the covariance of an axis (size, size)."""
        factor = scipy.linalg.cho_factor(self.information + np.diag(precision), lower=True)
        covariance = scipy.linalg.cho_solve(factor, np.eye(len(precision)))
        return self.slope @ covariance, covariance

    def evidence(self, precision: FloatArray) -> float:
        """Log of the probability of the data, up to a constant: both axes."""
        factor = scipy.linalg.cholesky(self.information + np.diag(precision), lower=True)
        whitened = scipy.linalg.solve_triangular(factor, self.slope.T, lower=True)
        return float(0.5 * (whitened**2).sum() + np.log(precision).sum() - 2 * np.log(np.diag(factor)).sum())


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted field.

    Attributes
    ----------
    field : Field
    coefficients : (2, size) float64
    scores : ShiftScores
        At the fit, of every patch.
    value : float
        Log-likelihood in nats, up to a constant.
    """

    field: Field
    coefficients: FloatArray
    scores: ops.ShiftScores

    @property
    def value(self) -> float:
        """Of all patches."""
        return float(self.scores.value.sum())

    @property
    def at_patches(self) -> FloatArray:
        """(n, frames, 2) px."""
        return self.field.at_patches(self.coefficients)


def frame_strengths(curvature: FloatArray) -> FloatArray:
    """R of the model c_f = r_f (sum r - r_f) for the curvatures c of all frames: what each frame says, (frames,)."""
    c = np.maximum(curvature, 1e-4 * max(float(curvature.max()), 1e-300))
    # no frame can say more than it shares with the others: in noise alone one may seem to, and r would run away
    c = np.minimum(c, MOST_SHARED * (c.sum() - c)) if len(c) > 2 else np.full(len(c), c.mean())
    r = np.sqrt(c / max(1, len(c) - 1))
    for _ in range(50):
        r = np.sqrt(r * c / np.maximum(r.sum() - r, 1e-300))
    return np.asarray(r)


def shift_information(curvature: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Expected information of the shifts along one axis as a product: places (n,) and frames (f, f).

    Frames f and g inform each other by -a_p r_f r_g, so rows add up to zero: a shift of all frames changes nothing. The
    curvature of a single frame of a patch is mostly noise, of all frames or all patches it is not.
    """
    isotropic = 0.5 * (curvature[..., 0] + curvature[..., 2])
    r = frame_strengths(isotropic.sum(0))
    frames = np.diag(r * (r.sum() - r)) - (np.outer(r, r) - np.diag(r * r))
    places = isotropic.sum(1) / max(float(np.trace(frames)), 1e-300)
    return np.clip(places, 0.1 * max(float(places.mean()), 1e-300), None), frames


def quadratic(field: Field, scores: ops.ShiftScores, at_patches: FloatArray) -> Quadratic:
    """About the field ``at_patches`` (n, frames, 2) where the scores were taken, in the coefficients of ``field``."""
    gradient, curvature = scores.derivatives()
    places, frames = shift_information(curvature)
    pushed = places[:, None, None] * np.einsum("fg,pga->pfa", frames, at_patches)
    return Quadratic(field.adjoint(gradient + pushed), field.information(places, frames))


def tune_prior(field: Field, about: Quadratic) -> tuple[Field, float]:
    """The prior's standard deviations of highest evidence, and that evidence; steps of two, then of its fourth root."""
    best = about.evidence(field.precision())
    for factor in (2.0, 2.0**0.25):
        for _ in range(STEPS):
            before = best
            for term in range(len(field.deviations_px)):
                for way in (factor, 1 / factor):
                    while True:
                        deviations = list(field.deviations_px)
                        deviations[term] *= way
                        if not LEAST_PX <= deviations[term] <= MOST_PX:
                            break
                        trial = field.with_deviations(tuple(deviations))
                        value = about.evidence(trial.precision())
                        if value <= best:
                            break
                        field, best = trial, value
            if best - before < 0.1:
                break
    return field, best


def fit(
    patches: Patches, field: Field, weights: FloatArray, start: FloatArray | None = None, *, tune: bool = False
) -> Fit:
    """Coefficients of the highest posterior.

    Parameters
    ----------
    patches : Patches
    field : Field
    weights : (rows, columns)
    start : (n, frames, 2), optional
        A field to start from, in pixels at the patches; its best approximation by ``field`` is taken by the first step.
    tune : bool
        Whether the prior's standard deviations are set by the evidence before every step.
    """
    zero = np.zeros((len(patches.data), patches.data.shape[1], 2))
    place = zero if start is None else start
    scores, coefficients, before, length = patches.score(place, weights), None, -np.inf, 1.0
    for _ in range(ITERATIONS):
        about = quadratic(field, scores, place)
        if tune:
            field = tune_prior(field, about)[0]
        precision = field.precision()
        goal, _covariance = about.solve(precision)
        if coefficients is None:
            coefficients, origin = goal, None
        else:
            origin = coefficients
            step = goal - origin
            predicted_gain = 0.5 * float(np.einsum("as,st,at->", step, about.information + np.diag(precision), step))
            if predicted_gain < SETTLED_NATS:
                break
            coefficients = origin + length * step
        place = field.at_patches(coefficients)
        new = patches.score(place, weights)
        now = float(new.value.sum() - 0.5 * (precision * coefficients**2).sum())
        if origin is not None:
            before = float(scores.value.sum() - 0.5 * (precision * origin**2).sum())
            while now < before - SETTLED_NATS and length > LEAST_STEP:
                length /= 2
                coefficients = origin + length * step
                place = field.at_patches(coefficients)
                new = patches.score(place, weights)
                now = float(new.value.sum() - 0.5 * (precision * coefficients**2).sum())
            if now < before - SETTLED_NATS:
                return Fit(field, origin, scores)
        scores = new
    assert coefficients is not None
    return Fit(field, coefficients, scores)
