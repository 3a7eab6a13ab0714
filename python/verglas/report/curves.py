"""Figures of curves: Fourier shell correlation, Guinier plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from verglas.assessment.fsc import FSC, threshold_name
from verglas.assessment.guinier import Guinier
from verglas.errors import InputError
from verglas.report.chart import Chart, Line, Series
from verglas.report.style import COLOURS, FAINT, INK, figure_format, new_figure, png, style_context, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Thresholds = Sequence[float | str]


def resolution_ticks(axes: Axes, top: float) -> None:
    """Label a frequency axis, in 1/angstrom from 0 to ``top``, with resolutions."""
    axes.set_xlim(0, top)
    ticks = [t for t in axes.get_xticks() if 0 <= t <= top * 1.001]
    axes.set_xticks(ticks, [f"{1 / t:.1f}" if t > 0 else "∞" for t in ticks])
    axes.set_xlabel("resolution (Å)")


def draw_fsc(axes: Axes, curves: Mapping[str, FSC], thresholds: Thresholds, *, legend_at: float | None = None) -> None:
    """Curves against frequency, with the resolution written along the axis.

    Parameters
    ----------
    axes : Axes
        To draw on.
    curves : mapping of title -> FSC
        Drawn in order; the first gives the number of voxels for thresholds that depend on it.
    thresholds : sequence of float or str
        Dashed lines, and dotted curves for names such as 'half-bit'.
    legend_at : float, optional
        The legend says each curve's resolution at this threshold.
    """
    top = max(float(c.frequency_per_A[-1]) for c in curves.values())
    first = next(iter(curves.values()))
    axes.axhline(0, color=FAINT, lw=0.6, zorder=0)
    for number, (title, c) in enumerate(curves.items()):
        resolution = float("inf") if legend_at is None else c.resolution_A(legend_at)
        label = f"{title}, {resolution:.2f} Å" if np.isfinite(resolution) else title
        axes.plot(c.frequency_per_A, c.curve, color=COLOURS[number % len(COLOURS)], lw=1.8, label=label)
    dashes = cycle((":", "-."))
    for threshold in thresholds:
        if isinstance(threshold, str):
            level = first.threshold(threshold)
            axes.plot(first.frequency_per_A[1:], level[1:], color=INK, lw=0.9, ls=next(dashes), label=threshold)
            continue
        axes.axhline(threshold, color=FAINT, lw=0.9, ls=(0, (4, 3)), zorder=0)
        axes.text(top * 1.01, threshold, threshold_name(threshold), ha="left", va="center", fontsize=8, color=FAINT)
    low = min(float(c.curve.min()) for c in curves.values())
    axes.set_ylim(min(-0.05, max(low - 0.03, -1.0)), 1.03)
    resolution_ticks(axes, top)
    axes.set_ylabel("Fourier shell correlation")
    # Curves that fall leave the upper right free, curves that stay high the lower left, above both lines.
    if max(float(np.mean(c.curve[len(c.curve) // 2 :])) for c in curves.values()) < 0.55:
        axes.legend(loc="upper right", fontsize=9)
    else:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.19), fontsize=9)


def _fsc_figure(curves: Mapping[str, FSC], thresholds: Thresholds, legend_at: float | None) -> Figure:
    if not curves:
        raise InputError("fsc figure: expected at least one curve")
    figure = new_figure(6.6, 3.7)
    draw_fsc(figure.subplots(), curves, thresholds, legend_at=legend_at)
    return figure


def fsc(curves: Mapping[str, FSC], thresholds: Thresholds = (0.5, 0.143), *, legend_at: float | None = None) -> bytes:
    """Fourier shell correlations against resolution, with thresholds.

    Parameters
    ----------
    curves : mapping of title -> FSC
        Drawn in order.
    thresholds : sequence of float or str
        Dashed lines, or names of threshold curves.
    legend_at : float, optional
        The legend says each curve's resolution at this threshold.

    Raises
    ------
    InputError
        No curves.
    """
    with style_context():
        return png(_fsc_figure(curves, thresholds, legend_at))


def write_fsc(curves: Mapping[str, FSC], path: Path, thresholds: Thresholds = (0.5, 0.143)) -> None:
    """The figure of :func:`fsc` as a PNG, SVG or PDF file; the legend says resolutions at the last fixed threshold.

    Parameters
    ----------
    curves : mapping of title -> FSC
        Drawn in order.
    path : Path
        File to write; its suffix chooses the format.
    thresholds : sequence of float or str
        As in :func:`fsc`.

    Raises
    ------
    InputError
        No curve, or a suffix that is no figure format.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile, verglas as vg
    >>> from verglas.report.curves import write_fsc
    >>> x = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_fsc({"same": vg.fsc(x, x)}, pathlib.Path(folder, "fsc.png"))
    ...     pathlib.Path(folder, "fsc.png").stat().st_size > 1000
    True
    """
    figure_format(path)  # refused before anything is drawn
    fixed = [t for t in thresholds if not isinstance(t, str)]
    with style_context():
        write_figure(_fsc_figure(curves, thresholds, fixed[-1] if fixed else None), path)


def guinier_chart(plots: Mapping[str, Guinier]) -> Chart:
    """Guinier plots: ln amplitude against s^2, what both half maps share of it, and the fitted lines.

    Parameters
    ----------
    plots : mapping of title -> Guinier
        One, or one per class; the title of a single one is not shown.

    Raises
    ------
    InputError
        No plot.
    """
    if not plots:
        raise InputError("guinier figure: expected at least one plot")
    series, top = [], max(float(p.s2_per_A2[-1]) for p in plots.values())
    for title, plot in plots.items():
        prefix, s2 = f"{title}: " if len(plots) > 1 else "", plot.s2_per_A2
        shared = np.isfinite(plot.ln_weighted)
        shared[0] = False
        series.append(Series(f"{prefix}masked map", s2[1:], plot.ln_amplitude[1:]))
        series.append(Series(f"{prefix}weighted by the FSC", s2[shared], plot.ln_weighted[shared], "points"))
        if plot.b_factor_A2 is not None:
            series.append(Series(f"{prefix}B = {plot.b_factor_A2:.0f} Å²", s2, plot.fit))
    marks = [Line(1 / d**2, f"{d:g} Å") for d in (10, 6, 5, 4, 3, 2.5, 2, 1.5) if 0.02 * top < 1 / d**2 <= top]
    return Chart("Guinier plot", "1 / d² (1/Å²)", "ln amplitude", series, marks=marks)
