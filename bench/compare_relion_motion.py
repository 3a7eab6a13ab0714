"""Motion correction beside relion_run_motioncorr --use_own (RELION 3.1.3, Debian) on the same movies.

    python bench/compare_relion_motion.py [--movies 1] [--shape 1536 2048] [--frames 24] [--patches 5] [--minutes 8]

Movies of grains, 1 e per pixel and frame, that drift and dome (:func:`bench_motion.write_grain_movie`), in TIFF files
(LZW). Both run as commands, in turn, reading, dose weighting and writing included; RELION with the settings of its
interface (B-factor 150, patches as given). Errors are those of the motion that each writes into RELION's STAR file of
the movie, so that verglas is judged by the polynomial that its lattice is written as; ``in_memory_all_px`` is that of
the field itself. RELION counts the rows of TIFF files from the other edge.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_motion import errors, write_grain_movie
from child import command, watch

import verglas as vg

from common import write


def relion(folder: Path, movie: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One movie by RELION's own implementation."""
    (folder / "movies.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographOriginalPixelSize #3\n"
        "_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\nopticsGroup1 1 1.0 300 2.7 0.1\n\n"
        f"data_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\n{movie.name} 1\n"
    )
    seen = watch(
        f"relion_run_motioncorr --i movies.star --o relion/ --use_own --j {args.threads} --patch_x {args.patches} "
        f"--patch_y {args.patches} --bfactor 150 --dose_weighting --dose_per_frame 1 --save_noDW".split(),
        folder,
        limit_s=60 * args.minutes,
        log=folder / "relion.log",
    )
    if seen.stopped:
        return {"program": "relion_run_motioncorr 3.1.3", "seconds": seen.seconds, "stopped": True}
    motion = vg.io.read_motion_star(folder / "relion" / f"{movie.stem}.star").flipped_y()
    return {
        "program": "relion_run_motioncorr 3.1.3",
        "seconds": seen.seconds,
        "peak_GB": seen.peak_GB,
        "motion": motion,
    }


def ours(folder: Path, movie: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The same by `verglas motion`."""
    given = ["--pixel-size", "1.0", "--dose-per-frame", "1.0", "--voltage", "300", "--threads", str(args.threads)]
    seconds, peak, _ = command(["motion", str(movie), *given, "--out", str(folder / "verglas"), "--json"])
    motion = vg.io.read_motion_star(folder / "verglas" / "micrographs" / f"{movie.stem}.star")
    return {"program": "verglas motion", "seconds": seconds, "peak_GB": peak, "motion": motion}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=2000)
    parser.add_argument("--shape", type=int, nargs=2, default=(1536, 2048), help="rows and columns")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--patches", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=8.0, help="RELION is stopped after so long")
    args = parser.parse_args()
    if shutil.which("relion_run_motioncorr") is None:
        raise SystemExit("relion_run_motioncorr is not on PATH (Debian: apt-get install relion)")
    shape, rows = (args.shape[0], args.shape[1]), list[dict[str, Any]]()
    for seed in range(args.first_seed, args.first_seed + args.movies):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            movie = folder / "movie.tif"
            truth = write_grain_movie(movie, shape, args.frames, seed)
            for run in (ours, relion):
                row = {"seed": seed, **run(folder, movie, args)}
                motion = row.pop("motion", None)
                if motion is not None:
                    row |= errors(motion, truth, shape)
                rows.append(row)
                print(row, flush=True)
            found = vg.correct_motion(
                vg.read_movie(movie, defects="auto", pixel_size_A=1.0, dose_per_frame_e_A2=1.0, voltage_kV=300.0),
                threads=args.threads,
                listener=None,
            )
            rows[-2]["in_memory_all_px"] = errors(found.motion, truth, shape)["all_px"]
            rows[-2]["model"] = found.model
            rows.append({"seed": seed, "program": "nothing", **errors(None, truth, shape)})
    mean = {p: float(np.mean([r["all_px"] for r in rows if r["program"] == p and "all_px" in r] or [np.nan]))
            for p in {r["program"] for r in rows}}  # fmt: skip
    write("compare_relion_motion", rows, shape=shape, frames=args.frames, patches=args.patches, threads=args.threads,
          mean_all_px=mean)  # fmt: skip


if __name__ == "__main__":
    main()
