"""Debye's sum, Guinier's law, Wilson's statistics, the thermal model, and how far models lie apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas.assessment import (
    b_factor_of_displacement,
    debye_power,
    fit_radius_of_gyration,
    model_variability_A,
    radius_of_gyration_A,
    wilson_moments,
)
from verglas.types.atoms import Atoms


def molecule(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) * [12, 8, 5], rng.choice([6.0, 7.0, 8.0], n)


def transform(xyz: np.ndarray, weights: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.exp(-2j * np.pi * k @ xyz.T) @ weights


def test_debye_sum_is_the_mean_over_directions():
    xyz, weights = molecule(60)
    directions = Rotation.random(8000, random_state=1).as_matrix()[:, 0]
    for s in (0.01, 0.03, 0.1):
        direct = np.mean(np.abs(transform(xyz, weights, s * directions)) ** 2)
        assert debye_power(xyz, [s], weights)[0] == pytest.approx(direct, rel=0.03)
    assert debye_power(xyz, [0.0], weights)[0] == pytest.approx(weights.sum() ** 2)


def test_guinier_gives_the_radius_of_the_atoms():
    xyz, weights = molecule(400)
    true_A = radius_of_gyration_A(xyz, weights)
    s = np.linspace(1e-4, 0.4 / (2 * np.pi * true_A), 8)
    assert fit_radius_of_gyration(s, debye_power(xyz, s, weights))[0] == pytest.approx(true_A, rel=0.01)
    with pytest.raises(vg.InputError, match="does not fall"):
        fit_radius_of_gyration(s, np.linspace(1, 2, 8))


def test_wilson_moments_of_random_atoms():
    rng = np.random.default_rng(2)
    weights = rng.choice([6.0, 7.0, 8.0], 120)
    power = np.abs(np.exp(2j * np.pi * rng.random((40000, 120))) @ weights) ** 2
    expected = wilson_moments(weights)
    assert power.mean() == pytest.approx(expected.mean, rel=0.03)
    assert power.var() == pytest.approx(expected.variance, rel=0.03)


def test_atoms_that_tremble_have_their_b_factor():
    """Displacements of 0.5 A along each axis: the mean transform falls as exp(-2 pi^2 sigma^2 s^2)."""
    rng, sigma_A, s = np.random.default_rng(3), 0.5, 0.25
    phases = np.exp(-2j * np.pi * s * rng.normal(scale=sigma_A, size=200_000))
    expected = np.exp(-b_factor_of_displacement(sigma_A) * s**2 / 4)
    assert abs(phases.mean()) == pytest.approx(expected, rel=0.01)


def test_models_of_other_atoms_are_refused():
    def model(xyz, name="ALA"):
        n = len(xyz)
        return Atoms(xyz, ["C"] * n, ["CA"] * n, [name] * n, ["A"] * n, range(n), [1] * n, [30] * n)

    rng = np.random.default_rng(4)
    xyz = rng.uniform(0, 30, (50, 3))
    spread = model_variability_A([model(xyz + rng.normal(scale=0.4, size=xyz.shape)) for _ in range(60)])
    assert spread.mean() == pytest.approx(0.4 * np.sqrt(3), rel=0.05)
    with pytest.raises(vg.InputError, match="other atoms"):
        model_variability_A([model(xyz), model(xyz, "GLY")])
    with pytest.raises(vg.InputError, match="two models or more"):
        model_variability_A([model(xyz)])
    with pytest.raises(vg.InputError, match="weights of a positive sum"):
        debye_power(xyz, [0.1], [1.0])
