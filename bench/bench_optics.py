"""CTF refinement on simulated particles: what is planted, what comes back, and what the noise allows.

    python bench/bench_optics.py --seeds 10 --minutes 9     goes on where an earlier call stopped

Development used seeds 0 to 7; the committed rows begin at seed 100. Eight experiments a seed; objects without symmetry,
with D2 and with C5 take turns. SNR: variance of the CTF-modulated image over that of the noise on a disc of 0.35 N.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import verglas as vg
from verglas.optics import Aberrations, with_aberrations
from verglas.optics.refine import Pixels, Setting, calibrate, defocus_pass, fit_defocus, recalibrate
from verglas.optics.refine.pixels import Reference, gather, transfer
from verglas.run.ctf_refine import CtfRefineSettings
from verglas.types.even_aberrations import even_zernikes, write_coefficients

from common import ROOT, collect, experiment_summary

DATA = ROOT.parent / "shared" / "data"
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
    images = planted.apply(images, np.arange(n), pixel_A)
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


def two_groups(seed: int, n: int = 1000) -> dict[str, Any]:
    """2 x 500 of 144 px, 1.1 A, SNR 1: trefoil, fourth order and magnifications 2 % apart; true map, four rounds.

    A particle of 63 A at 0.4 to 0.6 um: what the CTF spreads stays in the box. In a box of 96 px, at 1 to 2 um, the
    fit found a magnification that was 0.0009 off without any noise, of what the planted one moved over the edge.
    """
    box, pixel_A = 144, 1.1
    rng = np.random.default_rng((seed, 3))
    model = vg.simulate.phantom(box, pixel_A, 63.0, OBJECTS[seed % len(OBJECTS)], seed)
    truth = vg.simulate.density(model, box, pixel_A)
    imaging = vg.simulate.Imaging(optics_groups=2, defocus_A=(4000.0, 6000.0))
    made = vg.simulate.particles(model, n, box, pixel_A, snr=1e6, seed=seed, imaging=imaging)
    odd = np.zeros((2, 6))
    odd[:, [2, 5]] = rng.uniform(10, 25, (2, 2)) * rng.choice([-1, 1], (2, 2))
    terms = np.zeros((2, 5))
    terms[:, [0, 3]] = rng.uniform(30, 60, (2, 2)) * rng.choice([-1, 1], (2, 2))
    matrix = np.array([[[1.01, 0.003], [0.003, 0.995]], [[0.99, -0.003], [-0.003, 1.005]]])
    group = made.optics.group
    planted = aberrations_of(n, np.zeros((2, 2)), odd, matrix, group)
    even = vg.Particles(
        made.table, None, optics_table=made.optics_table.assign(rlnEvenZernike=write_coefficients(even_zernikes(terms)))
    )
    images = vg.project(truth, made.poses, even.optics, threads=1)
    sd = noise_sd(images, 1.0)
    images = planted.apply(images, np.arange(n), pixel_A) + rng.normal(0, sd, images.shape).astype(np.float32)
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


def two_groups_of_800(seed: int) -> dict[str, Any]:
    """:func:`two_groups` of 2 x 800, ten seeds further on."""
    return two_groups(seed + 10, 1600)


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


def thick_map(seed: int, box: int, pixel_A: float) -> vg.Map:
    """250 blobs of a pixel's width out to the edge of a ball of 3/4 of the box: signal up to Nyquist."""
    rng = np.random.default_rng((seed, 5))
    group = vg.symmetry_matrices(OBJECTS[seed % len(OBJECTS)])
    points = rng.normal(size=(250 // len(group), 3))
    points *= (rng.uniform(size=len(points)) ** (1 / 3) * 0.375 * box / np.linalg.norm(points, axis=1))[:, None]
    points = np.einsum("gij,mj->gmi", group, points).reshape(-1, 3)
    k = 2 * np.pi * np.fft.fftfreq(box)
    waves = [np.exp(-1j * np.outer(points[:, 2 - axis], k) - 0.15 * k**2) for axis in range(3)]
    spectrum = np.einsum("mz,my,mx->zyx", *waves, optimize=True)
    return vg.Map(np.fft.fftshift(np.fft.ifftn(spectrum).real).astype(np.float32), pixel_A)


def ewald(seed: int) -> dict[str, Any]:
    """500 x 32 px, 0.2 A, 10 kV, SNR 0.3, true poses: a particle of 24 px, flat slices of which end at 3.3 px."""
    n, box, pixel_A, voltage_kV = 500, 32, 0.2, 10.0
    rng = np.random.default_rng((seed, 6))
    truth, sign = thick_map(seed, box, pixel_A), ("positive", "negative")[int(rng.integers(2))]
    tilt = np.degrees(np.arccos(rng.uniform(-1, 1, n)))
    angles = np.column_stack([rng.uniform(0, 360, n), tilt, rng.uniform(0, 360, n)])
    poses, defocus = vg.Poses(angles, rng.normal(0, pixel_A, (n, 2))), rng.uniform(8, 24, n)
    optics = vg.Optics(defocus, defocus, voltage_kV=np.full(n, voltage_kV), cs_mm=np.zeros(n))
    images = vg.project(truth, poses, optics, ewald=True, ewald_sign=sign, threads=1)
    images += rng.normal(0, noise_sd(images, 0.3), images.shape).astype(np.float32)
    particles = vg.Particles.from_images(images, pixel_A, poses=poses, optics=optics)
    how: dict[str, Any] = {"symmetry": OBJECTS[seed % len(OBJECTS)], "threads": 1, "listener": None}
    found = vg.reconstruction.reconstruct_report(particles, ewald=True, **how)
    other = "negative" if sign == "positive" else "positive"
    maps = {
        "flat": vg.reconstruct(particles, **how),
        "right": vg.reconstruct(particles, ewald=True, ewald_sign=sign, **how),
        "wrong": vg.reconstruct(particles, ewald=True, ewald_sign=other, **how),
    }
    curves = {name: vg.fsc(made, truth) for name, made in maps.items()}
    last = (box - 1) // 2
    assert found.ewald is not None
    return {
        "object": OBJECTS[seed % len(OBJECTS)],
        "sign_found": found.ewald.sign == sign,
        "gain_over_flat_sigma": found.ewald.gain_nats / found.ewald.gain_error_nats,
        "gain_over_other_sigma": found.ewald.other_nats / found.ewald.other_error_nats,
        "depth_of_field_px": vg.optics.depth_of_field_resolution_A(0.75 * box * pixel_A, voltage_kV) / pixel_A,
        **{f"resolution_{name}_px": curve.resolution_A(0.5) / pixel_A for name, curve in curves.items()},
        **{f"fsc_{name}_at_2.3_px": float(curve.curve[last - 1]) for name, curve in curves.items()},
    }


def thick(seed: int) -> dict[str, Any]:
    """A specimen of 1,000 A at 300 kV, 640 px of 1.6 A: waves through it beside flat slices and slices on the sphere.

    400 voxels in a ball scatter weakly; the wave goes through 128 slabs. Slices are exact sums over the voxels, put
    together to images as ``vg.project(ewald=True)`` does it. A grid for slices of a map of this size takes 9 GB.
    """
    box, pixel_A, slab, voltage_kV = 640, 1.6, 5, 300.0
    rng = np.random.default_rng((seed, 7))
    points = rng.normal(size=(400, 3))
    points *= (rng.uniform(size=400) ** (1 / 3) * 500 / pixel_A / np.linalg.norm(points, axis=1))[:, None]
    points = np.rint(points).astype(int)
    # a slab's phase stands in its middle plane
    points[:, 2] = (points[:, 2] + box // 2) // slab * slab + slab // 2 - box // 2
    points = np.unique(points, axis=0)
    phase = np.zeros((box,) * 3, np.float32)
    phase[tuple((points[:, ::-1] + box // 2).T)] = 1e-3
    optics = vg.Optics([12000.0], [11500.0], [30.0], voltage_kV=voltage_kV)
    wave = vg.simulate.exit_wave(vg.Map(phase, pixel_A), voltage_kV, slab_px=slab, threads=1)
    image = vg.fourier.forward(vg.simulate.image_of_wave(wave, optics, pixel_A, threads=1)[None], 2, threads=1)[0]
    del phase, wave
    ky, kx = vg.fourier.half_grid((box, box))
    sag = float(vg.optics.wavelength_A(voltage_kV)) * (kx**2 + ky**2) / (2 * box * pixel_A)
    params = optics.as_params()
    sine = vg.ops.ctf(params, box, pixel_A, threads=1)[0]
    params[:, 6] += 90
    both = vg.ops.ctf(params, box, pixel_A, threads=1)[0] + 1j * sine
    slices = np.zeros((3, *sag.shape), np.complex64)
    for x, y, z in points:
        flat = np.exp(-2j * np.pi / box * ky * y) * np.exp(-2j * np.pi / box * kx * x)
        turn = np.exp(2j * np.pi / box * sag * z)
        slices += np.stack([flat * turn, flat, flat * turn.conj()])
    above, middle, below = slices
    predictions = {
        "flat": sine * middle,
        "right": (both * above - both.conj() * below) / 2j,
        "wrong": (both * below - both.conj() * above) / 2j,
    }
    ring = np.rint(np.hypot(ky, kx)).astype(int)
    limit_A = vg.optics.depth_of_field_resolution_A(1000.0, voltage_kV)
    made: dict[str, Any] = {"limit_A": limit_A}
    for name, predicted in predictions.items():
        terms = ((image * predicted.conj()).real, np.abs(image) ** 2, np.abs(predicted) ** 2)
        cross, one, two = (np.bincount(ring.ravel(), t.ravel(), box)[2 : box // 2] for t in terms)
        # of ten rings together
        curve = np.array(
            [
                c.sum() / np.sqrt(a.sum() * b.sum())
                for c, a, b in zip(*(np.array_split(v, 32) for v in (cross, one, two)), strict=True)
            ]
        )
        ends_A = box * pixel_A / np.array([part[-1] for part in np.array_split(np.arange(2, box // 2), 32)])
        fallen = np.flatnonzero(curve < 0.5)
        made[f"{name}_above_half_to_A"] = float(ends_A[fallen[0]]) if len(fallen) else float(ends_A[-1])
        made[f"{name}_at_limit"] = float(np.interp(-limit_A, -ends_A, curve))
        made[f"{name}_at_3.3_A"] = float(np.interp(-3.3, -ends_A, curve))
    return made


def micrographs(seed: int) -> dict[str, Any]:
    """12 micrographs of 50 x 64 px, 1.6 A, SNR 0.1, true map: astigmatism, phase shift, scale and B-factor of each.

    B-factors are compared less their mean over the micrographs, which the fit leaves to the reference.
    """
    each, count, box, pixel_A = 50, 12, 64, 1.6
    rng = np.random.default_rng((seed, 7))
    n, of = each * count, np.repeat(np.arange(count), each)
    model, truth = object_map(seed, box, pixel_A)
    made = vg.simulate.particles(model, n, box, pixel_A, snr=1e6, seed=seed)
    half, angle, phase = rng.uniform(50, 250, count), rng.uniform(0, 180, count), rng.normal(0, 15, count)
    scale, b_factor = rng.normal(0, 0.15, count), rng.uniform(-25, 25, count)
    scale, b_factor = scale - scale.mean(), b_factor - b_factor.mean()
    defocus = rng.uniform(8000, 20000, count)[of]
    plain = {"rlnDefocusU": defocus, "rlnDefocusV": defocus, "rlnDefocusAngle": 0.0, "rlnPhaseShift": 0.0}
    plain |= {"rlnCtfBfactor": 0.0, "rlnCtfScalefactor": 1.0, "rlnMicrographName": [f"m{m:02d}.mrc" for m in of]}
    plain |= {"rlnRandomSubset": 1 + np.arange(n) % 2}
    planted = {
        "astigmatism": {
            "rlnDefocusU": defocus + half[of],
            "rlnDefocusV": defocus - half[of],
            "rlnDefocusAngle": angle[of],
        },
        "phase_shift": {"rlnPhaseShift": phase[of]},
        "b_factor": {"rlnCtfBfactor": b_factor[of], "rlnCtfScalefactor": np.exp(scale[of])},
    }
    turn = np.deg2rad(2 * angle)
    true = {
        "astigmatism": np.column_stack([half * np.cos(turn), half * np.sin(turn)]),
        "phase_shift": np.deg2rad(phase)[:, None],
        "b_factor": np.column_stack([scale, b_factor]),
    }
    row: dict[str, Any] = {"object": OBJECTS[seed % len(OBJECTS)]}
    for term, columns in planted.items():
        images = vg.project(truth, made.poses, made.with_columns(**plain | columns).optics, threads=1)
        images += rng.normal(0, noise_sd(images, 0.1), images.shape).astype(np.float32)
        given = made.with_columns(**plain).with_source(vg.types.ArraySource(images, pixel_A))
        found = vg.refine_ctf(given, half_maps=(truth, truth), fit=(term,), rounds=1, threads=1, listener=None)
        fit = found.rounds[0].micrographs[term]
        error = (fit.change - true[term])[:, -1]
        if term == "b_factor":  # what all have in common is the reference's
            error -= error.mean()
        row |= {
            f"{term}_kept": fit.kept,
            f"{term}_rms_error": float(np.sqrt(np.mean(error**2))),
            f"{term}_rms_planted": float(np.sqrt(np.mean(true[term][:, -1] ** 2))),
            f"{term}_error_over_stated": float(np.sqrt(np.mean((error / fit.standard_error[:, -1]) ** 2))),
        }
    return row


def beta_galactosidase() -> Any:
    """5a1a with its two-fold axes, which are its principal ones, on the axes of the map."""
    model = vg.simulate.read_model(DATA / "models" / "5a1a.pdb.gz").recentre()
    axes = np.linalg.eigh(np.cov(model.xyz_A.T))[1]
    axes[:, 0] *= np.linalg.det(axes)
    return replace(model, xyz_A=model.xyz_A @ axes)


def d2(seed: int) -> dict[str, Any]:
    """500 images of beta-galactosidase, 128 px of 1.8 A (a reduced set), SNR 0.1, true poses: all aberrations at once.

    Resolution against the truth with the optics as they are thought to be, after two rounds, and of the same noise on
    images without aberrations.
    """
    n, box, pixel_A, symmetry = 500, 128, 1.8, "D2"
    rng = np.random.default_rng((seed, 8))
    truth = vg.simulate.density(beta_galactosidase(), box, pixel_A)
    imaging = vg.simulate.Imaging(defocus_A=(5000.0, 15000.0))
    plain = vg.simulate.phantom(box, pixel_A, 100.0, seed=seed)  # for its poses and defoci
    made = vg.simulate.particles(plain, n, box, pixel_A, snr=1e6, seed=seed, imaging=imaging)
    angle, odd, terms = rng.uniform(0, 2 * np.pi), np.zeros((1, 6)), np.zeros((1, 5))
    odd[:, [2, 5]] = rng.uniform(80, 120, 2) * rng.choice([-1, 1], 2)
    terms[:, [0, 3]] = rng.uniform(200, 400, 2) * rng.choice([-1, 1], 2)
    tilt, matrix = 1.5 * np.array([[np.cos(angle), np.sin(angle)]]), np.array([[[1.01, 0.003], [0.003, 0.99]]])
    error = rng.normal(0, 300, n)
    defoci = {label: made.table[label] + error for label in ("rlnDefocusU", "rlnDefocusV")}
    planted = aberrations_of(n, tilt, odd, matrix, np.zeros(n, np.int64))
    even = made.optics_table.assign(rlnEvenZernike=write_coefficients(even_zernikes(terms)))
    optics = vg.Particles(made.table.assign(**defoci), None, optics_table=even).optics
    clean = vg.project(truth, made.poses, made.optics, threads=1)
    images = planted.apply(vg.project(truth, made.poses, optics, threads=1), np.arange(n), pixel_A)
    noise = rng.normal(0, noise_sd(clean, 0.1), clean.shape).astype(np.float32)
    without, given = (
        made.with_source(vg.types.ArraySource((some + noise).astype(np.float32), pixel_A)) for some in (clean, images)
    )
    found = vg.refine_ctf(
        given, rounds=2, even=True, magnification=True, symmetry=symmetry, threads=1, listener=None
    ).particles
    row: dict[str, Any] = {"tilt_mrad": 1.5, "defocus_sd_A": 300.0, "Nyquist_A": 2 * pixel_A}
    for name, some in (("without", without), ("before", given), ("after", found)):
        curve = vg.fsc(vg.reconstruct(some, symmetry=symmetry, threads=1, listener=None), truth)
        row |= {f"resolution_{name}_A": curve.resolution_A(0.5), f"fsc_{name}": np.round(curve.curve, 4).tolist()}
    for name in ("before", "after"):
        row[f"{name}_over_without"] = row[f"resolution_{name}_A"] / row["resolution_without_A"]
    rest = found.table.rlnDefocusU - defoci["rlnDefocusU"]
    return row | {"defocus_error_A": float(rest.std())}


EXPERIMENTS = {
    "bound": defocus_bound,
    "nothing": nothing,
    "tilt": tilt_and_defocus,
    "groups": two_groups,
    "groups_of_800": two_groups_of_800,
    "ewald": ewald,
    "thick": thick,
    "micrographs": micrographs,
    "d2": d2,
}


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
