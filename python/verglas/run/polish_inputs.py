"""Which movie each particle is in, where its frames show it, and what does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verglas import fourier, image
from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io import read_json, read_micrographs
from verglas.io.coordinates import MICROGRAPH, X, Y, match_names
from verglas.io.micrographs import METADATA, PIXEL
from verglas.io.motion import read_motion_star, read_motioncor
from verglas.io.movies import summed_keywords
from verglas.io.mrc import PathLike
from verglas.io.rules import search_folders
from verglas.polishing import MovieParticles
from verglas.polishing.smoothing import LEAST_FRAMES
from verglas.run.movies import read_movie
from verglas.types import Movie, Particles
from verglas.types import _columns as col
from verglas.types.arrays import Complex64Array, FloatArray, IntArray
from verglas.types.trajectory import Trajectory

MOVIE = "rlnMicrographMovieName"
_SAME = 2e-3  # relative: pixel sizes of files are rounded


@dataclass(frozen=True, eq=False)
class RecordedMovie:
    """A movie that can be opened, and how its specimen moved.

    Attributes
    ----------
    micrograph : str
        What the particles call its sum.
    open : callable
        Gives the movie.
    trajectory : Trajectory
    micrograph_pixel_A : float or None
        Of the micrograph that the coordinates belong to; None: pixel size and binning of the trajectory say it.
    fingerprint : str
        Of the file and of how it is read, which a run that goes on must find again; empty where nobody knows.
    """

    micrograph: str
    open: Callable[[], Movie]
    trajectory: Trajectory
    micrograph_pixel_A: float | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class MovieReading:
    """How movies in files are read.

    Attributes
    ----------
    gain, defects : path, optional
        In place of what the trajectories name.
    placement : str
        Of the gain; "auto": as the run that corrected the movies had it, or found anew.
    flip_y : bool
        Reverse the rows, as RELION reads TIFF movies.
    """

    gain: PathLike | None = None
    defects: PathLike | None = None
    placement: str = "auto"
    flip_y: bool = False


def recorded_movies(source: PathLike, reading: MovieReading) -> list[RecordedMovie]:
    """Movies of a STAR file of corrected micrographs.

    Parameters
    ----------
    source : path
        With rlnMicrographName and rlnMicrographMetadata: RELION's corrected_micrographs.star, or the micrographs.star
        of ``verglas motion``. Metadata that are no STAR file are read as MotionCor's logs; their movies are then named
        in rlnMicrographMovieName.
    reading : MovieReading

    Raises
    ------
    FormatError
        No such columns, or a file of motion that cannot be read.
    InputError
        The trajectories name a gain reference that is not there, and none is given.
    """
    path = Path(source)
    table = read_micrographs(path)
    if METADATA not in table:
        raise FormatError(
            f"{path}: no column {METADATA}, which names the motion of each movie; expected the STAR file that motion "
            "correction wrote (RELION's corrected_micrographs.star, or micrographs.star of verglas motion)"
        )
    folders = [path.parent, *search_folders(path)]
    reading = _with_earlier_placement(path, reading)
    movies = []
    for _, row in table.iterrows():
        about = _find(folders, str(row[METADATA]))
        trajectory = read_motion_star(about) if about.suffix.lower() == ".star" else read_motioncor(about)
        name = trajectory.movie or (str(row[MOVIE]) if MOVIE in table else None)
        if name is None:
            raise FormatError(f"{about}: names no movie, and {path} has no column {MOVIE}; add it")
        pixel_A = trajectory.pixel_size_A or float(row.get("rlnMicrographOriginalPixelSize", np.nan))
        trajectory = replace(trajectory, movie=name, pixel_size_A=pixel_A if np.isfinite(pixel_A) else None)
        opened = _Opening(_find(folders, name), trajectory, reading, tuple(folders))
        own_A = float(row[PIXEL]) if PIXEL in table else np.nan
        micrograph_A = own_A if np.isfinite(own_A) else None
        movies.append(RecordedMovie(str(row[MICROGRAPH]), opened, trajectory, micrograph_A, opened.fingerprint()))
    return movies


def _with_earlier_placement(path: Path, reading: MovieReading) -> MovieReading:
    """The placement of the gain that the run had which corrected the movies."""
    before = path.parent / "motion.json"
    if reading.placement != "auto" or not before.is_file():
        return reading
    return replace(reading, placement=str(read_json(before).get("placement", "auto")))


def _find(folders: list[Path], name: str) -> Path:
    return next((folder / name for folder in folders if (folder / name).is_file()), Path(name))


@dataclass(frozen=True, eq=False)
class _Opening:
    """Opens a movie with the gain and the bad pixels that its correction had."""

    path: Path
    trajectory: Trajectory
    reading: MovieReading
    folders: tuple[Path, ...]

    def fingerprint(self) -> str:
        """Size and time of the file, and how it is read."""
        r = self.reading
        about = self.path.stat() if self.path.is_file() else None
        file = "missing" if about is None else f"{about.st_size} {about.st_mtime_ns}"
        return f"{file} {r.gain} {r.defects} {r.placement} {r.flip_y}"

    def __call__(self) -> Movie:
        t, reading = self.trajectory, self.reading
        gain: Any = reading.gain
        if gain is None and t.gain:
            gain = _find(list(self.folders), t.gain)
            if not Path(gain).is_file():
                raise InputError(f"{self.path}: its gain reference {t.gain} is not there; give gain (--gain)")
        names = ("pixel_size_A", "dose_per_frame_e_A2", "pre_exposure_e_A2", "voltage_kV")
        known: dict[str, Any] = {name: getattr(t, name) for name in names if getattr(t, name) is not None}
        known |= summed_keywords(t.more)
        placement = reading.placement if gain is not None else "0"
        movie = read_movie(
            self.path, gain, reading.defects, placement=placement, metadata=False, flip_y=reading.flip_y, **known
        )
        if not len(t.hot_pixels):
            return movie
        bad = movie.defect_mask
        inside = (t.hot_pixels >= 0).all(axis=1) & (t.hot_pixels < np.array(movie.shape)).all(axis=1)
        bad[tuple(t.hot_pixels[inside].T)] = True
        return replace(movie, defects=bad)


# ---- particles


@dataclass(frozen=True, eq=False)
class Assigned:
    """Particles of one movie.

    Attributes
    ----------
    recorded : RecordedMovie
    rows : (P,) int64
        Of the particles.
    """

    recorded: RecordedMovie
    rows: IntArray


def assign(particles: Particles, movies: list[RecordedMovie]) -> tuple[list[Assigned], dict[int, str]]:
    """Particles by movie, in the order of the movies; and those whose micrograph has none.

    Raises
    ------
    InputError
        No rlnMicrographName or coordinates, or no particle lies on any of the micrographs.
    """
    table, where = particles.table, particles.where
    missing = [label for label in (MICROGRAPH, X, Y) if label not in table]
    if missing:
        raise InputError(f"{where}: polish needs {', '.join(missing)}: where in which movie each particle lies")
    names, of_particle = np.unique(table[MICROGRAPH].to_numpy(str), return_inverse=True)
    index = match_names(names.tolist(), [movie.micrograph for movie in movies])
    if (index < 0).all():
        raise InputError(
            f"{where}: none of its {len(names)} micrographs ({names[0]}, ...) is among the {len(movies)} that have "
            f"movies ({movies[0].micrograph if movies else 'none'}, ...)"
        )
    movie = index[of_particle.reshape(-1)]
    without = {int(i): f"no movie of {table[MICROGRAPH].iloc[i]}" for i in np.flatnonzero(movie < 0)}
    chosen = [Assigned(movies[m], np.flatnonzero(movie == m).astype(np.int64)) for m in np.unique(movie[movie >= 0])]
    return chosen, without


def micrograph_places_px(particles: Particles, rows: IntArray) -> FloatArray:
    """(n, 2) coordinates of particles, x then y, pixels of their micrographs."""
    table = particles.table.iloc[rows]
    return np.column_stack([col.number_column(table[label], label, particles.where) for label in (X, Y)]).astype(float)


def frame_centres_px(places_px: FloatArray, binning: float) -> IntArray:
    """(n, 2) pixels of the frames about which particles are cut out.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.run.polish_inputs import frame_centres_px
    >>> frame_centres_px(np.array([[10.5, 20.2]]), 2.0).tolist()
    [[22, 40]]
    """
    # extraction rounds halves up, on the micrograph
    return np.floor(np.floor(places_px + 0.5) * binning + 0.5).astype(np.int64)


def movie_particles(particles: Particles, assigned: Assigned) -> MovieParticles:
    """Open the movie of some particles, and check that they belong to it.

    Raises
    ------
    InputError
        Frames of another number or size than the motion's, a pixel size that does not fit the micrograph or the
        images, or coordinates outside the frames.
    """
    recorded, trajectory = assigned.recorded, assigned.recorded.trajectory
    movie, where = recorded.open(), f"{assigned.recorded.trajectory.movie or assigned.recorded.micrograph}"
    last = trajectory.first_frame + len(trajectory)
    if last > len(movie):
        raise InputError(
            f"{where}: {len(movie)} frames, but its motion is that of the frames {trajectory.first_frame + 1} to {last}"
        )
    if len(trajectory) < LEAST_FRAMES:
        raise InputError(f"{where}: its motion is that of {len(trajectory)} frames; expected at least {LEAST_FRAMES}")
    if trajectory.shape is not None and trajectory.shape != movie.shape:
        ours, theirs = (" x ".join(map(str, shape[::-1])) for shape in (movie.shape, trajectory.shape))
        raise InputError(f"{where}: frames of {ours} px, but its motion is that of frames of {theirs} px")
    if not np.isfinite(movie.pixel_size_A):
        raise InputError(f"{where}: the pixel size of its frames is unknown; expected it in the file of its motion")
    scale, pixel_A = trajectory.binning, recorded.micrograph_pixel_A
    if pixel_A is not None and abs(pixel_A / movie.pixel_size_A / scale - 1) > _SAME:
        raise InputError(
            f"{where}: frames of {movie.pixel_size_A:g} A binned {scale:g} times do not make the micrograph's pixels "
            f"of {pixel_A:g} A"
        )
    xy = micrograph_places_px(particles, assigned.rows)
    centres = frame_centres_px(xy, scale)
    outside = ((centres < 0) | (centres >= movie.shape[::-1])).any(axis=1)
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{where}: particle {assigned.rows[i]} (row from 0) at {xy[i, 0]:g}, {xy[i, 1]:g} lies outside its frames "
            f"of {movie.shape[1]} x {movie.shape[0]} px (binned {scale:g} times): another movie, or other coordinates"
        )
    frames = np.arange(trajectory.first_frame, last)
    known = trajectory.at(centres[:, 0], centres[:, 1])
    return MovieParticles(movie, frames, centres, known, _plan(particles, movie, where))


def _plan(particles: Particles, movie: Movie, where: str) -> image.ResamplePlan:
    """From boxes of the frames to images of the particles' size and scale."""
    box, pixel_A = particles.box, particles.pixel_size_A
    if pixel_A < movie.pixel_size_A * (1 - _SAME):
        raise InputError(
            f"{where}: frames of {movie.pixel_size_A:g} A a pixel, coarser than the particles' {pixel_A:g} A: "
            "not the movie that they were extracted from"
        )
    if abs(pixel_A / movie.pixel_size_A - 1) < _SAME:
        return image.plan_resample(box, pixel_A, pixel_A)
    wanted = 2 * round(box * pixel_A / movie.pixel_size_A / 2)
    plan = image.plan_resample(wanted, movie.pixel_size_A, pixel_A, box)
    if abs(plan.pixel_size_A / pixel_A - 1) > _SAME:
        warnings.warn(
            f"{where}: pixels of {pixel_A:g} A cannot be made of {movie.pixel_size_A:g} A; {plan.pixel_size_A:.4f} A "
            "it is",
            VerglasWarning,
            stacklevel=4,
        )
    return plan


def shows_particles(particles: Particles, sums: Complex64Array, where: str) -> float:
    """Correlation of plain sums of frames with the particles' own images; refuse sums that show something else.

    Parameters
    ----------
    particles : Particles
    sums : (n, 2 last + 1, last + 1) complex64
        Low frequencies of the sums (:func:`verglas.fourier.low_frequencies`).
    where : str
        Of the movie, for the message.

    Raises
    ------
    InputError
        They do not correlate: rows reversed, another gain, other coordinates.
    """
    last = sums.shape[-1] - 1
    weight = np.full(sums.shape[1:], 2.0)
    weight[:, 0] = 1
    weight[0, 0] = 0  # means of images
    values = np.zeros(len(particles))
    for i, ours in enumerate(sums):
        theirs = fourier.low_frequencies(particles.images([i])[0], last, threads=1)
        cross = (weight * (ours * theirs.conj()).real).sum(dtype=np.float64)
        size = np.sqrt(np.prod([(weight * np.abs(one) ** 2).sum(dtype=np.float64) for one in (ours, theirs)]))
        values[i] = cross / max(size, 1e-30)
    value = float(np.median(values))
    if value < 0.2:
        raise InputError(
            f"{where}: sums of its frames at the particles' places correlate with their images by {value:.2f} only: "
            "rows counted from the other edge (flip_y, --flip-y), another movie, gain or coordinates"
        )
    return value
