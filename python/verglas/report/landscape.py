"""The part of a variability page that shows how particles are spread: free energy, clusters, a way across."""

from __future__ import annotations

import numpy as np

from verglas.heterogeneity.landscape import Landscape
from verglas.report.chart import Chart, Field, Series, chart_block, charts_block
from verglas.report.html import Section, Table
from verglas.types.arrays import FloatArray

_MOST_KT = 6.0
_CELLS = 48  # of the picture of the first two coordinates, a side
_WORDS = (
    "The density of the coordinates, freed of every particle's own uncertainty, as a mixture of Gaussians whose number "
    "is the one asked for, or the smallest that particles of the other half set do not refute by one standard error. "
    "Free energy is -ln of it, in kT, 0 where it is largest; its error is half the difference between the half sets, "
    "of chance alone. Clusters are the Gaussians: one long valley may take several."
)


def landscape_section(land: Landscape, coordinates: FloatArray, path: FloatArray, no_maps: str = "") -> Section:
    """Clusters, free energy along the first coordinate, or over the first two, and the path.

    Parameters
    ----------
    land : Landscape
    coordinates : (n, q) float64
        Of the particles.
    path : (m, q) float64
        Points of the way across.
    no_maps : str
        Why there are no maps along it, if so.
    """
    count = np.bincount(land.cluster, minlength=land.clusters + 1)[1:]
    rows = [
        (f"{k + 1}", f"{100 * s:.1f} %", f"{count[k]}", ", ".join(f"{v:.3g}" for v in mean))
        for k, (s, mean) in enumerate(zip(land.mixture.shares, land.mixture.means, strict=True))
    ]
    head = ("clusters", "held-out gain over one, nats per particle", "standard error")
    tried = [(f"{row.clusters}", f"{row.gain_nats:+.4f}", f"{row.error_nats:.4f}") for row in land.trials.itertuples()]
    clusters = Table(("cluster", "share", "particles", "centre"), rows)
    if coordinates.shape[1] == 1:
        shown = charts_block([free_energy_chart(land)])
    else:
        shown = chart_block(free_energy_field(land, coordinates, path))
    words = f"{_WORDS} There are no maps along the path: {no_maps}." if no_maps else _WORDS
    return Section("Landscape", words, [shown, clusters, Table(head, tried)])


def free_energy_chart(land: Landscape) -> Chart:
    """Free energy along the first coordinate, of all particles and of each half set alone."""
    (values,) = land.grid(1)
    energy, error = land.free_energy_kT(values[:, None])
    inside = energy < _MOST_KT
    series = [
        Series(name, values[inside], curve[inside])
        for name, curve in (
            ("free energy", energy),
            ("less its error", energy - error),
            ("and its error", energy + error),
        )
    ]
    return Chart("Free energy", "coordinate 1", "kT", series)


def free_energy_field(land: Landscape, coordinates: FloatArray, path: FloatArray) -> Chart:
    """Free energy over the first two coordinates, with particles, the path, and the clusters by number."""
    low, high = land.lower[:2], land.upper[:2]
    x, y = (low[k] + (np.arange(_CELLS) + 0.5) / _CELLS * (high[k] - low[k]) for k in range(2))
    points = np.stack(np.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    energy = np.minimum(land.free_energy_kT(points)[0], _MOST_KT).reshape(_CELLS, _CELLS)
    field = Field(energy, (float(low[0]), float(high[0])), (float(low[1]), float(high[1])))
    inside = ((coordinates[:, :2] >= low) & (coordinates[:, :2] <= high)).all(axis=1)
    some, means = coordinates[inside, :2], np.stack([mean[:2] for mean in land.mixture.means])
    names = [f"cluster {k}" for k in range(1, len(means) + 1)]
    series = [
        Series("particles", some[:, 0], some[:, 1], "points"),
        Series("path", path[:, 0], path[:, 1]),
        Series("clusters", means[:, 0], means[:, 1], "points", notes=names),
    ]
    return Chart("Free energy", "coordinate 1", "coordinate 2", series, field=field, scale_label="free energy (kT)")
