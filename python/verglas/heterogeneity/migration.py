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

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.migration import matched_classes
    >>> matched_classes(np.array([0, 0, 0, 1]), np.array([1, 1, 0, 0]), 2).tolist()
    [0, 0, 1, 1]
    """
    first, second = linear_sum_assignment(-migration_matrix(reference, other, count))
    number = np.empty(count, np.int64)
    number[second] = first
    return np.asarray(number[other], np.int64)


@any_arrays
def stable_members(reference: IntArray, others: Sequence[IntArray], count: int) -> tuple[BoolArray, FloatArray]:
    """Which particles are in the same class in all classifications, and where the others go.

    Parameters
    ----------
    reference : (n,) int64
        Classes from 0.
    others : sequence of (n,) int64
        Classes of repeats, numbered in any way.
    count : int
        K.

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
    stable = np.ones(len(reference), bool)
    total = np.zeros((count, count))
    for other in others:
        matched = matched_classes(reference, other, count)
        stable &= matched == reference
        total += migration_matrix(reference, matched, count)
    return stable, total / np.maximum(total.sum(axis=1, keepdims=True), 1)
