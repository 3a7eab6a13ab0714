"""Sieving of real particles: apoferritin refined, sieved, refined again, judged by an atomic model.

    python bench/bench_sieve_apoferritin.py --data DATA --work FOLDER

DATA as for bench_apoferritin.py; FOLDER keeps the steps, so that a call that was stopped goes on. Boxes of 128 px are
scaled to 72 (2.67 A). Refinement under O from the model low-passed to 25 A; `verglas sieve` of its folder; refinement
of what it keeps, and of as many at random, each in the same way. FSC of maps with the model's density at 9.6 and 6.9 A,
in one mask.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from bench_apoferritin import extract, with_model
from child import command

import verglas as vg
from verglas.filters import apply, low_pass

from common import write

_SMALL = 72


def run_refine(star: Path, reference: Path, out: Path) -> float:
    """Refine unless it was done; seconds."""
    if (out / "postprocess.json").is_file():
        return float("nan")
    options = ["--symmetry", "O", "--diameter", "140", "--initial-resolution", "25"]
    if (out / "run.json").is_file():
        options.append("--resume")
    return command(["refine", str(star), "--reference", str(reference), *options, "--out", str(out)])[0]


def judged(out: Path, density: vg.Map, mask: vg.Map) -> dict[str, Any]:
    """Claimed resolution, B, agreement with the model."""
    record = json.loads((out / "postprocess.json").read_text())
    row = {
        "particles": len(vg.read_particles(out / "particles.star")),
        "corrected_A": record["resolutions_A"]["0.143"]["corrected"],
        "b_factor_A2": record.get("fitted_b_factor_A2", record.get("b_factor_A2")),
    }
    return row | with_model(vg.read_map(out / "map.mrc"), density, mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--micrographs", type=int, help="only so many")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    star = args.work / "extracted" / "particles.star"
    if not star.is_file():
        extract(args, star.parent, args.data / "apoferritin" / "ctf_quickfit.tsv", ("--new-box", str(_SMALL)))
    particles = vg.read_particles(star)
    model = vg.simulate.read_model(args.data / "models" / "7a4m.cif.gz", assembly="1")
    density = vg.simulate.density(model, particles.box, particles.pixel_size_A, b_factor_A2=60.0)
    reference = args.work / "init.mrc"
    vg.write_map(reference, apply(density, low_pass(25.0)))
    run_refine(star, reference, args.work / "all")
    sieved = args.work / "sieved"
    if not (sieved / "sieve.json").is_file():
        command(["sieve", str(args.work / "all"), "--diameter", "140", "--out", str(sieved)])
    told = json.loads((sieved / "sieve.json").read_text())
    mask = vg.read_map(args.work / "all" / "mask.mrc")
    rows = [{"what": "all", **judged(args.work / "all", density, mask)}]
    if told["round"]:
        everything = vg.read_particles(args.work / "all" / "particles.star")
        chance = np.sort(np.random.default_rng(0).permutation(len(everything))[: told["kept"]])
        vg.write_particles(args.work / "random.star", everything[chance])
        for name, path in (("kept", sieved / "kept.star"), ("as many at random", args.work / "random.star")):
            out = args.work / name.split()[-1]
            run_refine(path, reference, out)
            rows.append({"what": name, **judged(out, density, mask)})
    write("sieve_apoferritin", rows, sentence=told["sentence"], rounds=told["rounds"], reasons=told["reasons"])


if __name__ == "__main__":
    main()
