"""Tracing filaments on simulated micrographs: precision, recall, distance from the centre-line, angle, time.

Writes bench/results/filaments.json; goes on where it stopped (``trials`` says what was run). Micrographs of 900 x 1000
pixels of 3 A with filaments of 100 A. Settings were chosen on seeds below 100; seeds from 1000 were not seen before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import verglas as vg

from common import ROOT, collect

sys.path.insert(0, str(ROOT / "tests"))

from filament_merit import filament_merit

CASES: dict[str, dict[str, Any]] = {
    "crossing": {"n": 5},
    "carbon over 30 %": {"n": 5, "carbon": 0.3},
    "4 contaminants": {"n": 4, "contaminants": 4},
    "900 A long": {"n": 6, "length_A": 900.0},
    "stiff, 60 A wide": {"n": 5, "width_A": 60.0, "persistence_A": 200000.0},
    "none": {"n": 0},
    "none, carbon": {"n": 0, "carbon": 0.3},
    "none, 6 contaminants": {"n": 0, "contaminants": 6},
}


def one(case: str, snr: float, seed: int) -> dict[str, float]:
    settings = CASES[case]
    micrograph, truth = vg.simulate.filaments(
        shape=(900, 1000), pixel_size_A=3.0, snr=snr, defocus_u_A=18000.0, seed=seed, **settings
    )
    started = time.process_time()
    picks = vg.picking.trace_filaments(micrograph, truth.width_A, threads=1)
    return filament_merit(picks, truth) | {"processor_seconds": time.process_time() - started}


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    sets: dict[tuple[str, str], list[dict[str, float]]] = {}
    for key, values in done.items():
        case, snr, _ = key.split("|")
        sets.setdefault((case, snr), []).append(values)
    rows = []
    for (case, snr), those in sets.items():
        found = [v for v in those if "distance_px" in v]
        row = {
            "case": case,
            "snr": float(snr),
            "micrographs": len(those),
            "with_segments": sum(v["segments"] > 0 for v in those),
        }
        for name in ("precision", "recall", "processor_seconds"):
            row[name] = float(np.mean([v[name] for v in those]))
        if not case.startswith("none"):
            row["least_recall"] = min(v["recall"] for v in those)
            for name in ("distance_px", "angle_rms_deg"):
                row[name] = float(np.mean([v[name] for v in found])) if found else float("nan")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=9.0)
    given = parser.parse_args()
    trials = {
        f"{case}|{snr:g}|{1000 + seed}": partial(one, case, snr, 1000 + seed)
        for seed in range(given.seeds)
        for case in CASES
        for snr in ((0.05,) if case.startswith("none") else (0.02, 0.1))
    }
    collect("filaments", trials, summary, given.minutes)


if __name__ == "__main__":
    main()
