"""score_cells on a device: the kernel of cuda/score_cells.h, images in batches that fit the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from verglas.ops._cuda_polar import DeviceArray, TileLayout, free_bytes, tables, weigh
from verglas.ops._images import PolarImages
from verglas.ops.polar import PolarGrid
from verglas.types.arrays import IntArray

if TYPE_CHECKING:
    from verglas._cuda_arrays import CudaSession

_TILE_SHARE = 0.3  # of the free memory, for the tiles of one batch of images


@dataclass(frozen=True)
class Tasks:
    """CellTasks with their dtypes fixed, checked: tasks and shifts of each image end to end."""

    offsets: IntArray
    slice: npt.NDArray[np.int32]
    opposite: npt.NDArray[np.uint8]
    psi: npt.NDArray[np.int32]
    shift_offsets: IntArray
    shifts: npt.NDArray[np.float32]

    def check(self, n: int, n_slices: int, n_psi: int) -> None:
        """As the core refuses them."""
        for name, offsets, total in (
            ("task_offsets", self.offsets, len(self.slice)),
            ("shift_offsets", self.shift_offsets, len(self.shifts)),
        ):
            if len(offsets) != n + 1 or offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
                raise ValueError(f"{name}: expected {n + 1} rising offsets from 0 to {total}")
        for name, values, most in (("task_slice", self.slice, n_slices), ("task_psi", self.psi, n_psi)):
            bad = np.flatnonzero((values < 0) | (values >= most))
            if bad.size:
                raise ValueError(f"{name}: expected 0 to {most} exclusive, got {values[bad[0]]} for task {bad[0]}")


@dataclass(frozen=True)
class Slices:
    """The reference on the device."""

    harmonics: DeviceArray  # (n, size)
    power: DeviceArray  # (n, n_rings, n_power)


@dataclass(frozen=True)
class Job:
    """What all batches share."""

    cuda: CudaSession
    grid: PolarGrid
    n_psi: int
    slices: Slices
    pixel_size_A: float


def _list_offsets(counts: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def score_cells(job: Job, images: PolarImages, tasks: Tasks) -> DeviceArray:
    """All scores, on the device."""
    cuda, tile = job.cuda, job.cuda.kernels.TILE
    with cuda.active():
        layout = TileLayout.of(job.grid, 0, cuda)
        tiles = -(-np.diff(tasks.shift_offsets) // tile)
        most = max(1, int(_TILE_SHARE * free_bytes(cuda) // (4 * layout.floats)))
        first_score = _list_offsets(np.diff(tasks.offsets) * np.diff(tasks.shift_offsets))
        scores = cuda.cupy.empty(int(first_score[-1]), np.float32)
        ends, begin = np.cumsum(tiles), 0
        while begin < len(images):
            base = ends[begin - 1] if begin else 0
            # At least one image, even if it alone takes more than the share.
            end = max(begin + 1, int(np.searchsorted(ends, base + most, side="right")))
            part = scores[first_score[begin] : first_score[end]]
            _batch(job, layout, images[begin:end], _rows(tasks, begin, end), part)
            begin = end
    return scores


def _rows(tasks: Tasks, begin: int, end: int) -> Tasks:
    """Of images begin .. end - 1."""
    mine = slice(tasks.offsets[begin], tasks.offsets[end])
    shifts = slice(tasks.shift_offsets[begin], tasks.shift_offsets[end])
    return Tasks(
        tasks.offsets[begin : end + 1] - tasks.offsets[begin],
        tasks.slice[mine],
        tasks.opposite[mine],
        tasks.psi[mine],
        tasks.shift_offsets[begin : end + 1] - tasks.shift_offsets[begin],
        tasks.shifts[shifts],
    )


def _columns(tasks: Tasks, tile: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], IntArray]:
    """Image (-1: none) and shift of every column, an image's shifts filled up to whole tiles; its first tile."""
    counts = np.diff(tasks.shift_offsets)
    first_tile = _list_offsets(-(-counts // tile))
    image = np.full(first_tile[-1] * tile, -1, np.int32)
    shifts = np.zeros((len(image), 2), np.float32)
    owner = np.repeat(np.arange(len(counts)), counts)
    at = first_tile[owner] * tile + np.arange(len(owner)) - tasks.shift_offsets[owner]
    image[at], shifts[at] = owner, tasks.shifts
    return image, shifts, first_tile


def _batch(job: Job, layout: TileLayout, images: PolarImages, tasks: Tasks, scores: DeviceArray) -> None:
    cuda, grid, n_psi, slices = job.cuda, job.grid, job.n_psi, job.slices
    cupy, array = cuda.cupy, cuda.array
    image, shifts, first_tile = _columns(tasks, cuda.kernels.TILE)
    owner = np.repeat(np.arange(len(images)), np.diff(tasks.offsets))
    entry = 2 * tasks.slice.astype(np.int64) + tasks.opposite
    if not len(entry) or not len(image):
        return
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(owner) != 0) | (np.diff(entry) != 0)]))
    n_power = slices.power.shape[2]
    # psi_i = (2 i + 1) pi / n_psi, the centres of cells: a circle of twice as many steps holds them and their
    # multiples.
    angle = np.pi * np.arange(2 * n_psi) / n_psi
    counts = np.diff(tasks.shift_offsets)
    with cuda.active() as stream:
        y, cp, _ = weigh(images, grid, cuda, stream, job.pixel_size_A, n_power)
        columns = cupy.zeros((first_tile[-1], layout.floats), np.float32)
        cuda.kernels.shifted_tiles(
            tables(grid, cuda), layout.native, y, array(image, np.int32), array(shifts, np.float32), columns, stream
        )
        problem = {
            "n_power": n_power,
            "n_psi": n_psi,
            "most_tiles": int(np.diff(first_tile).max()),
            "harmonics": slices.harmonics,
            "power": slices.power,
            "cp": cp,
            "columns": columns,
            "circle": array(np.stack([np.cos(angle), np.sin(angle)], axis=1), np.float32),
            "first_tile": array(first_tile, np.int64),
            "n_shifts": array(counts, np.int64),
            "first_task": array(tasks.offsets, np.int64),
            "first_score": array(_list_offsets(np.diff(tasks.offsets) * counts), np.int64),
            "psi": array(tasks.psi, np.int32),
            "run": array(np.append(starts, len(entry)), np.int64),
            "run_image": array(owner[starts], np.int32),
            "run_entry": array(entry[starts], np.int32),
        }
        cuda.kernels.score_cells(tables(grid, cuda), layout.native, problem, scores, stream)
