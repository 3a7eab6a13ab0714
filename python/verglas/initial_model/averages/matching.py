"""First maps by matching averages to projections: random blobs, random samples, significant weights.

Each starts from chance and returns a map of the averages; :func:`match_projections` ends all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from verglas.initial_model.averages.views import Views
from verglas.types.arrays import Float32Array, FloatArray

_BLOBS = 12
_TRIALS = 8  # of blobs
_SAMPLES, _SAMPLE_SIZE = 40, 9  # Vargas et al. (2014): nine averages a sample
# Maps kept, and rounds of matching of each, in turn: a few rounds tell little of a map, many are wasted on most.
_HEATS = ((16, 3), (5, 4), (2, 4))
_INLIER_PERCENTILE = 70.0
_SIGNIFICANT = (0.25, 0.01)  # first and last share of directions that count as significant
_SIGNIFICANT_STEPS = 14
_COARSE, _FINE = 2, 3  # HEALPix orders: 15 and 7 degrees


def low_radius(views: Views) -> int:
    """Last shell used at first: half of those at the end."""
    return max(3, views.radius // 2)


class Round(NamedTuple):
    """HEALPix order of the directions of a round, and the last shell compared."""

    order: int
    radius: int


def match_projections(views: Views, volume: Float32Array, course: Sequence[Round]) -> Float32Array:
    """Place all averages against the map and make it anew, round after round."""
    for order, radius in course:
        placed = views.place(volume, order, radius)
        volume = views.map(placed.matrices, weights=np.maximum(placed.correlation, 0.0))
    return volume


def finishing_course(views: Views) -> list[Round]:
    """Shells that grow to the last, then finer directions."""
    low, last = low_radius(views), views.radius
    return [Round(_COARSE, round(r)) for r in np.linspace(low, last, 6)] + [Round(_FINE, last)] * 3


def mean_correlation(views: Views, volume: Float32Array, order: int = _COARSE, radius: int | None = None) -> float:
    """Of the averages with their best projections."""
    return float(views.place(volume, order, radius).correlation.mean())


def draw_in_ball(count: int, radius: float, rng: np.random.Generator) -> FloatArray:
    """Points (count, 3), evenly over a ball about the origin."""
    directions = Rotation.random(count, rng).as_matrix()[:, :, 0]
    return np.asarray(directions * (radius * rng.random((count, 1)) ** (1 / 3)))


def draw_blobs(views: Views, rng: np.random.Generator, count: int = _BLOBS) -> Float32Array:
    """Gaussian blobs of several sizes, in the ball of the particle."""
    grid = np.indices((views.box,) * 3, np.float32) - views.box // 2
    out = np.zeros((views.box,) * 3, np.float32)
    centres = draw_in_ball(count, 0.35 * views.diameter_px, rng)
    for centre, width in zip(centres, views.diameter_px * rng.uniform(0.06, 0.15, count), strict=True):
        distance = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))
        out += np.exp(-distance / np.float32(2 * width**2))
    return out * views.sphere


def start_from_blobs(views: Views, rng: np.random.Generator) -> Float32Array:
    """EMAN's way: blobs at random, a few rounds of matching each, the one that explains the averages best."""
    low = low_radius(views)
    trials = [match_projections(views, draw_blobs(views, rng), [Round(_COARSE, low)] * 5) for _ in range(_TRIALS)]
    return max(trials, key=lambda volume: mean_correlation(views, volume, radius=low))


def start_from_samples(views: Views, rng: np.random.Generator) -> Float32Array:
    """RANSAC: maps of nine averages at random orientations, ranked by how many of all averages they explain.

    An average is explained (an inlier) if its correlation is among the highest 30 % of all averages with all these
    maps; the maps with most inliers are matched further (Vargas et al. 2014, Bioinformatics 30, 2891-2898), in heats:
    the better they explain the averages after a few rounds, the further.
    """
    low, size = low_radius(views), min(_SAMPLE_SIZE, len(views))
    volumes, correlations = [], []
    for _ in range(_SAMPLES):
        rows = rng.choice(len(views), size, replace=False)
        volume = views.map(Rotation.random(size, rng).as_matrix(), rows)
        volumes.append(volume)
        correlations.append(views.place(volume, _COARSE, low).correlation)
    scores = np.array(correlations)
    threshold = np.percentile(scores, _INLIER_PERCENTILE)
    inliers = np.where(scores > threshold, scores, 0.0).sum(axis=1)
    kept = [volumes[i] for i in np.argsort(-inliers, kind="stable")]
    for count, rounds in _HEATS:
        kept = [match_projections(views, volume, [Round(_COARSE, low)] * rounds) for volume in kept[:count]]
        kept.sort(key=lambda volume: -mean_correlation(views, volume, radius=low))
    return kept[0]


def significant_weights(correlation: FloatArray, share: float) -> FloatArray:
    """Weights of averages (rows) at directions (columns): significant for both, at a share of the directions.

    A pair counts if its correlation is among the highest ``share`` of those of its average with all directions, and
    among the highest of those of its direction with all averages (one at least); it counts by the product of its two
    ranks (Sorzano et al. 2015, Bioinformatics 31, 3000-3006).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.initial_model.averages.matching import significant_weights
    >>> significant_weights(np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.1]]), 0.3)
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    n, d = correlation.shape
    of_row = 1 - np.argsort(np.argsort(-correlation, axis=1, kind="stable"), axis=1, kind="stable") / d
    of_column = 1 - np.argsort(np.argsort(-correlation, axis=0, kind="stable"), axis=0, kind="stable") / n
    best = np.argmax(correlation, axis=1)
    keep = (of_row > 1 - share) & (of_column > 1 - max(share, 1 / n))
    # Every average counts somewhere: else one that no direction ranks highly would be lost for good.
    keep[np.arange(n), best] = True
    return np.where(keep & (correlation > 0), of_row * of_column, 0.0)


def map_of_weights(views: Views, volume: Float32Array, order: int, radius: int, share: float) -> Float32Array:
    """The map from every average at every significant direction, at its best angle there."""
    slices = views.slices(volume, order)
    correlation = views.correlations(slices, radius)
    turn, best = correlation.argmax(axis=0), correlation.max(axis=0).astype(np.float64)
    weights = significant_weights(best, share)
    rows, which = np.nonzero(weights)
    return views.map(
        views.rotate_in_plane(slices, which, turn[rows, which]), rows, (weights * np.maximum(best, 0))[rows, which]
    )


def keep_significant(views: Views, rng: np.random.Generator) -> Float32Array:
    """Reconstruct Significant: every average at all directions that are significant, fewer and fewer of them."""
    low = low_radius(views)
    volume = draw_blobs(views, rng)
    for share in np.geomspace(*_SIGNIFICANT, _SIGNIFICANT_STEPS):
        volume = map_of_weights(views, volume, _COARSE, low, share=float(share))
    return volume
