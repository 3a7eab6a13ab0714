r"""Classes of particles at known poses by expectation-maximisation, two half sets apart, one noise model.

.. math:: \gamma_{ik} \propto \pi_k \int p(a) \exp\Bigl(-\sum_k \frac{|X_i - a C_i P_i V_k|^2}{2\sigma^2}\Bigr) da

With a mask, maps differ inside it only: outside, all of them are the mean of all particles. What the images show of the
rest then has no part in the decision, as if it had been subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from verglas.heterogeneity.components import (
    ComponentModel,
    held_out_evidence,
    held_out_information,
    learn_components,
    mean_model,
)
from verglas.heterogeneity.latent import Contrasts
from verglas.heterogeneity.linear import Products, half_volumes, noise_from, one_pass, products
from verglas.heterogeneity.migration import migration_matrix
from verglas.heterogeneity.point_mixture import fit_points
from verglas.heterogeneity.posed import PosedImages
from verglas.types.arrays import Float32Array, FloatArray, IntArray, any_arrays
from verglas.types.listener import Listener, phase_progress

_STILL = 0.005  # particles that may still change class when it ends
_MOST_AXES = 4
_START_PASSES = 12
_LEAST_WEIGHT = 1e-4


@dataclass
class HalfClasses:
    """What one half set has taught.

    Attributes
    ----------
    volumes : (K, N, N, N) float32
    class_weight : (K,) float64
    contrasts : Contrasts
    """

    volumes: Float32Array
    class_weight: FloatArray
    contrasts: Contrasts


@dataclass
class FixedClasses:
    """Classes at known poses.

    Attributes
    ----------
    halves : list of HalfClasses
        Two.
    sigma2 : (groups, radius + 1) float64
    fsc : (K, radius + 1) float64
        Between the halves.
    posterior : (n, K) float64
        Of every particle under its own half's maps.
    iterations : int
        Made.
    migration : (K, K) int64, optional
        Particles of each class before the last iteration in each class after it.
    """

    halves: list[HalfClasses]
    sigma2: FloatArray
    fsc: FloatArray
    posterior: FloatArray
    iterations: int
    migration: IntArray | None = None

    @property
    def volumes(self) -> Float32Array:
        """(K, N, N, N) mean of the halves."""
        return np.asarray((self.halves[0].volumes + self.halves[1].volumes) / 2, np.float32)

    @property
    def class_weight(self) -> FloatArray:
        """(K,) mean of the halves."""
        return (self.halves[0].class_weight + self.halves[1].class_weight) / 2


def class_log_evidence(gram: FloatArray, cross: FloatArray, contrasts: Contrasts) -> tuple[FloatArray, FloatArray]:
    """Log evidence (m, K) of each class over contrasts, and the posterior of the contrasts (m, K, A) in each."""
    a = contrasts.values
    power = np.diagonal(gram, axis1=1, axis2=2)
    log = a * cross[:, :, None] - a**2 / 2 * power[:, :, None] + contrasts.log_prior
    evidence = logsumexp(log, axis=2)
    return evidence, np.exp(log - evidence[:, :, None])


class _ClassMoments:
    """Moments of one half set's images, with what the next weights and contrasts are made from."""

    def __init__(self, half: HalfClasses, posterior: FloatArray, *, given: bool) -> None:
        self.half, self.posterior, self.given = half, posterior, given
        self.contrast = np.zeros(len(half.contrasts.values))

    def __call__(self, made: Products) -> tuple[FloatArray, FloatArray]:
        rows, a = made.batch.rows, self.half.contrasts.values
        if self.given:
            gamma = self.posterior[rows]
            first = second = gamma
        else:
            evidence, weight = class_log_evidence(made.gram, made.cross, self.half.contrasts)
            log = evidence + np.log(self.half.class_weight)
            gamma = np.exp(log - logsumexp(log, axis=1, keepdims=True))
            self.posterior[rows] = gamma
            self.contrast += np.einsum("ik,ika->a", gamma, weight)
            first, second = gamma * (weight @ a), gamma * (weight @ a**2)
        full = np.zeros((*gamma.shape, gamma.shape[1]))
        diagonal = np.arange(gamma.shape[1])
        full[:, diagonal, diagonal] = second
        return first, full


def iterate_classes(
    posed: PosedImages, model: FixedClasses, *, mask: Float32Array | None = None, T: float = 1.0, given: bool = False
) -> FixedClasses:
    """One iteration; with ``given`` the posteriors stay, and maps are made from them.

    Parameters
    ----------
    posed : PosedImages
    model : FixedClasses
        Not changed.
    mask : (N, N, N) float32, optional
        Where maps may differ; everywhere without.
    T : float
        Factor of the prior's variance.
    given : bool
    """
    count = len(model.halves[0].volumes)
    posterior = model.posterior.copy()
    moments = [_ClassMoments(h, posterior, given=given) for h in model.halves]
    sums = []
    for number, (half, each) in enumerate(zip(model.halves, moments, strict=True), 1):
        rows = posed.rows_of_half(number)
        sums.append(one_pass(posed, half.volumes, model.sigma2, rows, each, [posed.radius] * count, mixed=False))
    volumes, curves = half_volumes(posed, sums, posed.sphere, T=T)
    halves = []
    for number, (made, each) in enumerate(zip(volumes, moments, strict=True), 1):
        share = posterior[posed.rows_of_half(number)].mean(axis=0)
        share = np.maximum(share, _LEAST_WEIGHT) / np.maximum(share, _LEAST_WEIGHT).sum()
        if mask is not None:
            mean = np.einsum("k,kzyx->zyx", share, made)
            made = (mean + mask * (made - mean)).astype(np.float32)
        contrasts, factor = each.half.contrasts, 1.0
        if not given:
            contrasts, factor = contrasts.learn(each.contrast)
        halves.append(HalfClasses(made * np.float32(factor), share, contrasts))
    sigma2 = model.sigma2 if given else noise_from(sums, model.sigma2)
    return FixedClasses(halves, sigma2, curves, posterior, model.iterations + 1)


def classes_of(posed: PosedImages, mean: ComponentModel, posterior: FloatArray, *, T: float = 1.0) -> FixedClasses:
    """Maps from given posteriors (n, K), with the noise of a mean model."""
    count = posterior.shape[1]
    empty = np.zeros((count, posed.box, posed.box, posed.box), np.float32)
    halves = [HalfClasses(empty, np.full(count, 1 / count), h.contrasts) for h in mean.halves]
    blank = FixedClasses(halves, mean.sigma2, np.zeros((count, posed.radius + 1)), posterior, -1)
    return iterate_classes(posed, blank, T=T, given=True)


def first_posterior(
    posed: PosedImages, mean: ComponentModel, count: int, *, seed: int = 0, iterations: int = _START_PASSES
) -> tuple[FloatArray, bool]:
    """(n, K): classes of particles where they differ most; and whether anything was there to tell them by.

    Points in the space of the leading components (:func:`verglas.heterogeneity.point_mixture.fit_points`) at these
    poses; every particle is judged by the components of the other half set, which hold nothing of its own noise. A
    random split, which knows nothing of the differences, takes expectation-maximisation many more iterations, and may
    never be left.
    """
    axes = min(count - 1, _MOST_AXES)
    model = learn_components(posed, mean, axes, iterations=iterations, seed=seed)
    # Components that explain nothing in the other half are noise, and so are classes along them.
    differs = bool(np.diff(held_out_evidence(posed, model)[:, [0, -1]], axis=1).sum() > 0)
    if differs:
        h, information = held_out_information(posed, model)
        mixture = fit_points(h, information, count, posed.half, seed=seed)
        if mixture is not None:
            return mixture.posterior(h, information), True
    chosen = np.random.default_rng(seed).integers(count, size=len(posed))
    return np.eye(count)[chosen], False


@any_arrays
def fit_classes(
    posed: PosedImages,
    count: int,
    *,
    start: FloatArray | None = None,
    mean: ComponentModel | None = None,
    mask: Float32Array | None = None,
    contrast: bool = True,
    iterations: int = 25,
    T: float = 1.0,
    seed: int = 0,
    listener: Listener | None = None,
) -> FixedClasses:
    """K classes at known poses, from posteriors that are given or from a split along the leading components.

    Parameters
    ----------
    posed : PosedImages
    count : int
        Classes.
    start : (n, K) float64, optional
        Posteriors to begin with.
    mean : ComponentModel, optional
        Mean and noise (:func:`verglas.heterogeneity.components.mean_model`), if they are known.
    mask : (N, N, N) float32, optional
        Where the classes may differ.
    contrast : bool
        Estimate a contrast per particle.
    iterations : int
        At most.
    T : float
        Factor of the prior's variance.
    seed : int
        Of the start.
    listener : Listener, optional
        Is told how many iterations are done.
    """
    if mean is None:
        mean = mean_model(posed, contrast=contrast, mask=mask)
    posterior = first_posterior(posed, mean, count, seed=seed)[0] if start is None else start
    model = classes_of(posed, mean, posterior, T=T)
    if mask is not None:
        model = _focus(model, mask)
    tell = phase_progress(listener, f"{count} classes, iterations")
    for number in range(iterations):
        before = model.posterior.argmax(axis=1)
        model = iterate_classes(posed, model, mask=mask, T=T)
        after = model.posterior.argmax(axis=1)
        model = replace(model, migration=migration_matrix(before, after, count))
        tell(number + 1, iterations)
        if np.mean(before != after) <= _STILL:
            break
    return model


def _focus(model: FixedClasses, mask: Float32Array) -> FixedClasses:
    halves = []
    for half in model.halves:
        mean = np.einsum("k,kzyx->zyx", half.class_weight, half.volumes)
        halves.append(replace(half, volumes=(mean + mask * (half.volumes - mean)).astype(np.float32)))
    return replace(model, halves=halves)


def held_out_class_evidence(
    posed: PosedImages, model: FixedClasses, sigma2: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Log evidence (n,) and class posterior (n, K) of every particle under the other half's maps.

    The particles may be more than those that the model was made of, if their half sets are the same.
    Evidence leaves out what depends on the noise alone: it compares models of one ``sigma2`` only, such as that of the
    mean model, and not each model's own, which falls with every class that is added.
    """
    log, posterior = np.zeros(len(posed)), np.zeros((len(posed), len(model.volumes)))
    for number in (1, 2):
        other = model.halves[2 - number]
        for made in products(posed, other.volumes, sigma2, posed.rows_of_half(number)):
            evidence = class_log_evidence(made.gram, made.cross, other.contrasts)[0] + np.log(other.class_weight)
            rows = made.batch.rows
            log[rows] = logsumexp(evidence, axis=1)
            posterior[rows] = np.exp(evidence - log[rows, None])
    return log, posterior


@any_arrays
def population_errors(posterior: FloatArray) -> tuple[FloatArray, FloatArray]:
    r"""Share of each class, and its standard error, from posteriors.

    The error is that of maximum likelihood in a mixture of known components: with :math:`g_{ik} = \gamma_{ik}/\pi_k`
    the information is :math:`\sum_i g_i g_i^T` on the plane where changes sum to zero; classes that overlap are known
    worse than :math:`\sqrt{\pi (1 - \pi) / n}`.

    Parameters
    ----------
    posterior : (n, K) float64

    Returns
    -------
    (K,), (K,) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.fixed_classes import population_errors
    >>> share, error = population_errors(np.repeat([[1.0, 0.0], [0.0, 1.0]], 50, axis=0))
    >>> share.tolist(), error.round(6).tolist()
    ([0.5, 0.5], [0.05, 0.05])
    """
    share = posterior.mean(axis=0)
    count = len(share)
    if count == 1:
        return share, np.zeros(1)
    g = posterior / np.maximum(share, 1e-9)
    plane = np.linalg.svd(np.ones((1, count)))[2][1:].T
    information = plane.T @ (g.T @ g) @ plane
    covariance = plane @ np.linalg.pinv(information) @ plane.T
    return share, np.sqrt(np.maximum(np.diag(covariance), 0))
