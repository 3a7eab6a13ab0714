"""Groups of exposures by beam shift: holes of one pattern share their aberrations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial import Delaunay, QhullError

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray, any_arrays

_GAP = 3.0  # distances between groups are at least so many times those within


@any_arrays
def beam_shift_groups(shifts: npt.ArrayLike, groups: int | None = None) -> IntArray:
    """Cluster beam shifts.

    Holes of one pattern are visited again and again with nearly the same beam shift. The edges of the shortest tree
    that joins all shifts are then of two kinds, short within and long between groups: it is cut where, in order of
    length, one edge is three times the one before, in the longer half of them. Where none is, all are one group.

    Parameters
    ----------
    shifts : (n, 2) array_like
        Beam shifts in any unit.
    groups : int, optional
        Their number, if it is known: k-means instead.

    Returns
    -------
    (n,) int64
        Group of each, from 0, in the order of the groups' mean y, then x.

    Raises
    ------
    InputError
        Not (n, 2) finite numbers, or more groups than shifts.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.optics import beam_shift_groups
    >>> holes = np.array([[0, 0], [1, 0], [0, 1]])
    >>> shifts = holes.repeat(5, 0) + np.random.default_rng(0).normal(0, 0.02, (15, 2))
    >>> beam_shift_groups(shifts).tolist()
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    """
    xy = np.asarray(shifts, np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy) or not np.isfinite(xy).all():
        raise InputError(f"beam shifts: expected (n, 2) finite numbers, got shape {xy.shape}")
    places, inverse = np.unique(xy, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    if groups is not None:
        if not 1 <= groups <= len(places):
            raise InputError(f"{groups} groups of {len(places)} different beam shifts; expected 1 to {len(places)}")
        from sklearn.cluster import KMeans  # takes a second to load, and only who names a number needs it

        labels = KMeans(groups, n_init=10, random_state=0).fit_predict(places)
    else:
        labels = _by_gap(places)
    return _order(labels[inverse], xy)


def _by_gap(places: FloatArray) -> npt.NDArray[np.int32]:
    n = len(places)
    if n == 1:
        return np.zeros(1, np.int32)
    tree = minimum_spanning_tree(_neighbours(places)).tocoo()
    lengths = np.sort(tree.data)
    # numbers written with six digits: shifts apart by less are one place
    floor = 1e-6 * float(np.ptp(places, axis=0).max())
    ratios = lengths[1:] / np.maximum(lengths[:-1], floor)
    ratios[: max(0, len(lengths) // 2 - 1)] = 0.0  # the shortest differ by any factor, by chance
    if not len(ratios) or ratios.max() < _GAP:
        return np.zeros(n, np.int32)
    longest_within = lengths[int(ratios.argmax())]
    short = tree.data <= longest_within
    graph = coo_matrix((tree.data[short], (tree.row[short], tree.col[short])), (n, n))
    return np.asarray(connected_components(graph, directed=False)[1])


def _neighbours(places: FloatArray) -> coo_matrix:
    """Distances along edges of a triangulation, which hold the shortest tree; of few or aligned places, all."""
    n = len(places)
    try:
        simplices = Delaunay(places).simplices if n > 3 else np.zeros((0, 3), int)
        pairs = np.concatenate([simplices[:, [0, 1]], simplices[:, [1, 2]], simplices[:, [0, 2]]])
    except QhullError:
        pairs = np.zeros((0, 2), int)
    if not len(pairs):
        order = np.lexsort(places.T)
        pairs = np.column_stack([order[:-1], order[1:]]) if n > 50 else np.argwhere(np.triu(np.ones((n, n)), 1))
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    distance = np.hypot(*(places[pairs[:, 0]] - places[pairs[:, 1]]).T)
    return coo_matrix((distance, (pairs[:, 0], pairs[:, 1])), (n, n))


def _order(labels: npt.NDArray[np.int32], xy: FloatArray) -> IntArray:
    names, place = np.unique(labels, return_inverse=True)
    centres = np.array([xy[labels == name].mean(axis=0) for name in names])
    # rows of a pattern do not lie at one y to the last digit
    step = max(float(np.ptp(centres[:, 1])) / (2 * np.sqrt(len(names)) + 1), 1e-12)
    order = np.lexsort((centres[:, 0], np.round(centres[:, 1] / step)))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[place.reshape(-1)]
