"""A refinement that begins with part of the particles (``first_particles``) beside one that takes all: time to one map.

    python bench/bench_growing.py --seeds 3 --minutes 4       goes on where an earlier call stopped

Particles of 24 px, 4 A, SNR 0.15, from the truth at 25 A, poses unknown; no symmetry, C1 refinements throughout. After
each iteration: seconds of processor so far, and FSC 0.5 of the half maps' mean with the truth. A map is "reached" at
the first iteration whose resolution is within 1 % of the better of the two final ones; seconds up to there are
compared.
Development used seeds below 50; the committed rows begin at seed 300.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import verglas as vg
from verglas.filters import apply, low_pass
from verglas.refinement import schedule
from verglas.refinement.em import Iteration, initial_state, refine_state
from verglas.refinement.settings import RefineSettings
from verglas.refinement.start import make_problem
from verglas.refinement.state import State
from verglas.search.problem import survey
from verglas.search.step import Step

from common import collect, experiment_summary

BOX, PIXEL_A, SNR, FIRST_SEED = 24, 4.0, 0.15, 300
DIAMETER_A = 62.0
SHAPES = ("globule", "rod", "arch")
WITHIN = 1.01


def course(particles: vg.Particles, truth: vg.Map, first: int | None, seed: int) -> dict[str, Any]:
    """Seconds of processor and resolution against the truth after each iteration."""
    settings = RefineSettings(
        diameter_A=1.1 * DIAMETER_A, initial_resolution_A=25.0, first_particles=first, iterations=15, seed=seed
    )
    inspected = survey(particles, threads=1)
    problem = make_problem(particles, inspected.excluded, settings, threads=1)
    state, _ = initial_state(problem, inspected.power, [apply(truth, low_pass(25.0))])
    seconds: list[float] = []
    resolution: list[float] = []
    asked = [0.0]
    began = time.process_time()

    def after(_: State, made: Iteration, __: Step | None) -> None:
        now = time.process_time()
        seconds.append(now - began - asked[0])
        volume = vg.Map(made.maps[0].raw.mean(axis=0), PIXEL_A)
        resolution.append(float(vg.fsc(volume, truth).resolution_A(0.5)))
        asked[0] += time.process_time() - now  # what is asked here is no part of the refinement

    state, _ = refine_state(problem, state, schedule.first_step(problem), after=after)
    figures = state.figures
    return {
        "seconds": seconds,
        "resolution_A": resolution,
        "claimed_A": figures[-1].resolution_A,
        "particles": [one.particles for one in figures],
        "phases": [one.phase for one in figures],
    }


def trial(seed: int, count: int, first: int) -> dict[str, Any]:
    """Both on the same particles; which comes first takes turns."""
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=seed, shape=SHAPES[seed % len(SHAPES)])
    imaging = {"envelope_b_factor_A2": 120.0, "shift_sd_A": 3.0}
    particles = vg.simulate.particles(model, count, BOX, PIXEL_A, SNR, seed=seed, listener=None, **imaging)
    truth = vg.simulate.density(model, BOX, PIXEL_A, b_factor_A2=120.0)
    names = [("all", None), ("growing", first)]
    made = {name: course(particles, truth, begin, seed) for name, begin in (names if seed % 2 else names[::-1])}
    goal = WITHIN * min(one["resolution_A"][-1] for one in made.values())
    row: dict[str, Any] = {"shape": SHAPES[seed % len(SHAPES)]}
    for name, one in made.items():
        there = np.flatnonzero(np.array(one["resolution_A"]) <= goal)
        row[f"{name}_reached_s"] = one["seconds"][there[0]] if len(there) else float("nan")
        row[f"{name}_whole_s"] = one["seconds"][-1]
        row[f"{name}_truth_A"] = one["resolution_A"][-1]
        row[f"{name}_claimed_A"] = one["claimed_A"]
        row[f"{name}_iterations"] = len(one["seconds"])
        row[f"{name}_course"] = " ".join(
            f"{phase}:{number}:{s:.1f}s:{r:.2f}A"
            for phase, number, s, r in zip(
                one["phases"], one["particles"], one["seconds"], one["resolution_A"], strict=True
            )
        )
    row["reached_ratio"] = row["growing_reached_s"] / row["all_reached_s"]
    row["whole_ratio"] = row["growing_whole_s"] / row["all_whole_s"]
    row["truth_ratio"] = row["growing_truth_A"] / row["all_truth_A"]
    return row


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Numbers alone: courses are text."""
    plain = {key: {k: v for k, v in row.items() if not isinstance(v, str)} for key, row in done.items()}
    return experiment_summary(sorted({key.split()[0] for key in plain}), plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first-particles", type=int, default=125)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--name", default="growing")
    given = parser.parse_args()
    trials: dict[str, Callable[[], dict[str, Any]]] = {
        f"growing {seed} of {given.count} from {given.first_particles}": partial(
            trial, seed, given.count, given.first_particles
        )
        for seed in range(given.first_seed, given.first_seed + given.seeds)
    }
    collect(given.name, trials, summary, given.minutes, box=BOX, pixel_size_A=PIXEL_A, snr=SNR)


if __name__ == "__main__":
    main()
