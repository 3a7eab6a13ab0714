"""The figures of docs/engine.md: rings and harmonics, survivors of branch and bound, speed against R.

    python bench/figures_engine.py

The first is made from a slice of a phantom, the second from a search of simulated particles (run here), the third from
bench/results/score.json. Writes docs/figures/engine_{rings,survivors,speed}.png.
"""

from __future__ import annotations

import json

import matplotlib
import numpy as np
from bench_search import BOX, PIXEL_A, blob_map, particles

from verglas import gridding, ops
from verglas.search import PoseSearch, SearchSettings, search_levels

from common import RESULTS, ROOT

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FIGURES = ROOT / "docs" / "figures"


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(FIGURES / f"engine_{name}.png", dpi=110)
    plt.close(figure)
    print(f"wrote docs/figures/engine_{name}.png")


def rings(volume: np.ndarray) -> None:
    """A slice on its rings, and the harmonics that are kept of it."""
    grid, polar = ops.Grid(BOX), ops.PolarGrid(BOX, 24, diameter_px=0.8 * BOX)
    samples = ops.polar_slices(gridding.to_grid(volume, grid), grid, np.eye(3)[None], polar)
    theta = 2 * np.pi * np.arange(polar.n_theta) / polar.n_theta
    # A real image's other half circle is the conjugate of the first.
    full = np.concatenate([samples[0], np.conj(samples[0])], axis=1)
    harmonics = np.abs(polar.unpack(ops.polar_harmonics(samples, polar))[0])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    x, y = polar.radii[:, None] * np.cos(theta), polar.radii[:, None] * np.sin(theta)
    left.scatter(x, y, c=np.log10(np.abs(full) + 1e-3 * np.abs(full).max()), s=4, cmap="magma")
    left.set(aspect="equal", xlabel="kx, Fourier pixels", ylabel="ky, Fourier pixels", title="|slice| on rings (log)")
    shown = np.where(harmonics > 0, np.log10(np.maximum(harmonics, 1e-6 * harmonics.max())), np.nan)
    image = right.imshow(
        shown.T, origin="lower", aspect="auto", cmap="magma", extent=(-0.5, polar.max_m + 0.5, 0.5, polar.radius + 0.5)
    )
    right.plot(np.pi * polar.radii * polar.diameter_px / BOX, polar.radii, "c--", label="m = pi r D / N")
    right.set(
        xlim=(-0.5, polar.max_m + 0.5), xlabel="harmonic m", ylabel="ring r", title="harmonics of each ring (log)"
    )
    right.legend(loc="lower right")
    figure.colorbar(image, ax=right)
    save(figure, "rings")


def survivors(volume: np.ndarray) -> None:
    """Poses scored and cells split at each level, per particle."""
    images, params, _, variance = particles(volume, 40)
    levels = search_levels([8, 16, 32], order=3)
    search = PoseSearch(volume, levels, diameter_px=0.8 * BOX, settings=SearchSettings(shift_range_px=3.0))
    found = search.run(images, np.full(BOX, 1 / (variance * BOX**2)), ctf=params, pixel_size_A=PIXEL_A)
    labels = [f"R = {s.radius}" for s in found.statistics]
    at = np.arange(len(labels))
    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for offset, what, values in (
        (-0.27, "whole grid of the level", [s.exhaustive for s in found.statistics]),
        (0.0, "scored", [s.evaluated + s.probed for s in found.statistics]),
        (0.27, "cells that survive", [s.survived for s in found.statistics]),
    ):
        axis.bar(at + offset, np.array(values) / len(images), 0.26, label=what)
    axis.set(yscale="log", ylabel="poses per particle", title="Branch and bound, 128 px, SNR 0.05")
    axis.set_xticks(at, labels)
    axis.legend()
    save(figure, "survivors")


def speed() -> None:
    """Exhaustive search: time per image against R, beside the prototype."""
    rows = json.loads((RESULTS / "score.json").read_text(encoding="utf-8"))["rows"]
    rows = [row for row in rows if "prototype_ms_per_image" in row]
    radii = [row["R"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    left.plot(radii, [row["ms_per_image"] for row in rows], "o-", label="ops.ScorePlan")
    left.plot(radii, [row["prototype_ms_per_image"] for row in rows], "s--", label="prototype of the method")
    left.set(yscale="log", xlabel="R, Fourier pixels", ylabel="ms per image, one core", title="All poses of one image")
    left.legend()
    right.plot(radii, [row["Gposes_per_s"] for row in rows], "o-")
    right.set(xlabel="R, Fourier pixels", ylabel="1e9 poses per second, one core", title="Rate", ylim=(0, None))
    save(figure, "speed")


def main() -> None:
    volume = blob_map(BOX, 120, 2.0)
    rings(volume)
    survivors(volume)
    speed()


if __name__ == "__main__":
    main()
