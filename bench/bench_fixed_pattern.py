"""A gain that was not given: how often movies and sets of movies are flagged, and by how much shifts are held back.

    python bench/bench_fixed_pattern.py [--sets 4] [--first-seed 2000] [--movies 3] [--add]

Sets of movies of 768 x 768 pixels of 1.5 A and twelve frames of 2 e/A2 (drift alone, with a dome, with a random
polynomial field in turn), recorded by one detector each whose pixels' gain differs by the relative standard deviation
``gain_sd``, corrected without a gain reference. ``pull`` is what is lost of the path of whole frames beside the same
movies from a perfect detector; ``share`` and ``sigmas`` are what :class:`verglas.motion.PatternOfMovies` says of the
set, ``flagged_movies`` how many movies are flagged by themselves. ``--add`` goes on where a run stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

import verglas as vg
from verglas.io import read_json
from verglas.motion import PatternOfMovies

from common import RESULTS, write

STRENGTHS = (0.0, 0.01, 0.02, 0.03)
KINDS: tuple[dict[str, Any], ...] = ({}, {"dome_px": 2.0}, {"polynomial_px": 0.7})


def recorded_without_gain(seed: int, gain_sd: float, detector: int) -> vg.Movie:
    """A movie that does not know the gain it was recorded with."""
    movie, _ = vg.simulate.movie(
        vg.simulate.phantom(96, 1.5, 120.0, seed=1 + seed),
        shape=(768, 768),
        pixel_size_A=1.5,
        n=20,
        defocus_u_A=12000.0 + 1000 * (seed % 5),
        frames=12,
        dose_per_frame_e_A2=2.0,
        drift_px=(6.0, -4.0),
        gain_sd=gain_sd,
        detector_seed=detector,
        seed=seed,
        **KINDS[seed % len(KINDS)],
    )
    return replace(movie, gain=None)


def path_px(motion: Any) -> float:
    """From the first frame to the last, mean over the frame."""
    x, y = np.meshgrid(*(np.linspace(0, side - 1, 9) for side in motion.shape[::-1]))
    places = motion.at(x, y)
    return float(np.hypot(*(places[..., -1, :] - places[..., 0, :]).mean(axis=(0, 1))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=4)
    parser.add_argument("--movies", type=int, default=3, help="in a set")
    parser.add_argument("--first-seed", type=int, default=2000)
    parser.add_argument("--add", action="store_true")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if args.add and (RESULTS / "fixed_pattern.json").is_file():
        rows = read_json(RESULTS / "fixed_pattern.json")["rows"]
    had = {(row["set"], row["gain_sd"]) for row in rows}
    for number in range(args.sets):
        level: list[float] = next((row["paths_px"] for row in rows if row["set"] == number), [])
        for gain_sd in STRENGTHS:
            if (number, gain_sd) in had:
                continue
            pattern, flagged, paths = PatternOfMovies(), 0, []
            for i in range(args.movies):
                seed = args.first_seed + args.movies * number + i
                done = vg.correct_motion(recorded_without_gain(seed, gain_sd, 500 + number), listener=None)
                assert done.recorded is not None
                pattern.add(str(seed), done.recorded)
                flagged += any("lies still" in flag for flag in done.flags)
                paths.append(path_px(done.motion))
            level = level or paths
            found = pattern.estimate()
            assert found is not None
            rows.append(
                {
                    "set": number,
                    "gain_sd": gain_sd,
                    "movies": args.movies,
                    "paths_px": paths,
                    "flagged_movies": flagged,
                    "set_flagged": found.is_there,
                    "share": found.share,
                    "sigmas": found.sigmas,
                    "pull": 1 - float(np.mean(np.array(paths) / level)),
                }
            )
            print(rows[-1], flush=True)
            write("fixed_pattern", rows, quiet=True)


if __name__ == "__main__":
    main()
