"""What a notebook shows of an object: its one line, and a picture that says more."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from verglas.assessment import FSC, Postprocessed
from verglas.report import curves, figures
from verglas.report.grey import bin_to, grey_bytes, grey_png
from verglas.report.notebook import gallery
from verglas.report.style import png
from verglas.types import Map, Micrograph, Movie, Particles, Poses

_SHOWN = 12
_MOST_FRAMES = 8  # of a movie: all of an EER movie would take a minute to be read
_SHOWN_PX = 512


def card(thing: Any, pictures: Sequence[bytes] | None = None) -> str:
    """HTML of an object: the line that ``repr`` gives, and its pictures, or those given.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.report.cards import card
    >>> shown = card(vg.Map(np.eye(8)[None].repeat(8, 0), 2.0))
    >>> "Map(8 x 8 x 8, 2 A per voxel, 0 to 1)" in shown, shown.count("data:image/png")
    (True, 1)
    """
    shown = "".join(
        f'<img style="max-width:100%" src="data:image/png;base64,{base64.b64encode(one).decode()}">'
        for one in (pictures_of(thing) if pictures is None else pictures)
    )
    return f"<div><code>{html.escape(repr(thing))}</code><br>{shown}</div>"


@singledispatch
def pictures_of(thing: Any) -> list[bytes]:
    """PNG pictures of an object; none of one that has nothing to show."""
    return []


@pictures_of.register
def _(thing: Map) -> list[bytes]:
    if not thing.data.size:
        return []
    return [png(gallery(figures.central_slices(thing.data), ["z = 0", "y = 0", "x = 0"]))]


@pictures_of.register
def _(thing: Poses) -> list[bytes]:
    return [figures.angular_distribution(thing.angles_deg)] if len(thing) else []


@pictures_of.register
def _(thing: Particles) -> list[bytes]:
    if thing.source is None or not len(thing):
        return []
    rows = np.unique(np.linspace(0, len(thing) - 1, _SHOWN).round().astype(int))
    return [figures.particles(thing.images(rows), thing.pixel_size_A)]


@pictures_of.register
def _(thing: FSC) -> list[bytes]:
    return [curves.fsc({"FSC": thing}, legend_at=0.143)]


@pictures_of.register
def _(thing: Postprocessed) -> list[bytes]:
    return [curves.fsc(thing.curves)]


@pictures_of.register
def _(thing: Micrograph) -> list[bytes]:
    return [grey_png(grey_bytes(bin_to(thing.data, _SHOWN_PX)[0]))]


@pictures_of.register
def _(thing: Movie) -> list[bytes]:
    """Mean of a few frames from the first to the last, as they were recorded, without correction for motion."""
    rows = np.unique(np.linspace(0, len(thing) - 1, _MOST_FRAMES).round().astype(int))
    total = np.zeros(thing.shape, np.float32)
    for row in rows.tolist():
        total += thing.frame(row)
    return [grey_png(grey_bytes(bin_to(total, _SHOWN_PX)[0]))]
