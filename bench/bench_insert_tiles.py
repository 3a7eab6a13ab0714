"""Insertion of images with known poses into the sums of a refinement, beside another build. Writes insert_tiles.json.

``python bench/bench_insert_tiles.py --beside FOLDER``: FOLDER holds another build of the package, to be put on
PYTHONPATH. Both are timed in turn, a process each, by batches: random images with CTF and shifts in random directions,
the twice oversampled grid of a refinement. Processor seconds; what the grids hold is compared by its sum.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from common import write

_ROUNDS, _CALLS = 2, 4


def worker(box: int, images: int, threads: int) -> dict[str, Any]:
    """The quickest of some calls, and what was summed in all."""
    from verglas import ops
    from verglas.geometry import euler_to_matrix, random_orientations
    from verglas.reconstruction.accumulate import direct_grid

    rng, shape = np.random.default_rng(0), (images, box, box // 2 + 1)
    data = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    given = {
        "shifts_px": rng.normal(size=(images, 2)),
        "ctf": rng.uniform(-1, 1, shape).astype(np.float32),
        "shell_weight": np.ones((images, (box - 1) // 2 + 1), np.float32),
    }
    matrices = euler_to_matrix(random_orientations(images, 1))
    sums = ops.GridSums.zeros(direct_grid(box, (box - 1) // 2))
    taken = []
    for _ in range(_CALLS):
        begun = time.process_time()
        ops.insert(sums, data, matrices, **given, threads=threads)
        taken.append(time.process_time() - begun)
    assert sums.values is not None
    assert sums.weights is not None
    return {"cpu_ms_per_image": 1e3 * min(taken) / images, "sum": float(np.abs(sums.values).sum() + sums.weights.sum())}


def in_process(folder: str | None, *what: int) -> dict[str, Any]:
    """A worker, of this build or another."""
    path = {} if folder is None else {"PYTHONPATH": folder}
    command = [sys.executable, __file__, "--worker", *map(str, what)]
    done = subprocess.run(command, check=True, text=True, capture_output=True, env=os.environ | path)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["64,1024", "128,256", "256,64", "256,128"], help="box,images")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--beside", help="folder of another build, for PYTHONPATH")
    parser.add_argument("--worker", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(*arguments.worker)))
        return
    rows = []
    for case in arguments.cases:
        box, images = map(int, case.split(","))
        for threads in arguments.threads:
            here, there = [], []
            for _ in range(_ROUNDS):
                here.append(in_process(None, box, images, threads))
                if arguments.beside:
                    there.append(in_process(arguments.beside, box, images, threads))
            best = min(here, key=lambda row: row["cpu_ms_per_image"])
            row = {"box": box, "images": images, "threads": threads} | {k: v for k, v in best.items() if k != "sum"}
            if there:
                other = min(there, key=lambda row: row["cpu_ms_per_image"])
                row["beside_cpu_ms_per_image"] = other["cpu_ms_per_image"]
                row["times_less_cpu"] = other["cpu_ms_per_image"] / best["cpu_ms_per_image"]
                row["relative_difference"] = abs(other["sum"] / best["sum"] - 1)
            rows.append(row)
            print(row, flush=True)
    write("insert_tiles", rows, peer="the build of --beside")


if __name__ == "__main__":
    main()
