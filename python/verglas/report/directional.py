"""The page of ``verglas directional``: curves of all cones, and the resolution over the half sphere."""

from __future__ import annotations

import numpy as np

from verglas.assessment.directional import DirectionalFSC
from verglas.report.chart import Chart, Line, Series, chart_block
from verglas.report.html import Block, Page, Section, Table, render
from verglas.types.verdict import Verdict


def _cone_curves(fsc: DirectionalFSC) -> Chart:
    """Range, quartiles and median of the conical FSC over the directions."""
    names = ("lowest direction", "lower quartile", "median", "upper quartile", "highest direction")
    quantiles = np.quantile(fsc.curves[:, 1:], (0, 0.25, 0.5, 0.75, 1), axis=0)
    series = [Series(name, fsc.frequency_per_A[1:], one) for name, one in zip(names, quantiles, strict=True)]
    return Chart("FSC within cones", "resolution (Å)", "FSC", series, [Line(0.143, "0.143")], inverse=True)


def half_sphere_chart(directional: DirectionalFSC) -> Chart:
    """Resolution by direction, the half sphere seen from z (equal areas)."""
    x, y, z = directional.directions.T
    scale = np.sqrt(1 / (1 + z))  # Lambert's projection of the half sphere onto a disc
    resolution = np.where(np.isfinite(directional.resolution_A), directional.resolution_A, np.nan)
    notes = [
        f"({a:.2f}, {b:.2f}, {c:.2f}): " + (f"{d:.2f} Å" if np.isfinite(d) else "no resolution")
        for a, b, c, d in zip(x, y, z, resolution, strict=True)
    ]
    series = [Series("directions", x * scale, y * scale, "points", shades=resolution, notes=notes)]
    return Chart(
        "Resolution by direction", "x, equal areas", "y, equal areas", series, equal=True, scale_label="resolution (Å)"
    )


def directional_page(directional: DirectionalFSC, verdict: Verdict, footer: str = "") -> str:
    """report.html as text.

    Parameters
    ----------
    directional : DirectionalFSC
    verdict : Verdict
    footer : str
        Version and time.
    """
    sentences = " ".join(finding.sentence for finding in verdict.findings)
    rows = []
    for name, (direction, resolution) in {"coarsest": directional.worst, "finest": directional.best}.items():
        told = f"{resolution:.2f}" if np.isfinite(resolution) else "none"
        rows.append((name, ", ".join(f"{v:.2f}" for v in direction), told))
    numbers = {
        "least over largest area (cFAR)": f"{directional.area_ratio:.2f}",
        "by chance": f"{directional.chance_ratio:.2f}",
        "sphericity": f"{directional.sphericity:.3f}",
    }
    missing = directional.missing
    if missing.found:
        axis = ", ".join(f"{v:.2f}" for v in missing.axis)
        numbers["without signal"] = f"within {missing.half_angle_deg:.0f}° of ({axis})"
    pictures: list[Block] = [chart_block(_cone_curves(directional))]
    if np.isfinite(directional.resolution_A).any():
        pictures.append(
            chart_block(half_sphere_chart(directional), "The half sphere seen from z; opposite directions are one.")
        )
    sections = [
        Section("Curves and directions", "fsc3d.mrc holds the FSC at every Fourier voxel.", pictures),
        Section("Extremes", blocks=[Table(("", "direction x, y, z", "resolution (Å)"), rows)]),
    ]
    return render(Page("verglas directional", sentences, numbers, sections, footer))
