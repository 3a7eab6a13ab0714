"""Passes through the movies, one movie at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from verglas.errors import InputError
from verglas.polishing import (
    Evidence,
    FrameCorrelation,
    FrameWeights,
    Measured,
    MotionPrior,
    MovieParticles,
    OtherHalf,
    References,
    Surfaces,
    correlate_frames,
    fit_frame_weights,
    fit_prior,
    fit_tracks,
    held_out_gain,
    measure,
    smoother_of,
    track_errors_A,
    weights_gain,
)
from verglas.run.polish_inputs import Assigned, movie_particles, shows_particles
from verglas.types import Keeper, Particles, Snapshot
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener

_SAMPLE_MOVIES, _SAMPLE_PARTICLES = 10, 60  # that the prior is fitted to
_KEPT_BYTES = 64 << 20  # of surfaces of the sample that need not be made twice
_WEIGHT_MOVIES = 30  # that weights of frames are fitted to
_LEAST_SIGMA = 3.0  # of the correlation in a shell that counts as informative
_START = MotionPrior(0.5, 2000.0, 0.5)  # where the search for the prior begins
_UNIT_DOSE = 1.0  # e/A^2 a frame where nobody knows it: velocities are then per frame
_MANY_MOVIES = 8  # from which their spread, not that of their particles, gives the error of a gain


@dataclass(frozen=True, eq=False)
class MicrographTracks:
    """Tracks of one movie's particles.

    Attributes
    ----------
    number : int
        Of the movie, in the order of the job.
    moves_A : (P, F, 2) float32
        Beyond the known motion, x then y.
    error_A : float
        Standard error along an axis, averaged.
    nats : (P,) float64
        What held-out coefficients of each particle gain.
    """

    number: int
    moves_A: Float32Array
    error_A: float
    nats: FloatArray

    @property
    def kept(self) -> bool:
        """Whether the micrograph gains; used only if all of them together do."""
        return bool(self.nats.sum() > 0)


@dataclass(frozen=True, eq=False)
class WeightsFit:
    """Weights of frames.

    Attributes
    ----------
    weights : FrameWeights
        In use.
    by_data : bool
        Whether they come from the data; else from the exposure curve.
    own, smooth : FrameWeights or None
        Scale and B-factor of each frame by itself, whatever their errors; and as smooth curves along the frames.
    by_smooth : bool
        Whether weights in use depart from the exposure curve smoothly along the frames, which told others more.
    gain_nats, gain_error_nats : float
        What weights of one half of the particles tell more of the others than the exposure curve.
    why : str
        Why the data have no say, where they have none.
    """

    weights: FrameWeights
    by_data: bool
    own: FrameWeights | None
    smooth: FrameWeights | None = None
    by_smooth: bool = False
    gain_nats: float = 0.0
    gain_error_nats: float = 0.0
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told: dict[str, Any] = {
            "by_data": self.by_data,
            "by_smooth": self.by_smooth,
            "gain_nats": round(self.gain_nats, 2),
            "gain_error_nats": round(self.gain_error_nats, 2),
            "why": self.why,
        }
        if self.own is not None:
            for name in ("scale", "scale_error", "b_factor_A2", "b_factor_error_A2"):
                told[name] = np.round(getattr(self.own, name), 3).tolist()
        return told


@dataclass(frozen=True, eq=False)
class Sample:
    """What some of the movies say.

    Attributes
    ----------
    measured : list of Measured
        Of at most so many particles each.
    places_A : list of (P, 2) float64
    doses : list of float
    informative : int
        Shells in which all of them together correlate with the reference.
    """

    measured: list[Measured]
    places_A: list[FloatArray]
    doses: list[float]
    informative: int


@dataclass(eq=False)
class Passes:
    """Movies, particles and references of a job; ``excluded`` grows while movies turn out not to fit.

    Attributes
    ----------
    particles : Particles
    half : (n,) int64
    assigned : list of Assigned
    other : OtherHalf
    heard : Listener
    part : callable
        Of a name, where that part of the job is kept: what is kept there is not done again.
    excluded : dict of int -> str
        Row of the particles -> why its movie was left out.
    """

    particles: Particles
    half: IntArray
    assigned: list[Assigned]
    other: OtherHalf
    heard: Listener
    part: Callable[[str], Keeper]
    excluded: dict[int, str] = field(default_factory=dict)
    _measured: dict[int, Measured] = field(default_factory=dict)

    def load(self, number: int) -> MovieParticles | None:
        """One movie's particles; None, and counted, where it does not fit."""
        one = self.assigned[number]
        try:
            return movie_particles(self.particles, one)
        # A movie that cannot be read does not end the job; a fault of the program does.
        except (InputError, OSError) as error:
            if int(one.rows[0]) not in self.excluded:
                self.heard.note("excluded", str(error))
            self.excluded |= {int(i): str(error) for i in one.rows}
            return None

    def references(self, number: int) -> References:
        """The other half's map as the particles of a movie show it."""
        rows = self.assigned[number].rows
        return self.other.references(self.particles[rows], self.half[rows])

    def _spread(self, most: int) -> list[int]:
        """Numbers of at most so many movies, spread evenly."""
        n = len(self.assigned)
        return [int(i) for i in np.unique(np.linspace(0, n - 1, min(n, most)).round())]

    def sample(self) -> Sample:
        """Measure some movies, and see that they show these particles.

        Raises
        ------
        InputError
            None of them can be used, or the first shows something else.
        """
        measured, places, doses = list[Measured](), list[FloatArray](), list[float]()
        sums = np.zeros((2, self.other.window.last + 1))
        numbers = self._spread(_SAMPLE_MOVIES)
        for step, number in enumerate(numbers):
            self.heard.progress("movies of the sample", step, len(numbers))
            movie = self.load(number)
            if movie is None:
                continue
            made = measure(movie, self.references(number), self.other.window)
            if not measured:
                self._check_images(number, movie, made)
            made = replace(made, sums=made.sums[:0].copy())  # a view would hold them all
            self._keep_measured(number, made)
            sums += made.shell_sums
            some = np.unique(np.linspace(0, len(movie) - 1, _SAMPLE_PARTICLES).round()).astype(np.int64)
            first, second = (fold.take(some) for fold in made.folds)
            measured.append(replace(made, folds=(first, second), power=made.power[:, some]))
            places.append(movie.places_A[some])
            doses.append(dose_of(movie))
        if not measured:
            why = next(iter(self.excluded.values()))
            raise InputError(f"polish: none of {len(numbers)} movies can be used; the first: {why}")
        self.heard.progress("movies of the sample", len(numbers), len(numbers))
        z = sums[0, 1:] / np.sqrt(np.maximum(sums[1, 1:], 1e-30))
        return Sample(measured, places, doses, int((z > _LEAST_SIGMA).sum()))

    def _keep_measured(self, number: int, made: Measured) -> None:
        """For the pass that follows particles, while they are few."""
        size = sum(fold.splines.nbytes for fold in made.folds)
        if size + sum(fold.splines.nbytes for one in self._measured.values() for fold in one.folds) <= _KEPT_BYTES:
            self._measured[number] = made

    def _check_images(self, number: int, movie: MovieParticles, made: Measured) -> None:
        one = self.assigned[number]
        where = one.recorded.trajectory.movie or one.recorded.micrograph
        shows_particles(self.particles[one.rows], made.sums, where)

    def fit_prior(self, sample: Sample, prior: MotionPrior | None) -> tuple[MotionPrior, float]:
        """The prior, as given or fitted, and the amplitude of the references in the frames."""
        amplitude = float(sum(m.shell_sums[0, 1:].sum() for m in sample.measured))
        amplitude /= float(sum(m.shell_sums[1, 1:].sum() for m in sample.measured))
        fitted = prior or _START
        # Motion takes from the amplitude, and a wrong amplitude from the motion: in turns.
        for turn in range(2):
            if prior is None:
                self.heard.say(f"fitting the prior of tracks to a sample of the movies, turn {turn + 1} of 2")
                fitted = fit_prior(self._evidence(sample, amplitude), fitted, self.part(f"prior_turn_{turn}"))
            amplitude = self._amplitude_along(sample, fitted, amplitude)
        return fitted, amplitude

    def _evidence(self, sample: Sample, amplitude: float) -> list[Evidence]:
        parts = zip(sample.measured, sample.places_A, sample.doses, strict=True)
        return [Evidence(both(m, amplitude), places, dose) for m, places, dose in parts]

    def _amplitude_along(self, sample: Sample, prior: MotionPrior, amplitude: float) -> float:
        """By least squares along tracks, each judged by coefficients that it was not fitted to."""
        cross = power = 0.0
        for m, places, dose in zip(sample.measured, sample.places_A, sample.doses, strict=True):
            folds = scaled_folds(m, amplitude)
            _, fits = held_out_gain(folds, prior, places, dose)
            cross += sum(float(m.folds[1 - i].at(fits[i].places_A)[0].sum()) for i in range(2))
            power += float(m.power.sum())
        return cross / power if cross > 0 else amplitude

    def follow(self, prior: MotionPrior, amplitude: float) -> list[MicrographTracks]:
        """Tracks of all movies."""
        tracks = []
        for number in range(len(self.assigned)):
            self.heard.progress("movies, tracks", number, len(self.assigned))
            kept = self.part(f"tracks_{number:06d}")
            had = kept.load()
            if had is not None:
                tracks.append(
                    MicrographTracks(number, had.arrays["moves_A"], had.record["error_A"], had.arrays["nats"])
                )
                continue
            movie = self.load(number)
            if movie is None:
                continue
            before = self._measured.pop(number, None)
            made = before or measure(movie, self.references(number), self.other.window)
            folds = scaled_folds(made, amplitude)
            whole = folds[0] + folds[1]
            gain, fits = held_out_gain(folds, prior, movie.places_A, dose_of(movie))
            smoother = smoother_of(prior, whole, movie.places_A, dose_of(movie))
            best = fit_tracks(whole, smoother, fits[0].places_A)
            error = float(np.sqrt((track_errors_A(smoother) ** 2).mean()))
            one = MicrographTracks(number, best.positions_A.astype(np.float32), error, gain.nats)
            kept.save(Snapshot({"moves_A": one.moves_A, "nats": one.nats}, {"error_A": one.error_A}), needed=True)
            tracks.append(one)
        self.heard.progress("movies, tracks", len(self.assigned), len(self.assigned))
        return tracks

    def gain_of(self, tracks: list[MicrographTracks]) -> tuple[float, float]:
        """Held-out gain of all tracks, and its standard error."""
        totals = np.array([t.nats.sum() for t in tracks])
        if len(tracks) >= _MANY_MOVIES:
            return float(totals.sum()), float(np.sqrt(len(totals)) * totals.std(ddof=1))
        nats = np.concatenate([t.nats for t in tracks])
        spread = nats.std(ddof=1) if len(nats) > 1 else np.inf
        return float(totals.sum()), float(np.sqrt(len(nats)) * spread)

    def fit_weights(self, moves: dict[int, Float32Array], *, by_data: bool) -> WeightsFit:
        """Weights of frames from some of the movies along their tracks, judged on every second particle."""
        halves: dict[int, tuple[FrameCorrelation, FrameCorrelation]] = {}
        left: dict[int, FloatArray] = {}
        window, numbers = self.other.window, self._spread(_WEIGHT_MOVIES)
        for step, number in enumerate(numbers):
            self.heard.progress("movies, weights of frames", step, len(numbers))
            movie = self.load(number)
            if movie is None:
                continue
            n = len(movie.frames)
            if n not in halves:
                halves[n] = (FrameCorrelation(window, n), FrameCorrelation(window, n))
                left[n] = movie.amplitude_left(int(0.75 * window.box))  # to the corners of the transform
            if by_data:
                correlate_frames(movie, self.references(number), moves.get(number), halves[n])
        self.heard.progress("movies, weights of frames", len(numbers), len(numbers))
        n = max(halves, key=lambda frames: halves[frames][0].models.sum())
        return weights_of(halves[n], left[n], by_data=by_data)


def dose_of(movie: MovieParticles) -> float:
    """Exposure of a frame, e/A^2; 1 where nobody knows it."""
    return movie.movie.dose_per_frame_e_A2 or _UNIT_DOSE


def scaled_folds(measured: Measured, amplitude: float) -> tuple[Surfaces, Surfaces]:
    """Surfaces of both folds for references of an amplitude."""
    return measured.folds[0].scale(amplitude), measured.folds[1].scale(amplitude)


def both(measured: Measured, amplitude: float) -> Surfaces:
    """Of all coefficients."""
    first, second = scaled_folds(measured, amplitude)
    return first + second


def weights_of(halves: tuple[FrameCorrelation, FrameCorrelation], left: FloatArray, *, by_data: bool) -> WeightsFit:
    """Weights by the data where these tell more of the other half of the particles, by more than three errors.

    Departures from the exposure curve are those of each frame, or smooth along the frames: what tells others more.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.polishing import FrameCorrelation, Window
    >>> from verglas.run.polish_passes import weights_of
    >>> empty = FrameCorrelation(Window(32, 2.0, 10, 5.0), 4)
    >>> weights_of((empty, empty), np.ones((4, 11)), by_data=True).by_data
    False
    """
    frames, shells = len(left), halves[0].window.last + 1
    all_k2 = (np.arange(left.shape[1]) / (halves[0].window.box * halves[0].window.pixel_size_A)) ** 2
    zero, k2, fitted = np.zeros(frames), all_k2[:shells], left[:, :shells]
    curve = FrameWeights(zero, zero, zero, zero, np.maximum(left, 1e-6), all_k2)
    if not by_data:
        return WeightsFit(curve, False, None, why="not asked for")
    try:
        own, smooth = (fit_frame_weights(halves[0] + halves[1], smooth=s) for s in (False, True))
        ways = [[fit_frame_weights(half, fitted, smooth=s) for half in halves] for s in (False, True)]
    except InputError as error:
        return WeightsFit(curve, False, None, why=str(error))
    gains = np.array([[weights_gain(fits[i].at(k2), curve.at(k2), halves[1 - i]) for i in range(2)] for fits in ways])
    best = int(gains[:, :, 0].sum(axis=1).argmax())
    gain, spread = float(gains[best, :, 0].sum()), float(np.hypot(*gains[best, :, 1]))
    told: dict[str, Any] = {"own": own, "smooth": smooth, "gain_nats": gain, "gain_error_nats": spread}
    if gain <= 3 * spread:
        return WeightsFit(curve, False, why="other particles gain nothing by them", **told)
    every = fit_frame_weights(halves[0] + halves[1], fitted, smooth=bool(best))
    return WeightsFit(replace(every, left=curve.left, k2=all_k2), True, by_smooth=bool(best), **told)
