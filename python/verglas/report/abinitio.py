"""The page of ``verglas abinitio``: verdict, every start, how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.initial_model.consensus import Comparison, Verdict
from verglas.initial_model.symmetry import SymmetryFound
from verglas.io import write_text
from verglas.report import figures
from verglas.report.chart import chart_block, fsc_curves_chart
from verglas.report.heterogeneity import settings_section
from verglas.report.html import REFRESH_S, Block, Page, Picture, Section, Table, render
from verglas.report.view_chart import views_block
from verglas.report.volume import viewer_block
from verglas.types import Map

_TITLES = {
    "found": "A map that repeats",
    "unconfirmed": "A map, not confirmed",
    "minority": "A map that few starts repeat",
    "undecided": "Starts disagree",
    "noise": "No structure seen in these images",
}
MOST_SHOWN = 6
"""Starts whose maps a page shows."""


@dataclass(frozen=True)
class StartShown:
    """A start as the page of a finished run lists it: its number from 0, and the mean evidence of a held-out image."""

    number: int
    score: float


@dataclass(frozen=True)
class AbInitioShown:
    """What the page shows.

    Attributes
    ----------
    summary : mapping
        What ``--json`` prints.
    verdict : Verdict
    starts : sequence of StartShown
        By falling evidence.
    maps : sequence of Map
        Of the first start, one per class, masked by the sphere.
    class_weight : sequence of float
        Share of each of its classes.
    comparisons : sequence of Comparison
        All but the first, turned onto it.
    angles_deg : (n, 3) float64
        Poses of the particles.
    settings : mapping
    symmetry : SymmetryFound, optional
        Where it was searched.
    items, baseline : str
        What the images are, and what held-out ones compare the map with.
    """

    summary: Mapping[str, Any]
    verdict: Verdict
    starts: Sequence[StartShown]
    maps: Sequence[Map]
    class_weight: Sequence[float]
    comparisons: Sequence[Comparison]
    angles_deg: npt.NDArray[np.float64]
    settings: Mapping[str, Any]
    symmetry: SymmetryFound | None = None
    items: str = "particles"
    baseline: str = "a round blob"


@dataclass(frozen=True)
class StartSoFar:
    """A start for the page of a run that is not finished.

    Attributes
    ----------
    number : int
        From 0.
    iterations, of : int
        Mini-batches done, and in all.
    resolution_A : float, optional
        Where the FSC of the halves of the last batch falls to 0.143, while it is under way.
    volumes : (classes, N, N, N) float32
        Maps, masked by the sphere.
    score : float, optional
        Mean log evidence of a held-out particle, once it is finished.
    """

    number: int
    iterations: int
    of: int
    resolution_A: float | None
    volumes: npt.NDArray[np.float32]
    score: float | None = None


def write_abinitio_page(folder: Path, shown: AbInitioShown, footer: str = "") -> Path:
    """Write report.html.

    Parameters
    ----------
    folder : Path
        Where.
    shown : AbInitioShown
    footer : str
        Version and time.

    Returns
    -------
    Path
    """
    path = folder / "report.html"
    write_text(path, render(abinitio_page(shown, footer)))
    return path


def abinitio_page(shown: AbInitioShown, footer: str = "") -> Page:
    """The page."""
    verdict, classes = shown.verdict, len(shown.maps)
    numbers = {
        "verdict": _TITLES[verdict.kind],
        "starts that agree": f"{verdict.agreeing} of {verdict.starts}",
        f"held-out gain over {shown.baseline}": f"{verdict.gain:+.1f} nats each",
        "hand": "either",
    }
    sections = [
        Section("The map" if classes == 1 else "The maps", _shares(shown), _surfaces(shown.maps)),
        _starts(shown, shown.maps),
    ]
    if shown.symmetry is not None:
        numbers["symmetry"] = shown.symmetry.symmetry
        sections.append(_symmetry(shown.symmetry))
    if shown.comparisons:
        sections.append(_agreement(shown))
    sections.append(
        Section(
            "Viewing directions",
            f"Of all {shown.items}, against the map above.",
            [views_block(shown.angles_deg, str(shown.summary.get("symmetry", "C1")))],
        )
    )
    sections.append(settings_section(shown.settings))
    return Page("verglas abinitio", verdict.sentence, numbers, sections, footer)


def _shares(shown: AbInitioShown) -> str:
    weights = shown.class_weight
    if len(weights) == 1:
        return (
            f"Of start {shown.starts[0].number + 1}, which best explains the {shown.items} that no start learned from."
        )
    return "Shares of the classes: " + ", ".join(f"{k}: {100 * w:.0f} %" for k, w in enumerate(weights, 1)) + "."


def _surfaces(maps: Sequence[Map]) -> list[Block]:
    named = {"map" if len(maps) == 1 else f"class {k}": m for k, m in enumerate(maps, 1)}
    return [
        viewer_block(named),
        *(
            Picture(figures.views(m), f"Surface of map {k} from three sides", f"Class {k}." if len(maps) > 1 else "")
            for k, m in enumerate(maps, 1)
        ),
    ]


def _starts(shown: AbInitioShown, best: Sequence[Map]) -> Section:
    blocks: list[Picture | Table] = []
    for k in range(len(best)):
        maps = {f"start {shown.starts[0].number + 1} (best)": best[k]}
        for c in shown.comparisons[: MOST_SHOWN - 1]:
            hand = ", mirrored" if c.mirrored[k] else ""
            maps[f"start {c.number + 1}{hand}"] = c.maps[k]
        blocks.append(
            Picture(
                figures.slices(maps, shared_scale=False),
                f"Central slices of class {k + 1} of every start",
                f"Central slices, class {k + 1}." if len(best) > 1 else "Central slices.",
            )
        )
    rows = [
        (f"start {s.number + 1}", f"{s.score:.2f}", "best" if i == 0 else _agreement_text(shown, s.number))
        for i, s in enumerate(shown.starts)
    ]
    blocks.append(Table(("", f"log-likelihood of held-out {shown.items}, nats each", "agrees with the best to"), rows))
    return Section(
        "Every start",
        f"Ranked by the log-likelihood of {shown.items} that no start was fitted to, in nats (natural units: one nat "
        "more makes an image e = 2.7 times as probable). Maps are turned onto the best, mirrored where that fits it "
        "better.",
        blocks,
    )


def _agreement_text(shown: AbInitioShown, number: int) -> str:
    agreement = next(c.agreement_A for c in shown.comparisons if c.number == number)
    return f"{agreement:.1f} Å" if np.isfinite(agreement) else "no resolution"


def _symmetry(search: SymmetryFound) -> Section:
    rows = [
        (s.symmetry, s.order, f"{s.score:.2f}", f"{s.worst:.2f}", f"{s.significance:.1f}", "yes" if s.fits else "no")
        for s in search.scores
    ]
    head = ("group", "elements", "mean correlation", "worst element", "standard deviations", "fits")
    return Section(
        "Symmetry",
        f"{search.sentence} Correlations are those of the map with its copies turned by the group's elements, at the "
        "best axes, less the part that any rotation keeps; 1 is what the map's noise allows. Standard deviations are "
        "above random axes. The largest group that fits is tried on the images.",
        [Table(head, rows)],
    )


def _agreement(shown: AbInitioShown) -> Section:
    curves = {
        f"start {c.number + 1}" + (f", class {k + 1}" if len(c.curves) > 1 else ""): curve
        for c in shown.comparisons[: MOST_SHOWN - 1]
        for k, curve in enumerate(c.curves)
    }
    return Section(
        "Agreement",
        "FSC of every other start with the best, both without their spherical averages, which agree whatever the poses "
        "are. "
        f"All starts are made from the same {shown.items}, so this is no resolution: it says whether the map depends "
        "on the start.",
        [chart_block(fsc_curves_chart("FSC with the best start", curves, (0.5,)))],
    )


def abinitio_running_page(
    starts: Sequence[StartSoFar], stopped: str, pixel_size_A: float, settings: Mapping[str, Any], footer: str
) -> Page:
    """The page while starts are still being made.

    Parameters
    ----------
    starts : sequence of StartSoFar
        Finished ones and the one under way, in order.
    stopped : str
        Why it does not go on; empty while it does.
    pixel_size_A : float
        Of the maps.
    settings : mapping
    footer : str
    """
    last = starts[-1]
    state = f"Stopped ({stopped})" if stopped else "Running"
    summary = f"{state}: start {last.number + 1}, {last.iterations} of {last.of} mini-batches done."
    if stopped:
        summary += " The same command goes on from there."
    maps = {
        f"start {s.number + 1}" + (f", class {k + 1}" if len(s.volumes) > 1 else ""): Map(v, pixel_size_A)
        for s in starts
        for k, v in enumerate(s.volumes)
    }
    shown = dict(list(maps.items())[-MOST_SHOWN:])
    rows = [
        (
            f"start {s.number + 1}",
            f"{s.iterations} of {s.of}",
            "" if s.resolution_A is None else f"{s.resolution_A:.0f} Å",
            "" if s.score is None else f"{s.score:.2f}",
        )
        for s in starts
    ]
    head = (
        "",
        "mini-batches",
        "half maps of the last mini-batch agree to",
        "log-likelihood of held-out particles, nats each",
    )
    text = "Each on its own grey scale, not turned onto each other yet."
    sections = [
        Section(
            "Maps so far",
            text,
            [
                Picture(figures.slices(shown, shared_scale=False), "Central slices of the map of every start"),
                Table(head, rows),
            ],
        ),
        settings_section(settings),
    ]
    numbers = {"start": str(last.number + 1), "mini-batches": f"{last.iterations} of {last.of}"}
    return Page("verglas abinitio", summary, numbers, sections, footer, refresh_s=None if stopped else REFRESH_S)
