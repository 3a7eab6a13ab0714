"""A movie to a micrograph: motion found, frames moved back and added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError
from verglas.motion.binned import bin_factor, bin_movie
from verglas.motion.choose import ModelGain
from verglas.motion.classical import estimate_classically
from verglas.motion.estimate import Estimate, estimate_motion
from verglas.motion.exposure import Exposure, check_recording, doubts_of_exposure
from verglas.motion.fixed_pattern import RecordedSum, recorded_sum
from verglas.motion.sums import KeptFrames, corrected_sums, crop_fourier, without_steep_places
from verglas.optics.fit.spectrum import averaged_spectrum
from verglas.types import Micrograph, Movie
from verglas.types.arrays import FloatArray
from verglas.types.convert import MovieLike, movie_of
from verglas.types.display import one_line
from verglas.types.listener import Listener
from verglas.types.motion import Motion
from verglas.types.power_spectrum import PowerSpectrum
from verglas.types.settings import check_settings, setting, settings_from

SMALLEST_SPECTRUM_PX = 128  # of a micrograph's side: tiles of 64 pixels say little, smaller ones nothing
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
        "likelihood", the one objective, or a classical estimator with a model of its own: "pairs" (shifts between all
        pairs of frames, least squares), "robust-pairs" (wrong pairs left out), "patches" (a polynomial through shifts
        of patches), "tracks" (straight tracks of neighbours), "flow" (optical flow), "dome" (a dome under a tilt).
    tilt_deg, tilt_axis_deg : float
        Of the specimen, for the method "dome".
    bin_factor : int
        Of the sums: their frequencies are cut, not averaged.
    even_odd : bool
        Whether the sums of even and of odd frames are wanted, too.
    spectrum_dose_e_A2 : float, optional
        Exposure of the groups of frames whose power spectra are averaged for the CTF fit; None: the spectrum of all
        frames, weighted by dose, whose rings reach further where the motion is known.
    keep_bytes : int
        Memory for frames as recorded, which are gone through twice; what does not fit is read again.
    """

    dose_per_frame_e_A2: float | None = setting(None, "Exposure of a frame.", more_than=0)
    voltage_kV: float | None = setting(None, "Accelerating voltage.", more_than=0)
    pixel_size_A: float | None = setting(None, "Of the frames.", more_than=0)
    pre_exposure_e_A2: float | None = setting(None, "Exposure before the first frame.", at_least=0)
    model: Literal["auto", "global", "polynomial", "spline"] = setting(
        "auto", "Field of motion: auto lets frequencies that were not fitted choose."
    )
    method: Literal["likelihood", "pairs", "robust-pairs", "patches", "tracks", "flow", "dome"] = setting(
        "likelihood",
        "likelihood: all frames show one picture, moved by the field. The others are classical: shifts of pairs of "
        "frames by least squares, without outliers; a polynomial through shifts of patches; straight tracks of "
        "neighbours; optical flow; a dome under a tilt.",
    )
    tilt_deg: float = setting(0.0, "Tilt of the specimen, for the method dome.", at_least=-80, at_most=80)
    tilt_axis_deg: float = setting(0.0, "Its axis, from x towards y.")
    bin_factor: int = setting(1, "Pixels of a frame per pixel of the micrograph.", at_least=1, flags=("--bin",))
    even_odd: bool = setting(False, "Sums of even and of odd frames, too.")
    spectrum_dose_e_A2: float | None = setting(
        None,
        "Exposure of groups of frames whose power spectra are averaged for the CTF fit",
        more_than=0,
        default_words="all frames together, weighted by dose",
    )
    keep_bytes: int = setting(
        800_000_000, "Memory for frames as recorded.", at_least=0, changes_result=False, on_command_line=False
    )

    def __post_init__(self) -> None:
        """Check once, here."""
        check_settings("motion", self)
        if self.method != "likelihood" and self.model != "auto":
            raise InputError(
                f"motion: the method {self.method} has a model of its own; leave model={self.model!r} out, or take the "
                "method likelihood"
            )

    def of(self, movie: Movie) -> Movie:
        """The movie with what is given here instead of what it says itself."""
        names = ("dose_per_frame_e_A2", "voltage_kV", "pixel_size_A", "pre_exposure_e_A2")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        known = replace(movie, **given)
        if not np.isfinite(known.pixel_size_A):
            raise InputError(f"movie {movie.name}: its pixel size is unknown; give pixel_size_A")
        check_recording(known, self.bin_factor)
        return known


@one_line
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
    spectrum : PowerSpectrum or None
        For the CTF fit; None where the micrograph is too small for one.
    agreement_sigma : float
        By how many standard errors the frames agree beyond what chance gives; NaN of the classical methods.
    recorded : RecordedSum or None
        What the frames show where they lie, to be compared with other movies'
        (:class:`~verglas.motion.PatternOfMovies`).
    """

    micrograph: Micrograph
    dose_weighted: Micrograph | None
    even: Micrograph | None
    odd: Micrograph | None
    motion: Motion
    gains: list[ModelGain]
    flags: list[str]
    spectrum: PowerSpectrum | None = None
    recorded: RecordedSum | None = None
    agreement_sigma: float = float("nan")

    @property
    def model(self) -> str:
        """The model that was chosen."""
        return self.motion.model

    @property
    def shift_errors_px(self) -> FloatArray | None:
        """Standard errors of the shifts of whole frames, (n_frames, 2); None where nobody knows them."""
        return self.motion.global_error_px


def correct_motion(
    movie: MovieLike,
    settings: MotionSettings | None = None,
    *,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> CorrectedMovie:
    """Find how the specimen moved during a movie, and add its frames up where they belong.

    One objective, the log-likelihood of all frames showing one unknown picture, is maximised over shifts of whole
    frames and a smooth field of x, y and t on top of them; whether that field is none, RELION's polynomial or a spline
    lattice is decided by frequencies that were not fitted. Frames are resampled once.

    Parameters
    ----------
    movie : Movie or path
    settings : MotionSettings, optional
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how many frames are read and added up.
    **changes
        Fields of the settings: ``dose_per_frame_e_A2=1.0``, ``model="global"``.

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
    resolved_settings = settings_from("motion", MotionSettings, settings, **changes)
    movie = resolved_settings.of(movie_of(movie, "correct_motion"))
    if not isinstance(movie.source, KeptFrames):
        movie = KeptFrames(movie.source, resolved_settings.keep_bytes).of(movie)
    with shown_to(listener) as heard:
        try:
            estimate, recorded = _estimate(movie, resolved_settings, heard, threads)
        except InputError as error:
            if movie.name in str(error):
                raise
            raise InputError(f"movie {movie.name}: {error}") from error
        usable, sentences = without_steep_places(estimate.motion)
        estimate = replace(
            estimate,
            motion=usable,
            flags=[
                *doubts_of_exposure(movie),
                *estimate.flags,
                *([sentences] if sentences else []),
                *_doubts(usable),
            ],
        )
        for flag in estimate.flags:
            heard.note("flagged", f"{movie.name}: {flag}")
        sums = corrected_sums(
            movie,
            estimate.motion,
            even_odd=resolved_settings.even_odd,
            group_frames=_frames_together(movie, resolved_settings),
            threads=threads,
            progress=_frame_progress(heard, "sum of frames", len(movie)),
        )
    pixel = movie.pixel_size_A * resolved_settings.bin_factor

    def micrograph(data: Any) -> Micrograph | None:
        if data is None:
            return None
        return Micrograph(crop_fourier(data, resolved_settings.bin_factor, threads), pixel, movie.name)

    plain = micrograph(sums.plain)
    assert plain is not None
    weighted = micrograph(sums.dose_weighted)
    groups = [image for image in map(micrograph, sums.groups) if image is not None]
    return CorrectedMovie(
        plain,
        weighted,
        micrograph(sums.even),
        micrograph(sums.odd),
        estimate.motion,
        estimate.gains,
        estimate.flags,
        _spectrum_of(groups or [weighted or plain]),
        recorded,
        estimate.agreement_sigma,
    )


def _frames_together(movie: Movie, settings: MotionSettings) -> int | None:
    """Frames to a group of power spectra; None where all are summed."""
    if settings.spectrum_dose_e_A2 is None:
        return None
    if movie.dose_per_frame_e_A2 is None:
        raise InputError(
            f"movie {movie.name}: groups of {settings.spectrum_dose_e_A2:g} e/A2 were asked for, but the exposure of "
            "a frame is unknown; give dose_per_frame_e_A2"
        )
    return max(1, round(settings.spectrum_dose_e_A2 / movie.dose_per_frame_e_A2))


def _spectrum_of(images: list[Micrograph]) -> PowerSpectrum | None:
    return averaged_spectrum(images) if min(images[0].shape) >= SMALLEST_SPECTRUM_PX else None


def _estimate(
    movie: Movie, settings: MotionSettings, heard: Listener, threads: int | None
) -> tuple[Estimate, RecordedSum]:
    """The motion by the method that was asked for; frames are binned while they are read, and dropped at the end."""
    n = len(movie)
    reading = movie.frames(ahead=2, threads=1 if threads == 1 else 2, recycle=True)
    factor = bin_factor(movie.shape, n, movie.pixel_size_A)
    binned = bin_movie(reading, n, movie.shape, factor, _frame_progress(heard, "frames", n))
    exposure = Exposure(
        movie.pixel_size_A, movie.dose_per_frame_e_A2, movie.voltage_kV or 300.0, movie.pre_exposure_e_A2
    )
    if settings.method == "likelihood":
        estimate = estimate_motion(binned, exposure, settings.model, threads=threads)
    else:
        tilt = {"tilt_deg": settings.tilt_deg, "axis_deg": settings.tilt_axis_deg}
        estimate = estimate_classically(binned, exposure, settings.method, **tilt, threads=threads)
    return estimate, recorded_sum(binned, np.flatnonzero(estimate.motion.used), estimate.steering, threads)


def _frame_progress(heard: Listener, phase: str, n: int) -> Callable[[int], None]:
    return lambda index: heard.progress(phase, index + 1, n)


def _doubts(motion: Motion) -> list[str]:
    errors = motion.global_error_px
    if errors is None or errors.mean() < UNSURE_PX:
        return []
    return [f"shifts of frames are known to {errors.mean():.2f} px only"]
