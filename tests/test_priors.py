"""Proximal operators against their closed forms and against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

import verglas as vg
from verglas.reconstruction import priors

SINGLE = [priors.Quadratic(2.0, 0.5), priors.L1(0.7), priors.Huber(1.5, 0.4), priors.Student(0.8, 0.6, 2.0)]
SINGLE += [priors.TwoValues(-1.0, 2.0, 0.7)]


@pytest.mark.parametrize("prior", SINGLE)
@given(v=st.floats(-5, 5), step=st.floats(0.01, 5))
@settings(max_examples=40, deadline=None)
def test_prox_is_the_minimiser(prior, v, step):
    def cost(x):
        return 0.5 * (x - v) ** 2 + step * prior.value(np.array([x]))

    found = float(prior.prox(np.array([v]), step)[0])
    # coarse, for other valleys; the own one is searched finely
    assert cost(found) <= min(cost(x) for x in np.linspace(-6, 6, 201)) + 1e-6
    near = minimize_scalar(cost, bounds=(found - 0.1, found + 0.1), method="bounded").fun
    assert cost(found) <= near + 1e-7


def test_closed_forms():
    v = np.array([-2.0, 0.3, 4.0])
    np.testing.assert_allclose(priors.Quadratic(1 / 0.25).prox(v, 1.0), v / (1 + 4), rtol=1e-12)
    np.testing.assert_allclose(priors.L1(1.0).prox(v, 0.5), [-1.5, 0.0, 3.5])
    np.testing.assert_allclose(priors.soft(np.array([3 + 4j]), 1.0), [(3 + 4j) * 0.8])


@pytest.mark.parametrize("shape", [(7,), (5, 4), (3, 4, 2), (1, 6)])
def test_divergence_is_minus_the_transpose_of_the_gradient(shape):
    rng = np.random.default_rng(1)
    x, p = rng.normal(size=shape), rng.normal(size=(len(shape), *shape))
    for axis in range(len(shape)):  # the gradient is zero there, so p there must not matter
        index = [slice(None)] * len(shape)
        index[axis] = slice(-1, None)
        p[axis][tuple(index)] = 0
    assert (priors.gradient(x) * p).sum() == pytest.approx(-(x * priors.divergence(p)).sum(), abs=1e-12)


@pytest.mark.parametrize("isotropic", [True, False])
def test_total_variation_prox(isotropic):
    rng = np.random.default_rng(2)
    v = rng.normal(size=(3, 4))
    prior = priors.TotalVariation(0.7, isotropic, iterations=3000, tolerance=1e-12)

    def cost(x):
        return 0.5 * np.sum((x.reshape(3, 4) - v) ** 2) + 0.5 * prior.value(x.reshape(3, 4))

    found = prior.prox(v, 0.5)
    best = min(
        minimize(cost, start, method="Powell", options={"maxiter": 40000, "xtol": 1e-10, "ftol": 1e-14}).fun
        for start in (v.ravel(), found.ravel())
    )
    assert cost(found.ravel()) <= best + 1e-6


def test_total_variation_flattens_noise_and_keeps_the_mean():
    rng = np.random.default_rng(3)
    v = np.repeat(np.repeat(np.array([[0.0, 1.0], [2.0, 0.0]]), 8, 0), 8, 1)
    noisy = v + 0.2 * rng.normal(size=v.shape)
    made = priors.TotalVariation(1.0).prox(noisy, 0.3)
    assert made.mean() == pytest.approx(noisy.mean(), abs=1e-9)
    assert np.abs(made - v).mean() < 0.4 * np.abs(noisy - v).mean()


def test_wavelets_are_unitary():
    prior = priors.WaveletL1(1.0, "db2", levels=2)
    v = np.random.default_rng(4).normal(size=(16, 16))
    np.testing.assert_allclose(prior.prox(v, 0.0), v, atol=1e-12)
    made = prior.prox(v, 0.4)
    assert prior.value(made) < prior.value(v)
    other = made + 1e-3 * np.random.default_rng(5).normal(size=(16, 16))

    def cost(x):
        return 0.5 * np.sum((x - v) ** 2) + 0.4 * prior.value(x)

    assert cost(made) < cost(other)


@pytest.mark.parametrize("shape", [(9, 8), (8, 9), (4, 6, 5)])
def test_the_fourier_prior_is_wieners_filter(shape):
    rng = np.random.default_rng(6)
    v = rng.normal(size=shape)
    variance = rng.uniform(0.1, 2, size=(*shape[:-1], shape[-1] // 2 + 1))
    spectrum = np.fft.rfftn(v, norm="ortho") * variance / (variance + 0.7)
    expected = np.fft.irfftn(spectrum, s=shape, norm="ortho", axes=range(len(shape)))
    np.testing.assert_allclose(priors.FourierGaussian(variance).prox(v, 0.7), expected, atol=1e-12)


@pytest.mark.parametrize("box", [6, 7])
def test_sets_are_projections(box):
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, box, box, box))
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    group = tuple(np.linalg.matrix_power(quarter.astype(int), k).astype(float) for k in range(4))
    mask = (rng.random((box, box, box)) > 0.4).astype(float)
    for prior in (priors.NonNegative(), priors.Support(mask), priors.Symmetric(group)):
        once = prior.prox(a, 1.0)
        if box % 2 or not isinstance(prior, priors.Symmetric):
            np.testing.assert_allclose(prior.prox(once, 1.0), once, atol=1e-12)
            assert prior.value(once) == 0
            assert np.linalg.norm(prior.prox(a, 1) - prior.prox(b, 1)) <= np.linalg.norm(a - b) + 1e-12


def test_refusals():
    with pytest.raises(vg.InputError, match="weight: expected a positive number, got -1"):
        priors.L1(-1)
    with pytest.raises(vg.InputError, match=r"the lower first, got 1\.0 and 0\.0"):
        priors.TwoValues(1.0, 0.0)
    with pytest.raises(vg.InputError, match="soft mask is no convex set"):
        priors.Support(np.array([0.0, 0.5]))
    with pytest.raises(vg.InputError, match="do not permute the axes"):
        priors.Symmetric((np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]),))
    with pytest.raises(vg.InputError, match="orthogonal one"):
        priors.WaveletL1(1.0, "bior2.2").prox(np.zeros((8, 8)), 1.0)
