"""Sieving of real particles: apoferritin at poses from an atomic model, sieved, judged by that model beyond 12 A.

    python bench/bench_sieve_apoferritin.py --data DATA --work FOLDER

DATA as for bench_apoferritin.py; FOLDER keeps the steps, so that a call that was stopped goes on. Boxes of 128 px are
scaled to 72 (2.67 A). Poses: `verglas align` under O to the model's density, data and density to 12 A only, so beyond
12 A neither half map knows of the other. `verglas sieve` of them; half maps of all, of those kept, and of as many at
random (five draws), in one mask: FSC 0.143 corrected, B, and FSC with the model at 9.6 and 6.9 A.
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
from verglas.assessment import solvent_mask
from verglas.filters import apply, low_pass

from common import write

_SMALL = 72
_POSES_TO_A = 12.0


def judged(particles: vg.Particles, density: vg.Map, mask: vg.Map) -> dict[str, Any]:
    """Claimed resolution, B, agreement with the model."""
    volume, halves = vg.reconstruct(particles, "O", halves=True, listener=None)
    found = vg.postprocess(*halves, mask=mask, symmetry="O", listener=None)
    row = {"particles": len(particles), "corrected_A": found.resolution_A, "b_factor_A2": found.guinier.b_factor_A2}
    return row | with_model(volume, density, mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--micrographs", type=int, help="only so many")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    star, posed = args.work / "extracted" / "particles.star", args.work / "posed.star"
    if not star.is_file():
        extract(args, star.parent, args.data / "apoferritin" / "ctf_quickfit.tsv", ("--new-box", str(_SMALL)))
    particles = vg.read_particles(star)
    model = vg.simulate.read_model(args.data / "models" / "7a4m.cif.gz", assembly="1")
    density = vg.simulate.density(model, particles.box, particles.pixel_size_A, b_factor_A2=60.0)
    if not posed.is_file():
        reference = apply(density, low_pass(_POSES_TO_A))
        settings: dict[str, Any] = {"step_deg": 3.75, "diameter_A": 140.0}
        vg.write_particles(posed, vg.align(particles, reference, "O", _POSES_TO_A, **settings))
    sieved = args.work / "sieved"
    if not (sieved / "sieve.json").is_file():
        command(["sieve", str(posed), "--symmetry", "O", "--diameter", "140", "--out", str(sieved)])
    told = json.loads((sieved / "sieve.json").read_text())
    mask = solvent_mask(density, diameter_A=140.0)
    everything = vg.read_particles(posed)
    rows = [{"what": "all", **judged(everything, density, mask)}]
    if told["round"]:
        rows.append({"what": "kept", **judged(vg.read_particles(sieved / "kept.star"), density, mask)})
        for seed in range(5):
            chance = np.sort(np.random.default_rng(seed).permutation(len(everything))[: told["kept"]])
            rows.append({"what": f"as many at random, {seed}", **judged(everything[chance], density, mask)})
    notes = {name: told[name] for name in ("sentence", "rounds", "reasons", "verdict")}
    write("sieve_apoferritin", rows, **notes)


if __name__ == "__main__":
    main()
