"""Two rigid bodies of simulated particles: what each gains by poses of its own, and whether their motion is found.

Every trial is one case and one seed, which draws phantom, poses and noise; none of the seeds was used in development.
Trials are kept after each, and a run goes on where the last one stopped::

    python bench/bench_multibody.py hinge still --seeds 3 --minutes 5

48 px of 3.5 A, 300 particles, SNR 0.6 over the whole box; the phantom (globule, disc or cone, by turns) is cut by a
plane, and the half beyond it turns about an axis in the plane. The poses of the whole are refined locally first.

hinge    -10 to 10 degrees: the resolution of each body (FSC 0.5 with the truth in its mask, and FSC 0.143 of its half
         maps), beside that at the poses of the whole, and beside the same refinement of images of the body alone with
         the same noise; rank correlation of the first motion with the angle; motions that stand out (one)
still    no motion: motions that stand out (none)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import verglas as vg
from verglas import filters
from verglas.heterogeneity.bodies import Body, make_bodies
from verglas.heterogeneity.multibody import refine_bodies, start_multibody
from verglas.heterogeneity.settings import MultibodySettings
from verglas.masks import soft_edge
from verglas.refinement.update import resolution_shell
from verglas.search.problem import survey
from verglas.simulate import Model, hinge, phantom

from common import run_cases

BOX, PIXEL_A, N, SNR, DIAMETER_A = 48, 3.5, 300, 0.6, 125.0
STATES, MOST_DEG = 21, 10.0
SHAPES = ("globule", "disc", "cone")
SETTINGS = MultibodySettings(iterations=4, initial_resolution_A=20.0)
RESULT = Path(__file__).parent / "results" / "multibody.json"


def part(model: Model, right: bool) -> Model:
    """The half that turns, or the other one."""
    keep = (model.xyz_A[:, 0] > 0) == right
    weights, b_factors = (None if v is None else v[keep] for v in (model.weights, model.b_factors_A2))
    elements = model.elements if isinstance(model.elements, str) else np.asarray(model.elements)[keep]
    return Model(model.xyz_A[keep], elements, weights, b_factors)


def mask_of(volume: vg.Map) -> vg.Map:
    """Soft mask of a density."""
    coarse = filters.apply(volume, filters.low_pass(15.0)).data
    return vg.Map(soft_edge(coarse > 0.15 * coarse.max(), 3.0), volume.pixel_size_A)


def draw(model: Model, seed: int, most_deg: float) -> tuple[vg.Particles, list[vg.Particles], np.ndarray]:
    """Particles whose right half turns; the same with each half alone, with the same noise; the angles."""
    angles = np.linspace(-most_deg, most_deg, STATES)
    whole = [hinge(model, a) for a in angles]
    sets = [whole, [part(model, False)] * STATES, [hinge(part(model, True), a) for a in angles]]
    clean = [vg.simulate.particles(s, N, BOX, PIXEL_A, seed=seed, shift_sd_A=3.0, listener=None) for s in sets]
    images = [p.images() for p in clean]
    noise = np.random.default_rng(seed).normal(0, np.sqrt(images[0].var() / SNR), images[0].shape)
    noisy = [clean[0].with_source(vg.ArraySource((i + noise).astype(np.float32), PIXEL_A)) for i in images]
    return noisy[0], noisy[1:], angles[clean[0].table["rlnClassNumber"].to_numpy(int) - 1]


def consensus(particles: vg.Particles, model: Model) -> Any:
    """One map and one pose for each particle, from poses near the true ones of the half that does not turn."""
    start = vg.simulate.density(model, BOX, PIXEL_A)
    how: dict[str, Any] = {"diameter_A": 140.0, "initial_resolution_A": 20.0, "iterations": 2, "prior_deg": 10.0}
    return vg.refine(particles, start, poses="local", listener=None, **how)


def truth_A(volume: vg.Map, truth: vg.Map, mask: vg.Map) -> float:
    """Where the FSC with the truth falls to 0.5 in a mask."""
    return float(vg.fsc(volume, truth, mask.data).resolution_A(0.5))


def body_alone(particles: vg.Particles, body: Body, truth: vg.Map, mask: vg.Map) -> tuple[float, float]:
    """The same refinement of a body that is all there is: FSC 0.5 with the truth, and FSC 0.143 of its half maps."""
    made = start_multibody(particles, survey(particles).power, truth, [body], SETTINGS)
    refine_bodies(made)
    one = made.bodies[0]
    assert one.made is not None
    maps = one.made.maps[0]
    assert maps.joint is not None
    joint = vg.Map(body.in_place(maps.joint), PIXEL_A)
    half = one.problem.resolution_of_A(resolution_shell(maps.masked, one.problem.last_radius))
    return truth_A(joint, truth, mask), half


def refined(seed: int, most_deg: float) -> tuple[dict[str, Any], Any, list[vg.Particles], list[vg.Map]]:
    """Figures of both cases; what was refined, images of each body alone, the bodies' true densities."""
    model = phantom(BOX, PIXEL_A, DIAMETER_A, seed=seed, shape=SHAPES[seed % len(SHAPES)])
    particles, alone, angle = draw(model, seed, most_deg)
    whole = consensus(particles, model)
    densities = [vg.simulate.density(part(model, right), BOX, PIXEL_A) for right in (False, True)]
    masks = [mask_of(d) for d in densities]
    made = vg.multibody(whole.particles, whole.map, masks, SETTINGS, listener=None)
    row: dict[str, Any] = {
        "shape": SHAPES[seed % len(SHAPES)],
        "motions": made.components.n_motions,
        "share": float(made.components.share[0]),
        "reliability": float(made.components.reliability[0]),
        "reliability_2": float(made.components.reliability[1]),
    }
    if most_deg > 0:
        row["correlation"] = abs(float(spearmanr(made.components.coordinates[:, 0], angle).statistic))
    placed = made.particles
    assert placed.poses is not None
    single = [a.with_poses(placed.poses).with_columns(rlnRandomSubset=placed.table["rlnRandomSubset"]) for a in alone]
    return row, (made, whole), single, densities


def hinged(seed: int) -> dict[str, Any]:
    """Two bodies that move."""
    row, (made, whole), single, densities = refined(seed, MOST_DEG)
    bodies = make_bodies(whole.map, [one.mask for one in made.bodies])[0]
    for number, (one, alone, density, body) in enumerate(zip(made.bodies, single, densities, bodies, strict=True), 1):
        at_whole = truth_A(whole.map, density, one.mask)
        best, best_half = body_alone(alone, body, density, one.mask)
        found = truth_A(one.map, density, one.mask)
        row |= {
            f"body{number}_truth_A": found,
            f"body{number}_whole_truth_A": at_whole,
            f"body{number}_alone_truth_A": best,
            f"body{number}_on_alone": found / best,
            f"body{number}_half_A": one.resolution_A,
            f"body{number}_whole_half_A": one.whole_resolution_A,
            f"body{number}_alone_half_A": best_half,
            f"body{number}_half_on_alone": one.resolution_A / best_half,
        }
    return row


def still(seed: int) -> dict[str, Any]:
    """Two bodies that do not move."""
    return refined(seed, 0.0)[0]


CASES: dict[str, Callable[[int], dict[str, Any]]] = {"hinge": hinged, "still": still}


def main() -> None:
    """Run what is not there yet."""
    known = {"verglas": vg.__version__, "particles": N, "box": BOX, "pixel_size_A": PIXEL_A, "snr": SNR}
    run_cases(__doc__, CASES, RESULT, seeds=3, first_seed=3000, minutes=5.0, **known)


if __name__ == "__main__":
    main()
