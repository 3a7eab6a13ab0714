"""ops.common_lines and ops.common_line_scores: pairs of images per second; the same search as matrix products in NumPy.

Writes bench/results/common_lines.json. The accuracy of orientations is in bench_abinitio.py (--only lines).
"""

from __future__ import annotations

import numpy as np

from verglas import ops
from verglas.geometry import euler_to_matrix, random_orientations

from common import compare, write

HALF, DEPTH = 90, 18


def numpy_search(lines: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Largest score of every pair, one image against all later ones at a time; no place between directions."""
    n = len(lines)
    score = np.zeros((n, n), np.float32)
    real, imaginary = lines.real.copy(), lines.imag.copy()
    for i in range(n - 1):
        later = n - i - 1
        first = real[i] @ real[i + 1 :].reshape(later * HALF, -1).T
        second = imaginary[i] @ imaginary[i + 1 :].reshape(later * HALF, -1).T
        both = np.stack([first + second, first - second]).reshape(2, HALF, later, HALF)
        both = both - loss[i][None, :, None, None] - loss[i + 1 :][None, None]
        score[i, i + 1 :] = score[i + 1 :, i] = both.max(axis=(0, 1, 3))
    return score


def main() -> None:
    rows = []
    for n in (60, 200):
        rng = np.random.default_rng(0)
        lines = (rng.standard_normal((n, HALF, DEPTH)) + 1j * rng.standard_normal((n, HALF, DEPTH))).astype(
            np.complex64
        )
        loss = rng.random((n, HALF)).astype(np.float32)
        rotations = euler_to_matrix(random_orientations(n, 0))
        candidates, image = euler_to_matrix(random_orientations(1000, 1)), np.arange(1000) % n
        times = compare(
            {
                "search, 1 thread": lambda x=lines, y=loss: ops.common_lines(x, y, threads=1),
                "search, 2 threads": lambda x=lines, y=loss: ops.common_lines(x, y, threads=2),
                "search, NumPy": lambda x=lines, y=loss: numpy_search(x, y),
                "scores of 1000 orientations, 1 thread": lambda x=lines, y=loss, r=rotations, c=candidates, i=image: (
                    ops.common_line_scores(x, y, r, c, i, threads=1)
                ),
            },
            repeats=5,
        )
        for name, time in times.items():
            pairs = n * (n - 1) / 2 if "search" in name else 1000 * (n - 1)
            row = {
                "n": n,
                "directions": 2 * HALF,
                "depth": DEPTH,
                "what": name,
                **time,
                "pairs_per_s": 1e3 * pairs / time["ms"],
            }
            if "search" in name:
                row["GFLOP_per_s"] = 1e-6 * pairs * 4 * HALF**2 * DEPTH / time["ms"]
                row["times_faster_than_numpy"] = times["search, NumPy"]["ms"] / time["ms"]
            rows.append(row)
    write("common_lines", rows, peer="NumPy matrix products")


if __name__ == "__main__":
    main()
