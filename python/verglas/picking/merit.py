"""How good picks are, against picks that are taken as the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray, any_arrays

# Areas under the ROC curve and what they are called (Hosmer and Lemeshow's bands, as used for pickers).
_BANDS = ((0.9, "excellent"), (0.7, "good"), (0.5, "poor"))


@any_arrays
def match_picks(found_px: npt.ArrayLike, true_px: npt.ArrayLike, radius_px: float) -> tuple[IntArray, IntArray]:
    """One-to-one pairs of positions within a radius: as many as possible, and then the closest.

    Parameters
    ----------
    found_px, true_px : (n, 2), (m, 2) float
    radius_px : float
        Largest distance of a pair.

    Returns
    -------
    found, true : (k,) int64
        Rows of the pairs, ascending in ``found``.

    Examples
    --------
    >>> from verglas.picking import match_picks
    >>> [p.tolist() for p in match_picks([[0, 0], [4, 0]], [[3, 0], [6, 0], [99, 0]], 4)]
    [[0, 1], [0, 1]]
    """
    picks, true = (np.asarray(p, np.float64).reshape(-1, 2) for p in (found_px, true_px))
    empty = np.zeros(0, np.int64)
    if not len(picks) or not len(true):
        return empty, empty
    near = cKDTree(picks).sparse_distance_matrix(cKDTree(true), radius_px, output_type="coo_matrix")
    rows, columns = near.row.astype(np.int64), near.col.astype(np.int64)
    n = len(picks)
    links = coo_matrix((np.ones(len(rows)), (rows, columns + n)), shape=(n + len(true),) * 2)
    label = connected_components(links, directed=False)[1]
    order = np.argsort(label[rows], kind="stable")
    pairs: list[tuple[int, int]] = []
    for group in np.split(order, np.flatnonzero(np.diff(label[rows][order])) + 1):
        if len(group):
            pairs += _assign(rows[group], columns[group], near.data[group], radius_px)
    if not pairs:
        return empty, empty
    first, second = np.array(sorted(pairs), np.int64).T
    return first, second


def _assign(rows: IntArray, columns: IntArray, distance: FloatArray, radius: float) -> list[tuple[int, int]]:
    """Assignment inside one cluster; a pair is worth more than any distance."""
    r, i = np.unique(rows, return_inverse=True)
    c, j = np.unique(columns, return_inverse=True)
    gain = np.zeros((len(r), len(c)))
    gain[i, j] = min(len(r), len(c)) * (radius + 1) + radius - distance
    a, b = linear_sum_assignment(gain, maximize=True)
    return [(int(r[p]), int(c[q])) for p, q in zip(a, b, strict=True) if gain[p, q] > 0]


@dataclass(frozen=True)
class PickMerit:
    """Counts and the figures of merit that follow (Zhu et al. 2004, J. Struct. Biol. 145, 3-14).

    Attributes
    ----------
    true_positives, false_positives, false_negatives : int
        Pairs; picks without a partner; particles without one.
    """

    true_positives: int
    false_positives: int
    false_negatives: int

    def __add__(self, other: PickMerit) -> PickMerit:
        return PickMerit(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 without picks."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 without particles."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def f_score(self) -> float:
        """2 P R / (P + R)."""
        total = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / max(1, total)

    @property
    def false_negative_rate(self) -> float:
        """FN / (TP + FN)."""
        return self.false_negatives / max(1, self.true_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float:
        """FP / (TP + FP): share of the picks that are wrong, as the bake-off of 2004 counts."""
        return self.false_positives / max(1, self.true_positives + self.false_positives)

    def as_dict(self) -> dict[str, float | int]:
        """JSON-ready."""
        return {
            "true_positives": self.true_positives,
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
            "precision": self.precision,
            "recall": self.recall,
            "f_score": self.f_score,
            "false_negative_rate": self.false_negative_rate,
            "false_positive_rate": self.false_positive_rate,
        }


@any_arrays
def compare_picks(found_px: npt.ArrayLike, true_px: npt.ArrayLike, radius_px: float) -> PickMerit:
    """Precision, recall and F of picks against the truth.

    Examples
    --------
    >>> from verglas.picking import compare_picks
    >>> merit = compare_picks([[0, 0], [50, 50], [99, 0]], [[3, 0], [50, 52]], 10)
    >>> merit.recall, round(merit.precision, 3), merit.f_score
    (1.0, 0.667, 0.8)
    """
    if not radius_px > 0:
        raise InputError(f"radius_px: expected a positive number of pixels, got {radius_px}")
    picks = np.asarray(found_px, np.float64).reshape(-1, 2)
    true = np.asarray(true_px, np.float64).reshape(-1, 2)
    hits = len(match_picks(picks, true, radius_px)[0])
    return PickMerit(hits, len(picks) - hits, len(true) - hits)


@dataclass(frozen=True)
class RocCurve:
    """Receiver operating characteristic of candidates with a score.

    Attributes
    ----------
    false_positive_rate, true_positive_rate : (k,) float64
        From (0, 0) to (1, 1), one point per distinct score.
    auc : float
        Area under it: the chance that a particle scores above a candidate that is none, ties counted half.
    """

    false_positive_rate: FloatArray
    true_positive_rate: FloatArray
    auc: float

    @property
    def band(self) -> str:
        """Excellent above 0.9, good above 0.7, poor above 0.5, else useless."""
        return next((name for limit, name in _BANDS if self.auc > limit), "useless")


@any_arrays
def roc_curve(scores: npt.ArrayLike, is_particle: npt.ArrayLike) -> RocCurve:
    """ROC curve of candidates.

    Parameters
    ----------
    scores : (n,) float
        Figures of merit of all candidates, those below the threshold included.
    is_particle : (n,) bool

    Returns
    -------
    RocCurve

    Raises
    ------
    InputError
        All candidates are particles, or none: there is no curve.

    Examples
    --------
    >>> from verglas.picking import roc_curve
    >>> roc_curve([0.9, 0.8, 0.7, 0.1], [True, True, False, True]).auc
    0.6666666666666666
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(is_particle, bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        raise InputError(
            f"ROC curve: expected candidates of both kinds, got {positives} particles and {negatives} others"
        )
    order = np.argsort(-values, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(values[order])), len(values) - 1]
    true_rate = np.r_[0.0, np.cumsum(truth[order])[last] / positives]
    false_rate = np.r_[0.0, np.cumsum(~truth[order])[last] / negatives]
    return RocCurve(false_rate, true_rate, float(np.trapezoid(true_rate, false_rate)))


@any_arrays
def inside(xy_px: npt.ArrayLike, shape: tuple[int, int], margin_px: float) -> npt.NDArray[np.bool_]:
    """Which positions x, y lie at least ``margin_px`` from every edge of an image (y, x).

    Examples
    --------
    >>> from verglas.picking import inside
    >>> inside([[5, 5], [94, 5], [95, 5]], (50, 100), 5).tolist()
    [True, True, False]
    """
    x, y = np.asarray(xy_px, np.float64).reshape(-1, 2).T
    height, width = shape
    return (x >= margin_px) & (x <= width - 1 - margin_px) & (y >= margin_px) & (y <= height - 1 - margin_px)
