"""First-model methods on class averages: how many of their starts end in the right orientations, and what they take.

Each run is one start of one method on one of the sets of averages (each another phantom of three shapes, other views,
other noise), the same for all methods, ended by the same rounds of projection matching as in ``verglas abinitio
--method NAME``. It is right if the median angle of the averages to the truth, of the better hand, is below 15 degrees.
Beside them stand ``common-lines`` (synchronisation), ``em``, what ``verglas abinitio`` does by default, with one
start, and ``default``, the same with the starts and the contest that it makes when nothing is asked.
``pseudo-atoms-at-known-poses`` is no method: the correlation of its Gaussians with the truth, poses given.

    python bench/bench_abinitio_methods.py --averages 60 --seeds 10 --minutes 60 [--methods ransac significant]
    python bench/bench_abinitio_methods.py --averages 120 --first-seed 7100; the same with --averages 24

Seeds begin at 7000, and at 7100 for other numbers of averages; development and earlier tables used 300 to 330. Writes
bench/results/abinitio_methods.json after every run and goes on where it stopped; a set is given to all methods before
the next.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

import verglas as vg
from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.initial_model import find_common_lines, synchronise
from verglas.initial_model.averages import METHODS, SWARM, Views, start_from
from verglas.initial_model.averages.pseudo_atoms import fit_pseudo_atoms
from verglas.initial_model.common_lines import orientation_error_deg

from common import RESULTS, write

SHAPES = ("globule", "arch", "dumbbell")
BOX, PIXEL_A, DIAMETER_A, RESOLUTION_A = 32, 5.0, 120.0, 15.0
RIGHT_DEG = 15.0
_FEWEST_PARTICLES = 50  # of the default, which refuses fewer
KNOWN_POSES = "pseudo-atoms-at-known-poses"
ATOMS, WIDTH_PX = 400, 0.85  # of these


def averages_of(seed: int, averages: int, snr: float) -> vg.Particles:
    """One set: the shape goes round with the seed."""
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=seed, shape=SHAPES[seed % len(SHAPES)])
    how = {"ctf": False, "shift_sd_A": 0.0, "snr": snr, "seed": seed, "listener": None}
    return vg.simulate.particles(model, averages, BOX, PIXEL_A, **how)


def angles_of(method: str, p: vg.Particles, seed: int) -> np.ndarray:
    if method in ("em", "default"):
        how = {"final_resolution_A": RESOLUTION_A, "seed": seed}
        how |= {"starts": 1, "most_starts": 1} if method == "em" else {}
        found = vg.abinitio(p, diameter_A=DIAMETER_A, threads=1, listener=None, **how)
        assert found.particles.poses is not None
        return found.particles.poses.angles_deg
    images, radius = p.images(), round(BOX * PIXEL_A / RESOLUTION_A)
    if method == "common-lines":
        return synchronise(find_common_lines(images, radius, diameter_px=DIAMETER_A / PIXEL_A, threads=1)).angles_deg
    views = Views.of(images, radius, DIAMETER_A / PIXEL_A + 2, threads=1)
    volume = start_from(method, views, np.random.default_rng((seed, 0)))
    return matrix_to_euler(views.place(volume, 3).matrices)


def with_run(row: dict[str, Any], seed: int) -> dict[str, Any]:
    """The row of a method with one more set."""
    p = averages_of(seed, row["averages"], row["snr"])
    begin = time.process_time()
    angles = angles_of(row["method"], p, seed)
    taken = time.process_time() - begin
    errors = [*row["median_error_deg"], round(float(np.median(orientation_error_deg(angles, p.poses.angles_deg))), 1)]
    seconds = (row["processor_s"] * row["runs"] + taken) / len(errors)
    right = int(np.sum(np.array(errors) < RIGHT_DEG))
    new = {"runs": len(errors), "right": right, "median_error_deg": errors, "processor_s": round(seconds, 2)}
    return {**row, **new}


def empty_row(method: str, averages: int, snr: float, first_seed: int) -> dict[str, Any]:
    key = {"method": method, "averages": averages, "snr": snr, "first_seed": first_seed, "shapes": list(SHAPES)}
    return {**key, "runs": 0, "right": 0, "median_error_deg": [], "processor_s": 0.0}


def atoms_at_known_poses(averages: int, snr: float, first_seed: int, seeds: int) -> dict[str, object]:
    """What so many Gaussians can say of a map: correlation with the truth at 15 A, the poses given."""
    correlations = []
    for number, shape in enumerate(SHAPES):
        for seed in range(seeds):
            unseen = first_seed + 10 * number + seed
            model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=unseen, shape=shape)
            p = vg.simulate.particles(
                model, averages, BOX, PIXEL_A, ctf=False, shift_sd_A=0.0, snr=snr, seed=unseen, listener=None
            )
            views = Views.of(p.images(), round(BOX * PIXEL_A / RESOLUTION_A), DIAMETER_A / PIXEL_A + 2, threads=1)
            atoms = fit_pseudo_atoms(
                views,
                np.random.default_rng(unseen),
                euler_to_matrix(p.poses.angles_deg),
                count=ATOMS,
                last_sigma_px=WIDTH_PX,
            )
            low_pass = vg.filters.low_pass(RESOLUTION_A)
            truth = vg.filters.apply(vg.simulate.density(model, BOX, PIXEL_A).data, low_pass, PIXEL_A)
            correlations.append(round(float(np.corrcoef(atoms.ravel(), truth.ravel())[0, 1]), 3))
    return {
        "method": KNOWN_POSES,
        "averages": averages,
        "snr": snr,
        "shapes": list(SHAPES),
        "first_seed": first_seed,
        "atoms": ATOMS,
        "runs": len(correlations),
        "correlation_at_15_A": correlations,
    }


SAME = ("method", "averages", "snr", "first_seed")


def kept(row: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Rows of the file, this one in place of its own; written where one is given."""
    path = RESULTS / "abinitio_methods.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    if row is not None:
        rows = [r for r in rows if any(r[k] != row[k] for k in SAME)] + [row]
        write("abinitio_methods", rows, quiet=True)
    return rows


def main() -> None:
    names = ["em", "default", "common-lines", *METHODS, SWARM]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--averages", type=int, default=60)
    parser.add_argument("--snr", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=7000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--methods", nargs="+", default=names, choices=[*names, KNOWN_POSES])
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    if KNOWN_POSES in given.methods:
        print(kept(atoms_at_known_poses(given.averages, given.snr, given.first_seed, given.seeds))[-1])
        given.methods.remove(KNOWN_POSES)
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for method in given.methods:
            row = empty_row(method, given.averages, given.snr, given.first_seed)
            if method in ("em", "default") and given.averages < _FEWEST_PARTICLES:
                continue
            row = next((r for r in kept() if all(r[k] == row[k] for k in SAME)), row)
            if row["runs"] <= seed - given.first_seed and time.monotonic() < end:
                row = with_run(row, seed)
                kept(row)
                print(seed, method, row["median_error_deg"][-1], row["processor_s"], flush=True)


if __name__ == "__main__":
    main()
