"""Shifts of whole frames, found from nothing: coarse pictures, pairs of groups, then each frame against the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verglas import fourier
from verglas.motion import pair_shifts
from verglas.motion.binned import bin_frame
from verglas.types.arrays import Array, Float32Array, FloatArray, IntArray

COARSE_SIDE = 640  # pixels of the longer side
MOST_GROUPS = 12
B_FACTOR_A2 = 500.0  # of the weight exp(-B k^2 / 4); at this size only the low frequencies are there
SKIPPED_RINGS = 3  # illumination and ice gradients stay with the detector
NEAR_PX = 12  # coarse pixels: a peak beyond must be higher by FAR_GAIN standard deviations
FAR_GAIN = 4.0
ITERATIONS = 8
RESTING_PX = 0.1  # coarse pixels; patches take it from there by Newton steps


@dataclass(frozen=True)
class WholeFrames:
    """Transforms of coarse frames, whitened and weighted.

    Attributes
    ----------
    spectra : (n, y, x // 2 + 1) complex64
    shape : (int, int)
        Of the coarse frames.
    factor : int
        Binned pixels to a coarse pixel.
    """

    spectra: Array
    shape: tuple[int, int]
    factor: int
    threads: int | None = None

    @classmethod
    def of(
        cls, frames: Float32Array | Sequence[Float32Array], pixel_size_A: float, threads: int | None = None
    ) -> WholeFrames:
        """Of binned frames, (y, x) each."""
        factor = max(1, -(-max(frames[0].shape) // COARSE_SIDE))
        coarse = np.stack([bin_frame(frame, factor) for frame in frames])
        shape = coarse.shape[1], coarse.shape[2]
        coarse -= coarse.mean((1, 2), keepdims=True)
        coarse *= _window(shape)
        fft, more = fourier.transforms(coarse, threads)
        spectra = fft.rfft2(coarse, **more)
        spectra *= _weight(spectra, shape, factor * pixel_size_A)
        return cls(spectra.astype(np.complex64, copy=False), shape, factor, threads)

    def moved_back(self, shifts: FloatArray) -> Array:
        """Spectra of the frames moved back by (n, 2) coarse pixels: times exp(2 pi i k.d)."""
        ky, kx = np.fft.fftfreq(self.shape[0]), np.fft.rfftfreq(self.shape[1])
        down = np.exp(2j * np.pi * shifts[:, 1, None] * ky).astype(np.complex64)
        across = np.exp(2j * np.pi * shifts[:, 0, None] * kx).astype(np.complex64)
        moved = self.spectra * down[:, :, None]
        moved *= across[:, None, :]
        return moved

    def correlation(self, a: Array, b: Array) -> Float32Array:
        """Map whose peak lies where b lies minus where a lies; (0, 0) first."""
        fft, more = fourier.transforms(a, self.threads)
        return np.asarray(fft.irfft2(a.conj() * b, s=self.shape, **more), np.float32)


def _window(shape: tuple[int, int]) -> Float32Array:
    """1 inside, falling to 0 over the outer twentieth: what leaves on one side does not come in on the other."""
    sides = []
    for n in shape:
        edge = max(2, n // 20)
        ramp = np.minimum(1.0, (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / edge)
        sides.append(np.sin(np.pi / 2 * ramp) ** 2)
    return (sides[0][:, None] * sides[1]).astype(np.float32)


def _weight(spectra: Array, shape: tuple[int, int], pixel_size_A: float) -> Float32Array:
    """1 over the mean amplitude of a ring, times exp(-B k^2 / 4); nothing on the axes and the first rings."""
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    k = np.hypot(ky, kx)
    ring = np.rint(k * max(shape)).astype(int)
    plane = np.zeros(ring.shape)
    for spectrum in spectra:
        plane += spectrum.real**2
        plane += spectrum.imag**2
    power = np.asarray(np.bincount(ring.ravel(), plane.ravel()), float)
    power /= np.maximum(1, np.bincount(ring.ravel())) * len(spectra)
    pixel = pixel_size_A if np.isfinite(pixel_size_A) else 4.0
    weight = np.exp(-B_FACTOR_A2 / 8 * (k / pixel) ** 2) / np.sqrt(np.maximum(power, 1e-30))[ring]
    weight[(ring < SKIPPED_RINGS) | (k > 0.5)] = 0
    weight[0], weight[:, 0] = 0, 0
    return np.asarray(weight, np.float32)


def peak_shift(correlation: Float32Array, near: FloatArray | None = None) -> tuple[FloatArray, float]:
    """Where a correlation map is highest, by a parabola on each axis, and by how many standard deviations.

    ``near`` (x, y): a peak within NEAR_PX of it is taken unless one elsewhere is higher by FAR_GAIN deviations.
    """
    rows, columns = correlation.shape
    deviation = float(correlation.std()) or 1.0
    y, x = divmod(int(correlation.argmax()), columns)
    if near is not None:
        span = np.arange(-NEAR_PX, NEAR_PX + 1)
        ys, xs = (round(float(near[1])) + span) % rows, (round(float(near[0])) + span) % columns
        part = correlation[np.ix_(ys, xs)]
        j, i = divmod(int(part.argmax()), len(span))
        if correlation[y, x] < part[j, i] + FAR_GAIN * deviation:
            y, x = int(ys[j]), int(xs[i])
    shift = []
    for at, side, line in ((x, columns, correlation[y]), (y, rows, correlation[:, x])):
        left, middle, right = (float(line[(at + d) % side]) for d in (-1, 0, 1))
        bend = left - 2 * middle + right
        whole = at if at <= side // 2 else at - side
        shift.append(whole + (0.5 * (left - right) / bend if bend < 0 else 0.0))
    return np.array(shift), float(correlation[y, x]) / deviation


def group_size(n_frames: int, dose_per_frame_e_A2: float | None) -> int:
    """Frames to a group: 2 e/A2 and more together, at most MOST_GROUPS groups, at least 3 of them where possible."""
    by_dose = 1 if not dose_per_frame_e_A2 else int(np.ceil(2.0 / dose_per_frame_e_A2))
    size = max(by_dose, -(-n_frames // MOST_GROUPS))
    return max(1, min(size, n_frames // 3))


def initial_shifts(frames: WholeFrames, size: int) -> FloatArray:
    """Shifts (n, 2) in coarse pixels from pairs of groups, robustly, interpolated to the frames; the first at 0."""
    n = len(frames.spectra)
    starts = np.arange(0, n - size + 1, size) if n >= size else np.array([0])
    ends = np.append(starts[1:], n)
    if len(starts) < 2:
        return np.zeros((n, 2))
    sums = [frames.spectra[a:b].sum(0) for a, b in zip(starts, ends, strict=True)]
    pairs = pair_shifts.all_pairs(len(sums))
    shifts = np.array([peak_shift(frames.correlation(sums[i], sums[j]), np.zeros(2))[0] for i, j in pairs])
    first_shifts = pair_shifts.robust(pairs, shifts, len(sums))
    middle = 0.5 * (starts + ends - 1)
    return np.stack([np.interp(np.arange(n), middle, first_shifts[:, axis]) for axis in (0, 1)], 1)


def pairs_of_frames(frames: WholeFrames) -> tuple[IntArray, FloatArray]:
    """All pairs i < j, and where frame j lies minus where frame i lies, coarse pixels."""
    pairs = pair_shifts.all_pairs(len(frames.spectra))
    shifts = [peak_shift(frames.correlation(frames.spectra[i], frames.spectra[j]), np.zeros(2))[0] for i, j in pairs]
    return pairs, np.array(shifts).reshape(-1, 2)


def align(frames: WholeFrames, shifts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each frame against the sum of the others, in turn until they rest: shifts about their mean, heights of peaks.

    Parameters
    ----------
    frames : WholeFrames
    shifts : (n, 2)
        Where to start, coarse pixels.

    Returns
    -------
    shifts : (n, 2) float64
    heights : (n,) float64
        Of the peaks, in standard deviations of their maps.
    """
    n = len(frames.spectra)
    shifts, heights = np.array(shifts), np.zeros(n)
    for _ in range(ITERATIONS):
        turned = frames.moved_back(shifts)
        total = turned.sum(0)
        new_shifts = np.empty_like(shifts)
        for f in range(n):
            map_ = frames.correlation(total - turned[f], frames.spectra[f])
            new_shifts[f], heights[f] = peak_shift(map_, shifts[f])
        change = np.abs(new_shifts - shifts - (new_shifts - shifts).mean(0)).max()
        shifts = new_shifts
        if change < RESTING_PX:
            break
    return shifts - shifts.mean(0), heights
