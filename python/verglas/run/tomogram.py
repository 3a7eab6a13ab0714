"""``verglas tomogram``: an aligned tilt series in a file, and the map it leaves."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.errors import FormatError, InputError
from verglas.io import check_folder, make_folder, read_stack, write_json, write_map
from verglas.io.atomic import write_text
from verglas.reconstruction.tomogram import Tomogram, TomogramSettings, reconstruct_tilts
from verglas.report.figures import slices
from verglas.report.html import Page, Picture, Section, Table, render
from verglas.types import Map
from verglas.types.arrays import FloatArray


@dataclass(frozen=True)
class TomogramJob:
    """What ``verglas tomogram`` is asked for.

    Attributes
    ----------
    tilts : Path
        Aligned images, MRC or .st.
    angles : Path
        One tilt a line, degrees (.tlt, .rawtlt).
    out : Path
        Folder to write.
    pixel_size_A : float
    settings : TomogramSettings
    check_tilts : int
        Tilts left out in turn.
    threads : int, optional
    """

    tilts: Path
    angles: Path
    out: Path
    pixel_size_A: float
    settings: TomogramSettings
    check_tilts: int = 5
    threads: int | None = None


def read_tilt_angles(path: Path) -> FloatArray:
    """Angles of a .tlt or .rawtlt file, one a line.

    Raises
    ------
    FormatError
        A line is no number, naming it.
    """
    angles = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            angles.append(float(line.split()[0]))
        except ValueError as error:
            raise FormatError(
                f"{path}, line {number}: expected an angle in degrees, got {line.strip()[:40]!r}"
            ) from error
    if not angles:
        raise FormatError(f"{path}: no angles in it")
    return np.array(angles)


def tomogram_files(job: TomogramJob, *, listener: ListenerChoice = "screen") -> dict[str, Any]:
    """Read, reconstruct, write map.mrc, tomogram.json and report.html; the summary.

    ``listener`` is told how it goes: a bar or lines on standard error, nobody (None), or an object of one's own.
    """
    start_time = time.perf_counter()
    check_folder(job.out)
    images, angles = read_stack(job.tilts), read_tilt_angles(job.angles)
    if len(images) != len(angles):
        raise InputError(f"{job.tilts} holds {len(images)} images, {job.angles} {len(angles)} angles")
    with shown_to(listener) as heard:
        heard.say(f"{len(images)} tilts, {job.check_tilts} of them left out in turn and predicted")
        heard.progress("tomogram", 0, 1)
        tomogram = reconstruct_tilts(images, angles, job.settings, check_tilts=job.check_tilts, threads=job.threads)
        heard.progress("tomogram", 1, 1)
    make_folder(job.out)
    volume = Map(tomogram.volume, job.pixel_size_A)
    write_map(job.out / "map.mrc", volume)
    summary = {
        "map": str(job.out / "map.mrc"),
        "shape": list(tomogram.volume.shape),
        "tilts": len(angles),
        "left_out": [{"tilt_deg": t, "correlation": round(c, 4)} for t, c in tomogram.left_out],
        "prior_weight": tomogram.prior_weight,
        "tried": [list(one) for one in tomogram.tried],
        "settings": asdict(job.settings),
        "seconds": round(time.perf_counter() - start_time, 1),
    }
    write_json(job.out / "tomogram.json", summary)
    write_text(job.out / "report.html", render(_page(tomogram, volume, summary)))
    return summary


def _page(tomogram: Tomogram, volume: Map, summary: dict[str, Any]) -> Page:
    mean = float(np.mean([c for _, c in tomogram.left_out])) if tomogram.left_out else float("nan")
    picture = Picture(slices({"map": volume}), "central slices of the map", "Central slices.")
    rows = [(f"{tilt:.1f}", f"{correlation:.3f}") for tilt, correlation in tomogram.left_out]
    sections = [Section("Map", "", [picture])]
    if rows:
        text = "Each tilt was left out in turn and predicted from the others; without noise in it the correlation is 1."
        sections.append(Section("Tilts left out", text, [Table(("tilt, degrees", "correlation"), rows)]))
    return Page(
        "Tomogram",
        f"{summary['tilts']} tilts, {summary['settings']['method']}; tilts that were left out are predicted with a "
        f"correlation of {mean:.3f}."
        if rows
        else f"{summary['tilts']} tilts, {summary['settings']['method']}.",
        {"tilts": str(summary["tilts"]), "seconds": str(summary["seconds"])},
        sections,
        f"verglas {__version__}",
    )
