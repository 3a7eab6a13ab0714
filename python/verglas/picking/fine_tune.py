"""Further training of the picker's network on a few clicks, kept only if held-out clicks are found better.

A click says where a particle is; places without one say little, because few people click all of a micrograph. There the
network goes on saying what it said (it is its own teacher), unless all particles were clicked. The clicked micrographs
are divided into squares, and a quarter of them is never trained on: the clicks in those judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest

from verglas.errors import InputError
from verglas.image import fourier_resample
from verglas.learned import Network, TrainingSettings, Weights, train
from verglas.learned.training import SPOT, heat_map
from verglas.picking.classical import classical_peaks
from verglas.picking.image import PIXELS_ACROSS, SmallImage
from verglas.picking.joint import judged_places
from verglas.picking.merit import match_picks
from verglas.picking.particles import PickSettings
from verglas.picking.scored import ScoredPeaks
from verglas.types.arrays import Float32Array, FloatArray

FEWEST_CLICKS = 15
# Side of a square in diameters, and one of how many is held out.
_SQUARE, _HELD_OUT_OF = 4.0, 4
# Side of a window of training in pixels; how far from a click its square of influence reaches, in diameters; how much a
# place counts where the network teaches itself.
_SIDE, _REACH, _TAUGHT = 96, 0.6, 0.3
_STEPS, _BATCH, _RATE = 240, 4, 1e-3
_RADIUS = PIXELS_ACROSS / 2
_DISTANCE = 0.7 * PIXELS_ACROSS
_CHANCE = 0.05  # that as many held-out clicks more are found by weights that are no better


@dataclass(frozen=True)
class FineTuned:
    """What came of further training.

    Attributes
    ----------
    weights : Weights
        The new ones, or those before where the new ones do not surely find more.
    kept : bool
        Whether they are the new ones.
    clicks, held_out : int
        Given, and of those the ones that judged.
    before, after : int
        Held-out clicks among as many picks of the held-out squares as there are clicks in them, or as many as the old
        weights pick there if that is more.
    """

    weights: Weights
    kept: bool
    clicks: int
    held_out: int
    before: int
    after: int

    @property
    def sentence(self) -> str:
        """What to tell."""
        what = "the new weights are used" if self.kept else "the old weights stay"
        return f"{self.after} of {self.held_out} held-out clicks are found, {self.before} before training: {what}"


@dataclass(frozen=True)
class _Clicked:
    """An image at the network's scale, its clicks, and which of its pixels are held out."""

    small: SmallImage
    xy_px: FloatArray
    held_out: npt.NDArray[np.bool_]

    @property
    def image(self) -> Float32Array:
        """What the network sees."""
        return self.small.data

    def is_held_out(self, xy_px: FloatArray) -> npt.NDArray[np.bool_]:
        x, y = np.clip(np.rint(xy_px).astype(np.int64), 0, np.array(self.image.shape[::-1]) - 1).T
        return self.held_out[y, x]


def fine_tune(
    weights: Weights, clicked: Sequence[tuple[SmallImage, npt.ArrayLike]], *, complete: bool = False, seed: int = 0
) -> FineTuned:
    """Train further on clicks.

    Parameters
    ----------
    weights : Weights
    clicked : sequence of (SmallImage, (n, 2) float)
        Micrographs as :func:`verglas.picking.prepare` makes them, and clicks x, y in pixels of the micrograph.
    complete : bool
        All particles of these micrographs were clicked: what was not is none.
    seed : int
        Of which squares are held out, windows, and the order of training.

    Returns
    -------
    FineTuned

    Raises
    ------
    InputError
        Fewer than 15 clicks, or all of them in one square.
    """
    rng = np.random.default_rng(seed)
    given = [_place_clicks(small, np.asarray(xy, np.float64).reshape(-1, 2), rng) for small, xy in clicked]
    total = sum(len(one.xy_px) for one in given)
    held_out = sum(int(one.is_held_out(one.xy_px).sum()) for one in given)
    if total < FEWEST_CLICKS or not 0 < held_out < total:
        raise InputError(
            f"fine-tune: expected at least {FEWEST_CLICKS} clicks spread over the micrographs, got {total}, "
            f"{held_out} of them in squares held out; click more particles"
        )
    images, wanted, counts = _windows(weights.network, given, complete, rng)
    settings = TrainingSettings(_STEPS, _BATCH, _RATE, seed=seed)
    network = train(weights.network, images, wanted, counts, settings)
    judges = [_Judge.of(one) for one in given]
    old, new = _found_clicks(weights, replace(weights, network=network), judges)
    before, after = int(old.sum()), int(new.sum())
    kept = surely_more(old, new)
    card = weights.card | {
        "fine_tuned": {"clicks": total, "held_out": held_out, "before": before, "after": after, "complete": complete}
    }
    tuned = _recalibrate(replace(weights, network=network, card=card), weights, judges, complete) if kept else weights
    return FineTuned(tuned, kept, total, held_out, before, after)


def _place_clicks(small: SmallImage, xy_px: FloatArray, rng: np.random.Generator) -> _Clicked:
    """At the scale of the network; clicks outside are left out."""
    scale = _RADIUS / small.radius_px
    here = small.from_micrograph(xy_px)
    shape = small.shape_here
    new = (round(shape[0] * scale), round(shape[1] * scale))
    if new != shape:
        data, grey = (fourier_resample(one, new).astype(np.float32) for one in (small.data, small.grey))
        factor = (small.factor[0] * shape[0] / new[0], small.factor[1] * shape[1] / new[1])
        small = replace(small, data=data, grey=grey, factor=factor, radius_px=_RADIUS, left_out=None)
    ratio = np.array([new[1] / shape[1], new[0] / shape[0]])
    there = (here - np.array(shape[::-1]) // 2) * ratio + np.array(new[::-1]) // 2
    there = there[((there >= 0) & (there <= np.array(new[::-1]) - 1)).all(axis=1)]
    side = int(_SQUARE * PIXELS_ACROSS)
    squares = rng.random((-(-new[0] // side), -(-new[1] // side))) < 1 / _HELD_OUT_OF
    held_out = squares.repeat(side, axis=0).repeat(side, axis=1)[: new[0], : new[1]]
    return _Clicked(small, there, held_out)


def _windows(
    network: Network, given: Sequence[_Clicked], complete: bool, rng: np.random.Generator
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Windows about the clicks of training and as many at random places: images, wanted maps, how much pixels count."""
    parts: list[tuple[Float32Array, Float32Array, Float32Array]] = []
    for one in given:
        margin = [(0, -side % 8 + max(0, _SIDE - side - -side % 8)) for side in one.image.shape]
        image = np.pad(one.image, margin, mode="symmetric")
        mine = one.xy_px[~one.is_held_out(one.xy_px)]
        wanted = heat_map(image.shape, mine, _RADIUS)
        counts = np.ones_like(wanted)
        if not complete:
            taught = expit(network.apply(image[None])[0])
            near = heat_map(image.shape, mine, _REACH / (3 * SPOT) * _RADIUS) > np.exp(-4.5)
            wanted, counts = np.where(near, wanted, taught), np.where(near, 1, np.float32(_TAUGHT))
        known = np.pad(~one.held_out, margin)[::2, ::2]
        counts = (counts * known).astype(np.float32)
        top = np.array(image.shape) - _SIDE
        places = np.concatenate([mine[:, ::-1] - _SIDE / 2, rng.uniform(0, top + 1, (len(mine) + 4, 2))])
        places += rng.uniform(-0.3, 0.3, places.shape) * _SIDE
        for y, x in 2 * (np.clip(places, 0, top) // 2).astype(np.int64):
            half = np.s_[y // 2 : (y + _SIDE) // 2, x // 2 : (x + _SIDE) // 2]
            parts.append((image[y : y + _SIDE, x : x + _SIDE], wanted[half], counts[half]))
    images, maps, weights = (np.stack(group).astype(np.float32) for group in zip(*parts, strict=True))
    return images, maps, weights


def surely_more(old: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_]) -> bool:
    """Whether more clicks are found than by chance: a sign test over those that only one of the two finds.

    One click more of a few is what training on anything brings.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.fine_tune import surely_more
    >>> old = np.zeros(6, bool)
    >>> surely_more(old, np.arange(6) < 4), surely_more(old, np.arange(6) < 5)
    (False, True)
    """
    gained, lost = int((new & ~old).sum()), int((old & ~new).sum())
    return gained > lost and bool(binomtest(gained, gained + lost, alternative="greater").pvalue < _CHANCE)


@dataclass(frozen=True)
class _Judge:
    """A clicked micrograph, what the classical picker sees in it, and where peaks may stand."""

    one: _Clicked
    by_filter: ScoredPeaks
    allowed: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, one: _Clicked) -> _Judge:
        """With the peaks of the classical picker."""
        peaks, bad = classical_peaks(one.small, PickSettings(method="automatic"), None, threads=1)
        return cls(one, peaks, ~bad.mask)

    def places(self, weights: Weights) -> tuple[FloatArray, FloatArray]:
        """Places and chances, likeliest first."""
        return judged_places(self.one.small, weights, self.by_filter, self.allowed, _DISTANCE)


def _found_clicks(
    old: Weights, new: Weights, judges: Sequence[_Judge]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which held-out clicks the old and the new weights find with the same number of picks in the held-out squares."""
    found: tuple[list[npt.NDArray[np.bool_]], ...] = ([], [])
    for judge in judges:
        one = judge.one
        true = one.xy_px[one.is_held_out(one.xy_px)]
        number = len(true)
        for each, hits in zip((old, new), found, strict=True):
            xy, chance = judge.places(each)
            there = one.is_held_out(xy)
            xy = xy[there]
            if each is old:
                number = max(number, int(np.count_nonzero(chance[there] >= 0.5)))
            hits.append(np.isin(np.arange(len(true)), match_picks(xy[:number], true, PIXELS_ACROSS / 3)[1]))
    return np.concatenate(found[0]), np.concatenate(found[1])


def _recalibrate(new: Weights, old: Weights, judges: Sequence[_Judge], complete: bool) -> Weights:
    """With an offset of the chances that expects as many particles as were clicked, or as the old weights expected."""
    logits = np.concatenate([logit(np.clip(judge.places(new)[1], 1e-12, 1 - 1e-12)) for judge in judges])
    if complete:
        expected = float(sum(len(judge.one.xy_px) for judge in judges))
    else:
        expected = float(sum(judge.places(old)[1].sum() for judge in judges))
    expected = float(np.clip(expected, 0.5, len(logits) - 0.5))

    def surplus(offset: float) -> float:
        return float(expit(logits + offset).sum()) - expected

    reach = float(np.abs(logits).max()) + 30
    offset = old.card["calibration"]["joint_offset"] + float(brentq(surplus, -reach, reach))
    return replace(new, card=new.card | {"calibration": old.card["calibration"] | {"joint_offset": offset}})
