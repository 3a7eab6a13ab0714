"""Pages of ``verglas deform``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from verglas.report import figures
from verglas.report.chart import Chart, Series, charts_block, histogram_chart
from verglas.report.heterogeneity import settings_section
from verglas.report.html import Page, Picture, Section, Table
from verglas.report.volume import viewer_block
from verglas.types import Map
from verglas.types.arrays import FloatArray

_MOST_MAPS = 12


def pair_page(
    made: Mapping[str, Any],
    maps: Mapping[str, Map],
    local: Mapping[str, Map],
    settings: Mapping[str, Any],
    footer: str = "",
) -> Page:
    """How one map becomes another.

    Parameters
    ----------
    made : mapping
        ``deform.json``.
    maps : mapping of str -> Map
        "first", "deformed" and "second", which the first map deformed should be.
    local : mapping of str -> Map
        Displacement, rotation, strain and change of volume at every voxel of the second map.
    settings : mapping
    footer : str
    """
    numbers = {
        "displacement, r.m.s. of the density": f"{made['displacement_A']:.2f} Å",
        "largest": f"{made['largest_A']:.1f} Å",
        "largest rotation": f"{made['largest_rotation_deg']:.1f} degrees",
        "largest strain": f"{100 * made['largest_strain']:.1f} %",
    }
    summary = (
        f"{made['first']} becomes {made['second']} by a deformation of {made['displacement_A']:.2f} A, root mean "
        f"square: the correlation is then {made['correlation']:.3f}, and {100 * made['residual']:.1f} % of the power "
        "are left."
    )
    second = maps["second"].data
    dense = np.asarray(second > 0.2 * second.max(), np.float32)
    shown = {name: one.with_data(one.data * dense) for name, one in local.items()}
    words = "Displacement (A), rotation (degrees), largest principal strain, change of volume; where the density is."
    sections = [
        Section(
            "Maps",
            "The first map, the same deformed, and the second. Where the last two differ, no deformation of this "
            "degree explains it: a part that is there or not, or a finer motion.",
            [Picture(figures.slices(maps), "Slices of the first map, of it deformed, and of the second")],
        ),
        Section("Where", words, [Picture(figures.slices(shown, shared_scale=False), words)]),
        Section("Maps that turn", "", [viewer_block(maps)]),
        settings_section(settings),
    ]
    return Page("verglas deform", summary, numbers, sections, footer)


def several_page(made: Mapping[str, Any], settings: Mapping[str, Any], footer: str = "") -> Page:
    """How far maps are from each other.

    Parameters
    ----------
    made : mapping
        ``deform.json``.
    settings : mapping
    footer : str
    """
    names, places = made["maps"], np.array(made["coordinates_A"], np.float64)
    distances = np.array(made["distances_A"])
    y = places[:, 1] if places.shape[1] > 1 else np.zeros(len(places))
    series = [Series(name, places[k : k + 1, 0], y[k : k + 1], "points") for k, name in enumerate(names)]
    chart = Chart("Maps at their elastic distances", "coordinate 1 (A)", "coordinate 2 (A)", series)
    apart = np.unravel_index(distances.argmax(), distances.shape)
    numbers = {
        "maps": str(len(names)),
        "largest distance": f"{distances.max():.2f} Å",
        "stress": f"{made['stress']:.3f}",
    }
    summary = f"{names[apart[0]]} and {names[apart[1]]} are furthest apart, {distances.max():.2f} A."
    blocks = [charts_block([chart])]
    rows = [(name, *(f"{v:.2f}" for v in row[:_MOST_MAPS])) for name, row in zip(names, distances, strict=True)]
    sections = [
        Section(
            "Places",
            "Points whose distances are as nearly as can be those of the maps: the root mean square displacement of "
            "density when one map is deformed to become the other. Stress says how nearly: 0 is exact.",
            blocks,
        ),
        Section("Distances (Å)", "", [Table(("map", *names[:_MOST_MAPS]), rows)]),
        settings_section(settings),
    ]
    return Page("verglas deform", summary, numbers, sections, footer)


def particles_page(
    made: Mapping[str, Any],
    states: Mapping[str, Map],
    along: FloatArray,
    errors: FloatArray,
    settings: Mapping[str, Any],
    footer: str = "",
) -> Page:
    """How a map bends from particle to particle.

    Parameters
    ----------
    made : mapping
        ``deform.json``.
    states : mapping of str -> Map
        ``motion1_state1``, ...: five maps along each motion.
    along, errors : (n, k) float64
        Every particle's place along each, root mean square way of the atoms, and its error, A.
    settings : mapping
    footer : str
    """
    rows = [
        (f"{k + 1}", f"{s:.2f} Å", f"{e:.2f} Å")
        for k, (s, e) in enumerate(zip(made["spread_A"], made["error_A"], strict=True))
    ]
    clear = [s > 2 * e for s, e in zip(made["spread_A"], made["error_A"], strict=True)]
    summary = (
        f"{sum(clear)} of {len(clear)} motions spread by more than twice the median error of a particle. Errors of "
        "poses and of the model widen the spread as well: an amplitude is evidence of motion only beside a control."
    )
    sections = [
        Section(
            "Motions",
            "Root mean square displacement of the pseudo-atoms: spread over the particles, median error of one.",
            [Table(("motion", "spread", "error"), rows)],
        )
    ]
    for k in range(along.shape[1]):
        named = {f"state {s}": states[f"motion{k + 1}_state{s}"] for s in range(1, 6)}
        error = float(np.median(errors[:, k]))
        chart = histogram_chart(
            f"motion {k + 1} (Å), median error {error:.2f} Å", {"particles": along[:, k]}, "particles"
        )
        blocks: list[Any] = [Picture(figures.slices(named), f"Slices of five maps along motion {k + 1}")]
        blocks += [] if chart is None else [charts_block([chart])]
        sections.append(Section(f"Motion {k + 1}", "From the 5th to the 95th percentile of the particles.", blocks))
    sections.append(Section("Maps that turn", "", [viewer_block(states)]))
    sections.append(settings_section(settings))
    numbers = {"particles": str(made["particles"])}
    if made["excluded"]:
        numbers["set aside (excluded.csv)"] = str(made["excluded"])
    numbers |= {"pseudo-atoms": str(made["atoms"]), "ways": str(made["ways"])}
    return Page("verglas deform", summary, numbers, sections, footer)
