"""Charts that a reader can ask: hover for values, a click on a name hides its curve; drawn as SVG by ``chart.js``."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.report.html import Fragment

_MOST_POINTS = 1500
_BY_ITERATION = (
    ("Resolution by iteration", "resolution (Å)", {"resolution_A": "masked", "resolution_unmasked_A": "unmasked"}),
    ("Log-likelihood by iteration", "per particle", {"log_likelihood": "log-likelihood"}),
    ("Certainty by iteration", "largest posterior", {"max_probability": "largest posterior probability"}),
    ("Changes of angles by iteration", "degrees", {"angle_change_deg": "change", "accuracy_deg": "accuracy"}),
    ("Changes of shifts by iteration", "Å", {"shift_change_A": "change", "accuracy_shift_A": "accuracy"}),
    ("Evidence by iteration", "standard deviations", {"evidence": "on unseen data"}),
    ("Time by iteration", "seconds", {"seconds": "all", "seconds_expectation": "poses"}),
)


@dataclass(frozen=True)
class Series:
    """A curve: its name, (n,) x and y; a y that is not finite leaves a gap."""

    name: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A value marked across the chart, and what it is called."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes
    ----------
    title, x_label, y_label : str
    series : sequence of Series
    lines : sequence of Line
        Across, at a y.
    marks : sequence of Line
        Upright, at an x.
    inverse : bool
        x is a frequency in 1/angstrom and is labelled with resolutions.
    zero : bool
        The y axis begins at zero.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    lines: Sequence[Line] = ()
    marks: Sequence[Line] = ()
    inverse: bool = False
    zero: bool = False

    def as_json(self) -> str:
        """For ``chart.js``; safe inside a page."""
        record: dict[str, Any] = {
            "title": self.title,
            "x": self.x_label,
            "y": self.y_label,
            "inverse": self.inverse,
            "zero": self.zero,
            "lines": [[float(f"{one.at:.6g}"), one.text] for one in self.lines],
            "marks": [[float(f"{one.at:.6g}"), one.text] for one in self.marks],
            "series": [{"name": s.name, "x": _round_or_none(s.x), "y": _round_or_none(s.y)} for s in self.series],
        }
        # "</script>" in a name would end the block that holds it.
        return json.dumps(record, ensure_ascii=True).replace("<", "\\u003c")


def _round_or_none(values: npt.NDArray[np.float64]) -> list[float | None]:
    step = -(-len(values) // _MOST_POINTS)
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values[:: max(1, step)]]


def fsc_chart(title: str, table: pd.DataFrame) -> Chart:
    """FSC curves of a table (frequency_per_A, and a column per curve) with thresholds and the Nyquist frequency.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.report.chart import fsc_chart
    >>> chart = fsc_chart("FSC", pd.DataFrame({"frequency_per_A": [0.0, 0.1, 0.2], "masked": [1.0, 0.5, 0.0]}))
    >>> chart.marks[0].text, [one.name for one in chart.series]
    ('Nyquist 5.00 Å', ['masked'])
    """
    frequency = column_numbers(table["frequency_per_A"])
    names = [str(c) for c in table.columns if c != "frequency_per_A" and not str(c).startswith("n_")]
    series = [Series(name.replace("_", " "), frequency, column_numbers(table[name])) for name in names]
    top = float(np.nanmax(frequency))
    marks = [Line(top, f"Nyquist {1 / top:.2f} Å")] if top > 0 else []
    return Chart(title, "resolution (Å)", "FSC", series, [Line(0.5, "0.5"), Line(0.143, "0.143")], marks, inverse=True)


def iteration_charts(table: pd.DataFrame) -> list[Chart]:
    """Charts of what a table by iteration holds; of columns without a number there is none.

    Parameters
    ----------
    table : DataFrame
        iteration, and any of the columns of ``iterations.csv``.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.report.chart import iteration_charts
    >>> charts = iteration_charts(pd.DataFrame({"iteration": [1, 2], "resolution_A": [20.0, 12.0]}))
    >>> [(one.title, one.series[0].y.tolist()) for one in charts]
    [('Resolution by iteration', [20.0, 12.0])]
    """
    x = column_numbers(table["iteration"])
    charts = []
    for title, label, columns in _BY_ITERATION:
        series = [Series(words, x, column_numbers(table[name])) for name, words in columns.items() if name in table]
        series = [one for one in series if np.isfinite(one.y).any()]
        if series:
            charts.append(Chart(title, "iteration", label, series, zero=label == "seconds"))
    return charts


def column_numbers(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """A column as float64; NaN where it holds no number."""
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)


def chart_html(chart: Chart) -> str:
    """The chart's place in a page: its data, and its name for those who do not see it."""
    return (
        f'<figure class="chart" role="group" aria-label="{html.escape(chart.title)}">'
        f'<script type="application/json">{chart.as_json()}</script></figure>'
    )


def chart_block(chart: Chart) -> Fragment:
    """The chart as a block of a page."""
    return Fragment(chart_html(chart), scripts=("chart.js",))
