"""First-model methods on class averages: how many of their starts end in the right orientations, and what they take.

Each run is one start of one method on its own set of averages (another phantom, other views, other noise), ended by the
same rounds of projection matching as in ``verglas abinitio --method NAME``. It is right if the median angle of the
averages to the truth, of the better hand, is below 15 degrees. Beside them stands ``common-lines`` (synchronisation).
``pseudo-atoms-at-known-poses`` is no method: the correlation of its Gaussians with the truth, poses given.

    python bench/bench_abinitio_methods.py --averages 60 --seeds 3 [--methods ransac significant]

Writes bench/results/abinitio_methods.json, to which runs of other methods and sizes are added.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

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
KNOWN_POSES = "pseudo-atoms-at-known-poses"


def angles_of(method: str, images: np.ndarray, seed: int) -> np.ndarray:
    radius = round(BOX * PIXEL_A / RESOLUTION_A)
    if method == "common-lines":
        return synchronise(find_common_lines(images, radius, diameter_px=DIAMETER_A / PIXEL_A, threads=1)).angles_deg
    views = Views.of(images, radius, DIAMETER_A / PIXEL_A + 2, threads=1)
    volume = start_from(method, views, np.random.default_rng((seed, 0)))
    return matrix_to_euler(views.place(volume, 3).matrices)


def run(method: str, averages: int, snr: float, first_seed: int, seeds: int) -> dict[str, object]:
    errors, seconds = [], []
    for number, shape in enumerate(SHAPES):
        for seed in range(seeds):
            unseen = first_seed + 10 * number + seed
            model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=unseen, shape=shape)
            p = vg.simulate.particles(
                model, averages, BOX, PIXEL_A, ctf=False, shift_sd_A=0.0, snr=snr, seed=unseen, listener=None
            )
            begin = time.process_time()
            angles = angles_of(method, p.images(), unseen)
            seconds.append(time.process_time() - begin)
            errors.append(float(np.median(orientation_error_deg(angles, p.poses.angles_deg))))
    right = int(np.sum(np.array(errors) < RIGHT_DEG))
    return {
        "method": method,
        "averages": averages,
        "snr": snr,
        "shapes": list(SHAPES),
        "first_seed": first_seed,
        "runs": len(errors),
        "right": right,
        "median_error_deg": [round(e, 1) for e in errors],
        "processor_s": round(float(np.mean(seconds)), 2),
    }


def atoms_at_known_poses(averages: int, snr: float, first_seed: int, seeds: int) -> dict[str, object]:
    """What 120 Gaussians can say of a map: correlation with the truth at 15 A, the poses given."""
    correlations = []
    for number, shape in enumerate(SHAPES):
        for seed in range(seeds):
            unseen = first_seed + 10 * number + seed
            model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=unseen, shape=shape)
            p = vg.simulate.particles(
                model, averages, BOX, PIXEL_A, ctf=False, shift_sd_A=0.0, snr=snr, seed=unseen, listener=None
            )
            views = Views.of(p.images(), round(BOX * PIXEL_A / RESOLUTION_A), DIAMETER_A / PIXEL_A + 2, threads=1)
            atoms = fit_pseudo_atoms(views, np.random.default_rng(unseen), euler_to_matrix(p.poses.angles_deg))
            low_pass = vg.filters.low_pass(RESOLUTION_A)
            truth = vg.filters.apply(vg.simulate.density(model, BOX, PIXEL_A).data, low_pass, PIXEL_A)
            correlations.append(round(float(np.corrcoef(atoms.ravel(), truth.ravel())[0, 1]), 3))
    return {
        "method": KNOWN_POSES,
        "averages": averages,
        "snr": snr,
        "shapes": list(SHAPES),
        "first_seed": first_seed,
        "runs": len(correlations),
        "correlation_at_15_A": correlations,
    }


def main() -> None:
    names = ["common-lines", *METHODS, SWARM, KNOWN_POSES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--averages", type=int, default=60)
    parser.add_argument("--snr", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3, help="of each shape")
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    given = parser.parse_args()
    for method in given.methods:
        measure = atoms_at_known_poses if method == KNOWN_POSES else partial(run, method)
        row = measure(given.averages, given.snr, given.first_seed, given.seeds)
        print(row, flush=True)
        path = RESULTS / "abinitio_methods.json"
        old = json.loads(path.read_text())["rows"] if path.is_file() else []
        same = ("method", "averages", "snr")
        write("abinitio_methods", [r for r in old if any(r[k] != row[k] for k in same)] + [row])


if __name__ == "__main__":
    main()
