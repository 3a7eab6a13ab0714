"""CTF estimation: errors on simulated micrographs, time, images without rings, and the apoferritin set.

    python bench/bench_ctf_fit.py [n [part ...]]

Parts: simulated, 1024, 4096, "no rings", apoferritin; rows of parts that are not named stay as the last run left them.

Simulated: n (20) micrographs each of 2048 x 2048 pixels of 1.5 A, 0.5 to 3 um underfocus, up to 800 A of astigmatism,
rings as strong as in cryo micrographs (power of the ice 0.4 of the detector's noise at k = 0, B 100 A^2). 1024: the
same on 1024 x 1024 pixels, other seeds, with the standard errors stated beside the errors made. Time: 4096 x
4096 pixels of 1 A, one thread, wall and processor time. Apoferritin: difference to ctf_quickfit.tsv, with the amplitude
contrast of 0.07 that the data are described by, and with none; the same fitted to other bands; and a fit as crude as
that of the table, with and without amplitude contrast. Writes bench/results/ctf_fit.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg
from verglas.assessment.micrographs import judge_ctfs
from verglas.io import read_ctf_table
from verglas.optics import wavelength_A
from verglas.optics.fit.spectrum import tile_spectra

from common import RESULTS, ROOT, timed, write

DATA = ROOT.parent / "shared" / "data"
BANDS_A = ((20.0, 8.0), (12.0, 4.0), (8.0, 4.0))
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
            shape=(2048, 2048),
            pixel_size_A=1.5,
            defocus_u_A=mean + difference / 2,
            seed=1000 + i,
            defocus_v_A=mean - difference / 2,
            defocus_angle_deg=angle,
            phase_shift_deg=phase,
            ice=0.4,
            b_factor_A2=100,
            tilt_deg=tilt,
            tilt_axis_deg=rng.uniform(0, 360),
        )
        fit = vg.estimate_ctf(m, phase_shift_deg=(0, 180) if kind == "phase shift" else 0.0, tilt=kind == "tilt")
        normal, true = np.array([*fit.gradient, 1]), np.array([*truth.scene.gradient, 1])
        cosine = min(1.0, normal @ true / np.linalg.norm(normal) / np.linalg.norm(true))
        places = rng.uniform(0, 2047, (100, 2))
        local = fit.optics_at(places).defocus_u_A - truth.scene.optics(places).defocus_u_A
        found.append(
            (
                abs(fit.defocus_A - mean),
                abs(fit.astigmatism_A - difference),
                abs((fit.optics.defocus_angle_deg[0] - angle + 90) % 180 - 90) if difference > 100 else np.nan,
                abs(fit.optics.phase_shift_deg[0] - phase),
                np.rad2deg(np.arccos(cosine)),
                np.median(np.abs(local)),
                abs(fit.b_factor_A2 / 100 - 1),
                fit.merit,
            )
        )
    names = ("defocus_A", "astigmatism_A", "angle_deg", "phase_shift_deg", "tilt_deg", "local_defocus_A", "b_factor")
    middle, worst = np.nanmedian(found, axis=0), np.nanmax(found, axis=0)
    row: dict[str, Any] = {"what": f"simulated, {kind}", "n": n}
    row |= {f"median_{name}": float(v) for name, v in zip(names, middle, strict=False)}
    row |= {"max_defocus_A": float(worst[0]), "lowest_merit": float(np.min(found, axis=0)[7])}
    return row


def small(n: int, first: int = 7000) -> dict[str, Any]:
    """Errors on 1024 x 1024 pixels, and over their stated standard errors."""
    defocus, astigmatism, stated, ratio, flagged = [], [], [], [], 0
    for seed in range(first, first + n):
        rng = np.random.default_rng(seed)
        mean, difference, angle = rng.uniform(5000, 30000), rng.uniform(0, 800), rng.uniform(0, 180)
        m, _ = vg.simulate.micrograph(
            shape=(1024, 1024),
            pixel_size_A=1.5,
            defocus_u_A=mean + difference / 2,
            seed=seed,
            defocus_v_A=mean - difference / 2,
            defocus_angle_deg=angle,
            ice=0.4,
            b_factor_A2=100,
        )
        fit = vg.estimate_ctf(m)
        half = np.array([fit.astigmatism_A, difference]) / 2
        turn = 2 * np.deg2rad([fit.optics.defocus_angle_deg[0], angle])
        parts = [float(np.diff(half * wave(turn))[0]) for wave in (np.cos, np.sin)]
        defocus.append(abs(fit.defocus_A - mean))
        astigmatism.append(abs(fit.astigmatism_A - difference))
        stated.append(fit.astigmatism_error_A)
        ratio += list(np.array([fit.defocus_A - mean, *parts]) / fit.errors[:3])
        flagged += bool(judge_ctfs([fit.as_dict()])[0])
    return {
        "what": "1024 x 1024",
        "images": n,
        "first_seed": first,
        "median_defocus_A": float(np.median(defocus)),
        "median_astigmatism_A": float(np.median(astigmatism)),
        "max_defocus_A": float(np.max(defocus)),
        "max_astigmatism_A": float(np.max(astigmatism)),
        "median_stated_astigmatism_error_A": float(np.median(stated)),
        "rms_error_over_stated": float(np.sqrt(np.mean(np.square(ratio)))),
        "flagged": flagged,
    }


def speed() -> list[dict[str, Any]]:
    m, _ = vg.simulate.micrograph(shape=(4096, 4096), pixel_size_A=1.0, defocus_u_A=14000, seed=1)
    cases = {"": {}, ", phase shift": {"phase_shift_deg": (0, 180)}, ", tilt": {"tilt": True}}
    rows = []
    for name, more in cases.items():
        started = time.process_time()
        wall = timed(lambda k=more: vg.estimate_ctf(m, threads=1, **k), 3)
        processor = (time.process_time() - started) / 4  # with the untimed first
        rows.append({"what": f"4096 x 4096, 1 thread{name}", **wall, "processor_ms": 1e3 * processor})
    return rows


def noise(n: int) -> dict[str, Any]:
    fits = [
        vg.estimate_ctf(vg.simulate.micrograph(shape=(1024, 1024), ice=0.0, detector=0.5, seed=i)[0]) for i in range(n)
    ]
    return {
        "what": "no rings",
        "n": n,
        "highest_merit": max(f.merit for f in fits),
        "set_aside": sum(bool(f.reason) for f in fits),
    }


def crude_defocus(m: vg.Micrograph, contrast: float) -> float:
    """The plainest fit: rotational average of the log spectrum over 30 to 8 A less a polynomial, steps of 50 A, no
    astigmatism; best correlation with the squared CTF.
    """
    spectra = tile_spectra(m, 40.0, 4.0)
    side, pixel = spectra.band.tile, m.pixel_size_A
    radius = np.hypot(np.fft.rfftfreq(side), np.fft.fftfreq(side)[:, None]) * side
    ring = np.rint(radius).astype(int).ravel()
    power = np.bincount(ring, spectra.mean.ravel()) / np.bincount(ring)
    k = np.arange(len(power)) / (side * pixel)
    used = (k > 1 / 30) & (k < 1 / 8)
    k, curve = k[used], np.log(power[used])
    curve -= np.polyval(np.polyfit(k, curve, 6), k)
    defoci = np.arange(10000, 30000, 50.0)
    model = np.sin(np.pi * float(wavelength_A(300.0)) * defoci[:, None] * k**2 + np.arcsin(contrast)) ** 2
    model -= model.mean(axis=1, keepdims=True)
    return float(defoci[((model @ curve) / np.linalg.norm(model, axis=1)).argmax()])


def apoferritin() -> list[dict[str, Any]]:
    folder = DATA / "apoferritin"
    quick = read_ctf_table(folder / "ctf_quickfit.tsv").set_index("rlnMicrographName")["rlnDefocusU"]
    rows = []
    for path in sorted(Path(folder).glob("*.tif")):
        m = vg.read_micrograph(path, 1.5)
        fit = vg.estimate_ctf(m, **MICROSCOPE)
        without = vg.estimate_ctf(m, **{**MICROSCOPE, "amplitude_contrast": 0.0})
        # within 2000 A, lest a narrow band take the next ring
        near = {"defocus_A": (fit.defocus_A - 2000, fit.defocus_A + 2000), "astigmatism_A": 2000.0, **MICROSCOPE}
        bands = {
            b: vg.estimate_ctf(m, resolution_A=b, **near).defocus_A for b in ((20.0, 8.0), (12.0, 4.0), (8.0, 4.0))
        }
        crude = {w: crude_defocus(m, w) for w in (0.0, 0.07)}
        rows.append(
            {
                "what": "apoferritin",
                "micrograph": path.name,
                "defocus_A": fit.defocus_A,
                "error_A": float(fit.errors[0]),
                "astigmatism_A": fit.astigmatism_A,
                "angle_deg": float(fit.optics.defocus_angle_deg[0]),
                "merit": fit.merit,
                "resolution_A": fit.resolution_A,
                "minus_quickfit_A": fit.defocus_A - float(quick[path.name]),
                "minus_quickfit_without_amplitude_contrast_A": without.defocus_A - float(quick[path.name]),
                "crude_without_amplitude_contrast_minus_quickfit_A": crude[0.0] - float(quick[path.name]),
                "crude_minus_fit_A": crude[0.07] - fit.defocus_A,
                **{
                    f"fit_{coarse:g}_to_{fine:g}_A_minus_fit_A": z - fit.defocus_A
                    for (coarse, fine), z in bands.items()
                },
            }
        )
    names = [name for name in rows[0] if "minus" in name]
    total: dict[str, Any] = {"what": "apoferritin, all", "n": len(rows)}
    for name in names:
        values = np.abs([row[name] for row in rows])
        total |= {
            f"median_abs_{name}": float(np.median(values)),
            f"max_abs_{name}": float(values.max()),
            f"median_{name}": float(np.median([row[name] for row in rows])),
        }
    return [*rows, total]


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    parts = {
        "simulated": lambda: [simulated(kind, n) for kind in ("plain", "phase shift", "tilt")],
        "1024": lambda: [small(n)],
        "4096": speed,
        "no rings": lambda: [noise(n)],
        "apoferritin": lambda: apoferritin() if DATA.is_dir() else [],
    }
    wanted = sys.argv[2:] or list(parts)
    old = RESULTS / "ctf_fit.json"
    before = json.loads(old.read_text(encoding="utf-8"))["rows"] if old.is_file() else []
    rows = []
    for part, make in parts.items():
        rows += make() if part in wanted else [row for row in before if row["what"].startswith(part)]
    write("ctf_fit", rows)


if __name__ == "__main__":
    main()
