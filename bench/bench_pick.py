"""Picking: F on the apoferritin micrographs against the given picks, time per micrograph, few particles, none.

Writes bench/results/pick.json; goes on where it stopped. Pairs within 30 px, both lists at least 64 px inside;
processor seconds of one thread, medians over micrographs. Simulated scenes of 960 x 900 pixels of 3 A at an SNR of 0.05
with few particles, and a crowded one of 4096 x 4096. Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import numpy as np

import verglas as vg
from verglas import simulate
from verglas.picking import (
    PickMerit,
    PickSettings,
    bad_areas,
    compare_picks,
    inside,
    match_picks,
    pick_detailed,
    prepare,
    roc_curve,
)

from common import ROOT, collect

DATA = ROOT.parent / "shared" / "data"
DIAMETER_A, MARGIN_PX, RADIUS_PX = 130.0, 64, 30
METHODS = ("automatic", "log", "reference-free", "template")
FIRST_SEED = 700


@cache
def given_picks() -> dict:
    return vg.io.read_picks(DATA / "apoferritin" / "picks.star")


@cache
def volume() -> vg.Map:
    model = simulate.read_model(DATA / "models" / "7a4m.cif.gz", assembly="1").recentre()
    return simulate.density(model, 56, 3.0, b_factor_A2=100)


@cache
def defocus_A() -> dict[str, float]:
    lines = (DATA / "apoferritin" / "ctf_quickfit.tsv").read_text().splitlines()
    return {w[0]: float(w[1]) for w in (line.split() for line in lines if line.startswith("May"))}


def settings_of(method: str, optics: vg.Optics) -> dict[str, Any]:
    """Keywords of a method; templates are projections of apoferritin."""
    if method == "template":
        return {"settings": PickSettings(method, symmetry="O"), "templates": volume(), "optics": optics}
    return {"settings": PickSettings(method)}


def apoferritin(method: str, name: str) -> dict[str, Any]:
    micrograph = vg.read_micrograph(DATA / "apoferritin" / name, 1.5)
    defocus = defocus_A()[name]
    optics = vg.Optics(defocus_u_A=defocus, defocus_v_A=defocus, voltage_kV=300, cs_mm=0.01, amplitude_contrast=0.07)
    more = settings_of(method, optics)
    started = time.process_time()
    result = pick_detailed(micrograph, DIAMETER_A, threads=1, **more)
    seconds = time.process_time() - started
    true = given_picks()[name].xy_px
    true = true[inside(true, micrograph.shape, MARGIN_PX)]
    mine = result.picks.xy_px[inside(result.picks.xy_px, micrograph.shape, MARGIN_PX)]
    merit = compare_picks(mine, true, RADIUS_PX)
    others = result.candidates[inside(result.candidates.xy_px, micrograph.shape, MARGIN_PX)]
    hit = np.zeros(len(others), bool)
    hit[match_picks(others.xy_px, true, RADIUS_PX)[0]] = True
    scores = np.round(np.asarray(others.columns["rlnAutopickFigureOfMerit"], np.float64), 4)
    return counts(merit) | {"seconds": seconds, "scores": scores.tolist(), "hits": hit.astype(int).tolist()}


def counts(merit: PickMerit) -> dict[str, int]:
    return {"right": merit.true_positives, "wrong": merit.false_positives, "missed": merit.false_negatives}


def excluded() -> dict[str, int]:
    """Given picks that lie where verglas does not pick: what exclusion costs in recall by itself."""
    count = total = 0
    for name, given in given_picks().items():
        small = prepare(vg.read_micrograph(DATA / "apoferritin" / name, 1.5), DIAMETER_A)
        xy = given.xy_px[inside(given.xy_px, small.shape, MARGIN_PX)]
        x, y = np.rint(small.from_micrograph(xy)).astype(int).T
        count += int(bad_areas(small).mask[y, x].sum())
        total += len(xy)
    return {"count": count, "of": total}


def few(method: str, particles: int, seed: int) -> dict[str, Any]:
    """One scene with so many particles, or none."""
    model = simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=DIAMETER_A, seed=1) if particles else None
    micrograph, true = simulate.micrograph(
        model, shape=(900, 960), pixel_size_A=3.0, snr=0.05, n=particles, defocus_u_A=18000.0, seed=seed
    )
    result = pick_detailed(micrograph, DIAMETER_A, method=method, threads=1)
    pairs = [p.xy_px[inside(p.xy_px, micrograph.shape, 30)] for p in (result.picks, true.picks)]
    return counts(compare_picks(*pairs, 15)) | {"picks": len(result.picks), "clear": result.cut.clear}


def large(method: str) -> dict[str, float]:
    """Processor time of a micrograph of 4096 x 4096 pixels of 1 A with 420 particles."""
    model = simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=DIAMETER_A, seed=1)
    micrograph, true = simulate.micrograph(
        model, shape=(4096, 4096), pixel_size_A=1.0, snr=0.05, n=420, seed=FIRST_SEED
    )
    more = settings_of(method, true.optics[[0]])
    pick_detailed(vg.Micrograph(micrograph.data[:1024, :1024], 1.0), DIAMETER_A, threads=1, **more)  # imports
    started = time.process_time()
    pick_detailed(micrograph, DIAMETER_A, threads=1, **more)
    return {"seconds": time.process_time() - started}


def trials() -> dict[str, Any]:
    work: dict[str, Any] = {f"large|{method}": partial(large, method) for method in METHODS}
    for number in (26, 12, 6, 0):
        for method in METHODS[:3]:
            for seed in range(FIRST_SEED, FIRST_SEED + (2 if number else 6)):
                work[f"few|{method}|{number}|{seed}"] = partial(few, method, number, seed)
    for method in METHODS:
        work |= {f"apoferritin|{method}|{name}": partial(apoferritin, method, name) for name in sorted(given_picks())}
    return work | {"excluded": excluded}


def figures(those: list[dict[str, Any]]) -> dict[str, float]:
    total = PickMerit(*(sum(one[k] for one in those) for k in ("right", "wrong", "missed")))
    return {"f_score": total.f_score, "precision": total.precision, "recall": total.recall}


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for key, one in done.items():
        words = key.split("|")
        groups.setdefault(tuple(words[:-1] if words[0] in ("few", "apoferritin") else words), []).append(one)
    rows: list[dict[str, Any]] = []
    for words, those in groups.items():
        row: dict[str, Any] = {"method": words[-1], "micrographs": len(those)}
        if words[0] == "apoferritin":
            scores, hits = (np.concatenate([one[k] for one in those]) for k in ("scores", "hits"))
            seconds = float(np.median([one["seconds"] for one in those]))
            auc = roc_curve(scores, hits.astype(bool)).auc
            rows.append(row | figures(those) | {"auc": auc, "processor_seconds": seconds, "pixels": "1240 x 1200"})
        elif words[0] == "large":
            rows.append(row | {"pixels": "4096 x 4096", "processor_seconds": those[0]["seconds"]})
        elif words[0] == "few":
            row |= {"method": words[1], "scene": "few", "simulated": int(words[2])}
            row |= {"with_picks": sum(one["picks"] > 0 for one in those), "clear": sum(one["clear"] for one in those)}
            rows.append(row | (figures(those) if int(words[2]) else {}))
        else:
            rows.append({"method": "given picks in areas left out", **those[0]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="no new trial after so long; goes on next time")
    collect("pick", trials(), summary, parser.parse_args().minutes)


if __name__ == "__main__":
    main()
