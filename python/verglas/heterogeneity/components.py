"""Mean and principal components of particles at known poses by expectation-maximisation, two half sets apart.

Probabilistic PCA (Tipping and Bishop 1999) with the CTF and the poses in it (Tagare et al. 2015; Punjani and Fleet
2021), solved on the three-dimensional Fourier grid. From a random start at a fixed resolution it can stay where it is:
the resolution of the components therefore grows from iteration to iteration. Each half set learns its own mean and
components; the FSC between them regularises both, and particles of one half judge the components of the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import orthogonal_procrustes

from verglas import filters
from verglas.errors import InputError
from verglas.heterogeneity.latent import Contrasts, latent_posterior
from verglas.heterogeneity.linear import (
    LinearSums,
    Products,
    first_noise,
    half_volumes,
    noise_from,
    one_pass,
    products,
)
from verglas.heterogeneity.posed import PosedImages
from verglas.types import Keeper, Map, Snapshot
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener, phase_progress
from verglas.types.snapshot import from_arrays, to_arrays

_MEAN_PASSES = 2
LEAST_ALIKE = 0.5  # correlation of a map with the particles' own, below which their poses are not of it
_FIRST_A = 40.0
_LEAST_SHELL = 3
# Share of what regularisation takes from the size of components that is let stand while their resolution grows: a weak
# one is taught slowly by expectation-maximisation, and would be damped away sooner than it is learned. In the last
# third of the iterations all of it stands, so that one that the halves do not share vanishes.
_DAMPED = 0.5
_START = 0.1  # size of random first components, of the mean's


@dataclass
class HalfComponents:
    """What one half set has taught.

    Attributes
    ----------
    volumes : (1 + q, N, N, N) float32
        Mean, then components, scaled so that coordinates have unit variance.
    contrasts : Contrasts
    """

    volumes: Float32Array
    contrasts: Contrasts


@dataclass
class ComponentModel:
    """Mean and components of both halves.

    Attributes
    ----------
    halves : list of HalfComponents
        Two.
    sigma2 : (groups, radius + 1) float64
        Noise variance.
    fsc : (1 + q, radius + 1) float64
        Between the halves, before regularisation.
    mask : (N, N, N) float32
        Of the components.
    held : bool
        Whether the mean was given, and stays; its size follows the contrasts of the images.
    """

    halves: list[HalfComponents]
    sigma2: FloatArray
    fsc: FloatArray
    mask: Float32Array
    held: bool = False

    @property
    def n_components(self) -> int:
        """Q."""
        return len(self.halves[0].volumes) - 1

    @property
    def volumes(self) -> Float32Array:
        """(1 + q, N, N, N) mean of the halves."""
        return np.asarray((self.halves[0].volumes + self.halves[1].volumes) / 2, np.float32)

    @property
    def contrasts(self) -> Contrasts:
        """Grid of contrasts with the mean prior."""
        both = [np.exp(h.contrasts.log_prior) for h in self.halves]
        return Contrasts(self.halves[0].contrasts.values, np.log((both[0] + both[1]) / 2))

    def first(self, count: int) -> ComponentModel:
        """The same with fewer components."""
        halves = [HalfComponents(h.volumes[: count + 1], h.contrasts) for h in self.halves]
        return ComponentModel(halves, self.sigma2, self.fsc[: count + 1], self.mask, self.held)


def mean_model(posed: PosedImages, *, contrast: bool, mask: Float32Array | None = None) -> ComponentModel:
    """Means of both halves, and the noise: the model without any component."""
    sigma2 = first_noise(posed)
    empty = np.zeros((1, posed.box, posed.box, posed.box), np.float32)
    inside = posed.sphere if mask is None else mask
    model = ComponentModel(
        [HalfComponents(empty, Contrasts.grid() if contrast else Contrasts.none()) for _ in range(2)],
        sigma2,
        np.zeros((1, posed.radius + 1)),
        inside,
    )
    for number in range(_MEAN_PASSES + 1):
        model = _iterate(posed, model, [posed.radius], flat=number == 0)
    return model


def hold_mean(posed: PosedImages, model: ComponentModel, given: Float32Array) -> ComponentModel:
    """The model of means with a given map in their place, at the images' grey scale, and the noise beside it.

    Raises
    ------
    InputError
        The map is not what the particles show at their poses.
    """
    finest_A = posed.box * posed.pixel_size_A / posed.radius
    smooth = filters.apply(Map(given, posed.pixel_size_A), filters.low_pass(finest_A), threads=posed.threads).data
    scaled = (smooth * posed.sphere * np.float32(scale_of_map(posed, model, smooth)))[None]
    halves = [HalfComponents(scaled.copy(), half.contrasts) for half in model.halves]
    held = ComponentModel(halves, model.sigma2, model.fsc, model.mask, held=True)
    return _iterate(posed, held, [posed.radius])


def scale_of_map(posed: PosedImages, model: ComponentModel, given: Float32Array) -> float:
    """Factor that brings a map to the grey scale of the particles' own mean.

    Raises
    ------
    InputError
        The map is not what the particles show at their poses.
    """
    own, inside = (x.astype(np.float64).ravel() for x in (model.volumes[0], given * posed.sphere))
    power, cross = float(inside @ inside), float(inside @ own)
    alike = cross / max(np.sqrt(power * float(own @ own)), np.finfo(float).tiny)
    if not alike >= LEAST_ALIKE:
        raise InputError(
            f"the map that was given and that of the particles at their poses have a correlation of {alike:.2f}, "
            f"expected {LEAST_ALIKE} or more: poses of another map, another hand, or inverted contrast"
        )
    return cross / power


def learn_components(
    posed: PosedImages,
    start: ComponentModel,
    count: int,
    *,
    iterations: int,
    seed: int = 0,
    listener: Listener | None = None,
    keeper: Keeper | None = None,
) -> ComponentModel:
    """Components from a random start, their resolution growing to that of the images.

    Parameters
    ----------
    posed : PosedImages
    start : ComponentModel
        Mean and noise (:func:`mean_model`).
    count : int
        Components.
    iterations : int
    seed : int
        Of the start.
    listener : Listener, optional
        Is told how many iterations are done.
    keeper : Keeper, optional
        Of where it stands after every iteration; what it has is gone on from.
    """
    first = _first_components(posed, start, count, seed)
    halves = [HalfComponents(np.concatenate([h.volumes[:1], first]), h.contrasts) for h in start.halves]
    model = ComponentModel(halves, start.sigma2, np.zeros((1 + count, posed.radius + 1)), start.mask, start.held)
    saved, done = None if keeper is None else keeper.load(), 0
    if saved is not None:
        model, done = _restore(saved, start), saved.record["iterations"]
    tell = phase_progress(listener, "components, iterations")
    for number in range(done, iterations):
        radius = component_radius(posed, number, iterations)
        model = _iterate(posed, model, [posed.radius] + [radius] * count)
        tell(number + 1, iterations)
        if keeper is not None:
            keeper.save(_snapshot(model, number + 1))
    return sort_components(model)


def _snapshot(model: ComponentModel, iterations: int) -> Snapshot:
    arrays = {"sigma2": model.sigma2, "fsc": model.fsc}
    for number, half in enumerate(model.halves, 1):
        arrays |= to_arrays(f"contrasts{number}.", half.contrasts) | {f"volumes{number}": half.volumes}
    return Snapshot(arrays, {"iterations": iterations})


def _restore(saved: Snapshot, start: ComponentModel) -> ComponentModel:
    arrays = saved.arrays
    halves = [
        HalfComponents(arrays[f"volumes{number}"], from_arrays(Contrasts, f"contrasts{number}.", arrays))
        for number in (1, 2)
    ]
    return ComponentModel(halves, arrays["sigma2"], arrays["fsc"], start.mask, start.held)


def component_radius(posed: PosedImages, number: int, iterations: int) -> int:
    """Last shell of the components in an iteration: from 40 A to all shells after two thirds of the iterations."""
    first = max(_LEAST_SHELL, round(posed.box * posed.pixel_size_A / _FIRST_A))
    share = min(1.0, number / max(1, 2 * iterations // 3))
    return int(min(posed.radius, round(first + share * (posed.radius - first))))


def _first_components(posed: PosedImages, start: ComponentModel, count: int, seed: int) -> Float32Array:
    """Smooth noise inside the mask; the same for both halves."""
    rng = np.random.default_rng([seed, count])
    gain = filters.low_pass(max(_FIRST_A, 2 * posed.pixel_size_A))
    size = _START * float(start.volumes[0].std())
    made = []
    for _ in range(count):
        noise = Map(rng.standard_normal((posed.box,) * 3, dtype=np.float32), posed.pixel_size_A)
        smooth = filters.apply(noise, gain, threads=posed.threads).data * start.mask
        made.append(smooth * np.float32(size / smooth.std()))
    return np.stack(made) if made else np.zeros((0, posed.box, posed.box, posed.box), np.float32)


class _HalfMoments:
    """Moments of one half set's images, with what the next contrast prior and scale of coordinates are made from."""

    def __init__(self, half: HalfComponents, *, flat: bool) -> None:
        self.half, self.flat = half, flat
        q = len(half.volumes) - 1
        self.contrast, self.spread, self.number = np.zeros(len(half.contrasts.values)), np.zeros((q, q)), 0

    def __call__(self, made: Products) -> tuple[FloatArray, FloatArray]:
        if self.flat:
            ones = np.ones(len(made.cross))
            return ones[:, None], ones[:, None, None]
        posterior = latent_posterior(made.gram, made.cross, self.half.contrasts)
        self.contrast += posterior.contrast_weight.sum(axis=0)
        self.spread += (posterior.covariance + posterior.mean[:, :, None] * posterior.mean[:, None, :]).sum(axis=0)
        self.number += len(made.cross)
        return posterior.first, posterior.second

    def contrasts(self) -> tuple[Contrasts, float]:
        """The prior that these images suggest, of mean 1, and the mean that was taken out of it."""
        return (self.half.contrasts, 1.0) if self.flat else self.half.contrasts.learn(self.contrast)

    def scale_coordinates(self, components: Float32Array) -> Float32Array:
        """Components whose coordinates have unit variance again: a step that EM would take many iterations for."""
        if not len(self.spread) or not self.number:
            return components
        root = np.linalg.cholesky(self.spread / self.number + 1e-9 * np.eye(len(self.spread)))
        return np.einsum("qr,qzyx->rzyx", root, components).astype(np.float32)


def _iterate(posed: PosedImages, model: ComponentModel, radii: list[int], *, flat: bool = False) -> ComponentModel:
    """One iteration of both halves."""
    q = len(radii) - 1
    sums: list[LinearSums] = []
    moments = [_HalfMoments(h, flat=flat) for h in model.halves]
    for number, (half, each) in enumerate(zip(model.halves, moments, strict=True), 1):
        rows = posed.rows_of_half(number)
        sums.append(one_pass(posed, half.volumes, model.sigma2, rows, each, radii, mixed=q > 0))
    masks = np.stack([posed.sphere] + [model.mask] * q)
    growing = q > 0 and radii[1] < posed.radius
    volumes, curves = half_volumes(posed, sums, masks, damped=np.array([1.0] + [_DAMPED if growing else 1.0] * q))
    halves = []
    for made, half, each in zip(volumes, model.halves, moments, strict=True):
        if model.held:
            made[0] = half.volumes[0]
        made[1:] = each.scale_coordinates(made[1:])
        contrasts, mean = each.contrasts()
        made *= np.float32(mean)  # a factor of all maps is one of all contrasts: the mean contrast is 1
        halves.append(HalfComponents(made, contrasts))
    turn_second(halves)
    sigma2 = model.sigma2 if flat else noise_from(sums, model.sigma2)
    return ComponentModel(halves, sigma2, curves, model.mask, model.held)


def turn_second(halves: list[HalfComponents]) -> None:
    """Components of the second half turned onto those of the first: any rotation of them is the same model."""
    count = len(halves[0].volumes) - 1
    if not count:
        return
    first, second = (h.volumes[1:].reshape(count, -1) for h in halves)
    if not first.any() or not second.any():
        return
    turn = orthogonal_procrustes(second.T.astype(np.float64), first.T.astype(np.float64))[0]
    turned = np.einsum("qr,qzyx->rzyx", turn, halves[1].volumes[1:])
    halves[1].volumes[1:] = turned.astype(np.float32)


def sort_components(model: ComponentModel) -> ComponentModel:
    """Both halves turned so that what they share of their components is uncorrelated, the largest first."""
    if not model.n_components:
        return model
    first, second = (h.volumes[1:].reshape(model.n_components, -1).astype(np.float64) for h in model.halves)
    shared = first @ second.T
    turn = np.linalg.eigh((shared + shared.T) / 2)[1][:, ::-1]
    return change_components(model, turn)


def change_components(model: ComponentModel, change: FloatArray) -> ComponentModel:
    """Components U change of both halves, (q, q), of which coordinates z are change z'."""
    halves = []
    for half in model.halves:
        changed = np.einsum("qr,qzyx->rzyx", change, half.volumes[1:]).astype(np.float32)
        halves.append(replace(half, volumes=np.concatenate([half.volumes[:1], changed])))
    return replace(model, halves=halves)


def held_out_evidence(posed: PosedImages, model: ComponentModel) -> FloatArray:
    """(n, 1 + q) log evidence of every particle under the other half's mean and first 0, 1, ..., q components."""
    out = np.zeros((len(posed), 1 + model.n_components))
    for number in (1, 2):
        other = model.halves[2 - number]
        for made in products(posed, other.volumes, model.sigma2, posed.rows_of_half(number)):
            for q in range(out.shape[1]):
                some = slice(0, q + 1)
                posterior = latent_posterior(made.gram[:, some, some], made.cross[:, some], other.contrasts)
                out[made.batch.rows, q] = posterior.log_evidence
    return out


def held_out_information(posed: PosedImages, model: ComponentModel) -> tuple[FloatArray, FloatArray]:
    """What every image says of its coordinates along the other half's components, at its mean contrast.

    Returns
    -------
    (n, q), (n, q, q) float64
        h and P, the likelihood being exp(h z - z P z / 2), without any prior.
    """
    q = model.n_components
    h, information = np.zeros((len(posed), q)), np.zeros((len(posed), q, q))
    for number in (1, 2):
        other = model.halves[2 - number]
        for made in products(posed, other.volumes, model.sigma2, posed.rows_of_half(number)):
            a = latent_posterior(made.gram, made.cross, other.contrasts).first[:, :1]
            h[made.batch.rows] = a * made.cross[:, 1:] - a**2 * made.gram[:, 0, 1:]
            information[made.batch.rows] = a[:, :, None] ** 2 * made.gram[:, 1:, 1:]
    return h, information


def coordinates(
    posed: PosedImages, model: ComponentModel, rows: IntArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """E[z] (n, q), its covariance (n, q, q), and E[a] (n,) of every particle, against the mean of both halves."""
    chosen = np.arange(len(posed)) if rows is None else rows
    q, volumes, contrasts = model.n_components, model.volumes, model.contrasts
    mean, covariance, contrast = np.zeros((len(chosen), q)), np.zeros((len(chosen), q, q)), np.zeros(len(chosen))
    done = 0
    for made in products(posed, volumes, model.sigma2, chosen):
        posterior = latent_posterior(made.gram, made.cross, contrasts)
        some = slice(done, done + len(made.batch))
        mean[some], covariance[some], contrast[some] = posterior.mean, posterior.covariance, posterior.first[:, 0]
        done = some.stop
    return mean, covariance, contrast
