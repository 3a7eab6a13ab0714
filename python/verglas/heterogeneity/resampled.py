"""What maps of many random choices of the particles differ by: variance by bootstrap, and a landscape of class maps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verglas.errors import InputError
from verglas.heterogeneity.components import ComponentModel, mean_model
from verglas.heterogeneity.fixed_classes import fit_classes
from verglas.heterogeneity.latent import latent_posterior
from verglas.heterogeneity.linear import LinearSums, fold, products, solve
from verglas.heterogeneity.posed import PosedImages
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.display import one_line
from verglas.types.listener import Listener, phase_progress

_AT_A_TIME = 8  # maps of one pass
_FEWEST_MAPS = 10
_OUTSIDE = 0.01
_FEWEST_OF_CLASS = 5.0


@one_line
@dataclass(frozen=True, eq=False)
class BootstrapVariance:
    """Variance of the structure at every voxel.

    Attributes
    ----------
    variance : Map
        Of one particle's density, noise taken away; about 0 where nothing varies.
    error : Map
        Its standard error: that of a variance from so many maps.
    draws : int
    """

    variance: Map
    error: Map
    draws: int


def bootstrap_variance(
    posed: PosedImages, *, draws: int = 50, contrast: bool = False, seed: int = 0, listener: Listener | None = None
) -> BootstrapVariance:
    r"""Variance of maps from particles drawn with replacement, less that of noise that is drawn likewise.

    .. math:: \sigma^2_{structure}(r) = n \, \bigl[ \mathrm{Var}_b\, V_b(r) - \mathrm{Var}_b\, N_b(r) \bigr]

    with :math:`V_b` a map of draw b and :math:`N_b` one of images of noise, with the CTFs and poses of the data and of
    such power that both variances agree outside the particle (Penczek et al. 2006, J. Struct. Biol. 154, 168-183).
    Maps are of residuals, images less projections of the mean map at each one's contrast, so that an uneven choice of
    views does not count.

    Parameters
    ----------
    posed : PosedImages
    draws : int
        Maps.
    contrast : bool
        Estimate a contrast per particle.
    seed : int
    listener : Listener, optional
        Is told how many maps are made.

    Raises
    ------
    InputError
        Fewer than 10 draws.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.heterogeneity import bootstrap_variance, posed_images
    >>> model = vg.simulate.phantom(24, 6.0, 100.0)
    >>> p = vg.simulate.particles(model, 40, 24, 6.0, snr=0.5, seed=1, listener=None)
    >>> found = bootstrap_variance(posed_images(p, job="bootstrap", resolution_A=30.0), draws=10)
    >>> found.draws, bool((found.error.data >= 0).all())
    (10, True)
    """
    if draws < _FEWEST_MAPS:
        raise InputError(f"bootstrap_variance: {draws} draws; a variance takes {_FEWEST_MAPS} or more")
    mean = mean_model(posed, contrast=contrast)
    rng = np.random.default_rng(seed)
    n = len(posed)
    moments = np.zeros((2, 2, *mean.volumes[0].shape))  # of data and noise; sum, sum of squares
    tell = phase_progress(listener, "maps of drawn particles")
    for begin in range(0, draws, _AT_A_TIME):
        count = min(_AT_A_TIME, draws - begin)
        weights = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(count)], axis=1)
        made = _drawn_maps(posed, mean, weights.astype(np.float64), rng)
        for kind in (0, 1):
            moments[kind, 0] += made[kind].sum(axis=0, dtype=np.float64)
            moments[kind, 1] += np.square(made[kind], dtype=np.float64).sum(axis=0)
        tell(begin + count, draws)
    spread = (moments[:, 1] - np.square(moments[:, 0]) / draws) / (draws - 1)
    sphere = posed.sphere
    outside = sphere < _OUTSIDE
    if outside.any():  # what varies in the particle is in the noise that was estimated, and must not be taken away
        spread[1] *= spread[0][outside].mean() / spread[1][outside].mean()
    error = np.sqrt(2 / (draws - 1)) * np.hypot(spread[0], spread[1])
    variance, error_of = (
        Map((n * values * sphere).astype(np.float32), posed.pixel_size_A) for values in (spread[0] - spread[1], error)
    )
    return BootstrapVariance(variance, error_of, draws)


def _drawn_maps(
    posed: PosedImages, mean: ComponentModel, weights: FloatArray, rng: np.random.Generator
) -> list[Float32Array]:
    """Maps (draws, N, N, N) of residuals, and of noise in their place."""
    count = weights.shape[1]
    both = [LinearSums.zeros(posed, count, mixed=False) for _ in range(2)]
    diagonal = np.arange(count)
    root, contrasts = np.sqrt(mean.sigma2), mean.contrasts
    for made in products(posed, mean.volumes[:1], mean.sigma2, np.arange(len(posed))):
        batch, w = made.batch, weights[made.batch.rows]
        a = latent_posterior(made.gram, made.cross, contrasts).first
        second = np.zeros((len(w), count, count))
        second[:, diagonal, diagonal] = w * a**2
        scale = np.sqrt(batch.shell_weight[:, posed.pixel_shells] * posed.pixel_weights.astype(np.float32))
        residual = np.zeros_like(batch.images)
        residual.reshape(len(batch), -1)[:, posed.pixels] = (
            made.images - a.astype(np.float32) * made.slices[:, 0]
        ) / scale
        # E |n|^2 is sigma^2: half of it each in the real and the imaginary part.
        drawn = rng.standard_normal((*made.images.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        size = root[posed.group[batch.rows]][:, posed.pixel_shells] / np.sqrt(2)
        noise = np.zeros_like(batch.images)
        noise.reshape(len(batch), -1)[:, posed.pixels] = drawn * size.astype(np.float32)
        for sums, images in zip(both, (residual, noise), strict=True):
            sums.add(posed, replace(batch, images=images), w * a, second, [posed.radius] * count)
    for sums in both:
        fold(posed, sums)
    return [solve(posed, sums, None) for sums in both]


@one_line
@dataclass(frozen=True, eq=False)
class SubsetLandscape:
    """Class maps of random subsets as points.

    Attributes
    ----------
    mean : Map
    components : list of Map
        Principal components of the class maps, of unit norm, the largest variance first.
    coordinates : (m, k) float64
        Of every class map along them.
    share : (k,) float64
        Of the variance of all class maps.
    weight : (m,) float64
        Particles of each class.
    subset : (m,) int64
        Which subset, from 0.
    members : list of (n_s, K) float64
        Posteriors of every subset's particles.
    rows : list of (n_s,) int64
        Those particles.
    """

    mean: Map
    components: list[Map]
    coordinates: FloatArray
    share: FloatArray
    weight: FloatArray
    subset: IntArray
    members: list[FloatArray]
    rows: list[IntArray]


def subset_landscape(
    posed: PosedImages,
    *,
    subsets: int = 10,
    size: int | None = None,
    classes: int = 3,
    components: int = 2,
    iterations: int = 8,
    seed: int = 0,
    listener: Listener | None = None,
) -> SubsetLandscape:
    """Classify many random subsets into many classes, and find the principal components of all class maps.

    A landscape that asks for no model of the variation (Haselbach et al. 2018, Cell 172, 454-464): maps of
    conformations that are there come back in subset after subset, and lie beside each other.

    Parameters
    ----------
    posed : PosedImages
    subsets, size : int
        How many, and particles in each; a third of all by default.
    classes : int
        Of each subset.
    components : int
    iterations : int
        Of each classification.
    seed : int
    listener : Listener, optional
        Is told how many subsets are done.

    Raises
    ------
    InputError
        Subsets that are larger than the set or smaller than 20 particles a class.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.heterogeneity import posed_images, subset_landscape
    >>> model = vg.simulate.phantom(24, 6.0, 100.0)
    >>> states = [model, vg.simulate.hinge(model, 60)]
    >>> p = vg.simulate.particles(states, 80, 24, 6.0, snr=1.0, seed=1, listener=None)
    >>> posed = posed_images(p, job="subsets", resolution_A=30.0)
    >>> made = subset_landscape(posed, subsets=2, size=60, classes=2, components=1, iterations=2)
    >>> made.coordinates.shape, len(made.components)
    ((4, 1), 1)
    """
    n = len(posed)
    size = n // 3 if size is None else size
    if not 20 * classes <= size <= n:
        raise InputError(
            f"subset_landscape: {size} particles a subset, of {n}, in {classes} classes; expected 20 a class or more"
        )
    rng = np.random.default_rng(seed)
    maps, weight, of_subset, members, chosen = [], [], [], [], []
    tell = phase_progress(listener, "subsets classified")
    for number in range(subsets):
        rows = np.sort(rng.choice(n, size, replace=False))
        some = _subset(posed, rows)
        model = fit_classes(some, classes, iterations=iterations, contrast=False, seed=seed + number)
        made, members_of = model.volumes, model.posterior
        for k in range(classes):
            if members_of[:, k].sum() >= _FEWEST_OF_CLASS:
                maps.append(made[k])
                weight.append(float(members_of[:, k].sum()))
                of_subset.append(number)
        members.append(members_of)
        chosen.append(rows)
        tell(number + 1, subsets)
    stack, share_of = np.stack(maps).astype(np.float64), np.array(weight)
    mean = np.average(stack, axis=0, weights=share_of)
    flat = (stack - mean).reshape(len(stack), -1)
    size_of, right = np.linalg.svd(np.sqrt(share_of)[:, None] * flat, full_matrices=False)[1:]
    k = min(components, len(size_of))
    pixel_size_A = posed.pixel_size_A
    return SubsetLandscape(
        Map(mean.astype(np.float32), pixel_size_A),
        [Map(right[q].reshape(mean.shape).astype(np.float32), pixel_size_A) for q in range(k)],
        flat @ right[:k].T,
        np.square(size_of[:k]) / max(float(np.square(size_of).sum()), 1e-30),
        share_of,
        np.array(of_subset, np.int64),
        members,
        chosen,
    )


def _subset(posed: PosedImages, rows: IntArray) -> PosedImages:
    """Some of the particles, in their half sets."""
    return replace(
        posed,
        particles=posed.particles[rows],
        kept=posed.kept[rows],
        half=posed.half[rows],
        group=np.unique(posed.group[rows], return_inverse=True)[1],
    )
