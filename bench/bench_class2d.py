"""classify2d: time of 3,000 particles of 128 px in 50 classes to 10 A, and what it gets right of planted views.

``python bench/bench_class2d.py`` times (a minute or two on two cores); ``--quality`` simulates ten planted views at SNR
0.1, with and without a quarter of pure noise, for several seeds, and pure noise alone; ``--growth`` times the command
for 1,000, 3,000 and 10,000 particles of 64 px; ``--apoferritin DATA`` (DATA: real micrographs with an expert's
picks.star) classifies the program's own picks with as many random positions as make a quarter of all, and counts what
``verglas select --auto`` keeps. Processor time stands beside wall time: on a busy machine the former means more.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from child import command
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

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
    found = vg.classify2d(particles, classes=k, **settings)
    return found, time.perf_counter() - wall, time.process_time() - cpu


def speed(n: int, k: int) -> dict[str, Any]:
    model = vg.simulate.phantom(128, 1.5, 130.0, seed=0)
    particles = vg.simulate.particles(model, n, 128, 1.5, snr=0.05, seed=0)
    found, wall, cpu = clocked(particles, k, diameter_A=150, max_resolution_A=10)
    size = found.table["particles"].to_numpy()[:k]
    resolution = found.table["resolution_A"].to_numpy()[:k]
    return {
        "case": "speed",
        "particles": n,
        "box": 128,
        "classes": k,
        "wall_s": wall,
        "processor_s": cpu,
        "iterations": len(found.record),
        "changed_last": found.record[-1].changed,
        "finest_data_A": found.record[-1].resolution_A,
        "largest_over_mean": float(size.max() / size.mean()),
        "empty_classes": int((size == 0).sum()),
        "median_resolution_A": float(np.median(resolution)),
    }


def quality(n: int, noise_share: float, seed: int) -> dict[str, Any]:
    particles, truth = planted(n, noise_share, seed)
    found, wall, cpu = clocked(particles, VIEWS, diameter_A=150, seed=seed)
    real, label = truth >= 0, found.labels
    table = np.zeros((VIEWS + 1, VIEWS))
    np.add.at(table, (label[real], truth[real]), 1)
    size = np.bincount(label, minlength=VIEWS + 1)[:VIEWS]
    return {
        "case": "planted views",
        "particles": len(truth),
        "noise_share": noise_share,
        "seed": seed,
        "right": float(table[linear_sum_assignment(-table)].sum() / real.sum()),
        "largest_over_mean": float(size.max() / size.mean()),
        "noise_in_junk": float((label[~real] == VIEWS).mean()) if (~real).any() else None,
        "signal": found.signal,
        "wall_s": wall,
        "processor_s": cpu,
    }


def pure_noise(n: int) -> dict[str, Any]:
    images = np.random.default_rng(0).standard_normal((n, 64, 64), np.float32)
    optics = planted(10, 0.0, 0)[0].optics[np.arange(n) % 10]
    found, wall, cpu = clocked(vg.Particles.from_images(images, 3.0, optics=optics), VIEWS, diameter_A=150)
    return {
        "case": "pure noise",
        "particles": n,
        "signal": found.signal,
        "wall_s": wall,
        "processor_s": cpu,
        "largest_evidence_sigma": max(line.evidence for line in found.record),
    }


def growth(n: int) -> dict[str, Any]:
    """The command on files: wall time, largest resident memory, growth with particles."""
    model = vg.simulate.phantom(64, 3.0, 130.0, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        stem = Path(folder) / "particles"
        particles = vg.simulate.particles(model, n, 64, 3.0, snr=0.1, seed=0)
        vg.write_particles(stem.with_suffix(".star"), particles, stack=stem.with_suffix(".mrcs"))
        seconds, peak, told = command(
            [
                "class2d",
                str(stem.with_suffix(".star")),
                "-K",
                "20",
                "--diameter",
                "150",
                "--out",
                f"{folder}/out",
                "--json",
            ]
        )
    record = json.loads(told)["record"]
    passes = sum(line["particles"] for line in record)
    return {
        "case": "growth",
        "particles": n,
        "box": 64,
        "classes": 20,
        "wall_s": seconds,
        "peak_GB": peak,
        "iterations": len(record),
        "ms_per_particle_and_iteration": 1e3 * seconds / passes,
    }


def nearest_A(table: pd.DataFrame, truth: pd.DataFrame, pixel_size_A: float) -> np.ndarray:
    """Distance of every position to the expert's nearest one in its micrograph."""
    columns = ["rlnCoordinateX", "rlnCoordinateY"]
    name, own = (t["rlnMicrographName"].map(lambda p: Path(p).name).to_numpy() for t in (table, truth))
    distance = np.full(len(table), np.inf)
    for one in np.unique(name):
        tree = cKDTree(truth.loc[own == one, columns].to_numpy(float))
        distance[name == one] = tree.query(table.loc[name == one, columns].to_numpy(float))[0]
    return distance * pixel_size_A


def apoferritin(data: Path, k: int = 5) -> dict[str, Any]:
    """Own picks and random positions away from the expert's; what the automatic selection keeps."""
    pixel_A, rng = 1.5, np.random.default_rng(0)
    truth = next(iter(vg.io.read_star(data / "picks.star").values()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        micrographs = [str(p) for p in sorted(data.glob("*.tif"))]
        command(
            [
                "pick",
                *micrographs,
                "--diameter",
                "130",
                "--pixel-size",
                f"{pixel_A}",
                "--out",
                f"{folder}/pick",
                "--no-pictures",
            ]
        )
        own = next(iter(vg.io.read_star(folder / "pick" / "picks.star").values()))
        own = own[["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]]
        at = np.repeat(own["rlnMicrographName"].unique(), 400)
        random = pd.DataFrame(
            {
                "rlnMicrographName": at,
                "rlnCoordinateX": rng.uniform(70, 1170, len(at)),
                "rlnCoordinateY": rng.uniform(70, 1130, len(at)),
            }
        )
        random = random[nearest_A(random, truth, pixel_A) > 75]
        random = random.iloc[rng.permutation(len(random))[: len(own) // 3]]
        mixed = pd.concat([own, random]).sort_values("rlnMicrographName", kind="stable")
        vg.io.write_star(folder / "mixed.star", {"": mixed})
        command(
            [
                "extract",
                *micrographs,
                "--picks",
                f"{folder}/mixed.star",
                "--box",
                "128",
                "--pixel-size",
                f"{pixel_A}",
                "--diameter",
                "140",
                "--out",
                f"{folder}/ex",
                "--ctf",
                str(data / "ctf_quickfit.tsv"),
                "--voltage",
                "300",
                "--cs",
                "0.01",
                "--amplitude-contrast",
                "0.07",
            ]
        )
        seconds, peak, told = command(
            [
                "class2d",
                f"{folder}/ex/particles.star",
                "-K",
                str(k),
                "--diameter",
                "150",
                "--out",
                f"{folder}/c",
                "--json",
            ]
        )
        chosen = json.loads(told)["selection"]
        particles = vg.read_particles(folder / "c" / "particles.star").table
    right = nearest_A(particles, truth, pixel_A) < 30
    kept = np.isin(particles["rlnClassNumber"].to_numpy(int), chosen["classes"])
    return {
        "case": "apoferritin",
        "particles": len(particles),
        "right": int(right.sum()),
        "classes": k,
        "kept_classes": len(chosen["classes"]),
        "kept": int(kept.sum()),
        "kept_right": int((kept & right).sum()),
        "purity": float(right[kept].mean()),
        "recall": float(kept[right].mean()),
        "state": chosen["state"],
        "wall_s": seconds,
        "peak_GB": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", action="store_true", help="planted views instead of time")
    parser.add_argument("--particles", type=int, default=3000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--apoferritin", type=Path, metavar="DATA")
    args = parser.parse_args()
    if args.growth:
        write("class2d_growth", [growth(n) for n in (1000, 3000, 10000)])
        return
    if args.apoferritin:
        write("class2d_apoferritin", [apoferritin(args.apoferritin)])
        return
    if args.quality:
        rows = [quality(args.particles, share, seed) for share in (0.0, 0.25) for seed in range(args.seeds)]
        write("class2d_quality", [*rows, pure_noise(1000)])
        return
    write("class2d", [speed(args.particles, args.classes)])


if __name__ == "__main__":
    main()
