"""Pictures and the page of corrected movies: tracks, fields, drift of the set, outliers with reasons."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from verglas.io import read_json
from verglas.report.chart import Chart, Series, charts_block, column_numbers, histogram_chart, round_or_none
from verglas.report.html import Block, Fragment, Gallery, Page, Picture, Section, Table
from verglas.report.style import COLOURS, FAINT, new_figure, png, style_context
from verglas.types.arrays import BoolArray, FloatArray
from verglas.types.motion import Motion

MOST_PICTURES = 40
_MOST_STEPS = 20  # of a track of the field in a page
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
    scale = _enlarged((rows, columns), largest)
    lines = np.stack([x, y], -1)[:, :, None] + tracks * scale
    axes.add_collection(LineCollection([*lines.reshape(49, -1, 2)], colors=COLOURS[0], linewidths=1.1))  # type: ignore[attr-defined]
    axes.plot(x.ravel(), y.ravel(), ".", color=FAINT, markersize=3)  # type: ignore[attr-defined]
    axes.set_xlim(0, columns)  # type: ignore[attr-defined]
    axes.set_ylim(rows, 0)  # type: ignore[attr-defined]
    axes.set_aspect("equal")  # type: ignore[attr-defined]
    what = f"beyond that, up to {largest:.2f} px (drawn {scale:.0f} times)" if largest > 0 else "nothing beyond that"
    axes.set_title(what, fontsize=10)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ShownMotion:
    """What a page shows of the motion of one movie, small enough to be kept of all.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of a frame.
    frames_px : (frames, 2) float64
        Shift of the whole frames, x and y.
    error_px : (frames, 2) float64
        Its standard errors; NaN where they are not known.
    used : (frames,) bool
    places_px : (places, 2) float64
        x and y of a grid over the frame.
    tracks_px : (places, steps, 2) float64
        What each of them moves beyond the whole frames, at up to 20 of the frames.
    """

    shape: tuple[int, int]
    frames_px: FloatArray
    error_px: FloatArray
    used: BoolArray
    places_px: FloatArray
    tracks_px: FloatArray

    @classmethod
    def of_motion(cls, motion: Motion) -> ShownMotion:
        """Of a motion, on a grid of seven by seven places."""
        rows, columns = motion.shape
        y, x = np.meshgrid(*(np.linspace(0.06 * n, 0.94 * n, 7) for n in (rows, columns)), indexing="ij")
        frames = np.asarray(motion.global_px, np.float64)
        chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _MOST_STEPS)).round().astype(int))
        error = motion.global_error_px
        return cls(
            (rows, columns),
            frames,
            np.full(frames.shape, np.nan) if error is None else np.asarray(error, np.float64),
            np.asarray(motion.used, bool),
            np.stack([x.ravel(), y.ravel()], -1),
            np.asarray(motion.local(x, y), np.float64).reshape(x.size, -1, 2)[:, chosen],
        )

    def as_bytes(self) -> bytes:
        """JSON."""
        record: dict[str, Any] = {"shape": list(self.shape), "used": self.used.tolist()}
        for name in ("frames_px", "error_px", "places_px", "tracks_px"):
            values = getattr(self, name)
            record[name] = {"shape": list(values.shape), "values": round_or_none(values.ravel(), 4)}
        return json.dumps(record).encode()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ShownMotion:
        """Of what :meth:`as_bytes` wrote, read again."""

        def array(name: str) -> FloatArray:
            return np.array(record[name]["values"], np.float64).reshape(record[name]["shape"])

        rows, columns = record["shape"]
        arrays = [array(name) for name in ("places_px", "tracks_px")]
        return cls((rows, columns), array("frames_px"), array("error_px"), np.array(record["used"], bool), *arrays)

    def charts(self, name: str) -> list[Chart]:
        """The track of the whole frames, and the tracks of places within the frame, drawn larger than they are."""
        return [self._frames_chart(name), self._field_chart()]

    def _frames_chart(self, name: str) -> Chart:
        x, y = self.frames_px.T
        number = np.arange(1, len(x) + 1, dtype=np.float64)
        notes = [f"frame {k + 1}: x {_with_error(x[k], ex)}, y {_with_error(y[k], ey)} px" for k, (ex, ey) in
                 enumerate(self.error_px)]  # fmt: skip
        used = self.used
        series = [
            Series("track", x[used], y[used]),
            Series("frames", x[used], y[used], "points", number[used], [notes[k] for k in np.flatnonzero(used)]),
        ]
        if not used.all():
            left_out = [f"{notes[k]}, left out" for k in np.flatnonzero(~used)]
            series.append(Series("left out", x[~used], y[~used], "points", notes=left_out))
        title = f"{name}: whole frames"
        return Chart(title, "x (px)", "y (px)", series, equal=True, down=True, scale_label="frame")

    def _field_chart(self) -> Chart:
        rows, columns = self.shape
        most_px = np.hypot(*np.moveaxis(self.tracks_px, -1, 0)).max(axis=1)
        largest = float(most_px.max(initial=0.0))
        scale = _enlarged(self.shape, largest)
        drawn = self.places_px[:, None] + self.tracks_px * scale
        gap = np.full((len(drawn), 1, 2), np.nan)  # the pen is lifted between tracks
        x, y = np.concatenate([drawn, gap], axis=1).reshape(-1, 2).T
        px, py = self.places_px.T
        notes = [
            f"x {u:.0f}, y {v:.0f} px: moves up to {most:.2f} px" for u, v, most in zip(px, py, most_px, strict=True)
        ]
        series = [Series("tracks", x, y), Series("places", px, py, "points", notes=notes)]
        what = f"up to {largest:.2f} px, drawn {scale:.0f} times" if largest > 0 else "nothing"
        edges = (0.0, float(columns), 0.0, float(rows))
        return Chart(f"Beyond that: {what}", "x (px)", "y (px)", series, equal=True, down=True, limits=edges)


def _with_error(value: float, error: float) -> str:
    return f"{value:.2f}" + (f" ± {error:.2f}" if np.isfinite(error) else "")


def _enlarged(shape: tuple[int, int], largest_px: float) -> float:
    """Times that the tracks of a field are drawn larger than the frame; 0 without motion."""
    if largest_px <= 0:
        return 0.0
    return min(_ENLARGED * max(shape) / 1000, 0.12 * min(shape) / largest_px)


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
        Rows of ``motion.csv`` with the columns picture and curves, the paths of the PNG and of the numbers from
        ``folder``.
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
    chosen = [i for i in order if good.iloc[i]][:MOST_PICTURES]
    sections = []
    figures = {"movies": str(len(table)), "corrected": str(int(good.sum())), "to look at": str(len(marked))}
    if good.any():
        figures["median drift"] = f"{table.loc[good, 'total_px'].median():.1f} px"
        text = (
            "Path length of whole frames in the first 4 e/Å² (early), afterwards (late) and in all, and the standard "
            "error of a frame's shift."
        )
        sections.append(Section("Drift", text, [charts_block(drift_charts(table))]))
        sections.append(_tracks(table.iloc[chosen], against.iloc[chosen], folder))
    head = ["movie", *_COLUMNS.values(), "why look"]
    sections.append(Section("All movies", _HELD_OUT, [Table(head, rows, sortable=True, marked=marked)]))
    summary = f"{int(good.sum())} of {len(table)} movies corrected" + (f". To look at first: {doubt}" if doubt else "")
    return Page("Motion correction", summary, figures, sections, footer)


def _show(value: object) -> object:
    if isinstance(value, float):
        return "" if not np.isfinite(value) else f"{value:.2f}"
    return "" if value is None else value


def _tracks(table: pd.DataFrame, against: pd.Series, folder: Path) -> Section:
    """Charts of the movies whose numbers were kept, pictures of the others."""
    blocks: list[Block] = []
    pictures = []
    for row, why in zip(table.to_dict("records"), against, strict=True):
        numbers = folder / str(row.get("curves", ""))
        if not numbers.is_file():
            pictures.append(_picture(row, folder, why))
            continue
        name = Path(str(row["movie"])).name
        blocks.append(charts_block(ShownMotion.from_record(read_json(numbers)).charts(name)))
        warned = f'<span class="warned">{html.escape(why)}</span>. ' if why else ""
        picture = html.escape(quote(str(row["picture"])))
        words = f'{warned}<a href="{picture}">As a picture: {html.escape(name)}</a>'
        blocks.append(Fragment(f'<p class="caption">{words}</p>'))
    text = (
        "Those to look at first. Left: how the whole frames moved. Right: what places of the frame moved beyond that. "
        "y runs down, as in the micrograph."
    )
    return Section("Tracks", text, [*blocks, *([Gallery(pictures, 26.0)] if pictures else [])])


def _picture(row: Mapping[Any, Any], folder: Path, why: str) -> Picture:
    name = Path(str(row["movie"])).name
    return Picture((folder / str(row["picture"])).read_bytes(), f"motion of {name}", why or name, str(row["picture"]))
