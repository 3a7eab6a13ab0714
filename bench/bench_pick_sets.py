"""Picking without templates on real sets and simulated kinds: F, precision, recall, processor time.

Writes bench/results/pick_<part>.json for each part asked for: ``apoferritin``, ``betagal``, ``kinds``, ``noise``,
``features`` (the classical pickers by features on the first three, and on apoferritin by 15 clicks); each goes
on where it stopped (``trials`` in the file says what was run).
Settings were chosen on 40 fields of noise of other seeds, on the apoferritin micrographs, on the beta-galactosidase
micrographs of DEVELOPMENT, on GroEL and on ellipsoids, bricks and balls; the other micrographs and kinds are held out.
Pairs lie within a third of the diameter (30 px on apoferritin). Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

import verglas as vg
from verglas import simulate
from verglas.picking import PickMerit, compare_picks, inside, pick_detailed, teach
from verglas.picking.features import FEATURE_METHODS

from common import ROOT, collect

DATA = ROOT.parent / "shared" / "data"
DEVELOPMENT = (
    "Falcon_2012_06_12-14_57_34_0",
    "Falcon_2012_06_12-15_14_01_0",
    "Falcon_2012_06_12-15_27_22_0",
    "Falcon_2012_06_12-15_33_42_0",
)
METHODS = ("automatic", "log", "reference-free")
COMPARED = ("automatic", "reference-free")  # those that `verglas process` could pick with by default


def measured(method, micrograph, true, diameter_A, margin_px, radius_px, examples=None) -> dict:
    """Counts of one micrograph with true centres."""
    started = time.process_time()
    result = pick_detailed(micrograph, diameter_A, method=method, examples=examples, threads=1)
    seconds = time.process_time() - started
    mine = result.picks.xy_px
    merit = compare_picks(
        mine[inside(mine, micrograph.shape, margin_px)], true[inside(true, micrograph.shape, margin_px)], radius_px
    )
    return {
        "right": merit.true_positives,
        "wrong": merit.false_positives,
        "missed": merit.false_negatives,
        "clear": result.cut.clear,
        "processor_seconds": seconds,
    }


def together(those: list[dict]) -> dict:
    """Figures over micrographs."""
    total = PickMerit(*(sum(one[k] for one in those) for k in ("right", "wrong", "missed")))
    return {
        "micrographs": len(those),
        "f_score": total.f_score,
        "precision": total.precision,
        "recall": total.recall,
        "not_clear": sum(not one["clear"] for one in those),
        "processor_seconds": float(np.median([one["processor_seconds"] for one in those])),
    }


def groups(done: Mapping[str, Any], names: tuple[str, ...]) -> list[dict]:
    """Trials that share all words of their key but the last, which are the columns ``names``."""
    sets: dict[tuple[str, ...], list[dict]] = {}
    for key, one in done.items():
        sets.setdefault(tuple(key.split("|")[:-1]), []).append(one)
    return [dict(zip(names, words, strict=True)) | together(those) for words, those in sets.items()]


def apoferritin_one(method: str, name: str) -> dict:
    true = vg.io.read_picks(DATA / "apoferritin" / "picks.star")[name].xy_px
    return measured(method, vg.read_micrograph(DATA / "apoferritin" / name, 1.5), true, 130.0, 64, 30)


def apoferritin(_seeds: int, minutes: float) -> None:
    names = sorted(vg.io.read_picks(DATA / "apoferritin" / "picks.star"))
    trials = {f"{method}|{name}": partial(apoferritin_one, method, name) for method in METHODS for name in names}
    collect("pick_apoferritin", trials, lambda done: groups(done, ("method",)), minutes)


def betagal_one(method: str, name: str, true: np.ndarray) -> dict:
    with Image.open(DATA / "picking_betagal" / f"{name}.png") as picture:
        micrograph = vg.Micrograph(np.asarray(picture.convert("F")), 7.08, name)
    return measured(method, micrograph, true, 180.0, 90 / 7.08, 60 / 7.08)


def betagal_centres() -> dict[str, np.ndarray]:
    centres: dict[str, list] = {}
    for line in (DATA / "picking_betagal" / "picks.tsv").read_text().splitlines()[1:]:
        name, x, y = line.split("\t")
        centres.setdefault(name, []).append((float(x) / 4, float(y) / 4))
    return {name: np.array(places) for name, places in centres.items()}


def betagal(_seeds: int, minutes: float) -> None:
    centres = betagal_centres()
    trials = {
        f"{str(held_out).lower()}|{method}|{name}": partial(betagal_one, method, name, centres[name])
        for method in COMPARED
        for held_out in (False, True)
        for name in sorted(n for n in centres if (n not in DEVELOPMENT) == held_out)
    }
    collect("pick_betagal", trials, lambda done: groups(done, ("held_out", "method")), minutes)


def filled(inside_shape, half_A, rng) -> np.ndarray:
    """Random points, one per 1,200 cubic angstrom (ten residues), in a shape."""
    volume = 8 * np.prod(half_A)
    points = rng.uniform(-1, 1, (int(volume / 1200), 3)) * half_A
    return points[inside_shape(points)]


def pseudo(points, name) -> simulate.Model:
    return simulate.Model(points, "C", weights=np.full(len(points), 80.0), name=name)


def radial(points) -> np.ndarray:
    return np.hypot(points[:, 0], points[:, 1])


def kinds() -> dict[str, tuple[float, list[simulate.Model]]]:
    """Diameter given to the picker and models on one micrograph."""
    rng = np.random.default_rng(0)
    rod = pseudo(filled(lambda p: radial(p) < 25, (25, 25, 100), rng), "rod")
    disc = pseudo(filled(lambda p: radial(p) < 80, (80, 80, 20), rng), "disc")
    piece = pseudo(filled(lambda p: radial(p) < 35, (35, 35, 90), rng), "filament piece")
    small = pseudo(filled(lambda p: np.linalg.norm(p, axis=1) < 27, (27, 27, 27), rng), "60 kDa")
    groel = simulate.read_model(DATA / "models" / "1oel.pdb.gz").recentre()
    sizes = [simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=d, seed=2) for d in (100.0, 140.0)]
    return {
        "GroEL (development)": (150.0, [groel]),
        "rod": (150.0, [rod]),
        "disc": (150.0, [disc]),
        "filament piece": (150.0, [piece]),
        "small, 60 kDa": (60.0, [small]),
        "two sizes": (120.0, sizes),
    }


def simulated_one(method: str, kind: str, snr: float, seed: int) -> dict:
    """A micrograph of 1024 x 1024 pixels with 50 particles; of two sizes one on the left, one on the right half."""
    diameter_A, models = kinds()[kind]
    pixel = diameter_A / 60
    halves = [
        simulate.micrograph(
            model,
            shape=(1024, 1024 // len(models)),
            pixel_size_A=pixel,
            snr=snr,
            n=50 // len(models),
            defocus_u_A=18000.0,
            seed=100 + 10 * seed + i,
        )
        for i, model in enumerate(models)
    ]
    data = np.concatenate([half.data for half, _ in halves], axis=1)
    shifts = np.cumsum([0, *(half.shape[1] for half, _ in halves[:-1])])
    true = [truth.picks.xy_px + np.array([shift, 0]) for (_, truth), shift in zip(halves, shifts, strict=True)]
    micrograph = vg.Micrograph(data, pixel, kind)
    margin_px, radius_px = diameter_A / 2 / pixel, diameter_A / 3 / pixel
    return measured(method, micrograph, np.concatenate(true), diameter_A, margin_px, radius_px)


def simulated(seeds: int, minutes: float) -> None:
    trials = {
        f"{kind}|{snr:g}|{method}|{seed}": partial(simulated_one, method, kind, snr, seed)
        for seed in range(seeds)
        for method in COMPARED
        for kind in kinds()
        for snr in (0.01, 0.02, 0.05)
    }
    collect("pick_kinds", trials, kinds_summary, minutes)


def kinds_summary(done: Mapping[str, Any]) -> list[dict]:
    rows = groups(done, ("kind", "snr", "method"))
    order = list(kinds())
    return sorted(
        (row | {"snr": float(row["snr"])} for row in rows),
        key=lambda r: (COMPARED.index(r["method"]), order.index(r["kind"]), r["snr"]),
    )


def noise_one(seed: int) -> dict:
    data = np.random.default_rng(5000 + seed).normal(size=(600, 600))
    result = pick_detailed(vg.Micrograph(data, 3.0, "noise"), 130.0, threads=1)
    return {"gain": result.cut.gain, "clear": result.cut.clear, "picks": len(result.picks)}


def noise_summary(done: Mapping[str, Any]) -> list[dict]:
    """Gains and picks on white noise: what the least gain of a class of particles has to exceed."""
    return [
        {
            "micrographs": len(done),
            "largest_gain": max(one["gain"] for one in done.values()),
            "clear": sum(one["clear"] for one in done.values()),
            "picks": sum(one["picks"] for one in done.values()),
        }
    ]


def noise(seeds: int, minutes: float) -> None:
    trials = {f"{seed}": partial(noise_one, seed) for seed in range(max(seeds, 40))}
    collect("pick_noise", trials, noise_summary, minutes)


def clicked_one(method: str, name: str) -> dict:
    """A micrograph of apoferritin by examples: 15 of the given picks of another, spread over it."""
    all_true = vg.io.read_picks(DATA / "apoferritin" / "picks.star")
    first = min(all_true)
    clicks = all_true[first].xy_px
    clicks = clicks[:: len(clicks) // 15][:15]
    examples = teach([(vg.read_micrograph(DATA / "apoferritin" / first, 1.5), clicks)], 130.0, threads=1)
    micrograph = vg.read_micrograph(DATA / "apoferritin" / name, 1.5)
    return measured(method, micrograph, all_true[name].xy_px, 130.0, 64, 30, examples)


def features(seeds: int, minutes: float) -> None:
    names = sorted(vg.io.read_picks(DATA / "apoferritin" / "picks.star"))
    centres = betagal_centres()
    held_out = [kind for kind in kinds() if "development" not in kind]
    some = sorted(n for n in centres if n not in DEVELOPMENT)
    trials: dict[str, Any] = {}
    # One of each by turns: what was run of a part that stopped is alike for all methods.
    for number, name in enumerate(names):
        for method in FEATURE_METHODS:
            trials[f"apoferritin|0|{method}|{name}"] = partial(apoferritin_one, method, name)
            if number and method != "variance":
                trials[f"apoferritin, 15 clicks|0|{method}|{name}"] = partial(clicked_one, method, name)
        for method in FEATURE_METHODS if number < len(some) else ():
            one = some[number]
            trials[f"beta-galactosidase|0|{method}|{one}"] = partial(betagal_one, method, one, centres[one])
        for method in ("log", *FEATURE_METHODS) if seeds else ():
            kind, snr = held_out[number % len(held_out)], (0.05, 0.02)[number // len(held_out) % 2]
            seed = number // (2 * len(held_out))
            trials[f"{kind}|{snr:g}|{method}|{seed}"] = partial(simulated_one, method, kind, snr, seed)
    collect("pick_features", trials, lambda done: groups(done, ("set", "snr", "method")), minutes)


PARTS = {"apoferritin": apoferritin, "betagal": betagal, "kinds": simulated, "noise": noise, "features": features}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=10, help="of each simulated kind and SNR; of noise 40 at least")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each part; goes on next time")
    given = parser.parse_args()
    for part in given.parts:
        PARTS[part](given.seeds, given.minutes)


if __name__ == "__main__":
    main()
