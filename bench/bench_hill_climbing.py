"""Stochastic hill climbing beside stochastic EM: success and time of single starts, over seeds.

``python bench/bench_hill_climbing.py [--particles 500] [--seeds 5] [--symmetry C1 D2] [--snr 0.1] [--add]`` writes
bench/results/abinitio_hill_climbing.json, with ``--add`` beside the rows of other sizes that it holds. Particles of
64 px at 3 A (SNR is the power ratio over the whole box); success is a map within 15 A of the truth at FSC 0.5 after
alignment, of either hand. Both methods get the same particles and the same seeds, and end with one pass over all
particles, held-out ones included. A start of 500 particles takes 10 s (EM) to 20 s (hill climbing) of processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from common import RESULTS, write
from known_truth import of_better_hand_A

BOX, PIXEL_A, DIAMETER_A = 64, 3.0, 130.0
WITHIN_A = 15.0
METHODS = ("em", "hill-climbing")
NAME = "abinitio_hill_climbing"


def starts(symmetry: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per seed and method, and one per method that counts."""
    import verglas as vg

    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry, seed=3)
    truth, rows = vg.simulate.density(model, BOX, PIXEL_A), []
    for seed in range(options.seeds):
        particles = vg.simulate.particles(model, options.particles, BOX, PIXEL_A, snr=options.snr, seed=seed)
        for method in METHODS:
            begun = time.process_time()
            found = vg.abinitio(particles, symmetry, 145.0, starts=1, seed=seed, method=method, threads=1)
            row = {
                "what": "start",
                "symmetry": symmetry,
                "particles": options.particles,
                "snr": options.snr,
                "method": method,
                "seed": seed,
                "processor_seconds": round(time.process_time() - begun, 1),
                "verdict": found.verdict.kind,
                "gain_nats": round(found.verdict.gain, 1),
                "fsc05_A": round(of_better_hand_A(truth, found.map), 2),
            }
            print(row, flush=True)
            rows.append(row)
    for method in METHODS:
        own = [r for r in rows if r["method"] == method]
        mean = sum(r["processor_seconds"] for r in own) / len(own)
        rows.append(
            {
                "what": "successes",
                "symmetry": symmetry,
                "particles": options.particles,
                "snr": options.snr,
                "method": method,
                "seeds": len(own),
                "good": sum(r["fsc05_A"] <= WITHIN_A for r in own),
                "mean_processor_seconds": round(mean, 1),
            }
        )
    return rows


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--symmetry", nargs="+", default=["C1", "D2"])
    parser.add_argument("--add", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.add:
        had = json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))["rows"]
        rows = [r for r in had if not (r["particles"] == options.particles and r["symmetry"] in options.symmetry)]
    write(NAME, [*rows, *(row for symmetry in options.symmetry for row in starts(symmetry, options))])


if __name__ == "__main__":
    main()
