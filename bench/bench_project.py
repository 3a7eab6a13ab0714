"""project and insert: images/s, bytes touched per second beside a memory copy, arithmetic, memory.

    python bench/bench_project.py [--boxes 128 256 384] [--repeats 3]

Bytes are those the kernel must touch: W^3 taps of 8 bytes per pixel for project, of 24 bytes read and written for
insert. Most come from cache, so the figure may exceed the memory's; the copy beside it says what the memory alone does.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.spatial.transform import Rotation

from verglas import fourier, ops

from common import compare, write


def pixels_in_use(grid: ops.Grid) -> int:
    return int((fourier.shells((grid.box, grid.box)) <= grid.max_radius).sum())


def bench_box(box: int, repeats: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    grid = ops.Grid(box)
    n = max(64, 4_000_000 // box**2)
    spectrum = (rng.normal(size=grid.shape) + 1j * rng.normal(size=grid.shape)).astype(np.complex64)
    matrices = Rotation.random(n, random_state=1).as_matrix()
    images = fourier.forward(rng.normal(size=(n, box, box)).astype(np.float32), 2)
    ctf = rng.normal(size=images.shape).astype(np.float32)
    shifts = rng.normal(size=(n, 2))
    out = np.empty_like(images)
    sums = ops.GridSums.zeros(grid)
    block = np.zeros(1 << 26, np.uint8)
    copy = np.empty_like(block)
    candidates = {"copy": lambda: np.copyto(copy, block)}
    for threads in (1, 2):
        candidates[f"project {threads}"] = lambda t=threads: ops.project(
            spectrum, grid, matrices, shifts_px=shifts, ctf=ctf, out=out, threads=t
        )
        candidates[f"insert {threads}"] = lambda t=threads: ops.insert(
            sums, images, matrices, shifts_px=shifts, ctf=ctf, threads=t
        )
    times = compare(candidates, repeats=repeats)
    copy_GB_s = 2 * block.nbytes / times.pop("copy")["ms"] / 1e6
    taps = grid.width**3
    rows: list[dict[str, object]] = []
    for name, time in times.items():
        op, threads_text = name.split()
        per_tap_bytes, per_tap_flop = (8, 4) if op == "project" else (48, 6)
        work = n * pixels_in_use(grid) * taps
        rows.append(
            {
                "op": op,
                "box": box,
                "threads": int(threads_text),
                "images": n,
                "images_per_s": 1e3 * n / time["ms"],
                "ms": time["ms"],
                "touched_GB_per_s": work * per_tap_bytes / time["ms"] / 1e6,
                "GFLOP_per_s": work * per_tap_flop / time["ms"] / 1e6,
                "memory_copy_GB_per_s_one_thread": copy_GB_s,
                "grid_MB": (spectrum.nbytes if op == "project" else sums.values.nbytes + sums.weights.nbytes) / 1e6,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[128, 256, 384])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    write("project", [row for box in args.boxes for row in bench_box(box, args.repeats)])


if __name__ == "__main__":
    main()
