"""The page of a map made from simulated particles at their true poses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.assessment.fsc import FSC
from verglas.report import figures
from verglas.report.html import Page, Picture, Section, Table
from verglas.types import Map

THRESHOLD_HALVES, THRESHOLD_TRUTH = 0.143, 0.5


@dataclass(frozen=True)
class KnownPoses:
    """What the page shows.

    Attributes
    ----------
    images : (n, y, x) float32
        Some of the particles.
    angles_deg : (n, 3) float64
        Poses of all of them.
    truth, map : Map
        The density that was simulated, and the reconstruction, both filtered to its resolution.
    halves : tuple of Map
        Unfiltered half maps.
    between_halves, with_truth : FSC
        Of the half maps with each other, of the unfiltered map with the truth.
    settings, seconds : mapping
        Name -> value, and step -> wall time.
    """

    images: npt.NDArray[np.float32]
    angles_deg: npt.NDArray[np.float64]
    truth: Map
    map: Map
    halves: tuple[Map, Map]
    between_halves: FSC
    with_truth: FSC
    settings: Mapping[str, object]
    seconds: Mapping[str, float]

    @property
    def curves(self) -> dict[str, FSC]:
        """Curves by the words of their legend."""
        return {"half map 1 with half map 2": self.between_halves, "map with the truth": self.with_truth}


def overview(shown: KnownPoses) -> bytes:
    """Particles, true and reconstructed surface, FSC, as PNG bytes."""
    return figures.overview(shown.images, {"truth": shown.truth, "reconstruction": shown.map}, shown.curves)


def _map_section(shown: KnownPoses) -> Section:
    maps = {"truth": shown.truth, "map": shown.map, "half map 1": shown.halves[0], "half map 2": shown.halves[1]}
    caption = (
        "Central slices through the origin, one grey scale for all. Truth and map are filtered to the map's "
        "resolution; the half maps are not filtered."
    )
    alt = "Central slices of the true density, the reconstruction and both half maps, side by side"
    return Section("Maps", blocks=[Picture(figures.slices(maps), alt, caption)])


def _fsc_section(shown: KnownPoses) -> Section:
    halves, truth = shown.between_halves, shown.with_truth
    a, b = halves.resolution_A(THRESHOLD_HALVES), truth.resolution_A(THRESHOLD_TRUTH)
    text = (
        f"Two maps from separate halves of the particles agree to {a:.2f} Å (FSC = {THRESHOLD_HALVES}). The map from "
        f"all particles agrees with the density it was simulated from to {b:.2f} Å (FSC = {THRESHOLD_TRUTH}). Without "
        "bias in the half maps the two numbers are equal but for noise."
    )
    rows = [
        (name, *(_resolution(curve, t) for t in (0.5, 0.143)), f"{float(np.mean(curve.curve[1:])):.3f}")
        for name, curve in shown.curves.items()
    ]
    table = Table(("curve", "resolution at 0.5", "resolution at 0.143", "mean over all shells"), rows)
    picture = Picture(figures.fsc(shown.curves), "Fourier shell correlation curves against resolution; table below")
    return Section("Resolution", text, [picture, table])


def _resolution(curve: FSC, threshold: float) -> str:
    limit = "" if curve.crosses(threshold) else " or better (the sampling limit)"
    return f"{curve.resolution_A(threshold):.2f} Å{limit}"


def page(shown: KnownPoses, footer: str) -> Page:
    """The page: overview, resolution, maps, directions, settings."""
    truth_A = shown.with_truth.resolution_A(THRESHOLD_TRUTH)
    alt = "Noisy particle images, the surface of the true and of the reconstructed map, and their FSC curves"
    text = "Each image is an exact projection of the model, times its CTF, with noise; the poses are known."
    settings = Table(("setting", "value"), list(shown.settings.items()))
    seconds = [(step, f"{value:.1f} s") for step, value in shown.seconds.items()]
    timing = Table(("step", "wall time"), [*seconds, ("total", f"{sum(shown.seconds.values()):.1f} s")])
    views = Picture(
        figures.angular_distribution(shown.angles_deg),
        "Map of the sphere of viewing directions, coloured by how often each is seen relative to uniform",
        "Viewing directions on an equal-area projection, smoothed over 7 degrees.",
    )
    return Page(
        "verglas demo",
        "A map reconstructed from simulated particles at known poses, compared with the density they were made from.",
        {
            "resolution against the truth": f"{truth_A:.2f} Å",
            "resolution between halves": f"{shown.between_halves.resolution_A(THRESHOLD_HALVES):.2f} Å",
            "particles": f"{len(shown.angles_deg):,}",
            "computing time": f"{sum(shown.seconds.values()):.0f} s",
        },
        [
            Section("From images to a map", text, [Picture(overview(shown), alt)]),
            _fsc_section(shown),
            _map_section(shown),
            Section("Viewing directions", blocks=[views]),
            Section("Settings and times", blocks=[settings, timing]),
        ],
        footer,
    )
