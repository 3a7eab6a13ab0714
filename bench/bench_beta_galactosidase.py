"""Beta-galactosidase with all aberrations at once, before and after two rounds of CTF refinement, at full size.

    python bench/bench_beta_galactosidase.py --seeds 2 --minutes 6     goes on where an earlier call stopped
    python bench/bench_beta_galactosidase.py --plot     the figure of the last results

300 particles of 256 px at 0.9 A (5a1a, D2; envelope of 20 A^2, SNR 0.3 on a disc of 0.35 N), 0.4 to 1.2 um, true poses.
Planted: 1 mrad of beam tilt, trefoil, fourth order, 2 % of anisotropic magnification, defocus errors of 250 A.
Three sets share poses, defoci and noise: `without` aberrations; `before`, with them and the optics as they are thought
to be; `after` two rounds of `vg.refine_ctf`, whose half maps are made of the particles. Each is reconstructed and
compared with the truth. Writes bench/results/beta_galactosidase.json, and its curves as a figure of the guide.
Development used seeds 1 and 100, `without` and `before` only (of an envelope of 50 A^2, 3.47 and 4.28 A); the committed
rows begin at seed 101.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_optics import aberrations_of, beta_galactosidase, noise_sd

import verglas as vg
from verglas.types.even_aberrations import even_zernikes, write_coefficients

from common import RESULTS, ROOT, collect

FIRST_SEED = 101
N, BOX, PIXEL_A, SNR, SYMMETRY = 300, 256, 0.9, 0.3, "D2"
ENVELOPE_A2, TILT_MRAD, DEFOCUS_SD_A = 20.0, 1.0, 250.0
SETS = ("without", "before", "after")


def measured(name: str, seed: int) -> dict[str, Any]:
    """The map of one of the sets, beside the truth."""
    rng = np.random.default_rng((seed, 8))
    truth = vg.simulate.density(beta_galactosidase(), BOX, PIXEL_A, b_factor_A2=ENVELOPE_A2)
    imaging = vg.simulate.Imaging(defocus_A=(4000.0, 12000.0))
    plain = vg.simulate.phantom(32, 8.0, 100.0, seed=seed)  # for its poses and defoci
    made = vg.simulate.particles(plain, N, 32, 7.2, snr=1e6, seed=seed, imaging=imaging, listener=None)
    angle, odd, terms = rng.uniform(0, 2 * np.pi), np.zeros((1, 6)), np.zeros((1, 5))
    odd[:, [2, 5]] = rng.uniform(20, 30, 2) * rng.choice([-1, 1], 2)
    terms[:, [0, 3]] = rng.uniform(50, 100, 2) * rng.choice([-1, 1], 2)
    tilt = TILT_MRAD * np.array([[np.cos(angle), np.sin(angle)]])
    matrix = np.array([[[1.01, 0.003], [0.003, 0.99]]])
    error, draw = rng.normal(0, DEFOCUS_SD_A, N), np.random.default_rng((seed, 9))
    table = made.table.drop(columns=["rlnImageName"], errors="ignore")
    optics_table = made.optics_table.assign(rlnImagePixelSize=PIXEL_A, rlnImageSize=BOX)
    thought = vg.Particles(table, None, optics_table=optics_table)
    clean = vg.project(truth, thought.poses, thought.optics, threads=1)
    sd = noise_sd(clean, SNR)
    images = clean
    if name != "without":
        defoci = {label: table[label] + error for label in ("rlnDefocusU", "rlnDefocusV")}
        even = optics_table.assign(rlnEvenZernike=write_coefficients(even_zernikes(terms)))
        optics = vg.Particles(table.assign(**defoci), None, optics_table=even).optics
        planted = aberrations_of(N, tilt, odd, matrix, np.zeros(N, np.int64))
        images = planted.apply(vg.project(truth, thought.poses, optics, threads=1), np.arange(N), PIXEL_A)
    for image in images:
        image += draw.normal(0, sd, image.shape).astype(np.float32)
    some = thought.with_source(vg.types.ArraySource(images, PIXEL_A))
    row: dict[str, Any] = {}
    if name == "after":
        how: dict[str, Any] = {"even": True, "magnification": True, "symmetry": SYMMETRY, "threads": 1}
        found = vg.refine_ctf(some, rounds=2, listener=None, **how)
        some = found.particles
        columns, rest = some.optics_table, some.table.rlnDefocusU - table.rlnDefocusU - error
        got = np.array([columns.rlnBeamTiltX[0], columns.rlnBeamTiltY[0]]) if "rlnBeamTiltX" in columns else np.zeros(2)
        row |= {"tilt_error_mrad": float(np.hypot(*(got - tilt[0]))), "defocus_error_A": float(rest.std())}
        row |= {"rounds": len(found.rounds)}
    curve = vg.fsc(vg.reconstruct(some, symmetry=SYMMETRY, threads=1, listener=None), truth)
    return row | {"resolution_A": float(curve.resolution_A(0.5)), "fsc": np.round(curve.curve, 4).tolist()}


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a seed that has all three."""
    rows = []
    for seed in sorted({int(key.split()[1]) for key in done}):
        some = [done.get(f"{name} {seed}") for name in SETS]
        if None in some:
            continue
        without, before, after = (one["resolution_A"] for one in some)
        row = {
            "seed": seed,
            "resolution_without_A": without,
            "resolution_before_A": before,
            "resolution_after_A": after,
        }
        row |= {"before_over_without": before / without, "after_over_without": after / without}
        rows.append(row | {key: some[2][key] for key in ("tilt_error_mrad", "defocus_error_A", "rounds")})
    return rows or [{"trials": len(done)}]


def plot() -> Path:
    """docs/figures/aberrations_beta_galactosidase.png from the results: the curves of the first seed."""
    from verglas.report.style import COLOURS, FAINT, new_figure, png, style_context

    held = json.loads((RESULTS / "beta_galactosidase.json").read_text())
    trials, seed = held["trials"], held["rows"][0]["seed"]
    with style_context():
        figure = new_figure(6.0, 3.2)
        axes = figure.subplots()
        for name, colour in zip(SETS, (FAINT, COLOURS[1], COLOURS[0]), strict=True):
            curve = np.array(trials[f"{name} {seed}"]["fsc"])
            words = {"without": "no aberrations", "before": "before", "after": "after two rounds"}[name]
            axes.plot(np.arange(len(curve)) / (BOX * PIXEL_A), curve, color=colour, label=words)
        axes.axhline(0.5, color=FAINT, linewidth=0.8)
        axes.set(xlabel="frequency (1/Å)", ylabel="FSC with the truth", xlim=(0, 0.5 / PIXEL_A), ylim=(-0.1, 1.02))
        axes.legend(fontsize=8)
        path = ROOT / "docs" / "figures" / "aberrations_beta_galactosidase.png"
        path.write_bytes(png(figure))
    return path


def trials(first: int, seeds: int) -> dict[str, Callable[[], Any]]:
    """The three sets of each seed."""
    return {f"{name} {seed}": partial(measured, name, seed) for seed in range(first, first + seeds) for name in SETS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--try", type=int, dest="tried", help="run one seed of development, write nothing")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS, help="of a seed that is tried")
    parser.add_argument("--plot", action="store_true", help="the figure of the last results")
    given = parser.parse_args()
    if given.tried is not None:
        for chosen in given.sets:
            print(chosen, measured(chosen, given.tried), flush=True)
    elif not given.plot:
        collect("beta_galactosidase", trials(FIRST_SEED, given.seeds), summary, given.minutes)
    if given.plot:
        print(f"wrote {plot()}")
