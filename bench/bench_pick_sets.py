"""Picking without templates on real sets and simulated kinds: F, precision, recall, processor time.

Writes bench/results/pick_<part>.json for each part asked for: ``apoferritin``, ``betagal``, ``kinds``, ``noise``.
Settings were chosen on 40 fields of noise of other seeds, on the apoferritin micrographs, on the beta-galactosidase
micrographs of DEVELOPMENT and on GroEL; the other micrographs and kinds are held out. Pairs lie within a third of the
diameter (30 px on apoferritin). Needs ../shared/data.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from PIL import Image

import verglas as vg
from verglas import simulate
from verglas.picking import PickMerit, compare_picks, inside, pick_detailed

from common import ROOT, write

DATA = ROOT.parent / "shared" / "data"
DEVELOPMENT = (
    "Falcon_2012_06_12-14_57_34_0",
    "Falcon_2012_06_12-15_14_01_0",
    "Falcon_2012_06_12-15_27_22_0",
    "Falcon_2012_06_12-15_33_42_0",
)
METHODS = ("automatic", "log", "reference-free")


def measured(method, pairs, diameter_A, margin_px, radius_px) -> dict:
    """Figures over micrographs with their true centres."""
    total, seconds, flags = PickMerit(0, 0, 0), [], 0
    for micrograph, true in pairs:
        started = time.process_time()
        result = pick_detailed(micrograph, diameter_A, method=method, threads=1)
        seconds.append(time.process_time() - started)
        mine = result.picks.xy_px
        total = total + compare_picks(
            mine[inside(mine, micrograph.shape, margin_px)], true[inside(true, micrograph.shape, margin_px)], radius_px
        )
        flags += not result.cut.clear
    return {
        "method": method,
        "micrographs": len(pairs),
        "f_score": total.f_score,
        "precision": total.precision,
        "recall": total.recall,
        "not_clear": flags,
        "processor_seconds": float(np.median(seconds)),
    }


def apoferritin(_seeds: int) -> list[dict]:
    truth = vg.io.read_picks(DATA / "apoferritin" / "picks.star")
    pairs = [(vg.read_micrograph(DATA / "apoferritin" / name, 1.5), truth[name].xy_px) for name in sorted(truth)]
    return [measured(method, pairs, 130.0, 64, 30) for method in METHODS]


def betagal(_seeds: int) -> list[dict]:
    folder, centres = DATA / "picking_betagal", {}
    for line in (folder / "picks.tsv").read_text().splitlines()[1:]:
        name, x, y = line.split("\t")
        centres.setdefault(name, []).append((float(x) / 4, float(y) / 4))
    rows = []
    for held_out in (False, True):
        pairs = []
        for name in sorted(n for n in centres if (n not in DEVELOPMENT) == held_out):
            with Image.open(folder / f"{name}.png") as picture:
                pairs.append((vg.Micrograph(np.asarray(picture.convert("F")), 7.08, name), np.array(centres[name])))
        rows.append({"held_out": held_out, **measured("automatic", pairs, 180.0, 90 / 7.08, 60 / 7.08)})
    return rows


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


def simulated(seeds: int) -> list[dict]:
    """Micrographs of 1024 x 1024 pixels with 50 particles; of two sizes one left, one right half of a micrograph."""
    rows = []
    for kind, (diameter_A, models) in kinds().items():
        pixel = diameter_A / 60
        for snr in (0.01, 0.02, 0.05):
            pairs = []
            for seed in range(seeds):
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
                true = [
                    truth.picks.xy_px + np.array([shift, 0]) for (_, truth), shift in zip(halves, shifts, strict=True)
                ]
                pairs.append((vg.Micrograph(data, pixel, kind), np.concatenate(true)))
            row = measured("automatic", pairs, diameter_A, diameter_A / 2 / pixel, diameter_A / 3 / pixel)
            rows.append({"kind": kind, "snr": snr, "seeds": seeds, **row})
            print(rows[-1], flush=True)
    return rows


def noise(seeds: int) -> list[dict]:
    """Gains and picks on white noise: what the least gain of a class of particles has to exceed."""
    results = [
        pick_detailed(
            vg.Micrograph(np.random.default_rng(5000 + seed).normal(size=(600, 600)), 3.0, "noise"), 130.0, threads=1
        )
        for seed in range(seeds)
    ]
    return [
        {
            "micrographs": seeds,
            "largest_gain": max(one.cut.gain for one in results),
            "clear": sum(one.cut.clear for one in results),
            "picks": sum(len(one.picks) for one in results),
        }
    ]


PARTS = {"apoferritin": apoferritin, "betagal": betagal, "kinds": simulated, "noise": noise}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3, help="of each simulated kind and SNR, and micrographs of noise")
    given = parser.parse_args()
    for part in given.parts:
        write(f"pick_{part}", PARTS[part](given.seeds))


if __name__ == "__main__":
    main()
