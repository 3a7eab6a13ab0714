"""A score map, its peaks and the cut between particles and background; which of several maps the data support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas.picking.average import rotational_template, search_disc
from verglas.picking.background import (
    LEAST_AREA,
    PeakHeights,
    away_from_peaks,
    background_heights,
    peak_heights,
)
from verglas.picking.blob import laplacian_score
from verglas.picking.discriminant import Bands, apply_filter, band_statistics, fisher_weights
from verglas.picking.image import SmallImage
from verglas.picking.mixture import ScoreCut, particle_cut
from verglas.picking.oriented import ELLIPSOID, OrientedFilter, ellipsoid_filter, learned_filter, oriented_response
from verglas.picking.template import MASK_OVER_PARTICLE, correlate, template_bank
from verglas.types.arrays import Float32Array, FloatArray

# Shares of the peaks that are seeds of a filter: of a crowded micrograph most peaks are particles, of a sparse one few.
SEED_SHARES = (0.25, 0.03)
_FILTER_ROUNDS, _AVERAGE_ROUNDS = 3, 2
# The same of oriented filters. They are tried where round ones gain no more than this: long particles of high contrast
# are seen as well without, and so are round ones.
_ORIENTED_SEEDS, _ORIENTED_ROUNDS, _SURE = 0.12, 2, 100.0
# They have to gain more by this factor: with three times as many weights they fit the noise of their seeds as well (on
# simulated round particles by 1.3 to 1.4, on long and flat ones by 2.3 and more).
_FACTOR = 1.5
_STRONG = 0.5  # share of the picks that are certain: of weak spindles a third, of four strong discs nearly all


@dataclass(frozen=True)
class ScoredPeaks:
    """Peaks of one score map.

    Attributes
    ----------
    source : {"log", "average", "oriented", "reference-free", "template"}
        What made the map.
    score : (y, x) float32
    xy_px : (n, 2) float64
        On the grid of the small image, highest first.
    heights : (n,) float64
    cut : ScoreCut
    null : PeakHeights
        Of background of the map's spectrum.
    template : (s, s) float32 or None
        The rotational average that the micrograph was correlated with.
    """

    source: str
    score: Float32Array = field(repr=False)
    xy_px: FloatArray = field(repr=False)
    heights: FloatArray = field(repr=False)
    cut: ScoreCut
    null: PeakHeights = field(repr=False)
    template: Float32Array | None = field(default=None, repr=False)

    @property
    def certain(self) -> FloatArray:
        """Positions of the peaks that are no background, whatever the cut: of picks that are not clear a part."""
        return self.xy_px[self.heights >= max(self.cut.certain, self.cut.threshold)]

    @property
    def positions_px(self) -> FloatArray:
        """Positions of the peaks that the cut keeps."""
        return self.xy_px[self.heights >= self.cut.threshold]


@dataclass(frozen=True)
class Search:
    """Where peaks may stand.

    Attributes
    ----------
    small : SmallImage
    allowed : (y, x) bool
    distance_px : float
        Least distance of two peaks.
    threads : int, optional
        All by default.
    """

    small: SmallImage
    allowed: npt.NDArray[np.bool_]
    distance_px: float
    threads: int | None = None

    def peaks(
        self,
        source: str,
        score: Float32Array,
        template: Float32Array | None = None,
        null: PeakHeights | None = None,
    ) -> ScoredPeaks:
        """Peaks of a map and the cut between them; ``null``, where it is known already, saves its simulation."""
        xy, heights = ops.peaks(score, self.distance_px, mask=self.allowed, threads=self.threads)
        null = null or background_heights(
            score, xy, heights, self.small.radius_px, self.allowed, self.distance_px, threads=self.threads
        )
        cut = particle_cut(xy, heights, score, null, self.small.radius_px, self.allowed)
        return ScoredPeaks(source, score, xy, heights, cut, null, template)


def most_supported(results: Sequence[ScoredPeaks]) -> ScoredPeaks:
    """The result whose peaks are most unlike background alone: the largest gain in log likelihood, the first of equals.

    Every map is judged against the peaks that background of its own spectrum has, so maps of any scale and method can
    be compared.
    """
    return max(results, key=lambda one: one.cut.gain)


def filter_peaks(search: Search, bands: Bands) -> ScoredPeaks:
    """Peaks of the filter that :mod:`.discriminant` learns, from the shares of seeds that the data support most.

    Parameters
    ----------
    search : Search
    bands : Bands
        Of its image.

    Returns
    -------
    ScoredPeaks

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.picking import prepare
    >>> from verglas.picking.discriminant import split_bands
    >>> from verglas.picking.scored import Search, filter_peaks
    >>> y, x = np.mgrid[:300, :300]
    >>> discs = sum((np.hypot(x - u, y - v) < 12) for u in (60, 150, 240) for v in (60, 150, 240))
    >>> m = vg.Micrograph(np.random.default_rng(0).normal(size=(300, 300)) - discs, 4.0)
    >>> small = prepare(m, 96.0)
    >>> peaks = filter_peaks(Search(small, np.ones(small.shape_here, bool), 16.0), split_bands(small))
    >>> len(peaks.positions_px), bool((np.abs(small.to_micrograph(peaks.positions_px) % 90 - 60) < 3).all())
    (9, True)
    """
    rest = band_statistics(bands.maps, search.allowed)
    start, results = laplacian_score(search.small), []
    for share in SEED_SHARES:
        score = start
        for _ in range(_FILTER_ROUNDS):
            xy, _ = ops.peaks(score, search.distance_px, mask=search.allowed, threads=search.threads)
            if len(xy):
                weights = fisher_weights(bands.maps, xy[: max(4, int(share * len(xy)))], rest)
                score = apply_filter(bands.maps, weights, search.allowed)
        results.append(search.peaks("log", score))
    return most_supported(results)


def with_oriented_peaks(search: Search, bands: Bands, round_ones: ScoredPeaks) -> ScoredPeaks:
    """Peaks of filters for long and flat particles, where the data support them more than those of round ones by far.

    The first filter is that of an ellipsoid, the second what its highest peaks teach.

    Parameters
    ----------
    search : Search
    bands : Bands
        Of its image.
    round_ones : ScoredPeaks
        Of the best round filter or average.

    Returns
    -------
    ScoredPeaks
        Of source "oriented", or ``round_ones``.
    """
    if round_ones.cut.gain > _SURE or search.allowed.mean() < LEAST_AREA:
        return round_ones
    # A few strong particles gain little in all, and what is seen with a round filter beyond doubt is not weak: filters
    # that reach to one side of a particle would take its flanks for more of them.
    if len(round_ones.certain) > _STRONG * len(round_ones.positions_px):
        return round_ones
    best = most_supported(_oriented_peaks(search, bands, round_ones))
    return best if best.cut.gain > _FACTOR * round_ones.cut.gain else round_ones


def _oriented_peaks(search: Search, bands: Bands, round_ones: ScoredPeaks) -> tuple[ScoredPeaks, ScoredPeaks]:
    rest = band_statistics(bands.maps, search.allowed)
    small, threads = search.small, search.threads
    certain = round_ones.positions_px if round_ones.cut.clear else np.zeros((0, 2))
    away = away_from_peaks(search.allowed, certain, small.radius_px)
    background = small.data if away is None else np.where(away, small.data, np.float32(0))

    def score_oriented(chosen: OrientedFilter, score: Float32Array) -> ScoredPeaks:
        def respond(spectrum: npt.NDArray[np.complex64]) -> Float32Array:
            return oriented_response(spectrum, bands, chosen, threads=threads)[0]

        null = peak_heights(background, search.distance_px, respond, bands.padded, threads=threads)
        return search.peaks("oriented", score, null=null)

    chosen = ellipsoid_filter(*ELLIPSOID, rest)
    score, which = oriented_response(bands.spectrum, bands, chosen, threads=threads)
    first = score_oriented(chosen, score)
    seeds = first.xy_px
    for _ in range(_ORIENTED_ROUNDS):
        seeds = seeds[: max(4, int(_ORIENTED_SEEDS * len(seeds)))]
        chosen = learned_filter(small, bands, rest, seeds, which) or chosen
        score, which = oriented_response(bands.spectrum, bands, chosen, threads=threads)
        seeds, _ = ops.peaks(score, search.distance_px, mask=search.allowed, threads=threads)
    return first, score_oriented(chosen, score)


def average_peaks(search: Search, seeds: ScoredPeaks) -> ScoredPeaks:
    """Peaks of the correlation with the rotational average of what another map's cut has picked; that where none is."""
    small, reach = search.small, MASK_OVER_PARTICLE * search.small.radius_px
    searched = search_disc(small, threads=search.threads)
    result, null = seeds, None
    for _ in range(_AVERAGE_ROUNDS):
        template = rotational_template(small.data, result.positions_px, reach)
        if template is None:
            break
        score, _ = correlate(searched, template_bank(template[None], small.pixel_size_A, reach), threads=search.threads)
        result = search.peaks("average", score, template, null)
        null = result.null
    return result
