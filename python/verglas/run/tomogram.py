"""``verglas tomogram``: an aligned tilt series in a file, and the map it leaves."""

from __future__ import annotations

import itertools
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verglas import fourier
from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.assessment.fsc import FSC
from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.image import Affine, warp
from verglas.io import check_folder, make_folder, read_stack, write_json, write_map
from verglas.io.atomic import write_text
from verglas.io.mrc import stated_pixel_A
from verglas.io.rules import RECALIBRATED
from verglas.reconstruction.tomogram import Tomogram, TomogramSettings, reconstruct_tilts
from verglas.reconstruction.wedge import MissingWedge, missing_wedge
from verglas.report.chart import chart_block, fsc_curves_chart
from verglas.report.figures import slices
from verglas.report.html import Block, Page, Picture, Section, Table, render
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.tilt_order import averaged, misplaced_angles
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray

_SCALES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of shifts found in images of another binning
_SIDE, _SURE, _FEWEST_TILTS = 128, 5.0, 5
_RADIANS = np.pi  # a range of tilts that is none in degrees


@dataclass(frozen=True)
class TomogramJob:
    """What ``verglas tomogram`` is asked for.

    Attributes
    ----------
    tilts : Path
        Images, MRC or .st; aligned, unless ``transforms`` says how to align them.
    angles : Path
        One tilt a line, degrees (.tlt, .rawtlt).
    out : Path
        Folder to write.
    pixel_size_A : float
    settings : TomogramSettings
    check_tilts : int
        Tilts left out in turn.
    threads : int, optional
    transforms : Path, optional
        One transform a line (IMOD's .xf), under which the images are aligned.
    """

    tilts: Path
    angles: Path
    out: Path
    pixel_size_A: float
    settings: TomogramSettings
    check_tilts: int = 5
    threads: int | None = None
    transforms: Path | None = None


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
    if len(angles) >= _FEWEST_TILTS and 0 < np.ptp(angles) <= _RADIANS:
        raise FormatError(
            f"{path}: its {len(angles)} angles lie between {min(angles):g} and {max(angles):g}; expected degrees: are "
            "these radians?"
        )
    return np.array(angles)


def read_transforms(path: Path) -> list[Affine]:
    """Transforms of a file of IMOD's, ``a11 a12 a21 a22 dx dy`` a line, about the middle of the image.

    Raises
    ------
    FormatError
        A line that is no transform, naming it.
    """
    transforms = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = np.array([float(word) for word in line.split()])
        except ValueError:
            values = np.zeros(0)
        if len(values) != 6 or not np.isfinite(values).all() or values[0] * values[3] == values[1] * values[2]:
            raise FormatError(
                f"{path}, line {number}: expected a transform 'a11 a12 a21 a22 dx dy', got {line.strip()[:60]!r}"
            )
        transforms.append(Affine(values[:4].reshape(2, 2), values[4:]))
    if not transforms:
        raise FormatError(f"{path}: no transforms in it")
    return transforms


def align_tilts(images: Float32Array, transforms: list[Affine]) -> Float32Array:
    """Images (n, y, x) under IMOD's transforms, the middle of each moved onto pixel N // 2; means outside.

    IMOD turns about the middle of the image, (N - 1) / 2 counted from 0 at the first pixel, and its tilt axis runs
    there: half a pixel from pixel N // 2 where N is even.
    """
    middle = np.array([(n - 1) / 2 - n // 2 for n in images.shape[:0:-1]])  # x, y from pixel N // 2
    aligned = np.empty_like(images)
    for out, image, given in zip(aligned, images, transforms, strict=True):
        mean = image.mean()
        out[:] = warp(image - mean, given @ Affine.translation(-middle)) + mean
    return aligned


def scale_of_shifts(images: Float32Array, transforms: list[Affine]) -> float:
    """By which binning the shifts of transforms fit images best, told by how alike neighbouring tilts become; mostly 1.

    Another answer than 1 needs a mean correlation of neighbours that is higher by five standard errors.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.image import Affine, warp
    >>> from verglas.run.tomogram import scale_of_shifts
    >>> rng = np.random.default_rng(0)
    >>> image = warp(rng.normal(size=(64, 64)), Affine.translation([0.5, 0.5]))
    >>> shifts = 4 * rng.normal(size=(9, 2))
    >>> moved = np.array([warp(image, Affine.translation(-shift)) for shift in shifts])
    >>> [scale_of_shifts(moved, [Affine.translation(k * shift) for shift in shifts]) for k in (1, 2, 0.25)]
    [1.0, 0.5, 4.0]
    """
    small, step = averaged(images, _SIDE)
    alike = np.array([_neighbours_alike(small, transforms, scale / step) for scale in _SCALES])
    usual = alike[_SCALES.index(1.0)]
    best = int(alike.mean(axis=1).argmax())
    gain = alike[best] - usual
    if len(images) < _FEWEST_TILTS or gain.mean() <= _SURE * gain.std(ddof=1) / np.sqrt(len(gain)):
        return 1.0
    return _SCALES[best]


def _neighbours_alike(images: FloatArray, transforms: list[Affine], factor: float) -> FloatArray:
    """Correlation of each tilt with the next one, their shifts multiplied by a factor."""
    aligned = [
        warp(image, Affine(one.matrix, factor * one.offset)) for image, one in zip(images, transforms, strict=True)
    ]
    # Nothing is left of an image that is moved out of its frame.
    centred = [(image - image.mean()) / (np.linalg.norm(image - image.mean()) or 1.0) for image in aligned]
    return np.array([float((a * b).sum()) for a, b in itertools.pairwise(centred)])


@keeps_inputs("tomogram")
def tomogram_files(job: TomogramJob, *, listener: ListenerChoice = "screen") -> dict[str, Any]:
    """Read, reconstruct, write map.mrc, tomogram.json and report.html; the summary.

    ``listener`` is told how it goes: a bar or lines on standard error, nobody (None), or an object of one's own.
    """
    start_time = time.perf_counter()
    check_folder(job.out)
    images, angles = read_stack(job.tilts), read_tilt_angles(job.angles)
    stated_A = stated_pixel_A(job.tilts)
    if stated_A not in (0.0, 1.0) and abs(stated_A / job.pixel_size_A - 1) > RECALIBRATED:
        warnings.warn(
            f"{job.tilts}: pixel size {stated_A:.6g} A in the header, {job.pixel_size_A:g} A used as asked",
            VerglasWarning,
            stacklevel=2,
        )
    if len(images) != len(angles):
        raise InputError(f"{job.tilts} holds {len(images)} images, {job.angles} {len(angles)} angles")
    if job.transforms is not None:
        transforms = read_transforms(job.transforms)
        if len(images) != len(transforms):
            raise InputError(f"{job.tilts} holds {len(images)} images, {job.transforms} {len(transforms)} transforms")
        scale = scale_of_shifts(np.asarray(images), transforms)
        if scale != 1:
            warnings.warn(
                f"{job.transforms}: neighbouring tilts become more alike with {scale:g} times its shifts: are they "
                "those of images with another binning?",
                VerglasWarning,
                stacklevel=2,
            )
        images = align_tilts(images, transforms)
    if said := misplaced_angles(images, angles):
        warnings.warn(f"{job.angles}: {said}", VerglasWarning, stacklevel=2)
    wedge = missing_wedge(angles)
    with shown_to(listener) as heard:
        heard.say(f"{len(images)} tilts, {job.check_tilts} of them left out in turn and predicted")
        heard.progress("tomogram", 0, 1)
        tomogram = reconstruct_tilts(images, angles, job.settings, check_tilts=job.check_tilts, threads=job.threads)
        heard.progress("tomogram", 1, 1)
    make_folder(job.out)
    volume = Map(tomogram.volume, job.pixel_size_A)
    frc = _frc_in_A(tomogram, max(images.shape[1:]), job.pixel_size_A)
    write_map(job.out / "map.mrc", volume)
    summary = {
        "map": str(job.out / "map.mrc"),
        "shape": list(tomogram.volume.shape),
        "tilts": len(angles),
        "left_out": [{"tilt_deg": t, "correlation": round(c, 4)} for t, c in tomogram.left_out],
        "left_out_frc": None if frc is None else _curve(frc),
        "wedge": {k: round(v, 4) for k, v in asdict(wedge).items()},
        "step_resolution_A": round(wedge.resolution_A(tomogram.volume.shape[0] * job.pixel_size_A), 2),
        "prior_weight": tomogram.prior_weight,
        "tried": [list(one) for one in tomogram.tried],
        "settings": asdict(job.settings),
        "seconds": round(time.perf_counter() - start_time, 1),
    }
    write_json(job.out / "tomogram.json", summary)
    write_text(job.out / "report.html", render(_page(tomogram, volume, summary, wedge, frc)))
    return summary


def _frc_in_A(tomogram: Tomogram, side_px: int, pixel_size_A: float) -> FSC | None:
    curve = tomogram.left_out_frc
    if curve is None:
        return None
    counts, independent = fourier.shell_counts((side_px, side_px))
    return FSC(np.arange(len(curve)) / (side_px * pixel_size_A), curve, counts, independent, pixel_size_A)


def _curve(frc: FSC) -> dict[str, Any]:
    """The curve, and the detail to which it stays above 0.5 (none: not even the coarsest)."""
    resolution_A = frc.resolution_A(0.5)
    return {
        "frequency_per_A": [round(float(v), 6) for v in frc.frequency_per_A],
        "frc": [round(float(v), 4) for v in frc.curve],
        "resolution_A": round(resolution_A, 2) if np.isfinite(resolution_A) else None,
    }


def _page(tomogram: Tomogram, volume: Map, summary: dict[str, Any], wedge: MissingWedge, frc: FSC | None) -> Page:
    mean = float(np.mean([c for _, c in tomogram.left_out])) if tomogram.left_out else float("nan")
    picture = Picture(slices({"map": volume}), "central slices of the map", "Central slices.")
    rows = [(f"{tilt:.1f}", f"{correlation:.3f}") for tilt, correlation in tomogram.left_out]
    seen = (
        f"Tilts from {wedge.lowest_deg:g} to {wedge.highest_deg:g} degrees. What is {wedge}. Steps of up to "
        f"{wedge.largest_step_deg:g} degrees leave gaps at details below {summary['step_resolution_A']:.0f} Å in a "
        f"specimen as thick as the map."
    )
    sections = [Section("Map", "", [picture]), Section("What the tilts leave out", seen)]
    if frc is not None:
        text = (
            "Each tilt was left out in turn and predicted from the others; without noise in it the correlation is 1. "
            "The curve is the ring correlation of all these images with their predictions."
        )
        chart = fsc_curves_chart("FRC of tilts left out", {"image and prediction": frc}, (0.5,))
        blocks: list[Block] = [chart_block(chart), Table(("tilt, degrees", "correlation"), rows)]
        sections.append(Section("Tilts left out", text, blocks))
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
