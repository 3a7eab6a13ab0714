"""The page of a CTF refinement: phase differences of every group, changes of defocus, and what held-out data gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from verglas._version import __version__
from verglas.optics.refine import DefocusFit, GroupFit, GroupSums
from verglas.optics.refine.phases import basis
from verglas.optics.refine.pixels import Pixels
from verglas.report.chart import Chart, Field, Series, chart_block, charts_block, column_numbers, histogram_chart
from verglas.report.html import Block, Page, Section, Table, render
from verglas.types import Particles
from verglas.types.arrays import FloatArray

_SMOOTHING_PX = 1.5
_MOST_CELLS = 56  # of a side of a plane in a page


def full_plane(values: FloatArray, pixels: Pixels, sign: float) -> FloatArray:
    """(side, side) picture of values on half the plane; the other half is ``sign`` times them, outside is NaN."""
    reach, step = pixels.last + 1, 1 / (pixels.box * pixels.pixel_size_A)
    plane = np.full((2 * reach + 1, 2 * reach + 1), np.nan)
    x, y = np.rint(pixels.kx / step).astype(int), np.rint(pixels.ky / step).astype(int)
    plane[reach + y, reach + x] = values
    plane[reach - y, reach - x] = sign * values
    return plane


def measured_phase(sums: GroupSums, group: int, parity: str) -> FloatArray:
    """Phase difference between images and model on the full plane, radians, averaged over a few pixels.

    Odd: arg of sum X conj(C P). Even: the angle of (cos d, sin d) that solves the normal equations of each pixel.
    """
    pixels = sums.pixels
    if parity == "odd":
        q = sums.odd_cross[group].sum(axis=0)
        parts = (full_plane(q.real, pixels, 1.0), full_plane(q.imag, pixels, -1.0))
    else:
        b = sums.even_cross[:, group].sum(axis=1)
        a = sums.even_power[:, group].sum(axis=1)
        # the matrix of a pixel times its determinant's sign is enough for an angle
        parts = (
            full_plane(a[2] * b[0] - a[1] * b[1], pixels, 1.0),
            full_plane(a[0] * b[1] - a[1] * b[0], pixels, 1.0),
        )
    outside = np.isnan(parts[0])
    smooth = [gaussian_filter(np.nan_to_num(p), _SMOOTHING_PX) for p in parts]
    phase = np.arctan2(smooth[1], smooth[0])
    phase[outside] = np.nan
    return np.asarray(phase)


def phase_charts(sums: GroupSums, group: int, parity: str, fit: GroupFit, title: str) -> list[Chart]:
    """Measured phase difference beside the fitted one, over the plane of frequencies."""
    pixels = sums.pixels
    wrapped = np.angle(np.exp(1j * (fit.change @ basis(pixels, parity))))
    shown = {
        "measured": measured_phase(sums, group, parity),
        "fitted": full_plane(wrapped, pixels, -1.0 if parity == "odd" else 1.0),
    }
    step_per_A = 1 / (pixels.box * pixels.pixel_size_A)
    fields = {what: _phase_field(values, step_per_A) for what, values in shown.items()}
    # One scale: a fit of 0.1 rad must not look like the 3 rad of the noise that it was measured in.
    reach = max(float(np.abs(one.values[np.isfinite(one.values)]).max(initial=0.0)) for one in fields.values())
    return [
        Chart(
            f"{title}: {what}",
            "kx (1/Å)",
            "ky (1/Å)",
            [],
            field=field,
            scale_label="phase (rad)",
            equal=True,
            down=True,
            signed=True,
            colours_to=reach,
        )
        for what, field in fields.items()
    ]


def _phase_field(plane: FloatArray, step_per_A: float) -> Field:
    """A plane of phases, made coarser until a page draws its cells quickly; the mean of directions, as phases wrap."""
    n = len(plane)
    step = -(-n // _MOST_CELLS)
    before = (-n % step) // 2
    padded = np.pad(plane, ((before, -n % step - before),) * 2, constant_values=np.nan)
    cells = len(padded) // step
    blocks = padded.reshape(cells, step, cells, step)
    known = np.isfinite(blocks)
    sums = np.where(known, np.exp(1j * np.nan_to_num(blocks)), 0).sum(axis=(1, 3))
    low = -(n / 2 + before) * step_per_A
    edges = (low, low + len(padded) * step_per_A)
    return Field(np.where(known.any(axis=(1, 3)), np.angle(sums), np.nan), edges, edges)


@dataclass(frozen=True)
class DrawnMagnification:
    """The magnification of an optics group to draw.

    Attributes
    ----------
    title : str
    fit : GroupFit
        With displacements.
    """

    title: str
    fit: GroupFit


def magnification_charts(drawn: DrawnMagnification) -> list[Chart]:
    """Displacements of frequencies along x and y, as measured and as the matrix has them."""
    measured = drawn.fit.displacement_per_A
    assert measured is not None
    cells, reach_per_A = measured.shape[-1], drawn.fit.reach_per_A
    k = ((np.arange(cells) + 0.5) / cells * 2 - 1) * reach_per_A
    kx, ky = np.meshgrid(k, k)
    fitted = np.einsum("ij,jyx->iyx", drawn.fit.change.reshape(2, 2), np.stack([kx, ky]))
    fitted[np.isnan(measured)] = np.nan
    edges = (-reach_per_A, reach_per_A)
    # The noise of a cell without signal must not hide the slope of all.
    most = 1e3 * max(float(np.nanpercentile(np.abs(measured), 95)), float(np.nanmax(np.abs(fitted))))
    return [
        Chart(
            f"{drawn.title}, along {'xy'[axis]}: {what}",
            "kx (1/Å)",
            "ky (1/Å)",
            [],
            field=Field(np.clip(1e3 * values[axis], -most, most), edges, edges),
            scale_label="displacement (0.001/Å)",
            equal=True,
            down=True,
            signed=True,
            colours_to=most,
        )
        for axis in (0, 1)
        for what, values in (("measured", measured), ("fitted", fitted))
    ]


def defocus_chart(table: pd.DataFrame) -> Chart:
    """The micrograph with most particles, coloured by their defoci."""
    most = table["rlnMicrographName"].value_counts().index[0]
    here = table[(table["rlnMicrographName"] == most).to_numpy()]
    x, y = (column_numbers(here[f"rlnCoordinate{axis}"]) for axis in "XY")
    mean = (column_numbers(here["rlnDefocusU"]) + column_numbers(here["rlnDefocusV"])) / 2
    title = f"Defoci over {str(most).rsplit('/', 1)[-1]}"
    series = [Series("particles", x, y, "points", shades=mean)]
    return Chart(title, "x (pixels)", "y (pixels)", series, equal=True, down=True, scale_label="defocus (Å)")


def _defoci(table: pd.DataFrame, fit: DefocusFit) -> Section:
    chart = histogram_chart("change of defocus, Å", {"particles": fit.change_A}, "particles")
    caption = f"Width of the prior: {fit.width_A:.0f} Å about the {fit.about}."
    blocks: list[Block] = [charts_block([chart], caption)]
    if {"rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"} <= set(table.columns):
        blocks.append(chart_block(defocus_chart(table), "The micrograph with most particles."))
    return Section("Defocus of particles", "", blocks)


@dataclass(frozen=True)
class DrawnPhase:
    """A phase of an optics group to draw.

    Attributes
    ----------
    title : str
    sums : GroupSums
        What it was fitted to.
    group : int
        From 0.
    parity : str
        "odd" or "even".
    fit : GroupFit
    """

    title: str
    sums: GroupSums
    group: int
    parity: str
    fit: GroupFit


def refinement_page(
    particles: Particles,
    phases: Sequence[DrawnPhase],
    magnifications: Sequence[DrawnMagnification],
    defocus: DefocusFit | None,
    told: Mapping[str, Any],
) -> str:
    """The page as HTML.

    Parameters
    ----------
    particles : Particles
        As refined.
    phases : sequence of DrawnPhase
        What to draw.
    magnifications : sequence of DrawnMagnification
        What else.
    defocus : DefocusFit or None
    told : mapping
        The summary of the job.
    """
    rows = [
        (
            str(number),
            one["what"],
            f"{one['gain_nats']:.1f}",
            f"{one['gain_error_nats']:.1f}",
            "kept" if one["kept"] else "not kept",
        )
        for number, made in enumerate(told["rounds"], 1)
        for one in made["fits"]
    ]
    text = (
        "Every fit is judged on data it did not see: groups on the other half of the particles, defoci on the other "
        "half of the Fourier pixels. It is kept if they gain more than three standard errors."
    )
    sections = [
        Section(
            "Held-out data", text, [Table(("round", "fit", "gain, nats", "standard error", ""), rows)] if rows else []
        )
    ]
    planes = [
        charts_block(phase_charts(one.sums, one.group, one.parity, one.fit, one.title), f"{one.title}: first round.")
        for one in phases
    ]
    if planes:
        sections.append(Section("Phase differences between images and reference", "", planes))
    if magnifications:
        about = "A magnification moves every frequency in proportion to it: u = (M - 1) k."
        blocks = [charts_block(magnification_charts(one), f"{one.title}: first round.") for one in magnifications]
        sections.append(Section("Displacements of frequencies between images and reference", about, blocks))
    if defocus is not None:
        sections.append(_defoci(particles.table, defocus))
    figures = {"particles": str(told["particles"]), "rounds": str(len(told["rounds"])), "seconds": str(told["seconds"])}
    return render(Page("CTF refinement", told["verdict"] + ".", figures, sections, f"verglas {__version__}"))
