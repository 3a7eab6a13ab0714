"""Train the classifier of micrographs (verglas.picking.screening) on simulated ones, and measure its errors.

    python tools/train_screening.py make --seeds 0 40 --minutes 4  # descriptors of 40 micrographs of each kind
    python tools/train_screening.py fit  # weights into the package, errors into bench/results

``make`` goes on where it stopped, and keeps descriptors in build/screening. Seeds below 1000 train, with phantoms 1 to
6; those from 1000 test, with phantoms 101 to 103. No real image is used in either.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from verglas import simulate
from verglas.picking.screening import KINDS, Screening, ScreeningModel, descriptors

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "screening"
WEIGHTS = ROOT / "python" / "verglas" / "picking" / "screening_weights.json"
TEST_FROM = 1000


def phantom(seed: int) -> simulate.Model:
    """The particle of a seed: its own set for training and for testing."""
    number = 101 + seed % 3 if seed >= TEST_FROM else 1 + seed % 6
    diameter = 80.0 + 20 * (number % 6)
    return simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=min(diameter, 170.0), seed=number)


def make(first: int, last: int, minutes: float) -> None:
    """Descriptors of micrographs of every kind."""
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"{first}_{last}.json"
    done: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    end = time.monotonic() + 60 * minutes
    for seed in range(first, last):
        for kind in KINDS:
            if f"{kind}|{seed}" not in done and time.monotonic() < end:
                made = simulate.spoilt_micrograph(kind, phantom(seed), seed=seed, shape=(512, 512))
                done[f"{kind}|{seed}"] = descriptors(made)
    kept.write_text(json.dumps(done))
    print(len(done), "micrographs")


def fit() -> None:
    """Weights from the seeds that train, errors on those that test."""
    from sklearn.linear_model import LogisticRegression

    done: dict[str, dict[str, float]] = {}
    for kept in sorted(KEPT.glob("*.json")):
        done |= json.loads(kept.read_text())
    names = sorted(next(iter(done.values())))
    split: dict[bool, list[tuple[str, list[float]]]] = {False: [], True: []}
    for key, values in done.items():
        kind, seed = key.split("|")
        split[int(seed) >= TEST_FROM].append((kind, [values[name] for name in names]))
    features = np.array([values for _, values in split[False]])
    labels = np.array([kind for kind, _ in split[False]])
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    machine = LogisticRegression(C=1.0, max_iter=5000).fit((features - mean) / scale, labels)
    record: dict[str, Any] = {
        "names": names,
        "kinds": machine.classes_.tolist(),
        "mean": np.round(mean, 5).tolist(),
        "scale": np.round(scale, 5).tolist(),
        "weights": np.round(machine.coef_, 4).tolist(),
        "bias": np.round(machine.intercept_, 4).tolist(),
        "card": {
            "data": "verglas.simulate.spoilt_micrograph, 512 x 512 pixels, phantoms 1 to 6",
            "micrographs": len(labels),
            "command": "tools/train_screening.py make, fit",
            "errors": "bench/results/screening.json",
        },
    }
    WEIGHTS.write_text(json.dumps(record, indent=1) + "\n")
    model = ScreeningModel.of(record)
    errors = {"trained_on": len(labels), "tested_on": len(split[True]), "kinds": {}}
    said: dict[str, list[str]] = {}
    flagged: Counter[str] = Counter()  # by the rule that users meet, which asks for more than another likeliest kind
    for kind, values in split[True]:
        chances = model.probabilities(dict(zip(names, values, strict=True)))
        said.setdefault(kind, []).append(max(chances, key=lambda one: chances[one]))
        flagged[kind] += bool(Screening(said[kind][-1], chances).reason)
    for kind, those in said.items():
        errors["kinds"][kind] = {
            "micrographs": len(those),
            "taken_for_good": those.count("good"),
            "named_right": those.count(kind),
            "flagged": flagged[kind],
        }
    bad = [one for kind, those in said.items() if kind != "good" for one in those]
    errors["good_rejected"] = 1 - said["good"].count("good") / len(said["good"]) if "good" in said else None
    errors["bad_accepted"] = bad.count("good") / len(bad) if bad else None
    (ROOT / "bench" / "results" / "screening.json").write_text(json.dumps(errors, indent=1) + "\n")
    print(json.dumps(errors, indent=1))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("make", "fit"))
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 40))
    parser.add_argument("--minutes", type=float, default=4.0)
    given = parser.parse_args()
    if given.what == "fit":
        fit()
    else:
        make(*given.seeds, given.minutes)


if __name__ == "__main__":
    main()
