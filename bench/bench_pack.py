"""ops.pack and ops.unpack beside a copy of the whole grid, and NumPy's masks, row by row.

Writes bench/results/pack.json.
"""

from __future__ import annotations

import numpy as np

from verglas import ops, reference

from common import compare, write

BOXES = (128, 256)


def main() -> None:
    rows = []
    for box in BOXES:
        grid = ops.Grid(box)
        whole = np.zeros(grid.shape, np.complex128)
        packed = np.empty(ops.count_points(grid), np.complex128)
        times = compare(
            {
                "pack, 1 thread": lambda w=whole, g=grid, p=packed: ops.pack(w, g, p, threads=1),
                "pack, 2 threads": lambda w=whole, g=grid, p=packed: ops.pack(w, g, p, threads=2),
                "add, 1 thread": lambda w=whole, g=grid, p=packed: ops.pack(w, g, p, add=True, threads=1),
                "unpack, 1 thread": lambda g=grid, p=packed: ops.unpack(p, g, threads=1),
                "copy of the whole, 1 thread": lambda w=whole: w.copy(),
                "NumPy": lambda w=whole, g=grid: reference.pack.pack(w, g),
            },
            repeats=5,
        )
        # the box is read and the ball written, or the other way round; a copy reads and writes the box
        bytes_of = {"copy of the whole, 1 thread": 2 * whole.nbytes, "add, 1 thread": whole.nbytes + 2 * packed.nbytes}
        for name, time in times.items():
            moved = bytes_of.get(name, whole.nbytes + packed.nbytes)
            rows.append(
                {
                    "box": box,
                    "what": name,
                    **time,
                    "GB_per_s": 1e-6 * moved / time["ms"],
                    "times_faster_than_numpy": times["NumPy"]["ms"] / time["ms"],
                }
            )
    write("pack", rows, peer="a copy of the whole grid in memory; NumPy")


if __name__ == "__main__":
    main()
