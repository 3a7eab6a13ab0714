"""The chart of viewing directions: the sphere laid flat with its areas kept, coloured by how often it is seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.report.chart import Chart, Field, Line, chart_block
from verglas.report.figures import view_density
from verglas.report.html import Fragment

_ROWS, _COLUMNS = 36, 72
VIEWS_WORDS = "Areas are those on the sphere; smoothed over 7 degrees; views relative to an even distribution."


def view_chart(angles_deg: npt.ArrayLike, symmetry: str = "C1", title: str = "Viewing directions") -> Chart:
    """Viewing directions over rot and the cosine of tilt, relative to a uniform distribution.

    Parameters
    ----------
    angles_deg : (n, 3) or (n, 2)
        (rot, tilt, psi): the direction has longitude rot and latitude 90 - tilt.
    symmetry : str
        Point group: every view is shown with its copies.
    title : str

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.report.view_chart import view_chart
    >>> chart = view_chart(vg.geometry.random_orientations(5000, seed=0))
    >>> bool(0.5 < chart.field.values.min() < 1 < chart.field.values.max() < 1.6)
    True
    """
    rot = (np.arange(_COLUMNS) + 0.5) / _COLUMNS * 2 * np.pi - np.pi
    cosine = (np.arange(_ROWS) + 0.5) / _ROWS * 2 - 1
    density = view_density(angles_deg, rot, np.arcsin(cosine), symmetry=symmetry)
    ticks = [Line(float(at), f"{at}°") for at in range(-180, 181, 60)]
    field = Field(density, (-180.0, 180.0), (-1.0, 1.0))
    words = "views, relative to uniform"
    return Chart(
        title, "rot (degrees)", "tilt (degrees)", [], field=field, scale_label=words, x_ticks=ticks, cosine=True
    )


def views_block(angles_deg: npt.ArrayLike, symmetry: str = "C1", caption: str = VIEWS_WORDS) -> Fragment:
    """The chart as a block of a page."""
    return chart_block(view_chart(angles_deg, symmetry), caption)
