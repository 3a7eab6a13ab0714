"""The page of ``verglas local-sharpen``: slices before and after, and how the amplitudes changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from verglas.assessment.local_sharpen import LocallySharpened
from verglas.io import write_text
from verglas.report import figures
from verglas.report.chart import Chart, Series, chart_block
from verglas.report.html import Page, Picture, Section, Table, render
from verglas.report.volume import viewer_block
from verglas.types import Map
from verglas.types.arrays import FloatArray

_METHODS = {
    "deblur": "the blur of each voxel undone as far as its resolution allows (local Wiener filter)",
    "model": "the amplitudes of each place taken from the model",
}
_SAID = {
    "deblur": "Grey values outside the mask, where nothing is known of signal over noise, are flat.",
    "model": (
        "Amplitudes are the model's: where the map holds noise it looks as strong as structure would. Look at this "
        "map and build in it; measure resolution and agreement with a model on the unsharpened one."
    ),
}


def _amplitudes(curves: Mapping[str, FloatArray]) -> Chart:
    """Amplitudes of map, sharpened map and model over spatial frequency, as decadic logarithms."""
    frequency = curves["frequency_per_A"]
    series = []
    for name in ("map", "sharpened", "model"):
        if name in curves:
            shown = curves[name] > 0
            series.append(Series(name, frequency[shown], np.log10(curves[name][shown])))
    return Chart("Amplitudes", "resolution (Å)", "log10 of the amplitude", series, inverse=True)


def write_local_sharpen_page(
    folder: Path,
    record: Mapping[str, Any],
    volume: Map,
    done: LocallySharpened,
    curves: Mapping[str, FloatArray],
    footer: str = "",
) -> Path:
    """Write report.html.

    Parameters
    ----------
    folder : Path
        Must be there.
    record : mapping
        What local_sharpen.json holds.
    volume : Map
        Before.
    done : LocallySharpened
    curves : mapping of str -> (shells,) float64
        ``frequency_per_A``, and amplitudes by name.
    footer : str
        Version and time.

    Returns
    -------
    Path
        Of the page.
    """
    slices = Picture(
        figures.slices({"map": volume, "sharpened map": done.map}, shared_scale=False),
        "Central slices of the map before and after",
        "Each map on its own grey scale.",
    )
    sections = [
        Section("Before and after", _SAID[done.method], [viewer_block({"sharpened": done.map, "map": volume}), slices]),
        Section(
            "Amplitudes",
            "Root mean square of every shell over the whole box, equal at the coarsest; amplitudes.csv holds them.",
            [chart_block(_amplitudes(curves))],
        ),
    ]
    numbers = {}
    if done.method == "model":
        pairs = [(record[f"correlations_{when}"]) for when in ("before", "after")]
        rows = [(name, *(f"{one[name]:.3f}" for one in pairs)) for name in pairs[0]]
        sections.append(Section("Map and model", blocks=[Table(("correlation over", "before", "after"), rows)]))
        numbers["CC mask"] = f"{pairs[0]['mask']:.3f} before, {pairs[1]['mask']:.3f} after"
        numbers["cut at"] = f"{done.finest_A:.2f} Å"
    else:
        spread = record["resolution_A"]
        numbers["resolution"] = f"{spread['q05']:.2f} to {spread['q95']:.2f} Å, median {spread['median']:.2f} Å"
        numbers["noise to signal"] = f"{done.noise_to_signal:.3g}"
        numbers["iterations"] = str(done.iterations)
    page = Page("verglas local-sharpen", f"A map with {_METHODS[done.method]}.", numbers, sections, footer)
    path = folder / "report.html"
    write_text(path, render(page))
    return path
