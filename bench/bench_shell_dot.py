"""ops.shell_dot beside a copy of what it reads, and the NumPy pipeline (product, gather by shell, reduceat).

Writes bench/results/shell_dot.json.
"""

from __future__ import annotations

import numpy as np

from verglas import fourier, ops

from common import compare, write

SIZES = ((128, 400), (256, 100), (384, 50))


class NumpyShells:
    """The same sums in NumPy: pixels sorted by shell once, then one reduceat per call."""

    def __init__(self, box: int) -> None:
        shells = fourier.shells((box, box)).ravel()
        self.order = np.argsort(shells, kind="stable")
        self.weights = np.broadcast_to(fourier.half_weights((box, box)), (box, box // 2 + 1)).ravel()[self.order]
        self.start = np.searchsorted(shells[self.order], np.arange((box - 1) // 2 + 1))

    def dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Sums over shells of Re[a* b]."""
        product = (a.conj() * b).real.reshape(len(a), -1)[:, self.order] * self.weights
        return np.add.reduceat(product, self.start, axis=1, dtype=np.float64)


def main() -> None:
    rows = []
    for box, n in SIZES:
        rng = np.random.default_rng(0)
        a, b = (fourier.forward(rng.standard_normal((n, box, box)).astype(np.float32), 2) for _ in range(2))
        shells = NumpyShells(box)
        times = compare(
            {
                "shell_dot, 1 thread": lambda a=a, b=b: ops.shell_dot(a, b, threads=1),
                "shell_dot, 2 threads": lambda a=a, b=b: ops.shell_dot(a, b, threads=2),
                "copy, 1 thread": lambda a=a: a.copy(),
                "NumPy": lambda a=a, b=b, s=shells: s.dot(a, b),
            },
            repeats=9,
        )
        for name, time in times.items():
            read = a.nbytes * (1 if "copy" in name else 2)
            rows.append(
                {
                    "box": box,
                    "n": n,
                    "what": name,
                    **time,
                    "read_GB_per_s": 1e-6 * read / time["ms"],
                    "times_faster_than_numpy": times["NumPy"]["ms"] / time["ms"],
                }
            )
    write("shell_dot", rows, peer="a copy of one operand in memory; NumPy")


if __name__ == "__main__":
    main()
