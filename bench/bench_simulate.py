"""ops.scatter beside the matrix product alone in BLAS (sgemm) and finufft, and whole particle sets per second.

Writes bench/results/simulate.json. One image costs box^2 multiply-adds per atom; ``sgemm`` is NumPy's product of
tables of the same sizes that are already there, so it is the ceiling of what ops.scatter does beside making them.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from verglas import ops, reference, simulate
from verglas.simulate.scattering import atom_table

from common import compare, write

CASES = ((128, 1.5, 100.0, 32), (256, 1.0, 150.0, 6))


def finufft_images(atoms: np.ndarray, matrices: np.ndarray, box: int, pixel_size_A: float) -> np.ndarray:
    """The same sum without the B-factors (one transform per B would be needed), single precision, 1e-6."""
    import finufft

    weights, out = atoms[:, 3].astype(np.complex64), []
    for matrix in matrices:
        x, y, _ = np.ascontiguousarray(2 * np.pi / (box * pixel_size_A) * (matrix @ atoms[:, :3].T), np.float32)
        out.append(finufft.nufft2d1(y, x, weights, (box, box), isign=-1, eps=1e-6, nthreads=1))
    return np.array(out)


def kernel_rows(box: int, pixel_size_A: float, diameter_A: float, n: int) -> list[dict[str, object]]:
    model = simulate.phantom(box, pixel_size_A, diameter_A)
    table = atom_table(model, pixel_size_A)
    matrices, shifts = Rotation.random(n, random_state=0).as_matrix(), np.zeros((n, 2))
    left = np.random.default_rng(0).random((n, box, len(model)), np.float32)
    right = np.random.default_rng(1).random((n, len(model), box), np.float32)

    def sgemm() -> np.ndarray:
        with threadpool_limits(1):
            return left @ right

    candidates = {
        "scatter, 1 thread": lambda: ops.scatter(*table, matrices, shifts, box, pixel_size_A, threads=1),
        "scatter, 2 threads": lambda: ops.scatter(*table, matrices, shifts, box, pixel_size_A, threads=2),
        "sgemm alone, 1 thread": sgemm,
    }
    try:
        finufft_images(table[0], matrices[:1], box, pixel_size_A)
        candidates["finufft, 1 thread, no B-factors"] = lambda: finufft_images(table[0], matrices, box, pixel_size_A)
    except ImportError:
        print("finufft is not installed: that row is left out", file=sys.stderr)
    times = compare(candidates, repeats=7)
    few = (table[0][:400], table[1][:400], table[2])  # the reference holds every atom's image at once
    got = ops.scatter(*few, matrices[:1], shifts[:1], box, pixel_size_A)
    want = reference.scatter.scatter(*few, matrices[:1], shifts[:1], box, pixel_size_A)
    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    flop = 2.0 * box**2 * len(model) * n
    return [
        {
            "case": name,
            "box": box,
            "atoms": len(model),
            "images": n,
            "ms_per_image": t["ms"] / n,
            "images_per_s": 1e3 * n / t["ms"],
            "GFLOP_per_s": flop / t["ms"] / 1e6,
            "relative_error": error if name.startswith("scatter") else None,
            **t,
        }
        for name, t in times.items()
    ]


def set_row(n: int, box: int, pixel_size_A: float) -> dict[str, object]:
    """A whole set in memory: poses, projections, CTF, noise."""
    model = simulate.phantom(box, pixel_size_A, 100.0)
    start = time.perf_counter()
    simulate.particles(model, n, box, pixel_size_A, 0.05, threads=2)
    seconds = time.perf_counter() - start
    return {
        "case": "whole set, 2 threads",
        "box": box,
        "atoms": len(model),
        "images": n,
        "seconds": seconds,
        "images_per_s": n / seconds,
    }


def main() -> None:
    rows = [row for case in CASES for row in kernel_rows(*case)]
    rows.append(set_row(5000, 128, 1.5))
    write("simulate", rows, peer="the matrix product alone (NumPy sgemm); finufft, single precision, 1e-6")


if __name__ == "__main__":
    main()
