"""Picking: F on the apoferritin micrographs against the given picks, time per micrograph, few particles, none.

Writes bench/results/pick.json. Pairs within 30 px, both lists at least 64 px inside; processor seconds of one thread,
medians over micrographs. Simulated scenes of 960 x 900 pixels of 3 A at an SNR of 0.05 with few particles. Needs
../shared/data.
"""

from __future__ import annotations

import time

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

from common import ROOT, write

DATA = ROOT.parent / "shared" / "data"
DIAMETER_A, MARGIN_PX, RADIUS_PX = 130.0, 64, 30


def defocus_A() -> dict[str, float]:
    lines = (DATA / "apoferritin" / "ctf_quickfit.tsv").read_text().splitlines()
    return {w[0]: float(w[1]) for w in (line.split() for line in lines if line.startswith("May"))}


def one_picker(method: str, names: list[str], truth: dict, volume: vg.Map) -> dict:
    total, seconds, scores, labels = PickMerit(0, 0, 0), [], [], []
    defocus = defocus_A()
    for name in names:
        micrograph = vg.read_micrograph(DATA / "apoferritin" / name, 1.5)
        optics = vg.Optics(
            defocus_u_A=defocus[name], defocus_v_A=defocus[name], voltage_kV=300, cs_mm=0.01, amplitude_contrast=0.07
        )
        more = {"templates": volume, "optics": optics} if method == "template" else {}
        symmetry = "O" if method == "template" else "C1"
        started = time.process_time()
        how = PickSettings(method, symmetry=symmetry)
        found = pick_detailed(micrograph, DIAMETER_A, how, threads=1, **more)
        seconds.append(time.process_time() - started)
        true = truth[name].xy_px[inside(truth[name].xy_px, micrograph.shape, MARGIN_PX)]
        mine = found.picks.xy_px[inside(found.picks.xy_px, micrograph.shape, MARGIN_PX)]
        total = total + compare_picks(mine, true, RADIUS_PX)
        others = found.candidates[inside(found.candidates.xy_px, micrograph.shape, MARGIN_PX)]
        hit = np.zeros(len(others), bool)
        hit[match_picks(others.xy_px, true, RADIUS_PX)[0]] = True
        scores.append(others.columns["rlnAutopickFigureOfMerit"])
        labels.append(hit)
    return {
        "method": method,
        "micrographs": len(names),
        "f_score": total.f_score,
        "precision": total.precision,
        "recall": total.recall,
        "auc": roc_curve(np.concatenate(scores), np.concatenate(labels)).auc,
        "processor_seconds": float(np.median(seconds)),
        "pixels": "1240 x 1200",
    }


def excluded(names: list[str], truth: dict) -> dict:
    """Given picks that lie where verglas does not pick: what exclusion costs in recall by itself."""
    count = total = 0
    for name in names:
        small = prepare(vg.read_micrograph(DATA / "apoferritin" / name, 1.5), DIAMETER_A)
        xy = truth[name].xy_px[inside(truth[name].xy_px, small.shape, MARGIN_PX)]
        x, y = np.rint(small.from_micrograph(xy)).astype(int).T
        count += int(bad_areas(small).mask[y, x].sum())
        total += len(xy)
    return {"method": "given picks in areas left out", "count": count, "of": total}


def simulated(method: str, particles: int, count: int) -> dict:
    """F over several micrographs with so many particles each; without any, how many of them have a pick."""
    model = simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=DIAMETER_A, seed=1) if particles else None
    total, picked = PickMerit(0, 0, 0), 0
    for seed in range(count):
        micrograph, true = simulate.micrograph(
            model, shape=(900, 960), pixel_size_A=3.0, snr=0.05, n=particles, defocus_u_A=18000.0, seed=seed + 10
        )
        found = pick_detailed(micrograph, DIAMETER_A, method=method, threads=1)
        picked += bool(len(found.picks))
        if particles:
            pairs = [p.xy_px[inside(p.xy_px, micrograph.shape, 30)] for p in (found.picks, true.picks)]
            total = total + compare_picks(*pairs, 15)
    row = {"method": method, "scene": "few", "simulated": particles, "micrographs": count, "with_picks": picked}
    if particles:
        row |= {"f_score": total.f_score, "precision": total.precision, "recall": total.recall}
    return row


def large(method: str, volume: vg.Map) -> dict:
    """Processor time of a micrograph of 4096 x 4096 pixels of 1 A with 150 particles."""
    model = simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=DIAMETER_A, seed=1)
    micrograph, true = simulate.micrograph(model, shape=(4096, 4096), pixel_size_A=1.0, snr=0.05, n=150, seed=1)
    more = {"templates": volume, "optics": true.optics[[0]]} if method == "template" else {}
    how = PickSettings(method, symmetry="O" if method == "template" else "C1")
    started = time.process_time()
    pick_detailed(micrograph, DIAMETER_A, how, threads=1, **more)
    return {"method": method, "pixels": "4096 x 4096", "processor_seconds": time.process_time() - started}


def main() -> None:
    truth = vg.io.read_picks(DATA / "apoferritin" / "picks.star")
    names = sorted(truth)
    model = simulate.read_model(DATA / "models" / "7a4m.cif.gz", assembly="1").recentre()
    volume = simulate.density(model, 56, 3.0, b_factor_A2=100)
    methods = ("log", "reference-free", "template")
    rows = [one_picker(method, names, truth, volume) for method in methods]
    rows += [large(method, volume) for method in methods]
    rows += [simulated(method, n, 2 if n else 6) for method in methods[:2] for n in (26, 12, 6, 0)]
    write("pick", [*rows, excluded(names, truth)])


if __name__ == "__main__":
    main()
