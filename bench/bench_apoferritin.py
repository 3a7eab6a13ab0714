"""The real main job: apoferritin micrographs to a map, each step as the command that a user types.

    python bench/bench_apoferritin.py --data DATA [--ctf-star ctf.star] [--options "--shift-range 15"]

DATA holds apoferritin/ (14 micrographs of EMPIAR-10146, picks.star, ctf_quickfit.tsv) and models/7a4m.cif.gz. Particles
are extracted at the picks (box 128); the reference is the density of 7a4m's assembly (B 60) low-passed to 25 A;
refinement under O in 140 A. Half maps at FSC 0.143 without mask, in the mask, corrected; FSC of the map with the
model's density, both in the mask, at 9.6 and 6.9 A, and with the mirrored model, which would agree if the hand were
wrong. ``--ctf-star`` takes other CTFs in place of the quick fit, beside it in the same run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from child import command

import verglas as vg
from verglas.filters import apply, low_pass

from common import write

_AT_A = (9.6, 6.9)
_RELION = {
    "what": "RELION 5, accelerated CPU path, 3 ranks, as reported with the data",
    "seconds": 917.0,
    "iterations": 17,
    "unmasked_A": 7.1,
    "masked_A": 6.9,
    "model_9.6": 0.64,
    "model_6.9": 0.41,
}


def extract(args: argparse.Namespace, out: Path, ctf: Path, options: tuple[str, ...] = ()) -> float:
    """Seconds."""
    folder = args.data / "apoferritin"
    micrographs = [str(path) for path in sorted(folder.glob("*.tif"))][: args.micrographs]
    seconds, _, _ = command(
        [
            "extract",
            *micrographs,
            "--picks",
            str(folder / "picks.star"),
            "--box",
            str(args.box),
            "--out",
            str(out),
            "--pixel-size",
            "1.5",
            "--diameter",
            "140",
            "--ctf",
            str(ctf),
            "--voltage",
            "300",
            "--cs",
            "0.01",
            "--amplitude-contrast",
            "0.07",
            "--json",
            *options,
        ]
    )
    return seconds


def with_model(volume: vg.Map, model: vg.Map, mask: vg.Map) -> dict[str, float]:
    """FSC of map and model, both in the mask, and the same with the model mirrored."""
    made = {}
    # Mirroring z about voxel N // 2: the plane 0, which has no partner, stays.
    mirrored = model.with_data(np.ascontiguousarray(np.roll(model.data[::-1], 1, axis=0)))
    for name, other in (("model", model), ("mirrored", mirrored)):
        curve = vg.fsc(volume, other, mask.data)
        for resolution_A in _AT_A:
            made[f"{name}_{resolution_A:g}"] = float(np.interp(1 / resolution_A, curve.frequency_per_A, curve.curve))
        made[f"{name}_0.5_A"] = curve.resolution_A(0.5)
    return made


def refined(name: str, ctf: Path, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    out = folder / name
    seconds_extract = extract(args, out, ctf)
    particles = vg.read_particles(out / "particles.star")
    density = vg.simulate.density(
        vg.simulate.read_model(args.data / "models" / "7a4m.cif.gz", assembly="1"),
        args.box,
        particles.pixel_size_A,
        b_factor_A2=60.0,
    )
    vg.write_map(out / "init.mrc", apply(density, low_pass(25.0)))
    seconds, peak_GB, told = command(
        [
            "refine",
            str(out / "particles.star"),
            "--reference",
            str(out / "init.mrc"),
            "--symmetry",
            "O",
            "--diameter",
            "140",
            "--initial-resolution",
            "25",
            "--out",
            str(out / "run"),
            "--json",
            *shlex.split(args.options),
        ]
    )
    found = json.loads(told)
    record = json.loads((out / "run" / "postprocess.json").read_text())
    curves = np.genfromtxt(out / "run" / "fsc.csv", delimiter=",", names=True)
    mask = vg.read_map(out / "run" / "mask.mrc")
    unmasked = vg.fsc(*(vg.read_map(out / "run" / f"half{i}.mrc") for i in (1, 2)))
    row = {
        "what": name,
        "particles": len(particles),
        "excluded": found["excluded"],
        "seconds_extract": seconds_extract,
        "seconds": seconds,
        "iterations": found["iterations"],
        "peak_GB": peak_GB,
        "randomised_from_A": record.get("randomised_from_A"),
        "b_factor_A2": found["b_factor_A2"],
        "regularisation": found["regularisation"]["prior"],
        "gain_nats": found["regularisation"]["gain_nats"],
        "gain_error_nats": found["regularisation"]["gain_error_nats"],
    }
    for curve in ("unmasked", "masked", "corrected"):
        one = replace(unmasked, curve=curves[curve])
        row[f"{curve}_A"] = one.resolution_A()
    row |= with_model(vg.read_map(out / "run" / "map.mrc"), density, mask)
    row["seconds_on_target"] = seconds / 90
    row["resolution_on_target"] = row["corrected_A"] / 6.6
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--micrographs", type=int, help="only so many")
    parser.add_argument("--ctf-star", type=Path)
    parser.add_argument("--options", default="", help="more for verglas refine, in one string")
    parser.add_argument("--name", default="apoferritin", help="of the file in bench/results")
    args = parser.parse_args()
    tables = {"quick fit": args.data / "apoferritin" / "ctf_quickfit.tsv"}
    if args.ctf_star is not None:
        tables["given CTFs"] = args.ctf_star
    with tempfile.TemporaryDirectory() as name:
        rows = [refined(what, ctf, args, Path(name)) for what, ctf in tables.items()]
    for row in rows if args.micrographs is None else ():  # RELION's figures, from another run, are of the whole set
        row["reported_relion_seconds_on_ours"] = _RELION["seconds"] / row["seconds"]
    write(args.name, [_RELION, *rows], options=args.options)


if __name__ == "__main__":
    main()
