r"""Deterministic annealing of orientations under a prior that similar averages are seen from similar directions.

.. math:: p(\theta) \propto \exp\Big(-\lambda \sum_{ij} s_{ij} \alpha_{ij}^2\Big)

:math:`\alpha_{ij}` the angle between the viewing directions of averages i and j, :math:`s_{ij}` their likeness (Jaitly
et al. 2010, J. Struct. Biol. 171, 366-376). Every average has a probability for each direction; the temperature at
which likelihoods become probabilities falls, so that no average settles before the map has some shape.
"""

from __future__ import annotations

import numpy as np

from verglas.initial_model.averages.matching import draw_blobs, low_radius
from verglas.initial_model.averages.views import Views, rotational_correlation
from verglas.types.arrays import Float32Array, FloatArray

_TEMPERATURES = (12.0, 1.0)
_STEPS = 16
_NEIGHBOURS = 3
_SMOOTHNESS = 1.0  # lambda times the likeness of the likest: nats per squared radian
_ORDER = 2
_LEAST = 1e-3  # of an average's probability; poses with less are left out


def squared_angles(directions: FloatArray) -> FloatArray:
    """Squared angles between unit vectors, radian^2."""
    return np.asarray(np.arccos(np.clip(directions @ directions.T, -1, 1)) ** 2)


def likeness_of(views: Views) -> FloatArray:
    """Of every average to its likest others, at the best in-plane turn; symmetric, zero elsewhere."""
    best = rotational_correlation(views.features, views.features, views.polar.n_theta).max(axis=0).astype(np.float64)
    np.fill_diagonal(best, -np.inf)
    count = min(_NEIGHBOURS, len(best) - 1)
    near = np.argsort(-best, axis=1, kind="stable")[:, :count]
    out = np.zeros_like(best)
    np.put_along_axis(out, near, np.maximum(np.take_along_axis(best, near, axis=1), 0.0), axis=1)
    return (out + out.T) / 2


def anneal_directions(
    views: Views, rng: np.random.Generator, temperatures: tuple[float, float] = _TEMPERATURES
) -> Float32Array:
    """A map whose averages spread over directions by falling temperatures, smoothly from one to its likest."""
    low, likeness = low_radius(views), likeness_of(views)
    volume = draw_blobs(views, rng)
    probability: FloatArray | None = None
    for temperature in np.geomspace(*temperatures, _STEPS):
        slices = views.slices(volume, _ORDER)
        squared = squared_angles(slices.matrices[:, 2])
        correlation = views.correlations(slices, low)
        turn, best = correlation.argmax(axis=0), correlation.max(axis=0).astype(np.float64)
        # Of a picture with its scale and noise fitted: -K / 2 log(1 - c^2).
        log_likelihood = -0.5 * views.independent * np.log1p(-(np.clip(best, 0, 0.999) ** 2))
        energy = log_likelihood
        if probability is not None:
            energy = energy - 2 * _SMOOTHNESS * likeness @ probability @ squared
        # The prior is tempered with the likelihood: alone at a high temperature it would put all averages in one place.
        energy = energy / temperature
        probability = np.exp(energy - energy.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        rows, which = np.nonzero(probability > _LEAST)
        volume = views.map(views.rotate_in_plane(slices, which, turn[rows, which]), rows, probability[rows, which])
    return volume
