"""The page of a set of CTFs: distributions, pictures of the first and of the doubtful ones, a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from verglas.report.html import Page, Picture, Section, Table
from verglas.report.style import COLOURS, FAINT, new_figure, png, styled

_COLUMNS = {
    "defocus_u_A": "defocus u, Å", "defocus_v_A": "v, Å", "defocus_angle_deg": "angle, °",
    "phase_shift_deg": "phase, °", "tilt_deg": "tilt, °", "merit": "merit", "resolution_A": "rings to, Å",
    "defocus_error_A": "standard error, Å", "reason": "set aside because",
}  # fmt: skip
_ROWS = 500
"""Rows of the table; the rest is in ctf.csv."""


@dataclass(frozen=True)
class CtfPicture:
    """The picture of one micrograph.

    Attributes
    ----------
    name : str
    png : bytes
    reason : str
        Empty for a good one.
    """

    name: str
    png: bytes
    reason: str


def distributions(table: pd.DataFrame) -> bytes:
    """Histograms of mean defocus, astigmatism, resolution and merit as a PNG; those set aside in orange.

    Parameters
    ----------
    table : DataFrame
        Columns of ``ctf.csv``.
    """
    good = table["reason"] == ""
    mean = (table["defocus_u_A"] + table["defocus_v_A"]) / 2
    shown = {
        "defocus (Å)": mean, "astigmatism (Å)": table["defocus_u_A"] - table["defocus_v_A"],
        "rings to (Å)": table["resolution_A"], "merit": table["merit"],
    }  # fmt: skip
    with styled():
        figure = new_figure(9.4, 2.3)
        for axes, (title, values) in zip(figure.subplots(1, 4), shown.items(), strict=True):
            known = values.notna() & np.isfinite(values.astype(float))
            if known.any():
                edges = np.histogram_bin_edges(values[known].astype(float), bins=min(30, max(6, int(known.sum()))))
                parts = [values[known & good], values[known & ~good]]
                axes.hist(parts, edges, stacked=True, color=[COLOURS[0], COLOURS[1]])
            axes.set_xlabel(title)
            axes.set_yticks([])
            axes.spines["left"].set_color(FAINT)
        return png(figure)


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
    bad = table[table["reason"] != ""]
    good = table[table["reason"] == ""]
    sections = []
    if "merit" in table:
        alt = "Histograms of defocus, astigmatism, resolution and merit"
        caption = "All micrographs; those set aside in orange."
        sections.append(Section("Distributions", blocks=[Picture(distributions(table), alt, caption)]))
    for title, wanted in (("Set aside", True), ("Micrographs", False)):
        shown = [p for p in pictures if bool(p.reason) == wanted]
        if shown:
            blocks = [Picture(p.png, f"Spectrum and fit of {p.name}", p.reason) for p in shown]
            sections.append(Section(title, f"The first {len(shown)}." if len(shown) > 1 else "", blocks))
    sections.append(Section("Values", _table_text(table), [_table(table)]))
    summary = f"{len(good)} of {len(table)} micrographs have Thon rings that a CTF explains."
    numbers = {"micrographs": f"{len(table):,}", "set aside": f"{len(bad):,}"}
    if len(good):
        numbers["median resolution of the rings"] = f"{good['resolution_A'].median():.1f} Å"
        numbers["median merit"] = f"{good['merit'].median():.2f}"
    return Page("CTF of micrographs", summary, numbers, sections, footer)


def _table_text(table: pd.DataFrame) -> str:
    return "" if len(table) <= _ROWS else f"The {_ROWS} of lowest merit; all are in ctf.csv."


def _table(table: pd.DataFrame) -> Table:
    rows = table
    if len(table) > _ROWS:
        rows = table.sort_values("merit", na_position="first").head(_ROWS)
    columns = [c for c in _COLUMNS if c in rows and (c == "reason" or rows[c].fillna(0).ne(0).any())]
    body = [
        [row["micrograph"].rpartition("/")[2], *("" if pd.isna(row[c]) else row[c] for c in columns)]
        for row in rows.to_dict("records")
    ]
    return Table(("micrograph", *(_COLUMNS[c] for c in columns)), body)
