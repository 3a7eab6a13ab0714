"""Movies to micrographs in files: each corrected, weighted by dose, with its motion as RELION reads it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment import judge_movies
from verglas.detector import frame_totals, place_gain
from verglas.errors import InputError
from verglas.io import find_movies, read_json, write_csv, write_json, write_micrographs
from verglas.io.acquisition import acquisition_tree
from verglas.io.micrographs import PATH, PIXEL, SHARED
from verglas.io.mrc import PathLike
from verglas.io.rules import written_name
from verglas.motion import MotionSettings, correct_motion
from verglas.optics import beam_shift_groups
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.live_page import LivePage
from verglas.run.micrograph_pages import PAGE, motion_page_of, write_motion_page
from verglas.run.motion_files import FOLDERS, PARTS, MovieFiles
from verglas.run.movie_pattern import CODE, PatternFile
from verglas.run.movies import acquisition_of, as_gain, read_movie
from verglas.run.tenure import Tenure, tenure
from verglas.types.listener import Listener
from verglas.types.settings import result_settings, setting, settings_from
from verglas.types.verdict import Verdict

__all__ = ["MotionSummary", "MovieSettings", "correct_movies"]

_PLACING_FRAMES = 20
_KNOWN = ("pixel_size_A", "dose_per_frame_e_A2", "voltage_kV", "pre_exposure_e_A2")  # of a movie, when it is read


@dataclass(frozen=True)
class MovieSettings(MotionSettings):
    """How movies in files are read, corrected and written.

    Attributes
    ----------
    placement : str
        Of the gain; ``"auto"`` finds it once, in the first movie, for all.
    frames_per_fraction, upsampling, flip_y
        As in :func:`verglas.read_movie`.
    mrc_bytes : str
        What bytes of MRC mode 0 are: ``"unsigned"`` (counts from 0 to 255), ``"signed"``, or ``"auto"``, what the
        header says, else signed, so that movies with values below 0 are refused.
    dtype : "float32" or "float16"
        Of the micrographs.
    cs_mm, amplitude_contrast : float, optional
        Of the microscope, for the optics table.
    """

    placement: str = setting(
        "auto", "How the gain lies: auto finds it; else 0, 90, 180 or 270 degrees, with -flip columns reversed"
    )
    frames_per_fraction: int | None = setting(
        None, "Recorded frames to sum", at_least=1, default_words="EER: by exposure; else 1"
    )
    upsampling: Literal[1, 2, 4] = setting(1, "Of EER movies")
    flip_y: bool = setting(False, "Reverse the rows, as RELION reads TIFF movies")
    mrc_bytes: Literal["auto", "signed", "unsigned"] = setting(
        "auto", "Bytes of MRC mode 0: auto, as the header says; unsigned counts from 0 to 255"
    )
    dtype: Literal["float32", "float16"] = setting("float32", "Of the micrographs")
    cs_mm: float | None = setting(None, "Spherical aberration, for the STAR file", at_least=0, changes_result=False)
    amplitude_contrast: float | None = setting(
        None, "Fraction, for the STAR file", at_least=0, at_most=1, changes_result=False
    )

    @property
    def reading(self) -> dict[str, Any]:
        """Keywords of :func:`verglas.read_movie`: what is known, and how frames are made."""
        values = {name: getattr(self, name) for name in (*_KNOWN, "frames_per_fraction")}
        inputs = {name: value for name, value in values.items() if value is not None}
        if self.mrc_bytes != "auto":
            inputs["unsigned_bytes"] = self.mrc_bytes == "unsigned"
        return {**inputs, "upsampling": self.upsampling, "flip_y": self.flip_y}

    @property
    def correction(self) -> MotionSettings:
        """Settings of the correction; what was read with a movie is the movie's."""
        return MotionSettings(**{f.name: getattr(self, f.name) for f in fields(MotionSettings) if f.name not in _KNOWN})


@dataclass(frozen=True)
class MovieSession:
    """What all movies of a session share.

    Attributes
    ----------
    settings : MovieSettings
    gain, defects : path, optional
    threads : int, optional
    metadata : path, optional
        Folder below which EPU's XML and SerialEM's mdoc files lie, where they do not lie beside the movies.
    """

    settings: MovieSettings
    gain: PathLike | None = None
    defects: PathLike | None = None
    threads: int | None = None
    metadata: PathLike | None = None

    @property
    def where_metadata_lie(self) -> PathLike | bool:
        """As :func:`verglas.read_movie` is told: below a folder, or beside the movie."""
        return True if self.metadata is None else self.metadata

    def record(self) -> dict[str, Any]:
        """What a run must agree in with the one that it goes on from: all that changes a pixel."""
        inputs = {"gain": self.gain, "defects": self.defects}
        texts = {name: None if value is None else str(value) for name, value in inputs.items()}
        # No entry where none is given: folders of earlier versions have none, and their sums are found by it.
        tree = {} if self.metadata is None else {"metadata": str(self.metadata)}
        return {**result_settings(self.settings), **texts, **tree}


@dataclass(frozen=True)
class MotionSummary:
    """What came of the movies.

    Attributes
    ----------
    table : DataFrame
        A row per corrected movie: its names, model, path lengths in A, flags.
    kept : int
        Movies of the table that had been corrected before.
    excluded : dict of str -> str
        Movies that could not be corrected, each with the reason.
    folder : Path
    placement : str
        How the gain lies.
    fixed_pattern : dict or None
        Whether the sums of different movies agree as recorded, which only the detector's own pattern can: is_there,
        share of what steers the shifts, sigmas, movies, sentence. None of fewer than three movies.
    verdict : Verdict
        Of the set: how many were set aside or flagged, and whether they were recorded alike.
    """

    table: pd.DataFrame
    excluded: dict[str, str]
    folder: Path
    placement: str
    kept: int = 0
    fixed_pattern: dict[str, Any] | None = None
    verdict: Verdict = field(default_factory=lambda: Verdict("go on"))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {str(k): None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
            for row in self.table.drop(columns=PATH).to_dict("records")
        ]
        return {
            "movies": rows,
            "corrected": len(rows),
            "kept": self.kept,
            "set_aside": len(self.excluded),
            "excluded": self.excluded,
            "folder": str(self.folder),
            "placement": self.placement,
            "fixed_pattern": self.fixed_pattern,
            "verdict": self.verdict.as_dict(),
        }


@keeps_inputs("motion")
def correct_movies(
    movies: PathLike | Iterable[PathLike],
    out: PathLike,
    settings: MovieSettings | None = None,
    *,
    gain: PathLike | None = None,
    defects: PathLike | None = None,
    metadata: PathLike | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> MotionSummary:
    """Correct movies, one after the other.

    A movie that cannot be corrected is set aside with the reason, and the rest goes on. ``out`` then holds
    ``micrographs/<name>.mrc`` (weighted by dose where it is known, else the plain sum), ``<name>_noDW.mrc`` beside
    it, ``<name>_EVN.mrc`` and ``<name>_ODD.mrc`` where asked for, ``<name>.star`` with the motion in RELION's layout,
    ``micrographs.star`` that names them, ``report.html``, ``motion.csv`` and ``excluded.csv``. The same call again goes
    on: movies that are corrected already are kept, those set aside are tried again.

    Parameters
    ----------
    movies : path, pattern, folder, or several
    out : path
        Folder; it is made.
    settings : MovieSettings, optional
        Further keywords (``dose_per_frame_e_A2=1.0``) change its fields.
    gain : path, optional
        Gain reference.
    defects : path or ``"auto"``, optional
        Bad pixels.
    metadata : path, optional
        Folder below which EPU's XML and SerialEM's mdoc files lie; by default they are looked for beside the movies.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    MotionSummary

    Raises
    ------
    InputError
        No movies, two with one name, a gain that no placement makes fit, not one movie that can be corrected, or a
        folder of micrographs that were made with other settings.
    """
    session = MovieSession(
        settings_from("motion", MovieSettings, settings, **changes), gain, defects, threads, metadata
    )
    if metadata is not None:
        acquisition_tree(str(metadata))  # a folder that is not there is refused once, not by every movie
    folder = Path(out)
    paths = find_movies(movies)
    _check_names(paths)
    record = session.record()
    placement = _former_placement(folder, record)
    with shown_to(listener) as screen, tenure(folder, "motion", screen, record={"settings": record}) as hold:
        if placement is not None:
            session = replace(session, settings=replace(session.settings, placement=placement))
        session = with_placed_gain(paths, session, hold)
        hold.write(state="running", placement=session.settings.placement)
        for name in FOLDERS:
            (folder / name).mkdir(exist_ok=True)
        page = LivePage(folder / PAGE, hold.say)
        try:
            rows, reasons, n_kept = _correct_each(paths, folder, session, hold, page)
        finally:
            page.stop()
        summary = _write_account(rows, reasons, folder, session)
        if rows:
            write_motion_page(folder)
        if not rows:
            raise InputError(f"none of {len(paths)} movies can be corrected; the first: {next(iter(reasons.values()))}")
        if summary.fixed_pattern is not None and summary.fixed_pattern["is_there"]:
            hold.note(CODE, summary.fixed_pattern["sentence"])
        return replace(summary, kept=n_kept)


def _former_placement(folder: Path, record: Mapping[str, Any]) -> str | None:
    """How the gain was placed by the run that this one goes on from; None where nothing was made yet.

    Raises
    ------
    InputError
        Another job's folder, or micrographs made with other settings: a set must not be a mixture.
    """
    path = folder / "run.json"
    had = read_json(path) if path.is_file() else {}
    if had and had.get("command") != "motion":
        raise InputError(f"{folder}: holds a run of {had.get('command')}; name another folder")
    # Nothing was made yet: what an earlier attempt was asked binds nobody.
    if not any((folder / "micrographs").glob("*.json")):
        return None
    # a setting that an earlier version did not have was at its default
    before = {**result_settings(MovieSettings()), **had.get("settings", {})}
    changes = [
        f"{name}: was {before.get(name)}, now {value}" for name, value in record.items() if before.get(name) != value
    ]
    changes += [f"{name}: was {value}, not given now" for name, value in before.items() if name not in record]
    if changes:
        raise InputError(
            f"{folder}: holds micrographs made with other settings ({'; '.join(changes)}); give the same, or name "
            "another folder"
        )
    return had.get("placement")


def _correct_each(
    paths: list[Path], folder: Path, session: MovieSession, hold: Tenure, page: LivePage
) -> tuple[list[dict[str, Any]], dict[str, str], int]:
    """Rows of the movies that were corrected, why the others were not, and how many had been corrected before."""
    rows, reasons, n_kept = list[dict[str, Any]](), dict[str, str](), 0
    for number, path in enumerate(paths):
        hold.progress("movies", number, len(paths))
        files = MovieFiles(folder, path, path.stem)
        row = files.kept_row()
        if row is not None:
            rows.append(row)
            n_kept += 1
            continue
        try:
            rows.append(_correct(files, session, hold))
        # A movie that cannot be read does not end the session; a fault of the program does.
        except (InputError, OSError) as error:
            reasons[str(path)] = str(error)
            hold.note("excluded", str(error))
            continue
        if time.monotonic() >= page.next:
            _write_account(rows, reasons, folder, session)
            page.show(motion_page_of, folder)
    hold.progress("movies", len(paths), len(paths))
    if n_kept:
        hold.say(f"{n_kept} of {len(paths)} movies had been corrected before and were kept")
    return rows, reasons, n_kept


def _write_account(
    rows: list[dict[str, Any]], excluded: dict[str, str], folder: Path, session: MovieSession
) -> MotionSummary:
    """Lists and table of what has been done so far."""
    write_csv(folder / "excluded.csv", {"movie": [*excluded], "reason": [*excluded.values()]})
    good = [{**{k: v for k, v in row.items() if k not in ("parts", "beam_shift")}, "reason": ""} for row in rows]
    bad = [{"movie": movie, "reason": reason, "flags": ""} for movie, reason in excluded.items()]
    (every, verdict), pattern = judge_movies(pd.DataFrame([*good, *bad])), None
    # of movies unlike the others, which their own records cannot say
    rows = [{**row, "flags": flags} for row, flags in zip(rows, every["flags"][: len(rows)], strict=True)]
    write_csv(folder / "motion.csv", {str(c): every[c].to_numpy() for c in every})
    names = [Path(row["movie"]).stem for row in rows]
    table = star_table(rows, names, folder, session.settings) if rows else pd.DataFrame({PATH: []})
    if rows:
        write_motion_table(folder / "micrographs.star", table)
        pattern = PatternFile.of(folder, session.record()).summary()
    placement = session.settings.placement
    summary = MotionSummary(table, excluded, folder, placement, fixed_pattern=pattern, verdict=verdict)
    write_json(folder / "motion.json", {k: v for k, v in summary.as_dict().items() if k != "movies"})
    return summary


def write_motion_table(path: Path, table: pd.DataFrame) -> None:
    """``micrographs.star`` of :func:`star_table`, without what is ours alone."""
    write_micrographs(path, table.drop(columns=["movie", "model", "frames", "bad_pixels", "flags"]))


def star_table(rows: list[dict[str, Any]], names: list[str], folder: Path, settings: MovieSettings) -> pd.DataFrame:
    """What the STAR file says of every micrograph, as RELION's corrected_micrographs.star does.

    Parameters
    ----------
    rows : list of dict
        Of the movies, as their records hold them.
    names : list of str
        Of their files.
    folder : Path
    settings : MovieSettings
    """
    columns: dict[str, Any] = {}
    files = [MovieFiles(folder, Path(row["movie"]), name) for row, name in zip(rows, names, strict=True)]
    for label, ending in PARTS.items():
        # A STAR table has no empty cells: a part that one movie lacks is no column.
        if all(label in row["parts"] for row in rows):
            columns[label] = [written_name(f.part(ending), folder) for f in files]
    columns[PATH] = [str(f.part(".mrc")) for f in files]
    columns[PIXEL] = [row[PIXEL] for row in rows]
    columns["rlnMicrographOriginalPixelSize"] = [row["original_pixel_size_A"] for row in rows]
    microscope = ([row["voltage_kV"] for row in rows], settings.cs_mm, settings.amplitude_contrast)
    for label, value in zip(SHARED, microscope, strict=True):
        values = value if isinstance(value, list) else [value] * len(rows)
        if all(v is not None for v in values):
            columns[label] = values
    totals = [_star_values(row) for row in rows]
    for label in (f"rlnAccumMotion{name}" for name in ("Total", "Early", "Late")):
        columns[label] = [values[label] for values in totals]
    columns["rlnOpticsGroupName"] = _optics_groups(rows)
    columns |= {name: [row[name] for row in rows] for name in ("movie", "model", "frames", "bad_pixels", "flags")}
    return pd.DataFrame(columns)


def _optics_groups(rows: list[dict[str, Any]]) -> list[str]:
    """Names of optics groups: by beam shift where metadata tell it, else by the place in a pattern of holes."""
    shifts = [row["beam_shift"] for row in rows]
    if all(shift is not None for shift in shifts):
        return [f"opticsGroup{group + 1}" for group in beam_shift_groups(np.array(shifts))]
    holes = [row["hole"] for row in rows]
    if all(hole is not None for hole in holes):
        names = {hole: f"opticsGroup{i + 1}" for i, hole in enumerate(sorted(set(holes)))}
        return [names[hole] for hole in holes]
    return ["opticsGroup1"] * len(rows)


def _correct(files: MovieFiles, session: MovieSession, heard: Listener) -> dict[str, Any]:
    settings, gain = session.settings, None if session.gain is None else str(session.gain)
    files.check_names()
    # Read once: a file that comes in between would tell the frames one thing and the optics groups another.
    acquisition = acquisition_of(files.movie, session.metadata)
    movie = read_movie(
        files.movie,
        session.gain,
        session.defects,
        placement=settings.placement,
        keep_bytes=settings.keep_bytes,
        metadata=False if acquisition is None else acquisition,
        **settings.reading,
    )
    result = correct_motion(movie, settings.correction, threads=session.threads, listener=heard)
    # before the record of the movie, which says that all else is there
    PatternFile.of(files.folder, session.record()).add(files.stem, result.recorded)
    return files.write(movie, result, settings.correction, gain, settings.dtype, acquisition)


def correct_movie(path: Path, folder: Path, stem: str, session: MovieSession, listener: Listener) -> dict[str, Any]:
    """Correct one movie and write what belongs to it into the :data:`FOLDERS` of a folder; its row.

    Parameters
    ----------
    path : Path
    folder : Path
    stem : str
        Of the files.
    session : MovieSession
        With a placement of the gain that is known (:func:`with_placed_gain`).
    listener : Listener

    Raises
    ------
    InputError, OSError
        The movie cannot be read or corrected.
    """
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    row = _correct(MovieFiles(folder, path, stem), session, listener)
    return {name: value for name, value in row.items() if not isinstance(value, list)} | _star_values(row)


def _star_values(row: dict[str, Any]) -> dict[str, Any]:
    """Motion in angstroms and voltage under RELION's labels."""
    pixel_A = row["original_pixel_size_A"]
    values = {f"rlnAccumMotion{name.title()}": row[f"{name}_px"] * pixel_A for name in ("total", "early", "late")}
    return values | ({} if row["voltage_kV"] is None else {"rlnVoltage": row["voltage_kV"]})


def _check_names(paths: list[Path]) -> None:
    sources: dict[str, Path] = {}
    for path in paths:
        if path.stem in sources:
            raise InputError(f"{path} and {sources[path.stem]} would give micrographs of one name; rename one of them")
        sources[path.stem] = path


def with_placed_gain(paths: list[Path], session: MovieSession, tell: Listener) -> MovieSession:
    """The placement found in the first movie that can be read; every movie of a session has the same."""
    settings = session.settings
    if session.gain is None or session.settings.placement != "auto":
        return session if session.gain is not None else replace(session, settings=replace(settings, placement="0"))
    reason = ""
    for path in paths:
        try:
            movie = read_movie(path, metadata=session.where_metadata_lie, **session.settings.reading)
            total, _ = frame_totals([movie], most_frames=_PLACING_FRAMES)
        except (InputError, OSError) as error:
            # The first reason: those of the other movies are mostly the same.
            reason = reason or str(error)
            continue
        placement = place_gain(total, as_gain(session.gain))
        tell.say(placement.sentence)
        return replace(session, settings=replace(settings, placement=placement.placement))
    raise InputError(f"none of {len(paths)} movies can be read; the first: {reason}")
