r"""Bias of maximum likelihood against the number of images: it falls as 1/N.

Images are a known profile of 16 pixels, times a gain, at unknown circular shifts, with white noise; the gain is found
by maximising the likelihood over all shifts (expectation maximisation, no best shift is ever chosen). Thousands of
sets for each N, so that the bias has a small standard error; :math:`b / N` is fitted by weighted least squares and
compared by chi-squared with no trend (a constant) beside it. The gain by the best shift of each image is biased
whatever N.

    python bench/bench_ml_bias.py

Writes bench/results/ml_bias.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common import write

PIXELS, SIGMA, GAIN = 16, 0.8, 1.0
NUMBERS = (8, 16, 32, 64, 128)
IMAGES = 100_000  # for each N, in sets of N


def profile() -> np.ndarray:
    x = np.arange(PIXELS)
    bumps = np.exp(-0.5 * ((x - 5) / 1.2) ** 2) + 0.6 * np.exp(-0.5 * ((x - 10) / 1.0) ** 2)
    return (bumps - bumps.mean()) / np.linalg.norm(bumps - bumps.mean()) * 2.0


def gains(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gain of every set by likelihood, and by best shifts."""
    sets, p = IMAGES // n, profile()
    shifts = np.stack([np.roll(p, s) for s in range(PIXELS)])
    images = GAIN * shifts[rng.integers(0, PIXELS, (sets, n))] + SIGMA * rng.standard_normal((sets, n, PIXELS))
    cross, power = images @ shifts.T, float(p @ p)  # (sets, n, shifts)
    found = np.full(sets, GAIN)
    for _ in range(60):
        weight = found[:, None, None] * cross / SIGMA**2
        weight = np.exp(weight - weight.max(axis=-1, keepdims=True))
        weight /= weight.sum(axis=-1, keepdims=True)
        new = (weight * cross).sum(axis=-1).mean(axis=1) / power
        done = np.abs(new - found).max() < 1e-4
        found = new
        if done:
            break
    return found, cross.max(axis=-1).mean(axis=1) / power


def main() -> None:
    rng = np.random.default_rng(108)
    rows: list[dict[str, Any]] = []
    for n in NUMBERS:
        likely, best = gains(n, rng)
        error = float(likely.std(ddof=1) / np.sqrt(len(likely)))
        rows.append({"images": n, "sets": len(likely), "bias": float(likely.mean() - GAIN), "standard_error": error})
        rows[-1]["bias_of_best_shifts"] = float(best.mean() - GAIN)
    inverse, bias, error = np.array([(1 / r["images"], r["bias"], r["standard_error"]) for r in rows]).T
    slope = float((inverse * bias / error**2).sum() / (inverse**2 / error**2).sum())
    constant = float((bias / error**2).sum() / (1 / error**2).sum())
    models = {"1/N": slope * inverse, "constant": np.full(len(rows), constant)}
    chi2 = {name: float((((bias - model) / error) ** 2).sum()) for name, model in models.items()}
    write("ml_bias", rows, slope=slope, slope_error=float(1 / np.sqrt((inverse**2 / error**2).sum())), chi2_of_5=chi2)


if __name__ == "__main__":
    main()
