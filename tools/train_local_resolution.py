"""Train the network of ``local-resolution --method network`` on phantoms with planted resolutions.

    python tools/train_local_resolution.py  # weights with their card into the package

Half maps are of noise, of phantoms without and with symmetry, each in slabs of two or three resolutions, at the noise
of their seed (:func:`verglas.simulate.planted_halves`), or blurred by one or two B-factors; every fifth is noise
alone. A voxel of a band says yes where the band is coarser than what was planted. Seeds 0 to 99 train; the benchmark
begins at 200.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import verglas as vg
from verglas import fourier
from verglas.assessment.local_bands import Band, Windowed, band_map
from verglas.assessment.local_network import NAMES, NetworkValues, band_numbers
from verglas.assessment.local_resolution import LocalResolutionSettings, local_pair, plan_bands
from verglas.io import write_json
from verglas.learned import Perceptron
from verglas.learned.perceptron import fit_perceptron
from verglas.simulate import mixed_blur, planted_halves

PACKAGED = Path(__file__).parent.parent / "python" / "verglas" / "learned" / "packaged" / "local_resolution.json"
KEPT = Path(__file__).parent.parent / "build" / "local_resolution"
BOX, PIXEL_A = 48, 1.5
HIDDEN, DECAY = 8, 1.0
PER_BAND = 60
BESIDE_A, TRUE_WINDOW_A = 4.0, 6.0  # left out beside a step; window of the true local power
_NOTHING = Perceptron(list(NAMES), np.zeros(6), np.ones(6), np.zeros((6, 1)), np.zeros(1), np.zeros(1), 0.0)


def density(rng: np.random.Generator, seed: int) -> vg.Map:
    """Noise, or a phantom."""
    kind = int(rng.integers(3))
    if kind == 0:
        return vg.Map(rng.standard_normal((BOX,) * 3, dtype=np.float32), PIXEL_A)
    model = vg.simulate.phantom(BOX, PIXEL_A, 0.8 * BOX * PIXEL_A, ("C1", "D2")[kind - 1], seed)
    return vg.simulate.density(model, BOX, PIXEL_A)


@dataclass(frozen=True)
class Planted:
    """Half maps, and which voxels of which band are resolved.

    Attributes
    ----------
    half1, half2 : Map
    known : (z, y, x) bool
        Where the answer is used.
    resolved : callable
        Band, planes -> answers; the walk over bands takes half a half width off where they turn.
    """

    half1: vg.Map
    half2: vg.Map
    known: np.ndarray
    resolved: Callable[[Band, slice], np.ndarray]


def slabs(rng: np.random.Generator, seed: int) -> Planted:
    """Two or three resolutions beside each other, each ending sharply."""
    limits = np.exp(rng.uniform(np.log(3.1), np.log(14.0), int(rng.integers(2, 4)))).tolist()
    halves = planted_halves(density(rng, seed), limits, float(np.exp(rng.uniform(np.log(0.5), np.log(5)))), seed)
    limit = BOX * PIXEL_A / halves.resolution_A
    return Planted(
        halves.half1,
        halves.half2,
        halves.inside & (halves.boundary_A > BESIDE_A),
        lambda band, planes: limit[planes] + 0.5 * band.half_width > band.centre,
    )


def blur_density(rng: np.random.Generator, seed: int) -> Planted:
    """Two B-factors beside each other, or one: resolved where the signal's share of the local power is above 0.143."""
    sharp = density(rng, seed)
    b = rng.uniform(0, 350, 2) if rng.random() < 0.6 else np.full(2, rng.uniform(0, 350))
    noise = float(np.exp(rng.uniform(np.log(0.3), np.log(3))))
    halves = mixed_blur(sharp, (float(b[0]), float(b[1])), noise, seed)
    clean = mixed_blur(sharp, (float(b[0]), float(b[1])), 0.0, seed).half1.data
    spectra = [fourier.forward(one, 3, threads=1) for one in (clean, halves.half1.data - clean)]

    def is_resolved(band: Band, planes: slice) -> np.ndarray:
        below = Band(max(band.centre - 0.5 * band.half_width, 0.5), band.half_width, TRUE_WINDOW_A / PIXEL_A)
        windowed = Windowed(below, BOX, 1)
        signal, rest = (windowed.average(band_map(one, below, BOX, 1) ** 2) for one in spectra)
        local = np.maximum(windowed.slab([signal], planes)[0], 0)
        return np.asarray(local / (local + float(rest.mean())) > 0.143)

    return Planted(halves.half1, halves.half2, vg.masks.soft_sphere(BOX, 0.36 * BOX) > 0.5, is_resolved)


def nothing(rng: np.random.Generator, seed: int) -> Planted:
    """Noise alone."""
    halves = [vg.Map(rng.standard_normal((BOX,) * 3, dtype=np.float32), PIXEL_A) for _ in range(2)]
    known = vg.masks.soft_sphere(BOX, 0.36 * BOX) > 0.5
    return Planted(halves[0], halves[1], known, lambda _band, planes: np.zeros_like(known[planes]))


def examples(seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers and answers of each band of one pair of half maps."""
    rng = np.random.default_rng(seed)
    planted = (slabs, blur_density, slabs, blur_density, nothing)[seed % 5](rng, seed)
    window_A = float(rng.uniform(6, 14)) if rng.random() < 0.5 else None
    settings = LocalResolutionSettings(method="network", window_radius_A=window_A)
    first, second, mask, global_A = local_pair(planted.half1, planted.half2, planted.known.astype(np.float32), 1)
    bands = plan_bands(first, global_A, settings)[1]
    spectra = [fourier.forward(one.data, 3, threads=1) for one in (first, second)]
    values = NetworkValues(spectra, BOX, mask.data >= 0.5, settings, 1)
    values.network = _NOTHING
    planes = slice(BOX // 2 - 6, BOX // 2 + 6)
    where = np.argwhere(planted.known[planes])
    for band in bands:
        numbers, answers = band_numbers(values, band, BOX, planes), planted.resolved(band, planes)
        z, y, x = where[rng.choice(len(where), min(PER_BAND, len(where)), replace=False)].T
        yield numbers[z, y, x], answers[z, y, x]


def kept_examples(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of all bands, from the file that an earlier call left."""
    path = KEPT / f"{seed}.npz"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        numbers, answers = (np.concatenate(group) for group in zip(*examples(seed), strict=True))
        np.savez(path, numbers=numbers, answers=answers)
    file = np.load(path)
    return file["numbers"], file["answers"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=200.0, help="no further map after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PACKAGED)
    given = parser.parse_args()
    began, found = time.monotonic(), []
    for number in range(given.maps):
        if number > 1 and time.monotonic() - began > given.seconds:
            break
        found.append(kept_examples(number))
    values, answers = (np.concatenate(group) for group in zip(*found, strict=True))
    network = fit_perceptron(
        list(NAMES), values.astype(float), answers, np.ones(len(values)), hidden=HIDDEN, decay=DECAY, seed=given.seed
    )
    right = float(((network.probabilities(values) >= 0.5) == answers).mean())
    card = {
        "name": "local resolution",
        "weights": network.hidden.size + 2 * HIDDEN + 1,
        "data": f"{len(found)} pairs of half maps of {BOX} voxels of {PIXEL_A} A with planted resolutions and "
        f"B-factors, {len(values)} voxels of bands",
        "kinds": ["noise", "phantom C1", "phantom D2"],
        "seed": given.seed,
        "command": f"tools/train_local_resolution.py --maps {len(found)} --seed {given.seed}",
        "share_right_in_training": right,
        "held_out": "bench/results/local_resolution_network_planted.json, _blurred.json, _classes.json",
    }
    write_json(given.out, replace(network, card=card).as_dict())
    print(card)


if __name__ == "__main__":
    main()
