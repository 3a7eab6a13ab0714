"""ops.ctf: images per second, the float64 NumPy reference beside it. Writes bench/results/ctf.json."""

from __future__ import annotations

import numpy as np

from verglas import ops, reference

from common import compare, write


def main() -> None:
    rows = []
    for box, n in ((128, 400), (256, 100), (384, 50)):
        rng = np.random.default_rng(0)
        defocus = rng.uniform(8000, 20000, (n, 2))
        params = np.column_stack([defocus, np.tile([30.0, 300, 2.7, 0.1, 0, 0, 1], (n, 1))])
        few = params[: max(1, n // 20)]
        times = compare(
            {
                "1 thread": lambda params=params, box=box: ops.ctf(params, box, 1.0, threads=1),
                "2 threads": lambda params=params, box=box: ops.ctf(params, box, 1.0, threads=2),
                "NumPy": lambda few=few, box=box: reference.ctf.ctf(few, box, 1.0),
            },
            repeats=5,
        )
        gigabyte = 4e-9 * n * box * (box // 2 + 1)
        numpy_per_s = len(few) / times["NumPy"]["ms"] * 1e3
        for threads, name in ((1, "1 thread"), (2, "2 threads")):
            ms = times[name]["ms"]
            rate = n / ms * 1e3
            row = {"box": box, "n": n, "threads": threads, "ms": ms, "images_per_s": rate}
            rows.append(row | {"written_GB_per_s": gigabyte / ms * 1e3, "numpy_images_per_s": numpy_per_s})
    write("ctf", rows, peer="reference.ctf (NumPy float64, one thread)")


if __name__ == "__main__":
    main()
