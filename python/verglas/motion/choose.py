"""Which field a movie supports: the one that predicts frequencies best which were not used to fit it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas import ops
from verglas.motion.fields import Field
from verglas.motion.fit import Fit, Quadratic, quadratic, shift_information
from verglas.motion.patches import Patches
from verglas.types.arrays import FloatArray

FOLDS = 4
MARGIN = 2.0  # standard errors by which a local field must predict better than shifts of whole frames
LEAST_NATS = 2.0  # ... and nats: few patches make a poor standard error


@dataclass(frozen=True)
class ModelGain:
    """What a model predicts beyond shifts of whole frames.

    Attributes
    ----------
    model : str
    gain_nats, error_nats : float
        Held-out log-likelihood minus that of "global", all folds together, and its standard error over patches.
    """

    model: str
    gain_nats: float
    error_nats: float


def fold_masks(patches: Patches) -> list[FloatArray]:
    """Rows of Fourier space by |row number| modulo FOLDS: every resolution and almost every direction in each."""
    number = np.rint(np.abs(patches.frequencies_y) * patches.side).astype(int)
    return [np.broadcast_to((number % FOLDS == j)[:, None], patches.radius.shape).astype(float) for j in range(FOLDS)]


def fold_scores(patches: Patches, weights: FloatArray, at_patches: FloatArray) -> list[ops.ShiftScores]:
    """Scores of each fold at one field: together they cost one evaluation."""
    return [patches.score(at_patches, weights * mask) for mask in fold_masks(patches)]


def _rest(scores: list[ops.ShiftScores], left_out: int) -> ops.ShiftScores:
    kept = [s for j, s in enumerate(scores) if j != left_out]
    parts = [s.derivatives() for s in kept]
    value = np.sum([s.value for s in kept], axis=0)
    return ops.ShiftScores(value, np.sum([p[0] for p in parts], axis=0), np.sum([p[1] for p in parts], axis=0))


def held_out_fits(patches: Patches, weights: FloatArray, field: Field, at_patches: FloatArray) -> list[FloatArray]:
    """Where each fold's frequencies lie, (n, frames, 2) px, as the other folds say: one step from ``at_patches``."""
    scores = fold_scores(patches, weights, at_patches)
    places = []
    for j in range(FOLDS):
        coefficients, _ = quadratic(field, _rest(scores, j), at_patches).solve(field.precision())
        places.append(field.at_patches(coefficients))
    return places


def held_out(field: Field, scores: list[ops.ShiftScores], at_patches: FloatArray) -> FloatArray:
    """Log-likelihood (n,) of every patch's held-out frequencies, relative to the field where the scores were taken.

    Each fold is predicted from the others; the log-likelihood is taken as quadratic about that field, which is exact
    enough within a tenth of a pixel and spares every model and fold its own search.
    """
    total = np.zeros(len(at_patches))
    for j, test in enumerate(scores):
        about: Quadratic = quadratic(field, _rest(scores, j), at_patches)
        coefficients, _ = about.solve(field.precision())
        change = field.at_patches(coefficients) - at_patches
        gradient, curvature = test.derivatives()
        places, frames = shift_information(curvature)
        bend = places * np.einsum("pfa,fg,pga->p", change, frames, change, optimize=True)
        total += (gradient * change).sum((1, 2)) - 0.5 * bend
    return total


def choose(fits: dict[str, Fit], scores: list[ops.ShiftScores], at_patches: FloatArray) -> tuple[str, list[ModelGain]]:
    """The model of the best held-out prediction: "global" unless one beats it clearly."""
    values = {model: held_out(one_fit.field, scores, at_patches) for model, one_fit in fits.items()}
    gains = []
    for model, value in values.items():
        difference = value - values["global"]
        error = float(difference.std(ddof=1) * np.sqrt(len(difference))) if len(difference) > 1 else float("inf")
        gains.append(ModelGain(model, float(difference.sum()), 0.0 if model == "global" else error))
    good = [g for g in gains if g.model == "global" or g.gain_nats > max(LEAST_NATS, MARGIN * g.error_nats)]
    return max(good, key=lambda g: g.gain_nats).model, gains
