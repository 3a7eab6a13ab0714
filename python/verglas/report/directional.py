"""The page of ``verglas directional``: curves of all cones, and the resolution over the half sphere."""

from __future__ import annotations

import numpy as np

from verglas.assessment.directional import DirectionalFSC
from verglas.report.html import Page, Picture, Section, Table, render
from verglas.report.style import COLOURS, FAINT, new_figure, png, style_context
from verglas.types.verdict import Verdict


def cone_curves(found: DirectionalFSC) -> bytes:
    """Range, quartiles and median of the conical FSC over the directions."""
    with style_context():
        figure = new_figure(6.5, 3.2)
        axis = figure.subplots()
        low, first, middle, third, high = np.quantile(found.curves[:, 1:], (0, 0.25, 0.5, 0.75, 1), axis=0)
        frequency = found.frequency_per_A[1:]
        axis.fill_between(frequency, low, high, color=COLOURS[0], alpha=0.15, lw=0, label="all directions")
        axis.fill_between(frequency, first, third, color=COLOURS[0], alpha=0.35, lw=0, label="half of them")
        axis.plot(frequency, middle, color=COLOURS[0], label="median")
        axis.axhline(0.143, color=FAINT, lw=0.8, ls="--")
        axis.set_xlabel("spatial frequency (1/Å)")
        axis.set_ylabel("FSC within cones")
        axis.set_ylim(-0.1, 1.02)
        axis.legend()
        return png(figure)


def half_sphere_map(found: DirectionalFSC) -> bytes:
    """Resolution by direction, the half sphere seen from z (equal areas)."""
    known = np.isfinite(found.resolution_A)
    with style_context():
        figure = new_figure(4.6, 3.8)
        axis = figure.subplots()
        x, y, z = found.directions.T
        scale = np.sqrt(1 / (1 + z))  # Lambert's projection of the half sphere onto a disc
        colour = np.where(known, found.resolution_A, np.nanmax(np.where(known, found.resolution_A, np.nan)))
        points = axis.scatter(x * scale, y * scale, c=colour, s=34, cmap="viridis_r")
        axis.set_aspect("equal")
        axis.set_axis_off()
        figure.colorbar(points, ax=axis, label="resolution (Å)", shrink=0.8)
        return png(figure)


def directional_page(found: DirectionalFSC, verdict: Verdict, footer: str = "") -> str:
    """report.html as text.

    Parameters
    ----------
    found : DirectionalFSC
    verdict : Verdict
    footer : str
        Version and time.
    """
    sentences = " ".join(finding.sentence for finding in verdict.findings)
    rows = []
    for name, (direction, resolution) in {"coarsest": found.worst, "finest": found.best}.items():
        told = f"{resolution:.2f}" if np.isfinite(resolution) else "none"
        rows.append((name, ", ".join(f"{v:.2f}" for v in direction), told))
    numbers = {
        "least over largest area (cFAR)": f"{found.area_ratio:.2f}",
        "by chance": f"{found.chance_ratio:.2f}",
        "sphericity": f"{found.sphericity:.3f}",
    }
    pictures = [Picture(cone_curves(found), "Conical FSC of all directions")]
    if np.isfinite(found.resolution_A).any():
        pictures.append(
            Picture(
                half_sphere_map(found),
                "Resolution in every direction",
                "The half sphere seen from z; opposite directions are one.",
            )
        )
    sections = [
        Section("Curves and directions", "fsc3d.mrc holds the FSC at every Fourier voxel.", pictures),
        Section("Extremes", blocks=[Table(("", "direction x, y, z", "resolution (Å)"), rows)]),
    ]
    return render(Page("verglas directional", sentences, numbers, sections, footer))
