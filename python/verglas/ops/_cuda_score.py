"""score on a device: ScorePlan's work with the kernels of cuda/score.h, and CuPy's memory and sort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verglas.ops._cuda_polar import DeviceArray, TileLayout, free_bytes, tables, weigh
from verglas.ops._images import PolarImages
from verglas.ops.polar import PolarGrid

if TYPE_CHECKING:
    from verglas._cuda_arrays import CudaSession
    from verglas.ops.score import ScoreSettings

# Share of the free memory that one batch's tiles and one round's candidates may take; the rest is others'.
_TILE_SHARE, _LIST_SHARE = 0.3, 0.2
_CANDIDATE_BYTES = 4 * 8 * 2  # score, pose, image, order, and as much again while they are sorted


def basis_table(grid: PolarGrid, n_psi: int, tile: int, depth: int) -> npt.NDArray[np.float32]:
    """Stage 2 as matrices, (row tiles, chunks, 4, depth, tile): cos and sin of even m, then of odd m, eps included.

    Rows are the angles of the first quadrant; beyond the last they repeat it. Harmonics beyond the last are zero.
    """
    quarter = n_psi // 4
    rows, chunks = -(-quarter // tile), grid.max_m // tile + 1
    q = np.minimum(np.arange(rows * tile), quarter - 1).reshape(rows, 1, 1, tile)
    out = np.zeros((rows, chunks, 4, depth, tile), np.float32)
    for parity in range(2):
        m = (tile * np.arange(chunks)[:, None] + 2 * np.arange(depth) + parity)[None, :, :, None]
        angle = np.pi * ((2 * q + 1) * m % (2 * n_psi)) / n_psi
        factor = np.where(m > grid.max_m, 0, np.where(m == 0, 1, 2))
        out[:, :, 2 * parity] = factor * np.cos(angle)
        out[:, :, 2 * parity + 1] = factor * np.sin(angle)
    return out


class CudaScorePlan:
    """A search on one device; holds the packed reference there. Same interface as the core's plan.

    Parameters
    ----------
    cuda : CudaSession
    grid : PolarGrid
    settings : ScoreSettings
    """

    def __init__(self, cuda: CudaSession, grid: PolarGrid, settings: ScoreSettings) -> None:
        self.cuda, self.grid, self.settings = cuda, grid, settings
        with cuda.active():
            self.layout = TileLayout.of(grid, settings.n_power, cuda)
            table = basis_table(grid, settings.n_psi, cuda.kernels.TILE, cuda.kernels.DEPTH)
            self.basis = cuda.array(table.reshape(*table.shape[:3], -1), np.float32)
        self.n_slices = 0
        self.slices: DeviceArray = None
        self.prior: DeviceArray = None
        self.sides = (False, False)

    def set_reference(self, harmonics: Any, power: Any, log_prior: npt.NDArray[np.float32]) -> None:
        """Pack the slices on the device."""
        cuda, tile = self.cuda, self.cuda.kernels.TILE
        never = np.float32(-1e30)
        # Finite: the kernels subtract scores from the best one, and -inf - (-inf) is NaN.
        prior = np.where(log_prior > never, log_prior, never).astype(np.float32)
        self.sides = (bool((prior[:, 0] > never).any()), bool((prior[:, 1] > never).any()))
        self.n_slices = len(prior)
        with cuda.active() as stream:
            self.prior = cuda.array(prior, np.float32)
            self.slices = cuda.cupy.zeros((-(-self.n_slices // tile), self.layout.floats), np.float32)
            cuda.kernels.score_pack(
                tables(self.grid, cuda),
                self.layout.native,
                cuda.array(harmonics, np.complex64),
                cuda.array(power, np.complex64),
                self.slices,
                stream,
            )

    def image_bytes(self, n_shifts: int) -> int:
        """Bytes that each image of a batch takes while it is searched."""
        real = self.cuda.kernels.TILE // (2 if self.settings.correlation else 1)
        chunks = -(-self.n_slices // (self.cuda.kernels.TILE * self.cuda.kernels.SLICE_TILES))
        per_column = self.layout.floats * 4 // real + 16 * (chunks + 1)
        return n_shifts * per_column + 16 * self.n_slices + 8 * self.grid.n_rings * self.grid.n_theta

    def run(
        self,
        images: PolarImages,
        pixel_size_A: float,
        shifts: npt.NDArray[np.float32],
        log_shift: npt.NDArray[np.float32],
        log_psi: npt.NDArray[np.float32] | None,
    ) -> dict[str, npt.NDArray]:
        """Search images, as many at a time as memory allows; results on the host."""
        if self.slices is None:
            raise ValueError("score: no reference set (call set_reference first)")
        if not len(shifts):
            raise ValueError("score: expected at least one shift")
        with self.cuda.active():
            free = free_bytes(self.cuda)
            batch = max(1, int(_TILE_SHARE * free // self.image_bytes(len(shifts))))
            # A grid of blocks has at most 2^31 - 1 of them along the tiles, far more than memory holds.
            parts = [
                self._batch(images[begin : begin + batch], pixel_size_A, shifts, log_shift, log_psi)
                for begin in range(0, max(1, len(images)), batch)
            ]
        lists = {k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k != "counts"}
        counts = np.concatenate([p["counts"] for p in parts])
        return lists | {"offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)}

    # -- one batch ------------------------------------------------------------------------------------------------

    def _batch(
        self,
        images: PolarImages,
        pixel_size_A: float,
        shifts: npt.NDArray[np.float32],
        log_shift: npt.NDArray[np.float32],
        log_psi: npt.NDArray[np.float32] | None,
    ) -> dict[str, npt.NDArray]:
        cuda, s, n = self.cuda, self.settings, len(images)
        cupy = cuda.cupy
        problem = self._problem(images, pixel_size_A, shifts, log_shift, log_psi)
        columns = len(problem["image"])
        chunks = -(-self.n_slices // (cuda.kernels.TILE * cuda.kernels.SLICE_TILES))
        state = {
            # Scores as integers of the same order (ordered_bits): 0 is below every float, and atomicMax knows integers
            # only.
            "best": cupy.zeros((n, 2 * self.n_slices), np.uint32),
            "top": cupy.empty(n, np.float32),
            "threshold": cupy.empty(n, np.float32),
            "cut": cupy.empty(n, np.float32),
            "sums": cupy.zeros((columns, chunks), np.float64),
            "counts": cupy.zeros((columns, chunks), np.int64),
            "bins": cupy.empty((0, cuda.kernels.SCORE_BINS), np.int32),
            "last_bin": cupy.full(n, cuda.kernels.SCORE_BINS - 1, np.int32),
            "wanted": cupy.zeros(n, np.uint8),
        }
        log_sum, count = cupy.empty(n, np.float64), cupy.empty(n, np.int64)
        search = cuda.kernels.ScoreBatch(tables(self.grid, cuda), self.layout.native, s, problem, state)
        with cuda.active() as stream:
            search.maxima(stream)
            search.choose(stream)
            search.sums(stream)
            search.totals(log_sum, count, stream)
        too_many = count > search.list_room
        if not s.correlation and bool(too_many.any()):
            state["wanted"][...] = too_many
            bins = cupy.zeros((n, cuda.kernels.SCORE_BINS), np.int32)
            with cuda.active() as stream:
                search.limit(bins, count, stream)
        return self._candidates(search, state, log_sum, count.get(), len(shifts))

    def _columns(self, n: int, n_shifts: int) -> tuple[DeviceArray, DeviceArray]:
        """Image and shift of every column of the tiles, -1 and 0 where there is none.

        Of correlations a tile holds eight columns and the power of each.
        """
        cupy, tile = self.cuda.cupy, self.cuda.kernels.TILE
        real = tile // 2 if self.settings.correlation else tile
        flat = cupy.arange(-(-n * n_shifts // real) * real, dtype=np.int64)
        some = flat < n * n_shifts
        image, shift = cupy.where(some, flat // n_shifts, -1), cupy.where(some, flat % n_shifts, 0)
        if self.settings.correlation:
            image, shift = image.reshape(-1, real), shift.reshape(-1, real)
            image = cupy.concatenate([image, cupy.full_like(image, -1)], axis=1).reshape(-1)
            shift = cupy.concatenate([shift, cupy.zeros_like(shift)], axis=1).reshape(-1)
        return image.astype(np.int32), shift.astype(np.int32)

    def _problem(
        self,
        images: PolarImages,
        pixel_size_A: float,
        shifts: npt.NDArray[np.float32],
        log_shift: npt.NDArray[np.float32],
        log_psi: npt.NDArray[np.float32] | None,
    ) -> dict[str, Any]:
        cuda, s = self.cuda, self.settings
        cupy, grid = cuda.cupy, tables(self.grid, cuda)
        image, shift = self._columns(len(images), len(shifts))
        moved = cuda.array(shifts, np.float32)[shift]
        if images.centres_px is not None and len(images):
            moved = moved + images.centres_px[cupy.maximum(image, 0)]
        tiles = cupy.zeros((len(image) // cuda.kernels.TILE, self.layout.floats), np.float32)
        with cuda.active() as stream:
            y, power, norm = weigh(images, self.grid, cuda, stream, pixel_size_A, s.n_power, norm=s.correlation)
            cuda.kernels.shifted_tiles(grid, self.layout.native, y, image, cuda.array(moved, np.float32), tiles, stream)
            cuda.kernels.score_power_rows(grid, self.layout.native, s, power, image, tiles, stream)
        return {
            "n_shifts": len(shifts),
            "n_images": len(images),
            "basis": self.basis,
            "slices": self.slices,
            "prior": self.prior,
            "columns": tiles,
            "image": image,
            "shift": shift,
            "log_shift": cuda.array(log_shift, np.float32)[shift],
            "log_psi": None if log_psi is None else cuda.array(log_psi, np.float32),
            "norm": norm,
            "sides": self.sides,
        }

    def _candidates(
        self,
        search: Any,
        state: dict[str, DeviceArray],
        log_sum: DeviceArray,
        count: npt.NDArray[np.int64],
        n_shifts: int,
    ) -> dict[str, npt.NDArray]:
        """Collect, sort and trim the lists, as many images at a time as memory allows."""
        cuda, n = self.cuda, len(count)
        free = free_bytes(cuda)
        rounds = _rounds(count, max(1, int(_LIST_SHARE * free // _CANDIDATE_BYTES)))
        parts = []
        cut = state["cut"].copy()
        for begin, end in rounds:
            if len(rounds) > 1:  # only these images take part
                state["cut"][...] = np.inf
                state["cut"][begin:end] = cut[begin:end]
            parts.append(self._round(search, log_sum[begin:end], count[begin:end], begin, n, n_shifts))
        lists = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        return lists | {"log_sum": log_sum.get()}

    def _round(
        self,
        search: Any,
        log_sum: DeviceArray,
        count: npt.NDArray[np.int64],
        begin: int,
        n: int,
        n_shifts: int,
    ) -> dict[str, npt.NDArray]:
        cuda, cupy = self.cuda, self.cuda.cupy
        offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        total, mine = int(offsets[-1]), len(count)
        cursor = np.zeros(n, np.int64)
        cursor[begin : begin + mine] = offsets[:-1]
        score, pose = cupy.empty(total, np.float32), cupy.empty(total, np.int64)
        with cuda.active() as stream:
            search.collect(cuda.array(cursor, np.int64), score, pose, stream)
        starts = cuda.array(offsets, np.int64)
        image = cupy.searchsorted(starts, cupy.arange(total), side="right") - 1
        # Atomics filled the lists in any order; image, score and pose together leave one order only.
        order = cupy.lexsort(cupy.stack([pose.astype(np.float64), -score.astype(np.float64), image.astype(np.float64)]))
        score, pose = score[order], pose[order]
        counts, mass = cupy.empty(mine, np.int64), cupy.empty(mine, np.float64)
        with cuda.active() as stream:
            cuda.kernels.score_trim(self.settings, score, starts, log_sum, counts, mass, stream)
        # sorted by image, the lists stand where they stood
        stays = cupy.arange(total) - starts[image] < counts[image]
        return self._unpack_poses(score[stays], pose[stays], counts.get(), n_shifts) | {"kept": mass.get()}

    def _unpack_poses(
        self, score: DeviceArray, pose: DeviceArray, counts: npt.NDArray[np.int64], n_shifts: int
    ) -> dict[str, npt.NDArray]:
        n_psi = self.settings.n_psi
        parts = {"entry": pose // (n_psi * n_shifts), "psi": pose // n_shifts % n_psi, "shift": pose % n_shifts}
        lists: dict[str, npt.NDArray] = {"score": score.get()}
        lists |= {name: values.astype(np.int32).get() for name, values in parts.items()}
        first = np.concatenate([[0], np.cumsum(counts)])[:-1]
        some = counts > 0
        best = {"best_score": np.full(len(counts), -1e30, np.float32)} | {
            f"best_{name}": np.full(len(counts), -1, np.int32) for name in ("entry", "psi", "shift")
        }
        for name, values in lists.items():
            best[f"best_{name}"][some] = values[first[some]]
        return lists | best | {"counts": counts}


def _rounds(count: npt.NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Ranges of images whose lists together hold at most so many candidates, at least one image each."""
    rounds, begin, held = [], 0, 0
    for i, c in enumerate(count):
        if i > begin and held + c > most:
            rounds.append((begin, i))
            begin, held = i, 0
        held += int(c)
    return [*rounds, (begin, len(count))]
