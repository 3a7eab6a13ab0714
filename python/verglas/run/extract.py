"""Particles out of micrographs: reads micrographs, coordinates and CTFs, writes stacks and a STAR file."""

from __future__ import annotations

import csv
import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.micrographs import judge_extraction
from verglas.errors import InputError, SettingError, VerglasError, VerglasWarning
from verglas.extraction import Cut, ExtractSettings, background_excess, cut_particles
from verglas.io import (
    StackWriter,
    atomic_path,
    cs,
    find_micrographs,
    read_ctf_table,
    read_micrograph,
    read_particles,
    read_picks,
    read_star,
    write_json,
    write_particles,
)
from verglas.io.coordinates import MICROGRAPH, X, Y, match_names, picks_of_table, unique_stems
from verglas.io.micrographs import CTF, GRADIENT, PATH, PIXEL, SHARED, check_micrograph_names, join_ctf, optics_of
from verglas.io.rules import written_name
from verglas.optics.stored import stored_images
from verglas.run.extract_optics import aberration_columns, move_to_groups, settle_defoci
from verglas.run.parallel import in_order
from verglas.run.reasons import commonest_kind, without_name
from verglas.types import ArraySource, Micrograph, Particles, Picks
from verglas.types import _columns as col
from verglas.types.ctf_ranges import OPTIONS, check_ctf
from verglas.types.settings import check_settings, setting, settings_from
from verglas.types.verdict import Verdict

Micrographs = str | os.PathLike[str] | Micrograph | Sequence[Any]
Coordinates = str | os.PathLike[str] | Picks | Particles | Mapping[str, Picks] | Sequence[Any]

# Columns of an earlier extraction that a new one replaces.
_REPLACED = {
    "rlnImageName",
    "rlnImageSize",
    "rlnImagePixelSize",
    "rlnOpticsGroup",
    "rlnDetectorPixelSize",
    "rlnMagnification",
    "rlnOriginX",
    "rlnOriginY",
    "rlnNormCorrection",
    MICROGRAPH,
    X,
    Y,
}


@dataclass(frozen=True)
class Microscope:
    """What micrographs were recorded with, where no file says it; None: unknown.

    Attributes
    ----------
    pixel_size_A : float, optional
        Of the micrographs; takes precedence over their headers.
    voltage_kV, cs_mm, amplitude_contrast : float, optional
        Take precedence over STAR files and tables.
    """

    pixel_size_A: float | None = setting(None, "Of the micrographs", default_words="their headers'")
    voltage_kV: float | None = setting(None, "Accelerating voltage", default_words="the files'")
    cs_mm: float | None = setting(None, "Spherical aberration", default_words="the files'")
    amplitude_contrast: float | None = setting(None, "Fraction, as 0.07", default_words="the files'")

    def __post_init__(self) -> None:
        """Check ranges and units once."""
        try:
            check_ctf({name: getattr(self, name) for name in OPTIONS}, "microscope", OPTIONS)
        except InputError as error:  # a wrong call, not a wrong file
            raise SettingError("microscope", [("", str(error).removeprefix("microscope: "))]) from None

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """The list of micrographs with these values in its columns."""
        values = dict(
            zip(
                (PIXEL, *SHARED), (self.pixel_size_A, self.voltage_kV, self.cs_mm, self.amplitude_contrast), strict=True
            )
        )
        return table.assign(**{label: float(value) for label, value in values.items() if value is not None})


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
    excluded : list of (micrograph, place in its picks from 0 or -1 for all, x, y, reason)
        What was set aside.
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
    excluded: list[tuple[str, int, float, float, str]]
    without_picks: list[str]
    excess: npt.NDArray[np.float64]
    verdict: Verdict
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        excess = float(np.median(self.excess))
        reasons: dict[str, int] = {}
        for *_, reason in self.excluded:
            reasons[reason] = reasons.get(reason, 0) + 1
        return {
            "coordinates": self.asked,
            "particles": len(self.particles),
            "box": self.particles.box,
            "pixel_size_A": self.particles.pixel_size_A,
            "excluded": reasons,
            "micrographs_without_coordinates": len(self.without_picks),
            "median_background_excess": excess if np.isfinite(excess) else None,  # background of one value
            "verdict": self.verdict.as_dict(),
            "seconds": round(self.seconds, 2),
        }


@dataclass
class Piece:
    """One micrograph on its way: a row of the list, its picks, what was cut, or the problem that kept it from being."""

    row: int  # in the list of micrographs
    picks: Picks
    cut: Cut | None = None
    settings: ExtractSettings | None = None
    problem: str = ""
    shifts_A: npt.NDArray[np.float64] | None = None
    name: str = ""
    excess: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


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
        ``verdict.json``. Without it the images stay in memory.
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
        name, number, *_, reason = result.excluded[0]
        n_lost = result.asked - len(result.particles)
        where = f"{name}, particle {number} (from 0)" if number >= 0 else name
        warnings.warn(
            f"extract: {n_lost} of {result.asked} particles were set aside; the first: {where}: "
            f"{without_name(reason, name)}",
            VerglasWarning,
            stacklevel=2,
        )
    return result.particles


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
    table, loaded = _micrograph_table(micrographs, options, ctf)
    by_name = _all_picks(picks)
    todo, unknown, without = _assign(table, by_name)
    folder = None if out is None else _prepare(Path(out))
    n_picks = sum(len(p) for p in by_name.values())
    exclusions = [
        (name, -1, np.nan, np.nan, f"no such micrograph ({len(by_name[name])} particles)") for name in unknown
    ]
    pieces: list[Piece] = []
    images: list[npt.NDArray[np.float32]] = []
    stacks = _stack_names(table)
    work = in_order(lambda row: cut_one(table, loaded, row, todo[row], box, options), list(todo), threads)
    with shown_to(listener) as heard:
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
        first = (
            f"; the first: {exclusions[0][0]}: {without_name(exclusions[0][4], exclusions[0][0])}" if exclusions else ""
        )
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
    losses = [(row[0], row[4]) for row in exclusions for _ in range(len(by_name[row[0]]) if row[1] < 0 else 1)]
    verdict = judge_extraction(len(particles), n_picks, commonest_kind(losses))
    summary = ExtractSummary(particles, n_picks, exclusions, without, excess, verdict, time.perf_counter() - start_time)
    if folder is not None:
        write_json(folder / "verdict.json", summary.as_dict())
    return summary


# ---- input


def _micrograph_table(
    source: Micrographs, microscope: Microscope, ctf: str | os.PathLike[str] | None
) -> tuple[pd.DataFrame, dict[int, Micrograph]]:
    """The list of micrographs with CTFs, and those that are in memory already by row."""
    images: dict[int, Micrograph] = {}
    sources = [source] if isinstance(source, Micrograph) else source
    if isinstance(sources, list | tuple) and sources and all(isinstance(m, Micrograph) for m in sources):
        images = dict(enumerate(sources))
        names = [m.name or f"micrograph{i + 1}" for i, m in images.items()]
        table = pd.DataFrame({MICROGRAPH: names, PATH: names})
        check_micrograph_names(table)
    else:
        table = find_micrographs(sources)  # type: ignore[arg-type]
    if ctf is not None:
        table = join_ctf(table, read_ctf_table(ctf))
    return microscope.apply(table), images


def _all_picks(source: Coordinates) -> dict[str, Picks]:
    if isinstance(source, Picks):
        return {source.micrograph: source}
    if isinstance(source, Mapping):
        return {name: Picks(p.xy_px, name, p.columns) for name, p in source.items()}
    if isinstance(source, Particles):
        return picks_of_table(_with_optics(source), source.where)
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    by_name: dict[str, Picks] = {}
    for one in sources:
        more = {one.micrograph: one} if isinstance(one, Picks) else _read_one(Path(one))
        twice = next((name for name in more if name in by_name), None)
        if twice is not None:
            raise InputError(f"extract: two files of coordinates for micrograph {twice}; give one")
        by_name.update(more)
    if not by_name:
        raise InputError("extract: no coordinates given")
    return by_name


def _read_one(path: Path) -> dict[str, Picks]:
    """Coordinates of one file; of particles with everything else that is known of them."""
    if path.suffix.lower() == ".cs" and path.is_file() and "blob/path" in (cs.load(path).dtype.names or ()):
        return picks_of_table(_with_optics(read_particles(path)), str(path))
    if path.suffix.lower() == ".star" and path.is_file():
        tables = read_star(path)
        table = next((t for t in tables.values() if isinstance(t, pd.DataFrame) and X in t and MICROGRAPH in t), None)
        if table is not None:
            optics = tables.get("optics")
            groups = optics if isinstance(optics, pd.DataFrame) or optics is None else pd.DataFrame([optics])
            return picks_of_table(_with_optics(Particles(table, None, optics_table=groups, where=str(path))), str(path))
    return read_picks(path)


def _with_optics(particles: Particles) -> pd.DataFrame:
    """The particle table with voltage, Cs, amplitude contrast and aberrations of its groups, and shifts in angstrom."""
    particles = stored_images(particles)  # a refinement's own hold images without aberrations
    # Not deep: columns are added or replaced, none is written into.
    table = particles.table.copy(deep=False)
    parts = col.Tables(particles.table, particles.optics_table, particles.where)
    for label in SHARED:
        values = parts.value(label, optics_first=True)
        if values is not None:
            table[label] = values
    for label, values in aberration_columns(particles).items():
        table[label] = values
    poses = particles.poses
    if poses is not None:
        table[list(col.SHIFTS_A)] = poses.shifts_A
    return table


def _assign(table: pd.DataFrame, picks: Mapping[str, Picks]) -> tuple[dict[int, Picks], list[str], list[str]]:
    """Row of a micrograph -> its picks, in the order of the list; names of picks and micrographs left over."""
    names = list(picks)
    if len(table) == 1 and names == [""]:
        # Coordinates without a name can only be those of the one micrograph.
        names_at = np.zeros(1, np.int64)
    else:
        names_at = match_names(names, table[MICROGRAPH].tolist())
    by_row: dict[int, Picks] = {}
    for name, row in zip(names, names_at.tolist(), strict=True):
        if row >= 0 and row in by_row:
            raise InputError(f"extract: two sets of coordinates for micrograph {table[MICROGRAPH][row]}")
        if row >= 0:
            by_row[row] = picks[name]
    unknown = [name for name, row in zip(names, names_at.tolist(), strict=True) if row < 0]
    if not by_row:
        raise InputError(
            f"extract: none of the {len(names)} micrographs that have coordinates ({names[0]}, ...) is among the "
            f"{len(table)} given ({table[MICROGRAPH][0]}, ...)"
        )
    without = [table[MICROGRAPH][row] for row in range(len(table)) if row not in by_row]
    return dict(sorted(by_row.items())), unknown, without


def _prepare(folder: Path) -> Path:
    (folder / "stacks").mkdir(parents=True, exist_ok=True)
    return folder


def _stack_names(table: pd.DataFrame) -> list[str]:
    """Stack of each micrograph; equal names in several folders are numbered."""
    return [f"stacks/{name}" for name in unique_stems(list(table[PATH]), ".mrcs")]


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
        table_A = header_A if header_A is not None and np.isfinite(header_A) else None
        micrograph = loaded[row] if row in loaded else read_micrograph(table[PATH][row], table_A)
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
    result = cut_particles(micrograph, exact, settings)
    piece.picks, piece.cut, piece.settings = exact, result, settings
    if exact is not picks:
        piece.shifts_A = (result.centres_px - exact.xy_px[result.kept]) * pixel_A
    radius = settings.radius_px
    piece.excess = background_excess(
        result.images, None if radius is None else radius * pixel_A / settings.plan.pixel_size_A
    )
    return piece


def _excluded_rows(table: pd.DataFrame, piece: Piece) -> list[tuple[str, int, float, float, str]]:
    name = table[MICROGRAPH][piece.row]
    if piece.cut is None:
        return [(name, i, float(x), float(y), piece.problem) for i, (x, y) in enumerate(piece.picks.xy_px)]
    return [(name, i, *map(float, piece.picks.xy_px[i]), why) for i, why in piece.cut.excluded.items()]


# ---- output


def write_piece(folder: Path, name: str, piece: Piece, dtype: str) -> str:
    """Write the images of one micrograph as a stack; its name."""
    assert piece.cut is not None
    assert piece.settings is not None
    plan = piece.settings.plan
    with StackWriter(folder / name, len(piece.cut.images), plan.new_box, plan.pixel_size_A, dtype) as stack:
        stack.append(piece.cut.images)
    return name


def particles_of(
    table: pd.DataFrame,
    pieces: Sequence[Piece],
    images: Sequence[npt.NDArray[np.float32]],
    *,
    keep_defoci: bool = True,
) -> Particles:
    """One table of all particles, with the optics groups of their micrographs."""
    sources = table.iloc[[piece.row for piece in pieces]].reset_index(drop=True)
    sources[PIXEL] = [piece.settings.pixel_size_A for piece in pieces if piece.settings is not None]
    sources["_new_A"] = [piece.settings.plan.pixel_size_A for piece in pieces if piece.settings is not None]
    rows = [_rows(sources.iloc[i], piece) for i, piece in enumerate(pieces)]
    own = [
        {label: values[piece.cut.kept] for label, values in piece.picks.columns.items() if label in CTF}
        for piece in pieces
        if piece.cut is not None
    ]
    rows = settle_defoci(rows, own, keep=keep_defoci)
    for label in SHARED:  # of the coordinates' own file, where the micrographs say nothing
        if label not in sources and all(label in part for part in rows):
            sources[label] = [float(part[label].iloc[0]) for part in rows]
    optics, group = optics_of(sources)
    plan = pieces[0].settings.plan if pieces[0].settings else None
    assert plan is not None
    first = np.unique(group, return_index=True)[1]
    optics["rlnImagePixelSize"] = sources["_new_A"].to_numpy()[first]
    optics["rlnImageSize"] = plan.new_box
    optics["rlnImageDimensionality"] = 2
    optics["rlnCtfDataAreCtfPremultiplied"] = 0
    optics = optics.drop(columns=[PIXEL] if PIXEL in optics else [])
    body = pd.concat([part.assign(rlnOpticsGroup=g) for part, g in zip(rows, group, strict=True)], ignore_index=True)
    body, optics = move_to_groups(body.drop(columns=[label for label in SHARED if label in body]), optics)
    source = ArraySource(np.concatenate(images), plan.pixel_size_A) if images else None
    return Particles(body, source, optics_table=optics, where="extracted particles")


def _rows(micrograph: pd.Series[Any], piece: Piece) -> pd.DataFrame:
    """Metadata of the particles of one micrograph."""
    boxes = piece.cut
    assert boxes is not None
    assert piece.settings is not None
    count = len(boxes.kept)
    columns: dict[str, Any] = {X: boxes.centres_px[:, 0], Y: boxes.centres_px[:, 1]}
    if piece.name:
        columns["rlnImageName"] = [f"{i:06d}@{piece.name}" for i in range(1, count + 1)]
    columns[MICROGRAPH] = str(micrograph[MICROGRAPH])
    columns.update(_ctf_columns(micrograph, boxes, piece.settings.pixel_size_A))
    for label, values in piece.picks.columns.items():
        if label not in columns and label not in _REPLACED:
            columns[label] = values[boxes.kept]
    if piece.shifts_A is not None:
        columns.update(zip(col.SHIFTS_A, piece.shifts_A.T, strict=True))
    return pd.DataFrame(columns, index=pd.RangeIndex(count))


def _ctf_columns(micrograph: pd.Series[Any], boxes: Cut, pixel_A: float) -> dict[str, Any]:
    """CTF of each particle: the micrograph's, with the defocus of its place where a tilt plane is known."""
    values = {label: float(micrograph[label]) for label in CTF if label in micrograph and pd.notna(micrograph[label])}
    columns: dict[str, Any] = dict(values)
    if "rlnDefocusU" in values and all(label in micrograph for label in (*GRADIENT, "vgCentreX", "vgCentreY")):
        centre = np.array([float(micrograph["vgCentreX"]), float(micrograph["vgCentreY"])])
        slope = np.array([float(micrograph[label]) for label in GRADIENT])
        local = (boxes.centres_px - centre) * pixel_A @ slope
        for label in ("rlnDefocusU", "rlnDefocusV"):
            columns[label] = values[label] + local
    return columns


def write_excluded(path: Path, excluded: Iterable[tuple[str, int, float, float, str]]) -> None:
    """Write what was set aside: micrograph, place among its picks, coordinates, reason."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("micrograph", "pick", "x_px", "y_px", "reason"))
        writer.writerows(excluded)
