"""Sieving on simulated particles: what is planted is found, a clean set stays whole, and the true map is the judge.

    python bench/bench_sieve.py --seeds 5 --minutes 4     goes on where an earlier call stopped

Development used seeds 0 to 3, 100 and 200, and smaller sets of seeds 1 and 2; the committed rows begin at seed 300.
Objects without symmetry, with D2 (reconstructed without it) and with C5 take turns. 1,000 particles of 32 px, 3 A;
poses are true but for those planted; SNR is that of vg.simulate.particles. Resolutions against the truth: FSC 0.5
under one mask, made from the true map.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import rankdata

import verglas as vg
from verglas.assessment import Alignability, solvent_mask

from common import collect, experiment_summary

FIRST_SEED = 300
OBJECTS = ("C1", "D2", "C5")
BOX, PIXEL_A, COUNT = 32, 3.0, 1000
EXPERIMENTS = {"poses": 0.1, "noise": 0.1, "junk": 0.1, "clean": 0.1}  # and their SNR


def planted(kind: str, seed: int) -> tuple[vg.Particles, np.ndarray, vg.Map, str]:
    """Particles, which half of them is bad, the true map, the point group."""
    rng = np.random.default_rng((seed, 5))
    group = OBJECTS[seed % len(OBJECTS)]
    model = vg.simulate.phantom(BOX, PIXEL_A, 0.6 * BOX * PIXEL_A, group, seed)
    # the envelope keeps the resolution from Nyquist
    imaging = {"snr": EXPERIMENTS[kind], "envelope_b_factor_A2": 250.0}
    p = vg.simulate.particles(model, COUNT, BOX, PIXEL_A, seed=seed, **imaging)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    bad = np.zeros(COUNT, bool)
    if kind != "clean":
        bad[rng.permutation(COUNT)[: COUNT // 2]] = True
    if kind == "poses":
        angles = np.where(bad[:, None], vg.geometry.random_orientations(COUNT, seed + 99), p.poses.angles_deg)
        return p.with_poses(vg.Poses(angles, p.poses.shifts_A)), bad, truth, group
    images = p.images()
    if kind == "noise":  # twice the amplitude: what is left of an image beside its signal, once more
        clean = vg.project(truth, p.poses, p.optics, threads=1)
        clean *= (images * clean).sum() / np.square(clean).sum()
        images[bad] += (images - clean)[bad]
    if kind == "junk":
        images[bad] = rng.normal(0, images.std(), (bad.sum(), BOX, BOX))
    return p.with_source(vg.types.ArraySource(images, PIXEL_A)), bad, truth, group


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """Chance that a good one is above a bad one."""
    ranks = rankdata(np.concatenate([good, bad]))
    return float((ranks[: len(good)].sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def against(truth: vg.Map, volume: vg.Map, mask: vg.Map) -> float:
    """Resolution at FSC 0.5 with the truth under the mask."""
    return float(vg.fsc(volume, truth, mask).resolution_A(0.5))


def trial(kind: str, seed: int) -> dict[str, Any]:
    """One set sieved, and what became of it."""
    p, bad, truth, group = planted(kind, seed)
    symmetry = group if group == "C5" else "C1"
    mask = solvent_mask(truth, diameter_A=0.66 * BOX * PIXEL_A)
    found = vg.sieve(p, mask=mask, symmetry=symmetry, alignability=100, threads=1, listener=None)
    chance = np.random.default_rng((seed, 6)).permutation(COUNT)[: len(found.kept)]
    made = {
        name: vg.reconstruct(q, symmetry, halves=True, threads=1, listener=None)
        for name, q in (("all", p), ("kept", found.kept), ("random", p[np.sort(chance)]))
    }
    row: dict[str, Any] = {"object": group, "kept": len(found.kept), "round": found.round, "seconds": found.seconds}
    for name, (volume, halves) in made.items():
        row[f"{name}_truth_A"] = against(truth, volume, mask)
        row[f"{name}_claimed_A"] = float(vg.postprocess(*halves, mask=mask, threads=1, listener=None).resolution_A)
    # above 1: the half maps claim a finer resolution than the truth grants
    row["claim_ratio"] = row["kept_truth_A"] / row["kept_claimed_A"]
    row["claim_ratio_all"] = row["all_truth_A"] / row["all_claimed_A"]
    row["not_worse"] = bool(row["kept_truth_A"] <= 1.01 * row["all_truth_A"])
    row["random_worse"] = bool(row["random_truth_A"] > row["kept_truth_A"])
    if bad.any():
        row["bad_of_removed"] = float(bad[found.is_removed].mean()) if found.is_removed.any() else None
        for name in ("Gain", "GainHigh", "Quality", "Correlation"):
            values = found.scores[f"verglas{name}"].to_numpy()
            row[f"lost_auc_{name}"] = 1 - auc(values[~bad], values[bad])  # the worst is the largest
        values = -found.scores["verglasResidualZ"].to_numpy()
        row["lost_auc_ResidualZ"] = 1 - auc(values[~bad], values[bad])
    known = found.scores["verglasAlignabilityPrecision"].notna().to_numpy()
    precision, accuracy = (found.scores[f"verglasAlignability{name}"].to_numpy() for name in ("Precision", "Accuracy"))
    for name, rows in (("good", known & ~bad), ("bad", known & bad)):
        if rows.any():
            row[f"elsewhere_{name}"] = Alignability(precision[rows], accuracy[rows]).elsewhere
    for name in ("Precision", "Accuracy"):
        values = found.scores[f"verglasAlignability{name}"].to_numpy()
        row[f"{name.lower()}_good"] = float(np.median(values[known & ~bad]))
        if bad.any():
            row[f"{name.lower()}_bad"] = float(np.median(values[known & bad]))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--only", nargs="*", default=list(EXPERIMENTS))
    parser.add_argument("--name", default="sieve")
    given = parser.parse_args()
    trials = {
        f"{kind} {seed}": partial(trial, kind, seed)
        for seed in range(given.first_seed, given.first_seed + given.seeds)
        for kind in given.only
    }
    collect(given.name, trials, partial(experiment_summary, EXPERIMENTS), given.minutes)


if __name__ == "__main__":
    main()
