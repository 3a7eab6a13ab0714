"""The figure of a model-bias check."""

from __future__ import annotations

import numpy as np

from verglas.classification import BiasReport
from verglas.report import figures, style


def figure(report: BiasReport) -> bytes:
    """Agreement with the reference per ring, of data and of noise, and an average of each, as PNG bytes."""
    top = int(np.argmax(np.abs(report.averages).std(axis=(1, 2))))
    with style.style_context():
        canvas = style.new_figure(9.2, 2.9)
        left, one, two = canvas.subplots(1, 3, width_ratios=(2.4, 1, 1))
        left.axvspan(0, 1 / report.alignment_resolution_A, color="#eef2f5", zorder=0)
        left.axhline(0, color=style.FAINT, lw=0.7)
        for values, name, colour in ((report.data, "data", 0), (report.noise, "noise of the same spectrum", 1)):
            left.plot(report.frequency_per_A, values, label=name, color=style.COLOURS[colour], lw=1.8)
        left.set(xlabel="frequency (1/Å); shaded: used by the alignment", ylabel="agreement with the reference")
        left.legend(fontsize=9)
        for axes, image, name in ((one, report.averages[top], "data"), (two, report.noise_averages[top], "noise")):
            figures._grey(axes, image, *figures._range(image))
            axes.set_title(f"average of aligned {name}", fontsize=9)
        return style.png(canvas)
