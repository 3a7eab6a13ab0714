"""The trained picker on kinds that it has never seen, its chances, time and memory, clicks, and on real micrographs.

Writes bench/results/learned_<part>.json for each part asked for, ``kinds``, ``clicks``, ``large``, ``real``; each goes
on where it stopped. Kinds: phantoms of HELD_OUT of tools/train_picker.py at a 60th of the diameter per pixel, 768 x 768
pixels with 28 particles; on every second one lie carbon and contaminants. Real: apoferritin and picking_betagal of
../shared/data, which took no part in training or in any choice; pairs as in bench_pick_sets.py, which has the classical
methods' figures on them.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from bench_pick_sets import apoferritin_one, betagal_centres, betagal_one, groups, together

import verglas as vg
from verglas import simulate
from verglas.learned import packaged_weights
from verglas.picking import compare_picks, inside, match_picks, pick_detailed, prepare
from verglas.picking.fine_tune import fine_tune
from verglas.picking.network import probable_cut
from verglas.picking.particles import MERIT

from common import ROOT, collect

DATA = ROOT.parent / "shared" / "data"
KINDS = ("dumbbell", "arch", "cone")
METHODS = ("learned", "automatic")
SNRS = (0.01, 0.02, 0.05)
DIAMETER_A, PIXEL_A, SIDE, PARTICLES = 150.0, 2.5, 768, 28
FIRST_SEED = 50_000
BINS = np.linspace(0, 1, 11)


def scene(kind: str, snr: float, seed: int, particles: int = PARTICLES):
    """A micrograph of a kind; every second one with carbon and contaminants."""
    number = FIRST_SEED + 1000 * KINDS.index(kind) + seed  # noise and places of its own for each kind
    model = simulate.phantom(96, PIXEL_A, DIAMETER_A, seed=number, shape=kind)
    dirt = {"carbon": 0.2, "contaminants": 3, "contaminant_radius_A": (60.0, 160.0)} if seed % 2 else {}
    settings = {"shape": (SIDE, SIDE), "pixel_size_A": PIXEL_A, "defocus_u_A": 8000.0 + 2000.0 * (seed % 10)} | dirt
    return simulate.micrograph(model, snr=snr, n=particles, seed=number, **settings)


def judged(found, truth, shape) -> dict[str, Any]:
    """Counts of the picks; chances and hits of the candidates."""
    margin, radius = DIAMETER_A / 2 / PIXEL_A, DIAMETER_A / 3 / PIXEL_A
    true = truth.picks.xy_px[inside(truth.picks.xy_px, shape, margin)]
    mine = found.picks.xy_px[inside(found.picks.xy_px, shape, margin)]
    merit = compare_picks(mine, true, radius)
    others = found.candidates[inside(found.candidates.xy_px, shape, margin)]
    hit = np.zeros(len(others), int)
    hit[match_picks(others.xy_px, true, radius)[0]] = 1
    return {
        "right": merit.true_positives,
        "wrong": merit.false_positives,
        "missed": merit.false_negatives,
        "clear": found.cut.clear,
        "chances": np.round(others.columns[MERIT].astype(np.float64), 4).tolist(),
        "hits": hit.tolist(),
    }


def kinds_one(method: str, kind: str, snr: float, seed: int) -> dict[str, Any]:
    micrograph, truth = scene(kind, snr, seed)
    started = time.process_time()
    found = pick_detailed(micrograph, DIAMETER_A, method=method, threads=1)
    return {"processor_seconds": time.process_time() - started} | judged(found, truth, micrograph.shape)


def kinds_summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures by SNR and kind, and how often a learned pick of a stated chance is a particle."""
    rows = groups(done, ("method", "kind", "snr"))
    for method in METHODS:
        those = [one for key, one in done.items() if key.startswith(f"{method}|")]
        if those:
            rows.append({"method": method, "kind": "all"} | together(those))
    learned = [one for key, one in done.items() if key.startswith("learned|")]
    chances, hits = (np.concatenate([one[name] for one in learned]) for name in ("chances", "hits"))
    bins = np.digitize(chances, BINS[1:-1])
    for number in range(len(BINS) - 1):
        here = bins == number
        if here.any():
            rows.append(
                {
                    "calibration": f"{BINS[number]:.1f} to {BINS[number + 1]:.1f}",
                    "candidates": int(here.sum()),
                    "mean_chance": float(chances[here].mean()),
                    "share_particles": float(hits[here].mean()),
                }
            )
    return rows + [held_precision(learned, asked) for asked in (0.8, 0.9, 0.95, 0.99)]


def held_precision(learned: Sequence[Mapping[str, Any]], asked: float) -> dict[str, Any]:
    """Share of particles among the picks that a stated precision takes of each micrograph, by the cut's own rule."""
    kept = right = 0
    for one in learned:
        order = np.argsort(-np.array(one["chances"]), kind="stable")
        chances, hits = np.array(one["chances"])[order], np.array(one["hits"])[order]
        taken = chances >= probable_cut(chances, chances, asked).threshold
        kept, right = kept + int(taken.sum()), right + int(hits[taken].sum())
    return {"precision_asked": asked, "picks": kept, "precision_held": right / max(kept, 1)}


def kinds(seeds: int, minutes: float) -> None:
    trials = {
        f"{method}|{kind}|{snr:g}|{seed}": partial(kinds_one, method, kind, snr, seed)
        for seed in range(seeds)
        for kind in KINDS
        for snr in SNRS
        for method in METHODS
    }
    collect("learned_kinds", trials, kinds_summary, minutes)


def clicks_one(kind: str, complete: bool, seed: int) -> dict[str, Any]:
    """100 clicks on three micrographs at an SNR of 0.01, F on another before and after."""
    clicked, given = [], 0
    for number in range(3):
        micrograph, truth = scene(kind, 0.01, 100 + 10 * seed + number, 40)
        xy = truth.picks.xy_px if complete else truth.picks.xy_px[: min(33, len(truth.picks))]
        given += len(xy)
        clicked.append((prepare(micrograph, DIAMETER_A), xy))
    weights = packaged_weights("picker")
    started = time.process_time()
    tuned = fine_tune(weights, clicked, complete=complete)
    seconds = time.process_time() - started
    micrograph, truth = scene(kind, 0.01, 200 + seed, 40)
    out = {"clicks": given, "kept": tuned.kept, "processor_seconds": seconds}
    for name, those in (("before", weights), ("after", tuned.weights)):
        found = pick_detailed(micrograph, DIAMETER_A, method="learned", weights=those, threads=1)
        counts = judged(found, truth, micrograph.shape)
        out |= {f"{word}_{name}": counts[word] for word in ("right", "wrong", "missed")}
    return out


def clicks_summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for complete in ("False", "True"):
        those = [one for key, one in done.items() if key.split("|")[1] == complete]
        if not those:
            continue
        row: dict[str, Any] = {"complete": complete, "trials": len(those), "kept": sum(one["kept"] for one in those)}
        for name in ("before", "after"):
            right, wrong, missed = (
                sum(one[f"{word}_{name}"] for one in those) for word in ("right", "wrong", "missed")
            )
            row[f"f_{name}"] = 2 * right / max(2 * right + wrong + missed, 1)
        rows.append(row | {"processor_seconds": float(np.median([one["processor_seconds"] for one in those]))})
    return rows


def clicks(seeds: int, minutes: float) -> None:
    trials = {
        f"{kind}|{complete}|{seed}": partial(clicks_one, kind, complete, seed)
        for seed in range(seeds)
        for kind in KINDS
        for complete in (True, False)
    }
    collect("learned_clicks", trials, clicks_summary, minutes)


def large_one(diameter_A: float) -> dict[str, Any]:
    """Time and memory of 4096 x 4096 pixels of 1 A."""
    data = np.random.default_rng(1).standard_normal((4096, 4096), np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pick_detailed(vg.Micrograph(data[:512, :512], 1.0), 100.0, method="learned", threads=1)  # imports
    started = time.process_time()
    pick_detailed(vg.Micrograph(data, 1.0), diameter_A, method="learned", threads=1)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"processor_seconds": seconds, "peak_MB": peak / 1024, "before_MB": before / 1024}


def large(_seeds: int, minutes: float) -> None:
    trials = {f"{diameter:g}": partial(large_one, diameter) for diameter in (130.0, 80.0)}
    collect("learned_large", trials, lambda done: [{"diameter_A": key} | one for key, one in done.items()], minutes)


def real(_seeds: int, minutes: float) -> None:
    names = sorted(vg.io.read_picks(DATA / "apoferritin" / "picks.star"))
    trials = {f"apoferritin|learned|{name}": partial(apoferritin_one, "learned", name) for name in names}
    for name, xy in sorted(betagal_centres().items()):
        trials[f"betagal|learned|{name}"] = partial(betagal_one, "learned", name, xy)
    collect("learned_real", trials, lambda done: groups(done, ("set", "method")), minutes)


PARTS = {"kinds": kinds, "clicks": clicks, "large": large, "real": real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=10, help="of each kind and SNR")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each part; goes on next time")
    given = parser.parse_args()
    for part in given.parts:
        PARTS[part](given.seeds, given.minutes)


if __name__ == "__main__":
    main()
