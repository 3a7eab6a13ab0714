"""relion_reconstruct and relion_project (RELION 3.1, Debian) beside verglas on the same stack.

    python bench/compare_relion_reconstruct.py [--box 128] [--n 2000] [--snr 0.1]

Both are timed as commands, start-up, reading and writing included. Each runs on n and on n / 4 particles: the slope is
the time per particle, free of what does not grow with them (gridding iterations, conjugate gradients, start-up).
RELION's commands use one thread, so verglas runs with 1 thread beside it, and with all. FSC is against the truth, in a
soft sphere of radius 0.425 N with a 6 px edge. Peak memory is the largest resident set seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from child import VERGLAS, run

import verglas as vg
from verglas.masks import soft_sphere

from common import write


def fsc_against(truth: vg.Map, path: Path) -> np.ndarray:
    mask = soft_sphere(truth.box, 0.425 * truth.box, 6.0)
    return vg.fsc(vg.Map(vg.read_map(path).data, truth.pixel_size_A), truth, mask=mask).curve


def resolution_A(curve: np.ndarray, truth: vg.Map) -> float:
    below = np.flatnonzero(curve[1:] < 0.5)
    shell = len(curve) - 1 if not below.size else below[0] + 1
    return truth.box * truth.pixel_size_A / shell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--snr", type=float, default=0.1)
    args = parser.parse_args()
    if shutil.which("relion_reconstruct") is None:
        raise SystemExit("relion_reconstruct is not on PATH (Debian: apt-get install relion)")
    apix = 1.5
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = vg.simulate.phantom(args.box, apix, 0.6 * args.box * apix, seed=0)
        particles = vg.simulate.particles(model, args.n, args.box, apix, snr=args.snr, out=folder, seed=1)
        truth = vg.read_map(folder / "truth.mrc")
        quarter = args.n // 4
        vg.write_particles(folder / "quarter.star", particles[:quarter])
        commands = {
            "relion reconstruct": lambda star, out: ["relion_reconstruct", "--i", star, "--o", out, "--ctf"],
            "relion reconstruct skip_gridding": lambda star, out: [
                "relion_reconstruct",
                "--i",
                star,
                "--o",
                out,
                "--ctf",
                "--skip_gridding",
            ],
            "relion project": lambda star, out: [
                "relion_project",
                "--i",
                "truth.mrc",
                "--ang",
                star,
                "--o",
                out[:-4],
                "--ctf",
            ],
        }
        for threads in (1, os.cpu_count() or 1):
            for method in ("least-squares", "direct"):
                commands[f"verglas reconstruct {method} {threads} thread"] = lambda star, out, t=threads, m=method: [
                    *VERGLAS,
                    "reconstruct",
                    star,
                    "--out",
                    out,
                    "--threads",
                    str(t),
                    "--method",
                    m,
                ]
            commands[f"verglas project {threads} thread"] = lambda star, out, t=threads: [
                *VERGLAS,
                "project",
                "truth.mrc",
                "--particles",
                star,
                "--out",
                out + "s",
                "--threads",
                str(t),
            ]
        for label, make in commands.items():
            few, *_ = run(make("quarter.star", "few.mrc"), folder)
            full, peak_GB, _ = run(make("particles.star", "out.mrc"), folder)
            row = {
                "what": label,
                "box": args.box,
                "n": args.n,
                "snr": args.snr,
                "seconds": full,
                "peak_MB": 1e3 * peak_GB,
                "ms_per_particle": 1e3 * (full - few) / (args.n - quarter),
            }
            if "reconstruct" in label:
                curve = fsc_against(truth, folder / "out.mrc")
                row["fsc_mean"] = float(curve[1 : args.box // 2].mean())
                row["resolution_A_fsc_0.5"] = resolution_A(curve, truth)
            rows.append(row)
    write("compare_relion_reconstruct", rows, relion="3.1.3 (Debian)")


if __name__ == "__main__":
    main()
