"""What a search will cost and how much memory it will take, before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from verglas import ops
from verglas._native import resolve_threads
from verglas.geometry import unit_pixels
from verglas.search.cells import Level
from verglas.search.search_settings import SearchSettings, first_level_shifts, slices_per_block

# Bytes per cell in the lists of one batch: image, pixel, psi, shift, score, and what sorting them takes.
_CELL_BYTES = 200


def _transform_bytes(grid: ops.Grid, threads: int) -> int:
    """Peak of gridding.to_grid: the transform along x and y, the whole, and the blocks of rows in work."""
    n, padded, rows, columns = grid.box, grid.padded, grid.shape[0], grid.shape[2]
    return 8 * rows * columns * (n + grid.shape[0]) + threads * 4 * 8 * padded * columns * 3


@dataclass(frozen=True)
class SearchCost:
    """Estimates for one search.

    Attributes
    ----------
    memory_bytes : dict of str -> int
        The map and its gridded transform; what making that transform takes besides the map; during the search slices
        (at most), images, threads, cells (at most).
    poses_per_image : list of int
        Poses of the whole grid of each level; the first is searched exhaustively.
    operations_per_image : float
        Floating-point operations of the first level per image.
    """

    memory_bytes: dict[str, int]
    poses_per_image: list[int]
    operations_per_image: float

    @property
    def memory_GB(self) -> float:
        """Peak: the map, and either what making its transform takes or the transform and the search."""
        m = self.memory_bytes
        search = sum(m[name] for name in ("transform", "slices", "images", "threads", "cells"))
        return (m["map"] + max(m["making the transform"], search)) / 1e9

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in self.memory_bytes.items())
        poses = " -> ".join(f"{p:.3g}" for p in self.poses_per_image)
        return (
            f"memory {self.memory_GB:.2f} GB ({parts}); poses per image {poses}; first level "
            f"{self.operations_per_image / 1e9:.3g} GFLOP per image"
        )


def search_cost(
    box: int,
    levels: list[Level],
    *,
    symmetry: str = "C1",
    diameter_px: float | None = None,
    settings: SearchSettings | None = None,
    n_images: int | None = None,
    threads: int | None = None,
) -> SearchCost:
    """Estimate a :class:`verglas.search.PoseSearch` before it is made.

    Parameters
    ----------
    box : int
        Side of map and images.
    levels : list of Level
    symmetry, diameter_px, settings, threads
        As for the search.
    n_images : int, optional
        Images to search, when fewer than a batch.

    Returns
    -------
    SearchCost

    Examples
    --------
    >>> from verglas.search import search_cost, search_levels
    >>> cost = search_cost(64, search_levels([12, 24]))
    >>> cost.memory_GB < 1, cost.poses_per_image[0]
    (True, 3981312)
    """
    limits = settings or SearchSettings()
    grids = [ops.PolarGrid(box, v.radius, diameter_px=diameter_px, spacing=limits.spacing) for v in levels]
    pixels, shifts = len(unit_pixels(levels[0].order, symmetry)), len(first_level_shifts(levels, limits))
    batch = min(limits.batch, n_images or limits.batch)
    samples = [8 * g.n_rings * g.n_theta // 2 for g in grids]
    grid3 = ops.Grid(box, max_radius=levels[-1].radius)
    spectrum = 8 * grid3.shape[0] * grid3.shape[1] * grid3.shape[2]
    lanes = 16
    group = shifts * grids[0].size * 2 * lanes * 4
    cells = 4 * grids[-1].size * 2 * lanes * 4
    levels_needed = [
        min(slices_per_block(g, limits), pixels * 4**k // 2 + 1, batch * limits.max_cells) for k, g in enumerate(grids)
    ]
    slices = (
        max(
            n * (s + 8 * (2 * g.size + g.n_rings * limits.n_power))
            for n, s, g in zip(levels_needed, samples, grids, strict=True)
        )
        + (pixels // 2 + 1) * samples[0]
    )  # the first level's samples are kept
    memory = {
        "map": 4 * box**3,
        "transform": spectrum,
        "making the transform": _transform_bytes(grid3, resolve_threads(threads)),
        "slices": slices,
        "images": batch * (4 * box**2 + sum(samples)),
        "threads": resolve_threads(threads) * max(group + samples[0] * lanes, cells + 2 * samples[-1]),
        "cells": batch * min(limits.max_cells, pixels * levels[0].n_psi * shifts) * _CELL_BYTES,
    }
    poses = [pixels * 4**k * v.n_psi * shifts * 4**k for k, v in enumerate(levels)]
    # 4 multiply-adds per value of a slice, which serves two directions; 7/32 n_psi M per direction and shift
    per_shift = 2 * (2 * grids[0].size + 7 / 32 * levels[0].n_psi * grids[0].max_m)
    return SearchCost(memory, poses, float(per_shift * pixels * shifts))
