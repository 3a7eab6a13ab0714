"""Movies in MRC, TIFF and EER files."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io.frames import EerFrames, FrameSums, MrcFrames, TiffAbout, open_frames, say_dropped
from verglas.io.gain import read_defects, read_gain
from verglas.io.inputs import note_named
from verglas.io.mrc import PathLike
from verglas.io.mrc_header import require_file
from verglas.io.star import read_star
from verglas.io.tiff import tiff_pixel_A
from verglas.types import FrameSource, Movie
from verglas.types.defects import as_defects
from verglas.types.gain import Gain

_SAME = 0.02  # relative; two exposures or pixel sizes that differ by less are one, rounded
_TARGET_E_A2 = 1.0  # exposure of a fraction of an EER file where nothing else is asked for
# in files of motion: frames of the camera in a fraction, points per pixel; frames of other formats that were summed
_GROUPING, _UPSAMPLING, _SUMMED = "rlnEERGrouping", "rlnEERUpsampling", "vgFramesPerFraction"
_UNSIGNED = "vgUnsignedBytes"  # whether bytes of MRC mode 0 were taken for counts from 0 to 255, where somebody said so


_SUFFIXES = tuple(
    kind + packed for kind in (".tif", ".tiff", ".eer", ".mrc", ".mrcs", ".st") for packed in ("", ".gz", ".bz2")
)


def find_movies(source: PathLike | Iterable[PathLike]) -> list[Path]:
    """The movies that patterns, folders, files or STAR files name, in order.

    Parameters
    ----------
    source : path, pattern, or several
        ``"movies/*.tif"``, a folder (TIFF, MRC and EER files in it), a STAR file with rlnMicrographMovieName (relative
        names are looked for beside it, then in the working directory), or a movie.

    Raises
    ------
    InputError
        Nothing is found, or a file twice.

    Examples
    --------
    >>> from verglas.io import find_movies
    >>> find_movies("nowhere/*.tif")
    Traceback (most recent call last):
    verglas.errors.InputError: nowhere/*.tif: no movies found; expected TIFF, MRC or EER files or a STAR file of them
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    # pairs and no mapping: a movie that is given twice must be seen twice
    named = [(Path(one), [Path(name) for name in _names(os.fspath(one))]) for one in sources]
    movies = [path for _, paths in named for path in paths]
    for one, paths in named:
        note_named(one, paths.copy)
    if not movies:
        shown = ", ".join(os.fspath(s) for s in sources[:3]) or "an empty list"
        raise InputError(f"{shown}: no movies found; expected TIFF, MRC or EER files or a STAR file of them")
    earlier: set[Path] = set()
    for path in movies:
        if path in earlier:
            raise InputError(f"{path} is named twice among the movies; name each once")
        earlier.add(path)
    return movies


def _names(source: str) -> list[str]:
    path = Path(source)
    if path.suffix.lower() == ".star":
        label = "rlnMicrographMovieName"
        table = next((t for t in read_star(path).values() if label in t), None)
        if table is None:
            raise FormatError(f"{path}: no table has the column {label}, so there are no movies in it")
        names = [str(name) for name in np.atleast_1d(np.asarray(table[label], object))]
        return [str(path.parent / name) if (path.parent / name).is_file() else name for name in names]
    if path.is_dir():
        return sorted(str(p) for p in path.iterdir() if p.name.lower().endswith(_SUFFIXES) and p.name[0] != ".")
    if path.exists() or not glob.has_magic(source):
        return [source]
    return sorted(p for p in glob.glob(source, recursive=True) if Path(p).is_file())


def open_movie(
    path: PathLike,
    *,
    pixel_size_A: float | None = None,
    dose_per_frame_e_A2: float | None = None,
    pre_exposure_e_A2: float = 0.0,
    voltage_kV: float | None = None,
    frames_per_fraction: int | None = None,
    total_dose_e_A2: float | None = None,
    upsampling: int = 1,
    unsigned_bytes: bool | None = None,
    flip_y: bool = False,
) -> Movie:
    """Open a movie without gain and defects.

    Parameters
    ----------
    path : path
        MRC stack (modes 0, 1, 2, 6, 12, 101), TIFF (8 and 16 bit, LZW, ZIP, BigTIFF) or EER; MRC and TIFF also
        compressed by gzip or bzip2, which are then unpacked into a temporary file.
    pixel_size_A : float, optional
        Of the frames that come out; the file's by default.
    dose_per_frame_e_A2 : float, optional
        Exposure of a frame that comes out. Of an EER file whose total exposure is known, the frames of the camera
        are summed to fractions as near to it as whole frames allow (by default 1 e/A^2).
    pre_exposure_e_A2, voltage_kV : float
    frames_per_fraction : int, optional
        So many frames of the file are summed to one; those that are left at the end are dropped, with a warning.
    total_dose_e_A2 : float, optional
        Exposure of all frames of the file; EER files mostly say it.
    upsampling : int
        1, 2 or 4: points per pixel of the sensor along each axis, EER only.
    unsigned_bytes : bool, optional
        What bytes of MRC mode 0 are, where IMOD's flag does not say it.
    flip_y : bool
        Reverse the rows.

    Returns
    -------
    Movie

    Raises
    ------
    FormatError
        No such file, cut off, frames of different sizes, one frame only, or a format of none of these.
    InputError
        A number out of range, or an EER file with nothing that says how to divide it.
    """
    path = require_file(path)
    if upsampling not in (1, 2, 4):
        raise InputError(f"upsampling: expected 1, 2 or 4, got {upsampling}")
    for name, value in (("dose_per_frame_e_A2", dose_per_frame_e_A2), ("total_dose_e_A2", total_dose_e_A2)):
        if value is not None and not 0 < value < np.inf:
            raise InputError(f"{path}: {name}: expected a positive number of e/A^2, got {value:g}")
    source, about = open_frames(path, unsigned_bytes=unsigned_bytes, unit_A=tiff_pixel_A)
    if upsampling != 1 and not isinstance(source, EerFrames):
        raise InputError(f"{path}: only EER files can be up-sampled; leave upsampling out")
    if len(source) == 1:
        raise FormatError(f"{path}: one image: a micrograph where a movie is meant")
    pixel_A = _pixel_size_A(path, pixel_size_A, about, upsampling)
    total = _total_dose(path, total_dose_e_A2, about, pixel_A * upsampling)
    raw_frames = len(source)
    per_fraction = _per_fraction(path, source, frames_per_fraction, dose_per_frame_e_A2, total)
    dose = dose_per_frame_e_A2
    if total is not None:
        dose = _checked_dose(path, dose, total / raw_frames * per_fraction, per_fraction)
    say_dropped(path, raw_frames, per_fraction)
    if isinstance(source, EerFrames):
        source = replace(source, per_fraction=per_fraction, upsampling=upsampling)
        per_fraction = 1
    if per_fraction > 1 or flip_y:
        source = FrameSums(source, per_fraction, flip_y)
    return Movie(source, pixel_A, dose, pre_exposure_e_A2, voltage_kV, name=path.name, path=path)


def summed_labels(source: Any) -> dict[str, int]:
    """How the frames of a movie were made of its file's, as the file of its motion says it (RELION's labels for EER).

    Parameters
    ----------
    source : FrameSource
        Of a movie; what keeps or sums the frames of another is looked through.

    Returns
    -------
    dict of label -> int
        Empty where frames are the file's own.
    """
    labels: dict[str, int] = {}
    while source is not None:
        if isinstance(source, EerFrames):
            labels |= {_GROUPING: source.per_fraction, _UPSAMPLING: source.upsampling}
        elif isinstance(source, FrameSums) and source.per_fraction > 1:
            labels[_SUMMED] = source.per_fraction
        elif isinstance(source, MrcFrames) and source.header.mode == 0 and source.unsigned is not None:
            labels[_UNSIGNED] = int(source.unsigned)
        source = getattr(source, "source", None)
    return labels


def summed_keywords(labels: Mapping[str, Any]) -> dict[str, int]:
    """Keywords of :func:`open_movie` that make the frames of :func:`summed_labels` again; other labels are left out.

    Examples
    --------
    >>> from verglas.io.movies import summed_keywords
    >>> summed_keywords({"rlnEERGrouping": 30, "rlnEERUpsampling": 2, "rlnVoltage": 300})
    {'frames_per_fraction': 30, 'upsampling': 2}
    """
    names = {_GROUPING: "frames_per_fraction", _SUMMED: "frames_per_fraction", _UPSAMPLING: "upsampling"}
    keywords = {name: int(labels[label]) for label, name in names.items() if label in labels}
    return keywords | ({"unsigned_bytes": bool(labels[_UNSIGNED])} if _UNSIGNED in labels else {})


def _pixel_size_A(path: Path, override: float | None, about: TiffAbout, upsampling: int) -> float:
    in_file = about.pixel_size_A
    if about.eer is not None:
        in_file = float(about.eer.get("sensorPixelSize.width", np.nan)) * 1e10  # metres
    in_file /= upsampling
    if override is None:
        # What lies outside is no pixel of a microscope: resolution tags are often left at 72 dots per inch.
        return in_file if 0.05 <= in_file <= 100 else float("nan")
    if np.isfinite(in_file) and abs(in_file / override - 1) > 1e-3:
        warnings.warn(
            f"{path}: pixel size {in_file:.6g} A in the file, {override:g} A used as asked",
            VerglasWarning,
            stacklevel=4,
        )
    return float(override)


def _total_dose(path: Path, override: float | None, about: TiffAbout, sensor_pixel_A: float) -> float | None:
    """Of the whole file, e/A^2; EER files give it in electrons per pixel of the sensor."""
    if about.eer is None or not np.isfinite(sensor_pixel_A):
        return override
    per_pixel = about.eer.get("totalDose")
    unit = str(about.eer.get("totalDose.unit", "e/pixel"))
    if not isinstance(per_pixel, int | float) or per_pixel <= 0 or "pix" not in unit.lower():
        return override
    in_file = float(per_pixel) / sensor_pixel_A**2
    if override is not None and abs(in_file / override - 1) > _SAME:
        warnings.warn(
            f"{path}: total exposure {in_file:.4g} e/A^2 in the file, {override:g} used as asked",
            VerglasWarning,
            stacklevel=4,
        )
    return in_file if override is None else override


def _per_fraction(path: Path, source: FrameSource, count: int | None, dose: float | None, total: float | None) -> int:
    """Frames of the file that make one frame."""
    frames = len(source)
    if count is None:
        if not isinstance(source, EerFrames):
            return 1
        if total is None:
            raise InputError(
                f"{path}: {frames} frames of the camera, and nothing says how many make a fraction: the file names no "
                "total exposure or no pixel size; give frames_per_fraction, or total_dose_e_A2"
            )
        count = max(1, round((dose or _TARGET_E_A2) / (total / frames)))
    if not 1 <= count <= frames:
        raise InputError(f"{path}: fractions of {count} frames, but the file has {frames}; expected 1 to {frames}")
    return int(count)


def _checked_dose(path: Path, override: float | None, dose: float, per_fraction: int) -> float:
    """The exposure of a frame that the total means; said where it is not what was asked for."""
    if override is not None and abs(dose / override - 1) > _SAME:
        sentence = (
            f"{override:g} e/A^2 per frame were asked for; {per_fraction} frames of the file, whose total exposure is "
        )
        warnings.warn(f"{path}: {sentence}known, make {dose:.4g}, which is used", VerglasWarning, stacklevel=4)
    return dose


def read_movie(
    path: PathLike,
    gain: PathLike | npt.ArrayLike | Gain | None = None,
    defects: PathLike | npt.ArrayLike | None = None,
    *,
    placement: str = "0",
    divides: bool | None = None,
    **known: Any,
) -> Movie:
    """Open a movie with gain and defects as given; :func:`verglas.read_movie` also finds them.

    Parameters
    ----------
    path : path
    gain : path, (y, x) array or Gain, optional
        What levels the pixels (:func:`read_gain`); its zeros are defects.
    defects : path, rows (y, x) or mask, optional
        Bad pixels (:func:`read_defects`).
    placement : str
        How the gain lies on the frames (:meth:`verglas.types.gain.Gain.place`).
    divides : bool, optional
        Frames are divided by the gain; by its file's name by default.
    **known
        Of :func:`open_movie`.

    Returns
    -------
    Movie
    """
    return with_gain_and_defects(open_movie(path, **known), gain, defects, placement=placement, divides=divides)


def with_gain_and_defects(
    movie: Movie,
    gain: PathLike | npt.ArrayLike | Gain | None,
    defects: PathLike | npt.ArrayLike | None,
    *,
    placement: str = "0",
    divides: bool | None = None,
) -> Movie:
    """An open movie with gain and defects as given, like :func:`read_movie`."""
    bad: Any = np.zeros(movie.shape, bool)
    if defects is not None:
        rows = read_defects(defects) if isinstance(defects, str | os.PathLike) else defects
        at = as_defects(rows, movie.shape, f"{movie.name}: defects")
        bad[at[:, 0], at[:, 1]] = True
    if gain is None:
        return replace(movie, defects=bad)
    if isinstance(gain, str | os.PathLike):
        reference = read_gain(gain, divides=divides)
    else:
        reference = gain if isinstance(gain, Gain) else Gain(np.asarray(gain), bool(divides))
    reference = reference.place(placement).fit_to_frames(movie.shape)
    return replace(movie, gain=reference.factors, defects=bad | reference.dead)
