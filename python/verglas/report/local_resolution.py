"""The page of ``verglas local-resolution``: slices coloured by resolution, histogram, bands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from verglas.assessment.local_calibration import CALIBRATION
from verglas.assessment.local_directional import LocalDirections
from verglas.assessment.local_resolution import LocalResolution
from verglas.io import write_text
from verglas.report.chart import Chart, Line, Series, chart_block, charts_block, histogram_chart
from verglas.report.figures import central_slices
from verglas.report.html import Page, Picture, Section, Table, render
from verglas.report.style import new_figure, png, style_context
from verglas.types import Map

# From fine to coarse; told apart with every common colour vision.
COLOUR_SCALE = ("#0072b2", "#56b4e9", "#b7d5a3", "#f0e442", "#e69f00", "#d55e00")
_TITLES = ("from z", "from y", "from x")
_METHODS = {
    "fsc": "windowed FSC against a fixed threshold",
    "significance": "windowed FSC against what noise reaches by chance",
    "monogenic": "monogenic amplitudes above those of noise",
    "steerable": "steerable filters above what noise reaches by chance",
    "network": "a network trained on phantoms, beside the windowed FSC",
    "directional": "monogenic amplitudes in cones, mean over the directions",
    "tomogram": "monogenic amplitudes above those of noise, cube by cube",
}


def coloured_slices(volume: Map, local: LocalResolution) -> bytes:
    """Central slices of a map in grey, the molecule's voxels coloured by resolution."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("resolution", COLOUR_SCALE)
    low, high = local.quantiles_A((0.02, 0.98))
    scale = Normalize(low, max(high, low + 0.1))
    black, white = (float(v) for v in np.percentile(volume.data, (0.5, 99.8)))
    with style_context():
        figure = new_figure(10, 3.6)
        axes = figure.subplots(1, 3)
        cuts = (central_slices(one) for one in (volume.data, local.map.data, local.mask.data))
        for axis, title, grey, resolution, mask in zip(axes, _TITLES, *cuts, strict=True):
            light = np.clip((grey - black) / max(white - black, 1e-12), 0, 1)
            axis.imshow(_colour(light, colours(scale(resolution))[..., :3], mask), interpolation="nearest")
            axis.set_title(title)
            axis.set_axis_off()
        from matplotlib.cm import ScalarMappable

        figure.colorbar(ScalarMappable(scale, colours), ax=list(axes), label="resolution (Å)", shrink=0.8)
        return png(figure)


def _colour(light: npt.NDArray, colour: npt.NDArray, mask: npt.NDArray) -> npt.NDArray:
    """Density as brightness, resolution as colour inside the mask; grey outside."""
    inside = (0.35 + 0.65 * light)[..., None] * colour
    outside = np.repeat(light[..., None], 3, axis=-1) * 0.6
    weight = np.clip(mask, 0, 1)[..., None]
    return np.clip(weight * inside + (1 - weight) * outside, 0, 1)


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
    slices = Picture(
        coloured_slices(shown, local),
        "Central slices of the map coloured by local resolution",
        "Brightness is density, colour is resolution inside the mask.",
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
        Section("Resolution of each voxel", blocks=[slices, spread]),
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
