"""From movies to a polished map by one command, ``verglas process movies --to map``: what finishing is worth.

    python bench/bench_finish.py --folder FOLDER [--seeds 10] [--minutes 60]

A session for each seed, from 20: eight movies of 760 x 760 pixels of 3 A, eight frames of 5 e/A2, with 60 particles of
120 A each, that drift; every particle walks besides by 0.3 px a frame, those near each other together. Another phantom
for every seed, of D2, C3 and no symmetry in turn, and another field. Of each session: verdicts that are not "go on",
processor time up to the first map and of what finishes it, resolution as stated, and where the FSC with the planted
density, after alignment in the better hand and in the refinement's mask, is 0.5: of the first map, of those that are
kept, and of the last. A session that is stopped goes on where it was when this is called again with the same folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tifffile
from child import VERGLAS, watch

import verglas as vg
from verglas.io import read_json
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps

from common import collect

PIXEL_A, DIAMETER_A, DOSE, FIRST_SEED, MOVIES = 3.0, 120.0, 5.0, 20, 8
GROUPS = ("D2", "C3", "C1")
GIVEN = f"--dose-per-frame {DOSE:g} --pixel-size {PIXEL_A:g} --voltage 300 --cs 2.7 --diameter {DIAMETER_A:g}"
QUICK = {"class2d.iterations": 8, "abinitio.starts": 2, "abinitio.iterations": 15, "refine.iterations": 5}


def particle(seed: int) -> vg.simulate.Model:
    """What is planted."""
    return vg.simulate.phantom(32, 6.0, DIAMETER_A, GROUPS[seed % len(GROUPS)], seed)


def write_movies(folder: Path, seed: int) -> None:
    """Those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(MOVIES):
        path = folder / f"m{i}.tif"
        if path.is_file():
            continue
        defocus_A = 12000.0 + 1000 * i
        movie, _ = vg.simulate.movie(
            particle(seed),
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
            threads=1,
        )
        tifffile.imwrite(path, movie.source.data, photometric="minisblack")


def truth_A(path: Path, seed: int) -> float:
    """Where a map's FSC with the planted density, in the refinement's mask, falls below 0.5, in the better hand."""
    volume = vg.read_map(path)
    truth = vg.simulate.density(particle(seed), volume.box, volume.pixel_size_A, b_factor_A2=40.0)
    fits = [
        align_maps(truth, replace(volume, data=data), max_radius=16) for data in (volume.data, flip_hand(volume.data))
    ]
    best = max(fits, key=lambda fit: fit.correlation)
    return float(vg.fsc(best.map, truth, vg.read_map(path.with_name("mask.mrc")).data).resolution_A(0.5))


def session(folder: Path, seed: int) -> dict[str, Any]:
    """The command on one session, to its end."""
    write_movies(folder / "movies", seed)
    how = f"--symmetry {GROUPS[seed % len(GROUPS)]} --classes 4 --to map --threads 1 --out proj --json"
    given = [*VERGLAS, "process", "movies", *GIVEN.split(), *how.split()]
    given += [word for name, value in QUICK.items() for word in ("--set", f"{name}={value:g}")]
    log = folder / "process.log"
    seen = watch(given, folder, limit_s=3600, log=log, answers=(0, 1))
    told = log.read_text()
    if seen.stopped or "\n{\n" not in told:
        raise SystemExit(f"seed {seed}: ended without a result; {log} says why")
    row: dict[str, Any] = {"group": GROUPS[seed % len(GROUPS)], "first_s": 0.0, "finishing_s": 0.0}
    odd, kept, finishing = [], None, False
    for stage in json.loads(told[told.index("\n{\n") :])["stages"]:
        project = folder / "proj" / stage["folder"]
        verdict, name = read_json(project / "verdict.json"), project.name
        finishing |= name.startswith("ctf_refine")
        row["finishing_s" if finishing else "first_s"] += read_json(project / "stage.json")["processor_seconds"]
        if verdict["state"] != "go on":
            odd.append(f"{name}: {', '.join(f['code'] for f in verdict['findings'])}")
        if name == "refine":
            kept = project
            row |= {"first_truth_A": truth_A(project / "map.mrc", seed)}
            row["first_stated_A"] = verdict["numbers"]["resolution_A"]
        elif name.startswith("refine_"):
            row[name] = verdict["findings"][0]["code"]
            if row[name] == "map_improved":
                kept = project
                row[f"{name}_truth_A"] = truth_A(project / "map.mrc", seed)
    if kept is None:
        return row | {"odd": "; ".join(odd)}
    last = read_json(kept / "summary.json")["resolution_A"]
    return row | {"last_truth_A": truth_A(kept / "map.mrc", seed), "last_stated_A": last, "odd": "; ".join(odd)}


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each session, and what finishing is worth over all that came to a map."""
    rows = [{"seed": int(key.split()[1]), **row} for key, row in done.items()]
    ratios = [row["last_truth_A"] / row["first_truth_A"] for row in rows if "last_truth_A" in row]
    if not ratios:
        return rows
    time = sum(row["finishing_s"] for row in rows) / sum(row["first_s"] for row in rows)
    total = {"sessions": len(ratios), "last_over_first_truth_median": statistics.median(ratios)}
    total |= {"worst": max(ratios), "best": min(ratios), "coarser_by_2_percent": sum(r > 1.02 for r in ratios)}
    return [*rows, total | {"finer_by_2_percent": sum(r < 0.98 for r in ratios), "finishing_over_first_time": time}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where movies and projects are kept")
    parser.add_argument("--minutes", type=float, default=60.0, help="no further session is begun after so long")
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    trials = {f"session {seed}": partial(session, args.folder / f"seed{seed}", seed) for seed in seeds}
    collect("finish", trials, summary, args.minutes)


if __name__ == "__main__":
    main()
