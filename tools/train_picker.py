"""Trains the picker's network on simulated micrographs and writes its weights with a card.

``python tools/train_picker.py`` with its defaults makes the weights that come with verglas. Particles are phantoms of
the kinds TRAINED at many sizes, given with a diameter up to 15 per cent too small and 20 too large; the kinds HELD_OUT
are in no field. A field is what :func:`verglas.picking.prepare` makes of a micrograph, so the network sees in training
what it sees later. The last fields calibrate: a peak's score becomes a probability (Platt 1999).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg
from verglas import simulate
from verglas.errors import InputError
from verglas.io import write_bytes, write_json
from verglas.learned import Network, TrainingSettings, Weights, to_safetensors, train
from verglas.learned.training import heat_map
from verglas.picking import match_picks, prepare
from verglas.picking.image import PIXELS_ACROSS
from verglas.picking.network import INPUT_STATISTICS, background_peaks, features, network_peaks, probable
from verglas.types.listener import Silence

TRAINED = ("globule", "rod", "disc", "ring", "shell")
HELD_OUT = ("dumbbell", "arch", "cone")
_SYMMETRIES = {"globule": ("C1", "C1", "C2", "D2", "C4"), "shell": ("C1", "D2", "O")}
SIDE = 256
# Ranges that fields are drawn from; the first four stand on the card.
DIAMETER_A, DEFOCUS_A, SNR, GIVEN = (80.0, 320.0), (5000.0, 30000.0), (0.02, 2.0), (0.85, 1.2)
PACKAGED = Path(__file__).parent.parent / "python" / "verglas" / "learned" / "packaged" / "picker.safetensors"


@dataclass(frozen=True)
class Field:
    """A piece of a micrograph as pickers see it, and where particles lie in it."""

    image: np.ndarray
    xy_px: np.ndarray
    snr: float
    kind: str


def particles(kinds: Sequence[str], each: int, seed: int) -> list[simulate.Model]:
    """Phantoms of each kind at sizes spread over the range."""
    rng = np.random.default_rng(seed)
    made = []
    for kind in kinds:
        for number in range(each):
            diameter_A = float(np.exp(rng.uniform(*np.log(DIAMETER_A))))
            symmetry = str(rng.choice(_SYMMETRIES.get(kind, ("C1",)))) if diameter_A > 100 else "C1"
            pixel = diameter_A / PIXELS_ACROSS
            made.append(simulate.phantom(64, pixel, diameter_A, symmetry, 1000 * seed + number, kind))
    return made


def scene(rng: np.random.Generator, diameter_A: float, pixel_A: float) -> dict[str, Any]:
    """Settings of a micrograph, without the number of particles."""
    plate = rng.random() < 0.1
    settings: dict[str, Any] = {
        "shape": (SIDE, SIDE),
        "pixel_size_A": pixel_A,
        "defocus_u_A": float(rng.uniform(3000, 12000) if plate else rng.uniform(*DEFOCUS_A)),
        "phase_shift_deg": 90.0 if plate else 0.0,
        "voltage_kV": float(rng.choice([200.0, 300.0])),
        "amplitude_contrast": float(rng.uniform(0.06, 0.12)),
        "snr": float(np.exp(rng.uniform(*np.log(SNR)))),
        "ice": float(rng.uniform(0.2, 2.0)),
        "detector": float(rng.uniform(0.3, 1.0)),
        "distance": float(rng.uniform(0.8, 1.3)),
    }
    if rng.random() < 0.35:
        radii = np.sort(rng.uniform(0.3, 2.0, 2)) * diameter_A
        settings |= {
            "contaminants": int(rng.integers(1, 5)),
            "contaminant_radius_A": (float(radii[0]), float(radii[1])),
        }
    if rng.random() < 0.25:
        settings |= {
            "carbon": float(rng.uniform(0.1, 0.5)),
            "carbon_power": float(rng.uniform(3, 12)),
            "carbon_grey": float(rng.uniform(0.3, 2.5)),
        }
    return settings


def field(models: Sequence[simulate.Model], seed: int) -> Field:
    """One field: particles or, in one of eight, none; in one of five, smaller ones that are not asked for."""
    rng = np.random.default_rng(seed)
    model = models[int(rng.integers(len(models)))]
    true_A = 2 * model.radius_A
    given_A = true_A * float(rng.uniform(*GIVEN))
    settings = scene(rng, true_A, given_A / PIXELS_ACROSS)
    most = 0.6 * (SIDE * settings["pixel_size_A"] / (settings["distance"] * true_A)) ** 2
    count = 0 if rng.random() < 0.12 else int(rng.integers(1, max(2, int(most))))
    micrograph, truth = None, None
    while micrograph is None:  # beside carbon and contaminants there is less room
        try:
            micrograph, truth = simulate.micrograph(model if count else None, n=count, seed=seed, threads=1, **settings)
        except InputError:
            count //= 2
    data = micrograph.data
    if rng.random() < 0.2:
        data = data + others(rng, settings, true_A)
    small = prepare(vg.Micrograph(data, settings["pixel_size_A"]), given_A, threads=1)
    xy = small.from_micrograph(truth.picks.xy_px)
    return Field(small.data, xy, settings["snr"] if count else 0.0, model.name.split()[0])


def others(rng: np.random.Generator, settings: dict[str, Any], diameter_A: float) -> np.ndarray:
    """Balls of a third to half the diameter, as dark as particles of that SNR."""
    size_A = diameter_A * float(rng.uniform(0.3, 0.5))
    points = rng.uniform(-1, 1, (400, 3))
    points = points[np.linalg.norm(points, axis=1) < 1] * size_A / 2
    ball = simulate.Model(points, "C", weights=np.full(len(points), 30.0), name="ball")
    place = {"n": int(rng.integers(3, 20)), "contaminants": 0, "carbon": 0.0, "distance": 1.3}
    return simulate.micrograph(ball, seed=int(rng.integers(1 << 30)), threads=1, **(settings | place))[1].clean


def calibrate(network: Network, fields: Sequence[Field]) -> dict[str, Any]:
    """Logistic regression of a peak's score on whether it is a particle, and the ranges of the inputs' statistics."""
    from sklearn.linear_model import LogisticRegression

    seen, labels, statistics = [], [], []
    radius = PIXELS_ACROSS / 2
    for one in fields:
        xy, heights = network_peaks(network, one.image, radius)
        hit = np.zeros(len(xy), bool)
        hit[match_picks(xy, one.xy_px, PIXELS_ACROSS / 3)[0]] = True
        seen.append(features(heights, background_peaks(network, one.image, radius, probable(xy, heights))))
        labels.append(hit)
        statistics.append([statistic(one.image, radius) for statistic in INPUT_STATISTICS.values()])
    x, y = np.concatenate(seen), np.concatenate(labels)
    fit = LogisticRegression(C=1e6).fit(x, y)
    ranges = np.percentile(statistics, (0.5, 99.5), axis=0).T
    return {
        "slopes": [float(value) for value in fit.coef_[0]],
        "offset": float(fit.intercept_[0]),
        "peaks": len(x),
        "particles": int(y.sum()),
        "ranges": {name: [float(low), float(high)] for name, (low, high) in zip(INPUT_STATISTICS, ranges, strict=True)},
    }


class StepLog(Silence):
    """Prints the mean loss of every fifty steps."""

    def __init__(self) -> None:
        self.began, self.losses = time.monotonic(), list[float]()

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Take a step."""
        self.losses.append(figures["loss"])
        if len(self.losses) % 50 == 0:
            took = time.monotonic() - self.began
            print(f"step {len(self.losses)}: {np.mean(self.losses[-50:]):.4f}, {took:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fields, training, calibration, files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=600, help="to train on")
    parser.add_argument("--calibration", type=int, default=100, help="fields to calibrate on, of other particles")
    parser.add_argument("--each", type=int, default=10, help="particles of each kind")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no step after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PACKAGED)
    given = parser.parse_args(arguments)
    began = time.monotonic()
    models, others_ = (particles(TRAINED, count, given.seed + k) for k, count in enumerate((given.each, 4)))
    fields = [field(models, 100_000 * given.seed + n) for n in range(given.fields)]
    print(f"{len(fields)} fields after {time.monotonic() - began:.0f} s", flush=True)
    images = np.stack([one.image for one in fields])
    wanted = np.stack([heat_map((SIDE, SIDE), one.xy_px, PIXELS_ACROSS / 2) for one in fields])
    settings = TrainingSettings(given.steps, seconds=given.seconds, seed=given.seed)
    log = StepLog()
    network = train(Network.random(given.seed), images, wanted, np.ones_like(wanted), settings, log)
    last = [field(others_, 100_000 * given.seed + given.fields + n) for n in range(given.calibration)]
    calibration = calibrate(network, last)
    card = {
        "name": "picker",
        "weights": int(sum(value.size for value in network.parameters.values())),
        "command": f"python tools/train_picker.py --fields {given.fields} --calibration {given.calibration} "
        f"--each {given.each} --steps {len(log.losses)} --seed {given.seed}",
        "seed": given.seed,
        "data": {
            "kinds": TRAINED,
            "kinds_never_seen": HELD_OUT,
            "diameter_A": DIAMETER_A,
            "defocus_A": DEFOCUS_A,
            "snr_of_small_image": SNR,
            "given_over_true_diameter": GIVEN,
            "fields": f"{given.fields} of {SIDE} x {SIDE} pixels, {PIXELS_ACROSS} across a particle",
            "also": "carbon, contaminants, phase plates, smaller particles, fields without particles",
        },
        "loss": float(np.mean(log.losses[-50:])),
        "calibration": calibration,
    }
    write_bytes(given.out, to_safetensors(Weights(network, card)))
    write_json(given.out.with_suffix(".json"), card)
    print(f"{given.out} after {time.monotonic() - began:.0f} s: {card['loss']:.4f}, {calibration}")


if __name__ == "__main__":
    main()
