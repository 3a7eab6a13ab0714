"""Trains the picker's network on simulated micrographs and writes its weights with a card.

``python tools/train_picker.py`` with its defaults makes the weights that come with verglas. Particles are phantoms of
the kinds TRAINED at many sizes, given with a diameter up to 15 per cent too small and 20 too large; the kinds HELD_OUT
are in no field. A field is what :func:`verglas.picking.prepare` makes of a micrograph, so the network sees in training
what it sees later. The last fields calibrate: a peak's score becomes a probability (Platt 1999).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg
from verglas import ops, simulate
from verglas.errors import InputError
from verglas.io import write_bytes, write_json
from verglas.learned import Network, TrainingSettings, Weights, to_safetensors, train
from verglas.learned.training import Adam, heat_map
from verglas.picking import PickSettings, match_picks, prepare
from verglas.picking.classical import classical_peaks
from verglas.picking.image import PIXELS_ACROSS, SmallImage
from verglas.picking.joint import gather_evidence, joint_odds, measured_background
from verglas.picking.network import INPUT_STATISTICS, BackgroundPeaks, features, network_score
from verglas.picking.scored import ScoredPeaks
from verglas.types.listener import Silence

TRAINED = ("globule", "rod", "disc", "ring", "shell")
HELD_OUT = ("dumbbell", "arch", "cone")
_SYMMETRIES = {"globule": ("C1", "C1", "C2", "D2", "C4"), "shell": ("C1", "D2", "O")}
SIDE, DISTANCE = 256, 0.7 * PIXELS_ACROSS
# Ranges that fields are drawn from; the first four stand on the card.
DIAMETER_A, DEFOCUS_A, SNR, GIVEN = (80.0, 320.0), (5000.0, 30000.0), (0.02, 2.0), (0.85, 1.2)
PACKAGED = Path(__file__).parent.parent / "python" / "verglas" / "learned" / "packaged" / "picker.safetensors"


@dataclass(frozen=True)
class Field:
    """A piece of a micrograph as pickers see it, and where particles lie in it."""

    small: SmallImage
    xy_px: np.ndarray
    snr: float
    kind: str

    @property
    def image(self) -> np.ndarray:
        """What the network sees."""
        return self.small.data


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
    return Field(small, xy, settings["snr"] if count else 0.0, model.name.split()[0])


def others(rng: np.random.Generator, settings: dict[str, Any], diameter_A: float) -> np.ndarray:
    """Balls of a third to half the diameter, as dark as particles of that SNR."""
    size_A = diameter_A * float(rng.uniform(0.3, 0.5))
    points = rng.uniform(-1, 1, (400, 3))
    points = points[np.linalg.norm(points, axis=1) < 1] * size_A / 2
    ball = simulate.Model(points, "C", weights=np.full(len(points), 30.0), name="ball")
    place = {"n": int(rng.integers(3, 20)), "contaminants": 0, "carbon": 0.0, "distance": 1.3}
    return simulate.micrograph(ball, seed=int(rng.integers(1 << 30)), threads=1, **(settings | place))[1].clean


@dataclass(frozen=True)
class Seen:
    """A field, what network and filter see in it, and where peaks may stand."""

    field: Field
    score: np.ndarray
    background: BackgroundPeaks
    by_filter: ScoredPeaks
    allowed: np.ndarray

    @classmethod
    def of(cls, network: Network, one: Field) -> Seen:
        """By the network and by the classical picker."""
        by_filter, bad = classical_peaks(one.small, PickSettings(method="automatic"), None, threads=1)
        score = network_score(network, one.image, one.small.radius_px)
        background = measured_background(network, one.small, score, ~bad.wide, DISTANCE)
        return cls(one, score, background, by_filter, ~bad.mask)

    def hits(self, xy_px: np.ndarray) -> np.ndarray:
        """Which places are particles."""
        hit = np.zeros(len(xy_px), bool)
        hit[match_picks(xy_px, self.field.xy_px, PIXELS_ACROSS / 3)[0]] = True
        return hit

    def alone(self) -> tuple[np.ndarray, np.ndarray]:
        """What the network says of its peaks, and which are particles."""
        xy, heights = ops.peaks(self.score, DISTANCE, mask=self.allowed, threads=1)
        return features(heights, self.background, ordered=heights), self.hits(xy)

    def jointly(self, calibration: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of the odds by both, and which places are particles."""
        what = (self.field.small, self.score, self.background, self.by_filter, self.allowed)
        evidence = gather_evidence(*what, DISTANCE, calibration)
        return joint_odds(calibration, evidence), self.hits(evidence.xy_px)


def calibrate(network: Network, fields: Iterable[Field]) -> dict[str, Any]:
    """Logistic regressions of what is said of a place on whether it is a particle; ranges of the inputs' statistics."""
    from sklearn.linear_model import LogisticRegression

    seen = [Seen.of(network, one) for one in fields]
    values, hit = (np.concatenate(part) for part in zip(*(one.alone() for one in seen), strict=True))
    alone = LogisticRegression(C=1e6, max_iter=1000).fit(values, hit)
    record: dict[str, Any] = {
        "slopes": [float(value) for value in alone.coef_[0]],
        "offset": float(alone.intercept_[0]),
    }
    odds, hit = (np.concatenate(part) for part in zip(*(one.jointly(record) for one in seen), strict=True))
    both = LogisticRegression(C=1e6).fit(odds[:, None], hit)
    statistics = [
        [statistic(one.field.image, PIXELS_ACROSS / 2) for statistic in INPUT_STATISTICS.values()] for one in seen
    ]
    ranges = np.percentile(statistics, (0.5, 99.5), axis=0).T
    return record | {
        "joint_slope": float(both.coef_[0, 0]),
        "joint_offset": float(both.intercept_[0]),
        "peaks": len(hit),
        "particles": int(hit.sum()),
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


def trained(given: argparse.Namespace, images: np.ndarray, wanted: np.ndarray) -> tuple[Network, float, int] | None:
    """The network after its steps, the last mean loss and how many; None where the checkpoint is not at the end."""
    log, counts, start = StepLog(), np.ones_like(wanted), Network.random(given.seed, given.width)
    settings = TrainingSettings(given.steps, given.batch, seed=given.seed)
    if given.checkpoint is None:
        network = train(start, images, wanted, counts, replace(settings, seconds=given.seconds), log)
        return network, float(np.mean(log.losses[-50:])), len(log.losses)
    adam, began = Adam(start), time.monotonic()
    if given.checkpoint.exists():
        with np.load(given.checkpoint) as kept:
            adam = Adam.from_arrays(kept)
    while adam.steps < given.steps and time.monotonic() - began < given.seconds:
        until = replace(settings, until=adam.steps + 100)
        network = train(start, images, wanted, counts, until, log, adam=adam)
        beside = given.checkpoint.with_suffix(".part.npz")
        np.savez(beside, **adam.to_arrays(), loss=np.mean(log.losses[-100:]))
        beside.replace(given.checkpoint)
    if adam.steps < given.steps:
        return None
    with np.load(given.checkpoint) as kept:
        return Network(adam.parameters), float(kept["loss"]), adam.steps


def drawn(given: argparse.Namespace, models: Sequence[simulate.Model]) -> tuple[np.ndarray, np.ndarray]:
    """Images of the fields and what is to be said of them; beside a checkpoint they are kept, a hundred to a file."""
    parts = []
    for first in range(0, given.fields, 100):
        kept = None if given.checkpoint is None else given.checkpoint.with_suffix(f".fields{first}.npz")
        if kept is not None and kept.exists():
            with np.load(kept) as both:
                parts.append((both["images"], both["wanted"]))
            continue
        numbers = range(first, min(first + 100, given.fields))
        fields = [field(models, 100_000 * given.seed + number) for number in numbers]
        images = np.stack([one.image for one in fields])
        wanted = np.stack([heat_map((SIDE, SIDE), one.xy_px, PIXELS_ACROSS / 2) for one in fields])
        parts.append((images, wanted))
        print(f"{numbers.stop} fields", flush=True)
        if kept is not None:
            beside = kept.with_suffix(".part.npz")
            np.savez(beside, images=images, wanted=wanted)
            beside.replace(kept)
    images, wanted = (np.concatenate(group) for group in zip(*parts, strict=True))
    return images, wanted


def main(arguments: Sequence[str] | None = None) -> None:
    """Fields, training, calibration, files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=600, help="to train on")
    parser.add_argument("--calibration", type=int, default=40, help="fields to calibrate on, of other particles")
    parser.add_argument("--each", type=int, default=10, help="particles of each kind")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=4, help="fields of a step")
    parser.add_argument("--width", type=int, default=12, help="channels of the finest scale")
    parser.add_argument(
        "--checkpoint", type=Path, help="goes on from this file, and stops after --seconds to be run again"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no step after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PACKAGED)
    given = parser.parse_args(arguments)
    began = time.monotonic()
    models, others_ = (particles(TRAINED, count, given.seed + k) for k, count in enumerate((given.each, 4)))
    images, wanted = drawn(given, models)
    done = trained(given, images, wanted)
    if done is None:
        print(f"{given.checkpoint}: more steps are to come; run the same command again")
        return
    network, loss, steps = done
    last = [field(others_, 100_000 * given.seed + given.fields + n) for n in range(given.calibration)]
    calibration = calibrate(network, last)
    card = {
        "name": "picker",
        "weights": int(sum(value.size for value in network.parameters.values())),
        "command": f"python tools/train_picker.py --fields {given.fields} --calibration {given.calibration} "
        f"--each {given.each} --steps {steps} --seed {given.seed}",
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
        "loss": loss,
        "calibration": calibration,
    }
    write_bytes(given.out, to_safetensors(Weights(network, card)))
    write_json(given.out.with_suffix(".json"), card)
    print(f"{given.out} after {time.monotonic() - began:.0f} s: {card['loss']:.4f}, {calibration}")


if __name__ == "__main__":
    main()
