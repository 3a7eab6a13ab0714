"""CTF refinement on simulated particles: what is planted, what comes back, and what the noise allows.

    python bench/bench_optics.py --seeds 10 --minutes 9     goes on where an earlier call stopped

Development used seeds 0 to 3; the committed rows begin at seed 100. Four experiments a seed; objects without symmetry,
with D2 and with C5 take turns. SNR: variance of the CTF-modulated image over that of the noise on a disc of 0.35 N.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import verglas as vg
from verglas.optics import Aberrations, with_aberrations
from verglas.optics.refine import Pixels, Setting, calibrate, defocus_pass, fit_defocus, recalibrate
from verglas.optics.refine.pixels import Reference, gather, transfer
from verglas.run.ctf_refine import CtfRefineSettings
from verglas.types.even_aberrations import even_zernikes, written

from common import collect, experiment_summary

FIRST_SEED = 100
OBJECTS = ("C1", "D2", "C5")
COMA_A3 = 2.7e7 * 0.0196875**2


def object_map(seed: int, box: int, pixel_A: float) -> tuple[Any, vg.Map]:
    """A phantom of the seed's kind, and its density."""
    model = vg.simulate.phantom(box, pixel_A, 0.6 * box * pixel_A, OBJECTS[seed % len(OBJECTS)], seed)
    return model, vg.simulate.density(model, box, pixel_A)


def noise_sd(images: np.ndarray, snr: float) -> float:
    """Standard deviation of the noise at this SNR on the disc."""
    box = images.shape[-1]
    y, x = np.mgrid[:box, :box] - box // 2
    return float(np.sqrt(images[:, np.hypot(x, y) < 0.35 * box].var() / snr))


def aberrations_of(n: int, tilt: np.ndarray, odd: np.ndarray, matrix: np.ndarray, kind: np.ndarray) -> Aberrations:
    """By group; ``kind`` (n,) is the group of each particle."""
    assert len(kind) == n
    return Aberrations(kind, tilt, odd, matrix, np.full(len(tilt), COMA_A3))


def tilt_and_defocus(seed: int) -> dict[str, Any]:
    """1,500 x 96 px, 1.1 A, SNR 0.3, true poses: 1 mrad of tilt and defocus errors of 250 A together."""
    n, box, pixel_A = 1500, 96, 1.1
    rng = np.random.default_rng((seed, 1))
    model, truth = object_map(seed, box, pixel_A)
    made = vg.simulate.particles(model, n, box, pixel_A, snr=1e6, seed=seed)
    angle = rng.uniform(0, 2 * np.pi)
    tilt = np.array([[np.cos(angle), np.sin(angle)]])
    planted = aberrations_of(n, tilt, np.zeros((1, 6)), np.eye(2)[None], np.zeros(n, np.int64))
    images = vg.project(truth, made.poses, made.optics, threads=1)
    sd = noise_sd(images, 0.3)
    images = planted.applied(images, np.arange(n), pixel_A)
    images += rng.normal(0, sd, images.shape).astype(np.float32)
    error = rng.normal(0, 250, n)
    table = made.table.assign(rlnDefocusU=made.table.rlnDefocusU + error, rlnDefocusV=made.table.rlnDefocusV + error)
    source = vg.types.ArraySource(images, pixel_A)
    given = vg.Particles(table, source, optics_table=made.optics_table)
    found = vg.refine_ctf(given, threads=1, listener=None)
    columns = found.particles.optics_table
    got = np.array([columns.rlnBeamTiltX[0], columns.rlnBeamTiltY[0]]) if "rlnBeamTiltX" in columns else np.zeros(2)
    rest = (found.particles.table.rlnDefocusU - made.table.rlnDefocusU).to_numpy()
    # the same fit with the true tilt and the true map
    best = with_aberrations(given, planted)
    half = found.particles.half_sets - 1
    setting = Setting.of(best, half, (truth, truth), Pixels(box, pixel_A, 3, 46), 1)
    where = (np.zeros(n, np.int64), None)
    calibration = recalibrate(setting, calibrate(setting), 2000.0, *where)
    ideal = fit_defocus(defocus_pass(setting, calibration, 2000.0), error * 0, *where)
    return {
        "object": OBJECTS[seed % len(OBJECTS)],
        "rounds": len(found.rounds),
        "tilt_error_mrad": float(np.hypot(*(got - tilt[0]))),
        "defocus_error_A": float(rest.std()),
        "ideal_defocus_error_A": float((ideal.change_A + error).std()),
        "first_round_gain_nats": found.rounds[0].odd[0].gain_nats,
    }


def defocus_bound(seed: int) -> dict[str, Any]:
    """128 px, 1.0 A, SNR 0.05: defoci of sd 200 A about a tilted plane; true map; beside the Cramer-Rao bound."""
    n, box, pixel_A, each, sd_A = 600, 128, 1.0, 60, 200.0
    rng = np.random.default_rng((seed, 2))
    model, truth = object_map(seed, box, pixel_A)
    imaging = vg.simulate.Imaging(particles_per_micrograph=each, defocus_spread_A=0.0)
    made = vg.simulate.particles(model, n, box, pixel_A, snr=1e6, seed=seed, imaging=imaging)
    xy, slope = rng.uniform(-2000, 2000, (n, 2)), rng.uniform(-0.2, 0.2, (n // each, 2)).repeat(each, axis=0)
    height = (xy * slope).sum(axis=1) + rng.normal(0, sd_A, n)
    true = made.table.assign(rlnDefocusU=made.table.rlnDefocusU + height, rlnDefocusV=made.table.rlnDefocusV + height)
    optics = vg.Particles(true, None, optics_table=made.optics_table).optics
    images = vg.project(truth, made.poses, optics, threads=1)
    sd = noise_sd(images, 0.05)
    images += rng.normal(0, sd, images.shape).astype(np.float32)
    table = made.table.assign(rlnCoordinateX=xy[:, 0], rlnCoordinateY=xy[:, 1])
    given = vg.Particles(table, vg.types.ArraySource(images, pixel_A), optics_table=made.optics_table)
    pixels = Pixels(box, pixel_A, 3, 61)
    setting = Setting.of(given, np.arange(n) % 2, (truth, truth), pixels, 1)
    now, where = given.optics, (np.arange(n) // each, xy)
    calibration = recalibrate(setting, calibrate(setting), 2000.0, *where)
    fit = fit_defocus(defocus_pass(setting, calibration, 2000.0), (now.defocus_u_A + now.defocus_v_A) / 2, *where)
    cosine = transfer(optics.as_params(), pixels, 1)[1]
    power = np.abs(gather(Reference(truth, pixels, 1).slices(given), pixels)) ** 2
    slope_of_phase = np.pi * 0.0196875 * pixels.k2
    information = 2 * (power * (cosine * slope_of_phase) ** 2).sum(axis=1) / (sd * box) ** 2
    bound = np.sqrt((1 / (information + 1 / sd_A**2)).mean())
    error = fit.change_A - height
    return {
        "object": OBJECTS[seed % len(OBJECTS)],
        "rms_error_A": float(np.sqrt((error**2).mean())),
        "bound_A": float(bound),
        "ratio": float(np.sqrt((error**2).mean()) / bound),
        "stated_error_A": float(np.sqrt((fit.standard_error_A**2).mean())),
        "width_A": fit.width_A,
        "about": fit.about,
        "gain_nats": fit.gain_nats,
        "kept": fit.kept,
    }


def two_groups(seed: int) -> dict[str, Any]:
    """2 x 500 of 96 px, 1.1 A, SNR 0.3: trefoil, fourth order and magnifications 2 % apart; true map, four rounds."""
    n, box, pixel_A = 1000, 96, 1.1
    rng = np.random.default_rng((seed, 3))
    model, truth = object_map(seed, box, pixel_A)
    imaging = vg.simulate.Imaging(optics_groups=2)
    made = vg.simulate.particles(model, n, box, pixel_A, snr=1e6, seed=seed, imaging=imaging)
    odd = np.zeros((2, 6))
    odd[:, [2, 5]] = rng.uniform(10, 25, (2, 2)) * rng.choice([-1, 1], (2, 2))
    terms = np.zeros((2, 5))
    terms[:, [0, 3]] = rng.uniform(15, 40, (2, 2)) * rng.choice([-1, 1], (2, 2))
    matrix = np.array([[[1.01, 0.003], [0.003, 0.995]], [[0.99, -0.003], [-0.003, 1.005]]])
    group = made.optics.group
    planted = aberrations_of(n, np.zeros((2, 2)), odd, matrix, group)
    even = vg.Particles(
        made.table, None, optics_table=made.optics_table.assign(rlnEvenZernike=written(even_zernikes(terms)))
    )
    images = vg.project(truth, made.poses, even.optics, threads=1)
    sd = noise_sd(images, 0.3)
    images = planted.applied(images, np.arange(n), pixel_A) + rng.normal(0, sd, images.shape).astype(np.float32)
    state = made.with_source(vg.types.ArraySource(images.astype(np.float32), pixel_A))
    chosen = CtfRefineSettings(defocus=False, even=True, magnification=True, rounds=1)
    for _ in range(4):
        state = vg.refine_ctf(state, chosen, half_maps=(truth, truth), threads=1, listener=None).particles
    found = Aberrations.of(state)
    first = [int(np.flatnonzero(group == g)[0]) for g in range(2)]
    got_odd, got_matrix = found.odd[found.kind[first]], found.matrix[found.kind[first]]
    optics = state.optics
    got_terms = np.column_stack([optics.spherical4_A4[first], optics.tetrafoil_x_A4[first]])
    return {
        "object": OBJECTS[seed % len(OBJECTS)],
        "trefoil_relative_error": float((np.abs(got_odd - odd)[:, [2, 5]] / np.abs(odd[:, [2, 5]])).max())
        if got_odd.shape[1] >= 6
        else 1.0,
        "fourth_order_relative_error": float((np.abs(got_terms - terms[:, [0, 3]]) / np.abs(terms[:, [0, 3]])).max()),
        "magnification_error": float(np.abs(got_matrix - matrix).max()),
    }


def nothing(seed: int) -> dict[str, Any]:
    """400 x 64 px: noise with poses, and particles beside the map of another object."""
    n, box, pixel_A = 400, 64, 1.6
    rng = np.random.default_rng((seed, 4))
    model = object_map(seed, box, pixel_A)[0]
    made = vg.simulate.particles(model, n, box, pixel_A, snr=0.1, seed=seed)
    noise = made.with_source(vg.types.ArraySource(rng.normal(size=(n, box, box)).astype(np.float32), pixel_A))
    other = object_map(seed + 50_000, box, pixel_A)[1]
    settings = {"even": True, "magnification": True, "threads": 1, "listener": None}
    of_noise = vg.refine_ctf(noise, **settings)
    of_other = vg.refine_ctf(made, half_maps=(other, other), rounds=1, **settings)
    return {
        "noise_changed": of_noise.particles is not noise,
        "noise_verdict": of_noise.verdict,
        "other_map_changed": of_other.particles is not made,
        "other_map_verdict": of_other.verdict,
    }


EXPERIMENTS = {"bound": defocus_bound, "nothing": nothing, "tilt": tilt_and_defocus, "groups": two_groups}


def trials(seeds: int, first: list[str]) -> dict[str, Callable[[], Any]]:
    """Every experiment, seed by seed; those named ``first`` before the others."""
    chosen = {}
    for name in sorted(EXPERIMENTS, key=lambda name: name not in first):
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            chosen[f"{name} {seed}"] = lambda name=name, seed=seed: EXPERIMENTS[name](seed)
    return chosen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--first", nargs="*", default=[], choices=EXPERIMENTS, help="experiments to run first")
    given = parser.parse_args()
    collect("optics", trials(given.seeds, given.first), partial(experiment_summary, EXPERIMENTS), given.minutes)
