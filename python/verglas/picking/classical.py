"""Peaks of the pickers that need no trained network: first peaks, areas to leave out in their light, peaks again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from verglas.picking.average import learn
from verglas.picking.blob import laplacian_score
from verglas.picking.discriminant import Bands, split_bands
from verglas.picking.examples import PickExamples
from verglas.picking.features import FEATURE_METHODS, feature_peaks
from verglas.picking.image import SmallImage
from verglas.picking.mask import BadAreas, bad_areas
from verglas.picking.reference_free import classifier_starts, particle_map
from verglas.picking.scored import ScoredPeaks, Search, average_peaks, filter_peaks, most_supported, with_oriented_peaks
from verglas.types.arrays import Float32Array

if TYPE_CHECKING:
    from verglas.picking.particles import PickSettings


def classical_peaks(
    small: SmallImage,
    chosen: PickSettings,
    template_score: Float32Array | None,
    *,
    threads: int | None = None,
    examples: PickExamples | None = None,
) -> tuple[ScoredPeaks, BadAreas]:
    """Peaks by the method that the settings name, and the areas where none stand.

    Parameters
    ----------
    small : SmallImage
    chosen : PickSettings
        Any method but ``consensus`` and ``learned``.
    template_score : (y, x) float32, optional
        Correlation with templates, where they were given.
    threads : int, optional
        Threads; all by default.
    examples : PickExamples, optional
        Of the pickers by features.
    """
    bad = bad_areas(small)
    apart = 1.4 * small.radius_px  # 0.7 diameters
    distance_px = apart if chosen.distance_A is None else chosen.distance_A / small.pixel_size_A
    everywhere = np.ones_like(bad.rough) if small.left_out is None else ~small.left_out
    search = Search(small, ~bad.wide if chosen.exclude else everywhere, distance_px, threads=threads)
    features = chosen.method in FEATURE_METHODS
    filters = features or (chosen.learn and chosen.method in ("automatic", "log"))
    bands = split_bands(small, threads=threads) if filters else None
    peaks = _first_peaks(search, chosen, template_score, bands)
    if chosen.exclude:
        # Of doubtful picks the certain ones: background among them would lower the limit below what particles reach.
        bad = bad.for_particles(peaks.positions_px if peaks.cut.clear or not len(peaks.certain) else peaks.certain)
        search = replace(search, allowed=~bad.mask)
        # A filter may have been learned from contaminants; an average or a template stays what it is.
        if bands is not None and bad.mask.any():
            peaks = filter_peaks(search, bands)
        else:
            peaks = search.peaks(peaks.source, peaks.score, peaks.template, peaks.null)
    if chosen.method == "automatic" and filters:
        peaks = most_supported([peaks, average_peaks(search, peaks)])
    if features:
        peaks = feature_peaks(search, peaks, chosen.method, examples)
    elif bands is not None:
        peaks = with_oriented_peaks(search, bands, peaks)
    return peaks, bad


def _first_peaks(
    search: Search, chosen: PickSettings, template_score: Float32Array | None, bands: Bands | None
) -> ScoredPeaks:
    """Peaks of one method's score map; "automatic" begins with the filter."""
    if template_score is not None:
        return search.peaks("template", template_score)
    small, threads = search.small, search.threads
    if chosen.method != "reference-free":
        return filter_peaks(search, bands) if bands is not None else search.peaks("log", laplacian_score(small))
    if chosen.learn:
        starts = classifier_starts(small, search.allowed, search.distance_px, threads=threads)
        learned = learn(small, starts, search.allowed, search.distance_px, threads=threads)
        if learned is not None:
            return search.peaks("reference-free", learned.score, learned.template)
    decision = particle_map(small, search.allowed, threads=threads)
    return search.peaks("reference-free", np.zeros_like(small.data) if decision is None else decision)
