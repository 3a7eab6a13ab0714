"""Whether a stated 95 % credible radius holds 95 % of the true orientations, and probabilities of lying far off add up.

``python bench/bench_calibration.py [--snr 0.4 0.2 0.1 0.05] [--seeds 0 1 ...] [--minutes 9]`` refines the even sets of
bench_verdict.py (its kinds ``clean`` and ``weak``: 160 images of 32 px, C1, C2 and D2 in turn, a phantom for every
seed); sets that bench/results/verdict.json holds are not made again. A row per SNR in bench/results/calibration.json:
the share of particles whose true orientation lies within its radius, over all sets, with the standard error over sets
and the least of a set; and the mean difference of the stated and the true share beyond 30 degrees. Goes on where it
stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from bench_verdict import CLEAN, OBJECTS, WEAK, refined, rows_of

from common import collect

FIELDS = ("within_radius", "beyond_30", "stated_beyond_30", "median_error_deg", "median_radius_deg")


def of_set(snr: float, seed: int) -> dict[str, Any]:
    """One set, from the benchmark of verdicts where that has it."""
    kind = "weak" if snr == WEAK else f"clean-{snr:g}"
    held = [row for row in rows_of("verdict") if (row["kind"], row["seed"]) == (kind, seed)]
    row = held[0] if held else refined(kind, OBJECTS[seed % len(OBJECTS)], seed)
    return {"snr": snr, "seed": seed, **{name: row[name] for name in FIELDS if name in row}}


def coverage(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By SNR."""
    rows = []
    for snr in sorted({one["snr"] for one in sets.values()}, reverse=True):
        of = [one for one in sets.values() if one["snr"] == snr]
        within = np.array([one["within_radius"] for one in of])
        off = [one["stated_beyond_30"] - one["beyond_30"] for one in of if "stated_beyond_30" in one]
        rows.append(
            {
                "snr": snr,
                "sets": len(of),
                "within_radius": float(within.mean()),
                "standard_error": float(within.std(ddof=1) / np.sqrt(len(of))) if len(of) > 1 else None,
                "least_of_a_set": float(within.min()),
                "stated_less_true_share_beyond_30": float(np.mean(off)) if off else None,
            }
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snr", nargs="+", type=float, default=[*CLEAN, WEAK], choices=[*CLEAN, WEAK])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--minutes", type=float, default=1e9, help="Begin no further set after so many")
    options = parser.parse_args()
    trials = {f"SNR {snr:g} seed {seed}": partial(of_set, snr, seed) for seed in options.seeds for snr in options.snr}
    collect("calibration", trials, coverage, options.minutes)


if __name__ == "__main__":
    main()
