"""Two optics groups of 1.00 and 1.31 A/px, boxes of 128 and 96 px, in one refinement, beside one group.

    python bench/bench_one_grid.py --seeds 3 --minutes 7     goes on where an earlier call stopped

800 particles of a phantom of 80 A (objects without symmetry, with D2 and with C5 take turns, and are refined so), noise
of one power per area of detector in all images (SNR 0.15 of pixels of 1.31 A). `two`: 400 of 1.00 A/px, 400 of 1.31.
`one`: the same 400 of 1.31, and the others with the same poses and defoci at 1.31 too, their noise another. Each is
refined by `vg.refine` from the truth at 20 A; the map, turned onto the truth, is compared with it shell by shell.
Development used seeds 1 and 2; the committed rows begin at seed 100.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import verglas as vg
from verglas import image
from verglas.assessment import pose_errors
from verglas.filters import apply, low_pass
from verglas.io import read_particles, write_stack, write_star

from common import collect

FIRST_SEED = 100
OBJECTS = ("C1", "D2", "C5")
FINE, COARSE = (128, 1.0), (96, 1.31)
EACH, DIAMETER_A, SNR = 400, 80.0, 0.15
ENVELOPE_A2 = 60.0
DEFOCUS_A = (4000.0, 12000.0)


def made(seed: int, grid: tuple[int, float], part: int, noise: int) -> vg.Particles:
    """Half of the particles at a sampling; part and noise tell seeds apart."""
    box, pixel_A = grid
    model = vg.simulate.phantom(COARSE[0], COARSE[1], DIAMETER_A, OBJECTS[seed % len(OBJECTS)], seed)
    imaging = vg.simulate.Imaging(envelope_b_factor_A2=ENVELOPE_A2, shift_sd_A=2.0, defocus_A=DEFOCUS_A)
    how: dict[str, Any] = {"snr": 1e6, "seed": 10 * seed + part, "imaging": imaging, "listener": None}
    wide = vg.simulate.particles(model, EACH, 2 * box, pixel_A, **how)
    # cut as from a micrograph: what the CTF spreads beyond the box is lost, and does not come in on the other side
    cut = slice(box // 2, box // 2 + box)
    clean = wide.images()[:, cut, cut]
    # of one dose an area, smaller pixels have more noise beside the same signal
    y, x = np.mgrid[:box, :box] - box // 2
    level = clean[:, np.hypot(x, y) < 0.35 * box].std() / np.sqrt(SNR) * COARSE[1] / pixel_A
    noise_of = np.random.default_rng((seed, part, noise)).normal(0, level, clean.shape)
    optics = wide.optics_table.assign(rlnImageSize=box)
    images = vg.types.ArraySource((clean + noise_of).astype(np.float32), pixel_A)
    return vg.Particles(wide.table, images, optics_table=optics)


def write_set(folder: Path, groups: list[vg.Particles]) -> vg.Particles:
    """A STAR file with one optics group for each of the parts, images normalised as they are when extracted."""
    tables, optics = [], []
    for number, particles in enumerate(groups):
        pixel_A = particles.pixel_size_A
        name = folder / f"s{number}.mrcs"
        write_stack(name, image.normalise(particles.images(), 0.6 * DIAMETER_A / pixel_A), pixel_A)
        names = [f"{i + 1:06d}@{name}" for i in range(len(particles))]
        half = 1 + np.arange(len(particles)) % 2
        micrographs = [f"g{number}_{i // 50}.mrc" for i in range(len(particles))]
        more = {"rlnImageName": names, "rlnOpticsGroup": number + 1, "rlnRandomSubset": half}
        tables.append(particles.table.assign(rlnMicrographName=micrographs, **more))
        optics.append(particles.optics_table.assign(rlnOpticsGroup=number + 1, rlnOpticsGroupName=f"group{number + 1}"))
    tables_of_file = {"optics": pd.concat(optics, ignore_index=True), "particles": pd.concat(tables, ignore_index=True)}
    write_star(folder / "p.star", tables_of_file)
    return read_particles(folder / "p.star")


def refined(kind: str, seed: int) -> dict[str, Any]:
    """One refinement, and its map beside the truth."""
    symmetry = OBJECTS[seed % len(OBJECTS)]
    model = vg.simulate.phantom(COARSE[0], COARSE[1], DIAMETER_A, symmetry, seed)
    truth = vg.simulate.density(model, *COARSE, b_factor_A2=ENVELOPE_A2)
    first = made(seed, FINE, 0, 0) if kind == "two" else made(seed, COARSE, 0, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        both = write_set(folder, [first, made(seed, COARSE, 1, 0)])
        begun = apply(truth, low_pass(20.0))
        how: dict[str, Any] = {"symmetry": symmetry, "diameter_A": DIAMETER_A + 20, "initial_resolution_A": 20.0}
        found = vg.refine(both, begun, out=folder / "run", threads=1, seed=seed, listener=None, **how)
        errors = pose_errors(found.particles.poses, both.poses, symmetry)
        turned = vg.simulate.density(model.move(errors.matrix, errors.offset_A), *COARSE, b_factor_A2=ENVELOPE_A2)
        x = np.linspace(-found.map.box // 2, found.map.box // 2 - 1, found.map.box) * found.map.pixel_size_A
        radius = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
        ball = np.clip((DIAMETER_A / 2 + 12 - radius) / 8, 0, 1)
        curve = vg.fsc(found.map, turned, ball.astype(np.float32))
    return {
        "object": symmetry,
        "resolution_A": float(curve.resolution_A(0.5)),
        "median_angle_deg": float(np.median(errors.angle_deg)),
        "box": found.map.box,
        "pixel_size_A": found.map.pixel_size_A,
        "fsc": np.round(curve.curve, 4).tolist(),
    }


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a seed that has both."""
    rows = []
    for key, two in done.items():
        kind, seed = key.split()
        one = done.get(f"one {seed}")
        if kind != "two" or one is None:
            continue
        curves = np.array([two["fsc"], one["fsc"]])
        # to where the map of one group ends
        last = int(np.flatnonzero(curves[1] < 0.5)[0]) if (curves[1] < 0.5).any() else curves.shape[1]
        rows.append(
            {
                "seed": int(seed),
                "object": two["object"],
                "resolution_two_groups_A": two["resolution_A"],
                "resolution_one_group_A": one["resolution_A"],
                "ratio": two["resolution_A"] / one["resolution_A"],
                "mean_fsc_two_groups": float(curves[0, 1:last].mean()),
                "mean_fsc_one_group": float(curves[1, 1:last].mean()),
                "angle_two_groups_deg": two["median_angle_deg"],
                "angle_one_group_deg": one["median_angle_deg"],
            }
        )
    return rows or [{"trials": len(done)}]


def trials(first: int, seeds: int) -> dict[str, Callable[[], Any]]:
    """Both refinements of each seed."""
    return {f"{kind} {s}": partial(refined, kind, s) for s in range(first, first + seeds) for kind in ("two", "one")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--try", type=int, dest="tried", help="run one seed of development, write nothing")
    given = parser.parse_args()
    if given.tried is not None:
        done = {key: run() for key, run in trials(given.tried, 1).items()}
        print(done, summary(done), sep="\n")
    else:
        collect("one_grid", trials(FIRST_SEED, given.seeds), summary, given.minutes)
