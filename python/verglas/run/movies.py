"""Movies with their gain and bad pixels as found, and what acquisition software says of them."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.detector import find_defects, frame_totals, place_gain
from verglas.errors import InputError, VerglasWarning
from verglas.io import find_acquisition, open_movie, read_gain
from verglas.io.acquisition import OF_NAME
from verglas.io.movies import with_gain_and_defects
from verglas.io.mrc import PathLike
from verglas.motion.sums import KeptFrames
from verglas.types import Movie
from verglas.types.acquisition import Acquisition
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.gain import Gain

_LEAST_COUNTS = 25.0  # in the median pixel that counted: where so many are expected, none at all is no chance
_MOST_DARK = 0.05  # share of pixels that are taken for bad because they counted nothing
_FRAMES = 20  # read to find how a gain lies and which pixels are bad


@any_arrays
def read_movie(
    path: PathLike,
    gain: PathLike | npt.ArrayLike | Gain | None = None,
    defects: PathLike | npt.ArrayLike | None = None,
    *,
    placement: str = "0",
    divides: bool | None = None,
    metadata: bool | PathLike | Acquisition = True,
    keep_bytes: int = 0,
    **known: Any,
) -> Movie:
    """Open a movie; frames are read when they are asked for.

    Parameters
    ----------
    path : path
        MRC stack, TIFF or EER (:func:`verglas.io.open_movie`).
    gain : path, (y, x) array or Gain, optional
        Gain reference: MRC, TIFF or EPU's ``.gain``, which divides. One of super-resolution is binned.
    defects : path, rows (y, x), mask or ``"auto"``, optional
        Bad pixels (:func:`verglas.io.read_defects`); ``"auto"`` finds them in 20 of the frames. Zeros of the gain are
        defects, too.
    placement : str
        How the gain lies on the frames: ``"0"``, ``"90"``, ``"180"``, ``"270"`` degrees as ``numpy.rot90`` turns, with
        ``"-flip"`` columns reversed afterwards; ``"auto"`` finds which of them levels 20 of the frames
        (:func:`verglas.detector.place_gain`), and refuses if none stands out.
    divides : bool, optional
        Frames are divided by the gain; by its file's name by default.
    metadata : bool, path or Acquisition
        Take what is not given from an mdoc or EPU XML file beside the movie, or anywhere below a folder that is named,
        or from what was read of one. What such a file contradicts is used as given, with a warning.
    keep_bytes : int
        Memory for frames as recorded, kept when first read; by default each is decoded whenever it is asked for.
    **known
        ``pixel_size_A``, ``dose_per_frame_e_A2``, ``pre_exposure_e_A2``, ``voltage_kV``, and for EER files
        ``frames_per_fraction``, ``total_dose_e_A2``, ``upsampling``; further ones of :func:`verglas.io.open_movie`.

    Returns
    -------
    Movie

    Raises
    ------
    FormatError, InputError
        What is wrong with a file or a number, by name.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile, verglas as vg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(f"{folder}/m.tif", np.ones((3, 4, 6), np.uint8), photometric="minisblack")
    ...     movie = vg.read_movie(f"{folder}/m.tif", gain=np.full((4, 6), 2.0), dose_per_frame_e_A2=1.0)
    ...     len(movie), movie.shape, movie.frame(0)[0, 0].item()
    (3, (4, 6), 2.0)
    """
    acquisition, summed = None, False
    if metadata is not False:
        summed = Path(path).suffix.lower() == ".eer" or known.get("frames_per_fraction") is not None
        if isinstance(metadata, Acquisition):
            acquisition = metadata
        else:
            acquisition = acquisition_of(path, None if metadata is True else metadata)
        known = with_acquisition(known, acquisition, summed=summed)
    movie = open_movie(path, **known)
    if acquisition is not None and not summed and acquisition.frames not in (None, len(movie)):
        warnings.warn(
            f"{path}: {len(movie)} frames, where {acquisition.source} says {acquisition.frames}: is the file whole, "
            "and the exposure of a frame right?",
            VerglasWarning,
            stacklevel=2,
        )
    # Before frames are summed for gain and defects, so that those are decoded once.
    if keep_bytes:
        movie = KeptFrames(movie.source, keep_bytes).of(movie)
    if placement != "auto" and not (isinstance(defects, str) and defects == "auto"):
        return with_gain_and_defects(movie, gain, defects, placement=placement, divides=divides)
    total, _ = frame_totals([movie], most_frames=_FRAMES)
    lying = gain
    if gain is not None and placement == "auto":
        lying, placement = place_gain(total, as_gain(gain, divides)).gain, "0"
    if not (isinstance(defects, str) and defects == "auto"):
        return with_gain_and_defects(movie, lying, defects, placement=placement, divides=divides)
    frames = with_gain_and_defects(movie, lying, None, placement=placement, divides=divides)
    # Zeros of the gain are in it already; those found are added.
    bad = frames.defect_mask
    if total.min() < 0:
        raise InputError(
            f"{path}: the sum of its frames is negative in places: levelled already, or with an offset; bad pixels are "
            "found in counts; give a list of them, or look for none (--defects none)"
        )
    bad[tuple(find_defects(total, frames.gain).T)] = True
    bad |= _never_lit(total, bad, path)
    return replace(frames, defects=bad)


def _never_lit(total: FloatArray, bad: npt.NDArray[np.bool_], path: PathLike) -> npt.NDArray[np.bool_]:
    """Pixels that counted nothing where most counted many: blocks too wide for their neighbours to give them away.

    More of them than a detector loses are the edge of the beam or of an aperture: said, and left as they are.
    """
    dark = total == 0
    if not (dark & ~bad).any() or dark.all() or np.median(total[~dark]) < _LEAST_COUNTS:
        return np.zeros_like(dark)
    share = float(dark.mean())
    if share <= _MOST_DARK:
        return np.asarray(dark)
    warnings.warn(
        f"{path}: {100 * share:.0f} % of the pixels counted no electron: the edge of the beam, or a dead part of the "
        "detector, which holds whatever moves behind it back; they stay as they are",
        VerglasWarning,
        stacklevel=3,
    )
    return np.zeros_like(dark)


def acquisition_of(movie: PathLike, metadata: PathLike | None) -> Acquisition | None:
    """What acquisition software says of a movie; a folder of its files that holds none of the movie is warned of.

    Parameters
    ----------
    movie : path
    metadata : path, optional
        Folder below which files lie that do not lie beside the movie.
    """
    acquisition = find_acquisition(movie, [] if metadata is None else [metadata])
    if metadata is not None and (acquisition is None or acquisition.source == OF_NAME):
        warnings.warn(
            f"{movie}: no XML or mdoc file of it lies beside it or below {metadata}", VerglasWarning, stacklevel=4
        )
    return acquisition


def as_gain(gain: PathLike | npt.ArrayLike | Gain, divides: bool | None = None) -> Gain:
    """A gain from whatever it is given as."""
    if isinstance(gain, Gain):
        return gain
    if isinstance(gain, str | os.PathLike):
        return read_gain(gain, divides=divides)
    return Gain(np.asarray(gain, np.float32), bool(divides))


def with_acquisition(known: dict[str, Any], acquisition: Acquisition | None, *, summed: bool) -> dict[str, Any]:
    """What is given, completed by what acquisition software says; contradictions are warned of.

    Parameters
    ----------
    known : dict
        Keywords of :func:`verglas.io.open_movie`.
    acquisition : Acquisition or None
    summed : bool
        Recorded frames are summed to others, so that the total exposure counts and not that of a recorded frame.
    """
    if acquisition is None:
        return known
    # The metadata speak of the camera's pixels; EER frames may be rendered finer.
    pixel_A = None if acquisition.pixel_size_A is None else acquisition.pixel_size_A / known.get("upsampling", 1)
    here = replace(acquisition, pixel_size_A=pixel_A)
    names = ["pixel_size_A", "voltage_kV", "pre_exposure_e_A2"] + ([] if summed else ["dose_per_frame_e_A2"])
    for sentence in here.contradictions(**{name: known.get(name) for name in names}):
        warnings.warn(f"{sentence}, which is used", VerglasWarning, stacklevel=3)
    says = {
        "pixel_size_A": pixel_A,
        "voltage_kV": acquisition.voltage_kV,
        "pre_exposure_e_A2": acquisition.pre_exposure_e_A2,
    }
    says |= (
        {"total_dose_e_A2": acquisition.total_dose_e_A2} if summed else {"dose_per_frame_e_A2": acquisition.per_frame}
    )
    additions = {name: value for name, value in says.items() if value is not None and known.get(name) is None}
    return {**known, **additions}
