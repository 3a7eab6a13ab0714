"""Train the classifiers of micrographs and grid squares (verglas.picking) on simulated ones, and measure their errors.

    python tools/train_screening.py make --seeds 0 40 --minutes 4  # descriptors of 40 micrographs of each kind
    python tools/train_screening.py fit  # weights into the package, errors into bench/results
    python tools/train_screening.py make --of squares --seeds 0 100; ... fit --of squares

``make`` goes on where it stopped, and keeps descriptors in build/screening. Seeds below 1000 train, with phantoms 1 to
6; those from 1000 test, with phantoms 101 to 103. No real image is used in either.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from verglas import simulate
from verglas.picking.grid_squares import square_descriptors
from verglas.picking.screening import KINDS, SQUARE_KINDS, Screening, ScreeningModel, descriptors

ROOT = Path(__file__).resolve().parents[1]
PICKING = ROOT / "python" / "verglas" / "picking"
TEST_FROM = 1000
# Inverse of the penalty: of 0.1, 1, 10, 100 the one of the least cross entropy over seeds of training left out in turn.
STRENGTH = 10.0


def phantom(seed: int) -> simulate.Model:
    """The particle of a seed: its own set for training and for testing."""
    return numbered(101 + seed % 3 if seed >= TEST_FROM else 1 + seed % 6)


@lru_cache
def numbered(number: int) -> simulate.Model:
    """The particle of a number."""
    diameter = 80.0 + 20 * (number % 6)
    return simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=min(diameter, 170.0), seed=number)


@dataclass(frozen=True)
class Subject:
    """What is judged: kinds, how one is made and described, files, and what the card says of the data."""

    kinds: Sequence[str]
    described: Callable[[str, int], dict[str, float]]
    kept: Path
    weights: Path
    errors: Path
    data: str
    command: str = "tools/train_screening.py make, fit"


def of_micrograph(kind: str, seed: int) -> dict[str, float]:
    """Descriptors of a simulated micrograph."""
    return descriptors(simulate.spoilt_micrograph(kind, phantom(seed), seed=seed, shape=(512, 512)))


def of_square(kind: str, seed: int) -> dict[str, float]:
    """Descriptors of a simulated grid square."""
    return square_descriptors(simulate.grid_square(kind, seed=seed))


SUBJECTS = {
    "micrographs": Subject(
        tuple(KINDS),
        of_micrograph,
        ROOT / "build" / "screening",
        PICKING / "screening_weights.json",
        ROOT / "bench" / "results" / "screening.json",
        "verglas.simulate.spoilt_micrograph, 512 x 512 pixels, phantoms 1 to 6",
    ),
    "squares": Subject(
        tuple(SQUARE_KINDS),
        of_square,
        ROOT / "build" / "squares",
        PICKING / "square_weights.json",
        ROOT / "bench" / "results" / "screening_squares.json",
        "verglas.simulate.grid_square, 384 x 384 pixels",
        "tools/train_screening.py make --of squares --seeds 0 21, fit --of squares",
    ),
}


def make(of: Subject, first: int, last: int, minutes: float) -> None:
    """Descriptors of micrographs or squares of every kind."""
    of.kept.mkdir(parents=True, exist_ok=True)
    kept = of.kept / f"{first}_{last}.json"
    done: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    end = time.monotonic() + 60 * minutes
    for seed in range(first, last):
        for kind in of.kinds:
            if f"{kind}|{seed}" not in done and time.monotonic() < end:
                done[f"{kind}|{seed}"] = of.described(kind, seed)
        kept.write_text(json.dumps(done))
    print(len(done), "images")


def fit(of: Subject) -> None:
    """Weights from the seeds that train, errors on those that test."""
    from sklearn.linear_model import LogisticRegression

    done: dict[str, dict[str, float]] = {}
    for kept in sorted(of.kept.glob("*.json")):
        done |= json.loads(kept.read_text())
    names = sorted(next(iter(done.values())))
    split: dict[bool, list[tuple[str, list[float]]]] = {False: [], True: []}
    for key, values in done.items():
        kind, seed = key.split("|")
        split[int(seed) >= TEST_FROM].append((kind, [values[name] for name in names]))
    features = np.array([values for _, values in split[False]])
    labels = np.array([kind for kind, _ in split[False]])
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    machine = LogisticRegression(C=STRENGTH, max_iter=5000).fit((features - mean) / scale, labels)
    record: dict[str, Any] = {
        "names": names,
        "kinds": machine.classes_.tolist(),
        "mean": np.round(mean, 5).tolist(),
        "scale": np.round(scale, 5).tolist(),
        "weights": np.round(machine.coef_, 4).tolist(),
        "bias": np.round(machine.intercept_, 4).tolist(),
        "card": {
            "data": of.data,
            of.kept.name.replace("screening", "micrographs"): len(labels),
            "command": of.command,
            "errors": str(of.errors.relative_to(ROOT)),
        },
    }
    of.weights.write_text(json.dumps(record, indent=1) + "\n")
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
    errors["good_flagged"] = flagged["good"] / max(len(said.get("good", ())), 1)
    errors["bad_not_flagged"] = 1 - sum(flagged[kind] for kind in said if kind != "good") / max(len(bad), 1)
    errors |= roc([(kind, model.probabilities(dict(zip(names, x, strict=True)))["good"]) for kind, x in split[True]])
    of.errors.write_text(json.dumps(errors, indent=1) + "\n")
    print(json.dumps(errors, indent=1))


def roc(judged: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """How well the probability of being good tells good from spoilt: area, and what is passed at what is lost."""
    from sklearn.metrics import roc_auc_score, roc_curve

    good, chance = [kind == "good" for kind, _ in judged], [value for _, value in judged]
    if len(set(good)) < 2:
        return {}
    passed, kept, _ = roc_curve(good, chance)
    places = {f"bad_passed_where_{100 * share:g}_percent_of_good_are_kept": share for share in (0.9, 0.95, 0.98, 1.0)}
    return {"area_under_roc": float(roc_auc_score(good, chance))} | {
        name: float(passed[np.argmax(kept >= share)]) for name, share in places.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("make", "fit"))
    parser.add_argument("--of", choices=tuple(SUBJECTS), default="micrographs")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 40))
    parser.add_argument("--minutes", type=float, default=4.0)
    given = parser.parse_args()
    if given.what == "fit":
        fit(SUBJECTS[given.of])
    else:
        make(SUBJECTS[given.of], *given.seeds, given.minutes)


if __name__ == "__main__":
    main()
