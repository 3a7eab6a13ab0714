"""How a refinement went: numbers, maps and FSC per iteration, class populations, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.image import fourier_resample
from verglas.report.chart import Band, Chart, Line, Series, column_numbers
from verglas.report.figures import _range, _scale_bar
from verglas.report.run_folder import Snapshot
from verglas.report.style import DPI, jpeg, new_figure, style_context

_PLANES = ("z", "y", "x")
_MOST_COLUMNS = 8
_TILE_PX, _GAP_PX = 118, 4


def reslog(numbers: Sequence[int], resolutions_A: Sequence[float | None], line: Mapping[str, float] | None) -> Chart:
    """1/d^2 against ln N with the line through it, if there is one, labelled with numbers and resolutions.

    Examples
    --------
    >>> from verglas.report.course import reslog
    >>> chart = reslog([500, 1000], [5.0, None], {"slope": 0.01, "intercept": -0.02})
    >>> [one.name for one in chart.series], [one.text for one in chart.x_ticks]
    (['parts of the particles', 'line'], ['500', '1,000'])
    """
    x = np.log(np.asarray(numbers, np.float64))
    y = np.array([np.nan if d is None else d**-2 for d in resolutions_A])
    series = [Series("parts of the particles", x, y, "points")]
    if line is not None:
        series.append(Series("line", x, line["slope"] * x + line["intercept"]))
    lines = [Line(d**-2, f"{d:.2f} Å") for d in resolutions_A if d is not None]
    ticks = [Line(float(at), f"{n:,}") for at, n in zip(x, numbers, strict=True)]
    return Chart("ResLog", "particles", "1/d² (1/Å²)", series, lines, x_ticks=ticks)


def chosen_iterations(iterations: Sequence[int], most: int = _MOST_COLUMNS) -> list[int]:
    """The first, the last and evenly spread ones between.

    Examples
    --------
    >>> from verglas.report.course import chosen_iterations
    >>> chosen_iterations(range(1, 12), 4), chosen_iterations([3, 4])
    ([1, 4, 8, 11], [3, 4])
    """
    ordered = sorted(iterations)
    if len(ordered) <= most:
        return ordered
    return [ordered[i] for i in np.rint(np.linspace(0, len(ordered) - 1, most)).astype(int)]


def slices_by_iteration(snapshots: Sequence[Snapshot], pixel_size_A: float, labels: Sequence[str] = ()) -> bytes:
    """Central slices of every map, a column per iteration; each map of each iteration on its own grey scale.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        In order; of more than four maps only the plane z is drawn.
    pixel_size_A : float
        For the scale bar.
    labels : sequence of str
        A second line of each column's title.
    """
    last = snapshots[-1]
    planes = 3 if len(last.names) <= 4 else 1
    rows = [(name, plane) for name in last.names for plane in range(planes)]
    tile = _TILE_PX if len(snapshots) > 4 else round(1.35 * _TILE_PX)
    step = tile + _GAP_PX
    # One picture of all tiles: dozens of axes would take seconds to lay out.
    canvas = np.ones((step * len(rows) - _GAP_PX, step * len(snapshots) - _GAP_PX), np.float32)
    for column, snapshot in enumerate(snapshots):
        for name in snapshot.names:
            images = snapshot.slices[snapshot.names.index(name)]
            low, high = _range(images)
            shown = np.clip((fourier_resample(images, (tile, tile)) - low) / (high - low), 0, 1)
            for row, plane in ((r, p) for r, (n, p) in enumerate(rows) if n == name):
                canvas[row * step : row * step + tile, column * step : column * step + tile] = shown[plane]
    left, top = 30, 46
    height, width = canvas.shape
    with style_context():
        figure = new_figure((width + left) / DPI, (height + top) / DPI)
        # Placed to the pixel: a layout engine would scale the tiles, and neighbouring pixels would blur.
        figure.set_layout_engine("none")
        axes = figure.add_axes((left / (width + left), 0, width / (width + left), height / (height + top)))
        axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        for column, snapshot in enumerate(snapshots):
            title = "\n".join([f"iteration {snapshot.iteration}", *labels[column : column + 1]])
            axes.text(column * step + tile / 2, -5, title, ha="center", va="bottom", fontsize=7.5)
        for row, (name, plane) in enumerate(rows):
            text = f"{name}, {_PLANES[plane]} = 0"
            axes.text(-5, row * step + tile / 2, text, rotation=90, ha="right", va="center", fontsize=7)
        _scale_bar(axes, tile, pixel_size_A * last.slices.shape[-1] / tile)
        return jpeg(figure, quality=85)


def fsc_by_iteration(snapshots: Sequence[Snapshot]) -> list[Chart]:
    """Unmasked FSC between half maps, a chart per class, a curve per iteration from the first (light) to the last."""
    n_classes = max(s.fsc.shape[0] for s in snapshots)
    top = max(float(s.frequency_per_A[-1]) for s in snapshots)
    marks = [Line(top, f"Nyquist {1 / top:.2f} Å")] if top > 0 else []
    charts = []
    for k in range(n_classes):
        series = [
            Series(f"iteration {s.iteration}", s.frequency_per_A, s.fsc[k], shades=np.full(1, float(s.iteration)))
            for s in snapshots
            if k < s.fsc.shape[0]
        ]
        title = "FSC of the half maps, unmasked" + (f", class {k + 1}" if n_classes > 1 else "")
        lines = [Line(0.5, "0.5"), Line(0.143, "0.143")]
        charts.append(
            Chart(title, "resolution (Å)", "FSC", series, lines, marks, inverse=True, scale_label="iteration")
        )
    return charts


_Columns = dict[str, str]  # of iterations.csv -> words
_PANELS: tuple[tuple[str, str, _Columns, bool], ...] = (
    (
        "Resolution by iteration",
        "resolution (Å)",
        {
            "resolution_A": "half maps, 0.143",
            "resolution_unmasked_A": "unmasked",
            "search_resolution_A": "used in the search",
            "insert_resolution_A": "inserted",
        },
        False,
    ),
    ("Log-likelihood by iteration", "mean per particle", {"log_likelihood": "log-likelihood"}, False),
    ("Certainty by iteration", "largest posterior", {"max_probability": "mean of the largest posterior"}, False),
    (
        "Angles by iteration",
        "degrees",
        {"step_deg": "sampling", "angle_change_deg": "change (median)", "accuracy_deg": "accuracy (Cramer-Rao)"},
        True,
    ),
    (
        "Shifts by iteration",
        "Å",
        {
            "shift_step_A": "sampling",
            "shift_range_A": "range",
            "shift_change_A": "change (median)",
            "accuracy_shift_A": "accuracy (Cramer-Rao)",
        },
        True,
    ),
    ("Poses that carry weight", "mean exp(entropy)", {"effective_poses": "poses"}, True),
    ("Evidence by iteration", "standard deviations", {"evidence": "on unseen data"}, False),
)
_SECONDS = {
    "seconds_expectation": "expectation",
    "seconds_maximisation": "maximisation",
    "seconds_reconstruction": "reconstruction",
}


def iteration_charts(table: pd.DataFrame) -> list[Chart]:
    """Charts of what a table by iteration holds, its phases shaded; of columns without a number there is none.

    Parameters
    ----------
    table : DataFrame
        iteration, and any of the columns of ``iterations.csv``.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.report.course import iteration_charts
    >>> charts = iteration_charts(pd.DataFrame({"iteration": [1, 2], "resolution_A": [20.0, 12.0]}))
    >>> [(one.title, one.series[0].y.tolist()) for one in charts]
    [('Resolution by iteration', [20.0, 12.0])]
    """
    x, bands = column_numbers(table["iteration"]), _phases(table)
    charts = []
    for title, label, columns, log in _PANELS:
        series = [Series(words, x, column_numbers(table[name])) for name, words in columns.items() if name in table]
        if log:
            series = [Series(one.name, x, np.where(one.y > 0, one.y, np.nan)) for one in series]
        series = [one for one in series if np.isfinite(one.y).any()]
        if series:
            charts.append(Chart(title, "iteration", label, series, bands=bands, log=log))
    return charts


def _phases(table: pd.DataFrame) -> list[Band]:
    """Runs of iterations of one phase; none where there is one phase only."""
    if "phase" not in table or not len(table):
        return []
    x, names = column_numbers(table["iteration"]), table["phase"].fillna("").astype(str).tolist()
    starts = [i for i in range(len(names)) if i == 0 or names[i] != names[i - 1]]
    ends = [*starts[1:], len(names)]
    bands = [Band(float(x[i]) - 0.5, float(x[j - 1]) + 0.5, names[i]) for i, j in zip(starts, ends, strict=True)]
    return bands if len(bands) > 1 else []


def time_charts(table: pd.DataFrame) -> list[Chart]:
    """Seconds per iteration by step, and peak memory, where the table has them.

    Examples
    --------
    >>> import pandas as pd
    >>> from verglas.report.course import time_charts
    >>> table = pd.DataFrame({"iteration": [1, 2], "seconds": [3.0, 4.0], "seconds_expectation": [2.0, 2.5]})
    >>> [(one.name, one.y.tolist()) for one in time_charts(table)[0].series]
    [('expectation', [2.0, 2.5]), ('rest', [1.0, 1.5])]
    """
    x, charts = column_numbers(table["iteration"]), []
    if "seconds" in table:
        parts = {words: np.nan_to_num(column_numbers(table[name])) for name, words in _SECONDS.items() if name in table}
        whole = np.nan_to_num(column_numbers(table["seconds"]))
        parts["rest" if parts else "all"] = np.clip(whole - sum(parts.values(), np.zeros(len(x))), 0, None)
        series = [Series(words, x, seconds, "bars") for words, seconds in parts.items() if seconds.any()]
        if series:
            charts.append(Chart("Time by iteration", "iteration", "seconds", series, zero=True, bar_width=0.8))
    if "peak_memory_GB" in table:
        memory = column_numbers(table["peak_memory_GB"])
        if np.isfinite(memory).any():
            series = [Series("peak memory", x, memory)]
            charts.append(Chart("Peak memory by iteration", "iteration", "GB", series, zero=True))
    return charts


def populations(shares: npt.NDArray[np.float64], iterations: npt.ArrayLike) -> Chart:
    """Share of the particles in each class, stacked, per iteration.

    Parameters
    ----------
    shares : (n_iterations, n_classes) float
        Each row sums to 1.
    iterations : (n_iterations,) int
        Their numbers.
    """
    x = np.asarray(iterations, np.float64)
    series = [Series(f"class {k + 1}", x, 100 * np.nan_to_num(shares[:, k]), "bars") for k in range(shares.shape[1])]
    label = "share of the particles (%)"
    return Chart("Classes by iteration", "iteration", label, series, zero=True, bar_width=0.86)
