"""Heterogeneity at known poses on simulated particles: what is found, and what is not found where there is nothing.

Every trial is one case and one seed, which draws phantom, poses and noise; none of the seeds was used in development
(``--first-seed``). Trials are kept after each, and a run goes on where the last one stopped::

    python bench/bench_heterogeneity.py null motion linear three focused --seeds 10 --minutes 9

48 px of 4 A, 600 particles, data to 18 A, SNR 0.1 over the whole box (``three``: 0.05).

null     one structure: components and classes that are chosen (none, one)
homogeneous   components of one structure, and of noise alone (none)
motion   half of the phantom turned by 0 to 50 degrees: rank correlation of the first coordinate with the angle, beside
         that of the projection on the difference of the true end states
linear   images of a mean and two components with normal coordinates, SNR 0.2 and 0.05: share of particles whose 95 %
         set holds the truth; stated variance beside the true one, and beside that of the coordinates
three    three conformations, 50/30/20 %: particles in the right class, error of populations, classes that auto finds
focused  a small part there or not beside a body that moves: right classes inside a mask, and without one
junk     three conformations (SNR 0.05), three tenths of the images noise: what is set apart, and the classes
stable   three conformations (SNR 0.05) from three starts: right classes of all particles, and of the stable core
methods  the half that turns, by expectation-maximisation and by the covariance at 40 A: rank correlations
units    one of four units of a D2 particle has a part more: expanded, classified inside a mask (SNR 0.1)
assembly   eight states of a body and three parts, 2 to 30 %, 1,500 particles, SNR 0.1: right classes, states found,
         and what the true maps themselves would tell apart
assembly_many   the same with 6,000 particles
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2, spearmanr

import verglas as vg
from verglas.geometry import euler_to_matrix, symmetry_matrices
from verglas.heterogeneity import migration_matrix
from verglas.heterogeneity.components import mean_model
from verglas.heterogeneity.linear import products
from verglas.heterogeneity.posed import posed_images
from verglas.initial_model.course import resample_to_box
from verglas.masks import soft_sphere
from verglas.simulate import Model, hinge, phantom

from common import run_cases

BOX, PIXEL_A, N, RESOLUTION_A, DIAMETER_A = 48, 4.0, 600, 18.0, 150.0
RESULT = Path(__file__).parent / "results" / "heterogeneity.json"
HOW: dict[str, Any] = {"resolution_A": RESOLUTION_A, "diameter_A": DIAMETER_A, "listener": None}


def draw(models: list[Model], seed: int, snr: float = 0.1, **more: Any) -> vg.Particles:
    """Particles of conformations."""
    return vg.simulate.particles(models, N, BOX, PIXEL_A, snr=snr, seed=seed, listener=None, **more)


def number_of(particles: vg.Particles) -> np.ndarray:
    """Class of each, from 0."""
    return particles.table["rlnClassNumber"].to_numpy(np.int64) - 1


def accuracy(found: np.ndarray, truth: np.ndarray) -> float:
    """Share in the right class, classes matched in the best way."""
    count = int(max(found.max(), truth.max())) + 1
    return max(float(np.mean(np.array(p)[found] == truth)) for p in permutations(range(count)))


def null(seed: int) -> dict[str, Any]:
    """Nothing varies."""
    particles = draw([phantom(BOX, PIXEL_A, 130.0, seed=seed)], seed)
    made = vg.variability(particles, most_components=2, **HOW)
    classes = vg.classify3d(particles, classes="auto", most_classes=3, poses="fixed", **HOW)
    return {"components": made.n_components, "classes": classes.classes, "gain": float(made.gains["gain_nats"][0])}


def homogeneous(seed: int) -> dict[str, Any]:
    """Nothing varies, and nothing is there: components alone, three tried."""
    one = draw([phantom(BOX, PIXEL_A, 130.0, seed=seed)], seed)
    noise = np.random.default_rng([seed, 1]).normal(size=(N, BOX, BOX)).astype(np.float32)
    row: dict[str, Any] = {}
    for name, particles in (("", one), ("_noise", one.with_source(vg.ArraySource(noise, PIXEL_A)))):
        made = vg.variability(particles, most_components=3, **HOW)
        row |= {f"components{name}": made.n_components, f"gain{name}": float(made.gains["gain_nats"].max())}
    return row


def motion(seed: int) -> dict[str, Any]:
    """A half that turns."""
    model = phantom(BOX, PIXEL_A, 130.0, seed=seed)
    states = [hinge(model, a) for a in np.linspace(0, 50, 11)]
    particles = draw(states, seed)
    angle = number_of(particles)
    made = vg.variability(particles, most_components=2, **HOW)
    posed = posed_images(particles, job="bench", resolution_A=RESOLUTION_A, diameter_A=DIAMETER_A)
    ends = [resample_to_box(vg.simulate.density(s, BOX, PIXEL_A).data, posed.box) for s in (states[0], states[-1])]
    volumes = np.stack([(ends[0] + ends[1]) / 2, ends[1] - ends[0]])
    sigma2 = mean_model(posed, contrast=False).sigma2
    oracle = np.zeros(len(posed))
    for part in products(posed, volumes, sigma2, np.arange(len(posed))):
        oracle[part.batch.rows] = (part.cross[:, 1] - part.gram[:, 0, 1]) / (1 + part.gram[:, 1, 1])
    best = abs(float(spearmanr(oracle, angle)[0]))
    found = abs(float(spearmanr(made.coordinates[:, 0], angle)[0])) if made.n_components else 0.0
    return {"components": made.n_components, "correlation": found, "oracle": best, "ratio": found / best}


def linear(seed: int) -> dict[str, Any]:
    """A mean, two components, normal coordinates: how often a 95 % set holds the truth, and what variance is stated."""
    row: dict[str, Any] = {}
    for snr in (0.2, 0.05):
        particles, truth = linear_particles(seed, snr)
        made = vg.variability(particles, components=2, contrast=False, **HOW)
        # The components that were found hold no finer data than were used: the truth along them.
        away = made.coordinates - made.coordinates.mean(axis=0) - truth(made)
        inside = np.einsum("na,nab,nb->n", away, np.linalg.inv(made.covariances), away) < chi2.ppf(0.95, 2)
        spread = made.coordinates.var(axis=0) + made.covariances.mean(axis=0).diagonal()
        row[f"coverage_{snr}"] = float(np.mean(inside))
        for q in range(2):
            row[f"variance_ratio_{q + 1}_{snr}"] = float(made.eigenvalues[q] / truth(made)[:, q].var())
            row[f"variance_of_coordinates_{q + 1}_{snr}"] = float(made.eigenvalues[q] / spread[q])
            row[f"correlation_{q + 1}_{snr}"] = float(np.corrcoef(made.coordinates[:, q], truth(made)[:, q])[0, 1])
    return row


def linear_particles(seed: int, snr: float) -> tuple[vg.Particles, Callable[[vg.Variability], np.ndarray]]:
    """Images of a mean and two components, and what gives the true coordinates along the components that were found."""
    rng = np.random.default_rng(seed)
    model = phantom(BOX, PIXEL_A, 130.0, seed=seed)
    states = (model, hinge(model, 30), hinge(model, -25, axis=(0, 1, 0), side=(0, 0, 1)))
    a, b, c = (vg.simulate.density(m, BOX, PIXEL_A).data for m in states)
    components = [vg.Map((b - a) / 2, PIXEL_A), vg.Map((c - a) / 2.5, PIXEL_A)]
    drawn = draw([model], seed)
    z = rng.normal(size=(N, 2))
    images = vg.project(vg.Map((a + b) / 2, PIXEL_A), drawn.poses, drawn.optics)
    for value, component in zip(z.T.astype(np.float32), components, strict=True):
        images += value[:, None, None] * vg.project(component, drawn.poses, drawn.optics)
    images += rng.normal(scale=float(np.sqrt(images.var() / snr)), size=images.shape).astype(np.float32)

    def truth(made: vg.Variability) -> np.ndarray:
        along = np.array([[np.vdot(true.data, m.data) for m in made.components] for true in components])
        return (z - z.mean(axis=0)) @ along

    return drawn.with_source(vg.ArraySource(images, PIXEL_A)), truth


def three_conformations(seed: int) -> vg.Particles:
    """50/30/20 %, SNR 0.05."""
    model = phantom(BOX, PIXEL_A, 130.0, seed=seed)
    states = [model, hinge(model, 40), hinge(model, -45, axis=(0, 1, 0), side=(0, 0, 1))]
    return draw(states, seed, 0.05, populations=(0.5, 0.3, 0.2))


def three(seed: int) -> dict[str, Any]:
    """Three conformations."""
    particles = three_conformations(seed)
    truth = number_of(particles)
    made = vg.classify3d(particles, classes="auto", most_classes=4, poses="fixed", **HOW)
    row: dict[str, Any] = {"classes": made.classes}
    if made.classes != 3:
        made = vg.classify3d(particles, classes=3, poses="fixed", **HOW)
    shares = np.sort(np.bincount(truth) / len(truth))[::-1]
    off = float(np.abs(np.sort(made.shares)[::-1] - shares).max())
    return row | {"accuracy": accuracy(number_of(made.particles), truth), "population_error": off}


def focused(seed: int) -> dict[str, Any]:
    """A small part that is there or not, beside a body that moves."""
    body, small = phantom(BOX, PIXEL_A, 100.0, seed=seed), phantom(BOX, PIXEL_A, 45.0, seed=seed + 1)
    away = Model(small.xyz_A + np.array([0, 0, 58.0]), small.elements, small.weights, small.b_factors_A2)
    moved = hinge(body, 30)
    particles = draw([body, moved, body + away, moved + away], seed)
    truth = number_of(particles) // 2
    mask = vg.Map(np.roll(soft_sphere(BOX, 7, 2), 14, axis=0).astype(np.float32), PIXEL_A)
    wide = HOW | {"diameter_A": 170.0}
    inside = vg.classify3d(particles, classes=2, poses="fixed", mask=mask, **wide)
    everywhere = vg.classify3d(particles, classes=2, poses="fixed", **wide)
    found = [accuracy(number_of(m.particles), truth) for m in (inside, everywhere)]
    return {"focused": found[0], "everywhere": found[1]}


def junk(seed: int) -> dict[str, Any]:
    """Three conformations, and noise alone in three tenths of the images."""
    particles = three_conformations(seed)
    truth, images = number_of(particles), particles.images().copy()
    rng = np.random.default_rng([seed, 2])
    bad = rng.choice(N, 3 * N // 10, replace=False)
    images[bad] = rng.normal(size=(len(bad), BOX, BOX)) * images.std()
    truth[bad] = 3
    given = particles.with_source(vg.ArraySource(images, PIXEL_A))
    made = vg.classify3d(given, classes=3, junk=True, poses="fixed", **HOW)
    good = truth < 3
    return {
        "junk_found": float(np.mean(made.number[~good] == 3)),
        "good_lost": float(np.mean(made.number[good] == 3)),
        "accuracy": accuracy(np.minimum(made.number[good], 2), truth[good]),
    }


def stable(seed: int) -> dict[str, Any]:
    """Three starts, and who stays together."""
    particles = three_conformations(seed)
    truth = number_of(particles)
    made = vg.classify3d(particles, classes=3, repeats=3, poses="fixed", **HOW)
    assert made.stable is not None
    core = accuracy(made.number[made.stable], truth[made.stable])
    return {"stable_share": float(made.stable.mean()), "accuracy": accuracy(made.number, truth), "core_accuracy": core}


def methods(seed: int) -> dict[str, Any]:
    """Components by expectation-maximisation and by the covariance."""
    model = phantom(BOX, PIXEL_A, 130.0, seed=seed)
    particles = draw([hinge(model, a) for a in np.linspace(0, 50, 11)], seed)
    row: dict[str, Any] = {}
    for method in ("em", "covariance"):
        made = vg.variability(particles, most_components=2, method=method, **HOW)
        found = abs(float(spearmanr(made.coordinates[:, 0], number_of(particles))[0])) if made.n_components else 0.0
        row |= {f"correlation_{method}": found, f"gain_{method}": float(made.gains["gain_nats"].iloc[0])}
    return row


def units(seed: int) -> dict[str, Any]:
    """A part more at one of four units."""
    unit, part = phantom(BOX, PIXEL_A, 55.0, seed=seed), phantom(BOX, PIXEL_A, 30.0, seed=seed + 1)
    whole = moved(unit, (26.0, 20.0, 24.0), symmetry_matrices("D2"))
    place = np.array([44.0, 34.0, 40.0])
    particles = draw([whole + moved(part, place, np.eye(3)[None])], seed)
    expanded = vg.expand_symmetry(particles, "D2")
    mask = np.roll(soft_sphere(BOX, 5, 2), np.rint(place[::-1] / PIXEL_A).astype(int), axis=(0, 1, 2))
    wide = HOW | {"diameter_A": 170.0}
    inside = vg.Map(mask.astype(np.float32), PIXEL_A)
    made = vg.classify3d(expanded, classes=2, poses="fixed", mask=inside, **wide)
    assert expanded.poses is not None
    assert particles.poses is not None
    # The copy at the particle's own pose has the part where the mask is.
    angles = expanded.poses.angles_deg.reshape(N, 4, 3)
    turned = np.einsum("nkij,nij->nk", *(euler_to_matrix(a) for a in (angles, particles.poses.angles_deg)))
    own = turned.argmax(axis=1)
    with_part = int(np.argmax([np.vdot(m.data, mask) for m in made.maps]))
    chosen = made.posterior[:, with_part].reshape(N, 4).argmax(axis=1)
    right = (made.number.reshape(N, 4) == with_part) == (np.arange(4) == own[:, None])
    return {"unit_found": float(np.mean(chosen == own)), "copies_right": float(np.mean(right))}


def moved(model: Model, place: Any, matrices: np.ndarray) -> Model:
    """Copies of a model at a place, turned by each of these."""
    copies = [
        Model((model.xyz_A + np.asarray(place)) @ m.T, model.elements, model.weights, model.b_factors_A2)
        for m in matrices
    ]
    made = copies[0]
    for other in copies[1:]:
        made = made + other
    return made


def assembly(seed: int, count: int = 1500) -> dict[str, Any]:
    """A body with and without each of three parts."""
    body = phantom(BOX, PIXEL_A, 90.0, seed=seed)
    parts = [phantom(BOX, PIXEL_A, 45.0, seed=seed + k) for k in (1, 2, 3)]
    places = 56.0 * np.eye(3)
    states = []
    for present in product((1, 0), repeat=3):
        state = body
        for there, part, place in zip(present, parts, places, strict=True):
            state = state + moved(part, place, np.eye(3)[None]) if there else state
        states.append(state)
    populations = (0.30, 0.22, 0.16, 0.12, 0.08, 0.06, 0.04, 0.02)
    particles = vg.simulate.particles(
        states, count, BOX, PIXEL_A, snr=0.1, seed=seed, populations=populations, listener=None
    )
    truth = number_of(particles)
    wide = HOW | {"diameter_A": 165.0}
    made = vg.classify3d(particles, classes=8, poses="fixed", **wide)
    table = migration_matrix(truth, made.number, 8)
    rows, columns = linear_sum_assignment(-table)
    # A state is found if most of its particles are in a class of which they are most.
    own = table[rows, columns]
    found = (own > 0.5 * table.sum(axis=1)) & (own > 0.5 * table.sum(axis=0)[columns])
    row = {"accuracy": float(own.sum() / len(truth)), "states_found": int(found.sum())}
    return row | {"accuracy_of_true_maps": by_true_maps(particles, states, populations)}


def by_true_maps(particles: vg.Particles, states: list[Model], populations: tuple[float, ...]) -> float:
    """Share of particles whose most probable state is the right one if maps and populations are known."""
    posed = posed_images(particles, job="bench", resolution_A=RESOLUTION_A, diameter_A=165.0)
    maps = [resample_to_box(vg.simulate.density(s, BOX, PIXEL_A).data, posed.box) for s in states]
    log = np.zeros((len(posed), len(states)))
    for part in products(posed, np.stack(maps), mean_model(posed, contrast=False).sigma2, np.arange(len(posed))):
        power = np.diagonal(part.gram, axis1=1, axis2=2)
        log[part.batch.rows] = part.cross - power / 2 + np.log(populations)
    return float(np.mean(log.argmax(axis=1) == number_of(particles)))


def assembly_many(seed: int) -> dict[str, Any]:
    """With as many particles as tell eight states apart."""
    return assembly(seed, 6000)


CASES = {
    f.__name__: f
    for f in (null, homogeneous, motion, linear, three, focused, junk, stable, methods, units, assembly, assembly_many)
}


def main() -> None:
    """Run what is not there yet."""
    known = {"verglas": vg.__version__, "particles": N, "box": BOX, "pixel_size_A": PIXEL_A}
    run_cases(__doc__, CASES, RESULT, seeds=10, first_seed=1000, minutes=9.0, **known)


if __name__ == "__main__":
    main()
