"""What ``verglas orientations`` proposes, tried: maps of the particles to keep, and of a stage tilt.

    python bench/bench_views.py --seeds 5

Phantoms in 2,000 images (40 px of 4 A, SNR 0.1) at true poses, four fifths of them within 20 degrees of one view. Maps
of all of them, of those kept by ``propose_views``, of as many at random, and of as many particles as there are on a
stage tilted by what ``propose_tilt`` says (each flat particle lies on the grid in any way, the stage is turned): mean
FSC with the truth up to 0.7 of Nyquist, the same of the direction that is seen worst, and the sampling compensation
factor that was foreseen for the tilt beside that of the tilted views. Seeds begin at 3300; none was looked at before.
"""

from __future__ import annotations

import argparse

import numpy as np

import verglas as vg
from verglas.assessment import fourier_sampling, propose_tilt, propose_views

from common import write

BOX, PIXEL_A, COUNT, SNR, FIRST_SEED = 40, 4.0, 2000, 0.1, 3300


def uneven(rng: np.random.Generator, seed: int) -> np.ndarray:
    angles = vg.geometry.random_orientations(COUNT, seed=seed)
    common = 4 * COUNT // 5
    angles[:common, 1] = np.rad2deg(np.arccos(rng.uniform(np.cos(np.deg2rad(20.0)), 1, common)))
    return angles


def merit(volume: vg.Map, truth: vg.Map) -> tuple[float, float]:
    """Mean FSC with the truth, and that of the worst of 500 directions."""
    last = round(0.7 * BOX / 2)
    found = vg.directional_fsc(volume, truth)
    return float(vg.fsc(volume, truth).curve[1 : last + 1].mean()), float(found.curves[:, 1 : last + 1].mean(1).min())


def trial(seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    model = vg.simulate.phantom(BOX, PIXEL_A, 100.0, "C1", seed)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    angles = uneven(rng, seed)
    views, tilts = propose_views(angles), propose_tilt(angles)
    tilt_deg = tilts.proposed_deg if tilts.proposed_deg is not None else float(tilts.tilts_deg[-1])
    stage = vg.geometry.euler_to_matrix(np.array([[0.0, tilt_deg, 0.0]]))[0]
    tilted = vg.geometry.matrix_to_euler(stage @ vg.geometry.euler_to_matrix(angles))
    foreseen = float(tilts.compensation_factor[tilts.tilts_deg.tolist().index(tilt_deg)])
    made = {"seed": seed, "listener": None}
    flat, turned = (
        vg.simulate.particles(model, COUNT, BOX, PIXEL_A, SNR, poses=vg.Poses(a, np.zeros((COUNT, 2))), **made)
        for a in (angles, tilted)
    )
    kept = np.flatnonzero(views.keep)
    chance = np.sort(rng.choice(COUNT, len(kept), replace=False))
    rows = []
    for name, of in (("all", flat), ("kept", flat[kept]), ("at random", flat[chance]), ("tilted", turned)):
        whole, worst = merit(vg.reconstruct(of, listener=None), truth)
        factor = fourier_sampling(of.poses.angles_deg).compensation_factor
        row = {"seed": seed, "particles": name, "number": len(of), "mean_fsc": whole, "worst_direction_fsc": worst}
        row |= {"compensation_factor": factor, "foreseen": None}
        if name == "tilted":
            row |= {"tilt_deg": tilt_deg, "foreseen": foreseen}
        rows.append(row)
    return rows


def summary(rows: list[dict]) -> list[dict]:
    lines = []
    for name in dict.fromkeys(row["particles"] for row in rows):
        of = [row for row in rows if row["particles"] == name]
        names = ("number", "mean_fsc", "worst_direction_fsc", "compensation_factor")
        line = {"particles": name, "sets": len(of), **{key: float(np.mean([r[key] for r in of])) for key in names}}
        off = [abs(r["foreseen"] - r["compensation_factor"]) for r in of if r["foreseen"] is not None]
        lines.append(line | ({"foreseen_off_most": max(off)} if off else {}))
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    found = [row for one in range(FIRST_SEED, FIRST_SEED + given.seeds) for row in trial(one)]
    write("views", summary(found), sets=found)
    for one_row in found:
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in one_row.items()})
