"""Figures of how a refinement went: numbers, maps and FSC per iteration, class populations, time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verglas.image import fourier_resample
from verglas.report.curves import resolution_ticks
from verglas.report.figures import _range, _scale_bar
from verglas.report.run_folder import RunFolder, Snapshot
from verglas.report.style import COLOURS, DPI, FAINT, new_figure, png, style_context, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLANES = ("z", "y", "x")
_MOST_COLUMNS = 8
_TILE_PX, _GAP_PX = 118, 4


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
        return png(figure)


def fsc_by_iteration(snapshots: Sequence[Snapshot]) -> bytes:
    """Unmasked FSC between half maps, one panel per class, from the first iteration (light) to the last (dark)."""
    import matplotlib

    n_classes = max(s.fsc.shape[0] for s in snapshots)
    columns = min(n_classes, 3)
    rows = -(-n_classes // columns)
    colours = matplotlib.colormaps["viridis_r"]
    top = max(float(s.frequency_per_A[-1]) for s in snapshots)
    with style_context():
        figure = new_figure(6.6 if columns == 1 else 3.2 * columns, (3.6 if columns == 1 else 2.7) * rows)
        grid: Any = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for number, axes in enumerate(np.ravel(grid)):
            if number >= n_classes:
                axes.set_axis_off()
                continue
            _fsc_panel(axes, snapshots, number, colours, top)
            if n_classes > 1:
                axes.set_title(f"class {number + 1}")
        for axes in grid[:, 0]:
            axes.set_ylabel("FSC, half maps, unmasked")
        numbers = [s.iteration for s in snapshots]
        shade = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(min(numbers), max(numbers) + 1e-3), colours)
        if len(numbers) > 1:
            bar = figure.colorbar(shade, ax=grid, shrink=0.7, pad=0.03)
            bar.set_label("iteration", fontsize=9)
            whole_numbers(bar.ax.yaxis)
        return png(figure)


def _fsc_panel(axes: Axes, snapshots: Sequence[Snapshot], number: int, colours: Any, top: float) -> None:
    for threshold in (0.5, 0.143):
        axes.axhline(threshold, color=FAINT, lw=0.9, ls=(0, (4, 3)), zorder=0)
        axes.text(top * 1.01, threshold, f"{threshold:g}", ha="left", va="center", fontsize=8, color=FAINT)
    axes.axhline(0, color=FAINT, lw=0.6, zorder=0)
    first, last = snapshots[0].iteration, snapshots[-1].iteration
    for snapshot in snapshots:
        if number < snapshot.fsc.shape[0]:
            shade = colours(0.1 + 0.9 * (snapshot.iteration - first) / max(last - first, 1))
            width = 2.0 if snapshot.iteration == last else 1.1
            axes.plot(snapshot.frequency_per_A, snapshot.fsc[number], color=shade, lw=width)
    axes.set_ylim(-0.1, 1.03)
    resolution_ticks(axes, top)


_Lines = Sequence[tuple[str, str]]  # column of iterations.csv, words of the legend
_PANELS: tuple[tuple[str, _Lines, bool], ...] = (
    (
        "resolution (Å)",
        (
            ("resolution_A", "half maps, 0.143"),
            ("search_resolution_A", "used in the search"),
            ("insert_resolution_A", "inserted"),
        ),
        False,
    ),
    ("mean log-likelihood", (("log_likelihood", ""),), False),
    ("mean of the largest posterior", (("max_probability", ""),), False),
    (
        "degrees",
        (("step_deg", "sampling"), ("angle_change_deg", "change (median)"), ("accuracy_deg", "accuracy (Cramer-Rao)")),
        True,
    ),
    (
        "shift (Å)",
        (
            ("shift_step_A", "sampling"),
            ("shift_range_A", "range"),
            ("shift_change_A", "change (median)"),
            ("accuracy_shift_A", "accuracy (Cramer-Rao)"),
        ),
        True,
    ),
    ("poses that carry weight", (("effective_poses", "mean exp(entropy)"),), True),
)


def numbers_by_iteration(run: RunFolder) -> bytes:
    """Resolution, log-likelihood, posterior sharpness, sampling against change and accuracy, per iteration.

    Phases (global, local, continuous) are shaded in turn.
    """
    x = run.column("iteration")
    with style_context():
        figure = new_figure(9.2, 5.6)
        for axes, (title, lines, log) in zip(np.ravel(figure.subplots(2, 3, sharex=True)), _PANELS, strict=True):
            _shade_phases(axes, run)
            drawn = 0
            for column, words in lines:
                y = run.column(column)
                if log:
                    y = np.where(y > 0, y, np.nan)
                if np.isfinite(y).any():
                    axes.plot(x, y, marker="o", ms=3, lw=1.5, color=COLOURS[drawn % len(COLOURS)], label=words)
                    drawn += 1
            if log and drawn:
                _log_axis(axes)
            axes.set_title(title, fontsize=10)
            whole_numbers(axes.xaxis)
            if drawn > 1 or (drawn and lines[0][1]):
                axes.legend(fontsize=7, loc="best")
        figure.supxlabel("iteration", fontsize=10)
        return png(figure)


def _log_axis(axes: Axes) -> None:
    """Logarithmic, with plain numbers at 1, 2, 5 of each decade, so that also a short range has ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _shade_phases(axes: Axes, run: RunFolder) -> None:
    if "phase" not in run.iterations.columns or not len(run.iterations):
        return
    x, phases = run.column("iteration"), [str(v) for v in run.iterations["phase"]]
    start = 0
    for i in range(1, len(phases) + 1):
        if i < len(phases) and phases[i] == phases[start]:
            continue
        left, right = x[start] - 0.5, x[i - 1] + 0.5
        order = list(dict.fromkeys(phases)).index(phases[start])
        if order % 2:
            axes.axvspan(left, right, color="#eef2f6", zorder=-5, lw=0)
        axes.text(
            (left + right) / 2,
            1.0,
            phases[start],
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=6.5,
            color=FAINT,
        )
        start = i
    axes.set_xlim(x[0] - 0.5, x[-1] + 0.5)


_SECONDS = (
    ("seconds_expectation", "expectation"),
    ("seconds_maximisation", "maximisation"),
    ("seconds_reconstruction", "reconstruction"),
)


def seconds_by_iteration(run: RunFolder) -> bytes:
    """Wall time per iteration, stacked by step, and peak memory."""
    x = run.column("iteration")
    with style_context():
        figure = new_figure(9.2, 2.6)
        left, right = figure.subplots(1, 2)
        bottom = np.zeros(len(x))
        for number, (column, words) in enumerate(_SECONDS):
            height = np.nan_to_num(run.column(column))
            left.bar(x, height, bottom=bottom, color=COLOURS[number], width=0.75, label=words)
            bottom += height
        rest = np.clip(np.nan_to_num(run.column("seconds")) - bottom, 0, None)
        left.bar(x, rest, bottom=bottom, color=FAINT, width=0.75, label="rest")
        left.set_title("seconds", fontsize=10)
        left.set_ylim(0, 1.3 * max(float((bottom + rest).max(initial=0)), 1e-9))  # room for the legend
        left.legend(fontsize=7, ncols=4, loc="upper left", columnspacing=1.0, handlelength=1.2)
        memory = run.column("peak_memory_GB")
        right.plot(x, memory, marker="o", ms=3, lw=1.5, color=COLOURS[0])
        right.set_ylim(0, 1.15 * float(np.nanmax(memory)) if np.isfinite(memory).any() else 1)
        right.set_title("peak memory (GB)", fontsize=10)
        for axes in (left, right):
            axes.set_xlabel("iteration")
            whole_numbers(axes.xaxis)
        return png(figure)


def populations(shares: npt.NDArray[np.float64], iterations: npt.ArrayLike) -> bytes:
    """Share of the particles in each class, stacked, per iteration.

    Parameters
    ----------
    shares : (n_iterations, n_classes) float
        Each row sums to 1.
    iterations : (n_iterations,) int
        Their numbers.
    """
    import matplotlib

    x, n = np.asarray(iterations, np.float64), shares.shape[1]
    many = matplotlib.colormaps["viridis"](np.linspace(0, 1, n))
    with style_context():
        figure = new_figure(6.6, 2.8)
        axes = figure.subplots()
        bottom = np.zeros(len(x))
        for k in range(n):
            height = np.nan_to_num(shares[:, k])
            colour = COLOURS[k] if n <= len(COLOURS) else many[k]
            axes.bar(x, height, bottom=bottom, width=0.86, color=colour, label=f"class {k + 1}")
            if n <= len(COLOURS) and height[-1] > 0.06:
                axes.text(
                    x[-1],
                    bottom[-1] + height[-1] / 2,
                    f"{100 * height[-1]:.0f} %",
                    ha="center",
                    va="center",
                    color="white",
                    fontsize=7,
                )
            bottom += height
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of the particles")
        axes.set_xlabel("iteration")
        whole_numbers(axes.xaxis)
        if n <= 12:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        return png(figure)
