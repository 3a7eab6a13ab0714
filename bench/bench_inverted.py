"""Micrographs of the other contrast: in which sets picking says so, and in which it says so without reason.

``python bench/bench_inverted.py`` simulates sets of four micrographs, 900 x 900 pixels of 3 A, of eleven kinds; no seed
was used in development. Each set is looked at as it is and inverted (:func:`.inverted_contrast`). Writes
bench/results/inverted.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import verglas as vg
from verglas.assessment.micrographs import inverted_contrast
from verglas.picking import prepare
from verglas.picking.blob import contrast_skewness

from common import write

SIDE, PIXEL_A, DIAMETER_A, MICROGRAPHS = 900, 3.0, 140.0, 4
KINDS: dict[str, dict[str, Any]] = {
    "SNR 0.1": {"snr": 0.1, "n": 60},
    "SNR 0.05": {"snr": 0.05, "n": 60},
    "SNR 0.02": {"snr": 0.02, "n": 60},
    "crowded": {"snr": 0.05, "n": 150, "distance": 1.05},
    "few": {"snr": 0.05, "n": 10},
    "contaminants": {"snr": 0.05, "n": 40, "contaminants": 8},
    "carbon": {"snr": 0.05, "n": 40, "carbon": 0.4},
    "far from focus": {"snr": 0.05, "n": 60, "defocus_u_A": 30000.0, "defocus_v_A": 30000.0},
    "near focus": {"snr": 0.05, "n": 60, "defocus_u_A": 5000.0, "defocus_v_A": 5000.0},
    "70 A": {"snr": 0.05, "n": 100, "diameter_A": 70.0},
    "no particles": {"n": 0},
}
FIRST_SEED = 14100


def skewness_of(kind: str, seed: int) -> float:
    """Of one micrograph, searched for particles of the kind's size."""
    changes = {name: value for name, value in KINDS[kind].items() if name != "diameter_A"}
    diameter_A = float(KINDS[kind].get("diameter_A", DIAMETER_A))
    model = vg.simulate.phantom(box=64, pixel_size_A=PIXEL_A, diameter_A=diameter_A, seed=seed)
    particle = model if changes["n"] else None
    micrograph, _ = vg.simulate.micrograph(particle, shape=(SIDE, SIDE), pixel_size_A=PIXEL_A, seed=seed, **changes)
    return contrast_skewness(prepare(micrograph, diameter_A))


def main() -> None:
    """Every kind once."""
    rows = []
    for number, kind in enumerate(KINDS):
        first = FIRST_SEED + MICROGRAPHS * number
        skewness = [skewness_of(kind, seed) for seed in range(first, first + MICROGRAPHS)]
        rows.append(
            {
                "kind": kind,
                "skewness": float(np.mean(skewness)),
                "warned": bool(inverted_contrast(skewness)),
                "warned_when_inverted": bool(inverted_contrast([-one for one in skewness])),
            }
        )
    write("inverted", rows)


if __name__ == "__main__":
    main()
