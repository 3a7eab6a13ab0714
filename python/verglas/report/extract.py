"""The page of an extraction: how many particles, why others were set aside, some of them, their defoci."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from verglas.report import figures
from verglas.report.chart import charts_block, histogram_chart
from verglas.report.html import Page, Picture, Section, Table
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.verdict import Verdict

MOST_ROWS = 2000
"""Micrographs of the table, those with the fewest particles first; the rest is in particles.star."""


@dataclass(frozen=True)
class ExtractShown:
    """What the page shows.

    Attributes
    ----------
    verdict : Verdict
    account : mapping
        What ``--json`` prints.
    images : (n, y, x) float32
        Some of the particles.
        Of one box and pixel size, where the set has several.
    pixel_size_A : float
        Of these.
    per_micrograph : Series
        Particles by name of micrograph.
    defocus_u_A : (particles,) float64, optional
        Where CTFs are known.
    """

    verdict: Verdict
    account: Mapping[str, Any]
    images: Float32Array
    pixel_size_A: float
    per_micrograph: pd.Series[int]
    defocus_u_A: FloatArray | None = None


def boxes_in_words(account: Mapping[str, Any], angstrom: str = "Å") -> str:
    """Box and pixel size of an account of extraction, all where there are several: "32 px of 3 and 3.02 Å"."""
    boxes, sizes_A = (np.atleast_1d(account[name]).tolist() for name in ("box", "pixel_size_A"))
    return f"{' and '.join(f'{n:d}' for n in boxes)} px of {' and '.join(f'{size:.4g}' for size in sizes_A)} {angstrom}"


def extract_page(shown: ExtractShown, footer: str = "") -> Page:
    """The page.

    Parameters
    ----------
    shown : ExtractShown
    footer : str
        Version and time.
    """
    account = shown.account
    words = {"go on": "Ready for classification.", "warn": "Look at what was set aside first.", "stop": "Do not go on."}
    kept = f"{account['particles']:,} of {account['coordinates']:,} coordinates became particles."
    summary = " ".join(
        [kept, words[shown.verdict.state], *(f"{why[0].upper()}{why[1:]}." for why in shown.verdict.reasons)]
    )
    numbers = {
        "particles": f"{account['particles']:,}",
        "micrographs": f"{len(shown.per_micrograph):,}",
        "box": boxes_in_words(account),
        "set aside": f"{account['coordinates'] - account['particles']:,}",
    }
    excess = account["median_background_excess"]
    if excess is not None:
        numbers["background excess, median"] = f"{excess:.2f}"
    picture = Picture(figures.particles(shown.images, shown.pixel_size_A), "Some particles as they were cut out")
    sections = [Section("Some of the particles", "White on a dark background, evenly over the set.", [picture])]
    groups: dict[str, np.ndarray[Any, Any]] = {"particles per micrograph": shown.per_micrograph.to_numpy(np.float64)}
    if shown.defocus_u_A is not None:
        groups["defocus u (µm)"] = shown.defocus_u_A / 1e4
    counted = {"particles per micrograph": "micrographs", "defocus u (µm)": "particles"}
    charts = [histogram_chart(label, {"all": values}, counted[label], most_bins=30) for label, values in groups.items()]
    sections.append(Section("The set", blocks=[charts_block(charts)]))
    if account["excluded"]:
        rows = sorted(account["excluded"].items(), key=lambda item: -item[1])
        text = "Each pick by itself stands in excluded.csv; a micrograph that is not there is one line."
        sections.append(Section("Set aside", text, [Table(("reason", "lines"), rows, sortable=True)]))
    fewest = shown.per_micrograph.sort_values(kind="stable").head(MOST_ROWS)
    per = [(str(name).rpartition("/")[2], int(count)) for name, count in fewest.items()]
    text = "Those with the fewest particles first."
    if len(per) < len(shown.per_micrograph):
        text += f" {len(per):,} of {len(shown.per_micrograph):,}; all are in particles.star."
    sections.append(Section("Micrographs", text, [Table(("micrograph", "particles"), per, sortable=True)]))
    return Page("Extraction", summary, numbers, sections, footer)
