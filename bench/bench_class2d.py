"""classify2d: time of 3,000 particles of 128 px in 50 classes to 10 A, and what it gets right of planted views.

``python bench/bench_class2d.py`` times (a minute or two on two cores); ``--quality`` simulates ten planted views at SNR
0.1, with and without a quarter of pure noise, for several seeds, and pure noise alone. Processor time stands beside
wall time: on a busy machine the former means more.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

import verglas as vg

from common import write

VIEWS = 10


def separate_directions(rng: np.random.Generator) -> np.ndarray:
    """Ten viewing axes at least 30 degrees apart, mirror views counted: (10, 2) rot, tilt."""
    found: list[np.ndarray] = []
    while len(found) < VIEWS:
        d = rng.normal(size=3)
        d /= np.linalg.norm(d)
        if all(abs(d @ other) < np.cos(np.deg2rad(30)) for other in found):
            found.append(d)
    x, y, z = np.array(found).T
    return np.rad2deg(np.column_stack([np.arctan2(y, x), np.arccos(z)]))


def planted(n: int, noise_share: float, seed: int) -> tuple[vg.Particles, np.ndarray]:
    """Particles of ten views, 64 px, 3 A/px, SNR 0.1, and labels; images of the same noise alone have -1."""
    rng = np.random.default_rng(seed + 1)
    model = vg.simulate.phantom(64, 3.0, 130.0, seed=seed)
    label = rng.integers(0, VIEWS, n)
    directions = separate_directions(rng)
    poses = vg.Poses(np.column_stack([directions[label], rng.uniform(-180, 180, n)]), rng.normal(0, 3, (n, 2)))
    particles = vg.simulate.particles(model, n, 64, 3.0, snr=0.1, seed=seed, poses=poses)
    if not noise_share:
        return particles, label
    images = particles.images()
    more = round(n * noise_share / (1 - noise_share))
    sigma = np.float32(np.sqrt(images.var() / 1.1))
    extra = sigma * rng.standard_normal((more, 64, 64), np.float32)
    optics = particles.optics[np.arange(n + more) % n]
    both = vg.Particles.from_images(np.concatenate([images, extra]), 3.0, optics=dataclasses.replace(optics))
    return both, np.append(label, np.full(more, -1))


def clocked(particles: vg.Particles, k: int, **settings: Any) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = vg.classify2d(particles, k, **settings)
    return found, time.perf_counter() - wall, time.process_time() - cpu


def speed(n: int, k: int) -> dict[str, Any]:
    model = vg.simulate.phantom(128, 1.5, 130.0, seed=0)
    particles = vg.simulate.particles(model, n, 128, 1.5, snr=0.05, seed=0)
    found, wall, cpu = clocked(particles, k, diameter_A=150, max_resolution_A=10, log=print)
    size = found.table["particles"].to_numpy()[:k]
    resolution = found.table["resolution_A"].to_numpy()[:k]
    return {
        "case": "speed", "particles": n, "box": 128, "classes": k, "wall_s": wall, "processor_s": cpu,
        "iterations": len(found.record), "changed_last": found.record[-1].changed,
        "finest_data_A": found.record[-1].resolution_A, "largest_over_mean": float(size.max() / size.mean()),
        "empty_classes": int((size == 0).sum()), "median_resolution_A": float(np.median(resolution)),
    }  # fmt: skip


def quality(n: int, noise_share: float, seed: int) -> dict[str, Any]:
    particles, truth = planted(n, noise_share, seed)
    found, wall, cpu = clocked(particles, VIEWS, diameter_A=150, seed=seed)
    real, label = truth >= 0, found.labels
    table = np.zeros((VIEWS + 1, VIEWS))
    np.add.at(table, (label[real], truth[real]), 1)
    size = np.bincount(label, minlength=VIEWS + 1)[:VIEWS]
    return {
        "case": "planted views", "particles": len(truth), "noise_share": noise_share, "seed": seed,
        "right": float(table[linear_sum_assignment(-table)].sum() / real.sum()),
        "largest_over_mean": float(size.max() / size.mean()),
        "noise_in_junk": float((label[~real] == VIEWS).mean()) if (~real).any() else None,
        "signal": found.signal, "wall_s": wall, "processor_s": cpu,
    }  # fmt: skip


def pure_noise(n: int) -> dict[str, Any]:
    images = np.random.default_rng(0).standard_normal((n, 64, 64), np.float32)
    optics = planted(10, 0.0, 0)[0].optics[np.arange(n) % 10]
    found, wall, cpu = clocked(vg.Particles.from_images(images, 3.0, optics=optics), VIEWS, diameter_A=150)
    return {
        "case": "pure noise", "particles": n, "signal": found.signal, "wall_s": wall, "processor_s": cpu,
        "largest_evidence_sigma": max(line.evidence for line in found.record),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", action="store_true", help="planted views instead of time")
    parser.add_argument("--particles", type=int, default=3000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    if args.quality:
        rows = [quality(args.particles, share, seed) for share in (0.0, 0.25) for seed in range(args.seeds)]
        write("class2d_quality", [*rows, pure_noise(1000)])
        return
    write("class2d", [speed(args.particles, args.classes)])


if __name__ == "__main__":
    main()
