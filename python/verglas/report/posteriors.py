"""Figures of what a refinement says about single particles: shifts, posteriors, log-likelihoods, defocus."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from verglas.report.style import COLOURS, FAINT, INK, new_figure, png, style_context
from verglas.types.arrays import FloatArray

_X, _Y = "rlnOriginXAngst", "rlnOriginYAngst"
_MAX, _LOG = "rlnMaxValueProbDistribution", "rlnLogLikeliContribution"


def _numbers(table: pd.DataFrame, *columns: str) -> tuple[FloatArray, ...] | None:
    """Finite rows of some columns; None if one is missing or nothing is left."""
    if not set(columns) <= set(table.columns):
        return None
    values = [pd.to_numeric(table[c], errors="coerce").to_numpy(np.float64) for c in columns]
    good = np.logical_and.reduce([np.isfinite(v) for v in values])
    return tuple(v[good] for v in values) if good.any() else None


def mean_defocus_A(table: pd.DataFrame) -> FloatArray:
    """Mean of defocus U and V per row; NaN where the table has none."""
    if not {"rlnDefocusU", "rlnDefocusV"} <= set(table.columns):
        return np.full(len(table), np.nan)
    u, v = (pd.to_numeric(table[c], errors="coerce").to_numpy(np.float64) for c in ("rlnDefocusU", "rlnDefocusV"))
    return 0.5 * (u + v)


def shifts(table: pd.DataFrame) -> bytes | None:
    """Where particles lie in their boxes: a map of shifts, and the histogram of their lengths; None without shifts."""
    columns = _numbers(table, _X, _Y)
    if columns is None:
        return None
    x, y = columns
    length = np.hypot(x, y)
    reach = max(float(np.percentile(np.abs(np.concatenate([x, y])), 99.5)), 1e-3) * 1.1
    with style_context():
        figure = new_figure(7.4, 3.0)
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.35))
        bins = int(np.clip(np.sqrt(len(x)) / 1.5, 10, 60))
        counts, edges, _ = np.histogram2d(y, x, bins=bins, range=[(-reach, reach)] * 2)
        left.pcolormesh(edges, edges, counts, cmap="viridis", rasterized=True)
        left.set_aspect("equal")
        left.axhline(0, color="white", lw=0.4, alpha=0.6)
        left.axvline(0, color="white", lw=0.4, alpha=0.6)
        left.set_xlabel("shift x (Å)")
        left.set_ylabel("shift y (Å)")
        bars, *_ = right.hist(length, bins=np.linspace(0, reach, 40), color=COLOURS[0])
        right.set_ylim(0, 1.12 * max(float(np.max(bars)), 1.0))  # room for the words
        median = float(np.median(length))
        right.axvline(median, color=COLOURS[1], lw=1.4)
        right.text(
            median,
            0.99,
            f" median {median:.2f} Å",
            transform=right.get_xaxis_transform(),
            va="top",
            color=INK,
            fontsize=8,
        )
        beyond = int(np.count_nonzero(length > reach))
        right.set_xlabel("length of the shift (Å)" + (f"; {beyond} beyond" if beyond else ""))
        right.set_ylabel("particles")
        return png(figure)


def sharpness(table: pd.DataFrame) -> bytes | None:
    """Histograms of the largest posterior probability and of the log-likelihood; None if the table has neither."""
    shown = {
        "largest posterior probability": _numbers(table, _MAX),
        "log-likelihood of a particle": _numbers(table, _LOG),
    }
    parts: Mapping[str, FloatArray] = {title: columns[0] for title, columns in shown.items() if columns is not None}
    if not parts:
        return None
    with style_context():
        figure = new_figure(3.7 * len(parts), 2.8)
        for axes, (title, values) in zip(np.ravel(figure.subplots(1, len(parts))), parts.items(), strict=True):
            if title.startswith("largest"):
                low, high = 0.0, 1.0
            else:
                low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
                high = high if high > low else low + 1.0
            counts, *_ = axes.hist(values, bins=np.linspace(low, high, 41), color=COLOURS[0])
            axes.set_ylim(0, 1.12 * max(float(np.max(counts)), 1.0))  # room for the words
            mean = float(values.mean())
            axes.axvline(mean, color=COLOURS[1], lw=1.4)
            axes.text(mean, 0.99, f" mean {mean:.4g}", transform=axes.get_xaxis_transform(), va="top", fontsize=8)
            axes.set_xlabel(title)
        figure.axes[0].set_ylabel("particles")
        return png(figure)


def plot_against_defocus(table: pd.DataFrame) -> tuple[bytes, str] | None:
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
    # Axes by percentiles: one particle of junk has a log-likelihood that would squeeze all others into a line.
    low, high = (float(v) for v in np.percentile(value, (0.2, 99.8)))
    with style_context():
        figure = new_figure(6.6, 3.0)
        axes = figure.subplots()
        if len(value) > 4000:
            axes.hexbin(defocus, value, gridsize=60, cmap="Blues", bins="log", mincnt=1, linewidths=0)
        else:
            axes.plot(defocus, value, ".", ms=2.5, color=FAINT, rasterized=True)
        axes.fill_between(middle, quartiles[:, 0], quartiles[:, 2], color=COLOURS[1], alpha=0.2, lw=0)
        axes.plot(middle, quartiles[:, 1], color=COLOURS[1], marker="o", ms=4, lw=1.6, label="median, quartiles")
        axes.set_ylim(low, high + 0.02 * (high - low))
        axes.set_xlabel("defocus (µm)")
        axes.set_ylabel("log-likelihood of a particle")
        axes.legend(fontsize=8)
        picture = png(figure)
    spread = float(np.ptp(quartiles[:, 1]) / max(float(value.std()), 1e-12))
    sentence = (
        f"Correlation of log-likelihood and defocus: {r:+.2f}; medians of groups of equal size differ by {spread:.1f} "
        "standard deviations."
    )
    return picture, sentence
