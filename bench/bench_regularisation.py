"""Priors of the maximisation step: what they do to noise, and what they gain where order is uneven.

    python bench/bench_regularisation.py [--only noise,belt,dense,uniform] [--seeds 5] [--minutes 4]

goes on where an earlier call stopped; writes bench/results/regularisation_<experiment>.json. Box 48. Development used
seeds below 50, and 100 to 109 of the noise; the committed rows begin at seed 400, those of the noise at 300.

- noise: half maps of white noise through each prior: largest and mean FSC in standard deviations of noise, also inside
  a mask of half the ball; the latter shows a common envelope.
- belt: an ordered core in a belt that is another in every 24th particle. Refined from the core's density at 20 A and
  poses 6 degrees and 1 pixel off (``poses="local"``, the same for all priors). FSC 0.5 of the mean of the half maps
  with the core within its mask, spectra flattened; median pose error; seconds of processor an iteration; the resolution
  claimed (FSC 0.143 of the half maps, masked and corrected).
  ``true`` is the map of the true poses, which no prior can better.
- dense: a belt of twice the core's weight, which lies inside the mask that is made from the map (SNR 0.07). Candidates
  as ``local+auto``: a prior, and what of the references is scored. Seeds 10 to 13 were development, rows begin at 210
  (``--first 210``).
- uniform: the same without a belt.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas import fourier
from verglas.assessment import PoseErrors, fsc, pose_errors
from verglas.filters import apply, low_pass
from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.masks import dilate, soft_edge, soft_sphere
from verglas.refinement import schedule
from verglas.refinement.em import initial_state, refine_state
from verglas.refinement.settings import RefineSettings
from verglas.refinement.start import make_problem
from verglas.regularisation import PRIORS, HalfMaps, MapSource
from verglas.search.problem import survey
from verglas.simulate import Model
from verglas.types import Poses

from common import collect, experiment_summary

BOX, PIXEL_A, FIRST_SEED = 48, 3.0, 400
CORE_OF_FIELD = 70 / 144  # diameter of the core on the side of the box
BELTS = 24
OFF_DEG, OFF_A = 6.0, 3.0
SHAPES = ("globule", "rod", "arch")
ITERATIONS = 5


# -- noise -------------------------------------------------------------------------------------------------------------


def filtered_noise(prior: str, raw: np.ndarray, radius: int) -> np.ndarray:
    """Half maps of noise through a prior, on sums of the same weight everywhere."""
    ball = soft_sphere(BOX, BOX / 2 - 5, 4)
    curve = np.nan_to_num(fsc(*(vg.Map(one, PIXEL_A) for one in raw), ball).curve)[: radius + 1]
    learned = PRIORS[prior]().fit(HalfMaps(raw, curve, radius, 1.0, ball))
    shells = fourier.shells(raw[0].shape)
    made = []
    for number, one in enumerate(raw, 1):

        def solve(ssnr: np.ndarray, one: np.ndarray = one) -> np.ndarray:
            ssnr = np.maximum(ssnr, 1e-3)  # as on the grid
            gain = np.where(shells <= radius, (ssnr / (1 + ssnr))[np.minimum(shells, radius)], 0)
            return fourier.inverse((fourier.forward(one, 3) * gain).astype(np.complex64), one.shape)

        made.append(learned(MapSource(f"half{number}", 1, one, solve)))
    return np.stack(made)


def shell_amplitude(volume: np.ndarray) -> np.ndarray:
    """Root mean square of each shell, at every Fourier voxel."""
    shells = fourier.shells(volume.shape)
    power = np.bincount(shells.ravel(), (np.abs(fourier.forward(volume, 3)) ** 2).ravel())
    power /= np.maximum(np.bincount(shells.ravel()), 1)
    return np.sqrt(np.maximum(power, 1e-12 * power.max()))[shells]


def divided(volume: np.ndarray, amplitude: np.ndarray, pixel_A: float = PIXEL_A) -> vg.Map:
    """By a curve: where all shells are as strong, a mask spreads no strong one into weak ones."""
    spectrum = fourier.forward(volume, 3) / amplitude
    return vg.Map(fourier.inverse(spectrum.astype(np.complex64), volume.shape), pixel_A)


def noise_trial(prior: str, seed: int, radius: int = 21) -> dict[str, Any]:
    raw = np.random.default_rng(seed).normal(size=(2, BOX, BOX, BOX)).astype(np.float32)
    halves = [divided(one, shell_amplitude(one)) for one in filtered_noise(prior, raw, radius)]
    z = {}
    for name, mask in (("whole", None), ("masked", soft_sphere(BOX, BOX / 4, 4))):
        curve = fsc(*halves, mask)
        counts = curve.independent if mask is None else curve.effective
        z[name] = (curve.curve * np.sqrt(counts))[2 : radius + 1]
    return {
        "largest_z": float(np.abs(z["whole"]).max()),
        "mean_z": float(z["whole"].mean()),
        "largest_masked_z": float(np.abs(z["masked"]).max()),
        "within_3_sd": bool(np.abs(z["whole"]).max() < 3),
    }


# -- refinements -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ring:
    """About the core: weight on that of the core, inner and outer radius on its diameter.

    A dense one overlaps the core's mask: maps are then compared with the core and the mean ring.
    """

    weight: float
    inner: float
    outer: float
    is_dense: bool = False


# Experiment -> the ring, which is another in every kind of images. A faint one is outside the mask that is made from
# the map; a dense one is inside.
RINGS: dict[str, Ring | None] = {"belt": Ring(0.75, 0.4, 0.75), "dense": Ring(2.0, 0.35, 0.62, True), "uniform": None}


@dataclass(frozen=True)
class Imaging:
    """How many particles of which size."""

    n: int
    snr: float
    box: int = BOX
    pixel_A: float = PIXEL_A

    @property
    def core_A(self) -> float:
        """Diameter of the core."""
        return CORE_OF_FIELD * self.box * self.pixel_A

    @property
    def key(self) -> str:
        """For a key of trials; rows of the box of all the others do not name it."""
        size = "" if (self.box, self.pixel_A) == (BOX, PIXEL_A) else f" box {self.box} px {self.pixel_A:g} A"
        return f"n {self.n} snr {self.snr:g}{size}"


def belt_of(seed: int, core: Model, ring: Ring, core_A: float) -> Model:
    """Atoms at random in a ring about the core."""
    rng = np.random.default_rng([seed, 7])
    count = int(ring.weight * core.weights.sum())
    radius = np.sqrt(rng.uniform((ring.inner * core_A) ** 2, (ring.outer * core_A) ** 2, count))
    angle = rng.uniform(0, 2 * np.pi, count)
    z = rng.uniform(-0.2 * core_A, 0.2 * core_A, count)
    return Model(np.column_stack([radius * np.cos(angle), radius * np.sin(angle), z]), "C", name="belt")


def perturbed(particles: vg.Particles, seed: int) -> vg.Particles:
    """With poses that are a little off."""
    rng, given = np.random.default_rng([seed, 11]), particles.poses
    off = Rotation.from_rotvec(rng.normal(size=(len(particles), 3)) * np.deg2rad(OFF_DEG) / np.sqrt(3)).as_matrix()
    shifts = given.shifts_A + rng.normal(size=(len(particles), 2)) * OFF_A
    return particles.with_poses(Poses(matrix_to_euler(off @ euler_to_matrix(given.angles_deg)), shifts))


def core_judge(
    core: Model, models: list[Model], ring: Ring | None, imaging: Imaging, frame: PoseErrors | None = None
) -> Callable[[np.ndarray], float]:
    """FSC 0.5 of a volume with the core (of a dense ring with core and mean ring) within the core's mask, flattened.

    ``frame``: poses drift as a whole, by a fraction of a degree or of a voxel, which is no error of the map.
    """

    def density(model: Model) -> vg.Map:
        moved = model if frame is None else model.move(frame.matrix, frame.offset_A)
        return vg.simulate.density(moved, imaging.box, imaging.pixel_A, b_factor_A2=60.0)

    expected = density(core)
    coarse = apply(expected, low_pass(12.0)).data
    mask = soft_edge(dilate(coarse > 0.15 * coarse.max(), 1), 4.0)
    if ring is not None and ring.is_dense:
        expected = expected.with_data(np.mean([density(one).data for one in models], axis=0).astype(np.float32))
    flat = shell_amplitude(expected.data)

    def judge(volume: np.ndarray) -> float:
        return fsc(*(divided(one, flat, imaging.pixel_A) for one in (volume, expected.data)), mask).resolution_A(0.5)

    return judge


def refinement_trial(candidate: str, seed: int, ring: Ring | None, imaging: Imaging) -> dict[str, Any]:
    """A prior, perhaps with what of the references is scored: ``local``, ``local+auto``."""
    prior, _, score_mask = candidate.partition("+")
    shape = SHAPES[seed % len(SHAPES)]
    n, snr, box, pixel_A, core_A = imaging.n, imaging.snr, imaging.box, imaging.pixel_A, imaging.core_A
    core = vg.simulate.phantom(box, pixel_A, core_A, seed=seed, shape=shape)
    models = [core] if ring is None else [core + belt_of(BELTS * seed + k, core, ring, core_A) for k in range(BELTS)]
    true = vg.simulate.particles(
        models, n, box, pixel_A, snr, seed=seed, envelope_b_factor_A2=60.0, shift_sd_A=2.0, listener=None
    )
    truth = vg.simulate.density(core, box, pixel_A, b_factor_A2=60.0)
    if candidate == "true":
        made = vg.reconstruct(true, listener=None).data
        return {"shape": shape, "core_0.5_A": core_judge(core, models, ring, imaging)(made)}
    particles = perturbed(true, seed)
    settings = RefineSettings(
        diameter_A=1.6 * core_A,
        initial_resolution_A=20.0,
        poses="local",
        shift_range_A=8.0,
        iterations=ITERATIONS,
        regularisation=prior,
        score_mask=score_mask or "off",
        seed=seed,
    )
    found = survey(particles)
    problem = make_problem(particles, found.excluded, settings)
    state, _ = initial_state(problem, found.power, [apply(truth, low_pass(20.0))])
    began = time.process_time()
    state, made = refine_state(problem, state, schedule.first_step(problem))
    seconds = time.process_time() - began
    maps, last = made.maps[0], state.figures[-1]
    errors = pose_errors(Poses(state.poses.angles_deg, state.poses.origin_px * pixel_A), true.poses, "C1")
    against_core = core_judge(core, models, ring, imaging, errors)
    return {
        "shape": shape,
        "core_0.5_A": against_core(maps.raw.mean(axis=0)),
        "map_core_0.5_A": against_core(maps.joint),
        "median_angle_deg": float(np.median(errors.angle_deg)),
        "claimed_A": last.resolution_A,
        "processor_s_per_iteration": seconds / len(state.figures),
        "iterations": len(state.figures),
        "gain_nats": last.regularisation_gain,
        "gain_error_nats": last.regularisation_gain_error,
        "taken": last.regularisation,
        "score_mask": last.score_mask,
        "score_mask_taken": sum(one.score_mask != "off" for one in state.figures),
        "score_mask_gain_nats": last.score_mask_gain,
        "score_mask_gain_error_nats": last.score_mask_gain_error,
    }


# -- all of it ---------------------------------------------------------------------------------------------------------


def trials(args: argparse.Namespace, experiment: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """By key; one seed of every prior before the next seed."""
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    for seed in range(args.first, args.first + args.seeds):
        for prior in args.priors.split(","):
            key = f"{experiment}:{prior} seed {seed}"
            if experiment == "noise":
                if prior in PRIORS:
                    made[key] = partial(noise_trial, prior, seed)
                continue
            imaging = Imaging(args.n, args.snr, args.box, args.pixel_size)
            made[f"{key} {imaging.key}"] = partial(refinement_trial, prior, seed, RINGS[experiment], imaging)
    return made


def against_global(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Summaries, and each prior over the global one on the same particles."""
    rows = experiment_summary(sorted({key.split()[0] for key in done}), done)
    for row in rows:
        experiment, _, prior = row["experiment"].partition(":")
        if experiment == "noise":
            continue
        for figure in ("core_0.5_A", "map_core_0.5_A", "median_angle_deg", "processor_s_per_iteration"):
            pairs = [
                (value[figure], done[key.replace(f":{prior} ", ":global ")][figure])
                for key, value in done.items()
                if figure in value
                and key.startswith(f"{experiment}:{prior} ")
                and key.replace(f":{prior} ", ":global ") in done
            ]
            if pairs:
                row[f"{figure}_on_global"] = float(np.median([a / b for a, b in pairs]))
        mine = [v for k, v in done.items() if k.startswith(f"{experiment}:{prior} ")]
        if prior == "true":
            continue
        # Of a claim the truth is the FSC 0.5 with the noise-free density.
        row["claimed_on_truth_least"] = float(min(v["claimed_A"] / v["core_0.5_A"] for v in mine))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="noise,belt,uniform")
    parser.add_argument("--priors", default="global,local,auto")
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--n", type=int, default=600)
    parser.add_argument("--snr", type=float, default=0.035)
    parser.add_argument("--box", type=int, default=BOX)
    parser.add_argument("--pixel-size", type=float, default=PIXEL_A)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--name", default="regularisation", help="of the file in bench/results")
    args = parser.parse_args()
    for experiment in args.only.split(","):  # a file each: what one call does not want would leave a common one
        wanted = trials(args, experiment)
        collect(
            f"{args.name}_{experiment}",
            wanted,
            against_global,
            args.minutes,
            box=args.box,
            pixel_size_A=args.pixel_size,
        )


if __name__ == "__main__":
    main()
