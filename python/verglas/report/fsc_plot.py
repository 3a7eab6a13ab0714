"""The figure of Fourier shell correlation curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from verglas.assessment.fsc import FSC
from verglas.errors import InputError


def plot_fsc(curves: Mapping[str, FSC], path: Path, *, thresholds: tuple[float, ...] = (0.143,)) -> None:
    """Draw FSC curves over the frequency, the resolution written on the upper axis, into a PNG, SVG or PDF file.

    Parameters
    ----------
    curves : mapping of name -> FSC
        Drawn in this order; the legend gives each curve's resolution at the first threshold.
    path : Path
        File to write; its suffix chooses the format.
    thresholds : tuple of float
        Horizontal lines.

    Raises
    ------
    InputError
        No curve, or a suffix that is no figure format.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile, verglas as vg
    >>> from verglas.report.fsc_plot import plot_fsc
    >>> x = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_fsc({"same": vg.fsc(x, x)}, pathlib.Path(folder, "fsc.png"))
    ...     pathlib.Path(folder, "fsc.png").stat().st_size > 1000
    True
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from verglas.io import atomic_path

    if not curves:
        raise InputError("plot_fsc: no curve to draw")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"cannot write {path}: expected the suffix .png, .svg or .pdf")
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        resolution = curve.resolution_A(thresholds[0]) if thresholds else np.inf
        label = f"{name}, {resolution:.2f} Å" if np.isfinite(resolution) else name
        axes.plot(curve.frequency_per_A, curve.curve, label=label, linewidth=1.5)
    for threshold in thresholds:
        axes.axhline(threshold, color="0.4", linewidth=0.8, linestyle="--")
        axes.annotate(f"{threshold:g}", (1.0, threshold), xycoords=("axes fraction", "data"), xytext=(3, 0),
                      textcoords="offset points", va="center", fontsize=8, color="0.3")  # fmt: skip
    axes.axhline(0.0, color="0.7", linewidth=0.8)
    last = max(float(curve.frequency_per_A[-1]) for curve in curves.values())
    axes.set(xlim=(0, last), ylim=(min(-0.1, *(float(c.curve.min()) for c in curves.values())), 1.03),
             xlabel="spatial frequency, 1/Å", ylabel="Fourier shell correlation")  # fmt: skip
    upper = axes.secondary_xaxis("top")
    ticks = np.linspace(0, last, 7)[1:]
    upper.set_xticks(ticks, [f"{1 / t:.3g}" for t in ticks])
    upper.set_xlabel("resolution, Å")
    axes.legend(loc="best", fontsize=8, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
