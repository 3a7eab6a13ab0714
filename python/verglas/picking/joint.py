r"""What a trained network and the classical filter say of the same places, made one chance.

The network has seen kinds of particles and of background that no filter knows, but a micrograph may be unlike all that
it was trained on; the filter is learned in the micrograph itself, but from its peaks alone. What the network says is
the logarithm of the odds that simulated micrographs gave its peaks; what the filter says are the odds of its peaks in
the mixture of particles and background of this micrograph (:mod:`.mixture`), which count the more the more surely the
mixture has two parts:

.. math:: l = a + b \left(l_{network} + t + w (l_{filter} - \mathrm{logit}\,\pi)\right), \qquad w = \frac{G}{G + G_0}

with the mixture's gain G in log likelihood and its share of particles pi, which both would count otherwise. t = w^2 u
moves the network's odds towards those (u) that expect as many particles as the filter does: a micrograph unlike those
of training makes the network say too much or too little of all places alike. Where the filter sees nothing, the network
alone is asked; where it sees particles beyond doubt, both, and neither is believed beyond odds that are fixed for the
filter and fall with w for the network. a and b were fitted on simulated micrographs (``tools/train_picker.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import brentq
from scipy.special import expit, logit

from verglas import ops
from verglas.picking.consensus import spread_places
from verglas.picking.image import SmallImage
from verglas.picking.mask import BadAreas
from verglas.picking.mixture import ScoreCut, particle_chances
from verglas.picking.network import (
    BackgroundPeaks,
    NetworkLimits,
    background_peaks,
    features,
    network_score,
    probable,
    probable_cut,
)
from verglas.picking.scored import ScoredPeaks
from verglas.types.arrays import Float32Array, FloatArray

if TYPE_CHECKING:
    from verglas.learned import Network, Weights

# Largest logarithms of odds that network and filter may claim, and how much less the network where the filter is sure,
# whose odds were measured in the micrograph itself. Gain at which the filter counts half; share of the diameter within
# which both mean the same place.
_NETWORK_MOST, _LESS, _FILTER_MOST, _HALF_GAIN, _SAME = 3.0, 2.0, 5.0, 60.0, 0.2
# Chance of what raises the limit of bad areas; limits of the share of particles.
_CERTAIN, _SHARES = 0.9, (0.02, 0.98)


@dataclass(frozen=True)
class Evidence:
    """Places and what both maps say of them.

    Attributes
    ----------
    xy_px : (n, 2) float64
        On the small image.
    by_network : (n, 3) float64
        :func:`.network.features`.
    by_filter : (n,) float64
        Logarithms of the odds of the filter's peaks.
    weight : float
        What those are worth, from 0 to 1.
    """

    xy_px: FloatArray
    by_network: FloatArray
    by_filter: FloatArray
    weight: float


@dataclass(frozen=True)
class JointPeaks:
    """Peaks x, y on the small image, their chances to be particles, falling; the cut, and the areas left out.

    ``filter_weight`` is that of :class:`Evidence`: what the micrograph itself says of having particles.
    """

    xy_px: FloatArray
    chance: FloatArray
    cut: ScoreCut
    bad: BadAreas
    filter_weight: float


def gather_evidence(
    small: SmallImage,
    by_network: Float32Array,
    background: BackgroundPeaks,
    by_filter: ScoredPeaks,
    allowed: npt.NDArray[np.bool_],
    distance_px: float,
    calibration: Mapping[str, Any],
) -> Evidence:
    """Peaks of either map, the likelier of two that are near each other, and what both say there.

    Parameters
    ----------
    small : SmallImage
    by_network : (y, x) float32
        Of :func:`.network.network_score`.
    background : BackgroundPeaks
        Of that map.
    by_filter : ScoredPeaks
        Of :func:`.classical.classical_peaks`.
    allowed : (y, x) bool
        Where peaks may stand.
    distance_px : float
        Least distance of two peaks.
    calibration : mapping
        Of the weights' card: says which of two is likelier.
    """
    of_network, of_filter = (
        ops.peaks(score, distance_px, mask=allowed, threads=1) for score in (by_network, by_filter.score)
    )
    xy = np.concatenate([of_network[0], of_filter[0]])
    heights, others = (_highest_near(score, xy, _SAME * 2 * small.radius_px) for score in (by_network, by_filter.score))
    said = features(heights, background, ordered=of_network[1])
    odds, weight = np.zeros(len(xy)), 0.0
    if len(of_filter[1]):
        chance, gain = particle_chances(*of_filter, by_filter.score, by_filter.null, small.radius_px, allowed)
        odds = np.interp(others, of_filter[1][::-1], np.clip(_logit(chance), -_FILTER_MOST, _FILTER_MOST)[::-1])
        weight = gain / (gain + _HALF_GAIN)
    every = Evidence(xy, said, odds, weight)
    rows = spread_places(xy, np.argsort(-joint_odds(calibration, every), kind="stable"), distance_px)
    return Evidence(xy[rows], said[rows], odds[rows], weight)


def _logit(chance: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(chance, 1e-9, 1 - 1e-9)))


def _highest_near(score: Float32Array, xy_px: FloatArray, radius_px: float) -> FloatArray:
    """The highest value of a map within a radius of each place."""
    reach = int(np.ceil(radius_px))
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= radius_px
    highest = ndimage.maximum_filter(score, footprint=disc, mode="nearest")
    x, y = np.rint(xy_px).astype(np.int64).reshape(-1, 2).T
    return highest[y.clip(0, score.shape[0] - 1), x.clip(0, score.shape[1] - 1)].astype(np.float64)


def network_odds(calibration: Mapping[str, Any], by_network: FloatArray) -> FloatArray:
    """Logarithm of the odds of each place by the network alone, as simulated micrographs have them (Platt 1999)."""
    return np.asarray(by_network @ np.array(calibration["slopes"]) + calibration["offset"])


def joint_odds(calibration: Mapping[str, Any], evidence: Evidence) -> FloatArray:
    """What network and filter say together of the places of one micrograph, before it is calibrated."""
    network, weight = network_odds(calibration, evidence.by_network), evidence.weight
    if not len(network):
        return network
    share = float(np.clip(expit(evidence.by_filter).mean(), *_SHARES))
    reach = float(np.abs(network).max()) + 10
    shift = float(brentq(lambda by: expit(network + by).mean() - share, -reach, reach))
    most = _NETWORK_MOST - _LESS * weight  # what looks like nothing known to the network may be a particle all the same
    network = np.clip(network + weight**2 * shift, -most, most)
    return np.asarray(network + weight * (evidence.by_filter - logit(share)))


def probabilities(card: Mapping[str, Any], evidence: Evidence) -> FloatArray:
    """Chance of each place to be a particle.

    Parameters
    ----------
    card : mapping
        Of the weights.
    evidence : Evidence

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.joint import Evidence, probabilities
    >>> fit = {"slopes": [2.0, 0.0, 0.0], "offset": 4.0, "joint_slope": 1.0, "joint_offset": 0.0}
    >>> evidence = Evidence(np.zeros((2, 2)), np.array([[-2.0, 0, 0], [-1.0, 0, 0]]), np.zeros(2), 0.0)
    >>> probabilities({"calibration": fit}, evidence).round(2).tolist()
    [0.5, 0.88]
    """
    fit = card["calibration"]
    return np.asarray(expit(fit["joint_slope"] * joint_odds(fit, evidence) + fit["joint_offset"]))


def measured_background(
    network: Network,
    small: SmallImage,
    score: Float32Array,
    allowed: npt.NDArray[np.bool_],
    distance_px: float,
) -> BackgroundPeaks:
    """Peaks of background of the small image, its spectrum measured away from what are probably particles."""
    certain = probable(*ops.peaks(score, distance_px, mask=allowed, threads=1))
    return background_peaks(network, small.data, small.radius_px, certain, allowed)


def judged_places(
    small: SmallImage,
    weights: Weights,
    by_filter: ScoredPeaks,
    allowed: npt.NDArray[np.bool_],
    distance_px: float,
) -> tuple[FloatArray, FloatArray]:
    """Places and their chances by these weights, likeliest first; what :func:`pick_jointly` cuts."""
    score = network_score(weights.network, small.data, small.radius_px)
    background = measured_background(weights.network, small, score, allowed, distance_px)
    fit = weights.card["calibration"]
    evidence = gather_evidence(small, score, background, by_filter, allowed, distance_px, fit)
    chance = probabilities(weights.card, evidence)
    order = np.argsort(-chance, kind="stable")
    return evidence.xy_px[order], chance[order]


def pick_jointly(
    small: SmallImage, weights: Weights, by_filter: ScoredPeaks, bad: BadAreas, limits: NetworkLimits
) -> JointPeaks:
    """Peaks of either map, the chance of each, and how many of them are picks.

    Parameters
    ----------
    small : SmallImage
    weights : Weights
    by_filter : ScoredPeaks
        Of the classical picker.
    bad : BadAreas
        That it left out; the limit is raised to what is certain here.
    limits : NetworkLimits
    """
    score = network_score(weights.network, small.data, small.radius_px)
    everywhere = np.ones(small.shape_here, bool) if small.left_out is None else ~small.left_out
    allowed = ~bad.wide if limits.exclude else everywhere
    background = measured_background(weights.network, small, score, allowed, limits.distance_px)
    fit = weights.card["calibration"]
    evidence = gather_evidence(small, score, background, by_filter, allowed, limits.distance_px, fit)
    if limits.exclude:
        chance = probabilities(weights.card, evidence)
        bad = bad.for_particles(evidence.xy_px[chance >= _CERTAIN])
        evidence = gather_evidence(small, score, background, by_filter, ~bad.mask, limits.distance_px, fit)
    chance = probabilities(weights.card, evidence)
    order = np.argsort(-chance, kind="stable")
    chance = chance[order]
    cut = probable_cut(chance, _logit(chance), limits.precision)
    return JointPeaks(evidence.xy_px[order], chance, cut, bad, evidence.weight)
