"""Polishing beside relion_motion_refine (RELION 3.1.3, Debian) on the same simulated movies.

    python bench/compare_relion_polish.py [--seeds 1] [--first-seed 300] [--fitted] [--folder FOLDER] [--add]
    python bench/compare_relion_polish.py --particles 200 --fitted --training --add
    python bench/compare_relion_polish.py --full --fitted --training --minutes 8 --add

Sessions of bench_polish.py (two movies of 30 particles 80 A wide, 12 frames of 3 e/A2, planted walks and damage, the
motion of whole frames known; with ``--full`` two of 150 particles 100 A wide in boxes of 256 px, 40 frames of 1 e/A2
and 2048 x 2048 px; ``--box`` and others change one of them), written as RELION's files: movies as MRC stacks,
particles, corrected_micrographs.star with the motion of each movie, an FSC, the true map as both half maps, a ball as
mask. Both follow particles up to 4 A
with the same prior of tracks, whose values are those of RELION's interface (velocity 0.2 A/dose, divergence 5000 A,
acceleration 2 A/dose), in one thread; with ``--fitted`` verglas with the prior from the data besides, and with
``--training`` RELION's search for its three parameters (no tracks). ``--particles`` of a movie, as many to an area.
``starting`` is what Python and its libraries take until ``verglas polish --help`` has ended. ``track_rms_A``
is the error of tracks along an axis, each about its mean (none where nothing was changed); that of the first row is
what the mean motion of all particles leaves. ``processor_s`` is that of the whole command, ``seconds`` wall time.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
from bench_polish import SMALL, Recorded, about_mean, object_of, session
from child import VERGLAS, watch
from compare_relion_motion import processor_seconds

import verglas as vg
from verglas.io import read_json, read_star, write_map, write_micrographs, write_particles, write_star
from verglas.io.motion import write_motion_star

from common import RESULTS, write

PRIOR = {"velocity": 0.2, "correlation-length": 5000.0, "acceleration": 2.0}
FINEST_A = 4.0
# what users have: a detector's part, boxes of twice the particle, 40 frames of 1 e/A^2
FULL = Recorded(256, 1.0, 40, 1.0, 2048, 150, diameter_A=100.0, walk_px=0.2, defocus_A=8000.0, ice_A=0.0)


def write_session(folder: Path, seed: int, how: Recorded) -> list[np.ndarray]:
    """All files of a session; where each particle lies in each frame of the movies, beyond its centre, in A."""
    model, truth = object_of(seed, how)
    movies, particles, true, _ = session(model, seed, how)
    box, pixel_A = how.box, how.pixel_A
    names = []
    for recorded in movies:
        name = recorded.micrograph
        with mrcfile.new(folder / f"{Path(name).stem}_movie.mrcs") as file:
            file.set_data(np.asarray(recorded.open().source.data).astype(np.int16))
            file.set_image_stack()
            file.voxel_size = pixel_A
        vars(recorded.trajectory)["movie"] = f"{Path(name).stem}_movie.mrcs"
        write_motion_star(folder / f"{Path(name).stem}.star", recorded.trajectory)
        names.append(name)
    table = pd.DataFrame(
        {
            "rlnMicrographName": names,
            "rlnMicrographMetadata": [f"{Path(name).stem}.star" for name in names],
            "rlnMicrographPixelSize": pixel_A,
            "rlnMicrographOriginalPixelSize": pixel_A,
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
        }
    )
    write_micrographs(folder / "micrographs.star", table)
    write_particles(folder / "particles.star", particles, stack=folder / "particles.mrcs")
    write_map(folder / "map.mrc", truth)
    y, x, z = np.mgrid[:box, :box, :box] - box / 2
    ball = np.clip(((how.diameter_A / 2 + 5) / pixel_A + 5 - np.sqrt(x**2 + y**2 + z**2)) / 5, 0, 1)
    write_map(folder / "mask.mrc", vg.Map(ball.astype(np.float32), pixel_A))
    shells = np.arange(box // 2 + 1)
    curve = (shells <= box * pixel_A / FINEST_A).astype(float)
    fsc = {
        "rlnSpectralIndex": shells,
        "rlnResolution": shells / (box * pixel_A),
        "rlnAngstromResolution": np.where(shells, box * pixel_A / np.maximum(shells, 1), 999.0),
        "rlnFourierShellCorrelationCorrected": curve,
        "rlnFourierShellCorrelationUnmaskedMaps": curve,
        "rlnFourierShellCorrelationMaskedMaps": curve,
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": 0.0 * curve,
    }
    general = {
        "rlnFinalResolution": FINEST_A,
        "rlnMaskName": "mask.mrc",
        "rlnUnfilteredMapHalf1": "map.mrc",
        "rlnUnfilteredMapHalf2": "map.mrc",
    }
    write_star(folder / "postprocess.star", {"general": general, "fsc": pd.DataFrame(fsc)})
    return [tracks * pixel_A for tracks in true]


def rms(found: list[np.ndarray], true: list[np.ndarray]) -> float:
    """Along an axis, each track about its mean."""
    off = [about_mean(one) - about_mean(other) for one, other in zip(found, true, strict=True)]
    return float(np.sqrt(np.mean(np.concatenate(off) ** 2)))


RELION = (
    "relion_motion_refine --i particles.star --f postprocess.star --m1 map.mrc --m2 map.mrc --mask mask.mrc "
    "--corr_mic micrographs.star --j 1 "
)


def relion(folder: Path, how: Recorded, minutes: float) -> tuple[list[np.ndarray], Any]:
    """Tracks of relion_motion_refine in A, and what its run took."""
    given = f"--s_vel {PRIOR['velocity']} --s_div {PRIOR['correlation-length']} --s_acc {PRIOR['acceleration']}"
    words = f"{RELION} --fdose {how.dose} --o relion/ {given} --combine_frames".split()
    seen = watch(words, folder, limit_s=60 * minutes, log=folder / "relion.log")
    tracks = []
    for path in sorted((folder / "relion").rglob("*_tracks.star")):
        tables = [t for name, t in read_star(path).items() if isinstance(t, pd.DataFrame) and name != "general"]
        tracks.append(np.array([t[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(float) for t in tables]))
    return tracks, seen


def relion_training(folder: Path, how: Recorded, minutes: float) -> tuple[list[np.ndarray], Any]:
    """What its search for the three parameters took, on all particles."""
    words = f"{RELION} --fdose {how.dose} --o training/ --params3 --min_p {how.movies * how.particles}".split()
    return [], watch(words, folder, limit_s=60 * minutes, log=folder / "training.log")


def starting(folder: Path, how: Recorded, minutes: float) -> tuple[list[np.ndarray], Any]:
    """What Python and its libraries take."""
    words = [*VERGLAS, "polish", "--help"]
    return [], watch(words, folder, limit_s=60 * minutes, log=folder / "starting.log")


def ours(folder: Path, how: Recorded, minutes: float, out: str, given: list[str]) -> tuple[list[np.ndarray], Any]:
    """The same of ``verglas polish``."""
    words = ["polish", "particles.star", "micrographs.star", "--half-maps", "map.mrc", "map.mrc", "--mask", "mask.mrc"]
    words += ["--max-resolution", str(FINEST_A), "--threads", "1", "--out", out, *given]
    # it ends with status 1 where nothing gained, which is an answer
    seen = watch([*VERGLAS, *words], folder, limit_s=60 * minutes, log=folder / f"{out}.log", answers=(0, 1))
    account = folder / out / "polish.json"
    if not account.is_file() or not read_json(account)["changed"]:  # stopped, or nothing gained
        return [], seen
    table = read_star(folder / out / "tracks.star")["tracks"]
    places = table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(float).reshape(how.movies, -1, how.frames, 2)
    return list(places * how.pixel_A), seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=4.0, help="a program is stopped after so long")
    parser.add_argument("--folder", type=Path, help="where the files of one seed are kept and found again")
    parser.add_argument("--fitted", action="store_true", help="also with the prior from the data, which takes longer")
    parser.add_argument("--training", action="store_true", help="also RELION's search for its parameters")
    parser.add_argument("--full", action="store_true", help="of the size that users have")
    parser.add_argument("--particles", type=int, help="in each of the two movies, as many to an area (30; full 150)")
    parser.add_argument("--box", type=int, help="pixels (64; full 256)")
    parser.add_argument("--frames", type=int, help="in each movie (12; full 40)")
    parser.add_argument("--side", type=int, help="of a square frame, pixels (768; full 2048)")
    parser.add_argument("--only", help="programs whose name holds this")
    parser.add_argument("--add", action="store_true", help="to the rows that the file of results holds")
    args = parser.parse_args()
    if shutil.which("relion_motion_refine") is None:
        raise SystemExit("relion_motion_refine is not on PATH (Debian: apt-get install relion)")
    path = RESULTS / "compare_relion_polish.json"
    rows: list[dict[str, Any]] = read_json(path)["rows"] if args.add and path.is_file() else []
    how = (FULL if args.full else SMALL).with_particles(args.particles or (150 if args.full else 30))
    changes = {name: getattr(args, name) for name in ("box", "frames", "side") if getattr(args, name)}
    how = replace(how, **changes)
    given = [word for name, value in PRIOR.items() for word in (f"--{name}", str(value))]
    programs: dict[str, Callable[..., tuple[list[np.ndarray], Any]]] = {
        "starting": starting,
        "verglas polish": partial(ours, out="given", given=given),
        "relion_motion_refine 3.1.3": relion,
    }
    if args.fitted:
        programs["verglas polish, prior from the data"] = partial(ours, out="fitted", given=[])
    if args.training:
        programs["relion_motion_refine 3.1.3 --params3"] = relion_training
    if args.only:
        programs = {name: run for name, run in programs.items() if args.only in name}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        with tempfile.TemporaryDirectory(dir=args.folder) as made:
            folder = Path(args.folder or made)
            kept = folder / "true_A.npy"  # a session that an earlier call left
            true = list(np.load(kept)) if kept.is_file() else write_session(folder, seed, how)
            np.save(kept, np.array(true))
            known = [np.zeros_like(t) + about_mean(t).mean(axis=0, keepdims=True) for t in true]
            mark = {"seed": seed, "particles": how.movies * how.particles, "box": how.box, "frames": how.frames}
            mark |= {"side": how.side}
            rows.append({**mark, "program": "mean motion of all particles", "track_rms_A": rms(known, true)})
            for name, run in programs.items():
                before = processor_seconds()
                tracks, seen = run(folder, how, args.minutes)
                row = {**mark, "program": name, "seconds": seen.seconds, "peak_GB": seen.peak_GB}
                row |= {"processor_s": processor_seconds() - before, "stopped": seen.stopped}
                row["track_rms_A"] = rms(tracks, true) if len(tracks) == how.movies else None  # stopped
                rows.append(row)
                print(row, flush=True)
                write("compare_relion_polish", rows, quiet=True)


if __name__ == "__main__":
    main()
