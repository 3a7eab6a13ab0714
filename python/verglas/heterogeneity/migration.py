"""Particles that go from class to class: between iterations, and between classifications that began elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from verglas.types.arrays import BoolArray, FloatArray, IntArray, any_arrays


@any_arrays
def migration_matrix(before: IntArray, after: IntArray, count: int) -> IntArray:
    """(count, count) particles of class p that are in class q afterwards, classes from 0.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity import migration_matrix
    >>> migration_matrix(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2).tolist()
    [[1, 1], [0, 2]]
    """
    made = np.zeros((count, count), np.int64)
    np.add.at(made, (before, after), 1)
    return made


@any_arrays
def matched_classes(reference: IntArray, other: IntArray, count: int) -> IntArray:
    """(n,) the classes of another classification under the numbers of the reference: most particles stay (Kuhn 1955).

    Numbers from K on are of no class, and stay: junk is junk in every classification.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.migration import matched_classes
    >>> matched_classes(np.array([0, 0, 0, 1]), np.array([1, 1, 0, 0]), 2).tolist()
    [0, 0, 1, 1]
    """
    both = (reference < count) & (other < count)
    first, second = linear_sum_assignment(-migration_matrix(reference[both], other[both], count))
    number = np.arange(max(count, int(other.max(initial=0)) + 1))
    number[second] = first
    return np.asarray(number[other], np.int64)


@any_arrays
def stable_members(
    reference: IntArray, others: Sequence[IntArray], count: int, *, junk: bool = False
) -> tuple[BoolArray, FloatArray]:
    """Which particles are in the same class in all classifications, and where the others go.

    Parameters
    ----------
    reference : (n,) int64
        Classes from 0.
    others : sequence of (n,) int64
        Classes of repeats, numbered in any way.
    count : int
        K.
    junk : bool
        Number K is of no class in any of them: it is the last row and column, and nobody's core.

    Returns
    -------
    (n,) bool, (K, K) float64
        The stable core; and the share of each class of the reference in each class of the repeats, on average.

    References
    ----------
    Chen, Shen and Frank (2014) Structure 22, 1782-1786.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity import stable_members
    >>> stable, migration = stable_members(np.array([0, 0, 0, 1]), [np.array([1, 1, 0, 0])], 2)
    >>> stable.tolist(), migration.round(2).tolist()
    ([True, True, False, True], [[0.67, 0.33], [0.0, 1.0]])
    """
    stable = reference < count
    total = np.zeros((count + junk, count + junk))
    for other in others:
        matched = matched_classes(reference, other, count)
        stable &= matched == reference
        total += migration_matrix(reference, matched, len(total))
    return stable, total / np.maximum(total.sum(axis=1, keepdims=True), 1)
