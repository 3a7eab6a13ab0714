"""The page of the demonstration: simulated particles, refined from a blurred start, against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.assessment import FSC, PoseErrors
from verglas.report import figures
from verglas.report.chart import Chart, Line, chart_block, charts_block, fsc_curves_chart, histogram_chart
from verglas.report.grey import grey_bytes, grey_png
from verglas.report.html import Gallery, Link, Page, Picture, Section, Table
from verglas.report.volume import viewer_block
from verglas.types import Map

THRESHOLD_HALVES, THRESHOLD_TRUTH = 0.143, 0.5
_FAR_DEG = 10.0
_SHOWN_PX = 128  # side of a particle's image on the page


@dataclass(frozen=True)
class DemoFindings:
    """What the page shows.

    Attributes
    ----------
    images : (n, y, x) float32
        Some of the particles.
    start : Map
        What the refinement started from.
    start_A : float
        Its low-pass.
    truth, map : Map
        The simulated density in the frame of the map, and the map, both filtered to its resolution.
    between_halves : FSC
        Of the half maps, masked and corrected.
    with_truth, with_truth_unmasked : FSC
        Of the unfiltered map with the truth.
    errors : PoseErrors
        Poses against those simulated.
    iterations : DataFrame
        Rows of ``iterations.csv``.
    settings, seconds : mapping
        Name -> value, and step -> wall time.
    refinement_page : str
        Path of the refinement's own page from this one.
    """

    images: npt.NDArray[np.float32]
    start: Map
    start_A: float
    truth: Map
    map: Map
    between_halves: FSC
    with_truth: FSC
    with_truth_unmasked: FSC
    errors: PoseErrors
    iterations: pd.DataFrame
    settings: Mapping[str, object]
    seconds: Mapping[str, float]
    refinement_page: str

    @property
    def curves(self) -> dict[str, FSC]:
        """Curves by the words of their legend."""
        return {"half map 1 with half map 2": self.between_halves, "map with the truth": self.with_truth}


def overview(shown: DemoFindings) -> bytes:
    """Particles, the start, the map and the truth as surfaces, FSC, as PNG bytes."""
    maps = {f"start ({shown.start_A:g} Å)": shown.start, "refined map": shown.map, "truth": shown.truth}
    return figures.overview(shown.images, maps, shown.curves)


def _map_section(shown: DemoFindings) -> Section:
    maps = {f"start ({shown.start_A:g} Å)": shown.start, "refined map": shown.map, "truth": shown.truth}
    turning = {"refined map": shown.map, "truth": shown.truth, "start": shown.start}
    caption = (
        "Central slices through the origin, each map on its own grey scale. Map and truth are filtered to the map's "
        "resolution."
    )
    alt = "Central slices of the blurred start, the refined map and the true density, side by side"
    still = "The three maps turn here in browsers that have WebGL 2."
    slices = Picture(figures.slices(maps, shared_scale=False), alt, caption)
    return Section("Maps", blocks=[viewer_block(turning, still=still), slices])


def _fsc_section(shown: DemoFindings) -> Section:
    halves, truth = shown.between_halves, shown.with_truth
    a, b = halves.resolution_A(THRESHOLD_HALVES), truth.resolution_A(THRESHOLD_TRUTH)
    text = (
        f"Two maps refined apart, each from half of the particles, agree to {a:.2f} Å (FSC = {THRESHOLD_HALVES}, in "
        "the mask of the molecule, corrected by phase randomisation). The map from all particles agrees with the "
        f"density they were made from to {b:.2f} Å (FSC = {THRESHOLD_TRUTH}, same mask). With independent "
        "half maps the two numbers agree but for noise: an FSC of 0.143 between halves stands for 0.5 with the truth. "
        f"The start has nothing beyond {shown.start_A:g} Å but the soft edge of its filter: whatever is "
        "finer came from the images."
    )
    curves = {**shown.curves, "map with the truth, no mask": shown.with_truth_unmasked}
    rows = [
        (name, *(_resolution(curve, t) for t in (0.5, 0.143)), f"{float(np.mean(curve.curve[1:])):.3f}")
        for name, curve in curves.items()
    ]
    table = Table(("curve", "resolution at 0.5", "resolution at 0.143", "mean over all shells"), rows)
    chart = chart_block(fsc_curves_chart("Fourier shell correlation", curves))
    return Section("Resolution", text, [chart, table])


def _resolution(curve: FSC, threshold: float) -> str:
    limit = "" if curve.crosses(threshold) else " or better (the sampling limit)"
    return f"{curve.resolution_A(threshold):.2f} Å{limit}"


def error_histograms(errors: PoseErrors) -> list[Chart]:
    """Histograms of angular and shift errors up to their 99th percentiles."""
    charts = []
    for label, values, unit in (
        ("angular error (°)", errors.angle_deg, "°"),
        ("shift error (Å)", errors.shift_A, " Å"),
    ):
        reach = max(float(np.percentile(values, 99)), 1e-6)
        median, beyond = float(np.median(values)), np.count_nonzero(values > reach)
        marks = [Line(median, f"median {median:.2f}{unit}")]
        axis = f"{label}; {beyond} beyond"
        charts.append(
            histogram_chart(axis, {"particles": values}, "particles", title=label, limits=(0.0, reach), marks=marks)
        )
    return [one for one in charts if one is not None]


def _pose_section(shown: DemoFindings) -> Section:
    errors = shown.errors
    far = int(np.count_nonzero(errors.angle_deg > _FAR_DEG))
    text = (
        "Orientation and shift of every particle against those it was simulated with. The refinement's frame turned "
        f"by {errors.turn_deg:.2f}° and moved by {float(np.linalg.norm(errors.offset_A)):.2f} Å from that of the truth "
        "(a blurred start holds it no better); this is taken off, here and in the curves."
    )
    rows = [
        (name, *(f"{float(v):.2f} {unit}" for v in np.percentile(values, (50, 90))))
        for name, values, unit in (("angle", errors.angle_deg, "°"), ("shift", errors.shift_A, "Å"))
    ]
    caption = f"{far} of {len(errors.angle_deg):,} particles are more than {_FAR_DEG:g}° off."
    return Section(
        "Pose errors",
        text,
        [charts_block(error_histograms(errors), caption), Table(("error of", "median", "90th percentile"), rows)],
    )


def _course_section(shown: DemoFindings) -> Section:
    columns = ("iteration", "phase", "search_resolution_A", "resolution_A", "angle_change_deg", "seconds")
    rows = [
        (
            number,
            phase,
            f"{data_A:.1f} Å",
            f"{resolution_A:.2f} Å",
            f"{turn_deg:.2f}°" if turn_deg == turn_deg else "",
            f"{s:.1f} s",
        )
        for number, phase, data_A, resolution_A, turn_deg, s in zip(
            *(shown.iterations[c] for c in columns), strict=True
        )
    ]
    head = ("iteration", "phase", "data used to", "resolution", "poses turned by", "time")
    text = "What each iteration did. The refinement's own page shows all of it: maps, curves, posteriors, settings."
    return Section("The refinement", text, [Table(head, rows), Link("Page of the refinement", shown.refinement_page)])


def _images_block(images: npt.NDArray[np.float32]) -> Gallery:
    """Particle images side by side."""
    times = max(1, _SHOWN_PX // images.shape[-1])  # pixels of small boxes are shown as squares
    large = (grey_bytes(one).repeat(times, axis=0).repeat(times, axis=1) for one in images)
    pictures = [Picture(grey_png(one), f"Simulated particle {k}") for k, one in enumerate(large, 1)]
    return Gallery(pictures, least_rem=6.0)


def page(shown: DemoFindings, footer: str) -> Page:
    """The page: particles, maps, resolution, pose errors, the refinement, settings."""
    truth_A = shown.with_truth.resolution_A(THRESHOLD_TRUTH)
    text = (
        "Each image is an exact projection of the model in a random orientation, times its CTF, with noise. The "
        f"refinement saw the images and their CTFs, and the true map low-passed to {shown.start_A:g} Å; it was not "
        "told orientations or shifts."
    )
    settings = Table(("setting", "value"), list(shown.settings.items()))
    seconds = [(step, f"{value:.1f} s") for step, value in shown.seconds.items()]
    timing = Table(("step", "wall time"), [*seconds, ("total", f"{sum(shown.seconds.values()):.1f} s")])
    return Page(
        "verglas demo",
        "Simulated particles, refined from a blurred start, and the map compared with the density they were made from.",
        {
            "resolution against the truth": f"{truth_A:.2f} Å",
            "resolution between halves": f"{shown.between_halves.resolution_A(THRESHOLD_HALVES):.2f} Å",
            "median angular error": f"{float(np.median(shown.errors.angle_deg)):.2f}°",
            "computing time": f"{sum(shown.seconds.values()):.0f} s",
        },
        [
            Section("From images to a map", text, [_images_block(shown.images)]),
            _map_section(shown),
            _fsc_section(shown),
            _pose_section(shown),
            _course_section(shown),
            Section("Settings and times", blocks=[settings, timing]),
        ],
        footer,
    )
