"""CTF estimation: errors on simulated micrographs, time, images without rings, and the apoferritin set.

    python bench/bench_ctf_fit.py [n]

Simulated: n (20) micrographs each of 2048 x 2048 pixels of 1.5 A, 0.5 to 3 um underfocus, up to 800 A of astigmatism,
rings as strong as in cryo micrographs (power of the ice 0.4 of the detector's noise at k = 0, B 100 A^2). Time: 4096 x
4096 pixels of 1 A, one thread. Apoferritin: difference to ctf_quickfit.tsv, and to what the particles themselves say:
they are aligned to the atomic model with the quick fit's CTF, and the defocus is then shifted until projections of the
model match them best between 25 and 7 A. Writes bench/results/ctf_fit.json.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg
from verglas import fourier
from verglas.io import read_ctf_table, read_picks

from common import ROOT, timed, write

DATA = ROOT.parent / "shared" / "data"
MICROSCOPE = {"voltage_kV": 300.0, "cs_mm": 0.01, "amplitude_contrast": 0.07}


def simulated(kind: str, n: int) -> dict[str, Any]:
    """Median and largest errors of one kind of micrographs."""
    rng = np.random.default_rng({"plain": 1, "phase shift": 2, "tilt": 3}[kind])
    found = []
    for i in range(n):
        mean, difference, angle = rng.uniform(5000, 30000), rng.uniform(0, 800), rng.uniform(0, 180)
        phase = rng.uniform(20, 150) if kind == "phase shift" else 0.0
        tilt = rng.uniform(5, 30) if kind == "tilt" else 0.0
        m, truth = vg.simulate.micrograph(
            shape=(2048, 2048), pixel_size_A=1.5, defocus_u_A=mean + difference / 2, seed=1000 + i,
            defocus_v_A=mean - difference / 2, defocus_angle_deg=angle, phase_shift_deg=phase, ice=0.4,
            b_factor_A2=100, tilt_deg=tilt, tilt_axis_deg=rng.uniform(0, 360),
        )  # fmt: skip
        fit = vg.estimate_ctf(m, phase_shift_deg=(0, 180) if kind == "phase shift" else 0.0, tilt=kind == "tilt")
        normal, true = np.array([*fit.gradient, 1]), np.array([*truth.scene.gradient, 1])
        cosine = min(1.0, normal @ true / np.linalg.norm(normal) / np.linalg.norm(true))
        places = rng.uniform(0, 2047, (100, 2))
        local = fit.optics_at(places).defocus_u_A - truth.scene.optics(places).defocus_u_A
        found.append((
            abs(fit.defocus_A - mean), abs(fit.astigmatism_A - difference),
            abs((fit.optics.defocus_angle_deg[0] - angle + 90) % 180 - 90) if difference > 100 else np.nan,
            abs(fit.optics.phase_shift_deg[0] - phase), np.rad2deg(np.arccos(cosine)), np.median(np.abs(local)),
            abs(fit.b_factor_A2 / 100 - 1), fit.merit,
        ))  # fmt: skip
    names = ("defocus_A", "astigmatism_A", "angle_deg", "phase_shift_deg", "tilt_deg", "local_defocus_A", "b_factor")
    middle, worst = np.nanmedian(found, axis=0), np.nanmax(found, axis=0)
    row: dict[str, Any] = {"what": f"simulated, {kind}", "n": n}
    row |= {f"median_{name}": float(v) for name, v in zip(names, middle, strict=False)}
    row |= {"max_defocus_A": float(worst[0]), "lowest_merit": float(np.min(found, axis=0)[7])}
    return row


def speed() -> list[dict[str, Any]]:
    m, _ = vg.simulate.micrograph(shape=(4096, 4096), pixel_size_A=1.0, defocus_u_A=14000, seed=1)
    cases = {"": {}, ", phase shift": {"phase_shift_deg": (0, 180)}, ", tilt": {"tilt": True}}
    return [{"what": f"4096 x 4096, 1 thread{name}", **timed(lambda k=more: vg.estimate_ctf(m, threads=1, **k), 3)}
            for name, more in cases.items()]  # fmt: skip


def noise(n: int) -> dict[str, Any]:
    fits = [vg.estimate_ctf(vg.simulate.micrograph(shape=(1024, 1024), ice=0.0, detector=0.5, seed=i)[0])
            for i in range(n)]  # fmt: skip
    return {"what": "no rings", "n": n, "highest_merit": max(f.merit for f in fits),
            "set_aside": sum(bool(f.reason) for f in fits)}  # fmt: skip


def by_particles(micrograph: vg.Micrograph, picks: vg.Picks, reference: vg.Map, fit: Any, start_A: float) -> float:
    """Mean defocus at which projections of the model match the aligned particles best."""
    particles = vg.extract(micrograph, picks, 128, pixel_size_A=1.5, diameter_A=140, **MICROSCOPE)
    n = len(particles)

    def with_mean(mean: float) -> vg.Optics:
        move = mean - fit.defocus_A
        o = replace(fit.optics, defocus_u_A=fit.optics.defocus_u_A + move, defocus_v_A=fit.optics.defocus_v_A + move)
        return replace(o[np.zeros(n, np.int64)], pixel_size_A=np.full(n, 1.5))

    round_optics = replace(with_mean(start_A), defocus_u_A=np.full(n, start_A), defocus_v_A=np.full(n, start_A))
    aligned = vg.align(particles.with_optics(round_optics), reference, "O", max_resolution_A=9.0, diameter_A=140)
    images = fourier.forward(aligned.images(), 2)
    models = fourier.forward(vg.project(reference, aligned.poses), 2)
    shells = fourier.shells((128, 128))
    weight = (1 / fourier.radial_mean(np.mean(np.abs(images) ** 2, axis=0), (128, 128)))[np.minimum(shells, 64)]
    weight = weight * ((shells > 192 / 25) & (shells < 192 / 7))
    grid = np.arange(start_A - 1000, start_A + 1001, 50)
    score = []
    for mean in grid:
        modelled = models * vg.ctf(with_mean(mean)[: len(images)], 128, 1.5)
        top = (weight * (images.conj() * modelled).real).sum()
        score.append(top / np.sqrt((weight * np.abs(modelled) ** 2).sum()))
    best = int(np.clip(np.argmax(score), 1, len(grid) - 2))
    a, b, c = score[best - 1 : best + 2]
    return float(grid[best] + 25 * (a - c) / (a - 2 * b + c))


def apoferritin() -> list[dict[str, Any]]:
    folder = DATA / "apoferritin"
    quick = read_ctf_table(folder / "ctf_quickfit.tsv").set_index("rlnMicrographName")["rlnDefocusU"]
    picks = read_picks(folder / "picks.star")
    model = vg.simulate.read_model(str(DATA / "models" / "7a4m.cif.gz"), assembly="1").recentre()
    reference = vg.simulate.density(model, 128, 1.5, b_factor_A2=80)
    rows = []
    for path in sorted(Path(folder).glob("*.tif")):
        m = vg.read_micrograph(path, 1.5)
        fit = vg.estimate_ctf(m, **MICROSCOPE)
        said = by_particles(m, picks[path.name], reference, fit, float(quick[path.name]))
        rows.append({
            "what": "apoferritin", "micrograph": path.name, "defocus_A": fit.defocus_A, "error_A": float(fit.errors[0]),
            "astigmatism_A": fit.astigmatism_A, "angle_deg": float(fit.optics.defocus_angle_deg[0]), "merit": fit.merit,
            "resolution_A": fit.resolution_A, "minus_quickfit_A": fit.defocus_A - float(quick[path.name]),
            "minus_particles_A": fit.defocus_A - said, "quickfit_minus_particles_A": float(quick[path.name]) - said,
        })  # fmt: skip
    names = ("minus_quickfit_A", "minus_particles_A", "quickfit_minus_particles_A")
    total: dict[str, Any] = {"what": "apoferritin, all", "n": len(rows)}
    for name in names:
        values = np.abs([row[name] for row in rows])
        total |= {f"median_abs_{name}": float(np.median(values)), f"max_abs_{name}": float(values.max())}
    return [*rows, total]


def main() -> None:
    warnings.simplefilter("ignore", vg.VerglasWarning)  # particles at the edges
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rows = [simulated(kind, n) for kind in ("plain", "phase shift", "tilt")]
    rows += [*speed(), noise(n), *(apoferritin() if DATA.is_dir() else [])]
    write("ctf_fit", rows)


if __name__ == "__main__":
    main()
