r"""Prior and errors of coordinates, once the components are learned.

Components are regularised in every iteration, which makes them too small: their size is fitted again at the end. And
they are themselves uncertain, which the posterior of a particle's coordinates, given the components, does not know:
each half set has its own components, and how far a particle's coordinates by the one lie from those by the other
measures that. With :math:`z_1, z_2` both readings of a particle, the error of the components' mean adds

.. math:: E\big[(z_1 - z_2)(z_1 - z_2)^T\big] / 4 = C_0 + C_1 |z|^2 / q

to the variance of its reading: :math:`C_0` is what a particle at the mean gets wrong, as a component that is off takes
up other signal and noise, and :math:`C_1` what grows with the coordinates themselves. What is the same for all
particles, a shift of the mean or other units of the components, is no error of one beside another and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from verglas.heterogeneity.components import ComponentModel, change_components, coordinates
from verglas.heterogeneity.landscape import likelihoods
from verglas.heterogeneity.latent import latent_posterior
from verglas.heterogeneity.linear import products
from verglas.heterogeneity.posed import PosedImages
from verglas.types.arrays import FloatArray, IntArray

_MOST_PARTICLES = 4096  # that the size of the components is fitted to
_MOST_STEPS = 200
_BLOCK = 8192  # particles at once
_CONVERGED = 1e-3  # change of a standard deviation in one step
_LEAST_RESPONSE = 0.05  # of a reading's share in a posterior mean


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of every particle, in units in which they are normal with unit variance.

    Attributes
    ----------
    mean : (n, q) float64
        Of the posterior.
    covariance : (n, q, q) float64
        The error of the components included.
    contrast : (n,) float64
    """

    mean: FloatArray
    covariance: FloatArray
    contrast: FloatArray


def calibrate(posed: PosedImages, model: ComponentModel) -> tuple[ComponentModel, Coordinates]:
    """Components of the size that the particles speak for, and coordinates with the error of the components.

    Parameters
    ----------
    posed : PosedImages
    model : ComponentModel
        Of components that regularisation has made small.

    Returns
    -------
    ComponentModel, Coordinates
        The same span, mean and noise; components orthogonal, the largest first.
    """
    if not model.n_components:
        return model, Coordinates(*coordinates(posed, model))
    grown = change_components(model, _size_by_images(posed, model))
    mean, covariance, contrast = coordinates(posed, grown)
    first, second = (coordinates(posed, replace(grown, halves=[half, half]))[0] for half in grown.halves)
    h, information = readings_with_component_errors(mean, covariance, first, second)
    change = _size_by_readings(h, information)
    resized = change_components(grown, change)
    turn = _principal_axes(resized)
    change = change @ turn
    for some in _blocks(len(h)):
        mean[some], information[some] = _posterior(h[some], information[some], change)
    return change_components(resized, turn), Coordinates(mean, information, contrast)  # which are the covariances now


def _principal_axes(model: ComponentModel) -> FloatArray:
    """(q, q) turn of the components that makes the mean of the halves' orthogonal, the largest first."""
    flat = model.volumes[1:].reshape(model.n_components, -1).astype(np.float64)
    return np.asarray(np.linalg.svd(flat @ flat.T)[0], np.float64)


def _blocks(count: int) -> list[slice]:
    """Rows by parts: the steps of a matrix per particle would each hold as much as the covariances of all."""
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]


def _some(count: int) -> IntArray:
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_PARTICLES)).astype(np.int64))


def _size_by_images(posed: PosedImages, model: ComponentModel) -> FloatArray:
    """(q, q) change of the components' mean of both halves that makes images most likely."""
    parts = [(p.gram, p.cross) for p in products(posed, model.volumes, model.sigma2, _some(len(posed)))]
    gram, cross = (np.concatenate(each) for each in zip(*parts, strict=True))
    size = np.eye(1 + model.n_components)

    def spread(change: FloatArray) -> FloatArray:
        size[1:, 1:] = change
        posterior = latent_posterior(size.T @ gram @ size, cross @ size, model.contrasts)
        return posterior.covariance + posterior.mean[:, :, None] * posterior.mean[:, None, :]

    return _most_likely_size(model.n_components, spread)


def _size_by_readings(h: FloatArray, information: FloatArray) -> FloatArray:
    """The same by what is known of each particle's coordinates, the error of the components included."""
    some = _some(len(h))
    h, information = h[some], information[some]

    def spread(change: FloatArray) -> FloatArray:
        mean, covariance = _posterior(h, information, change)
        return covariance + mean[:, :, None] * mean[:, None, :]

    return _most_likely_size(h.shape[1], spread)


def _posterior(h: FloatArray, information: FloatArray, change: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance, under a prior of unit variance, of the coordinates of changed components."""
    covariance = np.linalg.inv(np.eye(len(change)) + change.T @ information @ change)
    mean = np.einsum("nab,nb->na", covariance, h @ change)
    return np.asarray(mean, np.float64), np.asarray(covariance, np.float64)


def _most_likely_size(q: int, spread: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Expectation-maximisation of the covariance of coordinates, which is kept at 1 by changing the components."""
    change = np.eye(q)
    for _ in range(_MOST_STEPS):
        root = np.linalg.cholesky(spread(change).mean(axis=0) + 1e-12 * np.eye(q))
        change = change @ root
        if np.abs(root - np.eye(q)).max() < _CONVERGED:
            break
    return change


def readings_with_component_errors(
    mean: FloatArray, covariance: FloatArray, first: FloatArray, second: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What is known of each particle's coordinates, from its image and of the components, without the prior.

    Parameters
    ----------
    mean, covariance : (n, q), (n, q, q) float64
        Posterior under a prior of unit variance, given the mean of both halves' components.
    first, second : (n, q) float64
        Posterior means given the components of one half.

    Returns
    -------
    (n, q), (n, q, q) float64
        h and P, the likelihood being exp(h z - z P z / 2).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.coordinate_errors import readings_with_component_errors
    >>> z, error = np.random.default_rng(0).normal(size=(2, 2000, 1))
    >>> made = readings_with_component_errors(z, np.full((2000, 1, 1), 0.01), z + 0.2 * error, z - 0.2 * error)
    >>> round(float(1 / made[1].mean()), 2)  # variances of 0.01 and 0.04
    0.05
    """
    n, q = mean.shape
    response = np.eye(q) - covariance.mean(axis=0)
    spread, axes = np.linalg.eigh(response)
    back = (axes / np.maximum(spread, _LEAST_RESPONSE)) @ axes.T
    size = np.square(mean @ back).mean(axis=1)
    constant, growing = _component_variance(mean @ back, (first - second) @ back / 2, size)
    reading, precision = np.empty((n, q)), np.empty((n, q, q))
    for some in _blocks(n):
        h, information = likelihoods(mean[some], covariance[some], np.ones(q))
        damped = np.eye(q) + information @ (constant + size[some, None, None] * growing)
        solved = np.linalg.solve(damped, information)
        precision[some] = (solved + solved.transpose(0, 2, 1)) / 2
        reading[some] = np.linalg.solve(damped, h[:, :, None])[:, :, 0]
    return reading, precision


def _component_variance(reading: FloatArray, away: FloatArray, size: FloatArray) -> tuple[FloatArray, FloatArray]:
    """C_0 and C_1, (q, q), of the components' error, from half the difference of the halves' readings, (n, q)."""
    n = len(reading)
    common = np.column_stack([np.ones(n), reading])
    away = away - common @ np.linalg.lstsq(common, away, rcond=None)[0]
    away *= np.sqrt(n / max(n - common.shape[1], 1))  # what is common was fitted to the same particles
    weights = np.linalg.pinv(np.column_stack([np.ones(n), size]))  # least squares of every element of away away'
    constant, growing = (_without_negative((away * each[:, None]).T @ away) for each in weights)
    return constant, growing


def _without_negative(matrix: FloatArray) -> FloatArray:
    """The nearest matrix without negative eigenvalues."""
    spread, axes = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((axes * np.maximum(spread, 0)) @ axes.T, np.float64)
