"""One movie at a time: its particles cut out of every frame, measured against their references, and added up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from verglas import fourier, image
from verglas.optics import critical_exposure_e_A2
from verglas.polishing.surfaces import References, SurfaceBuilder, Surfaces, Window, shift_transforms
from verglas.polishing.weights import FrameCorrelation
from verglas.types import Movie
from verglas.types.arrays import Array, Complex64Array, Float32Array, FloatArray, IntArray, any_arrays


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

    def spectra(self, moves_A: Array | None = None) -> Iterator[tuple[int, Complex64Array]]:
        """Place among the frames in use, and half transforms (P, box, box // 2 + 1) about the known track.

        Particles are white; ``moves_A`` (P, F, 2) is taken off, too. Each frame is read once and dropped.
        """
        known = self.known_px if moves_A is None else self.known_px + moves_A / self.movie.pixel_size_A
        frames = self.movie.frames(self.frames.tolist(), recycle=True)
        for f, frame in enumerate(frames):
            yield f, cut_frame(frame, self.centres_px + known[:, f], self.plan)


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
    box = plan.box
    whole = np.floor(places_px + 0.5).astype(np.int64)
    low = whole - box // 2
    shape = np.array(frame.shape[::-1])
    out = max(0, int(-low.min(initial=0)), int((low + box - shape).max(initial=0)))
    if out:
        out = min(out, box)
        frame = np.pad(frame, out, constant_values=float(frame.mean(dtype=np.float64)))
        # a particle that lies outside as a whole has a box of the edge, all of it the mean
        low = np.clip(low + out, 0, shape + 2 * out - box)
    boxes = -sliding_window_view(frame, (box, box))[low[:, 1], low[:, 0]]
    boxes -= boxes.mean(axis=(1, 2), keepdims=True)
    images = image.resample(boxes, plan, threads=1)
    rest = (places_px - whole) * (plan.new_work_box / plan.work_box)
    return shift_transforms(fourier.forward(images, 2, threads=1), plan.new_box, rest)


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
    sums : (P, box, box // 2 + 1) complex64
        Plain sums of the frames.
    """

    folds: tuple[Surfaces, Surfaces]
    power: FloatArray
    shell_sums: FloatArray
    sums: Complex64Array


def measure(particles: MovieParticles, references: References, window: Window) -> Measured:
    """Surfaces of all particles and frames of a movie: one pass through its frames."""
    builder = SurfaceBuilder(window, references, len(particles.frames))
    left = particles.amplitude_left(window.last + 1)
    sums = np.zeros((len(particles), particles.plan.new_box, particles.plan.new_box // 2 + 1), np.complex64)
    for f, spectra in particles.spectra():
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
    for f, spectra in particles.spectra(moves_A):
        for h, part in enumerate(parts):
            if len(part.models):
                halves[h].add(f, spectra[parity == h], part)


@any_arrays
def add_frames(particles: MovieParticles, moves_A: Array | None, weights: FloatArray) -> Float32Array:
    """Images (P, box, box): frames brought back along their tracks, weighted (F, box, box // 2 + 1), and added up."""
    box = particles.plan.new_box
    sums = np.zeros((len(particles), box, box // 2 + 1), np.complex64)
    for f, spectra in particles.spectra(moves_A):
        sums += spectra * weights[f].astype(np.float32)
    return np.asarray(fourier.inverse(sums, (box, box), threads=1), np.float32)
