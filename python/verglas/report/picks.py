"""Pictures of micrographs with their picks, and the page that judges a set of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verglas.assessment.micrographs import MicrographQuality
from verglas.picking import PickResult
from verglas.report import style
from verglas.report.chart import Chart, charts_block, histogram_chart
from verglas.report.html import Fragment, Gallery, Page, Picture, Section, Table, render
from verglas.report.selector import SELECTOR_SCRIPT, SelectorRow, format_number, selector
from verglas.types.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A page holds this many pictures: the flagged micrographs first. All of them lie in the folder beside it.
MOST_PICTURES = 60
_PICTURE_DPI = 120


@dataclass(frozen=True)
class PageRow:
    """One micrograph of the page: its quality, the reasons against it, its picture, and the path of the large one."""

    quality: MicrographQuality
    reasons: Sequence[str]
    picture: bytes = b""
    link: str = ""


def picks_picture(picks: PickResult, title: str = "", width_in: float = 6.0) -> bytes:
    """A micrograph, binned, with circles of the particle's size about the picks; bad areas in orange.

    Parameters
    ----------
    picks : PickResult
    title : str
        Above the picture.
    width_in : float
        Of the picture, at 120 pixels an inch.

    Returns
    -------
    bytes
        JPEG: of two thousand micrographs it is a question of the disk.
    """
    height, width = picks.small.grey.shape
    with style.style_context():
        figure = style.new_figure(width_in, width_in * height / width + (0.3 if title else 0.0))
        if title:
            axes = figure.subplots()
            axes.set_title(title)
        else:
            figure.set_layout_engine("none")
            axes = figure.add_axes((0, 0, 1, 1))  # no white frame, which glares on a dark page
        draw_picks(axes, picks)
        return style.jpeg(figure, _PICTURE_DPI)


def draw_picks(axes: Axes, picks: PickResult) -> None:
    """Draw a micrograph with circles about its picks and the areas left out on given axes."""
    from matplotlib.collections import EllipseCollection

    small = picks.small
    shown = -small.grey  # as recorded: protein dark
    height, width = shown.shape
    low, high = np.percentile(shown, (0.5, 99.5))
    axes.imshow(shown, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="bilinear")
    mask = picks.bad.mask
    if mask.any():
        tint = np.zeros((*mask.shape, 4))
        tint[mask] = (0.84, 0.37, 0.0, 0.25)
        axes.imshow(tint, interpolation="nearest")
        axes.contour(mask, levels=[0.5], colors=[style.COLOURS[1]], linewidths=1.2)
    xy = small.from_micrograph(picks.picks.xy_px)
    size = np.full(len(xy), 2 * small.radius_px)
    circles = EllipseCollection(
        size,
        size,
        np.zeros(len(xy)),
        units="xy",
        offsets=xy,
        transOffset=axes.transData,
        facecolors="none",
        edgecolors="#39d353",
        linewidths=0.9,
    )
    axes.add_collection(circles)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()


def histograms(rows: Sequence[MicrographQuality]) -> list[Chart]:
    """Histograms over micrographs of picks, bad area, and defocus and CTF resolution where they are known."""
    values = {
        "picks": [float(r.picks) for r in rows],
        "bad area (%)": [100 * r.bad_fraction for r in rows],
        "defocus (µm)": [r.defocus_A / 1e4 for r in rows],
        "CTF resolution (Å)": [r.resolution_A for r in rows],
    }
    charts = [histogram_chart(label, {"all": some}, "micrographs", most_bins=20) for label, some in values.items()]
    return [one for one in charts if one is not None]


_COLUMNS = ("micrograph", "picks", "bad area %", "separation", "defocus µm", "CTF Å", "flags")


def _base_name(name: str) -> str:
    """A micrograph without its folder."""
    return name.rpartition("/")[2]


def _cells(row: PageRow) -> list[tuple[str, str]]:
    one = row.quality
    flags = "; ".join(row.reasons)
    return [
        (_base_name(one.name), one.name),
        format_number(one.picks, 0),
        format_number(100 * one.bad_fraction, 1),
        format_number(one.separation, 2),
        format_number(one.defocus_A / 1e4, 2),
        format_number(one.resolution_A, 1),
        (flags, flags),
    ]


def _table(rows: Sequence[PageRow]) -> Fragment:
    cells = [_cells(row) for row in rows]
    # Without CTFs there are no defoci, and a good set has no flags.
    kept = [k for k in range(len(_COLUMNS)) if k < 2 or any(one[k][1] for one in cells)]
    return selector(
        [_COLUMNS[k] for k in kept],
        [
            SelectorRow(r.quality.name, not r.reasons, bool(r.reasons), [one[k] for k in kept])
            for r, one in zip(rows, cells, strict=True)
        ],
    )


def _gallery(rows: Sequence[PageRow]) -> Gallery:
    shown = [row for row in sorted(rows, key=lambda r: not r.reasons) if row.picture][:MOST_PICTURES]
    pictures = []
    for row in shown:
        name, against = _base_name(row.quality.name), "; ".join(row.reasons)
        caption = f"{name}: {row.quality.picks} picks" + (f". {against}" if against else "")
        pictures.append(Picture(row.picture, f"{name} with its picks", caption, row.link))
    return Gallery(pictures)


def picks_page(
    rows: Sequence[PageRow], verdict: Verdict, set_aside: Mapping[str, str], figures_of_merit: Mapping[str, str]
) -> str:
    """The page of a set of micrographs, one self-contained file.

    Parameters
    ----------
    rows : sequence of PageRow
    verdict : Verdict
        On the set.
    set_aside : mapping of name -> reason
        Files that could not be used.
    figures_of_merit : mapping of name -> value
        Shown large.

    Returns
    -------
    str
        HTML. The table sorts by any column, and the kept list is saved from it as a STAR file.
    """
    from verglas._version import __version__

    words = {
        "go on": "Ready for extraction.",
        "warn": "Look at the flagged micrographs before extraction.",
        "stop": "Do not go on before this has been looked into.",
    }
    summary = " ".join([words[verdict.state], *(f"{reason[0].upper()}{reason[1:]}." for reason in verdict.reasons)])
    sections = []
    if rows:
        picture = charts_block(histograms([r.quality for r in rows]))
        sections = [
            Section("The set", blocks=[picture]),
            Section(
                "Micrographs",
                "Click a heading to sort; the kept list can be saved and given to the next stage.",
                [_table(rows)],
            ),
            Section(
                "Pictures",
                "Circles are picks, orange is left out. Flagged micrographs come first."
                + (f" The first {MOST_PICTURES}; all lie in the folder pictures." if len(rows) > MOST_PICTURES else ""),
                [_gallery(rows)],
            ),
        ]
    if set_aside:
        sections.append(Section("Set aside", blocks=[Table(("file", "reason"), list(set_aside.items()))]))
    return render(
        Page(
            "Picking",
            summary,
            dict(figures_of_merit),
            sections,
            f"verglas {__version__}",
            script=SELECTOR_SCRIPT if rows else "",
        )
    )
