"""Candidate poses of many images, end to end: choosing distinct ones, dropping those that cannot win."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.types.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Candidates:
    """Poses to compare.

    Attributes
    ----------
    image : (m,) int64
        Image of the batch, ascending.
    matrices : (m, 3, 3) float64
    origin_px : (m, 2) float64
        As in a STAR file.
    class_number : (m,) int64
    score : (m,) float64
    """

    image: IntArray
    matrices: FloatArray
    origin_px: FloatArray
    class_number: IntArray
    score: FloatArray

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: npt.NDArray) -> Candidates:
        return Candidates(*(value[index] for value in vars(self).values()))

    @classmethod
    def merge(cls, parts: list[Candidates]) -> Candidates:
        """All of them, sorted by image; earlier parts come first."""
        union = cls(*(np.concatenate(v) for v in zip(*(vars(p).values() for p in parts), strict=True)))
        return union[np.argsort(union.image, kind="stable")]


def best_of_image(image: IntArray, score: FloatArray, n: int) -> IntArray:
    """Index of the best candidate of each image (the first of equals); every image has one."""
    order = np.lexsort((np.arange(len(image)), -score, image))
    return order[np.searchsorted(image[order], np.arange(n))]


def angle_between_deg(a: FloatArray, b: FloatArray, group: FloatArray | None = None) -> FloatArray:
    """Angle of the rotation from one matrix to the other, pair by pair; with a group to the nearest of its copies.

    Parameters
    ----------
    a, b : (n, 3, 3) float64
    group : (order, 3, 3) float64, optional
        Matrices of the point group; the poses A and A g show the same.
    """
    if group is None or len(group) == 1:
        trace = np.einsum("nij,nij->n", a, b)
    else:
        # tr((A g)^T B) = sum over jk of g_jk (A^T B)_jk: one product for all copies.
        turn = np.einsum("nij,nik->njk", a, b).reshape(len(a), 9)
        trace = (turn @ group.reshape(len(group), 9).T).max(axis=1, initial=-1.0)
    return np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def select_distinct(candidates: Candidates, count: int, apart_deg: float, group: FloatArray | None = None) -> IntArray:
    """Rows of up to ``count`` candidates per image, by falling score, at least ``apart_deg`` from each other.

    Parameters
    ----------
    candidates : Candidates
    count : int
        Most to keep of one image.
    apart_deg : float
        Orientations nearer than this to a better one of the same class are the same peak.
    group : (order, 3, 3) float64, optional
        Matrices of the point group: copies of one pose under it are the same peak too, or each of two copies would be
        given half of the probability.

    Returns
    -------
    (kept,) int64
        Sorted by image, then falling score.
    """
    rest = np.arange(len(candidates))
    distinct = []
    for _ in range(count):
        if not len(rest):
            break
        some = candidates[rest]
        images, which = np.unique(some.image, return_inverse=True)
        best = best_of_image(which, some.score, len(images))
        distinct.append(rest[best])
        # An image at a time would be a Python loop over particles: one round takes the best of every image.
        ahead = best[which]
        near = angle_between_deg(some.matrices, some.matrices[ahead], group) < apart_deg
        same = some.class_number == some.class_number[ahead]
        rest = rest[~(near & same)]
    order = np.concatenate(distinct)
    return order[np.argsort(candidates.image[order], kind="stable")]


def select_within(candidates: Candidates, count: int, nats: float) -> IntArray:
    """Rows of the best ``count`` of each image that score within ``nats`` of its best, in their order."""
    # The row number breaks ties, so that equal scores do not depend on how many threads made them.
    order = np.lexsort((np.arange(len(candidates)), -candidates.score, candidates.image))
    image = candidates.image[order]
    first = np.searchsorted(image, image)
    rank = np.arange(len(order)) - first
    keep = (rank < count) & (candidates.score[order] >= candidates.score[order][first] - nats)
    return np.sort(order[keep])


def posterior(candidates: Candidates, n: int) -> tuple[FloatArray, FloatArray]:
    """Probability of each candidate among those of its image, and the log of the sum of exp(score)."""
    # Scores are log likelihoods of thousands: exp overflows unless the best is taken off first.
    top = candidates.score[best_of_image(candidates.image, candidates.score, n)]
    mass = np.exp(candidates.score - top[candidates.image])
    total = np.bincount(candidates.image, mass, minlength=n)
    return mass / total[candidates.image], top + np.log(total)
