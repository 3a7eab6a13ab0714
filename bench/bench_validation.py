"""The questions of ``verglas validate`` on unseen half maps: planted faults that are named, and false alarms.

    python bench/bench_validation.py --seeds 20

Half maps are phantoms (C1, D2, C4) of 64 voxels, blurred by B = 250 to 500 A^2, with white noise of 1 to 3 standard
deviations of the signal over the box. ``shared``: a tenth, 55, 75 or 95 % of the noise's power is common. ``to
Nyquist``: B = 20 to 60 A^2 and noise of 0.2 to 0.6, so that the FSC stays above 0.5, clean or with 60 % of the noise
common. Seeds begin at 2520; development used 0 to 3 and 1000 to 1019, earlier versions were measured at 2000 to 2039.
"""

from __future__ import annotations

import argparse

import numpy as np

import verglas as vg
from verglas.assessment.validation import judge_independence, judge_mask, judge_shared_noise, judge_signal
from verglas.types.verdict import Finding

from common import write

BOX, PIXEL_A, FIRST_SEED = 64, 2.0, 2520
SYMMETRIES = ("C1", "D2", "C4")


SHARED = {"shared particles": 0.1, "shared 55 %": 0.55, "shared 75 %": 0.75, "shared 95 %": 0.95}


def half_maps(
    seed: int, shared: float = 0.0, signal: float = 1.0, *, to_nyquist: bool = False
) -> tuple[vg.Map, list[vg.Map]]:
    b_factors_A2, noises = ((20, 60), (0.2, 0.6)) if to_nyquist else ((250, 500), (1, 3))
    rng = np.random.default_rng(seed)
    model = vg.simulate.phantom(BOX, PIXEL_A, rng.uniform(70, 100), SYMMETRIES[seed % 3], seed)
    truth = vg.simulate.density(model, BOX, PIXEL_A, b_factor_A2=rng.uniform(*b_factors_A2))
    own, other, both = rng.normal(size=(3, BOX, BOX, BOX)) * rng.uniform(*noises) * truth.data.std()
    kept = np.sqrt(1 - shared)
    return truth, [truth.with_data(signal * truth.data + kept * n + np.sqrt(shared) * both) for n in (own, other)]


def mask_finding(truth: vg.Map, halves: list[vg.Map], level: float, edge_A: float) -> Finding:
    binary = truth.data > np.quantile(truth.data, level)
    mask = truth.with_data(vg.masks.soft_edge(binary, edge_A / PIXEL_A))
    done = vg.postprocess(*halves, mask, listener=None)
    if done.phase_randomised is None:
        return Finding("mask", "go on", "", {})
    curve = done.phase_randomised
    return judge_mask(curve.frequency_per_A, curve.curve, done.masked.resolution_A(), done.randomised_from_A)


def findings_of(case: str, seed: int) -> list[Finding]:
    if case.startswith("to Nyquist"):
        _, halves = half_maps(seed, shared=0.6 if case.endswith("shared") else 0.0, to_nyquist=True)
        return [judge_independence(*halves), judge_shared_noise(*halves), judge_signal(*halves)]
    truth, halves = half_maps(seed, shared=SHARED.get(case, 0.0), signal=0.0 if case == "noise only" else 1.0)
    if case == "one map twice":
        return [judge_independence(halves[0], halves[0].with_data(2 * halves[0].data))]
    if case == "tight mask":
        return [mask_finding(truth, halves, 0.97, 0.0)]
    questions = [judge_independence(*halves), judge_shared_noise(*halves), judge_signal(*halves)]
    return questions if case != "clean" else [*questions, mask_finding(truth, halves, 0.85, 15.0)]


def main(seeds: int) -> None:
    expected = {
        "clean": "",
        "noise only": "signal-in-halves",
        **dict.fromkeys(SHARED, "shared-noise"),
        "to Nyquist": "",
        "to Nyquist, shared": "shared-noise",
        "one map twice": "independent-halves",
        "tight mask": "mask",
    }
    rows = []
    for case, code in expected.items():
        named, others, number = 0, 0, seeds if code else 2 * seeds
        for seed in range(FIRST_SEED, FIRST_SEED + number):
            alarms = [f.code for f in findings_of(case, seed) if f.state != "go on"]
            named += code in alarms
            others += any(alarm != code for alarm in alarms)
        rows.append({"case": case, "maps": number, "named": named if code else None, "other_alarms": others})
    write("validation", rows, box=BOX, pixel_size_A=PIXEL_A, first_seed=FIRST_SEED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    main(parser.parse_args().seeds)
