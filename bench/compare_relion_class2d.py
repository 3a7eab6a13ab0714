"""2D classification beside relion_refine (RELION 3.1.3, Debian): same particles, K, threads, finest data, iterations.

    python bench/compare_relion_class2d.py [--n 3000] [--relion-n 100] [--classes 50] [--relion-minutes 4]

verglas is timed as the command that a user types, to convergence: start-up, seeding, reading, averages and page
included. RELION gets the settings that its interface proposes for 2D classes (psi in steps of 12 degrees oversampled
once, offsets of 5 px in steps of 2, tau2_fudge 2) and the same finest data. It is stopped after so many minutes; an
iteration ends when its model file is written. The mean time of those that ended, per particle, times n particles and
the iterations that verglas made is what RELION is taken to need ("extrapolated"): its first iterations are its
quickest, since they use the coarsest data, and few particles keep it there longer. Against it counts what RELION does
once per iteration whatever the number of particles, which is little.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from child import command, watch

import verglas as vg

from common import write

BOX, APIX, PHANTOM_A = 128, 1.5, 130.0


def relion(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run until stopped: seconds of every iteration that ended, and the largest resident memory."""
    (folder / "out").mkdir()
    arguments = (
        f"relion_refine --o out/run --i few.star --K {args.classes} --iter {args.relion_iterations} --tau2_fudge 2 "
        f"--particle_diameter {args.diameter:g} --zero_mask --ctf --flatten_solvent --oversampling 1 --psi_step 12 "
        f"--offset_range 5 --offset_step 2 --norm --scale --pad 2 --strict_highres_exp {args.resolution:g} "
        f"--j {args.threads} --dont_combine_weights_via_disc --random_seed 1"
    )
    seen = watch(arguments.split(), folder, limit_s=60 * args.relion_minutes, log=folder / "relion.log")
    ends = [p.stat().st_mtime for p in sorted((folder / "out").glob("run_it[0-9][0-9][0-9]_model.star"))]
    each = [b - a for a, b in itertools.pairwise(ends)]
    return {"seconds_each": each, "stopped": seen.stopped, "peak_GB": seen.peak_GB}


def ours(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The whole command."""
    seconds, peak, told = command(
        [
            "class2d",
            str(folder / "particles.star"),
            "-K",
            str(args.classes),
            "--diameter",
            f"{args.diameter:g}",
            "--max-resolution",
            f"{args.resolution:g}",
            "--threads",
            str(args.threads),
            "--out",
            str(folder / "classes"),
            "--json",
        ]
    )
    found = json.loads(told)
    return {"seconds": seconds, "iterations": len(found["record"]), "peak_GB": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--relion-n", type=int, default=100, help="RELION gets the first so many particles")
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--diameter", type=float, default=150.0)
    parser.add_argument("--resolution", type=float, default=10.0)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--relion-minutes", type=float, default=4.0)
    parser.add_argument("--relion-iterations", type=int, default=25)
    args = parser.parse_args()
    if shutil.which("relion_refine") is None:
        raise SystemExit("relion_refine is not on PATH (Debian: apt-get install relion)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = vg.simulate.phantom(BOX, APIX, PHANTOM_A, seed=0)
        particles = vg.simulate.particles(model, args.n, BOX, APIX, snr=args.snr, seed=0)
        hidden = particles.with_columns(
            **dict.fromkeys(
                ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnClassNumber")
            )
        )
        vg.write_particles(folder / "particles.star", hidden, stack=folder / "particles.mrcs")
        few = hidden[: args.relion_n]
        vg.write_particles(folder / "few.star", few, stack=folder / "few.mrcs")
        mine = ours(folder, args)
        theirs = relion(folder, args)
    each = theirs["seconds_each"]
    if not each:
        raise SystemExit(f"no iteration of RELION ended in {args.relion_minutes:g} minutes; give it fewer particles")
    per_particle = sum(each) / len(each) / args.relion_n
    whole = per_particle * args.n * mine["iterations"]
    rows = [
        {
            "what": "verglas class2d, whole command",
            "particles": args.n,
            "seconds_per_iteration": mine["seconds"] / mine["iterations"],
            **mine,
        },
        {
            "what": "relion_refine 3.1.3, iterations that ended",
            "particles": args.relion_n,
            "iterations": len(each),
            "seconds": sum(each),
            "seconds_per_iteration": sum(each) / len(each),
            "seconds_last": each[-1],
            "stopped": theirs["stopped"],
            "peak_GB": theirs["peak_GB"],
        },
        {
            "what": "relion / verglas, same particles and iterations",
            "relion_seconds_extrapolated": whole,
            "ratio": whole / mine["seconds"],
        },
    ]
    write(
        "compare_relion_class2d",
        rows,
        box=BOX,
        classes=args.classes,
        snr=args.snr,
        threads=args.threads,
        resolution_A=args.resolution,
        peer="relion_refine 3.1.3 (Debian)",
    )


if __name__ == "__main__":
    main()
