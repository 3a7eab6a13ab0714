"""Corrected micrographs: frames resampled once, added up plainly and weighted by dose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas.motion.dose import separable_weights
from verglas.types import Movie
from verglas.types.arrays import Array, Float32Array, FloatArray
from verglas.types.motion import Motion

NODE_PX = 64  # nodes of the resampled field are at most so far apart: bilinear between them is good to 1e-3 px
STEEPEST = 0.0199  # px per px: what the kernel resamples is 0.02, and nodes are rounded to float32
TOGETHER_BYTES = 350_000_000  # of frames that are resampled in one call; the sums stay in cache for all of them
TABLE = 4096
ROWS_TOGETHER = 16  # of a transform that are multiplied at a time: what is looked up for them stays in cache


@dataclass(frozen=True)
class Sums:
    """Sums over the used frames, (y, x) float32.

    Attributes
    ----------
    plain : array
    dose_weighted : array or None
        None where no dose is known.
    even, odd : array or None
        Of frames 1, 3, 5, ... (odd) and 2, 4, 6, ... (even), where asked for.
    groups : tuple of array
        Plain sums of groups of neighbouring frames, where asked for.
    """

    plain: Float32Array
    dose_weighted: Float32Array | None
    even: Float32Array | None = None
    odd: Float32Array | None = None
    groups: tuple[Float32Array, ...] = ()


class KeptFrames:
    """Frames as recorded, kept in memory when first read, as many as fit into ``bytes_``: counts take one byte each.

    A movie is gone through twice. What fits is decoded once; the rest is read again.
    """

    def __init__(self, source: Any, bytes_: int) -> None:
        self.source, self.left = source, int(bytes_)
        self.kept: dict[int, npt.NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.source)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of every frame."""
        return self.source.shape

    def read(self, index: int) -> npt.NDArray[Any]:
        """Frame ``index`` as recorded."""
        if index in self.kept:
            return self.kept[index]
        frame = np.asarray(self.source.read(index))
        if frame.base is None and frame.nbytes <= self.left:  # a view costs nothing to read again
            self.left -= frame.nbytes
            self.kept[index] = frame
        return frame

    def of(self, movie: Movie) -> Movie:
        """The movie, read through this."""
        return replace(movie, source=self)


def _batches(indices: npt.NDArray[np.int64], frame_bytes: int) -> Iterator[npt.NDArray[np.int64]]:
    size = max(1, TOGETHER_BYTES // frame_bytes)
    for at in range(0, len(indices), size):
        yield indices[at : at + size]


def resampling_nodes(motion: Motion) -> FloatArray:
    """Nodes (n_frames, nodes_y, nodes_x, 2) between which the field that resamples frames is bilinear."""
    if motion.model == "global":
        return np.asarray(motion.global_px[:, None, None])
    rows, columns = motion.shape
    return motion.on_lattice(-(-rows // NODE_PX) + 1, -(-columns // NODE_PX) + 1)


def steepness(motion: Motion) -> float:
    """Largest change of a shift from node to node, px per px: frames are resampled up to STEEPEST."""
    nodes = resampling_nodes(motion)
    largest = 0.0
    for axis, side in ((1, motion.shape[0]), (2, motion.shape[1])):
        if nodes.shape[axis] > 1:
            step = (side - 1) / (nodes.shape[axis] - 1)
            largest = max(largest, float(np.abs(np.diff(nodes, axis=axis)).max()) / step)
    return largest


def without_steep_places(motion: Motion) -> tuple[Motion, str]:
    """A field that frames can be resampled by, and a sentence where it had to be made less local.

    A specimen does not stretch by 2 % between places 64 pixels apart: such a field has followed noise. The polynomial
    nearest to it takes its place, or the mean over places where that is too steep, too.
    """
    steep = steepness(motion)
    if steep <= STEEPEST:
        return motion, ""
    sentence = f"the {motion.model} field changes by {100 * steep:.1f} % of a distance, which no specimen does"
    if motion.lattice_px is not None:
        near = replace(motion, model="polynomial", lattice_px=None, polynomial=motion.as_polynomial())
        if steepness(near) <= STEEPEST:
            return near, f"{sentence}: the nearest polynomial is used"
    y, x = np.meshgrid(*(np.linspace(0, n - 1, 13) for n in motion.shape), indexing="ij")
    moved = motion.global_px + motion.local(x, y).mean(axis=(0, 1))
    whole = replace(motion, model="global", lattice_px=None, polynomial=None, global_px=moved - moved[:1])
    return whole, f"{sentence}: shifts of whole frames are used"


def add_up(
    movie: Movie,
    motion: Motion,
    factors: FloatArray,
    *,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Float32Array:
    """sum_f factors[f, r] I_f(x + d_f(x, y)): (r, y, x) float32, frames without a factor not read."""
    rows, columns = movie.shape
    nodes = resampling_nodes(motion)
    sums = np.zeros((factors.shape[1], rows, columns), np.float32)
    wanted = np.flatnonzero(factors.any(axis=1))
    buffer = np.empty((0, rows, columns), np.float32)
    with ThreadPoolExecutor(1 if threads == 1 else 2, thread_name_prefix="frames") as pool:
        for batch in _batches(wanted, 4 * rows * columns):
            if len(buffer) < len(batch):
                buffer = np.empty((len(batch), rows, columns), np.float32)
            part = buffer[: len(batch)]
            # straight into their places: the resampling takes all cores afterwards, so nothing is gained by overlap
            for index, _ in zip(batch, pool.map(movie.frame, map(int, batch), part), strict=True):
                if progress:
                    progress(int(index))
            ops.warp(part, nodes[batch].astype(np.float32), factors[batch], sums, threads=threads)
    return sums


def _table_index(shape: tuple[int, int], pixel_size_A: float, highest: float) -> npt.NDArray[np.int16]:
    """Place of every frequency of a half transform in a table from 0 to ``highest`` (1/A)."""
    ky, kx = np.fft.fftfreq(shape[0], pixel_size_A), np.fft.rfftfreq(shape[1], pixel_size_A)
    y2, x2 = np.square(ky).astype(np.float32), np.square(kx).astype(np.float32)
    out = np.empty((shape[0], len(kx)), np.int16)
    for i, y in enumerate(y2):
        out[i] = np.rint(np.sqrt(y + x2) * np.float32((TABLE - 1) / highest))
    return out


def _mirrored_into(padded: Float32Array, image: Float32Array) -> None:
    """The image, mirrored at its lower and right edge as far as the array goes on."""
    rows, columns = image.shape
    more_rows, more_columns = padded.shape[0] - rows, padded.shape[1] - columns
    padded[:rows, :columns] = image
    padded[rows:, :columns] = image[::-1][:more_rows]
    padded[:, columns:] = padded[:, :columns][:, ::-1][:, :more_columns]


def filtered_sum(
    sums: Float32Array,
    curves: FloatArray,
    frequencies_per_A: FloatArray,
    pixel_size_A: float,
    threads: int | None = None,
) -> Float32Array:
    """Sum over r of sums[r] (y, x) filtered with curves[r] of |k|: one transform each, one back.

    Sides of large prime factors are made longer by a mirrored strip: their transforms would take twice the time.
    """
    rows, columns = sums.shape[1:]
    padded = np.empty((fourier.fast_size(rows), fourier.fast_size(columns)), np.float32)
    highest = float(frequencies_per_A[-1])
    index = _table_index(padded.shape, pixel_size_A, highest)
    table = np.linspace(0, highest, TABLE)
    total: Array | None = None
    fft, more = fourier.transforms(padded, threads)
    for image, curve in zip(sums, curves, strict=True):
        _mirrored_into(padded, image)
        spectrum = fft.rfft2(padded, **more)
        gains = np.interp(table, frequencies_per_A, curve).astype(np.float32)
        for at in range(0, len(index), ROWS_TOGETHER):
            spectrum[at : at + ROWS_TOGETHER] *= gains[index[at : at + ROWS_TOGETHER]]
        if total is None:
            total = spectrum
        else:
            total += spectrum
    filtered = fft.irfft2(total, s=padded.shape, **more)[:rows, :columns]
    return np.ascontiguousarray(filtered, np.float32)


def corrected_sums(
    movie: Movie,
    motion: Motion,
    *,
    even_odd: bool = False,
    group_frames: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Sums:
    """Plain and dose-weighted sums of a movie's used frames.

    The dose-weighted sum is that of :func:`verglas.motion.dose.dose_weights`; its weights are a sum of about six
    products of a number per frame and a curve of |k|, so six transforms do for any number of frames.
    ``group_frames``: sums of so many neighbouring frames are wanted, too; the last group takes what is left.
    """
    n = len(movie)
    columns = [motion.used.astype(float)]
    if even_odd:
        even = np.arange(n) % 2 == 1
        columns += [motion.used & even, motion.used & ~even]
    if group_frames:
        number = np.minimum(np.arange(n) // group_frames, max(1, n // group_frames) - 1)
        columns += [motion.used & (number == group) for group in np.unique(number[motion.used])]
    plain = np.stack(columns, 1).astype(float)
    dose, pixel = movie.dose_per_frame_e_A2, movie.pixel_size_A
    if dose is None:
        sums = add_up(movie, motion, plain, threads=threads, progress=progress)
        return _name_sums(sums, None, even_odd)
    accumulated = movie.pre_exposure_e_A2 + dose * np.arange(1, n + 1)
    highest = float(np.hypot(0.5, 0.5) / pixel)
    factors, k, curves = separable_weights(accumulated, highest, movie.voltage_kV or 300.0, used=motion.used)
    sums = add_up(movie, motion, np.concatenate([plain, factors], 1), threads=threads, progress=progress)
    first = plain.shape[1]
    weighted = filtered_sum(sums[first:], curves, k, pixel, threads)
    kept = [sum_.copy() for sum_ in sums[:first]]  # copies: a view would keep all sums in memory
    return _name_sums(kept, weighted, even_odd)


def _name_sums(plain: Sequence[Float32Array] | Float32Array, weighted: Float32Array | None, even_odd: bool) -> Sums:
    """Plain sums in their order: all frames, even and odd ones where asked for, groups."""
    even, odd = (plain[1], plain[2]) if even_odd else (None, None)
    return Sums(plain[0], weighted, even, odd, tuple(plain[3 if even_odd else 1 :]))


def crop_fourier(image: Float32Array, factor: int, threads: int | None = None) -> Float32Array:
    """Every ``factor``-th sample of the image without the frequencies that these cannot hold; pixel (0, 0) stays."""
    if factor == 1:
        return image
    rows, columns = (side // factor for side in image.shape)
    part = image[: rows * factor, : columns * factor]
    fft, more = fourier.transforms(part, threads)
    spectrum = fft.rfft2(part, **more)
    low, high = (rows + 1) // 2, (rows - 1) // 2
    kept = np.zeros((rows, columns // 2 + 1), spectrum.dtype)
    width = (columns + 1) // 2
    kept[:low, :width] = spectrum[:low, :width]
    if high:
        kept[-high:, :width] = spectrum[-high:, :width]
    return np.asarray(fft.irfft2(kept, s=(rows, columns), **more) / factor**2, np.float32)
