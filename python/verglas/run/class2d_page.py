"""The page of a classification, written again from the files that it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.classification import Classes2D
from verglas.classification.classes import Iteration
from verglas.io import read_particles, read_stack, write_text
from verglas.report import class2d as report
from verglas.run.live_page import SHOWN, finished_summary, footer_text

SUMMARY, PAGE = "summary.json", "classes.html"


def shown_record(
    result: Classes2D, events: Sequence[str], settings: Mapping[str, object], source: Path
) -> dict[str, Any]:
    """What the page shows and no other file of the folder holds, for :data:`SUMMARY`."""
    return {
        SHOWN: {
            "pixel_size_A": result.pixel_size_A,
            "frequency_per_A": result.frequency_per_A.tolist(),
            "curves": np.round(result.curves, 5).tolist(),
            "events": list(events),
            "settings": dict(settings),
            "particles_file": str(source),
        }
    }


def write_again(folder: Path) -> Path:
    """Write classes.html again.

    Parameters
    ----------
    folder : Path
        Of a finished ``verglas class2d``.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        The classification has not finished, or is of a version that did not keep what its page shows.
    """
    summary = finished_summary(folder / SUMMARY, "classification", PAGE)
    shown = summary[SHOWN]
    table = pd.DataFrame(summary["classes"]).astype(float)
    table["resolution_A"] = table["resolution_A"].fillna(np.inf)
    classes = Classes2D(
        np.array(read_stack(folder / "averages.mrcs"), np.float32),
        float(shown["pixel_size_A"]),
        read_particles(folder / "particles.star"),
        table.astype({"class": np.int64, "particles": np.int64}),
        np.array(shown["curves"], np.float64).reshape(len(shown["curves"]), -1),
        np.array(shown["frequency_per_A"], np.float64),
        str(summary["verdict"]),
        bool(summary["signal"]),
        [Iteration(**line) for line in summary["record"]],
        {int(number): str(reason) for number, reason in summary["set_aside"].items()},
    )
    page = folder / PAGE
    footer = footer_text(Path(shown["particles_file"]))
    write_text(page, report.page(classes, shown["settings"], shown["events"], footer))
    return page
