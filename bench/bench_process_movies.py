"""The command of the guide, movies to a map with nothing else given, and the map beside the truth.

    python bench/bench_process_movies.py --folder FOLDER [--seed 8100] [--movies 10] [--minutes 7]

Movies of 1024 x 1024 pixels of 1.2 A, 20 frames of 1 e/A2, with 45 particles of 130 A each and no symmetry, that drift
and dome, with damage, a gain of 3 % and hot pixels, are written as TIFF files beside the gain reference. Then

    verglas process "movies/*.tif" --gain gain.mrc --dose 1.0 --pixel-size 1.2 --voltage 300 --cs 2.7 --diameter 130 \
        --out proj --to map --no-finish

is run as it stands. It is stopped after ``--minutes`` and goes on where it was when this is called again with the same
folder. Of each stage: its verdict and processor time; of picks: which of the planted
particles were found, and which picks are none; of the motion: its mean error over places and frames; of the map: where
its FSC with the planted density is 0.5 within 75 A of the centre, aligned and in the better of both hands.
"""

from __future__ import annotations

import argparse
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import tifffile
from bench_motion import errors
from child import VERGLAS, watch

import verglas as vg
from verglas.io import read_json
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps

from common import write

SHAPE, PIXEL_A, DIAMETER_A, FRAMES = (1024, 1024), 1.2, 130.0, 20
PARTICLES = 45
COMMAND = (
    "process movies/*.tif --gain gain.mrc --dose 1.0 --pixel-size 1.2 --voltage 300 --cs 2.7 --diameter 130 "
    "--out proj --to map --no-finish"
)
NEAR = 0.3  # diameters between a pick and the particle that it found


def particle(seed: int) -> vg.simulate.Model:
    """What is planted."""
    return vg.simulate.phantom(128, PIXEL_A, DIAMETER_A, seed=seed)


def write_movies(folder: Path, count: int, seed: int) -> None:
    """Those that are missing, their truth, and the gain reference."""
    (folder / "movies").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / "movies" / f"m{i:02d}.tif"
        if path.is_file():
            continue
        rng = np.random.default_rng([seed, i])
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(4, 9)
        movie, truth = vg.simulate.movie(
            particle(seed),
            shape=SHAPE,
            pixel_size_A=PIXEL_A,
            n=PARTICLES,
            defocus_u_A=float(rng.uniform(9000, 20000)),
            frames=FRAMES,
            dose_per_frame_e_A2=1.0,
            drift_px=(length * np.cos(angle), length * np.sin(angle)),
            dome_px=float(rng.uniform(0.5, 1.5)),
            dome_centre=tuple(rng.uniform(0.3, 0.7, 2)),
            gain_sd=0.03,
            hot_pixels=15,
            detector_seed=seed,
            seed=1000 * seed + i,
            threads=2,
        )
        if not (folder / "gain.mrc").is_file():
            with mrcfile.new(folder / "gain.mrc") as mrc:
                mrc.set_data(np.asarray(movie.gain, np.float32))
        (folder / f"truth_{i:02d}.pickle").write_bytes(pickle.dumps((truth.field, truth.picks.xy_px)))
        partial = path.with_suffix(".part")
        tifffile.imwrite(partial, movie.source.data, compression="lzw", photometric="minisblack")
        partial.rename(path)


def motion_and_picks(folder: Path, count: int) -> dict[str, Any]:
    """Mean error of the motion, and picks beside the planted particles."""
    off, found, planted, picked = [], 0, 0, 0
    picks = vg.io.read_picks(folder / "proj" / "pick" / "picks.star")
    for i in range(count):
        field, xy = pickle.loads((folder / f"truth_{i:02d}.pickle").read_bytes())
        (written,) = (folder / "proj" / "motion" / "micrographs").glob(f"m{i:02d}-*.star")
        motion = vg.io.read_motion_star(written)
        off.append(errors(motion, field, SHAPE)["all_px"])
        mine = np.concatenate([p.xy_px for name, p in picks.items() if Path(name).stem.startswith(f"m{i:02d}-")])
        near = np.hypot(*(xy[:, None] - mine).transpose(2, 0, 1)) * PIXEL_A < NEAR * DIAMETER_A
        found, planted, picked = found + int(near.any(1).sum()), planted + len(xy), picked + len(mine)
    counts = {"planted": planted, "found": found, "picked": picked}
    return {"motion_px": float(np.mean(off)), "worst_motion_px": max(off), **counts}


def truth_A(path: Path, seed: int) -> float:
    """Where a map's FSC with the planted density falls below 0.5 in a ball that holds the particle."""
    volume = vg.read_map(path)
    truth = vg.simulate.density(particle(seed), volume.box, volume.pixel_size_A, b_factor_A2=40.0)
    hands = [replace(volume, data=data) for data in (volume.data, flip_hand(volume.data))]
    best = max((align_maps(truth, hand, max_radius=24) for hand in hands), key=lambda fit: fit.correlation)
    line = (np.arange(volume.box) - volume.box // 2) * volume.pixel_size_A
    radius_A = np.sqrt(line[:, None, None] ** 2 + line[:, None] ** 2 + line**2)
    ball = np.clip((DIAMETER_A / 2 + 10 - radius_A) / 8, 0, 1).astype(np.float32)
    return float(vg.fsc(best.map, truth, ball).resolution_A(0.5))


def row_of(folder: Path) -> dict[str, Any]:
    """One stage of the project."""
    stage, verdict = (read_json(folder / f"{name}.json") for name in ("stage", "verdict"))
    row = {"stage": folder.name, "verdict": verdict["state"], "codes": [f["code"] for f in verdict["findings"]]}
    row["processor_s"] = stage.get("processor_seconds")
    if "resolution_A" in verdict["numbers"]:
        row["resolution_A"] = verdict["numbers"]["resolution_A"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where movies and project are kept")
    parser.add_argument("--seed", type=int, default=8100)
    parser.add_argument("--movies", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=7.0, help="the command is stopped after so long")
    args = parser.parse_args()
    write_movies(args.folder, args.movies, args.seed)
    log = args.folder / "process.log"
    seen = watch([*VERGLAS, *COMMAND.split(), "--json"], args.folder, limit_s=60 * args.minutes, log=log)
    if seen.stopped:
        raise SystemExit(f"stopped after {args.minutes:g} minutes: call it again to go on; {log} says where it was")
    told = log.read_text()
    stages = json.loads(told[told.index("\n{\n") :])["stages"]
    rows = [row_of(args.folder / "proj" / stage["folder"]) for stage in stages]
    summary = {
        "processor_s": sum(row["processor_s"] for row in rows),
        **motion_and_picks(args.folder, args.movies),
        "particles_in_map": len(vg.read_particles(args.folder / "proj" / "refine" / "particles.star")),
        "stated_A": next(row["resolution_A"] for row in rows if row["stage"] == "refine"),
        "truth_A": truth_A(args.folder / "proj" / "refine" / "map.mrc", args.seed),
    }
    print(summary)
    write("process_movies", rows, seed=args.seed, movies=args.movies, command=f"verglas {COMMAND}", summary=summary)


if __name__ == "__main__":
    main()
