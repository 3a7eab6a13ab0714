"""The whole way on real data: 14 apoferritin micrographs to a map with one command, stage by stage.

    python bench/bench_process.py --data DATA --out FOLDER [--seeds 3]

Two projects: *ab initio* (nothing given but pixel size, voltage, Cs, amplitude contrast, diameter and symmetry O) is
made by ``verglas process ... --to map`` in FOLDER/abinitio, which goes on where an earlier run was stopped; *from 7a4m*
is a copy of it whose particles are refined from the model's density low-passed to 25 A. Times are those that the stages
wrote (stage.json). The FSC of each map with the model's density tells the hand and what the resolution is worth. Writes
bench/results/process.json and docs/figures/process_*.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from child import command

import verglas as vg
from verglas.filters import apply, low_pass
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps
from verglas.pipeline.stages import STAGES

from common import ROOT, write

_MICROSCOPE = ["--pixel-size", "1.5", "--voltage", "300", "--cs", "0.01", "--amplitude-contrast", "0.07"]
_AT_A = (9.6, 6.9)


def model_density(data: Path, box: int) -> vg.Map:
    model = vg.simulate.read_model(data / "models" / "7a4m.cif.gz", assembly="1")
    return vg.simulate.density(model, box, 1.5, b_factor_A2=60.0)


def with_model(project: Path, model: vg.Map) -> dict[str, Any]:
    """FSC of map and model in the mask; a map of the other hand is mirrored first, and that is said."""
    volume, mask = (vg.read_map(project / "refine" / f"{name}.mrc") for name in ("map", "mask"))
    hands = {}
    for hand, data in (("as the model", volume.data), ("mirrored", flip_hand(volume.data))):
        aligned = align_maps(model, replace(volume, data=data), max_radius=16)
        hands[hand] = vg.fsc(aligned.map, model, mask.data)
    best = max(hands, key=lambda hand: float(hands[hand].curve[1:25].sum()))
    curve = hands[best]
    found: dict[str, Any] = {"hand": best, "model_0.5_A": curve.resolution_A(0.5)}
    for at in _AT_A:
        found[f"model_{at:g}"] = float(np.interp(1 / at, curve.frequency_per_A, curve.curve))
    return found


def rows_of(project: Path, what: str) -> list[dict[str, Any]]:
    """One row per stage, and what the last two reached."""
    rows = []
    for folder in STAGES:
        path = project / folder / "stage.json"
        if path.is_file():
            record, verdict = json.loads(path.read_text()), json.loads((path.parent / "verdict.json").read_text())
            rows.append(
                {
                    "kind": "stage",
                    "what": what,
                    "stage": record["stage"],
                    "seconds": record["seconds"],
                    "processor_seconds": record.get("processor_seconds"),
                    "verdict": verdict["state"],
                    "said": "; ".join(verdict["reasons"]),
                }
            )
    return rows


def result_of(project: Path, what: str, model: vg.Map) -> dict[str, Any]:
    refined = json.loads((project / "refine" / "verdict.json").read_text())["numbers"]
    classes = json.loads((project / "class2d" / "verdict.json").read_text())["numbers"]
    at = refined["resolutions_A"]["0.143"]
    return {
        "kind": "result",
        "what": what,
        "particles": classes["of_particles"],
        "selected": classes["particles"],
        "unmasked_A": at["unmasked"],
        "masked_A": at["masked"],
        "corrected_A": at["corrected"],
        "b_factor_A2": refined["b_factor_A2"],
        "iterations": refined["iterations"],
        "peak_GB": refined["peak_memory_GB"],
        **with_model(project, model),
    }


def classes_of(project: Path) -> dict[str, Any]:
    """How evenly particles fill the 2D classes; the last row of the table is the empty class of noise."""
    table = vg.io.read_star(project / "class2d" / "classes.star")["classes"]
    size = table["verglasParticles"].to_numpy(float)[:-1]
    return {
        "kind": "classes",
        "what": "2D classes",
        "classes": len(size),
        "empty": int((size < 1).sum()),
        "largest_over_mean": float(size.max() / size.mean()),
    }


def picks_against_given(data: Path, project: Path) -> dict[str, Any]:
    from verglas.picking import PickMerit, compare_picks, inside

    given = vg.io.read_picks(data / "apoferritin" / "picks.star")
    total = PickMerit(0, 0, 0)
    for name, picks in vg.io.read_picks(project / "pick" / "picks.star").items():
        true, mine = given[Path(name).name].xy_px, picks.xy_px
        total = total + compare_picks(*(xy[inside(xy, (1200, 1240), 64)] for xy in (mine, true)), 30)
    return {
        "kind": "picks",
        "what": "against those given",
        "f_score": total.f_score,
        "precision": total.precision,
        "recall": total.recall,
    }


def splits(out: Path, project: Path, what: str, start: Path, seeds: int) -> list[dict[str, Any]]:
    """The same refinement with the particles split into other halves: how much of a resolution is chance."""
    stage = json.loads((project / "refine" / "stage.json").read_text())["settings"]
    rows = []
    for seed in range(1, seeds):
        folder = out / f"{what.replace(' ', '_')}_{seed}"
        command(
            [
                "refine",
                str(project / "class2d" / "selected.star"),
                "--reference",
                str(start),
                "--symmetry",
                "O",
                "--diameter",
                f"{stage['diameter_A']:g}",
                "--initial-resolution",
                f"{stage['initial_resolution_A']:g}",
                "--seed",
                f"{seed}",
                "--out",
                str(folder),
            ]
        )
        at = json.loads((folder / "postprocess.json").read_text())["resolutions_A"]["0.143"]
        rows.append(
            {
                "kind": "split",
                "what": what,
                "seed": seed,
                "unmasked_A": at["unmasked"],
                "masked_A": at["masked"],
                "corrected_A": at["corrected"],
            }
        )
    return rows


def figures(project: Path) -> None:
    """The pictures of the tutorial, from the project's own."""
    target = ROOT / "docs" / "figures"
    picture = sorted((project / "pick" / "png").glob("*.png"))[0]
    for source, name in (
        (picture, "micrograph"),
        (project / "class2d/classes.png", "classes"),
        (project / "abinitio/map.png", "abinitio"),
        (project / "refine/map.png", "map"),
        (project / "refine/fsc.png", "fsc"),
    ):
        shutil.copyfile(source, target / f"process_{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1, help="refine so many splits into halves from each start")
    parser.add_argument("--collect", action="store_true", help="run nothing: write down what the projects hold")
    args = parser.parse_args()
    first, second = args.out / "abinitio", args.out / "reference"
    if not args.collect:
        make(args, first, second)
    model = model_density(args.data, vg.read_particles(first / "particles.star").box)
    rows = rows_of(first, "ab initio")
    rows += rows_of(second, "from 7a4m")[5:] if (second / "postprocess" / "verdict.json").is_file() else []
    for project, what in ((first, "ab initio"), (second, "from 7a4m")):
        if (project / "postprocess" / "verdict.json").is_file():
            rows.append(result_of(project, what, model))
    rows += splits(args.out, first, "ab initio", first / "abinitio" / "map.mrc", args.seeds)
    rows += splits(args.out, second, "from 7a4m", args.out / "start.mrc", args.seeds)
    rows += [classes_of(first), picks_against_given(args.data, first)]
    figures(first)
    write("process", rows)


def make(args: argparse.Namespace, first: Path, second: Path) -> None:
    """Both projects, or what is left of them to do."""
    args.out.mkdir(parents=True, exist_ok=True)
    command(
        [
            "process",
            str(args.data / "apoferritin" / "*.tif"),
            *_MICROSCOPE,
            "--diameter",
            "130",
            "--symmetry",
            "O",
            "--to",
            "map",
            "--no-finish",
            "--out",
            str(first),
        ]
    )
    box = vg.read_particles(first / "particles.star").box
    model = model_density(args.data, box)
    if not second.exists():
        shutil.copytree(first, second, ignore=shutil.ignore_patterns("06_*", "07_*", "08_*", "*.before"))
    vg.write_map(args.out / "start.mrc", apply(model, low_pass(25.0)))
    command(
        [
            "process",
            "--out",
            str(second),
            "--reference",
            str(args.out / "start.mrc"),
            "--set",
            "refine.initial_resolution_A=25",
        ]
    )


if __name__ == "__main__":
    main()
