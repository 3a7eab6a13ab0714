"""Pictures of tilt pairs: the fit of positions, and the polar plot of turns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from verglas.report.chart import Chart, Series
from verglas.report.style import COLOURS, FAINT, INK, figure_format, new_figure, style_context, write_figure
from verglas.tilting import TiltPairPlot, TiltPairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pair_charts(pairs: TiltPairs) -> list[Chart]:
    """Where the pairs of one field lie in both images, coloured by their number, and the axis.

    Parameters
    ----------
    pairs : TiltPairs
    """
    table, g = pairs.pairs, pairs.geometry
    number = np.arange(1, len(table) + 1, dtype=np.float64)
    notes = [f"pair {k}" for k in range(1, len(table) + 1)]
    charts = []
    for name, angle in (("untilted", g.axis_untilted_deg), ("tilted", g.axis_tilted_deg)):
        x, y = (table[f"{axis}_{name}_px"].to_numpy(np.float64) for axis in "xy")
        half = 0.5 * float(np.ptp(y) or np.ptp(x))
        along = half * np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
        ends = np.array([x.mean(), y.mean()]) + np.array([[-1.0], [1.0]]) * along
        series = [
            Series("particles", x, y, "points", shades=number, notes=notes),
            Series(f"axis, {angle:.1f} degrees from y", *ends.T),
        ]
        title = f"{name}: {getattr(pairs, name)}"
        charts.append(
            Chart(title, "x (pixels)", "y (pixels)", series, equal=True, down=True, scale_label="number of the pair")
        )
    return charts


def polar_chart(plot: TiltPairPlot, title: str = "Tilts between the pairs") -> Chart:
    """The polar plot of a tilt-pair validation: distance from the middle the tilt, angle its axis, a ring the stage's.

    Parameters
    ----------
    plot : TiltPairPlot
    title : str
    """
    series = []
    near = plot.distance_deg <= plot.tolerance_deg
    for chosen, name in ((near, "near"), (~near, "far")):
        tilt, axis = plot.tilt_deg[chosen], plot.axis_deg[chosen]
        notes = [f"tilt {t:.1f} degrees about {a:.1f}" for t, a in zip(tilt, axis, strict=True)]
        place = tilt * np.exp(1j * np.radians(axis))
        series.append(Series(f"{name}: {len(tilt)}", place.real, place.imag, "points", notes=notes))
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 100))
    middle = plot.expected_tilt_deg * np.exp(1j * np.radians(plot.expected_axis_deg))
    rings = {f"within {plot.tolerance_deg:g} degrees of the stage's": middle + plot.tolerance_deg * circle}
    rings[f"tilt {plot.expected_tilt_deg:.0f} degrees"] = plot.expected_tilt_deg * circle
    series += [Series(name, ring.real, ring.imag) for name, ring in rings.items()]
    return Chart(title, "tilt along x (degrees)", "tilt along y (degrees)", series, equal=True)


def write_polar_plot(plot: TiltPairPlot, path: Path, title: str = "") -> None:
    """The polar plot as a PNG, SVG or PDF file.

    Parameters
    ----------
    plot : TiltPairPlot
    path : Path
        Its suffix chooses the format.
    title : str

    Raises
    ------
    InputError
        Another suffix.

    Examples
    --------
    >>> import pathlib, tempfile, verglas as vg
    >>> from verglas.report.tilt_pairs import write_polar_plot
    >>> from verglas.tilting import TiltGeometry, tilt_pair_plot
    >>> angles, stage = vg.geometry.random_orientations(20, seed=1), TiltGeometry(15.0, 0.0, 0.0)
    >>> plot = tilt_pair_plot(vg.Poses(angles), vg.Poses(stage.tilted_angles_deg(angles)), stage)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_polar_plot(plot, pathlib.Path(folder, "pairs.svg"))
    ...     "<svg" in pathlib.Path(folder, "pairs.svg").read_text(encoding="utf-8")
    True
    """
    figure_format(path)  # refused before anything is drawn
    with style_context():
        write_figure(_polar(plot, title), path)


def _polar(plot: TiltPairPlot, title: str) -> Figure:
    figure = new_figure(4.8, 4.8)
    ax: Any = figure.add_subplot(projection="polar")
    near = plot.distance_deg <= plot.tolerance_deg
    for chosen, colour, name in ((near, COLOURS[0], "near"), (~near, FAINT, "far")):
        angle = np.radians(plot.axis_deg[chosen])
        ax.scatter(angle, plot.tilt_deg[chosen], s=14, color=colour, linewidths=0, label=name)
    circle = np.linspace(0, 2 * np.pi, 100)
    ring = plot.expected_tilt_deg * np.exp(1j * np.radians(plot.expected_axis_deg))
    ring = ring + plot.tolerance_deg * np.exp(1j * circle)
    ax.plot(np.angle(ring), np.abs(ring), color=COLOURS[1], linewidth=1.4)
    # What lies far off is drawn at the rim's inside only where it fits: the region about the stage's tilt matters.
    ax.set_rmax(min(180.0, max(2.0 * plot.expected_tilt_deg, plot.expected_tilt_deg + 3 * plot.tolerance_deg)))
    ax.set_title(title or f"{100 * plot.within_share:.0f} % within {plot.tolerance_deg:g} degrees", color=INK)
    return figure
