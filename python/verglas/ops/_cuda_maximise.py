"""maximise on a device: MaximisePlan's sums with the kernels of cuda/maximise.h, and CuPy's memory and sort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.ops._cuda_polar import DeviceArray, free_bytes, tables, weigh
from verglas.ops._images import PolarImages
from verglas.ops.polar import PolarGrid

if TYPE_CHECKING:
    from verglas._cuda_arrays import CudaSession

# Share of the free memory that the harmonics and factors of one chunk of images may take.
_CHUNK_SHARE = 0.3
_MOST_POWER = 64


@dataclass(frozen=True)
class Candidates:
    """Candidates on the host, as the core takes them: of images end to end; slices of other plans are passed over."""

    offsets: npt.NDArray[np.int64]
    slice: npt.NDArray[np.int32]
    opposite: npt.NDArray[np.uint8]
    psi_rad: npt.NDArray[np.float64]
    shift: npt.NDArray[np.int32]
    gamma: npt.NDArray[np.float64]


class CrossPower(NamedTuple):
    """Arrays on the host that residuals are added to, (images, rings) each."""

    cross: npt.NDArray[np.float64]
    power: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Sorted:
    """Candidates by slice, image, opposite, shift, psi, weight, and where their terms, groups and slices begin."""

    terms: dict[str, DeviceArray]
    column_image: DeviceArray
    column_shift: DeviceArray
    order: DeviceArray  # groups by image, then slice
    first: DeviceArray  # (n + 1) where an image's groups begin in it


def _starts(cupy: Any, key: DeviceArray) -> DeviceArray:
    """Where a new key begins in a sorted array, and its end."""
    change = cupy.ones(len(key) + 1, np.bool_)
    change[1:-1] = key[1:] != key[:-1]
    return cupy.flatnonzero(change)


class CudaMaximisePlan:
    """Sums of a block of slices on one device. Same interface as the core's plan.

    Parameters
    ----------
    cuda : CudaSession
    grid : PolarGrid
    n_slices, n_power : int
    """

    def __init__(self, cuda: CudaSession, grid: PolarGrid, n_slices: int, n_power: int) -> None:
        if n_power > _MOST_POWER:
            raise InputError(f"MaximisePlan: n_power: expected at most {_MOST_POWER} on a GPU, got {n_power}")
        self.cuda, self.grid, self.n_slices, self.n_power = cuda, grid, n_slices, n_power
        with cuda.active():
            # Double precision: the sums of one slice may run over 10^5 images.
            self.numerator = cuda.cupy.zeros((n_slices, grid.size), np.complex128)
            self.denominator = cuda.cupy.zeros((n_slices, grid.n_rings, n_power), np.complex128)
        self._touched = np.zeros(n_slices, np.bool_)
        self.harmonics: DeviceArray = None
        self.power: DeviceArray = None

    @property
    def slice_bytes(self) -> int:
        """Bytes of the sums of one slice."""
        return 16 * (self.grid.size + self.grid.n_rings * self.n_power)

    def touched(self) -> npt.NDArray[np.bool_]:
        """Which slices got a candidate."""
        return self._touched.copy()

    def set_reference(self, harmonics: Any, power: Any) -> None:
        """What residuals are measured against."""
        with self.cuda.active():
            self.harmonics = self.cuda.array(harmonics, np.complex64)
            self.power = self.cuda.array(power, np.complex64)

    def add(
        self,
        images: PolarImages,
        pixel_size_A: float,
        shifts: npt.NDArray[np.float32],
        candidates: Candidates,
        residuals: CrossPower | None,
    ) -> None:
        """Add images, as many at a time as memory allows."""
        _check(candidates, len(images), len(shifts))
        ours = (candidates.slice >= 0) & (candidates.slice < self.n_slices) & (candidates.gamma > 0)
        self._touched[np.unique(candidates.slice[ours])] = True
        image = np.repeat(np.arange(len(images)), np.diff(candidates.offsets))
        for begin, end in self._chunks(image[ours], len(images)):
            mine = np.flatnonzero(ours & (image >= begin) & (image < end))
            if mine.size:
                self._add_chunk(
                    images[begin:end],
                    pixel_size_A,
                    shifts,
                    candidates,
                    mine,
                    image[mine] - begin,
                    None if residuals is None else CrossPower(*(r[begin:end] for r in residuals)),
                )

    def slices(self, index: npt.NDArray[np.int64]) -> tuple[DeviceArray, DeviceArray]:
        """Sums of slices as polar samples, on the device."""
        if index.size and not (index.min() >= 0 and index.max() < self.n_slices):
            raise ValueError(f"index: expected 0 to {self.n_slices} (exclusive), got {index.min()} to {index.max()}")
        cuda, shape = self.cuda, (len(index), self.grid.n_rings, self.grid.n_theta // 2)
        with cuda.active() as stream:
            values, weights = cuda.cupy.empty(shape, np.complex64), cuda.cupy.empty(shape, np.float32)
            cuda.kernels.maximise_slices(
                tables(self.grid, cuda),
                self.numerator,
                self.denominator,
                cuda.array(index, np.int64),
                values,
                weights,
                stream,
            )
        return values, weights

    # -- one chunk ------------------------------------------------------------------------------------------------

    def _chunks(self, image: npt.NDArray[np.int64], n: int) -> list[tuple[int, int]]:
        """Ranges of images; every candidate may need harmonics, factors and residuals of its own."""
        with self.cuda.active():
            free = free_bytes(self.cuda)
        g = self.grid
        each = 8 * (g.size + g.max_m + 1) + 8 * g.n_rings * (g.max_m // self.cuda.kernels.HARMONIC_CHUNK + 2) + 128
        most = max(1, int(_CHUNK_SHARE * free // each))
        ends = np.cumsum(np.bincount(image, minlength=n))
        chunks, begin = [], 0
        while begin < n:
            base = ends[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, base + most, side="right")))
            chunks.append((begin, end))
            begin = end
        return chunks

    def _add_chunk(
        self,
        images: PolarImages,
        pixel_size_A: float,
        shifts: npt.NDArray[np.float32],
        candidates: Candidates,
        mine: npt.NDArray[np.int64],
        image: npt.NDArray[np.int64],
        residuals: CrossPower | None,
    ) -> None:
        cuda, cupy, g = self.cuda, self.cuda.cupy, self.grid
        with cuda.active() as stream:
            ordered = self._sort_candidates(candidates, mine, image, len(images), len(shifts))
            y, h, _ = weigh(images, g, cuda, stream, pixel_size_A, self.n_power, noise=False)
            moved = cuda.array(shifts, np.float32)[ordered.column_shift]
            if images.centres_px is not None:
                moved = moved + images.centres_px[ordered.column_image]
            b = cupy.empty((len(moved), g.size), np.complex64)
            cuda.kernels.shifted_rows(
                tables(g, cuda), y, ordered.column_image, cuda.array(moved, np.float32), b, stream
            )
            groups, chunks = len(ordered.terms["image"]), g.max_m // cuda.kernels.HARMONIC_CHUNK + 1
            reference = residuals is not None
            arrays = {
                "n_power": self.n_power,
                "b": b,
                "h": h,
                "inv_sigma2": images.inv_sigma2,
                "factors": cupy.empty((len(ordered.terms["column"]), g.max_m + 1), np.complex64),
                "numerator": self.numerator,
                "denominator": self.denominator,
                "harmonics": self.harmonics if reference else None,
                "power": self.power if reference else None,
                "cross": cupy.empty((groups, chunks, g.n_rings), np.float64) if reference else None,
                "power_sum": cupy.empty((groups, g.n_rings), np.float64) if reference else None,
            }
            cuda.kernels.maximise_add(tables(g, cuda), ordered.terms, arrays, stream)
            if residuals is not None:
                self._add_residuals(ordered, arrays, residuals, stream)

    def _add_residuals(self, ordered: _Sorted, arrays: dict[str, Any], residuals: CrossPower, stream: int) -> None:
        cuda = self.cuda
        cross, power = (cuda.cupy.asarray(np.ascontiguousarray(r)) for r in residuals)
        cuda.kernels.maximise_residuals(
            ordered.order, ordered.first, arrays["cross"], arrays["power_sum"], cross, power, stream
        )
        for target, value in zip(residuals, (cross, power), strict=True):
            target[...] = value.get()

    def _sort_candidates(
        self, candidates: Candidates, mine: npt.NDArray[np.int64], image: npt.NDArray[np.int64], n: int, n_shifts: int
    ) -> _Sorted:
        cuda, cupy = self.cuda, self.cuda.cupy
        psi, gamma = (cuda.array(v[mine], np.float64) for v in (candidates.psi_rad, candidates.gamma))
        # One number for slice, image, opposite and shift: below 2^53, so that float64 sorts it exactly.
        place = (candidates.slice[mine].astype(np.int64) * n + image) * 2 + candidates.opposite[mine]
        key = cuda.array(place * n_shifts + candidates.shift[mine], np.int64)
        # The last row is the first key. The weight is sorted too, so that equal poses add in one order, however they
        # came.
        order = cupy.lexsort(cupy.stack([gamma, psi, key.astype(np.float64)]))
        key, psi, gamma = key[order], psi[order], gamma[order]
        entry = _starts(cupy, key)
        of_term = key[entry[:-1]]
        term = _starts(cupy, of_term // (2 * n_shifts))
        of_group = of_term[term[:-1]] // (2 * n_shifts)
        group = _starts(cupy, of_group // n)
        of_image = (of_group % n).astype(np.int32)
        pair = of_term // (2 * n_shifts) % n * n_shifts + of_term % n_shifts
        columns, column = cupy.unique(pair, return_inverse=True)
        # Place within the image as second key: lexsort is not told to be stable, and residuals must add in one order.
        by_image = cupy.lexsort(cupy.stack([cupy.arange(len(of_image), dtype=np.float64), of_image.astype(np.float64)]))
        counts = cupy.bincount(of_image, minlength=n)
        first = cupy.zeros(n + 1, np.int64)
        first[1:] = cupy.cumsum(counts)
        terms = {
            "psi_turns": psi / (2 * np.pi),
            "gamma": gamma,
            "first_entry": entry.astype(np.int32),
            "column": column.reshape(-1).astype(np.int32),
            "opposite": (of_term // n_shifts % 2).astype(np.uint8),
            "first_term": term.astype(np.int32),
            "image": of_image,
            "first_group": group.astype(np.int32),
            "slice": (of_group[group[:-1]] // n).astype(np.int32),
        }
        return _Sorted(
            terms, (columns // n_shifts).astype(np.int32), columns % n_shifts, by_image.astype(np.int32), first
        )


def _check(c: Candidates, n: int, n_shifts: int) -> None:
    """As the core refuses them."""
    if len(c.offsets) != n + 1 or c.offsets[0] != 0 or c.offsets[-1] != len(c.slice):
        raise ValueError(f"offsets: expected to run from 0 to the number of candidates, {len(c.slice)}")
    if (np.diff(c.offsets) < 0).any():
        raise ValueError("offsets: must not fall")
    bad = np.flatnonzero((c.shift < 0) | (c.shift >= n_shifts))
    if bad.size:
        raise ValueError(f"shift: expected 0 to {n_shifts} (exclusive), got {c.shift[bad[0]]} at candidate {bad[0]}")
