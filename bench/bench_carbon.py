"""Carbon in micrographs: how much of the ice is flagged, how much carbon is not, what is picked. Resumable.

Writes bench/results/carbon.json. Simulated micrographs, 1200 x 1260 pixels of 3 A, phantom of 130 A at SNR 0.05, with
carbon from nothing to 95 % of the width, turned by quarters from seed to seed, at three contrasts (scattering power
over that of ice, grey step in deviations of the noise). The limit of the separation was set on seeds below 100 and on
the first eight apoferritin and all beta-galactosidase micrographs; seeds from 100 are held out. Clean fields: the
separation of the two populations where there is no carbon, at several SNR, half of the field crowded and half empty.

    python bench/bench_carbon.py --seeds 10 --minutes 9

With ``--alone`` it writes bench/results/carbon_rings.json: micrographs of carbon alone, which only the rings of their
set tell. The limit was set on the first micrographs of both real sets and on seeds below 50.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

import verglas as vg
from verglas import simulate
from verglas.assessment.micrographs import MicrographQuality, judge_micrographs
from verglas.picking import bad_areas, compare_picks, inside, pick_detailed, prepare
from verglas.picking.carbon import ring_contrast, tell_ice_from_carbon

from common import ROOT, collect

DATA = ROOT.parent / "shared" / "data"
DIAMETER_A, PIXEL_A, SHAPE = 130.0, 3.0, (1200, 1260)
SHARES = (0.0, 0.05, 0.2, 0.4, 0.52, 0.6, 0.75, 0.9, 0.95)
CONTRASTS = ((2.0, 0.0), (3.0, 0.3), (8.0, 1.5))
FIRST_SEED = 100


def field(carbon: float, power: float, grey: float, seed: int) -> tuple[vg.Micrograph, np.ndarray, np.ndarray]:
    """Micrograph, true centres and carbon, turned by ``seed`` quarters."""
    model = simulate.phantom(box=64, pixel_size_A=PIXEL_A, diameter_A=DIAMETER_A, seed=1 + seed % 3)
    n = max(2, int(80 * (1 - carbon)))
    data, truth = simulate.micrograph(
        model,
        shape=SHAPE,
        pixel_size_A=PIXEL_A,
        snr=0.05,
        defocus_u_A=12000.0 + 1500 * (seed % 8),
        ice=(0.3, 0.6, 1.2)[seed % 3],
        carbon=carbon,
        carbon_power=power,
        carbon_grey=grey,
        n=n,
        seed=seed,
    )
    marks = np.zeros(SHAPE, np.int32)
    x, y = np.rint(truth.picks.xy_px).astype(int).T
    marks[y, x] = 1
    turned = np.rot90(data.data, seed % 4)
    xy = np.argwhere(np.rot90(marks, seed % 4))[:, ::-1].astype(float)
    return vg.Micrograph(np.ascontiguousarray(turned), PIXEL_A, "simulated"), xy, np.rot90(truth.carbon, seed % 4)


def one_field(carbon: float, power: float, grey: float, seed: int) -> dict[str, float]:
    """Flags and picks of one micrograph."""
    micrograph, true, on_carbon = field(carbon, power, grey, seed)
    small = prepare(micrograph, DIAMETER_A)
    y, x = np.indices(small.shape_here).reshape(2, -1) + 0.0
    there = np.rint(small.to_micrograph(np.stack([x, y], 1))).astype(int)
    there = there.clip(0, np.array(micrograph.shape[::-1]) - 1)
    truth = on_carbon[there[:, 1], there[:, 0]].reshape(small.shape_here)
    bad = bad_areas(small).mask
    result = pick_detailed(micrograph, DIAMETER_A, threads=1)
    xy = result.picks.xy_px
    px, py = np.rint(xy).astype(int).T
    merit = compare_picks(
        xy[inside(xy, micrograph.shape, 30)], true[inside(true, micrograph.shape, 30)], DIAMETER_A / 3 / PIXEL_A
    )
    return {
        "ice_flagged": float((bad & ~truth).sum() / max(int((~truth).sum()), 1)),
        "carbon_missed": float((truth & ~bad).sum() / max(int(truth.sum()), 1)),
        "separation": tell_ice_from_carbon(small.grey, small.radius_px).separation,
        "picks": len(xy),
        "on_carbon": int(on_carbon[py, px].sum()) if len(xy) else 0,
        "particles": len(true),
        "right": merit.true_positives,
        "wrong": merit.false_positives,
        "not_picked": merit.false_negatives,
    }


def clean_field(snr: float, seed: int) -> dict[str, float]:
    """Separation of the two populations of a micrograph half crowded, half empty."""
    model = simulate.phantom(box=64, pixel_size_A=PIXEL_A, diameter_A=DIAMETER_A, seed=1 + seed % 3)
    common = {"shape": (900, 480), "pixel_size_A": PIXEL_A, "snr": snr, "defocus_u_A": 12000.0 + 1500 * (seed % 8)}
    left, _ = simulate.micrograph(model, n=60, seed=seed, **common)
    right, _ = simulate.micrograph(None, seed=seed + 5000, **common)
    small = prepare(vg.Micrograph(np.concatenate([left.data, right.data], 1), PIXEL_A, "half"), DIAMETER_A)
    return told(small)


def told(small: Any) -> dict[str, float]:
    """What the split says of a micrograph without carbon."""
    split = tell_ice_from_carbon(small.grey, small.radius_px)
    return {
        "separation": split.separation,
        "flagged": bool(split.clear),
        "ice_flagged": float(bad_areas(small).rough.mean()),
    }


def real(name: str) -> dict[str, float]:
    """A real micrograph without carbon."""
    if name.endswith(".tif"):
        return told(prepare(vg.read_micrograph(DATA / "apoferritin" / name, 1.5), DIAMETER_A))
    with Image.open(DATA / "picking_betagal" / name) as picture:
        return told(prepare(vg.Micrograph(np.asarray(picture.convert("F")), 7.08, name), 180.0))


def trials(seeds: int) -> dict[str, Callable[[], Any]]:
    """All of them, seed by seed."""
    names = [p.name for p in sorted((DATA / "apoferritin").glob("*.tif"))]
    names += [p.name for p in sorted((DATA / "picking_betagal").glob("*.png"))]
    found: dict[str, Callable[[], Any]] = {f"real {name}": partial(real, name) for name in names}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for power, grey in CONTRASTS:
            for share in SHARES if (power, grey) == CONTRASTS[0] else SHARES[1:]:
                found[f"carbon {share:g} {power:g} {grey:g} {seed}"] = partial(one_field, share, power, grey, seed)
        for snr in (0.02, 0.05, 0.2):
            found[f"half {snr:g} {seed}"] = partial(clean_field, snr, seed)
    return found


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Means over seeds; F from all pairs of a group together."""
    groups: dict[str, list[Any]] = {}
    for key, one in done.items():
        groups.setdefault(key.split()[0] if key.startswith("real") else key.rsplit(" ", 1)[0], []).append(one)
    rows = []
    for key, those in sorted(groups.items()):
        kind, *values = key.split()
        separations = [one["separation"] for one in those]
        row: dict[str, Any] = {"kind": kind, "micrographs": len(those)}
        row |= {"least_separation": min(separations), "largest_separation": max(separations)}
        row["ice_flagged"] = float(np.mean([one["ice_flagged"] for one in those]))
        row["ice_flagged_most"] = max(one["ice_flagged"] for one in those)
        if kind == "carbon":
            share, power, grey = map(float, values)
            sums = {k: sum(one[k] for one in those) for k in ("right", "wrong", "not_picked", "on_carbon")}
            row = {"kind": kind, "share": share, "power": power, "grey": grey, **row}
            row["carbon_missed"] = float(np.mean([one["carbon_missed"] for one in those]))
            row["on_carbon"] = sums["on_carbon"]
            row["f_score"] = 2 * sums["right"] / max(2 * sums["right"] + sums["wrong"] + sums["not_picked"], 1)
        else:
            row["snr"] = float(values[0]) if values else None
            row["told_carbon"] = sum(one["flagged"] for one in those)
        rows.append(row)
    return rows


def simulated_rings(power: float, seed: int) -> dict[str, float]:
    """Contrast of the rings of a micrograph of carbon alone; power 0 is ice with particles."""
    model = simulate.phantom(box=64, pixel_size_A=PIXEL_A, diameter_A=DIAMETER_A, seed=1 + seed % 3)
    scene = {"shape": (900, 900), "pixel_size_A": PIXEL_A, "defocus_u_A": 9000.0 + 1800 * (seed % 10), "seed": seed}
    if power:
        micrograph, _ = simulate.micrograph(None, carbon=1.0, carbon_power=power, carbon_grey=0.5, **scene)
    else:
        micrograph, _ = simulate.micrograph(model, n=(10, 30, 50)[seed % 3], snr=(0.02, 0.05)[seed % 2], **scene)
    return {"ring_contrast": ring_contrast(micrograph.data, PIXEL_A)}


def real_rings(name: str) -> dict[str, float]:
    if name.endswith(".tif"):
        return {"ring_contrast": ring_contrast(vg.read_micrograph(DATA / "apoferritin" / name, 1.5).data, 1.5)}
    with Image.open(DATA / "picking_betagal" / name) as picture:
        return {"ring_contrast": ring_contrast(np.asarray(picture.convert("F")), 7.08)}


def rings_summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How many micrographs of a set are told to be carbon alone; simulated ones one at a time among those of ice."""
    sets: dict[str, list[float]] = {}
    for key, one in done.items():
        sets.setdefault(key.rsplit(" ", 1)[0], []).append(one["ring_contrast"])
    rows = []
    for name, values in sorted(sets.items()):
        alone = name.startswith("carbon")
        groups = [[*sets["ice"], value] for value in values] if alone else [values]
        told_carbon = sum(rings_told(group, only_last=alone) for group in groups)
        row = {"set": name, "micrographs": len(values), "told": told_carbon}
        rows.append(row | {"least": min(values), "median": float(np.median(values)), "largest": max(values)})
    return rows


def rings_told(contrasts: list[float], only_last: bool) -> int:
    """Micrographs of a set that the verdict names for their rings, or whether the last is."""
    those = [MicrographQuality(f"{i}", 99, 0.0, 5.0, True, ring_contrast=c) for i, c in enumerate(contrasts)]
    marks = [any("rings" in reason for reason in reasons) for reasons in judge_micrographs(those).values()]
    return int(marks[-1] if only_last else sum(marks))


def ring_trials(seeds: int) -> dict[str, Callable[[], Any]]:
    work: dict[str, Callable[[], Any]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        work[f"ice {seed}"] = partial(simulated_rings, 0.0, seed)
        for power in (2.0, 3.0, 8.0):
            work[f"carbon of power {power:g} {seed}"] = partial(simulated_rings, power, seed)
    for folder, ending in (("apoferritin", "tif"), ("picking_betagal", "png")):
        for path in sorted((DATA / folder).glob(f"*.{ending}")):
            work[f"{folder} {path.name}"] = partial(real_rings, path.name)
    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="no new micrograph after so long; goes on next time"
    )
    parser.add_argument("--alone", action="store_true", help="micrographs of carbon alone, told by the set's rings")
    given = parser.parse_args()
    if given.alone:
        collect("carbon_rings", ring_trials(given.seeds), rings_summary, given.minutes)
        return
    collect("carbon", trials(given.seeds), summary, given.minutes, diameter_A=DIAMETER_A, pixel_size_A=PIXEL_A)


if __name__ == "__main__":
    main()
