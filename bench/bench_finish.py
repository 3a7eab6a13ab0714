"""From movies to a polished map by one command: ``verglas process movies --to map --finish``.

    python bench/bench_finish.py --folder FOLDER [--minutes 4] [--movies 8] [--seed 0] [--prior 0.2 450 0.5]

Movies of 760 x 760 pixels of 3 A, eight frames of 5 e/A2, with 60 D2 particles of 120 A each, that drift; every
particle walks besides by 0.3 px a frame, those near each other together. The command is stopped after ``--minutes``
and goes on where it was when this is called again with the same folder; the file of results is written once it has
ended. Of each stage: its verdict, processor time, and where it has a map, the resolution; the FSC of each map with the
planted density, after alignment, is 0.5 at ``truth_A``. ``--prior`` gives polishing its velocity, correlation length
and acceleration, which are fitted otherwise (a minute of the processor).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import tifffile
from child import VERGLAS, watch

import verglas as vg
from verglas.io import read_json
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps

from common import write

PIXEL_A, DIAMETER_A, DOSE = 3.0, 120.0, 5.0
GIVEN = f"--dose-per-frame {DOSE:g} --pixel-size {PIXEL_A:g} --voltage 300 --cs 2.7 --diameter {DIAMETER_A:g}"
QUICK = {"class2d.iterations": 8, "abinitio.starts": 2, "abinitio.iterations": 15, "refine.iterations": 5}


def particle() -> vg.simulate.Model:
    """What is planted."""
    return vg.simulate.phantom(32, 6.0, DIAMETER_A, "D2", 3)


def write_movies(folder: Path, count: int, seed: int) -> None:
    """Those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / f"m{i}.tif"
        if path.is_file():
            continue
        defocus_A = 12000.0 + 1000 * i
        movie, _ = vg.simulate.movie(
            particle(),
            shape=(760, 760),
            pixel_size_A=PIXEL_A,
            n=60,
            frames=8,
            seed=1000 * seed + i,
            dose_per_frame_e_A2=DOSE,
            drift_px=(4.0, -3.0),
            walk_px=0.3,
            walk_correlation_px=150.0,
            defocus_u_A=defocus_A,
            defocus_v_A=defocus_A,
            b_factor_A2=40.0,
            threads=2,
        )
        tifffile.imwrite(path, movie.source.data, photometric="minisblack")


def truth_A(path: Path) -> float:
    """Where a map's FSC with the planted density falls below 0.5, in the better of both hands."""
    volume = vg.read_map(path)
    truth = vg.simulate.density(particle(), volume.box, volume.pixel_size_A, b_factor_A2=40.0)
    fits = [
        align_maps(truth, replace(volume, data=data), max_radius=16) for data in (volume.data, flip_hand(volume.data))
    ]
    best = max(fits, key=lambda fit: fit.correlation)
    return float(vg.fsc(best.map, truth).resolution_A(0.5))


def row_of(folder: Path) -> dict[str, Any]:
    """One stage of the project."""
    stage, verdict = (read_json(folder / f"{name}.json") for name in ("stage", "verdict"))
    row = {"stage": folder.name, "verdict": verdict["state"], "codes": [f["code"] for f in verdict["findings"]]}
    row["processor_s"] = stage.get("processor_seconds")
    if "resolution_A" in verdict["numbers"]:
        row["resolution_A"] = verdict["numbers"]["resolution_A"]
    if "tracks" in verdict["numbers"]:
        row |= {name: verdict["numbers"]["tracks"][name] for name in ("gain_nats", "gain_error_nats")}
    if (folder / "map.mrc").is_file() and folder.name.startswith("refine"):
        row["truth_A"] = truth_A(folder / "map.mrc")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where movies and project are kept")
    parser.add_argument("--minutes", type=float, default=4.0, help="the command is stopped after so long")
    parser.add_argument("--movies", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", type=float, nargs=3, help="of polishing: A per e/A2, A, A per e/A2")
    args = parser.parse_args()
    write_movies(args.folder / "movies", args.movies, args.seed)
    names = ("velocity_A", "correlation_length_A", "acceleration_A")
    settings = QUICK | {f"polish.{name}": value for name, value in zip(names, args.prior or (), strict=False)}
    how = "--symmetry D2 --classes 4 --to map --finish --finish-rounds 1 --threads 2 --out proj --json"
    given = [*VERGLAS, "process", "movies", *GIVEN.split(), *how.split()]
    given += [word for name, value in settings.items() for word in ("--set", f"{name}={value:g}")]
    log = args.folder / "process.log"
    seen = watch(given, args.folder, limit_s=60 * args.minutes, log=log)
    if seen.stopped:
        raise SystemExit(f"stopped after {args.minutes:g} minutes: call it again to go on; {log} says where it was")
    told = log.read_text()
    stages = json.loads(told[told.index("\n{\n") :])["stages"]
    rows = [row_of(args.folder / "proj" / stage["folder"]) for stage in stages]
    write("finish", rows, seed=args.seed, movies=args.movies, command=" ".join(given[len(VERGLAS) :]))


if __name__ == "__main__":
    main()
