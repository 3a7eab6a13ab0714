"""Pages of classification in three dimensions and of variability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verglas.heterogeneity import Variability
from verglas.report import figures
from verglas.report.chart import Chart, Line, Series, charts_block, histogram_chart
from verglas.report.html import Page, Picture, Section, Table, name_text
from verglas.report.volume import viewer_block
from verglas.types import Map
from verglas.types.arrays import FloatArray

_MOST_PAIRS = 3


def settings_section(settings: Mapping[str, Any]) -> Section:
    """All choices, one a row."""
    rows = [(name_text(name), value) for name, value in settings.items()]
    return Section("Settings", blocks=[Table(("setting", "value"), rows)])


def variability_page(
    made: Variability, settings: Mapping[str, Any], footer: str = "", spread: Section | None = None
) -> Page:
    """The page of a variability analysis; ``spread`` is :func:`verglas.report.landscape.landscape_section`."""
    numbers = {
        "components": str(made.n_components),
        "particles": f"{len(made.particles)}",
        "resolution in use": f"{made.settings.resolution_A:g} Å",
        "contrast": f"1 ± {made.contrast.std():.2f}",
    }
    rows = [
        (int(r["components"]), f"{r['gain_nats']:+.4f}", f"{r['error_nats']:.4f}", "yes" if r["kept"] else "no")
        for _, r in made.gains.iterrows()
    ]
    head = ("components", "held-out gain of the last, nats per particle", "standard error", "kept")
    sections = [
        Section(
            "How many",
            "Every particle is judged by the mean and components of the half set that it is not in; a component is "
            "kept if it raises that likelihood by three standard errors.",
            [Table(head, rows)],
        )
    ]
    turning = {"mean": made.mean}
    for q in range(made.n_components):
        points, maps = made.trajectory(q, 5)
        named = {f"z = {p[q]:.3g}": m for p, m in zip(points, maps, strict=True)}
        turning |= {f"component {q + 1}, {name}": named[name] for name in list(named)[::4]}
        sections.append(
            Section(
                f"Component {q + 1}",
                "Maps of the linear model from the 5th to the 95th percentile of the coordinate.",
                [Picture(figures.slices(named), f"Slices of five maps along component {q + 1}")],
            )
        )
    words = "The mean, and the map at either end of each component; colours show the difference between two of them."
    sections.insert(1, Section("Maps that turn", words, [viewer_block(turning)]))
    if made.n_components:
        sections.append(
            Section(
                "Coordinates",
                "Each particle's posterior mean; the bar is the median of its standard deviation.",
                [charts_block(coordinate_charts(made.coordinates, made.covariances))],
            )
        )
    if made.n_components:
        words = "Standard deviation of every voxel over the particles, by the components; noise is not in it."
        picture = Picture(figures.slices({"mean": made.mean, "deviation": made.deviation}, shared_scale=False), words)
        sections.append(Section("Where it varies", words, [picture]))
    if spread is not None:
        sections.append(spread)
    sections.append(settings_section(settings))
    return Page("verglas variability", capital(made.sentence), numbers, sections, footer)


def capital(text: str) -> str:
    """A sentence for the top of a page: a capital first, a full stop last."""
    return text[:1].upper() + text[1:] + "."


def coordinate_charts(coordinates: FloatArray, covariances: FloatArray) -> list[Chart]:
    """Histogram of one coordinate, with the median error of a particle, or the first coordinates against each other."""
    count = coordinates.shape[1]
    names = [f"coordinate {k + 1}" for k in range(count)]
    if count == 1:
        middle, error = float(np.median(coordinates)), float(np.median(np.sqrt(covariances[:, 0, 0])))
        marks = [Line(middle - error, ""), Line(middle + error, f"median ± {error:.3g}, the error of a particle")]
        chart = histogram_chart(names[0], {"particles": coordinates[:, 0]}, "particles", marks=marks)
        return [] if chart is None else [chart]
    pairs = [(p, q) for q in range(count) for p in range(q)][:_MOST_PAIRS]
    charts = []
    for p, q in pairs:
        series = Series("particles", coordinates[:, p], coordinates[:, q], "points")
        charts.append(Chart(f"{names[q]} against {names[p]}", names[p], names[q], [series]))
    return charts


def class3d_page(shown: Mapping[str, Any], maps: Sequence[Map], settings: Mapping[str, Any], footer: str = "") -> Page:
    """The page of a classification in three dimensions.

    Parameters
    ----------
    shown : mapping
        The job's summary (``class3d.json``).
    maps : sequence of Map
        One per class.
    settings : mapping
    footer : str
    """
    shares = [f"{100 * s:.1f} ± {100 * e:.1f} %" for s, e in zip(shown["shares"], shown["share_errors"], strict=True)]
    numbers = {
        "classes": str(len(maps)),
        "particles": str(shown["particles"]),
        "held-out gain over one map": _gain(shown),
    }
    named = {f"class {k}, {s}": m for k, (m, s) in enumerate(zip(maps, shares, strict=True), 1)}
    rows = [
        (f"class {k}", shares[k - 1], f"{r:.1f} Å", f"{c:.2f}")
        for k, (r, c) in enumerate(zip(shown["resolutions_A"], shown["certainty"], strict=True), 1)
    ]
    blocks: list[Picture | Table] = [
        Picture(figures.slices(named), "Central slices of the maps of all classes"),
        Table(("class", "share", "FSC 0.143 between half sets", "mean posterior of its particles"), rows),
    ]
    sections = [Section("Classes", shown["sentence"], blocks)]
    turning = viewer_block({f"class {k}": m for k, m in enumerate(maps, 1)})
    sections += [Section("Surfaces", "", [turning, *(_surface(m, k) for k, m in enumerate(maps, 1))])]
    if len(maps) > 1:
        sections.append(_pairs(shown, maps))
    if shown["migration"] or shown["splits"]:
        sections.append(_stability(shown))
    if len(shown["trials"]) > 1:
        head = ("classes", "held-out gain over one fewer tried", "standard error")
        trials = [(t["classes"], f"{t['gain_nats']:+.4f}", f"{t['error_nats']:.4f}") for t in shown["trials"][1:]]
        text = "Nats per particle, each judged by the maps of the half set that it is not in."
        sections.append(Section("Number of classes", text, [Table(head, trials)]))
    sections.append(settings_section(settings))
    return Page("verglas class3d", shown["sentence"], numbers, sections, footer)


def _gain(shown: Mapping[str, Any]) -> str:
    if shown["gain_nats"] is None:
        return "one map"
    return f"{shown['gain_nats']:+.3f} ± {shown['gain_error_nats']:.3f} nats per particle"


def _surface(volume: Map, number: int) -> Picture:
    return Picture(figures.views(volume), f"Surface of class {number} from three sides", f"Class {number}.")


def _pairs(shown: Mapping[str, Any], maps: Sequence[Map]) -> Section:
    """How alike two classes are, and where they differ."""
    rows = [(f"{p['first']} and {p['second']}", _length(p["agree_to_A"])) for p in shown["pairs"]]
    differences = {
        f"{p['second']} - {p['first']}": Map(
            maps[p["second"] - 1].data - maps[p["first"] - 1].data, maps[0].pixel_size_A
        )
        for p in shown["pairs"][:_MOST_PAIRS]
    }
    text = "FSC 0.5 between the maps of two classes, and difference maps."
    picture = Picture(figures.slices(differences), "Central slices of the differences of classes")
    return Section("Pairs of classes", text, [Table(("classes", "agree to"), rows), picture])


def _stability(shown: Mapping[str, Any]) -> Section:
    """Where particles of each class are in repeats and were before the last iteration; how classes were split."""
    blocks: list[Picture | Table] = []
    count = len(shown["shares"])
    names = [f"class {k}" for k in range(1, count + 1)] + (["junk"] if shown["junk_share"] is not None else [])
    if "repeats" in shown["migration"]:
        head = ("in this run", *(f"{name} in the repeats" for name in names), "stable")
        stable = [f"{100 * s:.0f} %" for s in shown["stable_share_of_class"]] + [""]
        table = zip(names, shown["migration"]["repeats"], stable, strict=False)
        blocks.append(Table(head, [(name, *(f"{100 * v:.1f} %" for v in row), s) for name, row, s in table]))
    if "last_iteration" in shown["migration"]:
        head = ("before the last iteration", *(f"{name} after it" for name in names[:count]))
        last = zip(names, shown["migration"]["last_iteration"], strict=False)
        blocks.append(Table(head, [(name, *(f"{100 * v:.1f} %" for v in row)) for name, row in last]))
    if shown["splits"]:
        head = ("split", "into", "variance between both", "particles")
        rows = [
            (f"part {s['parent']}", f"parts {s['parent']} and {s['child']}", f"{s['variance']:.3g}", s["particles"])
            for s in shown["splits"]
        ]
        blocks.append(Table(head, rows))
    text = (
        "Where the particles of each class are in classifications that began elsewhere (classes matched so that most "
        "stay), and where they were before the last iteration. The stable core is in the same class in all."
    )
    return Section("Stability", text, blocks)


def _length(value: float | None) -> str:
    return "nowhere" if value is None else f"{value:.1f} Å"
