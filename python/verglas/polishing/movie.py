"""One movie at a time: its particles cut out of every frame, measured against their references, and added up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from verglas import fourier, image
from verglas.optics import critical_exposure_e_A2
from verglas.polishing.surfaces import References, SurfaceBuilder, Surfaces, Window
from verglas.polishing.weights import FrameCorrelation
from verglas.types import Movie
from verglas.types.arrays import Array, Complex64Array, Float32Array, FloatArray, IntArray, any_arrays

_BATCH = 8  # particles cut out at a time


@dataclass(frozen=True, eq=False)
class MovieParticles:
    """Particles of one movie, and where the movie is known to show them.

    Attributes
    ----------
    movie : Movie
    frames : (F,) int64
        Numbers of the frames in use.
    centres_px : (P, 2) int64
        Pixel (x, y) of the unmoved frame that lies at pixel box // 2 of a particle's image.
    known_px : (P, F, 2) float64
        Where the motion of whole frames and the local field put it in each frame, minus that pixel.
    plan : image.ResamplePlan
        From boxes of the frames to images.
    """

    movie: Movie
    frames: IntArray
    centres_px: IntArray
    known_px: FloatArray
    plan: image.ResamplePlan

    def __len__(self) -> int:
        return len(self.centres_px)

    @property
    def places_A(self) -> FloatArray:
        """(P, 2): on the specimen."""
        return np.asarray(self.centres_px * self.movie.pixel_size_A, float)

    def exposures_e_A2(self) -> FloatArray | None:
        """(F,) before the middle of each frame; None where nobody knows the dose."""
        dose = self.movie.dose_per_frame_e_A2
        return (
            None if dose is None else np.asarray(self.movie.pre_exposure_e_A2 + dose * (self.frames + 0.5), np.float64)
        )

    def amplitude_left(self, shells: int) -> FloatArray:
        """(F, shells): share of the amplitude that the exposure before each frame leaves, by Grant and Grigorieff."""
        exposures = self.exposures_e_A2()
        if exposures is None:
            return np.ones((len(self.frames), shells))
        k = np.arange(shells) / (self.plan.new_box * self.plan.pixel_size_A)
        critical = critical_exposure_e_A2(k, self.movie.voltage_kV or 300.0)
        return np.asarray(np.exp(-exposures[:, None] / (2 * critical)))

    def frame_places(self, moves_A: Array | None = None) -> Iterator[tuple[int, Float32Array, FloatArray]]:
        """Place among the frames in use, the frame, and where it shows each particle (P, 2) along the known track.

        ``moves_A`` (P, F, 2) are added. Each frame is read once and dropped.
        """
        known = self.known_px if moves_A is None else self.known_px + moves_A / self.movie.pixel_size_A
        for f, frame in enumerate(self.movie.frames(self.frames.tolist(), recycle=True)):
            yield f, frame, self.centres_px + known[:, f]

    def spectra(self, last: int, moves_A: Array | None = None) -> Iterator[tuple[int, Complex64Array]]:
        """Place among the frames in use, and low frequencies (P, 2 last + 1, last + 1) about the known track.

        Particles are white; ``moves_A`` (P, F, 2) is taken off, too.
        """
        for f, frame, places in self.frame_places(moves_A):
            made = np.empty((len(self), 2 * last + 1, last + 1), np.complex64)
            for some, spectra in cut_spectra(frame, places, self.plan, last):
                made[some] = spectra
            yield f, made


def cut_frame(frame: Float32Array, places_px: FloatArray, plan: image.ResamplePlan) -> Complex64Array:
    """Half transforms of boxes whose pixel box // 2 lies at exact places (P, 2) of a frame, inverted.

    Boxes are cut at the nearest pixel and the rest is a phase; what lies beyond the edge has the mean of the frame.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier, image
    >>> from verglas.polishing.movie import cut_frame
    >>> frame = np.zeros((32, 32), np.float32); frame[10, 20] = -1
    >>> plan = image.plan_resample(8, 1.0, 1.0)
    >>> one = fourier.inverse(cut_frame(frame, np.array([[20.0, 10.0]]), plan), (8, 8))[0]
    >>> np.unravel_index(one.argmax(), one.shape) == (4, 4)
    True
    """
    return np.concatenate([spectra for _, spectra in cut_spectra(frame, places_px, plan)])


def cut_spectra(
    frame: Float32Array, places_px: FloatArray, plan: image.ResamplePlan, last: int | None = None
) -> Iterator[tuple[slice, Complex64Array]]:
    """Some particles at a time, so that boxes and transforms stay in the cache: which, and what :func:`cut_frame` says.

    Of the whole half transforms or, with ``last``, of their low frequencies.
    """
    whole = np.floor(places_px + 0.5).astype(np.int64)
    rest = (places_px - whole) * (plan.new_work_box / plan.work_box)
    fill = float(frame.mean(dtype=np.float64))
    for begin in range(0, len(places_px), _BATCH):
        some = slice(begin, min(begin + _BATCH, len(places_px)))
        boxes = np.stack([_box_at(frame, low, plan.box, fill) for low in whole[some] - plan.box // 2])
        np.negative(boxes, out=boxes)
        boxes -= boxes.mean(axis=(1, 2), keepdims=True)
        images = image.resample(boxes, plan, threads=1)
        if last is None:
            spectra, rows, columns = fourier.forward(images, 2, threads=1), slice(None), slice(None)
        else:
            spectra = fourier.low_frequencies(images, last, threads=1)
            rows, columns = np.r_[0 : last + 1, plan.new_box - last : plan.new_box], slice(last + 1)
        along_y, along_x = shift_factors(plan.new_box, rest[some])
        spectra *= along_y[:, rows]
        spectra *= along_x[..., columns]
        yield some, spectra


def _box_at(frame: Float32Array, low: IntArray, box: int, fill: float) -> Float32Array:
    """Box whose first pixel is at ``low`` (x, y); ``fill`` beyond the frame."""
    x, y = int(low[0]), int(low[1])
    height, width = frame.shape
    if 0 <= x <= width - box and 0 <= y <= height - box:
        return frame[y : y + box, x : x + box]
    made = np.full((box, box), fill, np.float32)
    y0, y1, x0, x1 = max(y, 0), min(y + box, height), max(x, 0), min(x + box, width)
    if y0 < y1 and x0 < x1:
        made[y0 - y : y1 - y, x0 - x : x1 - x] = frame[y0:y1, x0:x1]
    return made


def shift_factors(box: int, shifts_px: FloatArray) -> tuple[Complex64Array, Complex64Array]:
    """Factors (n, box, 1) and (n, 1, box // 2 + 1) of half transforms that move images by minus shifts (n, 2)."""
    none = np.zeros(len(shifts_px))
    along_y = fourier.shift_phases((box, 1), np.column_stack([none, -shifts_px[:, 1]]))
    along_x = fourier.shift_phases((1, box), np.column_stack([-shifts_px[:, 0], none]))
    return np.asarray(along_y, np.complex64), np.asarray(along_x, np.complex64)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one movie says.

    Attributes
    ----------
    folds : (Surfaces, Surfaces)
        For a reference whose amplitude is 1.
    power : (2, P, F) float64
        Sum of the squared reference over noise, of both folds.
    shell_sums : (2, shells) float64
        Correlation of all frames with the reference along the known tracks, and its variance without signal.
    sums : (P, 2 last + 1, last + 1) complex64
        Plain sums of the frames, low frequencies of the window.
    """

    folds: tuple[Surfaces, Surfaces]
    power: FloatArray
    shell_sums: FloatArray
    sums: Complex64Array


def measure(particles: MovieParticles, references: References, window: Window) -> Measured:
    """Surfaces of all particles and frames of a movie: one pass through its frames."""
    builder = SurfaceBuilder(window, references, len(particles.frames))
    left = particles.amplitude_left(window.last + 1)
    sums = np.zeros(references.models.shape, np.complex64)
    for f, spectra in particles.spectra(window.last):
        builder.add(f, spectra, left[f])
        sums += spectra
    return Measured(builder.surfaces(), builder.power, builder.shell_sums, sums)


@any_arrays
def correlate_frames(
    particles: MovieParticles,
    references: References,
    moves_A: Array | None,
    halves: tuple[FrameCorrelation, FrameCorrelation],
) -> None:
    """Add the particles of a movie to correlations of frames: every second one to each of two."""
    parity = np.arange(len(particles)) % 2
    parts = [References(references.models[parity == h], references.certain[parity == h]) for h in range(2)]
    for f, spectra in particles.spectra(halves[0].window.last, moves_A):
        for h, part in enumerate(parts):
            if len(part.models):
                halves[h].add(f, spectra[parity == h], part)


@any_arrays
def add_frames(particles: MovieParticles, moves_A: Array | None, weights: FloatArray) -> Float32Array:
    """Images (P, box, box): frames brought back along their tracks, weighted (F, box, box // 2 + 1), and added up."""
    box = particles.plan.new_box
    sums = np.zeros((len(particles), box, box // 2 + 1), np.complex64)
    for f, frame, places in particles.frame_places(moves_A):
        weight = weights[f].astype(np.float32)
        for some, spectra in cut_spectra(frame, places, particles.plan):
            spectra *= weight
            sums[some] += spectra
    images = np.empty((len(sums), box, box), np.float32)
    for begin in range(0, len(sums), _BATCH):
        images[begin : begin + _BATCH] = fourier.inverse(sums[begin : begin + _BATCH], (box, box), threads=1)
    return images
