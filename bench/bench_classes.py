"""Classes over all poses, from one map: particles in the right class, and how far the shares are off.

Every trial is one kind of object and one seed, which draws phantoms, poses and noise; none of the seeds was used in
development (``--first-seed``; development used 1 to 3). Trials are kept after each, and a run goes on where the last
one stopped::

    python bench/bench_classes.py --seeds 10 --minutes 9

64 px of 3 A, 400 particles of 130 A without poses (``--particles``: of others, results/classes_<number>.json),
SNR 0.05 over the whole box, data to 15 A; the one map given is that of the first structure, which the job low-passes to
30 A.

hinge   three conformations, 50/30/20 %: a half turned by 40 and by -45 degrees
unlike  three particles that have nothing in common, 50/30/20 %
two     two conformations, 50/50 %: a half turned by 40 degrees

``known`` is what the true maps alone tell: particles in the right class under them, low-passed to 15 A, over the same
poses; no classification is to be expected to do better.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg
from verglas.filters import apply, low_pass
from verglas.heterogeneity.classes import ClassPass, make_problem
from verglas.heterogeneity.settings import ClassSettings
from verglas.refinement.schedule import make_step
from verglas.search.state import HalfModel, PoseTable
from verglas.simulate import Model, hinge, phantom

BOX, PIXEL_A, N, SNR, RESOLUTION_A, DIAMETER_A = 64, 3.0, 400, 0.05, 15.0, 150.0
RESULT = Path(__file__).parent / "results" / "classes.json"
THREE = (0.5, 0.3, 0.2)
STARTS = "about the images' centres"  # the present way; trials of an earlier one are kept, and not counted
POSE_COLUMNS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


def states_of(kind: str, seed: int) -> tuple[list[Model], tuple[float, ...]]:
    """Structures of a kind of object, and their shares."""
    first = phantom(BOX, PIXEL_A, 130.0, seed=seed)
    if kind == "hinge":
        return [first, hinge(first, 40), hinge(first, -45, axis=(0, 1, 0), side=(0, 0, 1))], THREE
    if kind == "unlike":
        return [first, *(phantom(BOX, PIXEL_A, 130.0, seed=seed + 1000 * i) for i in (1, 2))], THREE
    return [first, hinge(first, 40)], (0.5, 0.5)


KINDS = ("hinge", "unlike", "two")


def matching(number: np.ndarray, truth: np.ndarray, count: int) -> np.ndarray:
    """True class of each class that was made, matched in the best way."""
    return np.array(max(permutations(range(count)), key=lambda p: np.mean(np.array(p)[number] == truth)))


def known(particles: vg.Particles, models: list[Model], shares: tuple[float, ...], truth: np.ndarray) -> float:
    """Share of particles in the right class under the true maps."""
    settings = ClassSettings(resolution_A=RESOLUTION_A, diameter_A=DIAMETER_A)
    problem, power, _ = make_problem(particles, settings, threads=None, devices=("cpu",))
    maps = [apply(vg.simulate.density(m, BOX, PIXEL_A), low_pass(RESOLUTION_A)).data for m in models]
    sigma2 = power.mean(axis=0, dtype=np.float64)[None]
    sigma2[:, 0] = sigma2[:, 1]
    model = HalfModel(np.stack(maps), sigma2, np.ones(problem.n_micrographs), np.array(shares))
    step = make_step(problem, "grid", problem.last_radius, 3, 9.0 / PIXEL_A)
    passed = ClassPass(problem, model, problem.sphere, replace(step, split=False))
    posterior = passed.evaluate(np.arange(len(problem)), PoseTable.unknown(len(problem)))[0]
    return float(np.mean(posterior.argmax(axis=1) == truth))


def trial(kind: str, seed: int, count: int, *, with_known: bool) -> dict[str, Any]:
    """One object, one seed."""
    models, shares = states_of(kind, seed)
    particles = vg.simulate.particles(
        models, count, BOX, PIXEL_A, snr=SNR, seed=seed, populations=shares, listener=None
    )
    particles = particles.with_columns(**dict.fromkeys(POSE_COLUMNS))
    truth = particles.table["rlnClassNumber"].to_numpy(np.int64) - 1
    one = vg.simulate.density(models[0], BOX, PIXEL_A)
    settings = {"resolution_A": RESOLUTION_A, "diameter_A": DIAMETER_A, "listener": None}
    begun = time.process_time()
    made = vg.classify3d(particles, one, classes=len(models), **settings)
    seconds = time.process_time() - begun
    number = made.particles.table["rlnClassNumber"].to_numpy(np.int64) - 1
    to_true = matching(number, truth, len(models))
    found = np.bincount(to_true, made.shares, minlength=len(models))
    drawn = np.bincount(truth, minlength=len(models)) / len(truth)
    row = {
        "right": float(np.mean(to_true[number] == truth)),
        "share_error": float(np.abs(found - drawn).max()),
        "gain_nats": made.trials[-1]["gain_over_one_nats"],
        "gain_error_nats": made.trials[-1]["gain_over_one_error_nats"],
        "processor_seconds": round(seconds, 1),
        "starts": STARTS,
    }
    return row | ({"known": known(particles, models, shares, truth)} if with_known else {})


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and largest of every figure of every kind, of trials with the present starts."""
    made: dict[str, Any] = {}
    for kind in KINDS:
        rows = [t for t in trials if (t["kind"], t["starts"]) == (kind, STARTS)]
        for name in ("right", "share_error", "known", "processor_seconds"):
            values = np.array([t[name] for t in rows if name in t])
            if len(values):
                figures = {"median": np.median(values), "least": values.min(), "largest": values.max()}
                made.setdefault(kind, {"seeds": len(rows)})[name] = {k: float(v) for k, v in figures.items()}
    return made


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--particles", type=int, default=N)
    parser.add_argument("--known", action="store_true", help="also what the true maps alone tell")
    parser.add_argument("--out", type=Path, help="results/classes.json by default, of another number its own")
    asked = parser.parse_args()
    asked.out = asked.out or (RESULT if asked.particles == N else RESULT.with_stem(f"classes_{asked.particles}"))
    end = time.monotonic() + 60 * asked.minutes
    for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
        for kind in asked.kinds:
            trials = json.loads(asked.out.read_text())["trials"] if asked.out.is_file() else []
            if (kind, seed, STARTS) in {(t["kind"], t["seed"], t["starts"]) for t in trials} or time.monotonic() > end:
                continue
            row = {"kind": kind, "seed": seed} | trial(kind, seed, asked.particles, with_known=asked.known)
            # Read again: another process may have added its trials meanwhile.
            trials = json.loads(asked.out.read_text())["trials"] if asked.out.is_file() else []
            trials.append(row)
            record = {
                "verglas": vg.__version__,
                "particles": asked.particles,
                "box": BOX,
                "pixel_size_A": PIXEL_A,
                "snr": SNR,
            }
            asked.out.write_text(json.dumps(record | {"summary": summary(trials), "trials": trials}, indent=1) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
