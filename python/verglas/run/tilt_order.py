"""Whether the angles of a tilt series are those of its images: neighbours in angle are to look alike."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from verglas.types.arrays import Float32Array, FloatArray, IntArray

_SIDE = 96  # pixels to which images are averaged
_FEWEST = 15  # tilts that make an order
_BAND = 4  # averaged rows; every other band makes one half of the images, the others another
_SURE = 0.6  # correlation of what both halves say of the likeness of images; noise has none
_FOLLOW = 5.0  # standard errors by which images next to each other are more alike than others, where angles are right
_NEAR_DEG = 3.0  # of finer steps not only the next image is as alike
_RIGHT, _WRONG = 0.7, 0.4  # shares of images whose likest one is next to them in angle


def misplaced_angles(images: Float32Array, angles_deg: FloatArray) -> str:
    """What is said of angles in another order than the images; empty where they agree, or where nobody can tell.

    Parameters
    ----------
    images : (n, y, x) float32
        Aligned.
    angles_deg : (n,) float64
        As told, in the order of the images.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.run.tilt_order import misplaced_angles
    >>> rng, angles = np.random.default_rng(0), np.arange(-60.0, 61, 6)
    >>> x, z = 60 * rng.normal(size=(2, 50)) / 3
    >>> turned = x * np.cos(np.radians(angles))[:, None] + z * np.sin(np.radians(angles))[:, None]
    >>> lines = np.exp(-(((np.arange(-80, 80) - turned[..., None]) / 3) ** 2)).sum(1)
    >>> images = np.repeat(lines[:, None], 32, 1).astype(np.float32)
    >>> misplaced_angles(images, angles), misplaced_angles(images, rng.permutation(angles))[:37]
    ('', 'the likest image is next in angle of ')
    """
    if len(images) < _FEWEST:
        return ""
    alike, sure = _likeness(images)
    if sure < _SURE:
        return ""
    likest = alike.argmax(axis=1)
    rank = np.argsort(np.argsort(angles_deg, kind="stable"))
    next_to_it = (np.abs(rank[likest] - rank) == 1) | (np.abs(angles_deg[likest] - angles_deg) <= _NEAR_DEG)
    share = float(np.mean(next_to_it))
    if share >= _WRONG or _excess(alike, rank) >= _FOLLOW:
        return ""
    said = (
        f"the likest image is next in angle of {100 * share:.0f} % of the images only: are angles and images in one "
        "order?"
    )
    in_stack = float(np.mean(np.abs(likest - np.arange(len(images))) == 1))
    if in_stack >= _RIGHT:
        said += " The images follow each other as if their angles rose or fell from the first to the last."
    return said


def averaged(images: Float32Array, side: int) -> tuple[FloatArray, int]:
    """Means of squares of pixels, twice as many as ``side`` a side at most, without shading; and a square's side.

    Shading of the detector stays where it is while the specimen moves, and is alike in all images.
    """
    step = max(1, min(images.shape[1:]) // side)
    n, ny, nx = len(images), *(length // step for length in images.shape[1:])
    small = images[:, : ny * step, : nx * step].reshape(n, ny, step, nx, step).mean(axis=(2, 4), dtype=np.float64)
    return small - gaussian_filter(small, (0, ny / 8, nx / 8)), step


def _likeness(images: Float32Array) -> tuple[FloatArray, float]:
    """Correlation of each image with each other, (n, n), -inf with itself; and how far two halves of the rows agree."""
    small, _ = averaged(images, _SIDE)
    small -= small.mean(axis=0)
    odd = np.arange(small.shape[1]) // _BAND % 2 == 1
    others = ~np.eye(len(small), dtype=bool)
    first, second = (_correlations(small[:, rows]) for rows in (odd, ~odd))
    sure = float(np.corrcoef(first[others], second[others])[0, 1])
    return np.where(others, _correlations(small), -np.inf), sure


def _correlations(images: FloatArray) -> FloatArray:
    flat = images.reshape(len(images), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1), 1e-30)[:, None]
    return np.asarray(flat @ flat.T)


def _excess(alike: FloatArray, rank: IntArray) -> float:
    """By how many standard errors images next to each other in angle are more alike than all others."""
    order = np.argsort(rank)
    near = alike[order[:-1], order[1:]]
    distance = np.abs(rank[:, None] - rank)
    others = alike[distance > 1]
    return float((near.mean() - others.mean()) / (others.std() / np.sqrt(len(near))))
