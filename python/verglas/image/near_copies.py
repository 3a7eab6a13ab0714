"""Images of two sets that are the same picture but for grey scale and a little noise: copies whose pixels differ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.types import Particles
from verglas.types.arrays import Float32Array, IntArray

_LENGTH = 128  # numbers of a sketch: correlations of images are told to 0.09 by them
_CANDIDATE = 0.7  # correlation of sketches
_SKETCHED = 2.0  # what sketches lack of 1, over what images lack: 1 with a standard deviation of 0.125
# What a copy's correlation lacks of 1, over what that of the fifth nearest image lacks: where noise keeps images apart,
# and where it does not, so that views near each other resemble each other.
_LACKING_IN_NOISE, _LACKING, _NOISE_APART, _AFTER = 0.02, 0.001, 0.5, 5
_FEWEST = 3
_ROUNDING = 1e-6  # of correlations
_BLOCK = 1024
_PIXELS = 1 << 22  # read together


def near_copies(particles: Particles, half_sets: npt.ArrayLike, seed: int = 0) -> IntArray:
    """For every particle the first of the other half set whose image is nearly the same, itself where there is none.

    Images are compared by sketches, 128 random sums of their normalised pixels each, and those whose sketches correlate
    by more than 0.7 by all pixels: what a copy's correlation lacks of 1 is less than a fiftieth of what that of the
    fifth nearest image lacks, or a thousandth where that one resembles it, too, by more than 0.5. Two images of one
    particle that hold noise of their own are no copies. Where the other half set has fewer than five images, the fifth
    nearest of both is taken, or the farthest where there are fewer still.

    Parameters
    ----------
    particles : Particles
        With images.
    half_sets : (n,) int
        1 or 2.
    seed : int
        Of the sums.

    Returns
    -------
    (n,) int64

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.image.near_copies import near_copies
    >>> images = np.random.default_rng(0).normal(size=(20, 16, 16)).astype(np.float32)
    >>> images[13] = 3 * images[2] + 1 + 0.1 * images[5]
    >>> near_copies(vg.Particles.from_images(images, 2.0), np.repeat([1, 2], 10))[[2, 12, 13]].tolist()
    [2, 12, 2]
    """
    half = np.asarray(half_sets)
    sketches = _sketches(particles, seed)
    first, second = np.flatnonzero(half == 1), np.flatnonzero(half == 2)
    copy_of = np.arange(len(particles), dtype=np.int64)
    if not (first.size and second.size):
        return copy_of
    for begin in range(0, len(first), _BLOCK):
        rows = first[begin : begin + _BLOCK]
        alike = sketches[rows] @ sketches[second].T
        after = _fifth_nearest(alike, sketches, rows)
        most = np.where(after < _NOISE_APART, _LACKING_IN_NOISE, _LACKING) * (1 - after)
        # images without noise resemble each other by the million: those alone are read that may be near enough
        likely = (alike > _CANDIDATE) & (1 - alike < _SKETCHED * most[:, None] + _ROUNDING)
        for i, j in np.argwhere(likely):
            one, other = sorted((int(rows[i]), int(second[j])))
            if copy_of[other] != other:
                continue
            pair = _normalised(particles.images([one, other]))
            if 1 - float(pair[0] @ pair[1]) < most[i]:
                copy_of[other] = one
    return copy_of


def _fifth_nearest(alike: Float32Array, sketches: Float32Array, rows: IntArray) -> Float32Array:
    """Correlation of some images with the fifth nearest of the other half set; of both where the other has too few.

    The nearest may be the copy: of fewer than three images in all nothing says how far others would lie, and 0.5 is
    taken, from which on images count as resembling each other.
    """
    if alike.shape[1] < _AFTER:
        if len(sketches) < _FEWEST:
            return np.full(len(rows), _NOISE_APART, np.float32)
        alike = sketches[rows] @ sketches.T
        alike[np.arange(len(rows)), rows] = -1.0  # itself
    nearest = min(_AFTER, len(sketches) - 1)
    return np.asarray(np.partition(alike, alike.shape[1] - nearest, axis=1)[:, alike.shape[1] - nearest], np.float32)


def _sketches(particles: Particles, seed: int) -> Float32Array:
    """(n, 128), of length 1 each."""
    signs = np.random.default_rng(seed).integers(0, 2, (particles.box**2, _LENGTH)).astype(np.float32) * 2 - 1
    step = max(8, _PIXELS // particles.box**2)
    parts = [
        _normalised(particles.images(slice(begin, begin + step))) @ signs for begin in range(0, len(particles), step)
    ]
    return _normalised(np.concatenate(parts), centred=False)


def _normalised(images: npt.NDArray[np.floating], *, centred: bool = True) -> Float32Array:
    """Rows of length 1, of mean 0; constant ones are 0."""
    rows = np.asarray(images, np.float32).reshape(len(images), -1)
    if centred:
        rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
