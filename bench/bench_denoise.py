"""The denoiser of two halves on simulated micrographs: agreement with the truth, and detail that is not there.

Writes bench/results/denoise.json; goes on where it stopped. Micrographs of 384 x 384 pixels of 3 A with 30 particles of
130 A at an SNR of 0.05 of the whole, each half with noise of its own at twice the variance; phantoms and seeds not used
in development. STEPS of training, fewer than the default of 200; noise alone for the first seeds only. ``invented`` is
the share of the result's variance that the truth does not explain, by bands of resolution; ``power_over_truth`` what
power the result has there over the truth's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from verglas import simulate
from verglas.learned import DenoiseSettings, denoise, wiener

from common import collect

KINDS = ("globule", "rod", "ring")
SIDE, PIXEL_A, DIAMETER_A, SNR = 384, 3.0, 130.0, 0.05
FIRST_SEED = 61_000
STEPS, NOISE_SEEDS = 60, 2
BANDS_A = ((1e9, 60.0), (60.0, 30.0), (30.0, 15.0), (15.0, 8.0))


def halves(kind: str, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The truth, and two images of it with independent noise of a micrograph's spectrum."""
    model = simulate.phantom(96, PIXEL_A, DIAMETER_A, seed=FIRST_SEED + seed, shape=kind)
    scene = {"shape": (SIDE, SIDE), "pixel_size_A": PIXEL_A, "snr": SNR, "n": 30, "defocus_u_A": 15000.0}
    micrograph, truth = simulate.micrograph(model, seed=FIRST_SEED + seed, **scene)
    other, _ = simulate.micrograph(None, seed=FIRST_SEED + 500 + seed, **(scene | {"n": 0}))
    noise = [micrograph.data - truth.clean, other.data]
    return truth.clean, [truth.clean + np.sqrt(2) * (one - one.mean()) for one in noise]


def bands(image: np.ndarray, truth: np.ndarray) -> list[dict[str, float]]:
    """What of an image the truth explains, by bands."""
    spectra = [np.fft.rfft2(one - one.mean()) for one in (image, truth)]
    k = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]) / PIXEL_A
    out = []
    for low_A, high_A in BANDS_A:
        here = (k >= 1 / low_A) & (k < 1 / high_A)
        mine, true = (one[here] for one in spectra)
        power, signal = float((abs(mine) ** 2).sum()), float((abs(true) ** 2).sum())
        cross = abs(complex((mine * true.conj()).sum()))
        explained = cross**2 / max(power * signal, 1e-30)
        out.append({"to_A": high_A, "invented": 1 - explained, "power_over_truth": power / signal})
    return out


def one(kind: str, seed: int) -> dict[str, Any]:
    truth, noisy = halves(kind, seed)
    started = time.process_time()
    made = denoise(*noisy, DenoiseSettings(steps=STEPS))
    seconds = time.process_time() - started
    results = {"raw": noisy[0] + noisy[1], "wiener": sum(wiener(*noisy)) / 2, "network": made}
    figures = {f"cc_{name}": float(np.corrcoef(image.ravel(), truth.ravel())[0, 1]) for name, image in results.items()}
    left = None
    if seed < NOISE_SEEDS:
        nothing = [image - truth for image in noisy]
        left = float(denoise(*nothing, DenoiseSettings(steps=STEPS)).std() / np.std(nothing[0]))
    spectra = {f"bands_{name}": bands(results[name], truth) for name in ("wiener", "network")}
    return figures | {"processor_seconds": seconds, "left_of_noise": left} | spectra


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind in (*KINDS, "all"):
        those = [value for key, value in done.items() if kind in ("all", key.split("|")[0])]
        if those:
            names = ("cc_raw", "cc_wiener", "cc_network", "processor_seconds")
            row = {"kind": kind, "micrographs": len(those)} | {n: float(np.mean([t[n] for t in those])) for n in names}
            over = {name: [t["cc_network"] - t[f"cc_{name}"] for t in those] for name in ("raw", "wiener")}
            row |= {f"least_over_{name}": float(min(values)) for name, values in over.items()}
            left = [t["left_of_noise"] for t in those if t["left_of_noise"] is not None]
            rows.append(row | ({"left_of_noise": float(np.mean(left))} if left else {}))
    for number, (_, high_A) in enumerate(BANDS_A):
        row = {"band_to_A": high_A}
        for name in ("wiener", "network"):
            for what in ("invented", "power_over_truth"):
                row[f"{what}_{name}"] = float(
                    np.mean([value[f"bands_{name}"][number][what] for value in done.values()])
                )
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=60.0, help="goes on next time")
    given = parser.parse_args()
    trials = {f"{kind}|{seed}": partial(one, kind, seed) for seed in range(given.seeds) for kind in KINDS}
    collect("denoise", trials, summary, given.minutes)


if __name__ == "__main__":
    main()
