"""Images far out of all others, and images that stand in a set twice, from three numbers of each image.

One image of 300 multiplied by 1000 turned a map of 8.3 A into one of 22 to 89; sixteen hot pixels did the same. A
finite image is therefore compared with the others of its optics group before any job adds it up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.image.quality import find_unusable_images, robust_sigma
from verglas.types import Particles
from verglas.types.arrays import FloatArray, IntArray

_SIGMAS = 8.0  # robust standard deviations from the group's median that no image of its kind reaches
_HIGH, _LOW = 4.0, 20.0  # and these factors of standard deviation and extremes at least, so that even sets lose nothing
_MEANS = 4.0  # offsets in standard deviations of a pixel, likewise
_FEWEST = 10  # images of a group that have a median worth comparing with; smaller groups are taken together
_FEW = 0.1  # share of a group above which other images are no outliers but another kind
_PIXELS = 1 << 22


@dataclass(frozen=True)
class GreyValues:
    """Three numbers of every image.

    Attributes
    ----------
    mean, deviation, peak : (n,) float64
        Mean, standard deviation, largest absolute difference from the mean; NaN for images that are not finite.
    """

    mean: FloatArray
    deviation: FloatArray
    peak: FloatArray

    @classmethod
    def of(cls, images: npt.ArrayLike) -> GreyValues:
        """Of a batch of images, (m, y, x)."""
        flat = np.asarray(images).reshape(len(np.asarray(images)), -1)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = flat.mean(axis=1, dtype=np.float64)
            deviation = flat.std(axis=1, dtype=np.float64)
            peak = np.maximum(flat.max(axis=1) - mean, mean - flat.min(axis=1))
        bad = ~(np.isfinite(mean) & np.isfinite(deviation) & np.isfinite(peak))
        for values in (mean, deviation, peak):
            values[bad] = np.nan
        return cls(mean, deviation, np.asarray(peak, np.float64))

    @classmethod
    def concatenate(cls, parts: Iterable[GreyValues]) -> GreyValues:
        """Of batches in order."""
        every = list(parts)
        names = ("mean", "deviation", "peak")
        if not every:
            return cls(*(np.empty(0) for _ in names))
        return cls(*(np.concatenate([getattr(part, name) for part in every]) for name in names))

    def first_copies(self) -> IntArray:
        """For every image the first one with the same pixels, itself where there is none.

        Equal in all three numbers, to the last of 53 bits each: no two noisy images are by chance.
        """
        table = np.column_stack([self.mean, self.deviation, self.peak])
        # Constant images are no copies of each other: their three numbers agree whatever they come from.
        usable = np.flatnonzero(np.isfinite(table).all(axis=1) & (self.deviation > 0))
        _, first, which = np.unique(table[usable], axis=0, return_index=True, return_inverse=True)
        copies = np.arange(len(table))
        # ravel: with an axis, NumPy 2.0 alone returns the inverse as a column.
        copies[usable] = usable[first[which.ravel()]]
        return copies


def groups_of(particles: Particles) -> IntArray:
    """Optics group of every particle, from 0; groups too small to compare in are one."""
    if "rlnOpticsGroup" in particles.table:
        group = np.unique(particles.table["rlnOpticsGroup"].to_numpy(), return_inverse=True)[1]
    else:
        group = np.zeros(len(particles), np.int64)
    small = np.bincount(group, minlength=1)[group] < _FEWEST
    return np.asarray(np.where(small, group.max(initial=0) + 1, group), np.int64)


def wild_images(values: GreyValues, group: npt.ArrayLike) -> dict[int, str]:
    """Images far out of the others of their group, and in what.

    An image is set aside if the logarithm of its standard deviation or of its extreme value, or its mean, lies more
    than eight robust standard deviations (from the median absolute deviation) from the group's median, and at least a
    factor of four (a twentieth below; four standard deviations of a pixel for the mean). Where that would be more than
    a tenth of a group they are no outliers, and nothing is set aside.

    Parameters
    ----------
    values : GreyValues
    group : (n,) int
        Group of each image.

    Returns
    -------
    dict of int -> str
        Number of the image (from 0) -> reason.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.image.outliers import GreyValues, wild_images
    >>> images = np.random.default_rng(0).normal(size=(50, 16, 16))
    >>> images[7] *= 1000
    >>> wild_images(GreyValues.of(images), np.zeros(50, int))
    {7: 'its standard deviation is 1...e+03 times the median of its optics group'}
    """
    group = np.asarray(group)
    wild: dict[int, str] = {}
    for number in np.unique(group):
        rows = np.flatnonzero((group == number) & (values.deviation > 0))
        if len(rows) < _FEWEST:
            continue
        reasons = _wild_of_group(values, rows)
        if len(reasons) <= max(1, _FEW * len(rows)):
            wild |= reasons
    return dict(sorted(wild.items()))


def _wild_of_group(values: GreyValues, rows: IntArray) -> dict[int, str]:
    deviation, mean = values.deviation[rows], values.mean[rows]
    # An image may be out in several ways: the last reason found is the one that is told.
    offset = np.abs(mean - np.median(mean))
    limit = max(_MEANS * float(np.median(deviation)), _SIGMAS * robust_sigma(mean))
    middle = float(np.median(mean))
    out = np.flatnonzero(offset > limit)
    reasons = {int(rows[i]): f"its mean is {mean[i]:.3g}, the others' {middle:.3g}" for i in out}
    for name, sizes in (("extreme value", values.peak[rows]), ("standard deviation", deviation)):
        # Logarithms: grey values have no unit, so that only their ratios mean something.
        ratio = np.log(sizes) - np.log(np.median(sizes))
        spread = _SIGMAS * robust_sigma(ratio)
        beyond = (ratio > max(np.log(_HIGH), spread)) | (ratio < -max(np.log(_LOW), spread))
        for i in np.flatnonzero(beyond):
            reason = f"its {name} is {np.exp(ratio[i]):.3g} times the median of its optics group"
            reasons[int(rows[i])] = reason
    return reasons


@dataclass(frozen=True)
class Inspection:
    """What one look at all images found.

    Attributes
    ----------
    excluded : dict of int -> str
        Particle number -> why it cannot be used: not finite, constant, or far out of the others.
    copy_of : (n,) int64
        For every particle the first one with the same pixels.
    """

    excluded: dict[int, str]
    copy_of: IntArray


def inspect_images(particles: Particles) -> Inspection:
    """Look at every image once, in order: those that no job can use, and copies.

    Parameters
    ----------
    particles : Particles
        With images.

    Returns
    -------
    Inspection
    """
    step = max(8, _PIXELS // particles.box**2)
    bad: dict[int, str] = {}
    parts = []
    for begin in range(0, len(particles), step):
        images = particles.images(slice(begin, begin + step))
        bad.update({begin + i: reason for i, reason in find_unusable_images(images).items()})
        parts.append(GreyValues.of(images))
    values = GreyValues.concatenate(parts)
    return Inspection({**wild_images(values, groups_of(particles)), **bad}, values.first_copies())
