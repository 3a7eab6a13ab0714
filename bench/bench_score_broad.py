"""Exhaustive scoring when posteriors are broad: every pose counts, and lists of candidates are cut to their limit.

``python bench/bench_score_broad.py [--beside FOLDER]`` writes bench/results/score_broad.json. The problem is that of
bench_score.py (R = 16, 768 directions, 80 psi, 29 shifts), sharp as there, and with the weight of the images divided by
100 and 1,000, so that no pose stands out. FOLDER holds another build of the package, to be put on PYTHONPATH: both are
timed in turn, a process each, and what they find is compared. Processor time of one thread, which other programs on
the machine disturb least.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from bench_score import CASES, N_POWER, Case

from common import write

POSTERIORS = {"sharp": 1.0, "broad": 1e-2, "flat": 1e-3}
LIMITS = (32768, 4096, 1024)


def worker(posterior: str, limit: int, n_images: int) -> dict[str, Any]:
    """One row: ms per image, and what came out as a hash."""
    from verglas import ops

    case = Case(*CASES["R16"], n_images)
    plan = ops.ScorePlan(case.grid, case.n_psi, n_power=N_POWER, max_candidates=limit)
    plan.set_reference(case.slices, opposite=True)
    weight = case.inv_sigma2 * np.float32(POSTERIORS[posterior])
    times = []
    for _ in range(4):
        start = time.process_time()
        scores = plan.run(case.images, case.shifts, inv_sigma2=weight, threads=1)
        times.append(time.process_time() - start)
    values = b"".join(np.ascontiguousarray(getattr(scores, f.name)).tobytes() for f in fields(scores))
    return {
        "ms": 1e3 * min(times[1:]) / n_images,
        "candidates": float(np.diff(scores.offsets).mean()),
        "result": hashlib.sha256(values).hexdigest(),
    }


def in_process(folder: str | None, arguments: list[str]) -> dict[str, Any]:
    path = {} if folder is None else {"PYTHONPATH": folder}
    done = subprocess.run(
        [sys.executable, __file__, "--worker", *arguments],
        check=True,
        text=True,
        capture_output=True,
        env={**os.environ, **path, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def row_of(posterior: str, limit: int, n_images: int, beside: str | None) -> dict[str, Any]:
    """Three rounds, the builds taking turns."""
    builds: dict[str, str | None] = {"ours": None} | ({} if beside is None else {"beside": beside})
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in builds}
    for _ in range(3):
        for name, folder in builds.items():
            runs[name].append(in_process(folder, [posterior, str(limit), str(n_images)]))
    ms = {name: statistics.median(r["ms"] for r in found) for name, found in runs.items()}
    row = {
        "posterior": posterior,
        "max_candidates": limit,
        "images": n_images,
        "candidates": runs["ours"][0]["candidates"],
        "ms_per_image": ms["ours"],
    }
    if beside is not None:
        row |= {
            "beside_ms_per_image": ms["beside"],
            "faster_than_beside": ms["beside"] / ms["ours"],
            "same_to_the_last_bit": len({r["result"] for found in runs.values() for r in found}) == 1,
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", metavar="FOLDER", help="another build, to be put on PYTHONPATH")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        posterior, limit, n_images = args.worker
        print(json.dumps(worker(posterior, int(limit), int(n_images))))
        return
    beside = None if args.beside is None else str(Path(args.beside).resolve())
    cases = [("sharp", LIMITS[0]), *((p, limit) for p in ("broad", "flat") for limit in LIMITS)]
    write("score_broad", [row_of(p, limit, args.images, beside) for p, limit in cases])


if __name__ == "__main__":
    main()
