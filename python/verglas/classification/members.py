"""Cores of classes: members near their class, and members that stay together from level to level."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.classification.multivariate import eigenimages
from verglas.errors import InputError
from verglas.types.arrays import any_arrays


@any_arrays
def core_members(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    threshold: float = 3.0,
    components: int = 4,
    mask: npt.ArrayLike | None = None,
) -> npt.NDArray[np.bool_]:
    """Members near the centre of their class: by their distance in the class's own principal components.

    The distance is Mahalanobis in the first components; a member belongs to the core where its z-score against the
    class (median and median absolute deviation) is below the threshold.

    Parameters
    ----------
    images : (n, y, x) float
        Aligned images.
    labels : (n,) int
        Class of each.
    threshold : float
        z-score allowed.
    components : int
        Principal components used; fewer in classes too small for them.
    mask : (y, x), optional
        Pixels above 0.5 count.

    Returns
    -------
    (n,) bool
        Members of classes of fewer than 4 images are all core.

    References
    ----------
    Sorzano et al. (2010) J. Struct. Biol. 171, 197-206 (cores of CL2D classes).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import core_members
    >>> x = np.random.default_rng(0).normal(size=(40, 6, 6)); x[7] += 20
    >>> core = core_members(x, np.zeros(40, int))
    >>> bool(core[7]), bool(core.sum() > 30)
    (False, True)
    """
    stack, own = np.asarray(images), np.asarray(labels)
    core = np.ones(len(own), bool)
    for value in np.unique(own):
        rows = np.flatnonzero(own == value)
        if len(rows) < 4:
            continue
        # As many components as images less one explain every image: all would lie equally far from the middle.
        eigen = eigenimages(stack[rows], min(components, len(rows) - 2), mask=mask)
        # Robust scales: an outlier must not widen the measure that it is judged by.
        centre = np.median(eigen.coefficients, axis=0)
        away = np.abs(eigen.coefficients - centre)
        scale = np.maximum(1.4826 * np.median(away, axis=0), 1e-12)
        distance = np.sqrt(((away / scale) ** 2).sum(axis=1))
        spread = max(1.4826 * float(np.median(np.abs(distance - np.median(distance)))), 1e-12)
        core[rows] = (distance - np.median(distance)) / spread < threshold
    return core


@any_arrays
def stable_core(levels: npt.ArrayLike, *, tolerance: int = 1) -> npt.NDArray[np.bool_]:
    """Members that were together with their final class at all levels of a hierarchy but ``tolerance``.

    Parameters
    ----------
    levels : (levels, n) int
        Class of each image at every level, the last level last.
    tolerance : int
        Levels at which an image may have been elsewhere than most of its final class.

    Returns
    -------
    (n,) bool

    Examples
    --------
    >>> from verglas.classification import stable_core
    >>> stable_core([[0, 0, 0, 1], [0, 0, 0, 0]], tolerance=0).tolist()
    [True, True, True, False]
    """
    table = np.asarray(levels, np.int64)
    if table.ndim != 2 or not len(table):
        raise InputError(f"stable_core: expected labels (levels, n), got shape {table.shape}")
    away = np.zeros(table.shape[1], np.int64)
    for value in np.unique(table[-1]):
        rows = np.flatnonzero(table[-1] == value)
        for level in table[:-1]:
            most = np.bincount(level[rows]).argmax()
            away[rows] += level[rows] != most
    return away <= tolerance
