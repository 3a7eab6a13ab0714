"""Sets on which refinements fail: the default path beside what a careful user does, and the map of the true poses.

    python bench/bench_hard_cases.py --seeds 1 --minutes 4 [--only belt junk] [--count 600 --box 48]

small: 60 kDa without symmetry. belt: an ordered protein in a ring of pseudo-atoms that is another in every of 20 kinds
of images. dimer: C2 but for one domain. junk: 70 % of the images are noise. views: views crowd about one axis.
occupancies: a domain that half of the particles lack. Starts are the truth low-passed to 20 A; resolutions are FSC 0.5
with the truth turned into the map's frame, under a mask made from it, as the claimed one is under the map's own;
"ideal" is the map of the true poses of the particles that are any. claim_ratio above 1: more was claimed than is true;
crossing_ratio is that of the half maps' crossing, which the verdict may not let one claim. Careful: a start or a search
that suits the case; of occupancies the share that ``classify3d`` at the refined poses tells right (1/2 by chance).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

import verglas as vg
from verglas.assessment import pose_errors, solvent_mask
from verglas.filters import apply, low_pass
from verglas.simulate import Model

from common import collect, experiment_summary

_START_A = 20.0
_BELTS = 20


@dataclass(frozen=True)
class HardCase:
    """Objects (several: conformations), what a map should show, how they are imaged, a careful user's choices."""

    models: list[Model]
    wanted: Model
    diameter_A: float
    snr: float
    imaging: dict[str, Any] = field(default_factory=dict)
    careful: dict[str, Any] = field(default_factory=dict)
    junk: float = 0.0


def ball(rng: np.random.Generator, centre_A: list[float], radius_A: float, density: float = 0.0047) -> Model:
    """Pseudo-atoms at random in a ball, as dense as a phantom's: 0.0024 diameter^3 of them."""
    count = round(4 / 3 * np.pi * radius_A**3 * density)
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    xyz = direction * radius_A * rng.random((count, 1)) ** (1 / 3) + centre_A
    return Model(xyz, "C", weights=2.0, name="ball")


def belt(rng: np.random.Generator, radius_A: float, width_A: float) -> Model:
    """Pseudo-atoms at random in a ring about z, half as dense."""
    count = round(2 * np.pi * radius_A * width_A**2 * 0.0024)
    angle = rng.uniform(0, 2 * np.pi, count)
    across = radius_A + rng.uniform(-width_A / 2, width_A / 2, count)
    height = rng.uniform(-width_A / 2, width_A / 2, count)
    return Model(
        np.column_stack([across * np.cos(angle), across * np.sin(angle), height]), "C", weights=2.0, name="belt"
    )


def small(seed: int, field_A: float) -> HardCase:
    """60 kDa is 73,000 A^3 of protein: a globule of 52 A."""
    model = vg.simulate.phantom(64, field_A / 64, 52.0, seed=seed)
    return HardCase([model], model, 60.0, 0.02, careful={"initial_resolution_A": 12.0})


def in_a_belt(seed: int, field_A: float) -> HardCase:
    """The ordered part is a rod along z, through a ring that no two kinds of images share."""
    rng = np.random.default_rng((seed, 1))
    rod = vg.simulate.phantom(64, field_A / 64, 0.6 * field_A, seed=seed, shape="rod")
    models = [rod + belt(rng, 0.2 * field_A, 0.14 * field_A) for _ in range(_BELTS)]
    return HardCase(models, rod, 0.66 * field_A, 0.05, careful={"diameter_A": 0.62 * field_A})


def dimer(seed: int, field_A: float) -> HardCase:
    """C2 with a ball of 12 A on one of the two."""
    model = vg.simulate.phantom(64, field_A / 64, 0.55 * field_A, "C2", seed=seed)
    whole = model + ball(np.random.default_rng((seed, 2)), [0.22 * field_A, 0, 0.1 * field_A], 12.0)
    return HardCase([whole], whole, 0.66 * field_A, 0.05, careful={"candidates": 16})


def junk(seed: int, field_A: float) -> HardCase:
    """Seven images in ten are noise."""
    model = vg.simulate.phantom(64, field_A / 64, 0.6 * field_A, seed=seed)
    return HardCase([model], model, 0.66 * field_A, 0.05, junk=0.7)


def views(seed: int, field_A: float) -> HardCase:
    """Most particles lie on one side."""
    model = vg.simulate.phantom(64, field_A / 64, 0.6 * field_A, seed=seed)
    imaging = {"concentration": 20.0}
    return HardCase([model], model, 0.66 * field_A, 0.05, imaging, careful={"candidates": 16})


def occupancies(seed: int, field_A: float) -> HardCase:
    """A ball of 16 A that half of the particles lack."""
    model = vg.simulate.phantom(64, field_A / 64, 0.55 * field_A, seed=seed)
    whole = model + ball(np.random.default_rng((seed, 3)), [0, 0, 0.28 * field_A], 16.0)
    return HardCase([whole, model], whole, 0.72 * field_A, 0.05)


CASES: dict[str, Callable[[int, float], HardCase]] = {
    "small": small,
    "belt": in_a_belt,
    "dimer": dimer,
    "junk": junk,
    "views": views,
    "occupancies": occupancies,
}


def imaged(case: HardCase, count: int, box: int, pixel_A: float, seed: int) -> tuple[vg.Particles, np.ndarray]:
    """Particles, and which of them are any."""
    options = {"snr": case.snr, "seed": seed, "listener": None, **case.imaging}
    p = vg.simulate.particles(case.models, count, box, pixel_A, **options)
    good = np.ones(count, bool)
    if case.junk:
        rng = np.random.default_rng((seed, 4))
        good[rng.permutation(count)[: round(case.junk * count)]] = False
        images = p.images()
        images[~good] = rng.normal(0, images.std(), (np.count_nonzero(~good), box, box))
        p = p.with_source(vg.types.ArraySource(images, pixel_A))
    return p, good


def trial(name: str, seed: int, count: int, box: int, pixel_A: float, snr_times: float) -> dict[str, Any]:
    """The default, the careful choices, and for junk the default on what a sieve keeps."""
    case = CASES[name](seed, box * pixel_A)
    case = replace(case, snr=snr_times * case.snr)
    p, good = imaged(case, count, box, pixel_A, seed)
    start = apply(vg.simulate.density(case.wanted, box, pixel_A), low_pass(_START_A))

    def against(volume: vg.Map, truth: vg.Map) -> float:
        return float(vg.fsc(volume, truth, solvent_mask(truth, diameter_A=case.diameter_A)).resolution_A(0.5))

    def judged(q: vg.Particles, rows: np.ndarray, **options: Any) -> tuple[vg.Particles, dict[str, Any]]:
        settings = {"diameter_A": case.diameter_A, "initial_resolution_A": _START_A, **options}
        found = vg.refine(q, start, threads=1, listener=None, **settings)
        errors = pose_errors(found.particles.poses, p.poses[rows])
        truth = vg.simulate.density(case.wanted.move(errors.matrix, errors.offset_A), box, pixel_A)
        wrong = errors.angle_deg[good[rows]]
        numbers = {
            "crossing_A": float(found.resolution_A),
            "claimed_A": float(claim) if np.isfinite(claim := found.claimed_resolution_A) else None,
            "truth_A": against(found.map, truth),
            "far": float(np.mean(errors.angle_deg[good[rows]] > 30)),
            "median_angle_deg": float(np.median(wrong)),
            "stops": bool(found.verdict.state == "stop"),
            "warnings": " ".join(one.code for one in found.verdict.findings if one.state != "go on"),
            "iterations": len(found.iterations),
        }
        numbers["crossing_ratio"] = numbers["truth_A"] / numbers["crossing_A"]
        numbers["claim_ratio"] = numbers["truth_A"] / claim  # 0 where the verdict withholds the claim
        return found.particles, numbers

    everyone = np.arange(count)
    ideal = vg.reconstruct(p[good], listener=None, threads=1)
    truth = vg.simulate.density(case.wanted, box, pixel_A)
    row: dict[str, Any] = {"ideal_A": against(ideal, truth)}
    refined, numbers = judged(p, everyone)
    row |= {f"default_{key}": value for key, value in numbers.items()}
    if case.careful:
        row |= {f"careful_{key}": value for key, value in judged(p, everyone, **case.careful)[1].items()}
    if name == "occupancies":
        classes = vg.classify3d(refined, classes=2, poses="fixed", diameter_A=case.diameter_A, threads=1, listener=None)
        told = np.delete(p.table["rlnClassNumber"].to_numpy(), list(classes.excluded))
        right = np.mean(classes.posterior.argmax(axis=1) + 1 == told)
        row["careful_share_told"] = float(max(right, 1 - right))
    if name == "junk" and len(refined) == count:
        kept = np.flatnonzero(~vg.sieve(refined, alignability=0, threads=1, listener=None).is_removed)
        row |= {"sieve_kept": len(kept), "sieve_junk_left": float(np.mean(~good[kept]))}
        row |= {f"sieved_{key}": value for key, value in judged(p[kept], kept)[1].items()}
    return row


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Numbers alone: warnings are text."""
    plain = {key: {k: v for k, v in row.items() if not isinstance(v, str)} for key, row in done.items()}
    return experiment_summary([name for name in CASES if any(key.startswith(f"{name} ") for key in plain)], plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--box", type=int, default=48)
    parser.add_argument("--pixel-size", type=float, default=3.0)
    parser.add_argument("--snr-times", type=float, default=1.0, help="of the cases' SNR, which is that of a pixel")
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--name", default="hard_cases", help="of the file in bench/results")
    given = parser.parse_args()
    size = (given.count, given.box, given.pixel_size, given.snr_times)
    shown = f"of {given.count} x {given.box} px of {given.pixel_size:g} A, SNR x {given.snr_times:g}"
    trials = {
        f"{name} {seed} {shown}": partial(trial, name, seed, *size)
        for seed in range(given.first_seed, given.first_seed + given.seeds)
        for name in given.only
    }
    collect(given.name, trials, summary, given.minutes)


if __name__ == "__main__":
    main()
