"""Figures of what a refinement says about single particles: shifts, posteriors, log-likelihoods, defocus."""

from __future__ import annotations

import numpy as np
import pandas as pd

from verglas.report.chart import Chart, Line, Series, column_numbers, histogram_chart
from verglas.types.arrays import FloatArray

_X, _Y = "rlnOriginXAngst", "rlnOriginYAngst"
_MAX, _LOG = "rlnMaxValueProbDistribution", "rlnLogLikeliContribution"


def _numbers(table: pd.DataFrame, *columns: str) -> tuple[FloatArray, ...] | None:
    """Finite rows of some columns; None if one is missing or nothing is left."""
    if not set(columns) <= set(table.columns):
        return None
    values = [column_numbers(table[c]) for c in columns]
    good = np.logical_and.reduce([np.isfinite(v) for v in values])
    return tuple(v[good] for v in values) if good.any() else None


def mean_defocus_A(table: pd.DataFrame) -> FloatArray:
    """Mean of defocus U and V per row; NaN where the table has none."""
    if not {"rlnDefocusU", "rlnDefocusV"} <= set(table.columns):
        return np.full(len(table), np.nan)
    u, v = (column_numbers(table[c]) for c in ("rlnDefocusU", "rlnDefocusV"))
    return 0.5 * (u + v)


def shifts(table: pd.DataFrame) -> list[Chart]:
    """Where particles lie in their boxes: shifts as points, and the histogram of their lengths; none without shifts."""
    columns = _numbers(table, _X, _Y)
    if columns is None:
        return []
    x, y = columns
    length = np.hypot(x, y)
    reach = max(float(np.percentile(np.abs(np.concatenate([x, y])), 99.5)), 1e-3) * 1.1
    beyond = int(np.count_nonzero(length > reach))
    median = float(np.median(length))
    label = "length of the shift (Å)" + (f"; {beyond} beyond" if beyond else "")
    near = (np.abs(x) <= reach) & (np.abs(y) <= reach)
    places = Series("particles", x[near], y[near], "points")
    marks = [Line(median, f"median {median:.2f} Å")]
    lengths = histogram_chart(
        label, {"particles": length}, "particles", title="Lengths of shifts", limits=(0.0, reach), marks=marks
    )
    charts = [Chart("Shifts", "shift x (Å)", "shift y (Å)", [places]), lengths]
    return [one for one in charts if one is not None]


def sharpness(table: pd.DataFrame) -> list[Chart]:
    """Histograms of the largest posterior probability and of the log-likelihood; none if the table has neither."""
    charts = []
    for title, name in (("largest posterior probability", _MAX), ("log-likelihood of a particle", _LOG)):
        columns = _numbers(table, name)
        if columns is None:
            continue
        (values,) = columns
        low, high = (0.0, 1.0) if name == _MAX else (float(v) for v in np.percentile(values, (0.1, 99.9)))
        mean = float(values.mean())
        marks = [Line(mean, f"mean {mean:.4g}")]
        charts.append(histogram_chart(title, {"particles": values}, "particles", limits=(low, high), marks=marks))
    return [one for one in charts if one is not None]


def chart_against_defocus(table: pd.DataFrame) -> tuple[Chart, str] | None:
    """Log-likelihood against mean defocus, with medians of ten equal groups, and a sentence; None without either.

    A trend says that the defocus, or the noise model of some micrographs, is off.
    """
    with_defocus = table.assign(_defocus=mean_defocus_A(table))
    columns = _numbers(with_defocus, "_defocus", _LOG)
    if columns is None or len(columns[0]) < 10 or not np.ptp(columns[0]) > 0 or not np.ptp(columns[1]) > 0:
        return None
    defocus, value = columns[0] / 1e4, columns[1]
    r = float(np.corrcoef(defocus, value)[0, 1])
    edges = np.unique(np.quantile(defocus, np.linspace(0, 1, 11)))
    group = np.clip(np.searchsorted(edges, defocus, side="right") - 1, 0, len(edges) - 2)
    groups = [k for k in range(len(edges) - 1) if np.any(group == k)]
    quartiles = np.array([np.percentile(value[group == k], (25, 50, 75)) for k in groups])
    middle = np.array([np.median(defocus[group == k]) for k in groups])
    # Points by percentiles: one particle of junk has a log-likelihood that would squeeze all others into a line.
    low, high = (float(v) for v in np.percentile(value, (0.2, 99.8)))
    near = (value >= low) & (value <= high)
    series = [Series("particles", defocus[near], value[near], "points")]
    for name, column in (("median", 1), ("lower quartile", 0), ("upper quartile", 2)):
        series.append(Series(name, middle, quartiles[:, column]))
    chart = Chart("Log-likelihood against defocus", "defocus (µm)", "log-likelihood of a particle", series)
    spread = float(np.ptp(quartiles[:, 1]) / max(float(value.std()), 1e-12))
    sentence = (
        f"Correlation of log-likelihood and defocus: {r:+.2f}; medians of groups of equal size differ by {spread:.1f} "
        "standard deviations."
    )
    return chart, sentence
