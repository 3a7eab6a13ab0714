"""Particles out of micrographs: reads micrographs, coordinates and CTFs, writes stacks and a STAR file."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.micrographs import judge_extraction
from verglas.errors import InputError, VerglasError, VerglasWarning
from verglas.extraction import Cut, ExtractSettings, background_excess, centre_contrast, cut_particles
from verglas.io import (
    make_folder,
    read_micrograph,
    read_particles,
    write_json,
    write_particles,
)
from verglas.io.coordinates import MICROGRAPH
from verglas.io.micrographs import PATH, PIXEL
from verglas.io.rules import file_rules, written_name
from verglas.run.extract_inputs import (
    Coordinates,
    Micrographs,
    Microscope,
    all_picks,
    assign_picks,
    bad_share,
    micrograph_table,
    stack_names,
)
from verglas.run.extract_output import Piece, UnusedPick, particles_of, write_excluded, write_piece
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.micrograph_pages import write_extract_page
from verglas.run.parallel import in_order
from verglas.run.reasons import commonest_kind, without_name
from verglas.run.tenure import tenure
from verglas.types import Micrograph, Particles, Picks
from verglas.types import _columns as col
from verglas.types.listener import Listener
from verglas.types.settings import check_settings, setting, settings_from
from verglas.types.verdict import Finding, Verdict


@dataclass(frozen=True)
class ExtractOptions(Microscope):
    """How ``vg.extract`` cuts particles out, and what the micrographs were recorded with (:class:`Microscope`).

    Attributes
    ----------
    new_pixel_size_A, new_box, diameter_A, invert, ramp, edge
        As in :class:`verglas.extraction.ExtractSettings`.
    flip_y : bool
        Count y of the coordinates from the last row: RELION's coordinates on TIFF micrographs.
    recentre : bool
        Where coordinates come with refined shifts (rlnOriginXAngst), move the box there; the shift keeps what is less
        than a pixel.
    keep_defoci : bool
        Defoci that come with coordinates (of particles, refined by ctf-refine) go before the micrographs'; astigmatism
        and phase shift of those particles, too. Where a particle has none, its micrograph's.
    dtype : "float32" or "float16"
        Of the stacks.
    """

    new_pixel_size_A: float | None = setting(None, "Scale the images down to this", more_than=0)
    new_box: int | None = setting(None, "Side of the scaled images, pixels", at_least=8)
    diameter_A: float | None = setting(None, "Of the particle: what is outside is background", more_than=0)
    invert: bool = setting(True, "Micrographs have dark particles, which stacks have white")
    ramp: bool = setting(True, "Subtract the background's gradient, not only its mean")
    edge: Literal["exclude", "fill"] = setting("exclude", "Boxes that leave the micrograph")
    flip_y: bool = setting(False, "Count y from the last row (RELION on TIFF)")
    recentre: bool = setting(True, "Move boxes by the shifts of refined particles")
    keep_defoci: bool = setting(True, "Defoci of refined particles go before their micrographs'")
    dtype: Literal["float32", "float16"] = setting("float32", "Of the stacks")

    def __post_init__(self) -> None:
        """Check once."""
        check_settings("extract", self)
        super().__post_init__()


@dataclass
class ExtractSummary:
    """What an extraction did.

    Attributes
    ----------
    particles : Particles
        Those cut out.
    asked : int
        Coordinates given.
    excluded : list of UnusedPick
        What was set aside: micrograph, place in its picks from 0 or -1 for all, x and y, reason.
    without_picks : list of str
        Micrographs that have no coordinates.
    excess : (n,) float64
        :func:`verglas.extraction.background_excess` of every particle.
    verdict : Verdict
        Go on, or look at what was lost first.
    seconds : float
        Wall time.
    """

    particles: Particles
    asked: int
    excluded: list[UnusedPick]
    without_picks: list[str]
    excess: npt.NDArray[np.float64]
    verdict: Verdict
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; ``box`` and ``pixel_size_A`` are lists where micrographs of several pixel sizes were cut."""
        excess = float(np.median(self.excess))
        boxes = np.unique(self.particles.source.boxes()).tolist() if self.particles.source is not None else []
        sizes_A = np.unique(np.round(self.particles.pixel_sizes_A, 5)).tolist()
        reasons: dict[str, int] = {}
        for reason in (one.reason for one in self.excluded):
            reasons[reason] = reasons.get(reason, 0) + 1
        return {
            "coordinates": self.asked,
            "particles": len(self.particles),
            "box": boxes[0] if len(boxes) == 1 else boxes,
            "pixel_size_A": sizes_A[0] if len(sizes_A) == 1 else sizes_A,
            "excluded": reasons,
            "micrographs_without_coordinates": len(self.without_picks),
            "median_background_excess": excess if np.isfinite(excess) else None,  # background of one value
            "verdict": self.verdict.as_dict(),
            "seconds": round(self.seconds, 2),
        }


@keeps_inputs("extract")
def extract(
    micrographs: Micrographs,
    picks: Coordinates,
    box: int,
    settings: ExtractOptions | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    ctf: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Particles:
    """Cut particles out of micrographs.

    Public as ``vg.extract``. Images are cropped at the coordinates, inverted (white particles), freed of the
    background's gradient, scaled down if asked, and divided by the background's standard deviation. Particles whose
    box leaves the micrograph, and micrographs that cannot be read, are set aside with a warning that counts them.

    Parameters
    ----------
    micrographs : path, pattern, list, or Micrograph
        ``"mics/*.tif"``, a folder, a STAR file with rlnMicrographName (and CTFs), or objects in memory.
    picks : path, list of paths, Picks, mapping or Particles
        Coordinates: see :func:`verglas.io.read_picks`. A particle STAR file with coordinates, or ``Particles``, keeps
        poses, classes and half sets, and its CTFs unless ``ctf`` or the micrographs bring others.
    box : int
        Side in pixels of the micrograph.
    settings : ExtractOptions, optional
        How; further keywords (``pixel_size_A``, ``diameter_A``, ``new_pixel_size_A``, ``flip_y``, ...) change its
        fields.
    out : path, optional
        Folder to write: one stack per micrograph under ``stacks/``, ``particles.star``, ``excluded.csv``,
        ``verdict.json``, ``report.html``. Without it the images stay in memory.
    ctf : path, optional
        CTFs of the micrographs: see :func:`verglas.io.read_ctf_table`.
    threads : int, optional
        Micrographs worked on at a time; the result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    Particles
        In the order of the micrographs and of their picks.

    Raises
    ------
    InputError
        No micrograph matches the coordinates, no particle is left, the pixel size is unknown.
    FormatError
        A file of coordinates or CTFs breaks its format.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> m = vg.Micrograph(np.random.default_rng(0).normal(size=(100, 120)), 1.5, "a.tif")
    >>> p = vg.extract(m, vg.types.Picks([[60, 50], [59.6, 40]], "a.tif"), 32)
    >>> len(p), p.box, p.pixel_size_A, p.table.rlnCoordinateX.tolist()
    (2, 32, 1.5, [60, 60])
    """
    resolved_settings = settings_from("extract", ExtractOptions, settings, **changes)
    result = extract_files(micrographs, picks, box, resolved_settings, out, ctf=ctf, threads=threads, listener=listener)
    if result.excluded:
        first = result.excluded[0]
        n_lost = result.asked - len(result.particles)
        where = f"{first.micrograph}, particle {first.pick} (from 0)" if first.pick >= 0 else first.micrograph
        warnings.warn(
            f"extract: {n_lost} of {result.asked} particles were set aside; the first: {where}: "
            f"{without_name(first.reason, first.micrograph)}",
            VerglasWarning,
            stacklevel=2,
        )
    return result.particles


@keeps_inputs("extract")
def extract_files(
    micrographs: Micrographs,
    picks: Coordinates,
    box: int,
    options: ExtractOptions,
    out: str | os.PathLike[str] | None = None,
    *,
    ctf: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
) -> ExtractSummary:
    """As :func:`extract`, with an account of what was set aside."""
    start_time = time.perf_counter()
    table, loaded = micrograph_table(micrographs, options, ctf)
    folder = None if out is None else Path(out)
    by_name = all_picks(picks)
    todo, unknown, without = assign_picks(table, by_name)
    asked = _Asked(table, loaded, by_name, todo, unknown, without, box, options, folder, threads)
    with shown_to(listener) as heard:
        if folder is None:
            return _cut_all(asked, heard, start_time)
        settings = {"box": box} | {name: value for name, value in asdict(options).items() if value is not None}
        with tenure(folder, "extract", heard, record={"settings": settings}) as hold:
            hold.write(state="running")
            make_folder(folder / "stacks")
            return _cut_all(asked, hold, start_time)


@dataclass(frozen=True)
class _Asked:
    """What is cut out of what; ``loaded`` are micrographs that are no files, ``todo`` picks by row of the list."""

    table: pd.DataFrame
    loaded: Mapping[int, Micrograph]
    by_name: Mapping[str, Picks]
    todo: Mapping[int, Picks]
    unknown: list[str]
    without: list[str]
    box: int
    options: ExtractOptions
    folder: Path | None
    threads: int | None


def _cut_all(asked: _Asked, heard: Listener, start_time: float) -> ExtractSummary:
    table, loaded, by_name, folder = asked.table, asked.loaded, asked.by_name, asked.folder
    box, options = asked.box, asked.options
    todo, unknown, without = asked.todo, asked.unknown, asked.without
    n_picks = sum(len(p) for p in by_name.values())
    exclusions = [
        UnusedPick(name, -1, np.nan, np.nan, f"no such micrograph ({len(by_name[name])} particles)") for name in unknown
    ]
    pieces: list[Piece] = []
    images: list[npt.NDArray[np.float32]] = []
    stacks = stack_names(table)
    work = in_order(lambda row: cut_one(table, loaded, row, todo[row], box, options), list(todo), asked.threads)
    for number, piece in enumerate(work, 1):
        exclusions += _excluded_rows(table, piece)
        if piece.cut is not None and len(piece.cut.kept):
            if folder is None:
                images.append(piece.cut.images)
            else:
                stack = write_piece(folder, stacks[piece.row], piece, options.dtype)
                piece.name = written_name(folder / stack, folder)
            # The images are on disk: kept, those of all micrographs would fill the memory.
            piece.cut = Cut(piece.cut.images[:0], piece.cut.kept, piece.cut.centres_px, {})
            pieces.append(piece)
        heard.progress("micrographs", number, len(todo))
    if not pieces:
        first = "".join(
            f"; the first: {one.micrograph}: {without_name(one.reason, one.micrograph)}" for one in exclusions[:1]
        )
        xy = np.concatenate([picks_of.xy_px for picks_of in by_name.values()])
        if len(xy) and xy.min() >= 0 and xy.max() <= 1:
            first += "; all coordinates lie between 0 and 1: are they fractions of the image? expected pixels"
        raise InputError(f"extract: no particle could be cut out of {len(table)} micrographs{first}")
    # Names in a STAR file are as seen from its folder, or it could not be moved with its micrographs.
    if folder is not None and not loaded:
        table[MICROGRAPH] = [written_name(path, folder) for path in table[PATH]]
    particles = particles_of(table, pieces, images, keep_defoci=options.keep_defoci)
    if folder is not None:
        write_particles(folder / "particles.star", particles)
        write_excluded(folder / "excluded.csv", exclusions)
        # As written: the images are read from the stacks, not held.
        particles = read_particles(folder / "particles.star")
    excess = np.concatenate([piece.excess for piece in pieces])
    # a micrograph that is not there is one line for all its picks
    losses = [
        (one.micrograph, one.reason)
        for one in exclusions
        for _ in range(len(by_name[one.micrograph]) if one.pick < 0 else 1)
    ]
    contrast = np.concatenate([piece.contrast for piece in pieces])
    elsewhere = sum(len(by_name[name]) for name in unknown)
    verdict = judge_extraction(len(particles), n_picks, commonest_kind(losses), contrast, elsewhere=elsewhere)
    if "rlnDefocusU" not in particles.table:
        notes = [*verdict.findings, _without_ctfs()]
        verdict = Verdict.of_notes(notes, {})
    summary = ExtractSummary(particles, n_picks, exclusions, without, excess, verdict, time.perf_counter() - start_time)
    if folder is not None:
        write_json(folder / "verdict.json", summary.as_dict())
        write_extract_page(folder)
    return summary


def _without_ctfs() -> Finding:
    return Finding(
        "no_ctf",
        "warn",
        "no CTF of any micrograph is known, so the particles have none: no map of them goes beyond the first zero; "
        f"fit CTFs (verglas ctf) and give them ({file_rules().word('ctf')})",
    )


# ---- one micrograph


def cut_one(
    table: pd.DataFrame, loaded: Mapping[int, Micrograph], row: int, picks: Picks, box: int, options: ExtractOptions
) -> Piece:
    """Read one micrograph and cut its particles; what is wrong with the file becomes ``problem``."""
    piece = Piece(row, picks)
    if "rlnDefocusU" in table and not np.isfinite(table["rlnDefocusU"][row]):
        piece.problem = f"{table[MICROGRAPH][row]}: no CTF in the list or table of CTFs"
        return piece
    header_A = float(table[PIXEL][row]) if PIXEL in table else None
    try:
        listed = options.pixel_size_A is None  # else asked for
        table_A = header_A if header_A is not None and np.isfinite(header_A) else None
        micrograph = loaded[row] if row in loaded else read_micrograph(table[PATH][row], table_A, listed=listed)
        share = bad_share(table, row, micrograph.shape)
    except (VerglasError, OSError, ValueError, MemoryError) as error:
        piece.problem = str(error)
        return piece
    pixel_A = header_A if header_A is not None and np.isfinite(header_A) else micrograph.pixel_size_A
    if not np.isfinite(pixel_A):
        raise InputError(
            f"{table[PATH][row]}: the pixel size is unknown: neither file nor list has it; "
            "give pixel_size_A (--pixel-size)"
        )
    settings = ExtractSettings(
        box,
        pixel_A,
        options.new_pixel_size_A,
        options.new_box,
        options.diameter_A,
        options.invert,
        options.ramp,
        options.edge,
    )
    data = micrograph.data
    if not np.isfinite(data).any() or np.nanmin(data) == np.nanmax(data):
        piece.problem = f"{table[PATH][row]}: all pixels are {data.flat[0]:g}"
        return piece
    if options.flip_y:
        picks = picks.flipped_y(micrograph.shape[0])
    exact = picks
    if options.recentre and all(label in picks.columns for label in col.SHIFTS_A):
        shifts = np.column_stack([picks.columns[label] for label in col.SHIFTS_A]).astype(np.float64)
        # the particle sits at minus the shift (docs/conventions.md, Shifts)
        exact = Picks(picks.xy_px - shifts / pixel_A, picks.micrograph, picks.columns)
    result = cut_particles(micrograph, exact, settings, bad_share=share)
    piece.picks, piece.cut, piece.settings = exact, result, settings
    if exact is not picks:
        piece.shifts_A = (result.centres_px - exact.xy_px[result.kept]) * pixel_A
    radius = settings.radius_px
    circle_px = None if radius is None else radius * pixel_A / settings.plan.pixel_size_A
    piece.excess = background_excess(result.images, circle_px)
    piece.contrast = centre_contrast(result.images, circle_px)
    return piece


def _excluded_rows(table: pd.DataFrame, piece: Piece) -> list[UnusedPick]:
    name = table[MICROGRAPH][piece.row]
    if piece.cut is None:
        return [UnusedPick(name, i, float(x), float(y), piece.problem) for i, (x, y) in enumerate(piece.picks.xy_px)]
    xy = piece.picks.xy_px
    return [UnusedPick(name, i, float(xy[i, 0]), float(xy[i, 1]), why) for i, why in piece.cut.excluded.items()]
