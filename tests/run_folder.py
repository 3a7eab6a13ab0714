"""A run folder of a small made-up refinement: the same files with the same columns that a real one writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import verglas as vg
from verglas import io
from verglas.run.postprocess import write_postprocessed

BOX, APIX = 40, 2.5
PHASES = ("global", "global", "global", "local", "local", "continuous")


def truths(n_classes):
    return [
        vg.simulate.density(vg.simulate.phantom(BOX, APIX, 75.0, seed=3 + k), BOX, APIX, b_factor_A2=80.0)
        for k in range(n_classes)
    ]


def halves(truth, noise, blur, seed):
    rng = np.random.default_rng(seed)
    blurred = vg.filters.apply(truth, vg.filters.b_factor(blur))
    spread = noise * truth.data.std()
    return [truth.with_data(blurred.data + spread * rng.normal(size=truth.data.shape)) for _ in range(2)]


def _planes(data):
    n = len(data) // 2
    return data[n], data[:, n], data[:, :, n]


def write_particles_star(folder, n, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    angles = vg.geometry.random_orientations(4 * n, seed)
    kept = angles[rng.random(4 * n) < 0.25 + 0.75 * np.sin(np.deg2rad(angles[:, 1])) ** 4][:n]  # side views prevail
    n = len(kept)
    micrograph = np.arange(n) // 25
    defocus = 9000 + 900 * (micrograph % 14) + 60 * rng.normal(size=n)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(n)],
            "rlnMicrographName": [f"mic{m:03d}.mrc" for m in micrograph],
            "rlnOpticsGroup": 1,
            "rlnAngleRot": kept[:, 0],
            "rlnAngleTilt": kept[:, 1],
            "rlnAnglePsi": kept[:, 2],
            "rlnOriginXAngst": 1.8 * rng.normal(size=n) + 0.3,
            "rlnOriginYAngst": 1.8 * rng.normal(size=n),
            "rlnDefocusU": defocus + 100,
            "rlnDefocusV": defocus - 100,
            "rlnDefocusAngle": 20.0,
            "rlnMaxValueProbDistribution": rng.beta(4, 2, size=n),
            "rlnLogLikeliContribution": -3100 + 35 * rng.normal(size=n) - 8e-4 * defocus,
            "rlnNormCorrection": 1 + 0.05 * rng.normal(size=n),
            "rlnGroupNumber": micrograph + 1,
            "rlnRandomSubset": np.arange(n) % 2 + 1,
            "rlnClassNumber": rng.integers(1, n_classes + 1, size=n),
        }
    )
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["og1"],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
            "rlnImagePixelSize": [APIX],
            "rlnImageSize": [BOX],
            "rlnImageDimensionality": [2],
        }
    )
    io.write_star(folder / "particles.star", {"optics": optics, "particles": table})
    return n


def iteration_row(number, resolution, n_classes):
    t = number / len(PHASES)
    shares = np.array([0.5, 0.3, 0.2][:n_classes]) if n_classes > 1 else np.ones(1)
    shares = (1 - t) / n_classes + t * shares / shares.sum()
    local = PHASES[number - 1] != "global"
    return {
        "iteration": number,
        "phase": PHASES[number - 1],
        "resolution_A": resolution,
        "search_resolution_A": 1.3 * resolution,
        "insert_resolution_A": 0.9 * resolution,
        "step_deg": 7.5 / 2 ** (number // 2),
        "shift_step_A": 2.5 / 2 ** (number // 2),
        "shift_range_A": 12 / number,
        "log_likelihood": -3300 + 190 * (1 - np.exp(-number / 2)),
        "max_probability": 0.08 + 0.6 * t,
        "effective_poses": 1 + 90 * np.exp(-number),
        "angle_change_deg": 12 / number**1.6,
        "shift_change_A": 2.2 / number**1.4,
        "class_change": 0.4 / number if n_classes > 1 else 0.0,
        "populations": ";".join(f"{s:.4f}" for s in shares),
        "accuracy_deg": 1.9 - 0.15 * number if local else "",
        "accuracy_shift_A": 0.7 - 0.05 * number if local else "",
        "n_excluded": 2,
        "seconds": 9.0 + number,
        "seconds_expectation": 6.0 + number,
        "seconds_maximisation": 1.6,
        "seconds_reconstruction": 0.9,
        "peak_memory_GB": 0.9 + 0.02 * number,
    }


def make_run_folder(folder, *, state="converged", iterations=6, n_classes=1, n=400):
    """Write the folder; ``state='running'`` leaves out what only a finished run has."""
    folder = Path(folder)
    (folder / "history").mkdir(parents=True)
    models, rows = truths(n_classes), []
    for number in range(1, iterations + 1):
        fscs, maps = [], {}
        for k, truth in enumerate(models):
            pair = halves(truth, 5.0 / number, 900.0 / number**1.5, 10 * number + k)
            fscs.append(vg.fsc(*pair, threads=1))
            average = truth.with_data(0.5 * (pair[0].data + pair[1].data))
            named = {"half 1": pair[0], "half 2": pair[1], "map": average}
            maps.update(named if n_classes == 1 else {f"class {k + 1}": average})
        np.savez_compressed(
            folder / "history" / f"iteration_{number:03d}.npz",
            slices=np.stack([np.stack(_planes(m.data)) for m in maps.values()]).astype(np.float16),
            names=np.array(list(maps)),
            fsc=np.array([f.curve for f in fscs]),
            frequency_per_A=fscs[0].frequency_per_A,
        )
        rows.append(iteration_row(number, fscs[0].resolution_A(0.143), n_classes))
    if rows:
        pd.DataFrame(rows).to_csv(folder / "iterations.csv", index=False)
    if iterations:
        n = write_particles_star(folder, n, n_classes)
    io.write_csv(
        folder / "excluded.csv",
        {
            "particle": [17, 203],
            "image": ["000018@particles.mrcs", "000204@particles.mrcs"],
            "reason": ["NaN in the image", "constant image"],
        },
    )
    finished = state != "running"
    if finished:
        for k, truth in enumerate(models):
            write_final(folder, truth, "" if n_classes == 1 else f"_class{k + 1}", k)
    settings = {
        "particles": "particles.star",
        "reference": "init.mrc",
        "symmetry": "C1",
        "diameter_A": 80.0,
        "classes": n_classes,
        "initial_lowpass_A": 40.0,
        "mode": "map",
        "regularisation_T": 1.0,
        "mask": None,
    }
    io.write_json(
        folder / "run.json",
        {
            "verglas": vg.__version__,
            "command": "refine",
            "settings": settings,
            "seed": 0,
            "device": "cpu",
            "isa": "v3",
            "threads": 2,
            "started": "2026-03-01T10:00:00+00:00",
            "finished": "2026-03-01T10:01:20+00:00" if finished else None,
            "state": state,
            "memory_plan": {"expectation": 1.1, "maximisation": 0.8, "reconstruction": 0.4},
            "n_particles": n + 2,
            "n_excluded": 2,
            "box": BOX,
            "pixel_size_A": APIX,
            "symmetry": "C1",
            "n_classes": n_classes,
            "notes": [
                {
                    "code": "grey_scale",
                    "state": "go on",
                    "sentence": "the reference was scaled by 0.02 to the grey scale of the images",
                    "numbers": {"factor": 0.02},
                }
            ],
            "seconds": 80.4,
            "peak_memory_GB": 1.02,
        },
    )
    return folder


def write_final(folder, truth, suffix, seed):
    pair = halves(truth, 4.0, 60.0, 500 + seed)
    done = vg.postprocess(*pair, threads=1, listener=None)
    for number, half in enumerate(pair, 1):
        vg.write_map(folder / f"half{number}{suffix}.mrc", half)
    write_postprocessed(folder, done, suffix=suffix)
