"""Starts of classes: guesses from one map, and the particles that choose among them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

import verglas as vg
from verglas.heterogeneity import seeds
from verglas.heterogeneity.proposals import propose_map
from verglas.heterogeneity.seeds import mixture_evidence, seed_search
from verglas.search.problem import Problem
from verglas.simulate import hinge, phantom

BOX, PIXEL_A, DIAMETER_A = 32, 6.0, 140.0


def states():
    model = phantom(BOX, PIXEL_A, 130.0, seed=3)
    return [model, hinge(model, 45)]


def drawn(n, *, snr, seed=0):
    particles = vg.simulate.particles(states(), n, BOX, PIXEL_A, snr=snr, seed=seed, listener=None)
    return particles, particles.table["rlnClassNumber"].to_numpy() - 1


def searched(particles):
    problem = Problem.of(particles, {}, job="test", diameter_A=DIAMETER_A, threads=1)
    return seed_search(problem, 1.0, seed=0)


def test_guess_is_another_map_of_the_same_grey_scale():
    volume = vg.simulate.density(states()[0], BOX, PIXEL_A).data
    noise = np.zeros_like(volume)
    rng = np.random.default_rng(0)
    guesses = [propose_map(volume, DIAMETER_A / PIXEL_A, noise, rng) for _ in range(12)]
    again = propose_map(volume, DIAMETER_A / PIXEL_A, noise, np.random.default_rng(0))
    np.testing.assert_array_equal(again, guesses[0])
    alike = np.array([np.corrcoef(volume.ravel(), g.ravel())[0, 1] for g in guesses])
    assert (alike > 0.2).all()
    assert (alike < 0.99).sum() >= 8
    assert all(0.5 < g.std() / volume.std() < 2 for g in guesses)


def test_mixture_weights_are_those_of_maximum_likelihood():
    rng = np.random.default_rng(1)
    log = rng.normal(scale=4, size=(200, 2))
    value, weight = mixture_evidence(log, passes=200)
    grid = np.linspace(0.01, 0.99, 99)
    scores = [np.log(w * np.exp(log[:, 0]) + (1 - w) * np.exp(log[:, 1])).mean() for w in grid]
    assert abs(weight[0] - grid[int(np.argmax(scores))]) < 0.02
    assert value == pytest.approx(max(scores), abs=1e-3)


def test_iterations_bring_true_maps_and_particles_together(monkeypatch):
    """Under the true maps' classes the score is higher than under one map; a class that says nothing is replaced."""
    particles, truth = drawn(40, snr=1.0)
    search = searched(particles)
    assert search.problem.box == BOX
    assert np.isfinite(search.first_noise).all()
    true = [vg.simulate.density(m, BOX, PIXEL_A).data for m in states()]
    one = search.single(true[0])
    two = search.iterate(replace(one.model, volumes=np.stack(true), class_weight=np.full(2, 0.5)), 1)
    assert two.score > one.score + 1
    wrong = replace(two.model, volumes=np.stack([true[0], np.roll(true[0], 3, axis=0)]))
    monkeypatch.setattr(seeds, "_GUESSES", 1)
    monkeypatch.setattr(seeds, "_SHORT", 1)
    monkeypatch.setattr(seeds.SeedSearch, "_guesses", lambda self, now, count, rng: [true[1]])
    after = search._replace_one(search.iterate(wrong, 1), np.random.default_rng(0))
    table = np.stack([search.evidence(v, one.model.sigma2) for v in after.model.volumes], axis=1)
    number = table.argmax(axis=1)
    assert max(np.mean(np.array(p)[number] == truth) for p in permutations(range(2))) > 0.9


@pytest.mark.slow
def test_two_structures_are_told_apart_from_one_map():
    """Over all poses (those that are known are not used), from one map of the first."""
    particles, truth = drawn(240, snr=0.3, seed=5)
    model = vg.simulate.density(states()[0], BOX, PIXEL_A)
    made = vg.classify3d(particles, model, classes=2, resolution_A=20, diameter_A=DIAMETER_A, listener=None)
    number = made.particles.table["rlnClassNumber"].to_numpy() - 1
    right = max(np.mean(np.array(p)[number] == truth) for p in permutations(range(2)))
    assert right >= 0.95
    assert abs(made.shares.max() - max(truth.mean(), 1 - truth.mean())) < 0.03
