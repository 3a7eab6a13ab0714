"""Charts that a reader can ask: hover for values, a click on a name hides its curve; drawn as SVG by ``chart.js``."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.assessment.fsc import FSC, threshold_name
from verglas.report.html import Fragment, page_frame

_MOST_POINTS = 1500
_FRAME_HEIGHT_PX = 430
_STEPS = 250  # of colours of a field
_TRAITS = ("log", "equal", "down", "cosine", "whole", "signed")
_SAME = 1e-6  # of the values: a range that is rounding


@dataclass(frozen=True)
class Series:
    """A curve, bars or points: its name, (n,) x and y; a y that is not finite leaves a gap. Bars stand about x.

    Attributes
    ----------
    name : str
    x, y : (n,) float64
    draw : {"line", "bars", "points"}
    shades : (n,) float64, optional
        Points are coloured by these values, on the chart's scale; a curve by the first.
    notes : sequence of str
        Said of each point in the place of its numbers.
    """

    name: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    draw: Literal["line", "bars", "points"] = "line"
    shades: npt.NDArray[np.float64] | None = None
    notes: Sequence[str] = ()

    def as_record(self) -> dict[str, Any]:
        """For ``chart.js``; of many points every second, third ... one."""
        record: dict[str, Any] = {"name": self.name, "draw": self.draw}
        record |= {name: round_or_none(_thin(v), _digits(v)) for name, v in (("x", self.x), ("y", self.y))}
        if self.shades is not None:
            record["shades"] = round_or_none(_thin(self.shades), _digits(self.shades, 4))
        if self.notes:
            record["notes"] = list(self.notes[:: _step(len(self.notes))])
        return record


@dataclass(frozen=True)
class Line:
    """A value marked across the chart, and what it is called."""

    at: float
    text: str


@dataclass(frozen=True)
class Band:
    """What the x from ``start`` to ``end`` are called, such as a phase of a run."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Field:
    """Values over the plane of a chart, drawn as colours under its series.

    Attributes
    ----------
    values : (rows, columns) float64
        Rows by y, columns by x, both rising. Sent as 250 steps from the least to the largest.
    x, y : (float, float)
        The edges of all cells together.
    """

    values: npt.NDArray[np.float64]
    x: tuple[float, float]
    y: tuple[float, float]

    def as_record(self, limits: tuple[float, float]) -> dict[str, Any]:
        """For ``chart.js``."""
        low, high = limits
        known = np.isfinite(self.values)
        steps = (np.where(known, self.values, low) - low) / max(high - low, 1e-30) * _STEPS
        packed = np.where(known, np.clip(np.rint(steps), 0, _STEPS), 255).astype(np.uint8)
        text = base64.b64encode(packed.tobytes()).decode("ascii")
        rows, columns = self.values.shape
        return {"rows": rows, "columns": columns, "x": list(self.x), "y": list(self.y), "values": text}


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
    bar_width : float
        Of bars, in x; those of several series stand on each other.
    log : bool
        The y axis is logarithmic; what is not above zero is left out.
    equal, down : bool
        x and y have one scale; y runs down, as the rows of an image.
    bands : sequence of Band
        Shaded in turn.
    field : Field, optional
    scale_label : str
        What colours stand for, of the field or of ``shades``.
    x_ticks : sequence of Line
        In the place of round numbers.
    cosine : bool
        y is the cosine of an angle and is labelled with degrees: the sphere with its areas kept.
    whole : bool
        y is counted: ticks at whole numbers only.
    signed : bool
        Colours are blue below zero and red above, and reach as far on both sides.
    limits : (x from, x to, y from, y to), optional
        Of the axes, in the place of those of the data.
    colours_to : float
        Signed colours reach as far at least, so that charts beside each other have one scale.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    lines: Sequence[Line] = ()
    marks: Sequence[Line] = ()
    inverse: bool = False
    zero: bool = False
    bar_width: float = 0.0
    log: bool = False
    equal: bool = False
    down: bool = False
    bands: Sequence[Band] = ()
    field: Field | None = None
    scale_label: str = ""
    x_ticks: Sequence[Line] = ()
    cosine: bool = False
    whole: bool = False
    signed: bool = False
    limits: tuple[float, float, float, float] | None = None
    colours_to: float = 0.0

    def as_json(self) -> str:
        """For ``chart.js``; safe inside a page."""
        record: dict[str, Any] = {
            "title": self.title,
            "x": self.x_label,
            "y": self.y_label,
            "inverse": self.inverse,
            "zero": self.zero,
            "lines": _marks_record(self.lines),
            "marks": _marks_record(self.marks),
            "series": [s.as_record() for s in self.series],
            "width": float(f"{self.bar_width:.6g}"),
        }
        record |= {name: True for name in _TRAITS if getattr(self, name)}
        if self.limits is not None:
            record["range"] = [float(f"{one:.6g}") for one in self.limits]
        if self.x_ticks:
            record["x_ticks"] = _marks_record(self.x_ticks)
        if self.bands:
            known = [one for one in self.bands if np.isfinite([one.start, one.end]).all()]
            record["bands"] = [[one.start, one.end, one.text] for one in known]
        limits = self._scale_limits()
        if limits is not None:
            # What is nothing beside the rest is 0: its digits are rounding, which another read of the files has not.
            nothing = 1e-6 * max(map(abs, limits))
            digits = _digits(np.array(limits), 4)
            ends = [0.0 if abs(v) < nothing else float(f"{v:.{digits}g}") for v in limits]
            record["scale"] = [*ends, self.scale_label]
            if self.field is not None:
                record["field"] = self.field.as_record(limits)
        # "</script>" in a name would end the block that holds it.
        return json.dumps(record, ensure_ascii=True).replace("<", "\\u003c")

    def _scale_limits(self) -> tuple[float, float] | None:
        coloured = [s.shades for s in self.series if s.shades is not None]
        if self.field is not None:
            coloured = [self.field.values.ravel()]  # shades of points share its colours
        values = np.concatenate([*coloured, np.zeros(0)])
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = float(values.min()), float(values.max())
        if self.signed:
            reach = max(abs(low), abs(high), self.colours_to) or 1.0  # nothing at all has the colour of zero
            return -reach, reach
        # Values that are one but for rounding have the scale's first colour.
        return (low, high) if high - low > _SAME * max(abs(low), abs(high)) else (low, low + max(1.0, 0.01 * abs(low)))


def _marks_record(marks: Sequence[Line]) -> list[list[Any]]:
    return [[float(f"{one.at:.6g}"), one.text] for one in marks if np.isfinite(one.at)]


def _step(n: int) -> int:
    return max(1, -(-n // _MOST_POINTS))


def _thin(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values[:: _step(len(values))]


def _digits(values: npt.NDArray[np.float64], least: int = 5) -> int:
    """Digits that tell values apart whose range is small beside them, such as defoci of one micrograph."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    span, most = (float(np.ptp(known)), float(np.abs(known).max())) if len(known) else (0.0, 0.0)
    return least if span <= _SAME * most else least + max(0, math.floor(math.log10(most / span)))


def round_or_none(values: Iterable[float], digits: int = 5) -> list[float | None]:
    """Numbers of so many digits for a page; None where there is none, as JSON knows no NaN.

    Examples
    --------
    >>> from verglas.report.chart import round_or_none
    >>> round_or_none([1.2345678, float("nan")]), round_or_none([1.2345678], 7)
    ([1.2346, None], [1.234568])
    """
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in values]


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


def histogram_chart(
    x_label: str,
    groups: Mapping[str, npt.ArrayLike],
    counted: str,
    *,
    title: str = "",
    most_bins: int = 60,
    limits: tuple[float, float] | None = None,
    marks: Sequence[Line] = (),
) -> Chart | None:
    """Histogram of values, those of several groups on each other; None without a finite value.

    Parameters
    ----------
    x_label : str
        With the unit.
    groups : mapping of str -> (n,) array
        Values that are not finite are left out.
    counted : str
        What the y axis counts, such as "particles".
    title : str, optional
        The label where there is none.
    most_bins : int
        Of few values there are fewer: twice the root of their number.
    limits : (float, float), optional
        What lies beyond them stands in the outermost bins.
    marks : sequence of Line, optional

    Examples
    --------
    >>> from verglas.report.chart import histogram_chart
    >>> chart = histogram_chart("picks", {"used": [1, 2, 2, 9], "set aside": [5]}, "micrographs")
    >>> [(one.name, one.y.sum().item()) for one in chart.series]
    [('used', 4.0), ('set aside', 1.0)]
    """
    values = {name: np.asarray(some, np.float64).ravel() for name, some in groups.items()}
    values = {name: some[np.isfinite(some)] for name, some in values.items()}
    every = np.concatenate([*values.values(), np.zeros(0)])
    if not len(every):
        return None
    low, high = limits or (float(every.min()), float(every.max()))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(2 * np.sqrt(len(every)), 6, most_bins))
    edges = np.linspace(low, high, bins + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    series = [
        Series(name, middle, np.histogram(np.clip(some, low, high), edges)[0].astype(np.float64), "bars")
        for name, some in values.items()
        if len(some)
    ]
    width = (high - low) / bins
    return Chart(title or x_label, x_label, counted, series, marks=marks, zero=True, bar_width=width, whole=True)


def fsc_curves_chart(title: str, curves: Mapping[str, FSC], thresholds: Sequence[float | str] = (0.5, 0.143)) -> Chart:
    """FSC curves by name, with thresholds: fixed values, and criteria that are curves of their own.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.report.chart import fsc_curves_chart
    >>> x = vg.Map(np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32), 2.0)
    >>> chart = fsc_curves_chart("FSC", {"same": vg.fsc(x, x)}, ("half-bit", 0.143))
    >>> [one.name for one in chart.series], [one.text for one in chart.lines]
    (['same', 'half-bit'], ['0.143'])
    """
    series = [Series(name, one.frequency_per_A, one.curve) for name, one in curves.items()]
    first = next(iter(curves.values()), None)
    if first is not None:
        for criterion in (one for one in thresholds if isinstance(one, str)):
            series.append(Series(criterion, first.frequency_per_A[1:], first.threshold(criterion)[1:]))
    lines = [Line(float(one), threshold_name(one)) for one in thresholds if not isinstance(one, str)]
    top = max((float(one.frequency_per_A[-1]) for one in curves.values()), default=0.0)
    marks = [Line(top, f"Nyquist {1 / top:.2f} Å")] if top > 0 else []
    return Chart(title, "resolution (Å)", "FSC", series, lines, marks, inverse=True)


def column_numbers(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """A column as float64; NaN where it holds no number."""
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)


def chart_html(chart: Chart) -> str:
    """The chart's place in a page: its data, and its name for those who do not see it."""
    return (
        f'<figure class="chart" role="group" aria-label="{html.escape(chart.title)}">'
        f'<script type="application/json">{chart.as_json()}</script></figure>'
    )


def chart_block(chart: Chart, caption: str = "") -> Fragment:
    """The chart as a block of a page."""
    return Fragment(chart_html(chart) + _caption(caption), scripts=("chart.js",))


def _caption(words: str) -> str:
    return f'<p class="caption">{html.escape(words)}</p>' if words else ""


def charts_block(charts: Iterable[Chart | None], caption: str = "") -> Fragment:
    """Charts side by side where there is room, as one block of a page."""
    inside = "".join(chart_html(one) for one in charts if one is not None)
    return Fragment(f'<div class="charts">{inside}</div>{_caption(caption)}', scripts=("chart.js",))


def charts_frame(charts: Sequence[Chart]) -> str:
    """Charts as a frame of a notebook, one under the other, of one height."""
    return page_frame("".join(map(chart_html, charts)), ("chart.js",), "charts", _FRAME_HEIGHT_PX * len(charts))
