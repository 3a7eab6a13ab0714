"""Pictures and the page of corrected movies: tracks, fields, drift of the set, outliers with reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from verglas.report.chart import Chart, charts_block, column_numbers, histogram_chart
from verglas.report.html import Gallery, Page, Picture, Section, Table
from verglas.report.style import COLOURS, FAINT, new_figure, png, style_context
from verglas.types.motion import Motion

MOST_PICTURES = 40
MOST_ROWS = 2000
_ENLARGED = 40.0  # times that the field's tracks are drawn larger than the frame
_COLUMNS = {
    "model": "model",
    "early_px": "early, px",
    "late_px": "late, px",
    "total_px": "total, px",
    "local_px": "local, px",
    "shift_error_px": "error, px",
    "gain_nats": "held-out gain, nats",
}


_HELD_OUT = (
    "Held-out gain: log-likelihood that motion within the frame adds to shifts of whole frames, on Fourier rows left "
    "out of the fit, in nats (natural units: one nat is a factor of e in probability)."
)


def motion_figure(motion: Motion, title: str = "") -> bytes:
    """Track of the whole frames, and the field on top of it as tracks of a grid of places, as a PNG."""
    with style_context():
        figure = new_figure(9.0, 3.6, layout=None)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, top=0.84, wspace=0.16)
        x, y = motion.global_px.T
        left.plot(x, y, "-", color=FAINT, linewidth=1)
        points = left.scatter(x, y, c=np.arange(1, len(x) + 1), s=12, cmap="viridis", zorder=3)
        if motion.global_error_px is not None:
            ex, ey = motion.global_error_px.T
            left.errorbar(x, y, ey, ex, fmt="none", ecolor=FAINT, elinewidth=0.6, zorder=2)
        if not motion.used.all():
            left.plot(x[~motion.used], y[~motion.used], "x", color=COLOURS[1], label="left out")
            left.legend(fontsize=8)
        left.set_aspect("equal", adjustable="datalim")
        left.invert_yaxis()  # rows run down, as in the micrograph
        left.set_xlabel("x, px")
        left.set_ylabel("y, px")
        left.set_title("whole frames", fontsize=10)
        figure.colorbar(points, ax=left, label="frame", shrink=0.8)
        _field(right, motion)
        if title:
            figure.suptitle(title, fontsize=10)
        return png(figure)


def _field(axes: object, motion: Motion) -> None:
    from matplotlib.collections import LineCollection

    rows, columns = motion.shape
    y, x = np.meshgrid(*(np.linspace(0.06 * n, 0.94 * n, 7) for n in (rows, columns)), indexing="ij")
    tracks = motion.local(x, y)
    largest = float(np.hypot(tracks[..., 0], tracks[..., 1]).max())
    scale = min(_ENLARGED * max(rows, columns) / 1000, 0.12 * min(rows, columns) / largest) if largest > 0 else 0.0
    lines = np.stack([x, y], -1)[:, :, None] + tracks * scale
    axes.add_collection(LineCollection([*lines.reshape(49, -1, 2)], colors=COLOURS[0], linewidths=1.1))  # type: ignore[attr-defined]
    axes.plot(x.ravel(), y.ravel(), ".", color=FAINT, markersize=3)  # type: ignore[attr-defined]
    axes.set_xlim(0, columns)  # type: ignore[attr-defined]
    axes.set_ylim(rows, 0)  # type: ignore[attr-defined]
    axes.set_aspect("equal")  # type: ignore[attr-defined]
    what = f"beyond that, up to {largest:.2f} px (drawn {scale:.0f} times)" if largest > 0 else "nothing beyond that"
    axes.set_title(what, fontsize=10)  # type: ignore[attr-defined]


def drift_charts(table: pd.DataFrame) -> list[Chart]:
    """Histograms of early, late and total motion and of the shifts' standard errors; flagged movies apart."""
    good = table[table["reason"] == ""]
    flagged = (good["flags"] != "").to_numpy(bool)
    shown = {"early (px)": "early_px", "late (px)": "late_px", "total (px)": "total_px", "error (px)": "shift_error_px"}
    charts = []
    for title, column in shown.items():
        values = column_numbers(good[column])
        groups = {"good": values[~flagged], "flagged": values[flagged]}
        charts.append(histogram_chart(title, groups, "movies", most_bins=30))
    return [one for one in charts if one is not None]


def motion_page(table: pd.DataFrame, folder: Path, footer: str = "", doubt: str = "") -> Page:
    """The page of a set of movies, those to look at first.

    Parameters
    ----------
    table : DataFrame
        Rows of ``motion.csv`` with the column picture, the PNG's path from ``folder``.
    folder : Path
    footer : str
    doubt : str
        What is wrong with all movies together.
    """
    good = table["reason"] == ""
    against = table["reason"].where(~good, table["flags"]).fillna("")
    order = np.argsort((against == "").to_numpy(), kind="stable")
    rows: list[list[object]] = []
    marked: list[int] = []
    for i in order[:MOST_ROWS]:
        row = table.iloc[i]
        values = [_show(row.get(column)) for column in _COLUMNS]
        if against.iloc[i]:
            marked.append(len(rows))
        rows.append([Path(str(row["movie"])).name, *values, against.iloc[i]])
    pictures = [_picture(table.iloc[i], folder, against.iloc[i]) for i in order if good.iloc[i]][:MOST_PICTURES]
    sections = []
    figures = {"movies": str(len(table)), "corrected": str(int(good.sum())), "to look at": str(len(marked))}
    if good.any():
        figures["median drift"] = f"{table.loc[good, 'total_px'].median():.1f} px"
        text = (
            "Path length of whole frames in the first 4 e/Å² (early), afterwards (late) and in all, and the standard "
            "error of a frame's shift."
        )
        sections.append(Section("Drift", text, [charts_block(drift_charts(table))]))
        sections.append(Section("Tracks", "Those to look at first.", [Gallery(pictures, 26.0)]))
    head = ["movie", *_COLUMNS.values(), "why look"]
    sections.append(Section("All movies", _HELD_OUT, [Table(head, rows, sortable=True, marked=marked)]))
    summary = f"{int(good.sum())} of {len(table)} movies corrected" + (f". To look at first: {doubt}" if doubt else "")
    return Page("Motion correction", summary, figures, sections, footer)


def _show(value: object) -> object:
    if isinstance(value, float):
        return "" if not np.isfinite(value) else f"{value:.2f}"
    return "" if value is None else value


def _picture(row: pd.Series, folder: Path, why: str) -> Picture:
    name = Path(str(row["movie"])).name
    return Picture((folder / str(row["picture"])).read_bytes(), f"motion of {name}", why or name, str(row["picture"]))
