"""What pickers that compare are taught from: windows about particles, and windows about peaks that are none.

Particles are a person's clicks, of one micrograph or of several, or what the learned filter of
:mod:`verglas.picking.discriminant` is certain of. The lower half of the peaks of that filter are the others: clicks
name a few of the particles, so what was not clicked says nothing, but few particles are among the lowest peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.picking.average import rotational_template
from verglas.picking.image import SmallImage
from verglas.picking.scored import ScoredPeaks
from verglas.picking.template import MASK_OVER_PARTICLE
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.display import one_line

# Half side of a window in radii: the mask of a correlation, displaced by as much as a particle's radius.
_HALF = 2.25
# Examples of each kind that are used, at most: enough for every statistic that is made of them.
_MOST = 600
# Particles that a filter must be certain of to teach; fewer of its highest peaks than this share are taken anyway.
_FEWEST, _SHARE = 8, 0.1
FEWEST_CLICKS = 5


def windows_at(small: SmallImage, xy_px: npt.ArrayLike) -> Float32Array:
    """Windows (n, s, s) of the small image about the nearest pixels to (n, 2) positions x, y, mirrored at the border.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.picking import prepare
    >>> from verglas.picking.examples import windows_at
    >>> small = prepare(vg.Micrograph(np.random.default_rng(0).normal(size=(300, 300)), 4.0), 88.0)
    >>> windows = windows_at(small, [[0, 0], [150, 100]])
    >>> windows.shape, bool(windows[1, 25, 25] == small.data[100, 150])
    ((2, 51, 51), True)
    """
    half = int(np.ceil(_HALF * small.radius_px))
    x, y = np.rint(np.asarray(xy_px, np.float64).reshape(-1, 2)).astype(np.int64).T
    height, width = small.shape_here
    padded = np.pad(small.data, half, mode="symmetric")
    view = np.lib.stride_tricks.sliding_window_view(padded, (2 * half + 1, 2 * half + 1))
    return np.ascontiguousarray(view[y.clip(0, height - 1), x.clip(0, width - 1)])


@one_line
@dataclass(frozen=True)
class PickExamples:
    """What a picker is taught from, at the sampling of the small image.

    Attributes
    ----------
    particles, others : (n, s, s), (m, s, s) float32
        Windows about particles and about peaks that are taken for none.
    radius_px : float
        Of the particle.
    by_hand : bool
        Whether a person chose the particles.
    """

    particles: Float32Array
    others: Float32Array
    radius_px: float
    by_hand: bool = False

    def average(self) -> Float32Array:
        """Rotational average of the particles, (t, t), as wide as the mask of correlations.

        Raises
        ------
        InputError
            It is constant.
        """
        half, middle = self.particles.shape[1] // 2, MASK_OVER_PARTICLE * self.radius_px
        mosaic = self.particles.reshape(-1, self.particles.shape[2])  # one below the other
        centres = [(half, number * self.particles.shape[1] + half) for number in range(len(self.particles))]
        template = rotational_template(mosaic, np.array(centres, np.float64), middle)
        if template is None:
            raise InputError("pick: the average of the examples is constant; are they where particles are?")
        return template


def examples_of_peaks(small: SmallImage, peaks: ScoredPeaks) -> PickExamples:
    """Examples that a filter's own peaks make: the particles that it is certain of, and the lower half."""
    certain = peaks.certain
    if len(certain) < _FEWEST:
        certain = peaks.xy_px[: max(_FEWEST, int(_SHARE * len(peaks.xy_px)))]
    others = lower_half(peaks)
    return PickExamples(windows_at(small, certain[:_MOST]), windows_at(small, others[:_MOST]), small.radius_px)


def lower_half(peaks: ScoredPeaks) -> FloatArray:
    """The lower half of the peaks, those first that are nearest to the middle: the hardest."""
    return peaks.xy_px[max(1, len(peaks.xy_px) // 2) :]


@dataclass(frozen=True)
class ClickedMicrograph:
    """A micrograph made small for one diameter, (n, 2) clicks in its pixels, and the peaks of its filters."""

    small: SmallImage
    xy_px: FloatArray
    peaks: ScoredPeaks


def examples_by_hand(clicked: Sequence[ClickedMicrograph]) -> PickExamples:
    """Examples of clicks on one or more micrographs.

    Parameters
    ----------
    clicked : sequence of ClickedMicrograph

    Raises
    ------
    InputError
        Fewer than five clicks, or micrographs of different pixel sizes that were not binned.
    """
    clicks = sum(len(one.xy_px) for one in clicked)
    if clicks < FEWEST_CLICKS:
        raise InputError(f"pick: {clicks} examples; expected at least {FEWEST_CLICKS} particles, better 15 or more")
    particles = [windows_at(one.small, one.xy_px) for one in clicked]
    if len({windows.shape[1:] for windows in particles}) > 1:
        raise InputError("pick: the examples lie on micrographs of different pixel sizes; give those of one pixel size")
    others = []
    for one in clicked:
        low = lower_half(one.peaks)
        between = low[:, None] - np.reshape(one.xy_px, (-1, 2))[None]
        apart = np.hypot(*between.transpose(2, 0, 1)).min(axis=1, initial=np.inf)
        others.append(windows_at(one.small, low[apart > one.small.radius_px]))
    radius = float(np.mean([one.small.radius_px for one in clicked]))
    return PickExamples(np.concatenate(particles)[:_MOST], _thin(np.concatenate(others)), radius, True)


def _thin(windows: Float32Array) -> Float32Array:
    return windows[:: max(1, -(-len(windows) // _MOST))]
