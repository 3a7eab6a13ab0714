"""The page of a set of CTFs: distributions, pictures with the doubtful ones first, a table that sorts.

:func:`ctf_sections` is the body alone, for pages that hold more than CTFs.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pandas as pd

from verglas.report.chart import Chart, chart_html, charts_block, column_numbers, histogram_chart
from verglas.report.ctf import ShownCtf
from verglas.report.html import Block, Cell, Fragment, Gallery, Page, Picture, Section, Table

# Column of ctf.csv -> heading, digits shown.
_COLUMNS = {
    "defocus_u_A": ("defocus u, Å", 0),
    "defocus_v_A": ("v, Å", 0),
    "defocus_angle_deg": ("angle, °", 1),
    "astigmatism_A": ("astigmatism, Å", 0),
    "phase_shift_deg": ("phase, °", 1),
    "tilt_deg": ("tilt, °", 1),
    "merit": ("merit", 2),
    "resolution_A": ("rings to, Å", 1),
    "defocus_error_A": ("standard error, Å", 0),
    "astigmatism_error_A": ("of astigmatism, Å", 0),
}
# Zero everywhere unless it was asked for.
_OPTIONAL = ("phase_shift_deg", "tilt_deg")
MOST_ROWS = 2000
"""Rows of the table, the doubtful first; the rest is in ctf.csv."""
MOST_PICTURES = 40
"""Pictures of a page, the doubtful first."""

_CARD_REM = 44.0  # narrower, the words in a panel would be 6 pixels high


@dataclass(frozen=True)
class CtfPicture:
    """What is shown of one micrograph.

    Attributes
    ----------
    name : str
    png : bytes
        Its picture, where its curves were not kept; empty otherwise.
    reason : str
        Why it was set aside or is doubtful; empty for a good one.
    link : str
        Path of the same picture from the page, if there is one.
    """

    name: str
    png: bytes
    reason: str
    link: str = ""
    shown: ShownCtf | None = None


def doubts(table: pd.DataFrame) -> pd.Series[str]:
    """What speaks against each micrograph, in one text: why it was set aside, or its flags; empty for good ones."""
    flags = table["flags"].fillna("") if "flags" in table else ""
    return table["reason"].where(table["reason"] != "", flags)


def rows_to_show(table: pd.DataFrame) -> list[int]:
    """Rows whose pictures a page shows: those with something against them first, each kind in its order."""
    against = (doubts(table) != "").to_numpy()
    return [int(i) for i in np.argsort(~against, kind="stable") if pd.notna(table.iloc[i].get("merit"))][:MOST_PICTURES]


def distributions(table: pd.DataFrame) -> list[Chart]:
    """Histograms of mean defocus, astigmatism, resolution and merit; those set aside apart.

    Parameters
    ----------
    table : DataFrame
        Columns of ``ctf.csv``.
    """
    good = (table["reason"] == "").to_numpy(bool)
    shown = {
        "defocus (µm)": (table["defocus_u_A"] + table["defocus_v_A"]) / 2e4,
        "astigmatism (Å)": table["defocus_u_A"] - table["defocus_v_A"],
        "rings to (Å)": table["resolution_A"],
        "merit": table["merit"],
    }
    charts = []
    for title, column in shown.items():
        values = column_numbers(column)
        groups = {"used": values[good], "set aside": values[~good]}
        charts.append(histogram_chart(title, groups, "micrographs", most_bins=30))
    return [one for one in charts if one is not None]


def ctf_table(table: pd.DataFrame, most: int = MOST_ROWS) -> Table:
    """Values of every micrograph and what speaks against it; sorts by any column.

    Parameters
    ----------
    table : DataFrame
        Columns of ``ctf.csv``.
    most : int
        Rows shown, the doubtful first where there are more.
    """
    against = doubts(table)
    rows = table.assign(against=against)
    if {"defocus_u_A", "defocus_v_A"} <= set(rows):
        rows = rows.assign(astigmatism_A=rows["defocus_u_A"] - rows["defocus_v_A"])
    if len(rows) > most:
        rows = rows.sort_values("against", key=lambda text: text == "", kind="stable").head(most)
    columns = [c for c in _COLUMNS if c in rows and (c not in _OPTIONAL or rows[c].fillna(0).ne(0).any())]
    body = []
    for row in rows.to_dict("records"):
        name = str(row["micrograph"])
        values = ["" if pd.isna(row[c]) else f"{row[c]:.{_COLUMNS[c][1]}f}" for c in columns]
        body.append([Cell(name.rpartition("/")[2], name), *values, row["against"]])
    marked = np.flatnonzero(rows["against"].to_numpy() != "").tolist()
    return Table(("micrograph", *(_COLUMNS[c][0] for c in columns), "remarks"), body, True, marked)


def ctf_sections(table: pd.DataFrame, pictures: Sequence[CtfPicture]) -> list[Section]:
    """Distributions, table and pictures.

    Parameters
    ----------
    table : DataFrame
        All micrographs, columns of ``ctf.csv``.
    pictures : sequence of CtfPicture
        Those to show, in order (:func:`rows_to_show`).
    """
    sections = []
    if "merit" in table and table["merit"].notna().any():
        blocks: list[Block] = [charts_block(distributions(table))]
        sections.append(Section("The set of CTFs", blocks=blocks))
    text = "Click a heading to sort."
    if len(table) > MOST_ROWS:
        text += f" {MOST_ROWS} of {len(table)} micrographs, the doubtful first; all are in ctf.csv."
    sections.append(Section("CTF of each micrograph", text, [ctf_table(table)]))
    if pictures:
        text = (
            "Left half of a spectrum: measured; right half: the model. Curves: the average along the rings, the "
            "squared CTF and how they correlate around each frequency; rings end where that falls below 0.5. "
        )
        if len(pictures) < len(table):
            text += f"{len(pictures)} of {len(table)}, the doubtful first; all lie in the folder png."
        cards = [Picture(p.png, f"Spectrum and fit of {p.name}", _caption(p), p.link) for p in pictures if p.png]
        fits: list[Block] = [_fit_block(p, p.shown) for p in pictures if p.shown is not None]
        sections.append(Section("Spectra", text.strip(), [*fits, *([Gallery(cards, _CARD_REM)] if cards else [])]))
    return sections


def _fit_block(picture: CtfPicture, shown: ShownCtf) -> Fragment:
    """The spectrum beside the curves, and the numbers under them."""
    still = Picture(shown.spectrum, f"Spectrum of {shown.name}, measured on the left, model on the right")
    width, height = still.size
    words = html.escape(shown.facts.replace("   ", ", "))
    if picture.reason:
        words += f'. <span class="warned">{html.escape(picture.reason)}</span>'
    if picture.link:
        words += f'. <a href="{html.escape(quote(picture.link))}">As a picture: {html.escape(picture.name)}</a>'
    return Fragment(
        f'<div class="fit"><figure><img src="{still.source}" width="{width}" height="{height}" '
        f'alt="{html.escape(still.alt)}"></figure>{chart_html(shown.chart())}<p class="caption">{words}</p></div>',
        scripts=("chart.js",),
    )


def _caption(picture: CtfPicture) -> str:
    return f"{picture.name}: {picture.reason}" if picture.reason else picture.name


def ctf_page(table: pd.DataFrame, pictures: Sequence[CtfPicture], footer: str) -> Page:
    """The page.

    Parameters
    ----------
    table : DataFrame
        All micrographs, columns of ``ctf.csv``.
    pictures : sequence of CtfPicture
        Those to show.
    footer : str
        Version and time.
    """
    good = table[table["reason"] == ""]
    flagged = int(((doubts(table) != "") & (table["reason"] == "")).sum())
    summary = f"{len(good)} of {len(table)} micrographs have Thon rings that a CTF explains"
    summary += f"; {flagged} of them should be looked at." if flagged else "."
    numbers = {"micrographs": f"{len(table):,}", "set aside": f"{len(table) - len(good):,}"}
    if len(good):
        mean = (good["defocus_u_A"] + good["defocus_v_A"]) / 2e4
        numbers["defocus"] = f"{mean.min():.2f} to {mean.max():.2f} µm"
        numbers["rings to, median"] = f"{good['resolution_A'].median():.1f} Å"
        numbers["merit, median"] = f"{good['merit'].median():.2f}"
    return Page("CTF of micrographs", summary, numbers, ctf_sections(table, pictures), footer)
