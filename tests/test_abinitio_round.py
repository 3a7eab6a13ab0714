"""Nearly round particles: agreement without the sphere, the sign of what is not round, the contest of point groups."""

from dataclasses import replace

import numpy as np
import pytest
from abinitio_runs import drawn_problem

import verglas as vg
from verglas.initial_model.consensus import aspherical_fsc, compare
from verglas.initial_model.contest import _winner, contest
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.sign import better_sign, twin
from verglas.initial_model.starts import Start, evaluate_held_out
from verglas.map_geometry.map_alignment import turned_map
from verglas.map_geometry.sphere import aspherical_part, spherical_average
from verglas.search.state import HalfModel, PoseTable

BOX, PIXEL_A, DIAMETER_A = 32, 5.0, 110.0
SETTINGS = AbInitioSettings(diameter_A=125.0, final_resolution_A=20.0, full_iterations=1)
HELD = np.arange(0, 120, 4)


def round_map(symmetry="C1", share=0.3, seed=0):
    """A shell, of which a group's pattern is a small part."""
    volume = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry, seed=seed), BOX, PIXEL_A).data
    flat = aspherical_part(volume)
    n = (np.arange(BOX) - BOX // 2) * PIXEL_A
    radius = np.sqrt(n[:, None, None] ** 2 + n[:, None] ** 2 + n**2)
    shell = np.exp(-(((radius - 40) / 8) ** 2)) * np.abs(flat).max()
    scale = share * np.sqrt((shell**2).sum() / (flat**2).sum())
    return vg.Map((shell + scale * flat).astype(np.float32), PIXEL_A)


def images_of(volume, snr, n=120):
    angles = vg.geometry.random_orientations(n, 3)
    clean = vg.project(volume, vg.Poses(angles))
    noise = np.random.default_rng(2).standard_normal(clean.shape) * np.sqrt(clean.var() / snr)
    optics = vg.simulate.particles(vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A), 4, BOX, PIXEL_A, seed=0).optics
    return vg.Particles.from_images((clean + noise).astype(np.float32), PIXEL_A, optics=optics[np.arange(n) % 4])


def started(volume, problem, sigma2, symmetry="C1"):
    model = HalfModel(np.asarray(volume, np.float32)[None], sigma2.copy(), np.ones(1), np.ones(1))
    scale = np.ones(int(problem.micrograph.max()) + 1)
    return Start(0, replace(model, scale=scale), PoseTable.unknown(len(problem)), np.zeros(1), np.zeros((1, 17)))


def evaluated(start, problem):
    """With the evidence that a finished start has."""
    return replace(start, evidence=evaluate_held_out(problem, SETTINGS, start.model, HELD, start.model.sigma2))


@pytest.mark.slow
def test_two_shells_with_other_patterns_do_not_agree():
    one, two = round_map(seed=0), round_map(seed=1)
    assert vg.fsc(one, two).curve[1:4].min() > 0.8
    assert aspherical_fsc(one, two).curve[3:6].max() < 0.2
    turned = turned_map(one.data, vg.euler_to_matrix([[30.0, 50.0, 10.0]])[0])
    particles = images_of(one, 1.0, 60)
    problem, sigma2 = drawn_problem(particles, SETTINGS)
    first, again, other = (started(v, problem, sigma2) for v in (one.data, turned, two.data))
    assert compare(problem, first, again, 8).agreement_A < 1.4 * 20
    assert compare(problem, first, other, 8).agreement_A > 1.4 * 20


def test_spherical_maps_without_anything_else_keep_the_ordinary_fsc():
    sphere = vg.Map(spherical_average(round_map().data), PIXEL_A)
    assert aspherical_fsc(sphere, sphere).curve[:8] == pytest.approx(np.ones(8))


@pytest.mark.parametrize("right", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_sign_that_explains_held_out_particles_is_kept(right):
    truth = round_map(share=1.0)
    problem, sigma2 = drawn_problem(images_of(truth, 0.5), SETTINGS)
    volume = truth.data if right else twin(truth.data)
    first = evaluated(started(volume, problem, sigma2), problem)
    found = better_sign(problem, SETTINGS, first, HELD)
    assert np.corrcoef(aspherical_part(found.model.volumes[0]).ravel(), aspherical_part(truth.data).ravel())[0, 1] > 0.5


def test_a_sharp_map_has_no_twin():
    truth = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A), BOX, PIXEL_A)
    problem, sigma2 = drawn_problem(images_of(truth, 5.0), SETTINGS)
    first = evaluated(started(truth.data, problem, sigma2), problem)
    assert better_sign(problem, SETTINGS, first, HELD) is first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("true", "groups"),
    [
        ("O", ("C1", "O")),
        ("O", ("C1", "O", "T")),  # a subgroup that is more than none
        ("C1", ("C1", "O", "T")),
    ],
)
def test_the_group_that_explains_held_out_particles_wins(true, groups):
    truth = round_map(true, 0.6)
    problem, sigma2 = drawn_problem(images_of(truth, 0.5), SETTINGS)
    others = {group: round_map(group, 0.6, seed=5) for group in groups}
    entrants = {g: started((truth if g == true else v).data, problem, sigma2) for g, v in others.items()}
    told = []
    result = contest(problem, SETTINGS, sigma2, entrants, HELD, lambda done, total: told.append((done, total)))
    assert result.winner == true
    assert max(result.evidence, key=result.evidence.get) == true
    assert told[-1] == (5 * len(entrants),) * 2
    assert ("O leads C1 by" in result.sentence) == (true == "O")


def test_the_larger_of_two_groups_that_explain_as_much():
    rng = np.random.default_rng(0)
    base = rng.normal(10, 3, 100)
    near = {"C1": base - 1, "T": base + 0.01, "O": base + rng.normal(0, 0.1, 100), "I": base - 2}
    assert _winner(near) == "O"
    assert _winner({**near, "T": base + 1}) == "T"
    assert _winner({**near, "C1": base + rng.normal(0, 1, 100)}) is None
    assert _winner({**near, "C1": base + 1}) == "C1"
