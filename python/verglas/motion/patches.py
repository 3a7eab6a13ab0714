"""Fourier space of patches of frames: whitened, damped like the signal, cut to where there is any."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from verglas import fourier, ops
from verglas.motion.binned import BinnedFrames
from verglas.motion.exposure import Exposure
from verglas.optics import critical_exposure_e_A2
from verglas.types.arrays import Array, Complex64Array, FloatArray, IntArray

PATCH_A = 220.0  # side of a patch: the field hardly changes within, and enough particles lie in one
SMALLEST_PX = 48
EDGE_PX = 6  # of the taper
BAND = 0.46  # cycles per binned pixel: beyond, the corner of the plane has neither signal nor whole rings
LONGEST_A = 300.0  # illumination and ice stay with the detector
MOST_PATCHES = 400
ASKED = 64
NEIGHBOURS = np.array([0.25, 0.5, 0.25])  # how rings of the signal's power are smoothed
# What a ring shows of the signal counts half where it is so many standard errors, and little below. The shifts were
# chosen for agreement: in rings without signal noise agrees by one or two standard errors where they are fitted, is
# followed for it the next time, and then agrees by more.
HALF_BELIEVED_SIGMAS = 3.0
LEAST_SIGMAS = 1.6  # below, a ring shows nothing


@dataclass(frozen=True, eq=False)
class Patches:
    """Half transforms of patches of binned frames, and how they are weighed.

    Attributes
    ----------
    data : (n, frames, rows, columns) complex64
        Whitened; frame f times ``damping[f]``.
    centres_px : (n, 2) float64
        x, y in pixels of the frames themselves.
    offsets : (n, frames, 2) int64
        Binned pixels (x, y) by which the patch was cut further on in this frame.
    frequencies_y, frequencies_x : (rows,), (columns,) float64
        Cycles per binned pixel.
    damping : (frames, rows, columns) float32
        What radiation has left of the signal's amplitude.
    factor : int
        Pixels to a binned pixel.
    side : int
        Of a patch in binned pixels.
    """

    data: Complex64Array
    centres_px: FloatArray
    offsets: IntArray
    frequencies_y: FloatArray
    frequencies_x: FloatArray
    damping: Array
    factor: int
    side: int
    threads: int | None = None

    @cached_property
    def radius(self) -> FloatArray:
        """|k| in cycles per binned pixel, (rows, columns)."""
        return np.hypot(self.frequencies_y[:, None], self.frequencies_x)

    @cached_property
    def rings(self) -> IntArray:
        """Number of the ring of every frequency."""
        return np.rint(self.radius * self.side).astype(np.int64)

    def usable(self, pixel_size_A: float) -> Array:
        """Frequencies that may be weighed: within the band, off the axes, each once, beyond the longest waves."""
        longest = pixel_size_A * self.factor / LONGEST_A if np.isfinite(pixel_size_A) else 0.0
        radius = self.radius
        inside = (radius <= BAND) & (radius >= max(longest, 2.5 / self.side))
        return inside & (self.frequencies_x[None] > 0) & (self.frequencies_y[:, None] != 0)

    def shifts(self, field_px: FloatArray) -> FloatArray:
        """Shifts that :func:`verglas.ops.shift_score` takes, from a field (n, frames, 2) in pixels of the frames."""
        return field_px / self.factor - self.offsets

    def score(self, field_px: FloatArray, weights: Array, *, derivatives: bool = True) -> ops.ShiftScores:
        """Value, gradient and curvature, per pixel of the frames."""
        scores = ops.shift_score(
            self.data,
            self.shifts(field_px),
            weights,
            self.frequencies_y,
            self.frequencies_x,
            derivatives=derivatives,
            threads=self.threads,
        )
        if scores.gradient is None or scores.curvature is None:
            return scores
        return ops.ShiftScores(scores.value, scores.gradient / self.factor, scores.curvature / self.factor**2)

    def coherence(self, field_px: FloatArray, rows: IntArray | None = None) -> FloatArray:
        """Sum over frames f != g of Re[z_f* z_g], mean over patches: (rows, columns)."""
        shifts = self.shifts(field_px)
        total = np.zeros(self.radius.shape)
        chosen = np.arange(len(self.data)) if rows is None else rows
        for p in chosen:
            down = np.exp(2j * np.pi * shifts[p, :, 1, None] * self.frequencies_y).astype(np.complex64)
            across = np.exp(2j * np.pi * shifts[p, :, 0, None] * self.frequencies_x).astype(np.complex64)
            turned = self.data[p] * down[:, :, None] * across[:, None, :]
            total += np.abs(turned.sum(0)) ** 2 - (np.abs(turned) ** 2).sum(0)
        return total / len(chosen)


def _starts(length: int, side: int, low: int, high: int) -> IntArray:
    """First pixels of patches that cover an axis evenly, patches moved by low .. high staying inside."""
    first, last = max(0, -low), max(0, length - side - max(0, high))
    if last < first:
        first = last = max(0, (length - side) // 2)
    count = max(1, round((last - first) / side) + 1)
    return np.rint(np.linspace(first, last, count)).astype(np.int64)


def _taper(side: int) -> FloatArray:
    """1 inside, a quarter wave at the edges; its mean square is 1."""
    at = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    line = np.sin(np.pi / 2 * np.minimum(1.0, at / EDGE_PX)) ** 2
    plane = line[:, None] * line
    return plane / np.sqrt(np.mean(plane**2))


def patch_side(binned: BinnedFrames, pixel_size_A: float) -> int:
    """Side of a patch in binned pixels, of a length that transforms quickly."""
    pixel = pixel_size_A * binned.factor if np.isfinite(pixel_size_A) else 2.0
    rows, columns = binned.data.shape[1:]
    side = max(SMALLEST_PX, round(PATCH_A / pixel), int(np.sqrt(rows * columns / MOST_PATCHES)))
    return fourier.fast_size(min(side, rows, columns)) if side < min(rows, columns) else min(rows, columns)


def cut(
    binned: BinnedFrames,
    used: IntArray,
    shifts_px: FloatArray,
    exposure: Exposure,
    threads: int | None = None,
) -> Patches:
    """Patches of the frames ``used``, cut where ``shifts_px`` (n_used, 2) say the content lies.

    Damped by what the specimen has had by the middle of each frame; where no dose is known, no damage is assumed.
    """
    pixel_size_A, exposure_e_A2 = exposure.pixel_size_A, exposure.middle_of(used)
    factor, side = binned.factor, patch_side(binned, pixel_size_A)
    whole = np.rint(shifts_px / factor).astype(np.int64)
    rows, columns = binned.data.shape[1:]
    most = max(rows, columns) // 20  # a frame that jumped must not cost the others their margins
    lows, highs = np.clip(whole.min(0), -most, 0), np.clip(whole.max(0), 0, most)
    ys, xs = _starts(rows, side, lows[1], highs[1]), _starts(columns, side, lows[0], highs[0])
    grid = np.array([(x, y) for y in ys for x in xs])
    reach = int(np.ceil(BAND * side)) + 1
    half = side // 2
    ky = np.r_[0 : min(reach, half), -min(reach, half) + 1 : 0]
    kx = np.arange(min(reach, half))
    offsets = np.empty((len(grid), len(used), 2), np.int64)
    data = np.empty((len(grid), len(used), len(ky), len(kx)), np.complex64)
    fft, more = fourier.transforms(binned.data, threads)
    taper = _taper(side).astype(np.float32)
    for i, f in enumerate(used):
        at = np.clip(grid + whole[i], 0, [columns - side, rows - side])
        offsets[:, i] = at - grid
        parts = sliding_window_view(binned.data[f], (side, side))[at[:, 1], at[:, 0]]  # a copy, row by row
        parts -= parts.mean((1, 2), keepdims=True)
        parts *= taper
        data[:, i] = fft.rfft2(parts, **more)[:, ky[:, None], kx]
    centres = (grid + (side - 1) / 2) * factor + (factor - 1) / 2
    fy, fx = ky / side, kx / side
    damping = np.ones((len(used), len(ky), len(kx)), np.float32)
    if exposure_e_A2 is not None and np.isfinite(pixel_size_A):
        k = np.hypot(fy[:, None], fx) / (pixel_size_A * factor)
        critical = critical_exposure_e_A2(k, exposure.voltage_kV or 300.0)
        damping[:] = np.exp(-exposure_e_A2[:, None, None] / (2 * critical))
    patches = Patches(data, centres, offsets, fy, fx, damping, factor, side, threads)
    _whiten(patches)
    return patches


def _whiten(patches: Patches) -> None:
    """Divides by the noise's amplitude of each ring and multiplies by the damping, in place.

    Signal is a few per cent of the power of one frame at most, so the power is the noise's.
    """
    rings = patches.rings.ravel()
    count = np.bincount(rings)
    for f in range(patches.data.shape[1]):
        power = np.zeros(patches.radius.shape)
        for p in range(0, len(patches.data), 64):
            part = patches.data[p : p + 64, f]
            power += (part.real**2).sum(0) + (part.imag**2).sum(0)
        ring = np.bincount(rings, power.ravel()) / np.maximum(1, count) / len(patches.data)
        scale = patches.damping[f] / np.sqrt(np.maximum(ring, 1e-30))[patches.rings]
        patches.data[:, f] *= scale.astype(np.float32)


def signal_to_noise(patches: Patches, field_px: FloatArray, *, shrunk: bool = True) -> FloatArray:
    """Power of the undamaged signal in one frame over that of the noise, ring by ring, as the frames' agreement says.

    E[sum over f != g of z_f* z_g] = s ((sum q^2)^2 - sum q^4), q the damping. At most ASKED patches are asked. What is
    found is ``shrunk`` where it is not sure (``HALF_BELIEVED_SIGMAS``), or taken as it is.
    """
    q2 = patches.damping.astype(float) ** 2
    pairs = q2.sum(0) ** 2 - (q2**2).sum(0)
    asked = np.unique(np.linspace(0, len(patches.data) - 1, ASKED).astype(int))
    agreement = patches.coherence(field_px, asked)
    usable = (patches.frequencies_x[None] > 0) & (patches.frequencies_y[:, None] != 0)
    rings, size = patches.rings[usable], int(patches.rings.max()) + 1

    def of_rings(values: FloatArray, share: FloatArray) -> FloatArray:
        # three neighbours: a ring's own error would otherwise come back as its weight
        summed = np.bincount(rings, values[usable], size)
        return np.asarray(np.convolve(np.pad(summed, 1, mode="edge"), share, "valid"))

    expected = np.maximum(of_rings(pairs, NEIGHBOURS), 1e-30)
    # the variance of noise that agrees by chance is `pairs` in each patch
    error = np.sqrt(np.maximum(of_rings(pairs, NEIGHBOURS**2), 1e-30) / len(asked)) / expected
    snr = of_rings(agreement, NEIGHBOURS) / expected
    believed = snr**2 / (snr**2 + (HALF_BELIEVED_SIGMAS * error) ** 2) if shrunk else 1.0
    return np.where(snr > LEAST_SIGMAS * error, snr * believed, 0.0)


def likelihood_weights(patches: Patches, snr: FloatArray, pixel_size_A: float) -> FloatArray:
    """W of the log-likelihood of shifts under a Gaussian signal of unknown values: s / (1 + s sum q^2) per frequency.

    Then sum_k w |sum_f z_f|^2 is the log of the probability of the patches, up to a constant: in nats.
    """
    s = snr[patches.rings]
    total = (patches.damping.astype(float) ** 2).sum(0)
    return np.where(patches.usable(pixel_size_A), s / (1 + s * total), 0.0)


def b_factor_weights(patches: Patches, b_factor_A2: float, pixel_size_A: float) -> FloatArray:
    """exp(-B k^2 / 4) before anything is known of the signal."""
    pixel = patches.factor * (pixel_size_A if np.isfinite(pixel_size_A) else 1.0)
    weight = np.exp(-b_factor_A2 / 4 * (patches.radius / pixel) ** 2)
    return np.where(patches.usable(pixel_size_A), weight, 0.0)
