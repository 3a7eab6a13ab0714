"""How far shifts of frames may be off: from the noise that moved them, and from what holds them."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from verglas.motion.choose import fold_masks, held_out_fits
from verglas.motion.fields import frame_errors
from verglas.motion.fit import Fit, shift_information
from verglas.motion.patches import Patches
from verglas.types.arrays import FloatArray


def shift_errors(patches: Patches, weights: FloatArray, fitting: Fit) -> FloatArray:
    """Standard errors (frames,) along one axis of the field's mean over the patches, about the mean of all frames.

    For the likelihood's information H, the prior's P, and the gradient's covariance G, the covariance of what is fitted
    is (H + P)^-1 (G + P) (H + P)^-1. If the likelihood were the true one, G would be H. Both are measured:

    - H where frequencies lie when the others are fitted. At the fit itself noise agrees that was chosen for it, and in
      weak movies bends the likelihood by a tenth to a half more than it does where the frames really lie.
    - G as H at the fit times the gradients' power there over what H says: patches differ in what they show.
    """
    field, at = fitting.field, fitting.at_patches
    gradient, bent = fitting.scores.derivatives()
    curvature = np.sum(
        [
            patches.score(place, weights * mask).derivatives()[1]
            for mask, place in zip(fold_masks(patches), held_out_fits(patches, weights, field, at), strict=True)
        ],
        axis=0,
    )
    power = float((gradient**2).sum() / max(float((bent[..., 0] + bent[..., 2]).sum()), 1e-300))
    noise = max(1.0, power) * field.information(*shift_information(bent))
    prior = np.diag(field.precision())
    held = scipy.linalg.cho_factor(field.information(*shift_information(curvature)) + prior, lower=True)
    half = scipy.linalg.cho_solve(held, noise + prior)
    return frame_errors(field, scipy.linalg.cho_solve(held, half.T))
