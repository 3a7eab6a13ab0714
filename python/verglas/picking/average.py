"""A template learned from the micrograph itself: the rotational average of what looks like a particle.

Seeds (peaks of a Laplacian of Gaussian, or windows that a classifier calls particles) are averaged over rotations
about their centres; the average is correlated with the micrograph, the peaks of that are the next seeds. The true
profile, halo and all, explains particles better than any guess, so a few rounds settle on it; of several starts the one
whose peaks fall most widely apart, into particles and background, wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import masks, ops
from verglas.picking.image import SmallImage
from verglas.picking.template import MASK_OVER_PARTICLE, SearchImage, correlate, search_image, template_bank
from verglas.picking.threshold import Valley, automatic_threshold, otsu
from verglas.types.arrays import Float32Array

_ROUNDS = 8


@dataclass(frozen=True)
class Learned:
    """What the rounds ended with.

    Attributes
    ----------
    score : (y, x) float32
        Normalised cross-correlation with the average.
    template : (s, s) float32
        The rotational average, unit deviation under its mask.
    cut : Valley
        Threshold between its peaks, and how clear it is.
    """

    score: Float32Array
    template: Float32Array
    cut: Valley


def rotational_template(data: Float32Array, xy_px: npt.ArrayLike, radius_px: float) -> Float32Array | None:
    """Average over windows about positions and over all rotations; None where no window fits the image.

    Every window is brought to zero mean and unit deviation first, so that none outweighs the others. Positions are
    rounded to pixels: half a pixel of a 22nd of the particle.

    Parameters
    ----------
    data : (y, x) float32
    xy_px : (n, 2) float
        Centres.
    radius_px : float
        Half side of the windows, rounded up.

    Returns
    -------
    (s, s) float32 or None
    """
    half = int(np.ceil(radius_px))
    centres = np.rint(np.asarray(xy_px, np.float64).reshape(-1, 2)).astype(np.int64)
    height, width = data.shape
    x, y = centres.T
    centres = centres[(x >= half) & (x < width - half) & (y >= half) & (y < height - half)]
    if not len(centres):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(data, (2 * half + 1, 2 * half + 1))
    stack = windows[centres[:, 1] - half, centres[:, 0] - half].astype(np.float64)
    deviation = stack.std(axis=(1, 2))
    stack = stack[deviation > 0]
    if not len(stack):
        return None
    stack = (stack - stack.mean(axis=(1, 2), keepdims=True)) / stack.std(axis=(1, 2), keepdims=True)
    grid = np.arange(-half, half + 1)
    distance = np.hypot(*np.meshgrid(grid, grid, indexing="ij"))
    # Linear weights to the two rings that a pixel lies between: a profile without steps.
    ring, share = np.floor(distance).astype(np.int64), distance - np.floor(distance)
    average = stack.mean(axis=0)
    sums, counts = np.zeros(ring.max() + 2), np.zeros(ring.max() + 2)
    for index, weight in ((ring, 1 - share), (ring + 1, share)):
        sums += np.bincount(index.ravel(), (weight * average).ravel(), minlength=len(sums))
        counts += np.bincount(index.ravel(), weight.ravel(), minlength=len(sums))
    profile = sums / np.maximum(counts, 1e-12)
    turned = np.interp(distance, np.arange(len(profile)), profile)
    return turned.astype(np.float32) if turned.std() > 0 else None


def _settle(
    small: SmallImage,
    searched: SearchImage,
    seeds: npt.NDArray[np.float64],
    allowed: npt.NDArray,
    distance_px: float,
    threads: int | None,
) -> Learned | None:
    """Rounds from one start; None if it dies out."""
    reach = MASK_OVER_PARTICLE * small.radius_px
    learned: Learned | None = None
    for _ in range(_ROUNDS):
        template = rotational_template(small.data, seeds, reach)
        if template is None:
            return learned
        bank = template_bank(template[None], small.pixel_size_A, reach)
        score, _ = correlate(searched, bank, threads=threads)
        xy, heights = ops.peaks(score, distance_px, mask=allowed, threads=threads)
        if len(heights) < 4:
            return learned
        cut = automatic_threshold(heights, score)
        # Without two classes, no more than last time: a few particles are not to drown in background.
        kept = xy[heights >= cut.threshold] if cut.clear else xy[heights >= otsu(heights)][: len(seeds)]
        learned = Learned(score, template, cut)
        if len(kept) == len(seeds) and np.abs(kept - seeds).max(initial=0) < 0.1:
            break
        seeds = kept
    return learned


def _quality(cut: Valley) -> tuple[bool, float]:
    """Two classes at all, and how much better the average explains the one than the other."""
    return cut.clear, cut.gap


def search_disc(small: SmallImage, *, threads: int | None = None) -> SearchImage:
    """The image made ready for templates as wide as a particle's mask."""
    reach = MASK_OVER_PARTICLE * small.radius_px
    return search_image(small.data, masks.soft_circle(2 * int(np.ceil(reach)) + 1, reach), threads=threads)


def learn(
    small: SmallImage,
    starts: Sequence[npt.NDArray[np.float64]],
    allowed: npt.NDArray,
    distance_px: float,
    *,
    threads: int | None = None,
) -> Learned | None:
    """Learn the rotational average from several starts and keep the one whose two classes lie farthest apart.

    Parameters
    ----------
    small : SmallImage
    starts : sequence of (n, 2) float64
        Positions x, y on the small image to average first.
    allowed : (y, x) bool
        Where peaks may stand.
    distance_px : float
        Least distance of two peaks.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Learned or None
        None if no start leaves anything to average.
    """
    best: Learned | None = None
    searched = search_disc(small, threads=threads)
    for seeds in starts:
        candidate = _settle(small, searched, seeds, allowed, distance_px, threads)
        if candidate is not None and (best is None or _quality(candidate.cut) > _quality(best.cut)):
            best = candidate
    return best
