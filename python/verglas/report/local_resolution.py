"""The page of ``verglas local-resolution``: a surface and slices coloured by resolution, histogram, bands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from verglas.assessment.local_calibration import CALIBRATION
from verglas.assessment.local_directional import LocalDirections
from verglas.assessment.local_resolution import LocalResolution
from verglas.io import write_text
from verglas.report.chart import Chart, Field, Line, Series, chart_block, charts_block, histogram_chart
from verglas.report.figures import central_slices
from verglas.report.html import Page, Section, Table, render
from verglas.report.volume import viewer_block
from verglas.types import Map

# From fine to coarse; told apart with every common colour vision.
COLOUR_SCALE = ("#0072b2", "#56b4e9", "#b7d5a3", "#f0e442", "#e69f00", "#d55e00")
_TITLES = ("Seen along z", "Seen along y", "Seen along x")
_MOST_CELLS = 64  # of a side of a slice
_METHODS = {
    "fsc": "windowed FSC against a fixed threshold",
    "significance": "windowed FSC against what noise reaches by chance",
    "monogenic": "monogenic amplitudes above those of noise",
    "steerable": "steerable filters above what noise reaches by chance",
    "network": "a network trained on phantoms, beside the windowed FSC",
    "directional": "monogenic amplitudes in cones, mean over the directions",
    "tomogram": "monogenic amplitudes above those of noise, cube by cube",
}


def slice_charts(local: LocalResolution) -> list[Chart]:
    """Central slices of the resolutions of the molecule's voxels, to be read voxel by voxel; of large maps every
    second, third ... voxel.
    """
    low, high = local.quantiles_A((0.02, 0.98))
    pixel_A, charts = local.map.pixel_size_A, []
    axes = (("x (Å)", "y (Å)"), ("x (Å)", "z (Å)"), ("y (Å)", "z (Å)"))
    cuts = zip(_TITLES, axes, central_slices(local.map.data), central_slices(local.mask.data), strict=True)
    for title, (x_label, y_label), resolution, mask in cuts:
        # The few voxels beyond would take most of the colours.
        inside = np.where(mask >= 0.5, np.clip(resolution, low, high), np.nan)
        if not np.isfinite(inside).any():
            continue
        step = -(-max(inside.shape) // _MOST_CELLS)
        cells = inside[::step, ::step]
        # Voxel N // 2 is the origin.
        starts = [-(n // 2 + 0.5) * pixel_A for n in inside.shape[::-1]]
        ends = [start + n * step * pixel_A for start, n in zip(starts, cells.shape[::-1], strict=True)]
        field = Field(cells, (starts[0], ends[0]), (starts[1], ends[1]))
        charts.append(Chart(title, x_label, y_label, [], field=field, scale_label="resolution (Å)", equal=True))
    return charts


def _beyond_mask(local: LocalResolution) -> Map:
    """The resolutions for the colours of a surface: outside of the mask that of the nearest voxel inside, or a coarser
    copy would mix what lies about the molecule into its rim.
    """
    from scipy.ndimage import distance_transform_edt

    step = max(1, max(local.map.data.shape) // _MOST_CELLS)
    values, mask = (one.data[::step, ::step, ::step] for one in (local.map, local.mask))
    inside = mask >= 0.5
    if inside.any() and not inside.all():
        nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        values = values[tuple(nearest)]
    return Map(np.ascontiguousarray(values), local.map.pixel_size_A * step, local.map.origin_A)


def histogram(local: LocalResolution) -> Chart | None:
    """Resolutions of the molecule's voxels, with the resolution of the whole map."""
    marks = [Line(local.global_A, f"whole map {local.global_A:.2f} Å")] if np.isfinite(local.global_A) else []
    return histogram_chart("resolution (Å)", {"voxels": local.values_A}, "voxels", title="Resolutions", marks=marks)


def _directions_section(directional: LocalDirections) -> Section:
    """Medians along the axes of each voxel, and in each direction."""
    inside = directional.resolution.mask.data >= 0.5
    names = {"finest": "best axis", "coarsest": "worst axis", "radial": "to the middle", "tangential": "across"}
    axes = [(said, f"{np.median(getattr(directional, name).data[inside]):.2f}") for name, said in names.items()]
    rows = [
        (f"{x:.2f}, {y:.2f}, {z:.2f}", f"{value:.2f}")
        for (x, y, z), value in zip(directional.directions, directional.median_A, strict=True)
    ]
    return Section(
        "Directions",
        "Medians of the molecule's voxels. Coarser across than towards the middle, and the more the farther out: "
        "angles are a little wrong. One worst axis everywhere: views are missing along it.",
        [
            Table(("direction of each voxel", "resolution (Å)"), axes),
            Table(("direction x, y, z", "resolution (Å)"), rows, sortable=True),
        ],
    )


def _calibration_section(method: str) -> Section | None:
    """What the method reads where the resolution is known; None where that was not measured."""
    points = CALIBRATION.get(method)
    if points is None:
        return None
    series = []
    for planted in dict.fromkeys(p.planted_A for p in points):
        rows = [(p.noise, p.median_A / planted) for p in points if p.planted_A == planted]
        noise, ratio = np.array(rows).T
        series.append(Series(f"{planted:g} Å planted", noise, ratio))
    chart = Chart(
        "Measured over planted resolution", "noise (sd of the signal)", "ratio", series, [Line(1.0, "as planted")]
    )
    return Section(
        "What this method reads where the resolution is known",
        "Half maps with 4 Å beside 8 Å, medians of voxels farther than a window from the boundary. Below 1 a region "
        "looks finer than it is: the signal of a better neighbour leaks into bands and windows, the more the less "
        "noise covers it. Methods differ by this much; compare maps by one of them.",
        [chart_block(chart)],
    )


def write_local_resolution_page(
    folder: Path,
    local: LocalResolution,
    maps: Mapping[str, Map],
    footer: str = "",
    *,
    directions: LocalDirections | None = None,
) -> Path:
    """Write report.html.

    Parameters
    ----------
    folder : Path
        Must be there.
    local : LocalResolution
    maps : mapping of str -> Map
        ``map``, and ``map_filtered`` where it was made.
    footer : str
        Version and time.
    directions : LocalDirections, optional
        Of the method ``directional``.

    Returns
    -------
    Path
        Of the page.
    """
    low, first, middle, third, high = local.quantiles_A()
    summary = (
        f"Half of the molecule's voxels are resolved to {middle:.2f} Å or finer, nine tenths between {low:.2f} and "
        f"{high:.2f} Å ({_METHODS[local.method]})."
    )
    numbers = {"median": f"{middle:.2f} Å", "quartiles": f"{first:.2f} to {third:.2f} Å"}
    numbers["whole map"] = f"{local.global_A:.2f} Å" if np.isfinite(local.global_A) else "none"
    if local.unresolved > 0:
        numbers["not resolved"] = f"{100 * local.unresolved:.1f} % of the voxels"
    shown = maps.get("map_filtered", maps["map"])
    surface = viewer_block(
        {"map": shown, "local resolution": _beyond_mask(local)},
        colour_by="local resolution",
        still="In browsers that have WebGL 2 the map's surface turns here, coloured by resolution.",
    )
    slices = charts_block(
        slice_charts(local),
        "Central slices through the molecule; hover or arrow keys say the resolution of a place. The finest and "
        "coarsest 2 % of the voxels have the colours of the scale's ends.",
    )
    spread = charts_block([histogram(local)], "The molecule's voxels by their resolution.")
    window = (
        f"Every value is that of a window of radius {local.window_radius_A:.1f} Å, whose soft edge ends at twice that: "
        "detail beside a boundary takes part of its neighbour's value. histogram.csv and bands.csv hold the numbers; "
        "colour.cxc shows the surface in ChimeraX."
    )
    rows = [
        (f"{1 / f:.2f}", f"{t:.3g}", f"{n:.0f}")
        for f, t, n in zip(local.frequency_per_A, local.threshold, local.independent, strict=True)
    ]
    bands = Table(("band (Å)", "threshold", "independent voxels in the window"), rows)
    sections = [
        Section("Resolution of each voxel", blocks=[surface, slices, spread]),
        Section("Window and bands", window, [bands]),
    ]
    if directions is not None:
        numbers["coarsest along"] = "(" + ", ".join(f"{v:.2f}" for v in directions.axis) + ")"
        numbers["anisotropy"] = f"{directions.anisotropy:.2f}"
        sections.insert(1, _directions_section(directions))
    if calibration := _calibration_section(local.method):
        sections.append(calibration)
    page = Page("verglas local-resolution", summary, numbers, sections, footer)
    path = folder / "report.html"
    write_text(path, render(page))
    return path
