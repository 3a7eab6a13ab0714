"""Motion correction against movies whose motion is known: the likelihood beside the six classical estimators.

    python bench/bench_motion.py [--seeds 10] [--first-seed 1000] [--side 768] [--frames 24] [--minutes 60] [--add]
    python bench/bench_motion.py --full [--full-frames 40] [--methods likelihood pairs ...]
    python bench/bench_motion.py --weak --first-seed 7100 --seeds 8

Small movies: particles and ice counted by a detector with gain and hot pixels, in three kinds of motion: drift of
whole frames that settles ("drift"), that and a random polynomial field of RELION's kind ("polynomial"), that and a
dome and a shear, which no such polynomial fits ("dome"). Errors are taken over 9 x 9 places, corners included, and all
frames, each place's mean over frames taken off: a constant offset moves the micrograph and blurs nothing.

* global_px: root mean square of the error of the field's mean over places;
* local_px: mean distance of what the fields are beyond these means;
* all_px: mean distance of the two fields. ``nothing`` is no correction.

``--full``: `verglas motion` as a user types it, on one movie of 3710 x 3838 pixels in a TIFF file (LZW), one process
after the other: wall time and peak resident memory, and the ratio to the quickest classical method. All classical
methods begin with that of pairs, which is therefore the quickest.

``--weak``: next to nothing to follow. By how many standard errors frames agree beyond chance, what error of the shifts
of whole frames is stated (None where it is said that nobody knows it), and what it is.

``--super``: the same command on a super-resolution movie of 8184 x 11520 pixels binned by 2, of ``--full-frames``:
time, peak memory, and the shift of the last frame, which is 2 px down and 1 px left per frame.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from child import command

import verglas as vg
from verglas import ops
from verglas.io import read_json
from verglas.motion.classical import METHODS
from verglas.types.motion import Motion

from common import RESULTS, write

DRIFT_PX = (7.0, -5.0)
KINDS: dict[str, dict[str, Any]] = {
    "drift": {},
    "polynomial": {"polynomial_px": 0.7},
    "dome": {"dome_px": 1.2, "dome_centre": (0.4, 0.6), "shear_px": 0.6},
}
FULL = (3710, 3838)
SUPER = (8184, 11520)
# particles, frames and e/A^2 a frame: from next to nothing to what is followed with ease
WEAK = ((12, 7, 0.5), (12, 16, 0.5), (30, 7, 0.5), (30, 16, 0.5), (50, 7, 0.5), (30, 24, 0.7))
PIXEL_A = 1.6


def errors(found: Any, truth: Any, shape: tuple[int, int]) -> dict[str, float]:
    """global_px, local_px and all_px of a field against the true one."""
    x, y = np.meshgrid(np.linspace(0, shape[1] - 1, 9), np.linspace(0, shape[0] - 1, 9))
    off = (found.at(x, y) if found is not None else 0.0) - truth.at(x, y)
    off -= off.mean(axis=2, keepdims=True)
    mean = off.mean(axis=(0, 1))
    return {
        "global_px": float(np.sqrt((mean**2).mean())),
        "local_px": float(np.hypot(*np.moveaxis(off - mean, -1, 0)).mean()),
        "all_px": float(np.hypot(*np.moveaxis(off, -1, 0)).mean()),
    }


def small_movies(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per movie and method; with ``--add`` those that are missing, and the file is written after every movie."""
    model = vg.simulate.phantom(96, PIXEL_A, 120.0, seed=5)
    rows: list[dict[str, Any]] = read_json(RESULTS / "motion.json")["movies"] if args.add else []
    rows = [row for row in rows if row["method"] not in args.anew]
    end = time.monotonic() + 60 * args.minutes
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for kind, motion in KINDS.items():
            if time.monotonic() > end:
                return rows
            there = {row["method"] for row in rows if (row["kind"], row["seed"]) == (kind, seed)}
            missing = [method for method in args.methods if method not in there]
            if not missing:
                continue
            movie, truth = vg.simulate.movie(
                model,
                shape=(args.side, args.side),
                pixel_size_A=PIXEL_A,
                n=args.particles,
                frames=args.frames,
                dose_per_frame_e_A2=1.0,
                drift_px=DRIFT_PX,
                gain_sd=0.03,
                hot_pixels=20,
                seed=seed,
                threads=2,
                **motion,
            )
            made = [
                {"kind": kind, "seed": seed, "method": "nothing", **errors(None, truth.field, (args.side, args.side))}
            ]
            for method in missing:
                started = time.perf_counter()
                done = vg.correct_motion(movie, method=method, threads=2, listener=None)
                row = {
                    "kind": kind,
                    "seed": seed,
                    "method": method,
                    "model": done.model,
                    "seconds": time.perf_counter() - started,
                    "flags": "; ".join(done.flags),
                }
                made.append({**row, **errors(done.motion, truth.field, (args.side, args.side))})
            rows += made if "nothing" not in there else made[1:]
            save(rows, args)
            print(kind, seed, {r["method"]: round(r["all_px"], 3) for r in made}, flush=True)
    return rows


def save(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Into motion.json."""
    known = {
        "side_px": args.side,
        "frames": args.frames,
        "particles": args.particles,
        "pixel_size_A": PIXEL_A,
        "dose_per_frame_e_A2": 1.0,
        "drift_px": DRIFT_PX,
        "seeds": sorted({r["seed"] for r in rows}),
    }
    write("motion", summary(rows), setting=known, movies=rows)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds of each kind and method, the worst movie, and how often the likelihood was better."""
    made = []
    for kind in KINDS:
        ours = {r["seed"]: r["all_px"] for r in rows if (r["kind"], r["method"]) == (kind, "likelihood")}
        for method in ("nothing", "likelihood", *METHODS):
            some = [r for r in rows if (r["kind"], r["method"]) == (kind, method) and r["seed"] in ours]
            if not some:
                continue
            row: dict[str, Any] = {"kind": kind, "method": method, "movies": len(some)}
            row |= {name: float(np.mean([r[name] for r in some])) for name in ("global_px", "local_px", "all_px")}
            row["worst_all_px"] = max(r["all_px"] for r in some)
            if method != "nothing":
                row["seconds"] = float(np.mean([r["seconds"] for r in some]))
                row["likelihood_better"] = sum(ours[r["seed"]] < r["all_px"] for r in some)
                row["made_less_local"] = sum("no specimen does" in r["flags"] for r in some)
            made.append(row)
    return made


def polynomial_motion(shape: tuple[int, int], frames: int, seed: int, size_px: float = 1.0) -> Motion:
    """Drift that settles and a random field of RELION's 18 coefficients an axis."""
    terms = np.random.default_rng(seed).normal(0, size_px, (2, 6, 3)) / (frames - 1.0) ** np.arange(1, 4)
    terms[:, 0] = 0
    settled = 1 - np.exp(-np.arange(frames) / 6)
    return Motion(shape, settled[:, None] * DRIFT_PX, "polynomial", polynomial=terms.reshape(2, 18))


def domed_motion(shape: tuple[int, int], frames: int, seed: int) -> Motion:
    """Drift, dome and shear that settle, of each seed: the dome's place, size and sign, the shear's direction."""
    rng = np.random.default_rng([seed, 2])
    settled = 1 - np.exp(-np.arange(frames) / rng.uniform(4, 9))
    y, x = np.mgrid[:9, :9] / 8.0
    cy, cx = rng.uniform(0.25, 0.75, 2)
    bump = np.stack([x - cx, y - cy], -1) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(0.08, 0.2))[..., None]
    bump *= rng.choice([-1, 1]) * rng.uniform(0.8, 1.6) / np.abs(bump).max()
    turn, across, along = rng.uniform(0, 2 * np.pi, 3)
    slide = np.tanh(((x - 0.5) * np.cos(across) + (y - 0.5) * np.sin(across)) / 0.15)
    local = bump + rng.uniform(0.4, 0.8) * slide[..., None] * (np.cos(along), np.sin(along))
    drift = rng.uniform(5, 10) * np.array([np.cos(turn), np.sin(turn)])
    lattice = settled[:, None, None, None] * local
    return Motion(shape, settled[:, None] * drift, "spline", lattice_px=lattice)


def write_grain_movie(
    path: Path, shape: tuple[int, int], frames: int, seed: int, field: Motion | None = None
) -> Motion:
    """Counts of a picture of grains that moves, 1 e per pixel and frame, in a TIFF file; its motion.

    Without a field it drifts and domes.

    Particles are dear to simulate at the size of a detector; time and memory do not depend on what the picture shows.
    """
    rng = np.random.default_rng(seed)
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    picture = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * np.exp(-(ky**2 + kx**2) / 0.01), shape)
    picture = (picture / picture.std()).astype(np.float32)
    settled = 1 - np.exp(-np.arange(frames) / 6)
    y, x = np.mgrid[:9, :9] / 8.0 - 0.5
    bump = np.stack([x, y], -1) * np.exp(-(x**2 + y**2) / 0.12)[..., None]
    lattice = settled[:, None, None, None] * bump * (1.2 / np.abs(bump).max())
    field = field or Motion(shape, settled[:, None] * DRIFT_PX, "spline", lattice_px=lattice)
    nodes = -field.on_lattice(61, 61)
    with tifffile.TiffWriter(path) as tiff:
        for f in range(frames):
            moved = ops.warp(picture[None], nodes[f : f + 1].astype(np.float32), threads=2)[0]
            counts = rng.poisson(np.clip(1 + 0.12 * moved, 0.05, None)).astype(np.uint8)
            tiff.write(counts, compression="lzw", photometric="minisblack", contiguous=False)
    return field


def weak_movies(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per movie; with ``--add`` to those that are there, and the file is written after every movie."""
    model, shape = vg.simulate.phantom(96, PIXEL_A, 120.0, seed=5), (args.side, args.side)
    rows: list[dict[str, Any]] = read_json(RESULTS / "motion_weak.json")["movies"] if args.add else []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        kind = [*KINDS][seed % len(KINDS)]
        for n, frames, dose in WEAK:
            movie, truth = vg.simulate.movie(
                model,
                shape=shape,
                pixel_size_A=PIXEL_A,
                n=n,
                frames=frames,
                dose_per_frame_e_A2=dose,
                drift_px=DRIFT_PX,
                gain_sd=0.03,
                hot_pixels=20,
                seed=seed,
                threads=1,
                **KINDS[kind],
            )
            done = vg.correct_motion(movie, threads=1, listener=None)
            stated = done.shift_errors_px
            rows.append(
                {
                    "seed": seed,
                    "kind": kind,
                    "particles": n,
                    "frames": frames,
                    "agreement_sigma": done.agreement_sigma,
                    "stated_px": None if stated is None else float(np.sqrt((stated**2).mean())),
                    "off_px": errors(done.motion, truth.field, shape)["global_px"],
                    "nothing_px": errors(None, truth.field, shape)["global_px"],
                    "flags": "; ".join(done.flags),
                }
            )
            print(rows[-1], flush=True)
            write("motion_weak", weak_summary(rows), quiet=True, side_px=args.side, movies=rows)
    return rows


def weak_summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Root mean squares of what is off and what is stated, by what the job says of a movie."""
    said = {"no common picture": "left as it lies", "little to follow": "corrected, flagged", "": "corrected"}
    kinds: dict[str, list[dict[str, Any]]] = {word: [] for word in said.values()}
    for row in rows:
        kinds[next(word for flag, word in said.items() if flag in row["flags"])].append(row)

    def rms(of: list[dict[str, Any]], name: str) -> float | None:
        values = [row[name] for row in of if row[name] is not None]
        return float(np.sqrt(np.mean(np.square(values)))) if values else None

    names = ("stated_px", "off_px", "nothing_px")
    for row in rows:
        row["off_over_stated"] = None if row["stated_px"] is None else row["off_px"] / row["stated_px"]
    return [
        {
            "job": word,
            "movies": len(of),
            **{name: rms(of, name) for name in (*names, "off_over_stated")},
            "worst_off_over_stated": max((r["off_over_stated"] for r in of if r["off_over_stated"]), default=None),
        }
        for word, of in kinds.items()
        if of
    ]


def full_movie(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The whole command on one movie by several methods, in turn; errors of the motion in its STAR file besides."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "full.tif"
        truth = write_grain_movie(path, FULL, args.full_frames, args.first_seed)
        for method in args.methods:
            given = [
                "motion",
                str(path),
                "--pixel-size",
                "1.0",
                "--dose-per-frame",
                "1.0",
                "--voltage",
                "300",
                "--threads",
                "2",
            ]
            seconds, peak, told = command([*given, "--method", method, "--out", f"{name}/{method}", "--json"])
            row = {"method": method, "model": json.loads(told)["movies"][0]["model"]}
            found = vg.io.read_motion_star(Path(name) / method / "micrographs" / "full.star")
            rows.append({**row, "seconds": seconds, "peak_GB": peak, **errors(found, truth, FULL)})
            print(rows[-1], flush=True)
    quickest = min((r for r in rows if r["method"] != "likelihood"), key=lambda r: r["seconds"])
    for row in rows:
        row["times_quickest_classical"] = row["seconds"] / quickest["seconds"]
        row["memory_times_quickest_classical"] = row["peak_GB"] / quickest["peak_GB"]
    return rows


def write_rolled_movie(path: Path, shape: tuple[int, int], frames: int, seed: int) -> None:
    """Counts of grains that drift by whole pixels, 1 e per four pixels and frame: two frames of counts, in turn."""
    rng = np.random.default_rng(seed)
    grains = np.repeat(np.repeat(rng.random((shape[0] // 8, shape[1] // 8), np.float32) < 0.3, 8, 0), 8, 1)
    chance = np.where(grains, np.float32(0.3), np.float32(0.2))
    recorded = [(rng.random(shape, np.float32) < chance).astype(np.uint8) for _ in range(2)]
    with tifffile.TiffWriter(path) as tiff:
        for f in range(frames):
            moved = np.roll(recorded[f % 2], (2 * f, -f), (0, 1))
            tiff.write(moved, photometric="minisblack", contiguous=False)


def super_movie(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A super-resolution movie, binned by 2: seconds, processor time, peak memory, and where the last frame went."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "super.tif"
        write_rolled_movie(path, SUPER, args.full_frames, args.first_seed)
        given = ["--pixel-size", "0.5", "--dose-per-frame", "1.0", "--voltage", "300", "--bin", "2", "--threads", "2"]
        before = os.times()
        seconds, peak, told = command(["motion", str(path), *given, "--out", f"{name}/out", "--json"])
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        found = vg.io.read_motion_star(Path(name) / "out" / "micrographs" / "super.star")
        moved = found.global_px[-1] - found.global_px[0]
    row = {"frames": args.full_frames, "seconds": seconds, "processor_s": spent, "peak_GB": peak}
    print(row | {"last_frame_px": moved.tolist()}, flush=True)
    return [
        row
        | {"last_x_px": float(moved[0]), "last_y_px": float(moved[1]), "model": json.loads(told)["movies"][0]["model"]}
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--particles", type=int, default=30)
    parser.add_argument("--full", action="store_true", help="time and memory of one full-size movie instead")
    parser.add_argument(
        "--super", action="store_true", help="... of a super-resolution movie, 8184 x 11520, binned by 2"
    )
    parser.add_argument("--weak", action="store_true", help="movies with next to nothing to follow instead")
    parser.add_argument("--full-frames", type=int, default=40)
    parser.add_argument("--methods", nargs="+", default=["likelihood", *METHODS], help="to run")
    parser.add_argument("--add", action="store_true", help="to the movies that bench/results/motion.json holds")
    parser.add_argument("--anew", nargs="*", default=[], help="methods whose rows of that file are dropped first")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new small movie after so long")
    args = parser.parse_args()
    if args.weak:
        weak_movies(args)
        return
    if args.super:
        write("motion_super", super_movie(args), shape=list(SUPER), threads=2, file="TIFF, not compressed")
        return
    if args.full:
        write("motion_full", full_movie(args), shape=list(FULL), frames=args.full_frames, threads=2, file="TIFF, LZW")
        return
    save(small_movies(args), args)


if __name__ == "__main__":
    main()
