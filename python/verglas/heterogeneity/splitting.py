"""Classes at known poses that are made by splitting: always the class that varies most, into two."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from verglas.heterogeneity.components import mean_model
from verglas.heterogeneity.fixed_classes import FixedClasses, fit_classes
from verglas.heterogeneity.posed import PosedImages
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener, phase_progress

_FEWEST = 40  # particles that are split


@dataclass(frozen=True)
class Split:
    """A class taken apart.

    Attributes
    ----------
    parent, child : int
        Classes from 0: the parent keeps its number for the larger part.
    variance : float
        Between both parts, of all particles: share of each in the whole, times the squared distance of their maps, of
        which noise has no part (one factor of the square from each half set).
    particles : int
        Of the parent.
    """

    parent: int
    child: int
    variance: float
    particles: int


@dataclass
class _Leaf:
    """A class, and how it would fall apart."""

    rows: IntArray
    part: IntArray | None
    variance: float


@dataclass
class SplittingClasses:
    """A tree of classes, grown split by split.

    Attributes
    ----------
    posed : PosedImages
    mask : (N, N, N) float32, optional
        Where classes may differ.
    contrast : bool
    iterations : int
        Of every split.
    T : float
    seed : int
    """

    posed: PosedImages
    mask: Float32Array | None
    contrast: bool
    iterations: int
    T: float
    seed: int
    splits: list[Split] = field(default_factory=list)
    leaves: list[_Leaf] = field(default_factory=list)

    def grow(self, count: int, listener: Listener | None = None) -> FloatArray:
        """(n, K) of zeros and ones: so many classes, or fewer where none can be split.

        Parameters
        ----------
        count : int
        listener : Listener, optional
            Told how it goes.
        """
        tell = phase_progress(listener, "classes that are split")
        if not self.leaves:
            self.leaves.append(self._leaf(np.arange(len(self.posed))))
        while len(self.leaves) < count:
            parent = int(np.argmax([leaf.variance for leaf in self.leaves]))
            had = self.leaves[parent]
            if had.part is None:
                break
            parts = [had.rows[had.part == k] for k in np.argsort(-np.bincount(had.part), kind="stable")]
            self.splits.append(Split(parent, len(self.leaves), had.variance, len(had.rows)))
            self.leaves[parent] = self._leaf(parts[0])
            self.leaves.append(self._leaf(parts[1]))
            tell(len(self.leaves), count)
        out = np.zeros((len(self.posed), len(self.leaves)))
        for k, leaf in enumerate(self.leaves):
            out[leaf.rows, k] = 1
        return out

    def _leaf(self, rows: IntArray) -> _Leaf:
        """A class with the two that it would become; none where it is too small or one part has nobody."""
        halves = np.bincount(self.posed.half[rows], minlength=3)[1:]
        if len(rows) < _FEWEST or halves.min() < _FEWEST // 4:
            return _Leaf(rows, None, -np.inf)
        some = self.posed.part(rows)
        mean = mean_model(some, contrast=self.contrast, mask=self.mask)
        model = fit_classes(some, 2, mean=mean, mask=self.mask, iterations=self.iterations, T=self.T, seed=self.seed)
        part = np.asarray(model.posterior.argmax(axis=1), np.int64)
        if len(np.unique(part)) < 2:
            return _Leaf(rows, None, -np.inf)
        return _Leaf(rows, part, len(rows) / len(self.posed) * variance_between(model))


def variance_between(model: FixedClasses) -> float:
    """Variance between two classes, one factor from each half set: noise of the maps is not in it."""
    first, second = (h.volumes[0] - h.volumes[1] for h in model.halves)
    share = model.class_weight
    return float(share[0] * share[1] * np.vdot(first, second))
