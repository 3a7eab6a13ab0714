"""fourier.forward and inverse beside plain scipy.fft, crop, and the FSC of two maps beside its definition in NumPy.

Writes bench/results/fourier.json. ``plain`` is the same transform without centring: the difference is what the
phase-centred convention costs. ``ifftshift`` is the usual way to centre, by moving the halves of the array.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

import verglas as vg
from verglas import fourier

from common import compare, write

CASES = (((256, 256, 256), 3), ((128, 128, 128), 3), ((200, 256, 256), 2), ((500, 128, 128), 2), ((255, 255, 255), 3))
THREADS = 2


def textbook_fsc(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The definition with NumPy: whole-array products, one bincount per sum."""
    fa, fb = (scipy.fft.rfftn(x, workers=THREADS) for x in (a, b))
    shell = fourier.shells(a.shape)
    weights = np.broadcast_to(fourier.half_weights(a.shape), shell.shape)
    cross, power_a, power_b = (
        np.bincount(shell.ravel(), (value * weights).ravel())[: a.shape[0] // 2 + 1]
        for value in ((fa * fb.conj()).real, np.abs(fa) ** 2, np.abs(fb) ** 2)
    )
    return cross / np.sqrt(power_a * power_b)


def transforms(shape: tuple[int, ...], ndim: int) -> list[dict]:
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    axes = tuple(range(-ndim, 0))
    inner = shape[-ndim:]
    spectra = fourier.forward(x, ndim, threads=THREADS)
    half = tuple(n // 2 for n in inner)
    times = compare(
        {
            "plain rfftn": lambda: scipy.fft.rfftn(x, axes=axes, workers=THREADS),
            "ifftshift + rfftn": lambda: scipy.fft.rfftn(np.fft.ifftshift(x, axes=axes), axes=axes, workers=THREADS),
            "forward": lambda: fourier.forward(x, ndim, threads=THREADS),
            "plain irfftn": lambda: scipy.fft.irfftn(spectra, s=inner, axes=axes, workers=THREADS),
            "inverse": lambda: fourier.inverse(spectra, inner, threads=THREADS),
            "resize to half": lambda: fourier.resize(spectra, inner, half),
        },
        repeats=7,
    )
    rows = []
    for name, time in times.items():
        gb = 4e-9 * x.size / (1e-3 * time["ms"])
        rows.append({"shape": str(shape), "ndim": ndim, "threads": THREADS, "what": name, **time, "real_GB_per_s": gb})
    return rows


def correlations(n: int) -> list[dict]:
    a, b = np.random.default_rng(1).standard_normal((2, n, n, n), dtype=np.float32)
    b += a
    difference = np.abs(vg.fsc(a, b).curve - textbook_fsc(a, b)).max()
    times = compare(
        {"fsc": lambda: vg.fsc(a, b, threads=THREADS), "textbook fsc": lambda: textbook_fsc(a, b)}, repeats=5
    )
    return [
        {"shape": str((n,) * 3), "ndim": 3, "threads": THREADS, "what": name, **time, "max_difference": difference}
        for name, time in times.items()
    ]


def main() -> None:
    rows = [row for case in CASES for row in transforms(*case)]
    rows += correlations(256)
    write("fourier", rows, peer="scipy.fft without centring; the FSC's definition in NumPy")


if __name__ == "__main__":
    main()
