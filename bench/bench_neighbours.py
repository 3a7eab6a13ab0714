"""Neighbours of views at SNR 1/10: share of each image's nearest that lie within 15 degrees of its direction of view.

    python bench/bench_neighbours.py --seeds 4000 4001 4002

Phantoms of three shapes by seed, 96 px of 2 A, 130 A wide, views anywhere, no CTF, noise of ten times the images'
variance over the whole box; five neighbours of each, by correlation alone and sorted again by vector diffusion.
Development used seeds 0 to 2. Writes bench/results/neighbours.json after each.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

import verglas as vg
from verglas.classification import view_neighbours

from common import RESULTS, write

SHAPES = ("globule", "arch", "dumbbell")
BOX, PIXEL_A, DIAMETER_A, SNR, NEIGHBOURS = 96, 2.0, 130.0, 0.1, 5


def measure(seed: int, images_n: int, diffusion: bool) -> dict[str, object]:
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=seed, shape=SHAPES[seed % 3])
    particles = vg.simulate.particles(
        model, images_n, BOX, PIXEL_A, ctf=False, shift_sd_A=0.0, snr=SNR, seed=seed, listener=None
    )
    images = particles.images()
    begin = time.process_time()
    near = view_neighbours(images, NEIGHBOURS, diameter_px=DIAMETER_A / PIXEL_A + 2, diffusion=diffusion, threads=1)
    seconds = time.process_time() - begin
    axes = vg.euler_to_matrix(particles.poses.angles_deg)[:, 2]
    other = axes[near.index] * np.where(near.mirrored, -1, 1)[..., None]
    angle = np.degrees(np.arccos(np.clip((axes[:, None] * other).sum(axis=-1), -1, 1)))
    return {
        "seed": seed,
        "object": SHAPES[seed % 3],
        "images": images_n,
        "snr": SNR,
        "diffusion": diffusion,
        "within_15_deg": round(float((angle < 15).mean()), 4),
        "nearest_within_15_deg": round(float((angle[:, 0] < 15).mean()), 4),
        "median_deg": round(float(np.median(angle)), 2),
        "processor_s": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[4000, 4001, 4002])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--diffusion", type=int, nargs="+", default=[0, 1], choices=[0, 1])
    given = parser.parse_args()
    path = RESULTS / "neighbours.json"
    for seed in given.seeds:
        for diffusion in given.diffusion:
            row = measure(seed, given.images, bool(diffusion))
            print(row, flush=True)
            old = json.loads(path.read_text())["rows"] if path.is_file() else []
            same = ("seed", "images", "diffusion")
            write("neighbours", [r for r in old if any(r[k] != row[k] for k in same)] + [row], quiet=True)


if __name__ == "__main__":
    main()
