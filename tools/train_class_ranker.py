"""Train the ranker of 2D classes (verglas.classification.ranking) on classifications of simulated boxes.

    python tools/train_class_ranker.py make --seeds 0 120 --minutes 4  # classifications, kept in build/class_ranker
    python tools/train_class_ranker.py fit  # weights with their card into the package
    python tools/train_class_ranker.py test  # against the rules of select --auto: bench/results/class_ranker.json

A classification is of 160 or 200 boxes of one phantom mixed with what pickers take beside it
(:func:`verglas.simulate.mixed_particles`), in shares and at an SNR of its seed. Seeds below 1000 train, with phantoms
of the kinds TRAINED; those from 1000 test, with kinds that no training saw. A class is good where at least half of its
boxes hold a particle in the middle. ``make`` goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import verglas as vg
from verglas import simulate
from verglas.classification import select_classes
from verglas.classification.ranking import class_descriptors, particle_scores, ranker_weights
from verglas.io import write_json
from verglas.learned import Perceptron
from verglas.learned.perceptron import fit_perceptron

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "class_ranker"
WEIGHTS = ROOT / "python" / "verglas" / "learned" / "packaged" / "class_ranker.json"
RESULT = ROOT / "bench" / "results" / "class_ranker.json"
TEST_FROM = 1000
TRAINED, HELD_OUT = ("globule", "rod", "disc", "ring", "shell"), ("dumbbell", "arch", "cone")
HIDDEN, DECAY = 6, 3.0
N, BOX, CLASSES = 160, 22, 5
FIRST, FIRST_SEEDS = (200, 24, 6), (9, 4, 0)  # somewhat larger ones, of the first seeds that train and that test
LARGE_FROM, LARGE = 2000, (400, 32, 8)  # seeds of larger classifications, which only test
SNR, DIAMETER_A = (0.05, 0.6), (90.0, 220.0)


def scene(seed: int) -> dict[str, Any]:
    """What is classified: phantom, size, SNR and shares, all of the seed."""
    rng = np.random.default_rng(seed)
    kinds = HELD_OUT if seed >= TEST_FROM else TRAINED
    diameter_A = float(np.exp(rng.uniform(*np.log(DIAMETER_A))))
    n, box, classes = FIRST if seed % TEST_FROM < FIRST_SEEDS[seed // TEST_FROM] else (N, BOX, CLASSES)
    if seed >= LARGE_FROM:
        n, box, classes = LARGE
    pixel_A = diameter_A * float(rng.uniform(1.4, 1.9)) / box
    shares = {"particle": float(rng.uniform(0.2, 0.9))}
    # A picker's misses are mostly of a few kinds.
    junk = rng.choice(simulate.BOX_KINDS[1:], int(rng.integers(1, 5)), replace=False)
    for name, share in zip(junk, rng.dirichlet(np.ones(len(junk))), strict=True):
        shares[str(name)] = (1 - shares["particle"]) * float(share)
    shape = kinds[int(rng.integers(len(kinds)))]
    return {
        "model": simulate.phantom(48, diameter_A / 32, diameter_A, seed=5000 + seed, shape=shape),
        "fragment": simulate.phantom(48, diameter_A / 32, diameter_A * rng.uniform(0.35, 0.6), seed=9000 + seed),
        "pixel_size_A": pixel_A,
        "shares": shares,
        "snr": float(np.exp(rng.uniform(*np.log(SNR)))),
        "diameter_A": diameter_A * float(rng.uniform(0.95, 1.2)),
        "null_class": bool(rng.random() < 0.7),
        "shape": shape,
        "n": n,
        "box": box,
        "classes": classes,
    }


def classify(seed: int, end: float) -> None:
    """One classification, kept as a file."""
    path = KEPT / f"{seed}.npz"
    if path.exists() or time.time() > end:
        return
    of = scene(seed)
    boxes, kind = simulate.mixed_particles(
        of["model"],
        of["n"],
        of["box"],
        of["pixel_size_A"],
        of["shares"],
        snr=of["snr"],
        fragment=of["fragment"],
        imaging=simulate.Imaging(shift_sd_A=of["diameter_A"] / 40),
        seed=seed,
        threads=1,
    )
    found = vg.classify2d(
        boxes,
        classes=of["classes"],
        diameter_A=of["diameter_A"],
        max_resolution_A=3 * of["pixel_size_A"],
        initial_resolution_A=max(30.0, 5 * of["pixel_size_A"]),
        iterations=4,
        null_class=of["null_class"],
        threads=1,
        listener=None,
    )
    rows = found.particles.table
    kept = {name: rows[f"rln{name}"].to_numpy() for name in ("MaxValueProbDistribution", "LogLikeliContribution")}
    np.savez_compressed(
        path,
        averages=found.averages.astype(np.float16),
        table=found.table.to_json(),
        labels=found.labels,
        kind=np.delete(kind, sorted(found.set_aside)),
        pixel_size_A=found.pixel_size_A,
        diameter_A=of["diameter_A"],
        signal=found.signal,
        empty_class=found.empty_class or 0,
        scene=json.dumps({name: value for name, value in of.items() if name not in ("model", "fragment")}),
        **kept,
    )


def make(first: int, last: int, minutes: float, processes: int) -> None:
    """Classifications of the seeds, and after every second one that of a seed that tests."""
    KEPT.mkdir(parents=True, exist_ok=True)
    order = [seed for one in range(first, last) for seed in (one, *([TEST_FROM + one // 2] if one % 2 else []))]
    if first >= TEST_FROM:
        order = list(range(first, last))
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(partial(classify, end=time.time() + 60 * minutes), order))
    print(len(list(KEPT.glob("*.npz"))), "classifications")


def load_kept(test: bool) -> list[dict[str, Any]]:
    """Descriptors, labels and boxes of every class of the kept classifications."""
    out = []
    for path in sorted(KEPT.glob("*.npz"), key=lambda one: int(one.stem)):
        if (int(path.stem) >= TEST_FROM) != test:
            continue
        file = np.load(path)
        table = pd.read_json(StringIO(str(file["table"])))
        rows = pd.DataFrame(
            {f"rln{name}": file[name] for name in ("MaxValueProbDistribution", "LogLikeliContribution")}
        )
        rows["rlnClassNumber"] = file["labels"] + 1
        empty = int(file["empty_class"]) or None
        found = class_descriptors(file["averages"].astype(np.float32), table, rows, empty)
        right = np.bincount(file["labels"] + 1, file["kind"] == 0, table["class"].max() + 1)
        out.append(
            {
                "seed": int(path.stem),
                "descriptors": found,
                "rows": rows,
                "size": np.bincount(file["labels"] + 1, minlength=len(right)),
                "right": right,
                "right_boxes": file["kind"] == 0,
                "of": float((file["kind"] == 0).sum()),
                "rules": select_classes(table, signal=bool(file["signal"]), empty_class=empty).classes,
                "large": int(path.stem) >= LARGE_FROM,
                "shape": json.loads(str(file["scene"]))["shape"],
            }
        )
    return out


def train(sets: list[dict[str, Any]], seed: int) -> Perceptron:
    """The network of these classifications."""
    names = list(sets[0]["descriptors"].columns)
    values = pd.concat([one["descriptors"] for one in sets])[names].to_numpy(float)
    purity = np.concatenate([(one["right"] / np.maximum(one["size"], 1))[one["descriptors"].index] for one in sets])
    size = np.concatenate([one["size"][one["descriptors"].index] for one in sets])
    # Large classes count more, but not by all their particles.
    return fit_perceptron(names, values, purity >= 0.5, np.sqrt(size), hidden=HIDDEN, decay=DECAY, seed=seed)


def figures(sets: list[dict[str, Any]], chosen: list[list[int]]) -> dict[str, float]:
    """Particles right among those kept, kept among all particles, their F; wrong classes; mean of the sets' F."""
    kept_, right, of = (0.0, 0.0, 0.0)
    wrong = classes = 0
    each = []
    for one, numbers in zip(sets, chosen, strict=True):
        taken, hits = one["size"][numbers].sum(), one["right"][numbers].sum()
        kept_, right, of = kept_ + taken, right + hits, of + one["of"]
        each.append(2 * hits / max(taken + one["of"], 1))
        index = one["descriptors"].index
        good = (one["right"] / np.maximum(one["size"], 1))[index] >= 0.5
        wrong += int((good != np.isin(index, numbers)).sum())
        classes += len(index)
    return {
        "precision": right / max(kept_, 1),
        "recall": right / of,
        "f": 2 * right / (kept_ + of),
        "mean_f": float(np.mean(each)),
        "classes": classes,
        "classes_wrong": wrong,
    }


def choose_classes(ranker: Perceptron, one: dict[str, Any], threshold: float) -> list[int]:
    """Classes that a ranker keeps."""
    found = one["descriptors"]
    return (
        found.index[ranker.probabilities(found[ranker.names].to_numpy(float)) >= threshold].tolist()
        if len(found)
        else []
    )


def cross_validated(sets: list[dict[str, Any]], seed: int, folds: int = 5) -> dict[float, dict[str, float]]:
    """Figures on classifications left out of training, by threshold."""
    held = [train([s for n, s in enumerate(sets) if n % folds != fold], seed) for fold in range(folds)]
    return {
        threshold: figures(sets, [choose_classes(held[n % folds], one, threshold) for n, one in enumerate(sets)])
        for threshold in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    }


def fit(seed: int) -> None:
    """The network of all of the training's classifications, and what cross-validation says of it."""
    sets = [one for one in load_kept(test=False) if len(one["descriptors"])]
    by_threshold = cross_validated(sets, seed)
    ranker = train(sets, seed)
    card = {
        "name": "class ranker",
        "weights": ranker.hidden.size + 2 * HIDDEN + 1,
        "data": f"{len(sets)} classifications of {N} or {FIRST[0]} boxes of simulated particles and junk, in "
        f"{CLASSES} or {FIRST[2]} classes",
        "kinds": TRAINED,
        "kinds_never_seen": HELD_OUT,
        "classes": int(sum(len(one["descriptors"]) for one in sets)),
        "seed": seed,
        "command": f"tools/train_class_ranker.py make --seeds 0 {sets[-1]['seed'] + 1}; fit --seed {seed}",
        "cross_validated": by_threshold[0.5],
        "rules_on_the_same": figures(sets, [one["rules"] for one in sets]),
        "held_out": "bench/results/class_ranker.json",
    }
    write_json(WEIGHTS, replace(ranker, card=card).as_dict())
    print(json.dumps({str(k): v for k, v in by_threshold.items()} | {"card": card}, indent=1))


def test() -> None:
    """The shipped ranker and the rules on kinds that no training saw."""
    ranker, sets = ranker_weights(), load_kept(test=True)
    rows = [row for large in (False, True) for row in compare(ranker, [one for one in sets if one["large"] == large])]
    write_json(RESULT, {"rows": rows})
    print(json.dumps(rows, indent=1))


def compare(ranker: Perceptron, sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures of the ranker and of the rules by kind, the gain per classification, and sorting."""
    if len(sets) < 2:
        return []
    chosen = {
        "rules": [one["rules"] for one in sets],
        "network": [choose_classes(ranker, one, ranker.threshold) for one in sets],
    }
    rows: list[dict[str, Any]] = []
    for shape in ("all", *HELD_OUT):
        those = [n for n, one in enumerate(sets) if shape in ("all", one["shape"])]
        for name, numbers in chosen.items():
            if those:
                figures_ = figures([sets[n] for n in those], [numbers[n] for n in those])
                boxes = int(np.median([sets[n]["size"].sum() for n in those]))
                rows.append({"shape": shape, "by": name, "classifications": len(those), "boxes": boxes} | figures_)
    each = {name: per_set(sets, numbers) for name, numbers in chosen.items()}
    gain = np.array(each["network"]) - np.array(each["rules"])
    rows.append(
        {
            "what": "mean gain of F per classification, network over rules",
            "gain": float(gain.mean()),
            "standard_error": float(gain.std(ddof=1) / np.sqrt(len(gain))),
            "better": int((gain > 0.01).sum()),
            "worse": int((gain < -0.01).sum()),
        }
    )
    return [*rows, sorting(ranker, sets)]


def per_set(sets: list[dict[str, Any]], chosen: list[list[int]]) -> list[float]:
    """F of each classification."""
    return [figures([one], [numbers])["f"] for one, numbers in zip(sets, chosen, strict=True)]


def sorting(ranker: Perceptron, sets: list[dict[str, Any]]) -> dict[str, Any]:
    """Areas under the curve of particles right against the rest, by what they are sorted by; means over the sets."""
    from sklearn.metrics import roc_auc_score

    areas: dict[str, list[float]] = {"class alone": [], "score": [], "likelihood": [], "probability": []}
    for one in sets:
        rows = one["rows"]
        if 0 < one["right_boxes"].sum() < len(rows):
            chance = pd.Series(0.0, index=range(1, len(one["size"])))
            chance.loc[one["descriptors"].index] = ranker.probabilities(
                one["descriptors"][ranker.names].to_numpy(float)
            )
            by = {
                "class alone": chance.loc[rows["rlnClassNumber"]].to_numpy(),
                "score": particle_scores(rows, chance),
                "likelihood": rows["rlnLogLikeliContribution"],
                "probability": rows["rlnMaxValueProbDistribution"],
            }
            for name, values in by.items():
                areas[name].append(float(roc_auc_score(one["right_boxes"], values)))
    return {"what": "area under the curve, particles sorted"} | {k: float(np.mean(v)) for k, v in areas.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "fit", "test"))
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 120))
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the network's first weights")
    given = parser.parse_args()
    if given.what == "make":
        make(*given.seeds, given.minutes, given.processes)
    elif given.what == "fit":
        fit(given.seed)
    else:
        test()


if __name__ == "__main__":
    main()
