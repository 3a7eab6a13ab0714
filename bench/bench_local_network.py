"""Local resolution by the network beside the windowed FSC: planted resolutions, planted B-factors, three classes.

Writes bench/results/local_resolution_network_<part>.json for each part asked for, ``planted``, ``blurred``,
``classes``; goes on where it stopped. Noise and phantoms of 64 voxels of 1.5 A (48 for B-factors), seeds from 200,
which took part neither in training (0 to 99) nor in any choice (100 to 119).

planted  medians of 4 and 8 A beside each other, where the edge lies, share of voxels on which both methods agree
blurred  half maps of one phantom blurred by 0 to 300 A^2: does the median go up with every step, as DeepRes' does
classes  voxels of 4, 7 and 12 A called high (finer than 5.3), medium, low (coarser than 9.2): the confusion matrix
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import verglas as vg
from verglas.simulate import mixed_blur, planted_halves

from common import collect

FIRST_SEED, PIXEL_A = 200, 1.5
METHODS = ("network", "fsc")
KINDS = ("field", "phantom", "dimer")
LIMITS_A, CLASSES_A, BORDERS_A = (4.0, 8.0), (4.0, 7.0, 12.0), (5.3, 9.2)
B_FACTORS_A2 = (0.0, 50.0, 100.0, 200.0, 300.0)


def density(kind: str, seed: int, box: int) -> vg.Map:
    if kind == "field":
        return vg.Map(np.random.default_rng(seed).standard_normal((box,) * 3, dtype=np.float32), PIXEL_A)
    model = vg.simulate.phantom(box, PIXEL_A, 0.75 * box * PIXEL_A, {"phantom": "C1", "dimer": "D2"}[kind], seed)
    return vg.simulate.density(model, box, PIXEL_A)


def edge_A(values: np.ndarray, inside: np.ndarray) -> float:
    """Distance of the place where the mean resolution passes the middle of both sides, from the true boundary."""
    centre, reach = values.shape[2] // 2, int(24 / PIXEL_A)
    log = np.where(inside, np.log(values), np.nan)
    profile = np.nanmean(log[:, :, centre - reach : centre + reach], axis=(0, 1))
    crossing = np.flatnonzero(np.diff(np.sign(profile - 0.5 * (profile[:3].mean() + profile[-3:].mean()))))
    return float(np.abs(crossing + 0.5 - reach).min() * PIXEL_A) if crossing.size else float("inf")


def planted_one(kind: str, noise: float, seed: int) -> dict[str, Any]:
    halves = planted_halves(density(kind, seed, 64), LIMITS_A, noise, seed)
    out: dict[str, Any] = {}
    maps = {}
    for method in METHODS:
        began = time.process_time()
        found = vg.local_resolution(halves.half1, halves.half2, halves.inside, method=method, threads=1, listener=None)
        out[f"seconds_{method}"] = time.process_time() - began
        maps[method] = found.map.data
        for limit in LIMITS_A:
            here = halves.at(limit, 2 * found.window_radius_A)
            out[f"{method}_{limit:g}_A"] = float(np.median(found.map.data[here]))
        out[f"edge_A_{method}"] = edge_A(found.map.data, halves.inside)
    ratio = np.abs(np.log(maps["network"] / maps["fsc"]))[halves.inside]
    return out | {"share_apart_by_a_quarter": float((ratio > np.log(1.25)).mean())}


def planted_summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for noise in (1.0, 2.0, 4.0):
        those = [one for key, one in done.items() if float(key.split("|")[1]) == noise]
        for method in METHODS if those else ():
            errors = np.abs([[one[f"{method}_{limit:g}_A"] / limit - 1 for limit in LIMITS_A] for one in those])
            row = {"noise": noise, "method": method, "maps": len(those)}
            row |= {
                f"median_{limit:g}_A": float(np.median([one[f"{method}_{limit:g}_A"] for one in those]))
                for limit in LIMITS_A
            }
            row |= {"within_10": float((errors < 0.1).mean()), "within_15": float((errors < 0.15).mean())}
            names = (f"edge_A_{method}", "share_apart_by_a_quarter", f"seconds_{method}")
            rows.append(row | {name: float(np.median([one[name] for one in those])) for name in names})
    return rows


def blurred_one(kind: str, seed: int) -> dict[str, Any]:
    """Median resolution where the phantom is blurred by one B-factor and by the next, at the same noise."""
    sharp = density(kind, seed, 48)
    ball = vg.masks.soft_sphere(48, 0.36 * 48)
    sigma = float(mixed_blur(sharp, (60.0, 60.0), 0.0).half1.data.std())
    out: dict[str, Any] = {}
    for method in METHODS:
        medians = []
        for number, b in enumerate(B_FACTORS_A2):
            signal = mixed_blur(sharp, (b, b), 0.0).half1.data
            rng = np.random.default_rng([seed, number])
            halves = [
                sharp.with_data(signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)) for _ in "ab"
            ]
            found = vg.local_resolution(*halves, ball, method=method, window_radius_A=9.0, threads=1, listener=None)
            medians.append(found.quantiles_A((0.5,))[0])
        out[method] = medians
    return out


def blurred_summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for method in METHODS:
        medians = np.array([one[method] for one in done.values()])
        up = np.diff(medians, axis=1) > 0
        row = {"method": method, "maps": len(medians), "maps_rising_at_every_step": int(up.all(axis=1).sum())}
        row |= {"steps_rising": float(up.mean())}
        middle = zip(B_FACTORS_A2, np.median(medians, axis=0).tolist(), strict=True)
        rows.append(row | {f"median_A_at_{b:g}_A2": value for b, value in middle})
    return rows


def classes_one(kind: str, noise: float, seed: int) -> dict[str, Any]:
    halves = planted_halves(density(kind, seed + 1000, 64), CLASSES_A, noise, seed)
    out: dict[str, Any] = {}
    for method in METHODS:
        found = vg.local_resolution(
            halves.half1, halves.half2, halves.inside, method=method, window_radius_A=9.0, threads=1, listener=None
        )
        called = np.digitize(found.map.data, BORDERS_A)
        matrix = [[int((called[halves.at(limit, 4.0)] == column).sum()) for column in range(3)] for limit in CLASSES_A]
        out[method] = matrix
    return out


def classes_summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for method in METHODS:
        matrix = np.sum([one[method] for one in done.values()], axis=0)
        share = matrix / matrix.sum(axis=1, keepdims=True)
        row: dict[str, Any] = {"method": method, "maps": len(done), "accuracy": float(np.diag(share).mean())}
        rows.append(row | {f"planted_{limit:g}_A": share[i].round(3).tolist() for i, limit in enumerate(CLASSES_A)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["planted", "blurred", "classes"])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--minutes", type=float, default=1.0, help="of each part; goes on next time")
    given = parser.parse_args()
    seeds = [(seed, KINDS[seed % 3]) for seed in range(given.first_seed, given.first_seed + given.seeds)]
    planted = {f"{k}|{n:g}|{s}": partial(planted_one, k, n, s) for s, k in seeds for n in (1.0, 2.0, 4.0)}
    blurred = {f"{k}|{s}": partial(blurred_one, k, s) for s, k in seeds}
    classes = {f"{k}|{n:g}|{s}": partial(classes_one, k, n, s) for s, k in seeds for n in (1.0, 2.0)}
    parts = {
        "planted": (planted, planted_summary),
        "blurred": (blurred, blurred_summary),
        "classes": (classes, classes_summary),
    }
    for part in given.parts:
        collect(f"local_resolution_network_{part}", *parts[part], given.minutes)


if __name__ == "__main__":
    main()
