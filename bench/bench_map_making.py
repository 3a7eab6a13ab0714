"""Maps from sums: weights and inversion apart beside the two in one, by box and threads. Writes map_making.json.

``python bench/bench_map_making.py [--beside FOLDER]``: FOLDER holds another build of the package, to be put on
PYTHONPATH. Both are timed in turn, a process each: two maps of the same sums, plain and regularised, as an iteration of
a refinement makes of each half; what they find is compared. Processor seconds, which other programs disturb least;
memory is the peak above the sums.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import write

_ROUNDS = 2


def worker(box: int, threads: int) -> dict[str, Any]:
    """Two maps of random sums to Nyquist, as `class_maps` makes them."""
    from verglas import ops
    from verglas.reconstruction import direct

    grid = ops.Grid(box, max_radius=(box - 1) // 2)
    sums, rng = ops.GridSums.zeros(grid), np.random.default_rng(0)
    sums.values[...] += rng.standard_normal(grid.shape[1:])  # the same in every plane: quickly made
    sums.weights[...] += np.abs(rng.standard_normal(grid.shape[1:])) + 0.1
    ssnr = np.linspace(10, 0.1, grid.max_radius + 1)
    before, cpu, wall = _resident_GB("VmRSS"), time.process_time(), time.perf_counter()
    if hasattr(direct, "solve"):
        means = direct.shell_means(sums.weights, grid)
        maps = [direct.solve(sums, ssnr=s, means=means, threads=threads) for s in (None, ssnr)]
    else:
        maps = []
        for s in (None, ssnr):
            weights = direct.density_weights(sums.weights, grid, ssnr=s)
            maps.append(direct.invert(sums, weights, threads=threads))
    row = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    result = hashlib.sha256(b"".join(m.tobytes() for m in maps)).hexdigest()
    return row | {"scratch_GB": _resident_GB("VmHWM") - before, "result": result}


def _resident_GB(which: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024e-9


def in_process(folder: str | None, box: int, threads: int) -> dict[str, Any]:
    path = {} if folder is None else {"PYTHONPATH": folder}
    command = [sys.executable, __file__, "--worker", str(box), str(threads)]
    done = subprocess.run(command, check=True, text=True, capture_output=True, env=os.environ | path)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[128, 192, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--beside", help="folder of another build, for PYTHONPATH")
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(*arguments.worker)))
        return
    rows = []
    for box in arguments.boxes:
        for threads in arguments.threads:
            here, there = [], []
            for _ in range(_ROUNDS):
                here.append(in_process(None, box, threads))
                if arguments.beside:
                    there.append(in_process(arguments.beside, box, threads))
            best = min(here, key=lambda row: row["cpu_s"])
            row = {"box": box, "threads": threads} | {k: v for k, v in best.items() if k != "result"}
            if there:
                other = min(there, key=lambda row: row["cpu_s"])
                row |= {f"beside_{k}": other[k] for k in ("cpu_s", "wall_s", "scratch_GB")}
                row |= {
                    "times_less_cpu": other["cpu_s"] / best["cpu_s"],
                    "same_bits": best["result"] == other["result"],
                }
            rows.append(row)
            print(row, flush=True)
    write("map_making", rows, peer="the build of --beside")


if __name__ == "__main__":
    main()
