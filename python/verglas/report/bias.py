"""The figure and the page of a model-bias check."""

from __future__ import annotations

import numpy as np

from verglas.classification import BiasReport
from verglas.report import figures, style
from verglas.report.chart import Band, Chart, Line, Series, chart_block
from verglas.report.grey import grey_bytes, grey_png
from verglas.report.html import Gallery, Page, Picture, Section, render

_SHOWN_PX = 192  # side of an average on the page


def figure(report: BiasReport) -> bytes:
    """Agreement with the reference per ring, of data and of noise, and an average of each, as PNG bytes."""
    top = _clearest(report)
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


def _clearest(report: BiasReport) -> int:
    """The reference whose average of aligned data varies most."""
    return int(np.argmax(np.abs(report.averages).std(axis=(1, 2))))


def agreement_chart(report: BiasReport) -> Chart:
    """Agreement with the reference per ring, of data and of noise; the part that the alignment used is named."""
    used, end = 1 / report.alignment_resolution_A, float(report.frequency_per_A[-1])
    series = [
        Series(name, report.frequency_per_A, values)
        for name, values in (("data", report.data), ("noise of the same spectrum", report.noise))
    ]
    bands = [Band(0.0, used, "used by the alignment"), Band(used, end, "finer")] if used < end else []
    return Chart(
        "Agreement with the reference",
        "resolution (Å)",
        "agreement per particle",
        series,
        [Line(0.0, "none")],
        inverse=True,
        bands=bands,
        limits=(0.0, end, *_reach(report)),
    )


def _reach(report: BiasReport) -> tuple[float, float]:
    values = np.concatenate([report.data, report.noise])
    low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def page(report: BiasReport, footer: str = "") -> str:
    """The same as a page whose curves answer.

    Parameters
    ----------
    report : BiasReport
    footer : str
        Version and time.

    Returns
    -------
    str
        A complete document.
    """
    top = _clearest(report)
    times = max(1, _SHOWN_PX // report.averages.shape[-1])  # pixels of small boxes are shown as squares
    pictures = [
        Picture(
            grey_png(grey_bytes(image).repeat(times, axis=0).repeat(times, axis=1)),
            f"Average of aligned {name}",
            f"Average of aligned {name}.",
        )
        for name, image in (("data", report.averages[top]), ("noise", report.noise_averages[top]))
    ]
    text = (
        "Where the two curves lie together, aligning noise gives what aligning the data gave. Beyond the resolution "
        "that the alignment used, noise agrees with no reference: what rises there was seen in the data."
    )
    numbers = {
        "share that noise reproduces": f"{100 * report.share:.0f} %",
        "agreement finer than the alignment": f"{report.unseen_sigma:.1f} standard errors",
        "alignment used data to": f"{report.alignment_resolution_A:.1f} Å",
    }
    sections = [
        Section("Agreement with the reference", text, [chart_block(agreement_chart(report))]),
        Section(
            "Averages",
            "Data and noise were aligned to the same reference.",
            [Gallery(pictures, 12.0)],
        ),
    ]
    return render(Page("verglas check-bias", report.verdict, numbers, sections, footer))
