"""Pictures of tilt pairs: the fit of positions, and the polar plot of turns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from verglas.report.style import COLOURS, FAINT, INK, figure_format, new_figure, png, style_context, write_figure
from verglas.tilting import TiltPairPlot, TiltPairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pair_fit(pairs: TiltPairs) -> bytes:
    """Where the pairs of one field lie in both images, the axis, and how far each is from where the geometry puts it.

    Parameters
    ----------
    pairs : TiltPairs

    Returns
    -------
    bytes
        PNG.
    """
    table, g = pairs.pairs, pairs.geometry
    with style_context():
        figure = new_figure(8.4, 3.6)
        axes = figure.subplots(1, 2)
        sides = (("untilted", g.axis_untilted_deg), ("tilted", g.axis_tilted_deg))
        for ax, (name, angle) in zip(axes, sides, strict=True):
            x, y = table[f"x_{name}_px"].to_numpy(), table[f"y_{name}_px"].to_numpy()
            ax.scatter(x, y, s=14, c=np.arange(len(x)), cmap="viridis", linewidths=0)
            centre, half = np.array([np.mean(x), np.mean(y)]), 0.5 * float(np.ptp(y) or np.ptp(x))
            along = half * np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
            ends = np.stack([centre - along, centre + along])
            ax.plot(*ends.T, color=COLOURS[1], linewidth=1.2)
            ax.set_title(f"{name}, axis {angle:.1f} degrees from y")
            ax.set_aspect("equal")
            ax.invert_yaxis()  # rows as an image shows them
            ax.set_xlabel("x, pixels")
        axes[0].set_ylabel("y, pixels")
        return png(figure)


def polar_plot(plot: TiltPairPlot, title: str = "") -> bytes:
    """The polar plot of a tilt-pair validation as PNG: radius the tilt, angle its axis, a ring about the stage's.

    Parameters
    ----------
    plot : TiltPairPlot
    title : str

    Returns
    -------
    bytes
    """
    with style_context():
        return png(_polar(plot, title))


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
