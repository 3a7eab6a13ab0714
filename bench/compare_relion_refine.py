"""A whole refinement beside relion_refine_mpi --auto_refine (RELION 3.1.3, Debian) on the same stack, in one run.

    python bench/compare_relion_refine.py [--n 3000] [--box 128] [--snr 0.05] [--relion-minutes 6]

RELION runs with 3 ranks (one leads, one per half set) and is stopped after so many minutes of wall time; what it had
finished by then is read from its files: each iteration ends when its model files are written. Its whole refinement
therefore took longer than was waited: "lower_bound" divides the time waited by ours, unless RELION converged. verglas
refines to convergence, as the command a user types. Maps are compared with the truth in the frame that each one's poses
have; RELION's is the mean of the half maps of its last finished iteration. Memory is the largest resident set: of the
process, and for RELION the largest sum over its ranks, sampled twice a second.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from child import watch

import verglas as vg
from verglas.io import read_star

from common import write
from known_truth import Case, against_truth, errors_of, refine, results

_HIDDEN = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


def relion(case: Case, folder: Path, minutes: float) -> dict[str, Any]:
    """Run it for so long: seconds waited, whether it converged, memory, and the time at which each iteration ended."""
    (folder / "out").mkdir()
    arguments = (
        "mpirun -n 3 --allow-run-as-root --oversubscribe relion_refine_mpi --o out/run --i blind.star --ref init.mrc "
        f"--ini_high {case.start_A:g} --auto_refine --split_random_halves --firstiter_cc --ctf --zero_mask "
        f"--flatten_solvent --particle_diameter {case.mask_A:g} --healpix_order 2 "
        "--auto_local_healpix_order 4 --offset_range 5 --offset_step 2 --norm --scale --low_resol_join_halves 40 "
        f"--sym {case.symmetry} --pad 2 --j 1 --dont_combine_weights_via_disc"
    )
    began = time.time()
    seen = watch(arguments.split(), folder, limit_s=60 * minutes, log=folder / "relion.log", ranks=True)
    ends = [p.stat().st_mtime - began for p in sorted((folder / "out").glob("run_it[0-9][0-9][0-9]_half2_model.star"))]
    return {"waited": seen.seconds, "converged": not seen.stopped, "peak_GB": seen.peak_GB, "ends": ends}


def last_iteration(case: Case, folder: Path, number: int, true: vg.Particles) -> dict[str, Any]:
    """Its half maps against the truth, and the resolution that RELION reports."""
    name = f"run_it{number:03d}"
    halves = [vg.read_map(folder / "out" / f"{name}_half{h}_class001.mrc").data for h in (1, 2)]
    mean = vg.Map((0.5 * (halves[0] + halves[1])).astype("f4"), case.pixel_size_A)
    data = vg.read_particles(folder / "out" / f"{name}_data.star", stack=folder / "particles.mrcs")
    mask = vg.read_map(folder / "run" / "mask.mrc")
    model = read_star(folder / "out" / f"{name}_half1_model.star")["model_general"]
    value = model["rlnCurrentResolution"]
    reported = float(value.iloc[0] if hasattr(value, "iloc") else value)
    return {"resolution_A": reported} | against_truth(case, mean, errors_of(case, data, true), mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--pixel-size", type=float, default=1.5)
    parser.add_argument("--diameter", type=float, default=130.0, help="of the phantom, A")
    parser.add_argument("--mask", type=float, default=165.0, help="diameter that both programs are told, A")
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--relion-minutes", type=float, default=6.0)
    args = parser.parse_args()
    if shutil.which("relion_refine_mpi") is None:
        raise SystemExit("relion_refine_mpi is not on PATH (Debian: apt-get install relion)")
    case = Case(args.n, args.box, args.pixel_size, args.diameter, snr=args.snr, mask_A=args.mask)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        true = case.write(folder)
        # RELION starts from the shifts that a file has: the truth must not be in it.
        blind = true.with_columns(**dict.fromkeys(_HIDDEN))
        vg.write_particles(folder / "blind.star", blind)
        ours = refine(case, folder)
        ours.pop("populations")
        ours = {"what": "verglas refine", "finished": True} | ours | results(case, folder, true)
        theirs = relion(case, folder, args.relion_minutes)
        ends = theirs["ends"][1:]  # iteration 0 is the start
        rows = [
            {"what": f"relion 3.1.3, iteration {i}", "seconds": b - a, "seconds_from_start": b}
            for i, (a, b) in enumerate(zip(theirs["ends"], ends, strict=False), 1)
        ]
        made = last_iteration(case, folder, len(ends), true) if ends else {}
    rows.append(
        {
            "what": "relion 3.1.3 --auto_refine, 3 ranks",
            "finished": theirs["converged"],
            "seconds": theirs["waited"],
            "iterations": len(ends),
            "peak_GB": theirs["peak_GB"],
            **made,
        }
    )
    rows.append(ours)
    compared: dict[str, Any] = {
        "what": "relion / verglas",
        "waited_on_whole": theirs["waited"] / ours["seconds"],
        "lower_bound": not theirs["converged"],
        "memory": theirs["peak_GB"] / ours["peak_GB"],
    }
    if ends:
        compared["finished_iterations"] = len(ends)
        compared["these_iterations_on_whole"] = ends[-1] / ours["seconds"]
        compared["truth_0.5_A"] = made["truth_0.5_A"] / ours["truth_0.5_A"]
    rows.append(compared)
    write("compare_relion_refine", rows, n=args.n, box=args.box, snr=args.snr, peer="relion_refine_mpi 3.1.3 (Debian)")


if __name__ == "__main__":
    main()
