"""What a notebook shows of an object: its one line, and a picture that says more."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from verglas.assessment import FSC, Postprocessed
from verglas.report import figures
from verglas.report.chart import Chart, charts_frame, fsc_curves_chart
from verglas.report.grey import bin_to, grey_bytes, grey_png
from verglas.report.notebook import gallery
from verglas.report.style import png
from verglas.report.view_chart import view_chart
from verglas.types import Map, Micrograph, Movie, Particles, Poses

_SHOWN = 12
_MOST_FRAMES = 8  # of a movie: all of an EER movie would take a minute to be read
_SHOWN_PX = 512


def card(thing: Any, parts: Sequence[bytes | Chart] | None = None) -> str:
    """HTML of an object: the line that ``repr`` gives, and its pictures and charts, or those given.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.report.cards import card
    >>> shown = card(vg.Map(np.eye(8)[None].repeat(8, 0), 2.0))
    >>> "Map(8 x 8 x 8, 2 A per voxel, 0 to 1)" in shown, shown.count("data:image/png")
    (True, 1)
    """
    parts = parts_of(thing) if parts is None else parts
    words = html.escape(repr(thing))
    shown = "".join(
        f'<img style="max-width:100%" alt="{words}" src="data:image/png;base64,{base64.b64encode(one).decode()}">'
        for one in parts
        if isinstance(one, bytes)
    )
    charts = [one for one in parts if isinstance(one, Chart)]
    return f"<div><code>{words}</code><br>{shown}{charts_frame(charts) if charts else ''}</div>"


@singledispatch
def parts_of(thing: Any) -> list[bytes | Chart]:
    """PNG pictures and charts of an object; none of one that has nothing to show."""
    return []


@parts_of.register
def _(thing: Map) -> list[bytes | Chart]:
    if not thing.data.size:
        return []
    return [png(gallery(figures.central_slices(thing.data), ["z = 0", "y = 0", "x = 0"]))]


@parts_of.register
def _(thing: Poses) -> list[bytes | Chart]:
    return [view_chart(thing.angles_deg)] if len(thing) else []


@parts_of.register
def _(thing: Particles) -> list[bytes | Chart]:
    if thing.source is None or not len(thing):
        return []
    rows = np.unique(np.linspace(0, len(thing) - 1, _SHOWN).round().astype(int))
    return [figures.particles(thing.images(rows), thing.pixel_size_A)]


@parts_of.register
def _(thing: FSC) -> list[bytes | Chart]:
    return [_fsc_chart({"FSC": thing})]


@parts_of.register
def _(thing: Postprocessed) -> list[bytes | Chart]:
    return [_fsc_chart(thing.curves)]


def _fsc_chart(curves: Mapping[str, FSC]) -> Chart:
    """Each curve with the resolution at 0.143 in its name."""
    found = {name: one.resolution_A(0.143) for name, one in curves.items()}
    named = {f"{n}, {d:.2f} Å" if np.isfinite(d) else n: curves[n] for n, d in found.items()}
    return fsc_curves_chart("Fourier shell correlation", named)


@parts_of.register
def _(thing: Micrograph) -> list[bytes | Chart]:
    return [grey_png(grey_bytes(bin_to(thing.data, _SHOWN_PX)[0]))]


@parts_of.register
def _(thing: Movie) -> list[bytes | Chart]:
    """Mean of a few frames from the first to the last, as they were recorded, without correction for motion."""
    rows = np.unique(np.linspace(0, len(thing) - 1, _MOST_FRAMES).round().astype(int))
    total = np.zeros(thing.shape, np.float32)
    for row in rows.tolist():
        total += thing.frame(row)
    return [grey_png(grey_bytes(bin_to(total, _SHOWN_PX)[0]))]
