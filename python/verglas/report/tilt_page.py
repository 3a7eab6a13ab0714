"""The page of ``verglas tilt-pairs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verglas._version import __version__
from verglas.assessment.fsc import FSC
from verglas.report.chart import chart_block, charts_block, fsc_curves_chart
from verglas.report.figures import slices
from verglas.report.html import Block, Gallery, Page, Picture, Section, Table, value_text
from verglas.report.tilt_pairs import pair_charts, polar_chart
from verglas.tilting import TiltPairPlot, TiltPairs
from verglas.types import Map
from verglas.types.arrays import Float32Array

_SHOWN = 4  # pairs of micrographs with a picture


@dataclass(frozen=True)
class FoundPairs:
    """Pairs of micrographs that matched, and those set aside with the reason."""

    pairs: Sequence[TiltPairs]
    set_aside: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ClassOfPairs:
    """One class: map, average of its untilted images, its record, and the curve of its half sets."""

    map: Map
    average: Float32Array
    record: dict[str, Any]
    halves: FSC


def tilt_page(
    pairs: FoundPairs, classes: Sequence[ClassOfPairs], summary: dict[str, Any], tested: TiltPairPlot | None = None
) -> Page:
    """The page.

    Parameters
    ----------
    pairs : FoundPairs
    classes : sequence of ClassOfPairs
        None where a map was tested.
    summary : dict
        What tilt_pairs.json says.
    tested : TiltPairPlot, optional
        How the poses of both images differ by a map.

    Returns
    -------
    Page
    """
    sections = [_fields(pairs), *map(_class, classes)]
    if summary.get("merged"):
        sections.append(Section("Classes together", _merged_sentence(summary["merged"])))
    if "validation" in summary:
        text = f"{summary['validation']['verdict']} The polar plot is in tilt_pair_plot.svg."
        drawn = [] if tested is None else [chart_block(polar_chart(tested))]
        sections.append(Section("Test of the map", text, drawn))
    if pairs.set_aside:
        rows = [(name, reason) for name, reason in pairs.set_aside]
        sections.append(Section("Set aside", "", [Table(("micrograph", "reason"), rows)]))
    tilts = sorted(p.tilt_deg for p in pairs.pairs)
    figures = {
        "pairs of micrographs": str(len(pairs.pairs)),
        "pairs of particles": str(summary["particle_pairs"]),
        "tilt, degrees": f"{tilts[len(tilts) // 2]:.1f}",
    }
    words = summary["validation"]["verdict"] if "validation" in summary else _maps_sentence(classes)
    return Page("Tilt pairs", words, figures, sections, f"verglas {__version__}")


def _maps_sentence(classes: Sequence[ClassOfPairs]) -> str:
    parts = [
        f"class {r['class']}: {r['pairs']} pairs, a cone of {r['missing_cone_deg']:.0f} degrees missing"
        for r in (one.record for one in classes)
    ]
    return "Maps without a starting model. " + "; ".join(parts) + "."


def _merged_sentence(merged: dict[str, Any]) -> str:
    alike = ", ".join(f"{number}: {value:.2f}" for number, value in merged["correlation"].items())
    if merged["map"] is None:
        return f"No class agrees with another (correlations where both saw something: {alike}); no map of several."
    together, outside = (", ".join(map(str, merged[which])) for which in ("classes", "left_out"))
    left = f" Classes {outside} do not agree and stay out." if outside else ""
    return (
        f"Classes {together} in one map, merged.mrc: {merged['pairs']} pairs, {100 * merged['missing_share']:.1f} % of "
        f"Fourier space missing. Correlation of each with the others where both saw something: {alike}.{left}"
    )


def _fields(pairs: FoundPairs) -> Section:
    head = ("untilted", "tilted", "pairs", "picks", "tilt", "axis untilted", "axis tilted", "off, px")
    rows = [
        (
            p.untilted,
            p.tilted,
            len(p),
            f"{p.n_untilted}, {p.n_tilted}",
            f"{p.tilt_deg:.2f} ± {p.geometry.tilt_error_deg:.2f}",
            f"{p.axis_untilted_deg:.2f} ± {p.geometry.axis_untilted_error_deg:.2f}",
            f"{p.axis_tilted_deg:.2f} ± {p.geometry.axis_tilted_error_deg:.2f}",
            f"{p.geometry.residual_px:.1f}",
        )
        for p in pairs.pairs
    ]
    blocks: list[Block] = [Table(head, rows, sortable=True)]
    for p in pairs.pairs[:_SHOWN]:
        words = f"{p.untilted} and {p.tilted}: particles found in both have one colour, the line is the tilt axis."
        blocks.append(charts_block(pair_charts(p), words))
    text = (
        "Degrees from the image's y towards -x, with standard errors. The sign of the tilt is not in the coordinates: "
        "the other one gives mirrored maps."
    )
    return Section("Pairs of micrographs", text, blocks)


def _class(one: ClassOfPairs) -> Section:
    record = one.record
    resolution = record["half_set_resolution_A"]
    text = (
        f"{record['pairs']} pairs, {record['on_faces']} on their faces. Missing: a cone of "
        f"{record['missing_cone_deg']:.1f} degrees about z, {100 * record['missing_share']:.1f} % of Fourier space; "
        f"largest gap between azimuths {record['largest_gap_deg']:.1f} degrees. Outside it the half sets agree to "
        f"{value_text(resolution)} A; they share their poses, which flatters."
    )
    views = Gallery(
        [
            Picture(slices({"map": one.map}), "central slices of the map", "Central slices, seen along z."),
        ]
    )
    curve = chart_block(fsc_curves_chart("FSC of half sets that share poses", {"half sets": one.halves}))
    return Section(f"Class {record['class']}", text, [views, curve])
