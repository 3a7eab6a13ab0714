"""What a search returns, and how scored cells become posteriors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from verglas.search.cells import Cells, Level, angles_deg
from verglas.types.arrays import FloatArray, IntArray


@dataclass
class LevelStatistics:
    """What one level cost and pruned, summed over images.

    Attributes
    ----------
    radius, order : int
        Of the level.
    exhaustive : int
        Poses of its whole grid.
    evaluated : int
        Poses scored.
    probed : int
        Poses scored by the greedy descent that supplies the score to beat.
    survived : int
        Cells that were split.
    stopped : int
        Images whose posterior was too broad to go on.
    cut : int
        Images that went on with their best cells only (``SearchSettings.keep_best``).
    """

    radius: int
    order: int
    exhaustive: int
    evaluated: int = 0
    probed: int = 0
    survived: int = 0
    stopped: int = 0
    cut: int = 0


@dataclass(frozen=True)
class SearchResult:
    """Best poses and posteriors.

    Attributes
    ----------
    angles_deg, shifts_px : (n, 3), (n, 2) float64
        Best pose; shifts include the centres.
    score : (n,) float64
        Its log-likelihood plus log prior.
    log_evidence : (n,) float64
        Log marginal likelihood over the poses kept, uniform cell weights included.
    level : (n,) int64
        Level whose grid the result stands on: the last, unless the posterior was too broad.
    offsets : (n + 1,) int64
        Poses of image i are ``offsets[i]:offsets[i + 1]`` of the arrays below, by falling probability; they hold all
        but epsilon of the posterior.
    pose_angles_deg, pose_shifts_px, probability : (poses, 3), (poses, 2), (poses,) float64
    statistics : list of LevelStatistics
    """

    angles_deg: FloatArray
    shifts_px: FloatArray
    score: FloatArray
    log_evidence: FloatArray
    level: IntArray
    offsets: IntArray
    pose_angles_deg: FloatArray
    pose_shifts_px: FloatArray
    probability: FloatArray
    statistics: list[LevelStatistics]


@dataclass(frozen=True)
class Found:
    """Scored cells of one level.

    Attributes
    ----------
    cells : Cells
    score : (cells,) float64
        Log-likelihood plus log prior of the shift, constants left out.
    rest : (n,) float64, optional
        Log of the posterior mass of each image that is not in the list, on the same scale.
    """

    cells: Cells
    score: FloatArray
    rest: FloatArray | None = None


def segments(image: IntArray) -> list[slice]:
    """Rows of each image, whose cells always lie together (images ascend)."""
    edges = np.flatnonzero(np.diff(image)) + 1
    return [slice(a, b) for a, b in pairwise([0, *edges.tolist(), len(image)]) if b > a]


def by_falling_score(score: FloatArray) -> IntArray:
    """Order of one image's cells, ties by position."""
    return np.argsort(-score, kind="stable")


def best_of_each(scores: Found, count: int) -> IntArray:
    """Indices of the best ``count`` cells of every image, by falling score; ties go to the first."""
    out = [np.zeros(0, np.int64)]
    for rows in segments(scores.cells.image):
        score = scores.score[rows]
        # All that reach the count-th best score, which are few: sorting every cell costs more than scoring it.
        least = -np.inf if len(score) <= count else np.partition(score, len(score) - count)[len(score) - count]
        near = np.flatnonzero(score >= least)
        out.append(rows.start + near[by_falling_score(score[near])[:count]])
    return np.concatenate(out)


@dataclass(frozen=True)
class ImagePosterior:
    """Posterior of one image: its row in the result."""

    level: int
    score: float
    log_evidence: float
    angles_deg: FloatArray
    shifts_px: FloatArray
    probability: npt.NDArray


def image_posterior(
    scores: Found, rows: IntArray, level: int, grid: Level, unit_px: float, epsilon: float
) -> ImagePosterior:
    """From one image's cells (``rows`` of ``found``, by falling score), uniform weights, no constants yet."""
    score = scores.score[rows]
    # Relative to the best: scores are of the order of -1e5, whose exponential is zero.
    top = score[0]
    mass = np.exp(score - top)
    total = mass.sum()
    if scores.rest is not None:
        total += np.exp(scores.rest[scores.cells.image[rows[0]]] - top)
    count = min(len(rows), 1 + int(np.searchsorted(np.cumsum(mass), (1 - epsilon) * total)))
    cells = scores.cells[rows[:count]]
    shifts_px = np.asarray(cells.shift * unit_px, np.float64)
    evidence = float(top + np.log(total))
    return ImagePosterior(
        level, float(top), evidence, angles_deg(grid, cells.pixel, cells.psi), shifts_px, mass[:count] / total
    )


def collect(
    images: list[ImagePosterior], centres_px: FloatArray, constants: FloatArray, statistics: list[LevelStatistics]
) -> SearchResult:
    """Rows of a result; ``constants`` are the log priors of one pose of each image."""
    counts = [len(p.probability) for p in images]
    owner = np.repeat(np.arange(len(images)), counts)
    return SearchResult(
        angles_deg=np.array([p.angles_deg[0] for p in images]).reshape(-1, 3),
        shifts_px=np.array([p.shifts_px[0] for p in images]).reshape(-1, 2) + centres_px,
        score=np.array([p.score for p in images]) + constants,
        log_evidence=np.array([p.log_evidence for p in images]) + constants,
        level=np.array([p.level for p in images], np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        pose_angles_deg=np.concatenate([np.zeros((0, 3)), *(p.angles_deg for p in images)]),
        pose_shifts_px=np.concatenate([np.zeros((0, 2)), *(p.shifts_px for p in images)]) + centres_px[owner],
        probability=np.concatenate([np.zeros(0), *(p.probability for p in images)]),
        statistics=statistics,
    )
