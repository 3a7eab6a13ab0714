"""A movie to a micrograph: motion found, frames moved back and added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from verglas.errors import InputError
from verglas.motion.binned import bin_factor, bin_movie
from verglas.motion.choose import ModelGain
from verglas.motion.classical import METHODS, estimate_classically
from verglas.motion.estimate import Exposure, estimate_motion
from verglas.motion.sums import KeptFrames, corrected_sums, cropped
from verglas.types import Micrograph, Movie
from verglas.types.arrays import FloatArray
from verglas.types.motion import MODELS, Motion

UNSURE_PX = 0.5  # standard error of a frame's shift, averaged over frames, that is worth a word


@dataclass(frozen=True)
class MotionSettings:
    """How a movie is corrected.

    Attributes
    ----------
    dose_per_frame_e_A2, voltage_kV, pixel_size_A, pre_exposure_e_A2 : float, optional
        What the movie says itself where None. Without a dose there is no dose-weighted sum.
    model : str
        "auto" lets held-out evidence choose; "global", "polynomial" or "spline".
    method : str
        "objective", or one of :data:`verglas.motion.classical.METHODS`, which have models of their own.
    tilt_deg, tilt_axis_deg : float
        Of the specimen, for the method "dome".
    bin_factor : int
        Of the sums: their frequencies are cut, not averaged.
    halves : bool
        Whether the sums of even and of odd frames are wanted, too.
    keep_bytes : int
        Memory for frames as recorded, which are gone through twice; what does not fit is read again.
    """

    dose_per_frame_e_A2: float | None = None
    voltage_kV: float | None = None
    pixel_size_A: float | None = None
    pre_exposure_e_A2: float | None = None
    model: str = "auto"
    method: str = "objective"
    bin_factor: int = 1
    halves: bool = False
    tilt_deg: float = 0.0
    tilt_axis_deg: float = 0.0
    keep_bytes: int = 800_000_000

    def __post_init__(self) -> None:
        """Check once, here."""
        if self.model not in ("auto", *MODELS):
            raise InputError(f"model: expected auto, {', '.join(MODELS)}, got {self.model!r}")
        if self.method not in ("objective", *METHODS):
            raise InputError(f"method: expected objective, {', '.join(METHODS)}, got {self.method!r}")
        if self.bin_factor < 1:
            raise InputError(f"bin_factor: expected 1 or more, got {self.bin_factor}")

    def of(self, movie: Movie) -> Movie:
        """The movie with what is given here instead of what it says itself."""
        names = ("dose_per_frame_e_A2", "voltage_kV", "pixel_size_A", "pre_exposure_e_A2")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        known = replace(movie, **given)
        if not np.isfinite(known.pixel_size_A):
            raise InputError(f"movie {movie.name}: nobody knows its pixel size; give pixel_size_A")
        return known


@dataclass(frozen=True, eq=False)
class CorrectedMovie:
    """What :func:`correct_motion` gives.

    Attributes
    ----------
    micrograph : Micrograph
        Plain sum of the used frames.
    dose_weighted : Micrograph or None
        Where a dose is known.
    even, odd : Micrograph or None
        Sums of every other frame, where asked for.
    motion : Motion
        In pixels of the movie's frames.
    gains : list of ModelGain
        Held-out evidence of each model against "global", nats with standard errors; empty where the model was given.
    flags : list of str
        What is wrong with the movie, a sentence each; empty where nothing is.
    """

    micrograph: Micrograph
    dose_weighted: Micrograph | None
    even: Micrograph | None
    odd: Micrograph | None
    motion: Motion
    gains: list[ModelGain]
    flags: list[str]

    @property
    def model(self) -> str:
        """The model that was chosen."""
        return self.motion.model

    @property
    def shift_errors_px(self) -> FloatArray | None:
        """Standard errors of the shifts of whole frames, (n_frames, 2)."""
        return self.motion.global_error_px


def correct_motion(
    movie: Movie,
    settings: MotionSettings | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **changes: Any,
) -> CorrectedMovie:
    """Find how the specimen moved during a movie, and add its frames up where they belong.

    One objective, the log-likelihood of all frames showing one unknown picture, is maximised over shifts of whole
    frames and a smooth field of x, y and t on top of them; whether that field is none, RELION's polynomial or a spline
    lattice is decided by frequencies that were not fitted. Frames are resampled once.

    Parameters
    ----------
    movie : Movie
    settings : MotionSettings, optional
        Further keywords (``dose_per_frame_e_A2=1.0``, ``model="global"``) change its fields.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    progress : callable, optional
        Called with "read" or "sum", the number of frames done, and of all.

    Returns
    -------
    CorrectedMovie

    Raises
    ------
    InputError
        No pixel size, a setting out of range, no frame that can be used.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> rng = np.random.default_rng(0)
    >>> picture = rng.normal(size=(160, 192)).cumsum(0).cumsum(1); picture -= picture.mean()
    >>> frames = [10 + np.roll(picture, (i, -i), (0, 1)) / 20 + rng.normal(size=picture.shape) for i in range(5)]
    >>> done = vg.correct_motion(vg.Movie.from_array(np.float32(frames), 2.0), model="global")
    >>> done.motion.global_px.round().tolist()
    [[0.0, 0.0], [-1.0, 1.0], [-2.0, 2.0], [-3.0, 3.0], [-4.0, 4.0]]
    """
    settings = replace(settings or MotionSettings(), **changes)
    movie = settings.of(movie)
    n = len(movie)
    kept = KeptFrames(movie.source, settings.keep_bytes)
    movie = kept.of(movie)
    factor = bin_factor(movie.shape, n, movie.pixel_size_A)
    reading = movie.frames(ahead=2, threads=1 if threads == 1 else 2)
    binned = bin_movie(reading, n, movie.shape, factor, _told(progress, "read", n))
    exposure = Exposure(
        movie.pixel_size_A, movie.dose_per_frame_e_A2, movie.voltage_kV or 300.0, movie.pre_exposure_e_A2
    )
    if settings.method == "objective":
        found = estimate_motion(binned, exposure, settings.model, threads=threads)
    else:
        found = estimate_classically(
            binned,
            exposure,
            settings.method,
            tilt_deg=settings.tilt_deg,
            axis_deg=settings.tilt_axis_deg,
            threads=threads,
        )
    del binned
    sums = corrected_sums(
        movie, found.motion, halves=settings.halves, threads=threads, progress=_told(progress, "sum", n)
    )
    pixel = movie.pixel_size_A * settings.bin_factor

    def micrograph(data: Any) -> Micrograph | None:
        if data is None:
            return None
        return Micrograph(cropped(data, settings.bin_factor, threads), pixel, movie.name)

    plain = micrograph(sums.plain)
    assert plain is not None
    return CorrectedMovie(
        plain,
        micrograph(sums.dose_weighted),
        micrograph(sums.even),
        micrograph(sums.odd),
        found.motion,
        found.gains,
        [*found.flags, *_doubts(found.motion)],
    )


def _told(progress: Callable[[str, int, int], None] | None, what: str, n: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda index: progress(what, index + 1, n)


def _doubts(motion: Motion) -> list[str]:
    errors = motion.global_error_px
    if errors is None or errors.mean() < UNSURE_PX:
        return []
    return [f"shifts of frames are known to {errors.mean():.2f} px only"]
