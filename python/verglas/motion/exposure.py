"""How a movie was recorded, and whether anybody records movies so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError
from verglas.types import Movie
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.ctf_ranges import OPTIONS, refuse_outside

FINEST_A, COARSEST_A = 0.1, 10.0  # pixels of movies
SMALLEST_PX = 32  # side of a micrograph
MOST_E_A2 = 200.0  # in all: nothing of a specimen is left, and a movie's exposure was likely taken for a frame's
LEAST_E_A2 = 0.1  # ... or given in another unit
LEAST_COUNTED = 0.25  # of the electrons that are stated; a detector that counts loses a third of them at most


@dataclass(frozen=True)
class Exposure:
    """What is known of how a movie was recorded.

    Attributes
    ----------
    pixel_size_A : float
    dose_per_frame_e_A2 : float or None
        None: frames are taken to show the same, without damage.
    voltage_kV : float
    pre_exposure_e_A2 : float
    """

    pixel_size_A: float
    dose_per_frame_e_A2: float | None = None
    voltage_kV: float = 300.0
    pre_exposure_e_A2: float = 0.0

    def middle_of(self, used: IntArray) -> FloatArray | None:
        """Exposure by the middle of frames, e/A2."""
        dose = self.dose_per_frame_e_A2
        return None if dose is None else np.asarray(self.pre_exposure_e_A2 + dose * (used + 0.5), float)


def check_recording(movie: Movie, bin_factor: int) -> None:
    """Refuse what no microscope records, before frames are read.

    Raises
    ------
    InputError
        A voltage or pixel size in another unit; a micrograph of hardly any pixels.
    """
    where = f"movie {movie.name}"
    refuse_outside({"voltage_kV": movie.voltage_kV}, where, OPTIONS)
    if not FINEST_A <= movie.pixel_size_A <= COARSEST_A:
        raise InputError(
            f"{where}: {OPTIONS['pixel_size_A']}: expected {FINEST_A:g} to {COARSEST_A:g} A a pixel of the frames, got "
            f"{movie.pixel_size_A:g}: in nm or pm?"
        )
    sides = [n // bin_factor for n in movie.shape]
    if min(sides) < SMALLEST_PX:
        raise InputError(
            f"{where}: bin_factor (--bin-factor) {bin_factor} leaves a micrograph of {sides[1]} x {sides[0]} pixels; "
            f"expected {SMALLEST_PX} a side and more"
        )


def doubts_of_exposure(movie: Movie) -> list[str]:
    """What is unlikely of the exposure that is stated, a sentence each.

    Its sum over the frames; and, of frames that hold whole numbers, fewer counts than electrons: a detector may give
    many counts for an electron, but hardly less than one.
    """
    dose = movie.dose_per_frame_e_A2
    if dose is None:
        return []
    total, doubts = movie.pre_exposure_e_A2 + dose * len(movie), []
    if total > MOST_E_A2:
        doubts.append(
            f"{dose:g} e/A^2 a frame, {len(movie)} frames and {movie.pre_exposure_e_A2:g} before are {total:g} e/A^2 "
            "in all: is the exposure of the whole movie meant?"
        )
    elif total < LEAST_E_A2:
        doubts.append(f"{total:g} e/A^2 in all: is the exposure of a frame in e/A^2?")
    recorded = movie.source.read(0)
    counts_per_A2 = float(recorded.mean()) / movie.pixel_size_A**2
    if np.issubdtype(recorded.dtype, np.integer) and 0 < counts_per_A2 < LEAST_COUNTED * dose:
        doubts.append(
            f"a frame holds {counts_per_A2:.2g} counts per A^2, where {dose:g} e/A^2 are stated: are exposure and "
            "pixel size right?"
        )
    return doubts
