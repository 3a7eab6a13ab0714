"""Scores of cells: slices made block by block, each once, for all images whose cells touch the block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas._array_module import to_host
from verglas.geometry import euler_to_matrix, healpix_directions
from verglas.search.cells import Cells, Level, slices_of_pixels
from verglas.search.image_batch import ImageBatch
from verglas.types.arrays import IntArray


@dataclass(frozen=True)
class Reference:
    """The map that cells are scored against: its gridded transform, on the device that scores, and geometry."""

    spectrum: npt.NDArray[np.complex64]
    grid: ops.Grid
    device: str = "cpu"

    def slices(self, order: int, pixel: IntArray, polar: ops.PolarGrid, threads: int | None) -> npt.NDArray:
        """Polar samples of the slices at pixel centres, psi = 0."""
        d = healpix_directions(order, pixel)
        matrices = euler_to_matrix(np.column_stack([d, np.zeros(len(d))]))
        return ops.polar_slices(self.spectrum, self.grid, matrices, polar, device=self.device, threads=threads)


def _offsets(owner: IntArray, n: int) -> IntArray:
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))]).astype(np.int64)


@dataclass(frozen=True)
class Evaluator:
    """Scores cells of one level in blocks of slices.

    Attributes
    ----------
    level, polar : Level, PolarGrid
        Its grids.
    unit_px : float
        Pixels per unit of the cells' shifts.
    n_power : int
        Harmonics of the power term.
    block : int
        Most slices in memory at a time.
    """

    level: Level
    polar: ops.PolarGrid
    unit_px: float
    n_power: int
    block: int

    def scores(self, reference: Reference, batch: ImageBatch, cells: Cells) -> npt.NDArray[np.float32]:
        """Log-likelihood of every cell's centre, without priors; all cells of an image share its list of shifts."""
        out = np.empty(len(cells), np.float32)
        pixel, opposite = slices_of_pixels(self.level.order, cells.pixel)
        # A slice costs far more than a score: each is made once, whichever images want it.
        unique, slice_of = np.unique(pixel, return_inverse=True)
        for begin in range(0, len(unique), self.block):
            inside = np.flatnonzero((slice_of >= begin) & (slice_of < begin + self.block))
            slices = reference.slices(
                self.level.order, unique[begin : begin + self.block], self.polar, batch.where.threads
            )
            part = Cells(cells.image[inside], slice_of[inside] - begin, cells.psi[inside], cells.shift[inside])
            out[inside] = self._block(batch, slices, part, opposite[inside])
        return out

    def _block(
        self, batch: ImageBatch, slices: npt.NDArray, cells: Cells, opposite: npt.NDArray
    ) -> npt.NDArray[np.float32]:
        # The kernel scores every shift of an image at each of its cells: integer keys find both lists without a loop.
        rows, image = np.unique(cells.image, return_inverse=True)
        reach = int(np.abs(cells.shift).max(initial=0)) + 1
        width = 2 * reach + 1
        shift_key = (image * width + cells.shift[:, 0] + reach) * width + cells.shift[:, 1] + reach
        keys, which_shift = np.unique(shift_key, return_inverse=True)
        shift_image = keys // width**2
        xy = np.stack([keys // width % width - reach, keys % width - reach], axis=1) * self.unit_px
        task_key = ((image * len(slices) + cells.pixel) * 2 + opposite) * self.level.n_psi + cells.psi
        task_keys, which_task = np.unique(task_key, return_inverse=True)
        entry = task_keys // self.level.n_psi % (2 * len(slices))
        task_image = task_keys // (self.level.n_psi * 2 * len(slices))
        tasks = ops.CellTasks(
            _offsets(task_image, len(rows)),
            entry // 2,
            entry % 2 == 1,
            task_keys % self.level.n_psi,
            _offsets(shift_image, len(rows)),
            (xy + batch.origin_px[rows][shift_image]).astype(np.float32),
        )
        scores = to_host(
            ops.score_cells(
                batch.samples(self.polar, rows),
                slices,
                self.polar,
                self.level.n_psi,
                tasks,
                n_power=self.n_power,
                device=batch.where.device,
                **batch.per_image(self.polar, rows),
            )
        )
        task_offsets, shift_offsets = np.asarray(tasks.offsets), np.asarray(tasks.shift_offsets)
        n_shifts = np.diff(shift_offsets)[image]
        at = tasks.score_offsets()[image] + (which_task - task_offsets[image]) * n_shifts
        return scores[at + which_shift - shift_offsets[image]]
