r"""Filaments: ridges of oriented filters, followed as smooth tracks.

The micrograph is correlated with rods of every orientation, Gaussian along their length u and a difference of Gaussians
across it,

.. math:: K_\theta(u, v) = e^{-u^2 / 2 s_u^2} \left[ e^{-v^2 / 2 s_v^2} - \tfrac12 e^{-v^2 / 8 s_v^2} \right], \qquad
    s_u = 1.5\,w,\ s_v = 0.3\,w

for filaments of width w. The score of place and orientation is kept: where two filaments cross, each has its own ridge.
A track begins at the highest place that belongs to none, and is followed both ways by steps of half a width that turn
by a few degrees and stay on the ridge. What a track of background reaches is measured on fields of the micrograph's own
spectrum with random phases; only longer or stronger tracks are filaments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import splev, splprep

from verglas import fourier, ops
from verglas.picking.background import median_and_sigma, noise_fields
from verglas.picking.image import SmallImage, prepare
from verglas.picking.local import disc_mean
from verglas.picking.mask import bad_areas, dilate_by_disc, open_by_disc
from verglas.picking.mixture import ScoreCut
from verglas.picking.particles import MERIT, PickResult
from verglas.types import Picks
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import MicrographLike, micrograph_of
from verglas.types.display import one_line
from verglas.types.settings import JobSettings, setting, settings_from

# Orientations of half a turn; the filter's own width is about twice their distance.
_ANGLES = 24
# Width of a filament in pixels of the small image: its profile, and no more.
_ACROSS = 11
# Steps in widths; orientations that a step may turn by; sideways places that it may take, in widths.
_STEP, _TURN, _SIDEWAYS = 0.5, 1, (-0.2, -0.1, 0.0, 0.1, 0.2)
# Score of a seed, of a place on a track, in deviations of the score; share of the track's median at which it ends.
_SEED, _WEAK, _END = 3.0, 1.2, 0.5
# Steps without a ridge that are bridged: a contaminant on a filament.
_BRIDGED = 4
# What a track claims: within this distance in widths, and so many orientations.
_CLAIM, _CLAIMED_ANGLES = 0.7, 3
# Fields of background that say what a track of noise reaches, and how far above the best of them a filament is.
_FIELDS, _ABOVE = 2, 1.4
# Length of tracks that are filled with background while carbon is looked for, and how far about them, in widths; length
# of the shortest filament: contaminants are as long as four or five.
_LONG, _FILLED, _SHORTEST = 8, 1.0, 6
# Smoothing of a centre-line, in widths.
_SMOOTH = 0.05


@dataclass(frozen=True)
class FilamentSettings(JobSettings, job="filaments"):
    """How filaments are traced.

    Attributes
    ----------
    spacing_A : float, optional
        Of segments along a filament; half its width by default.
    shortest_A : float, optional
        Filaments shorter than this are left out; six widths by default.
    border_A : float, optional
        Least distance of a segment from the edge; half a width by default.
    exclude : bool
        Leave out carbon and large bad areas.
    white : bool
        Filaments are white in the micrograph.
    """

    spacing_A: float | None = setting(None, "Of segments along a filament", more_than=0, default_words="half its width")
    shortest_A: float | None = setting(None, "Of filaments that are kept", more_than=0, default_words="six widths")
    border_A: float | None = setting(None, "Least distance from the edge", at_least=0, default_words="half a width")
    exclude: bool = setting(True, "Leave out carbon and large bad areas")
    white: bool = setting(False, "Filaments are white in the micrographs")


@one_line
@dataclass(frozen=True)
class Filament:
    """One track.

    Attributes
    ----------
    xy_px : (n, 2) float64
        Centre-line in pixels of the micrograph, smooth.
    score : float
        Mean height of its ridge, in deviations of the score of the whole micrograph.
    """

    xy_px: FloatArray
    score: float


def trace_filaments(
    micrograph: MicrographLike,
    width_A: float,
    settings: FilamentSettings | None = None,
    *,
    threads: int | None = None,
    **changes: Any,
) -> Picks:
    """Find filaments and place segments along them.

    Parameters
    ----------
    micrograph : Micrograph
        Filaments dark, pixel size known.
    width_A : float
        Of the filament; a fifth more or less does no harm.
    settings : FilamentSettings, optional
        Further keywords change its fields.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    Picks
        Segments, filament by filament along each, with RELION's columns: rlnHelicalTubeID from 1,
        rlnHelicalTrackLengthAngst from the filament's first segment, rlnAngleTiltPrior 90, rlnAnglePsiPrior
        -atan2(dy, dx) in degrees of the tangent, rlnAnglePsiFlipRatio 0.5 (polarity is not known), and
        rlnAutopickFigureOfMerit, the mean height of the filament's ridge.

    Raises
    ------
    InputError
        A micrograph that nothing can be picked from, or a width that does not fit it.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> m, truth = vg.simulate.filaments(shape=(400, 400), pixel_size_A=4.0, n=1, snr=0.3, seed=3)
    >>> picks = vg.picking.trace_filaments(m, 100.0, spacing_A=80.0)
    >>> sorted(set(picks.columns["rlnHelicalTubeID"].tolist())), len(picks) > 10
    ([1], True)
    """
    chosen = settings_from("filaments", FilamentSettings, settings, **changes)
    return trace_detailed(micrograph, width_A, chosen, threads=threads).picks


@any_arrays
def trace_detailed(
    micrograph: MicrographLike,
    width_A: float,
    settings: FilamentSettings,
    *,
    left_out: npt.ArrayLike | None = None,
    threads: int | None = None,
) -> PickResult:
    """As :func:`trace_filaments`, with what was searched and left out.

    Parameters
    ----------
    micrograph, width_A, settings, threads
        As for :func:`trace_filaments`.
    left_out : (n, 3) float, optional
        Discs of the micrograph, x, y and radius in pixels, through which nothing is traced.
    """
    given = micrograph_of(micrograph, "trace_filaments: micrograph")
    small = prepare(given, 2 * width_A, white=settings.white, threads=threads)
    if left_out is not None:
        small = small.without_discs(left_out)
    filaments = filament_tracks(small, width_A, settings, threads=threads)
    spacing_px = (settings.spacing_A or width_A / 2) / given.pixel_size_A
    border_px = (width_A / 2 if settings.border_A is None else settings.border_A) / given.pixel_size_A
    picks = segments_of(filaments, spacing_px, given.pixel_size_A, border_px, given.shape, given.name)
    cut = ScoreCut(0.0, float("nan"), bool(len(picks)), precision=float("nan"))
    return PickResult(picks, picks, cut, bad_areas(small), small, None, "filaments")


def filament_tracks(
    small: SmallImage, width_A: float, settings: FilamentSettings, *, threads: int | None = None
) -> list[Filament]:
    """Tracks of :func:`trace_filaments` on an image made small for twice their width, the strongest first."""
    width_px = width_A / small.pixel_size_A
    scores = _oriented_scores(small.data, width_px, threads)
    allowed = ~_bad(small, scores, width_px) if settings.exclude else np.ones(small.shape_here, bool)
    if small.left_out is not None:
        allowed &= ~small.left_out
    if not allowed.any():
        return []
    scores /= _noise_deviation(scores, allowed)
    limit = _noise_limit(small.data, allowed, width_px, threads)
    shortest_px = (settings.shortest_A or _SHORTEST * width_A) / small.pixel_size_A
    kept = []
    for track, heights in _tracks(scores, allowed, width_px):
        if len(track) < 4 or _strength(heights) < limit:
            continue
        line = _smooth(track[:, :2], width_px)
        if _length(line) >= shortest_px:
            kept.append(Filament(small.to_micrograph(line), float(heights.mean())))
    return sorted(kept, key=lambda one: -one.score)


def _bad(small: SmallImage, scores: Float32Array, width_px: float) -> npt.NDArray[np.bool_]:
    """Carbon and areas wider than filaments, as they are without what looks like filaments.

    Filaments are rough and dark, and where they are many all is unlike what is between them: long tracks are filled
    with background before the areas are looked for.
    """
    everywhere = np.ones(small.shape_here, bool)
    marks = everywhere.copy()
    for track, _ in _tracks(scores / _noise_deviation(scores, everywhere), everywhere, width_px):
        if _length(track) > _LONG * width_px:
            x, y = np.rint(_smooth(track, width_px)).astype(np.int64).T
            marks[y.clip(0, marks.shape[0] - 1), x.clip(0, marks.shape[1] - 1)] = False
    spots = _spots(small.data, marks, width_px)
    near = ndimage.distance_transform_edt(marks) < _FILLED * width_px
    if near.all():
        return ~everywhere
    # With what lies beside it: ice and carbon keep their textures.
    source = _mirror_sources(near)
    wide = bad_areas(replace(small, data=small.data[source], grey=small.grey[source])).wide
    carbon = ndimage.binary_opening(wide, iterations=int(np.ceil(width_px)))
    # The edge of carbon is a ridge, and the gradient beside it another.
    return dilate_by_disc(carbon, 1.5 * width_px) | spots


def _spots(data: Float32Array, marks: npt.NDArray[np.bool_], width_px: float) -> npt.NDArray[np.bool_]:
    """Contaminants: wider than a filament, and darker in the micrograph than filaments are where they cross."""
    local = disc_mean(data, 0.3 * width_px)
    level, deviation = median_and_sigma(local)
    # A low quantile: tracks lead over contaminants, too.
    filament = float(np.percentile(local[~marks], 20)) - level if not marks.all() else 0.0
    dark = np.asarray(local > level + max(5 * deviation, 3 * filament))
    return dilate_by_disc(open_by_disc(dark, 0.75 * width_px), 0.5 * width_px)


def _mirror_sources(near: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns that some places are filled from: as far beyond the nearest background as they are from it."""
    nearest = ndimage.distance_transform_edt(near, return_distances=False, return_indices=True)
    sides = np.array(near.shape)[:, None, None]
    mirrored = np.clip(2 * nearest - np.indices(near.shape), 0, sides - 1)
    onto = near[tuple(mirrored)]  # another filament lies there
    rows, columns = np.where(onto, nearest, mirrored).astype(np.int64)
    return rows, columns


def _length(line: FloatArray) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def _strength(heights: FloatArray) -> float:
    """Of a track: its mean height times the root of its length in independent pieces."""
    return float(heights.mean() * np.sqrt(len(heights)))


def _oriented_scores(data: Float32Array, width_px: float, threads: int | None) -> Float32Array:
    """Correlation with rods of every orientation, (angles, y, x), the image mirrored at its border."""
    margin = int(np.ceil(4.5 * width_px))
    height, width = data.shape
    shape = (fourier.fast_size(height + 2 * margin), fourier.fast_size(width + 2 * margin))
    pads = [(margin, m - n - margin) for m, n in zip(shape, data.shape, strict=True)]
    spectrum = fourier.forward(np.pad(data, pads, mode="symmetric").astype(np.float32), 2, threads=threads)
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    out = np.empty((_ANGLES, height, width), np.float32)
    for number, angle in enumerate(_angles()):
        along, across = kx * np.cos(angle) + ky * np.sin(angle), -kx * np.sin(angle) + ky * np.cos(angle)
        transfer = np.exp(-((2 * np.pi * along * 1.5 * width_px) ** 2) / 2)
        # Transforms of the two Gaussians across have equal sums, so a constant has no response.
        narrow = (2 * np.pi * across * 0.3 * width_px) ** 2 / 2
        transfer = transfer * (np.exp(-narrow) - np.exp(-4 * narrow))
        filtered = fourier.inverse(spectrum * transfer.astype(np.float32), shape, threads=threads)
        out[number] = filtered[margin : margin + height, margin : margin + width]
    # What is as high across as along is a blob. Of two filaments that cross, a width is bridged.
    return out - np.maximum(np.roll(out, _ANGLES // 2, axis=0), 0)


def _noise_deviation(scores: Float32Array, allowed: npt.NDArray[np.bool_]) -> float:
    """Deviation of the scores of background, from what lies below the median: filaments are above."""
    values = scores[:, allowed][:, ::7]
    return median_and_sigma(values)[1] if values.size else 1.0


def _angles() -> FloatArray:
    return np.arange(_ANGLES) * np.pi / _ANGLES


def _noise_limit(data: Float32Array, allowed: npt.NDArray[np.bool_], width_px: float, threads: int | None) -> float:
    """What no track of background reaches, on fields of the spectrum of the image where nothing is left out."""
    strongest = 0.0
    background = np.where(allowed, data, np.float32(0))
    for field in noise_fields(background, _FIELDS, threads=threads):
        scores = _oriented_scores(field, width_px, threads)
        everywhere = np.ones(data.shape, bool)
        scores /= _noise_deviation(scores, everywhere)
        for _, heights in _tracks(scores, everywhere, width_px):
            strongest = max(strongest, _strength(heights))
    return _ABOVE * strongest


def _tracks(
    scores: Float32Array, allowed: npt.NDArray[np.bool_], width_px: float
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Points (n, 2) and heights (n,) of each track, from the highest seed down."""
    best = np.where(allowed, scores.max(axis=0), np.float32(0))
    seeds, heights = ops.peaks(best, width_px, mask=allowed, threads=1)
    claimed = np.zeros(scores.shape, bool)
    for x, y in seeds[heights > _SEED]:
        column, row = round(float(x)), round(float(y))
        bin_ = int(scores[:, row, column].argmax())
        if claimed[bin_, row, column]:
            continue
        ahead = _follow(scores, allowed, claimed, _Heading(float(x), float(y), bin_), width_px)
        behind = _follow(scores, allowed, claimed, _Heading(float(x), float(y), bin_ + _ANGLES), width_px)
        track = np.concatenate([behind[:0:-1], ahead])
        _claim(claimed, track, width_px)
        track = _on_ridge(scores, track, width_px)
        track = _without_weak_ends(track)
        if len(track) > 1:
            yield track[:, :2], track[:, 3]


@dataclass(frozen=True)
class _Heading:
    """A place on a ridge, and which of the orientations of a whole turn it is followed in."""

    x: float
    y: float
    orientation: int


def _follow(
    scores: Float32Array,
    allowed: npt.NDArray[np.bool_],
    claimed: npt.NDArray[np.bool_],
    start: _Heading,
    width_px: float,
) -> FloatArray:
    """Rows x, y, orientation (of a whole turn), height, from a place one way along its ridge."""
    x, y, bin_ = start.x, start.y, start.orientation
    step, height, width = _STEP * width_px, *allowed.shape
    sideways = np.array(_SIDEWAYS)[None] * width_px
    rows = [(x, y, bin_, float(scores[bin_ % _ANGLES, round(y), round(x)]))]
    weak = 0
    # No filament is longer than the border of the image.
    for _ in range(int(2 * (height + width) / step)):
        bins = bin_ + np.arange(-_TURN, _TURN + 1)
        angles = bins[:, None] * np.pi / _ANGLES
        at_x = x + step * np.cos(angles) - sideways * np.sin(angles)
        at_y = y + step * np.sin(angles) + sideways * np.cos(angles)
        columns, lines = np.rint(at_x).astype(np.int64), np.rint(at_y).astype(np.int64)
        inside = (columns >= 0) & (columns < width) & (lines >= 0) & (lines < height)
        columns, lines = columns.clip(0, width - 1), lines.clip(0, height - 1)
        heights = np.where(inside & allowed[lines, columns], scores[bins[:, None] % _ANGLES, lines, columns], -np.inf)
        turn, side = np.unravel_index(int(heights.argmax()), heights.shape)
        here = float(heights[turn, side])
        x, y, bin_ = float(at_x[turn, side]), float(at_y[turn, side]), int(bins[turn])
        if not np.isfinite(here):
            break
        rows.append((x, y, bin_, here))
        # Another track's place is no ridge of this one's, but two that cross at a small angle part again.
        taken = claimed[bin_ % _ANGLES, lines[turn, side], columns[turn, side]]
        weak = weak + 1 if here < _WEAK or taken else 0
        if weak > _BRIDGED:
            break
    return np.array(rows[: len(rows) - weak])


def _on_ridge(scores: Float32Array, track: FloatArray, width_px: float) -> FloatArray:
    """A track moved sideways to the centroid of its ridge at every place."""
    offsets = np.linspace(-0.4, 0.4, 9) * width_px
    angles = track[:, 2] * np.pi / _ANGLES
    x = track[:, 0, None] - offsets * np.sin(angles)[:, None]
    y = track[:, 1, None] + offsets * np.cos(angles)[:, None]
    bins = (track[:, 2].astype(np.int64) % _ANGLES)[:, None]
    columns, lines = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    heights = scores[bins, lines.clip(0, scores.shape[1] - 1), columns.clip(0, scores.shape[2] - 1)]
    weights = np.maximum(heights - heights.min(axis=1, keepdims=True), 1e-9) ** 2
    moved = (weights * offsets).sum(axis=1) / weights.sum(axis=1)
    out = track.copy()
    out[:, 0] -= moved * np.sin(angles)
    out[:, 1] += moved * np.cos(angles)
    return out


def _without_weak_ends(track: FloatArray) -> FloatArray:
    """The part between the first and the last place of more than a share of the median height: there a rod ends."""
    strong = np.flatnonzero(track[:, 3] > _END * np.median(track[:, 3]))
    return track[strong[0] : strong[-1] + 1] if len(strong) else track[:0]


def _claim(claimed: npt.NDArray[np.bool_], track: FloatArray, width_px: float) -> None:
    """Mark what is about a track, in place and orientation."""
    reach = int(np.ceil(_CLAIM * width_px))
    grid = np.arange(-reach, reach + 1)
    dy, dx = (g[np.hypot(grid[:, None], grid) <= _CLAIM * width_px] for g in np.meshgrid(grid, grid, indexing="ij"))
    y = (np.rint(track[:, 1]).astype(np.int64)[:, None] + dy).clip(0, claimed.shape[1] - 1)
    x = (np.rint(track[:, 0]).astype(np.int64)[:, None] + dx).clip(0, claimed.shape[2] - 1)
    for turn in range(-_CLAIMED_ANGLES, _CLAIMED_ANGLES + 1):
        claimed[((track[:, 2].astype(np.int64) + turn) % _ANGLES)[:, None], y, x] = True


def _smooth(track: FloatArray, width_px: float) -> FloatArray:
    """A smoothing spline through a track, sampled at about every quarter of a width."""
    length = _length(track)
    spline, _ = splprep(track.T, s=len(track) * (_SMOOTH * width_px) ** 2, k=3)
    return np.stack(splev(np.linspace(0, 1, max(4, int(4 * length / width_px))), spline), axis=1)


def segments_of(
    filaments: list[Filament],
    spacing_px: float,
    pixel_size_A: float,
    border_px: float,
    shape: tuple[int, int],
    name: str,
) -> Picks:
    """Segments at equal distances along each filament, with RELION's helical columns."""
    columns: dict[str, list[FloatArray]] = {label: [] for label in HELICAL}
    places = []
    for number, filament in enumerate(filaments, 1):
        along = np.r_[0, np.cumsum(np.hypot(*np.diff(filament.xy_px, axis=0).T))]
        at = np.arange(0, along[-1] + 1e-9, spacing_px)
        x, y = (np.interp(at, along, filament.xy_px[:, axis]) for axis in (0, 1))
        slopes = [np.interp(at, along, np.gradient(filament.xy_px[:, axis], along)) for axis in (0, 1)]
        kept = (x >= border_px) & (x <= shape[1] - 1 - border_px) & (y >= border_px) & (y <= shape[0] - 1 - border_px)
        if not kept.any():
            continue
        places.append(np.stack([x, y], axis=1)[kept])
        # RELION's psi turns the other way than the image's y axis: the helix lies along (cos psi, -sin psi).
        psi = -np.rad2deg(np.arctan2(slopes[1], slopes[0]))
        first = at[kept][0]
        values = (number, (at - first) * pixel_size_A, 90.0, psi, 0.5, filament.score)
        for label, value in zip(HELICAL, values, strict=True):
            columns[label].append(np.broadcast_to(np.asarray(value), at.shape)[kept])
    if not places:
        return Picks(np.zeros((0, 2)), name, {label: np.zeros(0) for label in HELICAL})
    numbers = np.unique(np.concatenate(columns[HELICAL[0]]), return_inverse=True)[1] + 1
    joined = {label: np.concatenate(values) for label, values in columns.items()}
    return Picks(np.concatenate(places), name, joined | {HELICAL[0]: numbers})


HELICAL = (
    "rlnHelicalTubeID",
    "rlnHelicalTrackLengthAngst",
    "rlnAngleTiltPrior",
    "rlnAnglePsiPrior",
    "rlnAnglePsiFlipRatio",
    MERIT,
)
