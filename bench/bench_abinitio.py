"""Ab initio: success over seeds and against the number of particles, time, symmetry, two structures, common lines.

``python bench/bench_abinitio.py [--particles 3000] [--seeds 10] [--starts 3] [--symmetry C1 D2] [--only success ...]``
writes bench/results/abinitio.json. Particles of 128 px at 1.5 A, SNR 0.1 (power ratio over the whole box); success is a
map within 15 A of the truth at FSC 0.5 after alignment, of either hand. ``growth`` makes single starts from 500 to
``--particles`` particles (a start is a blob); ``symmetry`` starts without symmetry
and looks for it; ``averages`` starts from 100 averages of images in known views. Common lines: SNR 1/4, no CTF,
no shifts.

``shapes``: ten objects of other shapes and groups, 150 images each of 32 px of 6 A at SNR 1, three starts and no more
(by default up to eight are made while none agree), else by default; success within 20 A; ``--first`` is the seed of the
first object (its images have the same). Saved after every one in bench/results/abinitio_shapes.json; the same command
goes on.

``centre``: 600 images of 64 px of 3 A at SNR 0.2, the object 12 A off the origin of its frame (C1) or on its axis (C3):
how far from the origin the map's centre of mass ends; kept in bench/results/abinitio_centre.json in the same way.

``two``: the particles, half of each of two objects, K = 2; seeds from ``--first``, in bench/results/abinitio_two.json.

A start of 3,000 particles takes some 20 s of processor time; the script says how far it is after every run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from common import collect, write
from known_truth import of_better_hand_A

BOX, PIXEL_A, DIAMETER_A, SMALL = 128, 1.5, 130.0, 48
WITHIN_A = 15.0
PARTS = ("success", "two", "averages", "symmetry", "lines", "growth", "shapes", "centre")
SHAPES = (
    ("globule", "C1"),
    ("rod", "C1"),
    ("disc", "C1"),
    ("arch", "C1"),
    ("cone", "C1"),
    ("dumbbell", "C2"),
    ("cone", "C3"),
    ("ring", "C4"),
    ("rod", "D2"),
    ("shell", "O"),
)
SHAPES_WITHIN_A = 20.0


def agreement_A(truth: Any, volume: Any) -> float:
    """FSC 0.5 of a map with the truth, of the better hand, on a coarse grid."""
    import verglas as vg

    plan = vg.image.plan_resample(BOX, PIXEL_A, None, SMALL)
    return of_better_hand_A(vg.image.resample(truth, plan), vg.image.resample(volume, plan))


def success(
    symmetry: str, options: argparse.Namespace, n: int | None = None, starts: int | None = None
) -> list[dict[str, Any]]:
    """One row per seed, and one that counts."""
    import verglas as vg

    n, starts = n or options.particles, starts or options.starts

    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry, seed=3)
    truth, rows = vg.simulate.density(model, BOX, PIXEL_A), []
    for seed in range(options.seeds):
        particles = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=0.1, seed=seed)
        begun, cpu = time.perf_counter(), time.process_time()
        found = vg.abinitio(particles, symmetry, 145.0, starts=starts, seed=seed)
        row = {
            "what": "success",
            "symmetry": symmetry,
            "particles": n,
            "seed": seed,
            "starts": found.verdict.starts,
            "seconds": round(time.perf_counter() - begun, 1),
            "processor_seconds": round(time.process_time() - cpu, 1),
            "verdict": found.verdict.kind,
            "agreeing": found.verdict.agreeing,
            "fsc05_A": round(agreement_A(truth, found.map), 2),
        }
        print(row, flush=True)
        rows.append(row)
    good = [r["fsc05_A"] <= WITHIN_A for r in rows]
    total = {
        "what": "successes",
        "symmetry": symmetry,
        "particles": n,
        "starts_at_least": starts,
        "seeds": len(good),
        "good": sum(good),
        "longest_seconds": max(r["seconds"] for r in rows),
    }
    print(total, flush=True)
    return [*rows, total]


def of_shape(shape: str, symmetry: str, seed: int) -> dict[str, Any]:
    """One object that no other benchmark has: what came of it, against the truth."""
    import verglas as vg

    model = vg.simulate.phantom(32, 6.0, 140.0, symmetry, seed=seed, shape=shape)
    particles = vg.simulate.particles(model, 150, 32, 6.0, snr=1.0, seed=seed)
    cpu = time.process_time()
    found = vg.abinitio(particles, symmetry, 160.0, starts=3, most_starts=3, seed=seed, listener=None)
    return {
        "shape": shape,
        "symmetry": symmetry,
        "seed": seed,
        "verdict": found.verdict.kind,
        "agreeing": found.verdict.agreeing,
        "starts": found.verdict.starts,
        "gain_nats": round(found.verdict.gain, 2),
        "gain_error": round(found.verdict.gain_error, 2),
        "processor_seconds": round(time.process_time() - cpu, 1),
        "fsc05_A": round(of_better_hand_A(vg.simulate.density(model, 32, 6.0), found.map), 2),
    }


def displacement(symmetry: str, seed: int) -> dict[str, Any]:
    """Of the map of particles that were picked off their centres."""
    import numpy as np

    import verglas as vg
    from verglas.map_geometry.symmetry_search import mass_centre

    model = vg.simulate.phantom(64, 3.0, 130.0, symmetry, seed=seed)
    off = np.random.default_rng(seed).normal(size=3)
    shifted = model.move(np.eye(3), 12.0 * off / np.linalg.norm(off)) if symmetry == "C1" else model
    particles = vg.simulate.particles(shifted, 600, 64, 3.0, snr=0.2, seed=seed)
    cpu = time.process_time()
    found = vg.abinitio(particles, symmetry, 145.0, seed=seed, listener=None)
    small = vg.image.plan_resample(64, 3.0, None, 32)
    truth = vg.image.resample(vg.simulate.density(model, 64, 3.0), small)
    return {
        "symmetry": symmetry,
        "seed": seed,
        "verdict": found.verdict.kind,
        "off_px": round(float(np.linalg.norm(mass_centre(found.map.data))), 2),
        "stated_off_A": round(found.centre_off_A, 2),
        "fsc05_A": round(of_better_hand_A(truth, vg.image.resample(found.map, small)), 2),
        "processor_seconds": round(time.process_time() - cpu, 1),
    }


def count_centres(rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The farthest, and all."""
    farthest = max(row["off_px"] for row in rows.values())
    return [{"what": "centre", "sets": len(rows), "farthest_off_px": farthest}, *rows.values()]


def count_shapes(rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the ten amount to."""
    right = {key: row["fsc05_A"] <= SHAPES_WITHIN_A for key, row in rows.items()}
    good = {key for key, row in rows.items() if row["verdict"] == "found"}
    total = {
        "what": "shapes",
        "objects": len(rows),
        "right": sum(right.values()),
        "right_and_found": sum(right[key] for key in good),
        "wrong_and_found": sum(not right[key] for key in good),
        "longest_processor_seconds": max(row["processor_seconds"] for row in rows.values()),
    }
    return [total, *rows.values()]


def growth(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Single starts against the number of particles."""
    sizes = [n for n in (500, 1000, 3000, 10000) if n <= options.particles]
    return [success("C1", options, n, 1)[-1] | {"what": "growth"} for n in sizes]


def symmetry_found(symmetry: str) -> dict[str, Any]:
    """From C1: the group and the agreement of the map as it stands, modulo what the convention leaves open."""
    import verglas as vg

    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry, seed=3)
    particles = vg.simulate.particles(model, 1000, BOX, PIXEL_A, snr=0.1, seed=0)
    begun = time.perf_counter()
    found = vg.abinitio(particles, "auto", 145.0, starts=1)
    assert found.symmetry is not None
    return {
        "what": "symmetry",
        "true": symmetry,
        "found": found.symmetry.symmetry,
        "gain_nats": round(found.symmetry.gain, 2),
        "gain_error": round(found.symmetry.gain_error, 2),
        "fsc05_A": round(agreement_A(vg.simulate.density(model, BOX, PIXEL_A), found.map), 2),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def averages() -> dict[str, Any]:
    """From class averages: 100 views, 30 noisy copies each, without CTF."""
    import numpy as np

    import verglas as vg
    from verglas.geometry import random_orientations

    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=3)
    angles = random_orientations(100, 1)
    many = vg.simulate.particles(
        model, 3000, BOX, PIXEL_A, snr=0.1, ctf=False, shift_sd_A=0.0, seed=1, poses=vg.Poses(np.repeat(angles, 30, 0))
    )
    means = many.images().reshape(100, 30, BOX, BOX).mean(axis=1)
    begun = time.perf_counter()
    found = vg.abinitio(many[::30].with_source(vg.ArraySource(means, PIXEL_A)), "C1", 145.0)
    return {
        "what": "class averages",
        "averages": 100,
        "verdict": found.verdict.kind,
        "starts": found.verdict.starts,
        "fsc05_A": round(agreement_A(vg.simulate.density(model, BOX, PIXEL_A), found.map), 2),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def two_structures(n: int, starts: int, seed: int) -> dict[str, Any]:
    """Share of particles in the right class, K = 2, and how far from the origin the maps' centres of mass end."""
    import numpy as np

    import verglas as vg
    from verglas.map_geometry.symmetry_search import mass_centre

    models = [vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=s) for s in (seed, seed + 1000)]
    particles = vg.simulate.particles(models, n, BOX, PIXEL_A, snr=0.1, seed=seed)
    cpu = time.process_time()
    found = vg.abinitio(particles, diameter_A=145.0, classes=2, starts=starts, seed=seed, listener=None)
    true, got = (p.table["rlnClassNumber"].to_numpy() for p in (particles, found.particles))
    right = float((true == got).mean())
    return {
        "what": "two structures",
        "particles": n,
        "seed": seed,
        "verdict": found.verdict.kind,
        "right": round(max(right, 1 - right), 3),
        "farthest_off_px": max(round(float(np.linalg.norm(mass_centre(m.data))), 2) for m in found.maps),
        "processor_seconds": round(time.process_time() - cpu, 1),
    }


def common_lines(n: int) -> dict[str, Any]:
    """Mean error of orientations."""
    import verglas as vg
    from verglas.initial_model.common_lines import find_common_lines, orientation_error_deg, synchronise

    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=3)
    p = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=0.25, ctf=False, shift_sd_A=0.0, seed=1)
    images, begun = p.images(), time.perf_counter()
    found = synchronise(find_common_lines(images, 18, diameter_px=92, n_theta=180))
    error = orientation_error_deg(found.angles_deg, p.poses.angles_deg)
    return {
        "what": "common lines",
        "images": n,
        "mean_error_deg": round(float(error.mean()), 2),
        "gap": round(found.gap, 3),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--symmetry", nargs="+", default=["C1", "D2"])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--first", type=int, default=4000)
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="Of shapes, centre or two: begin no more after so many"
    )
    options = parser.parse_args()
    if "shapes" in options.only:
        trials: dict[str, Callable[[], dict[str, Any]]] = {
            f"{shape} {symmetry} seed {seed}": partial(of_shape, shape, symmetry, seed)
            for seed, (shape, symmetry) in enumerate(SHAPES, options.first)
        }
        collect("abinitio_shapes", trials, count_shapes, options.minutes)
    if "centre" in options.only:
        trials = {
            f"{symmetry} seed {seed}": partial(displacement, symmetry, seed)
            for seed in range(options.first, options.first + options.seeds)
            for symmetry in ("C1", "C3")
        }
        collect("abinitio_centre", trials, count_centres, options.minutes)
    if "two" in options.only:
        trials = {
            f"{options.particles} particles seed {seed}": partial(
                two_structures, options.particles, options.starts, seed
            )
            for seed in range(options.first, options.first + options.seeds)
        }
        collect("abinitio_two", trials, lambda done: list(done.values()), options.minutes)
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "success": lambda: [row for s in options.symmetry for row in success(s, options)],
        "averages": lambda: [averages()],
        "symmetry": lambda: [symmetry_found(s) for s in ("C1", "C2", "C4", "D2", "T", "O", "I")],
        "lines": lambda: [common_lines(n) for n in (60, 150, 500)],
        "growth": lambda: growth(options),
    }
    rows: list[dict[str, Any]] = []
    for name, made in parts.items():
        if name in options.only:
            rows += made()
            write("abinitio", rows)  # what is done so far


if __name__ == "__main__":
    main()
