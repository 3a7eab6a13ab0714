"""The part of a variability page that shows how particles are spread: free energy, clusters, a way across."""

from __future__ import annotations

import numpy as np

from verglas.heterogeneity.landscape import Landscape
from verglas.report.chart import Chart, Series, charts_block
from verglas.report.html import Fragment, Picture, Section, Table
from verglas.report.style import COLOURS, new_figure, png, style_context
from verglas.types.arrays import FloatArray

_MOST_KT = 6.0
_MOST_POINTS = 3000
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
    shown: Fragment | Picture
    if coordinates.shape[1] == 1:
        shown = charts_block([free_energy_chart(land)])
    else:
        legend = "Free energy over the first two coordinates, particles as points, the path as a line"
        shown = Picture(free_energy_picture(land, coordinates, path), legend)
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


def free_energy_picture(land: Landscape, coordinates: FloatArray, path: FloatArray) -> bytes:
    """PNG of the free energy over the first two coordinates."""
    x, y = land.grid(2)
    points = np.stack(np.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    energy = land.free_energy_kT(points)[0].reshape(len(y), len(x))
    with style_context():
        figure = new_figure(5.6, 4.4)
        axes = figure.subplots()
        levels = np.linspace(0, _MOST_KT, 13)
        filled = axes.contourf(x, y, np.minimum(energy, _MOST_KT), levels=levels, cmap="viridis_r")
        figure.colorbar(filled, ax=axes, label="free energy (kT)")
        some = coordinates[:: max(1, len(coordinates) // _MOST_POINTS)]
        axes.scatter(some[:, 0], some[:, 1], s=1.5, c="k", alpha=0.25, linewidths=0)
        axes.plot(path[:, 0], path[:, 1], "o-", color=COLOURS[4], ms=4)
        for k, mean in enumerate(land.mixture.means, 1):
            axes.annotate(f"{k}", mean[:2], color="w", fontsize=11, fontweight="bold", ha="center", va="center")
        axes.set(xlabel="coordinate 1", ylabel="coordinate 2", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        return png(figure)
