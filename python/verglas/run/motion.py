"""Movies to micrographs in files: each corrected, weighted by dose, with its motion as RELION reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.detector import frame_totals, place_gain
from verglas.errors import InputError
from verglas.io import find_movies, write_csv, write_json, write_micrograph, write_micrographs, write_motion_star
from verglas.io.mrc import PathLike
from verglas.motion import CorrectedMovie, MotionSettings, correct_motion
from verglas.run.movies import as_gain, read_movie
from verglas.types import Movie
from verglas.types.listener import Listener
from verglas.types.settings import setting, settings_from
from verglas.types.trajectory import Trajectory

__all__ = ["MotionSummary", "MovieSettings", "correct_movies"]

_EARLY_E_A2 = 4.0  # RELION's limit between early and late motion
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
    dtype : "float32" or "float16"
        Of the micrographs.
    """

    placement: str = setting("auto", "Of the gain: auto finds it; 0, 90-flip, ...")
    frames_per_fraction: int | None = setting(
        None, "Recorded frames to sum", at_least=1, default_words="EER: by exposure; else 1"
    )
    upsampling: Literal[1, 2, 4] = setting(1, "Of EER movies")
    flip_y: bool = setting(False, "Reverse the rows, as RELION reads TIFF movies")
    dtype: Literal["float32", "float16"] = setting("float32", "Of the micrographs")

    @property
    def reading(self) -> dict[str, Any]:
        """Keywords of :func:`verglas.read_movie`: what is known, and how frames are made."""
        known = {name: getattr(self, name) for name in (*_KNOWN, "frames_per_fraction")}
        given = {name: value for name, value in known.items() if value is not None}
        return {**given, "upsampling": self.upsampling, "flip_y": self.flip_y}

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
    """

    settings: MovieSettings
    gain: PathLike | None = None
    defects: PathLike | None = None
    threads: int | None = None


@dataclass(frozen=True)
class MotionSummary:
    """What came of the movies.

    Attributes
    ----------
    table : DataFrame
        A row per corrected movie: its names, model, path lengths in A, flags.
    excluded : dict of str -> str
        Movies that could not be corrected, each with the reason.
    folder : Path
    placement : str
        How the gain lies.
    """

    table: pd.DataFrame
    excluded: dict[str, str]
    folder: Path
    placement: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = self.table.drop(columns="path").to_dict("records")
        return {"movies": rows, "excluded": self.excluded, "folder": str(self.folder), "placement": self.placement}


def correct_movies(
    movies: PathLike | Iterable[PathLike],
    out: PathLike,
    settings: MovieSettings | None = None,
    *,
    gain: PathLike | None = None,
    defects: PathLike | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> MotionSummary:
    """Correct movies, one after the other.

    A movie that cannot be corrected is set aside with the reason, and the rest goes on. ``out`` then holds
    ``micrographs/<name>.mrc`` (weighted by dose where it is known, else the plain sum), ``<name>_noDW.mrc`` beside
    it, ``<name>.star`` with the motion in RELION's layout, ``micrographs.star`` that names them, ``motion.csv`` and
    ``excluded.csv``.

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
        No movies, two with one name, a gain that no placement makes fit, or not one movie that can be corrected.
    """
    session = MovieSession(settings_from("motion", MovieSettings, settings, **changes), gain, defects, threads)
    folder = Path(out)
    paths = find_movies(movies)
    _check_names(paths)
    (folder / "micrographs").mkdir(parents=True, exist_ok=True)
    with shown_to(listener) as heard:
        session = with_placed_gain(paths, session, heard)
        rows, excluded = _correct_each(paths, folder, session, heard)
    write_csv(folder / "excluded.csv", {"movie": [*excluded], "reason": [*excluded.values()]})
    if not rows:
        raise InputError(f"none of {len(paths)} movies can be corrected; the first: {next(iter(excluded.values()))}")
    table = pd.DataFrame(rows)
    stars = [c for c in table if str(c).startswith("rln")]
    write_micrographs(folder / "micrographs.star", table[[*stars, "path"]])
    write_csv(folder / "motion.csv", {str(c): table[c].to_numpy() for c in table if c != "path"})
    summary = MotionSummary(table, excluded, folder, session.settings.placement)
    write_json(folder / "motion.json", {k: v for k, v in summary.as_dict().items() if k != "movies"})
    return summary


def _correct_each(
    paths: list[Path], folder: Path, session: MovieSession, heard: Listener
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of the movies that were corrected, and why the others were not."""
    rows, excluded = list[dict[str, Any]](), dict[str, str]()
    for number, path in enumerate(paths):
        heard.progress("movies", number, len(paths))
        try:
            rows.append(correct_movie(path, folder, path.stem, session, heard))
        except (InputError, OSError) as error:
            excluded[str(path)] = str(error)
            heard.note("excluded", str(error))
    heard.progress("movies", len(paths), len(paths))
    return rows, excluded


def correct_movie(path: Path, folder: Path, stem: str, session: MovieSession, listener: Listener) -> dict[str, Any]:
    """Correct one movie and write what belongs to it into ``micrographs/`` of a folder; its row of the table.

    Parameters
    ----------
    path : Path
    folder : Path
        ``micrographs/`` in it must exist.
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
    chosen = session.settings
    movie = read_movie(path, session.gain, session.defects, placement=chosen.placement, **chosen.reading)
    corrected = correct_motion(movie, chosen.correction, threads=session.threads, listener=listener)
    return _write(movie, corrected, folder / "micrographs" / f"{stem}.mrc", session)


def _check_names(paths: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        if path.stem in seen:
            raise InputError(f"{path} and {seen[path.stem]} would give micrographs of one name; rename one of them")
        seen[path.stem] = path


def with_placed_gain(paths: list[Path], session: MovieSession, tell: Listener) -> MovieSession:
    """The placement found in the first movie that can be read; every movie of a session has the same."""
    chosen = session.settings
    if session.gain is None or session.settings.placement != "auto":
        return session if session.gain is not None else replace(session, settings=replace(chosen, placement="0"))
    reason = ""
    for path in paths:
        try:
            movie = read_movie(path, **session.settings.reading)
            total, _ = frame_totals([movie], most_frames=_PLACING_FRAMES)
        except (InputError, OSError) as error:
            reason = reason or str(error)
            continue
        placed = place_gain(total, as_gain(session.gain))
        tell.say(placed.sentence)
        return replace(session, settings=replace(chosen, placement=placed.placement))
    raise InputError(f"none of {len(paths)} movies can be read; the first: {reason}")


def _write(movie: Movie, corrected: CorrectedMovie, path: Path, session: MovieSession) -> dict[str, Any]:
    """Write what belongs to one movie; its row of the table."""
    best = corrected.dose_weighted or corrected.micrograph
    write_micrograph(path, best, session.settings.dtype)
    if corrected.dose_weighted is not None:
        write_micrograph(path.with_name(f"{path.stem}_noDW.mrc"), corrected.micrograph, session.settings.dtype)
    known = session.settings.correction.of(movie)
    trajectory = Trajectory.from_motion(
        corrected.motion, hot_pixels=movie.defects, movie=str(movie.path), binning=float(session.settings.bin_factor),
        gain=None if session.gain is None else str(session.gain), pixel_size_A=known.pixel_size_A,
        dose_per_frame_e_A2=known.dose_per_frame_e_A2, pre_exposure_e_A2=known.pre_exposure_e_A2,
        voltage_kV=known.voltage_kV,
    )  # fmt: skip
    write_motion_star(path.with_suffix(".star"), trajectory)
    steps_A = np.hypot(*np.diff(trajectory.global_px, axis=0).T) * known.pixel_size_A
    exposed = known.pre_exposure_e_A2 + np.arange(1, len(steps_A) + 1) * (known.dose_per_frame_e_A2 or np.nan)
    early = float(steps_A[exposed <= _EARLY_E_A2].sum())
    row: dict[str, Any] = {
        "rlnMicrographName": f"micrographs/{path.name}", "path": str(path),
        "rlnMicrographMetadata": f"micrographs/{path.stem}.star", "rlnMicrographPixelSize": best.pixel_size_A,
        "rlnAccumMotionTotal": float(steps_A.sum()), "rlnAccumMotionEarly": early,
        "rlnAccumMotionLate": float(steps_A.sum()) - early, "movie": str(movie.path), "model": corrected.model,
        "frames": len(movie), "bad_pixels": len(movie.defects), "flags": "; ".join(corrected.flags),
    }  # fmt: skip
    if known.voltage_kV is not None:
        row["rlnVoltage"] = known.voltage_kV
    return row
