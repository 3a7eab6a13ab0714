"""Motion correction beside relion_run_motioncorr --use_own (RELION 3.1.3, Debian) on the same movies.

    python bench/compare_relion_motion.py [--movies 1] [--shape 1536 2048] [--frames 24] [--patches 5] [--minutes 8]
    python bench/compare_relion_motion.py --kind polynomial --add
    python bench/compare_relion_motion.py --full [--folder movies]

Movies of grains, 1 e per pixel and frame, that drift and dome (:func:`bench_motion.write_grain_movie`), in TIFF files
(LZW). Both run as commands, in turn, reading, dose weighting and writing included; RELION with the settings of its
interface (B-factor 150, patches as given). Errors are those of the motion that each writes into its STAR file of the
movie; ``polynomial_all_px`` is that of the polynomial that verglas writes for other programs beside its lattice.
Seconds are wall time, ``processor_s`` those of all threads. RELION counts the rows of TIFF files from the other edge.

``--kind polynomial``: the grains move in a random field of 18 coefficients an axis, another one of each seed;
``--kind domes``: drift, dome and shear whose size, sign, place and direction are of each seed; ``--kind particles``:
movies of 120 particles of 115 A in 300 A of ice (:func:`verglas.simulate.movie`) that drift, dome and shear, with
radiation damage and ice whose molecules move (``still-ice``: do not), without faults of the detector;
``bench_motion_bound.py`` says what can be reached there. Rows of the kind "100 particles" are of 100 particles of
130 A, a dome of 1.2 px.
``--particles`` asks for more or fewer of them ("350 particles" is the kind of their rows).

``--full``: one movie of 3710 x 3838 pixels, of 40 frames, into compare_relion_motion_full.json, or of ``--frames``,
into compare_relion_motion_full_<frames>.json.
``--folder`` keeps the movies, and takes those that are there.

``--program verglas`` (or ``relion``) runs that one only, and ``--add`` puts its row beside those that the file holds,
as its next turn: turns of a few minutes each, now one program's, now the other's, make one comparison. A program's
figure is the median of its turns.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from bench_motion import DRIFT_PX, FULL, domed_motion, errors, polynomial_motion, write_grain_movie
from child import command, watch

import verglas as vg
from verglas.io import read_json

from common import RESULTS, write

NAMES = {"verglas": "verglas motion", "relion": "relion_run_motioncorr 3.1.3"}


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
        return {"program": NAMES["relion"], "seconds": seen.seconds, "stopped": True}
    motion = vg.io.read_motion_star(folder / "relion" / f"{movie.stem}.star").flipped_y()
    return {"program": NAMES["relion"], "seconds": seen.seconds, "peak_GB": seen.peak_GB, "motion": motion}


def ours(folder: Path, movie: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The same by `verglas motion`."""
    given = ["--pixel-size", "1.0", "--dose-per-frame", "1.0", "--voltage", "300", "--threads", str(args.threads)]
    seconds, peak, _ = command(["motion", str(movie), *given, "--out", str(folder / "verglas"), "--json"])
    motion = vg.io.read_motion_star(folder / "verglas" / "micrographs" / f"{movie.stem}.star")
    return {"program": NAMES["verglas"], "seconds": seconds, "peak_GB": peak, "motion": motion}


def processor_seconds() -> float:
    """Of all commands that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def write_particle_movie(
    path: Path, shape: tuple[int, int], frames: int, seed: int, n: int, ice_motion_A2_per_e: float = 0.5
) -> Any:
    """Particles in ice at 1 e per pixel and frame; the field they move in."""
    movie, truth = vg.simulate.movie(
        vg.simulate.phantom(144, 1.0, 115.0, seed=seed),
        shape=shape,
        pixel_size_A=1.0,
        n=n,
        defocus_u_A=15000.0,
        frames=frames,
        dose_per_frame_e_A2=1.0,
        drift_px=DRIFT_PX,
        dome_px=1.1,
        shear_px=0.6,
        ice_motion_A2_per_e=ice_motion_A2_per_e,
        seed=seed,
        threads=2,
    )
    data = np.asarray(movie.source.data).astype(np.uint8)
    tifffile.imwrite(path, data, compression="lzw", photometric="minisblack")
    return truth.field


def movie_in(
    folder: Path, shape: tuple[int, int], frames: int, seed: int, kind: str, particles: int = 120
) -> tuple[Path, Any]:
    """The movie and its motion, made once in a folder."""
    name = f"movie_{seed}" if kind == "grains" else f"{kind}_{seed}"
    path, truth = folder / f"{name}.tif", folder / f"{name}.pickle"
    if not truth.is_file():
        if kind in ("particles", "still-ice"):
            field = write_particle_movie(path, shape, frames, seed, particles, 0.5 if kind == "particles" else 0.0)
        else:
            planted = {"polynomial": polynomial_motion, "domes": domed_motion}
            given = planted[kind](shape, frames, seed) if kind in planted else None
            field = write_grain_movie(path, shape, frames, seed, given)
        truth.write_bytes(pickle.dumps(field))
    return path, pickle.loads(truth.read_bytes())


def row_of(run: Callable[..., dict[str, Any]], folder: Path, movie: Path, truth: Any, args: Any) -> dict[str, Any]:
    """Figures of one program on one movie."""
    before = processor_seconds()
    row = run(folder, movie, args)
    row["processor_s"] = processor_seconds() - before
    motion = row.pop("motion", None)
    if motion is not None:
        row |= errors(motion, truth, (args.shape[0], args.shape[1]))
    if getattr(motion, "lattice_px", None) is not None:
        row["polynomial_all_px"] = errors(replace(motion, lattice_px=None), truth, (args.shape[0], args.shape[1]))[
            "all_px"
        ]
    return row


def medians(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each kind of movie."""
    kinds = dict.fromkeys(row.get("kind", "grains") for row in rows)
    return {kind: medians_of_kind([row for row in rows if row.get("kind", "grains") == kind]) for kind in kinds}


def medians_of_kind(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of the turns of each program, and of its movies: error, seconds, processor time, memory; the worst error."""
    names = ("all_px", "seconds", "processor_s", "peak_GB")
    made: dict[str, dict[str, float]] = {}
    for program in dict.fromkeys(row["program"] for row in rows):
        ended = [row for row in rows if row["program"] == program and "all_px" in row]
        made[program] = {n: float(np.median([r[n] for r in ended])) for n in names if all(n in r for r in ended)}
        made[program] |= {"turns": len(ended), "worst_all_px": max((r["all_px"] for r in ended), default=np.nan)}
    ours, theirs = (made.get(name, {}) for name in NAMES.values())
    if ours and theirs:
        made["RELION over verglas"] = {n: theirs[n] / ours[n] for n in names if n in ours and n in theirs}
    return made


def folder_of(path: str) -> Path:
    """A folder of that name, made where it is not there."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=2000)
    parser.add_argument("--shape", type=int, nargs=2, default=(1536, 2048), help="rows and columns")
    parser.add_argument("--frames", type=int, help="24 by default, with --full 40")
    parser.add_argument("--patches", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=8.0, help="RELION is stopped after so long")
    parser.add_argument("--kind", choices=("grains", "polynomial", "domes", "particles", "still-ice"), default="grains")
    parser.add_argument("--particles", type=int, default=120, help="in a movie of particles")
    parser.add_argument("--full", action="store_true", help="one movie of 40 frames of 3710 x 3838 pixels")
    parser.add_argument("--folder", type=folder_of, help="where movies are kept; a temporary one by default")
    parser.add_argument("--program", choices=NAMES, help="only this one; both in turn by default")
    parser.add_argument("--add", action="store_true", help="to the rows that the file of results holds")
    args = parser.parse_args()
    if args.full:
        args.shape, args.movies = FULL, 1
    args.frames = args.frames or (40 if args.full else 24)
    programs = {"verglas": ours, "relion": relion}
    chosen = [programs[args.program]] if args.program else [*programs.values()]
    if relion in chosen and shutil.which("relion_run_motioncorr") is None:
        raise SystemExit("relion_run_motioncorr is not on PATH (Debian: apt-get install relion)")
    name = "compare_relion_motion" + ("_full" if args.full else "")
    if args.full and args.frames != 40:
        name += f"_{args.frames}"
    shape, rows = (args.shape[0], args.shape[1]), list[dict[str, Any]]()
    if args.add and (RESULTS / f"{name}.json").is_file():
        former = read_json(RESULTS / f"{name}.json")
        if (former["shape"], former["frames"]) != ([*shape], args.frames):
            raise SystemExit(
                f"{name}.json holds movies of {former['frames']} frames of {former['shape']}: leave --add out"
            )
        rows = former["rows"]
    for seed in range(args.first_seed, args.first_seed + args.movies):
        with tempfile.TemporaryDirectory(dir=args.folder) as made:
            folder = Path(made)
            movie, truth = movie_in(args.folder or folder, shape, args.frames, seed, args.kind, args.particles)
            local = folder / movie.name
            if not local.exists():
                local.symlink_to(movie.resolve())
            mark = {"seed": seed, "kind": args.kind if args.particles == 120 else f"{args.particles} {args.kind}"}
            if not any((row["seed"], row.get("kind"), row["program"]) == (*mark.values(), "nothing") for row in rows):
                rows.append({**mark, "program": "nothing", **errors(None, truth, shape)})
            for run in chosen:
                rows.append({**mark, **row_of(run, folder, local, truth, args)})
                print(rows[-1], flush=True)
                settings = {"frames": args.frames, "patches": args.patches, "threads": args.threads}
                write(name, rows, quiet=True, shape=shape, **settings, medians=medians(rows))


if __name__ == "__main__":
    main()
