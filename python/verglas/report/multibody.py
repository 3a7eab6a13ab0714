"""The page of a multibody refinement: bodies with their FSC, motions as rows of slices and as a moving picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verglas.assessment import FSC
from verglas.heterogeneity.motions import Motions
from verglas.image import plan_resample, resample
from verglas.report import figures, surface
from verglas.report.chart import Chart, chart_block, charts_block, fsc_curves_chart, histogram_chart
from verglas.report.heterogeneity import capital, settings_section
from verglas.report.html import Fragment, Page, Picture, Section, Table
from verglas.report.volume import display_level
from verglas.types import Map
from verglas.types.arrays import FloatArray

_SIZE = 280  # side of the moving picture, screen pixels
_LARGEST = 96  # voxels of a surface that moves
_FRAME_MS = 220
_COLOUR = (0.36, 0.56, 0.72)

Body = tuple[Map, Map, FSC]
Trajectory = tuple[FloatArray, list[Map]]


def multibody_page(
    shown: Mapping[str, Any],
    bodies: Sequence[Body],
    motions: Motions,
    trajectories: Sequence[Trajectory],
    settings: Mapping[str, Any],
    footer: str = "",
) -> Page:
    """The page.

    Parameters
    ----------
    shown : mapping
        The job's summary (``multibody.json``).
    bodies : sequence of (Map, Map, FSC)
        Map, mask and curve of each.
    motions : Motions
    trajectories : sequence of ((m,) float64, list of Map)
        Of each motion that is shown: coordinates, and maps there.
    settings : mapping
    footer : str
    """
    numbers = {
        "bodies": str(len(bodies)),
        "particles": str(shown["particles"]),
        "motions that stand out": str(shown["motions"]),
    }
    sections = [_bodies_section(shown, bodies), _motions_section(motions)]
    sections += [_motion(number, *made, motions) for number, made in enumerate(trajectories)]
    sections.append(settings_section(settings))
    return Page("verglas multibody", capital(str(shown["sentence"])), numbers, sections, footer)


def _bodies_section(shown: Mapping[str, Any], bodies: Sequence[Body]) -> Section:
    rows = [
        (
            f"body {b['body']}",
            f"{b['resolution_A']:.2f} Å" + (" (where the data end)" if b["ends_with_data"] else ""),
            f"{b['whole_resolution_A']:.2f} Å",
            "yes" if b["vouched"] else "no: without the mask",
            f"{b['turn_deg']:.1f}",
            f"{b['accuracy_deg']:.1f}",
        )
        for b in shown["bodies"]
    ]
    head = (
        "body",
        "FSC 0.143 in its mask",
        "at the poses of the whole",
        "the mask can be trusted",
        "rms turn from the whole, degrees",
        "stated error, degrees",
    )
    named = {f"body {number}": volume for number, (volume, _, _) in enumerate(bodies, 1)}
    everything = Map(np.max([mask.data for _, mask, _ in bodies], axis=0), bodies[0][0].pixel_size_A)
    blocks: list[Picture | Table | Fragment] = [
        Table(head, rows),
        chart_block(fsc_curves_chart("FSC of half maps", {f"body {n}": c for n, (_, _, c) in enumerate(bodies, 1)})),
        Picture(figures.slices(named, contour=everything), "Central slices of the maps of all bodies, masks outlined"),
    ]
    text = (
        "Each body was refined in images less the other bodies; its half maps share nothing but the start. The second "
        "column of resolutions is that of half maps at the poses of the whole particle, in the same mask."
    )
    text = " ".join([text, *(f"Take care: {sentence}." for sentence in shown["warnings"])])
    return Section("Bodies", text, blocks)


def _motions_section(motions: Motions) -> Section:
    rows = [
        (q + 1, f"{v:.2f}", f"{100 * s:.0f} %", f"{r:.2f}", "yes" if q < motions.n_motions else "no")
        for q, (v, s, r) in enumerate(zip(motions.variance, motions.share, motions.reliability, strict=True))
    ]
    head = ("component", "variance, A^2", "share", "correlation of poses from even and odd shells", "stands out")
    text = (
        "Principal motions of the bodies against each other, measured by the root mean square displacement of the "
        "particle's voxels. Errors of the poses have principal components, too: a motion stands out if poses from even "
        "and from odd shells of the images, which share no noise, correlate by two thirds along it, and its share of "
        "the variance is above that of a stick broken at random. Errors of imperfect maps can pass for small motions."
    )
    return Section("Motions", text, [Table(head, rows)])


def _motion(number: int, points: FloatArray, maps: list[Map], motions: Motions) -> Section:
    named = {f"{p:+.1f} Å": m for p, m in zip(points, maps, strict=True)}
    turns = [
        (f"body {b + 1}", *(f"{v:+.2f}" for v in motions.vectors[number, b])) for b in range(motions.vectors.shape[1])
    ]
    head = ("per Å of the coordinate", "turn x (°)", "turn y", "turn z", "move x (Å)", "move y", "move z")
    blocks: list[Picture | Table | Fragment] = [
        Picture(moving_picture(maps), "Surface of the particle moving to and fro along the motion"),
        Picture(figures.slices(named), "Central slices of five maps along the motion"),
        charts_block([_histogram(motions.coordinates[:, number])]),
        Table(head, turns),
    ]
    rms_A, common_A = (float(np.sqrt(max(v[number], 0))) for v in (motions.variance, motions.signal_variance))
    text = (
        f"From the 5th to the 95th percentile of the particles: {rms_A:.1f} Å root mean square, of which the "
        f"poses from even and odd shells share {common_A:.1f} A; the rest is error, and widens what is shown."
    )
    if number < motions.n_motions:
        return Section(f"Motion {number + 1}", text, blocks)
    doubt = "It does not stand out from errors of the poses: there may be no such motion. "
    return Section(f"Component {number + 1}, no motion", doubt + text, blocks)


def _histogram(values: FloatArray) -> Chart | None:
    return histogram_chart("coordinate (Å)", {"particles": values}, "particles")


def moving_picture(maps: Sequence[Map]) -> bytes:
    """Surfaces of maps, one after the other and back, as an animated PNG: any browser shows it move.

    Parameters
    ----------
    maps : sequence of Map
        Of one box.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.report.multibody import moving_picture
    >>> balls = [vg.Map(vg.masks.soft_sphere(16, r, 3.0), 4.0) for r in (3.0, 4.0, 5.0)]
    >>> moving_picture(balls).count(b"fcTL")  # frames
    4
    """
    from PIL import Image  # matplotlib draws with it

    middle = maps[len(maps) // 2]
    small = maps
    if middle.box > _LARGEST:
        plan = plan_resample(middle.box, middle.pixel_size_A, None, _LARGEST)
        small = [resample(m, plan) for m in maps]
    level = display_level(small[len(small) // 2])
    pictures = []
    for volume in small:
        shaded = surface.shade_surface(volume, level, colour=_COLOUR, size=_SIZE)
        ground = shaded[..., :3] * shaded[..., 3:] + (1 - shaded[..., 3:])
        pictures.append(Image.fromarray(np.uint8(np.clip(np.rint(255 * ground), 0, 255))))
    frames = pictures + pictures[-2:0:-1]
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], duration=_FRAME_MS, loop=0)
    return out.getvalue()
