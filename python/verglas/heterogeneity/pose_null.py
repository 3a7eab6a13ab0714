r"""The null of wrong poses: what one map explains when poses may be off, against which heterogeneity is measured.

To first order a map V that is seen from a pose off by a small turn :math:`\omega` and shift t changes along its six
derivatives, :math:`-(\omega \times r + t) \cdot \nabla V`. With :math:`\omega_q \sim N(0, \sigma_\omega^2)` and
:math:`t_q \sim N(0, \sigma_t^2)` they are components whose coordinates integrate out in closed form
(:mod:`verglas.heterogeneity.latent`); the two spreads are those that explain the particles best under one map. Poses
that are entirely wrong are a class whose map is the mean over all orientations, the map's radial profile. Classes and
components are given the same freedom: what they gain over one map then is of structure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from verglas import fourier
from verglas.heterogeneity.components import ComponentModel
from verglas.heterogeneity.fixed_classes import FixedClasses
from verglas.heterogeneity.latent import Contrasts, latent_posterior
from verglas.heterogeneity.linear import products
from verglas.heterogeneity.posed import PosedImages
from verglas.types.arrays import Float32Array, FloatArray, IntArray

_TURN_DEG = (0.0, 1.0, 2.0, 4.0, 8.0)
_SHIFT_A = (0.0, 1.0, 2.0, 4.0)
_WEIGHT_PASSES = 20
_LEAST_WEIGHT = 1e-4


def pose_derivatives(posed: PosedImages, volume: Float32Array) -> Float32Array:
    """(6, N, N, N): of a map by shifts along x, y, z, per pixel, and by turns about x, y, z, per radian."""
    spectrum = fourier.forward(volume, 3, threads=posed.threads)
    # Exact, where differences of neighbours fade towards Nyquist.
    gx, gy, gz = (
        fourier.inverse(
            (2j * np.pi / posed.box * k * spectrum).astype(np.complex64), volume.shape, threads=posed.threads
        )
        for k in reversed(fourier.half_grid(volume.shape))
    )
    axis = np.arange(posed.box) - posed.box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    turned = [y * gz - z * gy, z * gx - x * gz, x * gy - y * gx]
    return np.stack([v * posed.sphere for v in [gx, gy, gz, *turned]]).astype(np.float32)


@dataclass(frozen=True)
class PoseFreedom:
    """How far poses may be off.

    Attributes
    ----------
    turn_deg, shift_A : float
        Standard deviations, about and along each axis.
    elsewhere : float
        Share of particles whose pose says nothing.
    """

    turn_deg: float
    shift_A: float
    elsewhere: float

    def __str__(self) -> str:
        return (
            f"turned by {self.turn_deg:g} degrees, moved by {self.shift_A:g} A, {100 * self.elsewhere:.0f} % anywhere"
        )

    def scales(self, posed: PosedImages) -> FloatArray:
        """(6,) of the derivatives."""
        return np.repeat([self.shift_A / posed.pixel_size_A, np.deg2rad(self.turn_deg)], 3)


@dataclass(frozen=True)
class _Half:
    """Inner products of some particles with a map of the other half, its components and its derivatives."""

    rows: IntArray
    gram: FloatArray
    cross: FloatArray
    contrasts: Contrasts

    def evidence(self, components: int, scales: FloatArray) -> FloatArray:
        """Log evidence with so many components, derivatives scaled."""
        last = self.gram.shape[1] - 6
        kept = np.r_[0 : 1 + components, last : last + 6]
        factor = np.r_[np.ones(1 + components), scales]
        gram = self.gram[:, kept[:, None], kept] * factor[:, None] * factor
        return latent_posterior(gram, self.cross[:, kept] * factor, self.contrasts).log_evidence


def _products(
    posed: PosedImages, volumes: list[Float32Array], contrasts: list[Contrasts], sigma2: FloatArray
) -> Iterator[_Half]:
    """``volumes``: of both halves, (1 + q, N, N, N); particles are judged by the half that they are not in."""
    for number in (1, 2):
        other = volumes[2 - number]
        stack = np.concatenate([other, pose_derivatives(posed, other[0])])
        for made in products(posed, stack, sigma2, posed.rows_of_half(number)):
            yield _Half(made.batch.rows, made.gram, made.cross, contrasts[2 - number])


def _mixture(log: FloatArray, weight: FloatArray) -> FloatArray:
    return np.asarray(logsumexp(log + np.log(weight), axis=1))


@dataclass(frozen=True)
class PoseNull:
    """One map whose poses may be off.

    Attributes
    ----------
    freedom : PoseFreedom
        What explains the particles best.
    evidence : (n,) float64
        Log evidence of every particle.
    profile : (n,) float64
        Log evidence where the pose says nothing.
    """

    freedom: PoseFreedom
    evidence: FloatArray
    profile: FloatArray

    def with_profile(self, evidence: FloatArray) -> FloatArray:
        """Log evidence (n,) of a model some of whose particles lie anywhere."""
        share = self.freedom.elsewhere
        return _mixture(np.column_stack([evidence, self.profile]), np.array([1 - share, share]))


def radial_map(volume: Float32Array) -> Float32Array:
    """A map's mean over all orientations.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.pose_null import radial_map
    >>> v = np.zeros((9, 9, 9), np.float32); v[4, 4, 6] = 6
    >>> made = radial_map(v)
    >>> bool(np.isclose(made[4, 4, 6], made[2, 4, 4])), bool(made[4, 4, 6] > 0)
    (True, True)
    """
    axis = np.arange(len(volume)) - len(volume) // 2
    r = np.sqrt(sum(np.square(g) for g in np.meshgrid(axis, axis, axis, indexing="ij")))
    shell = np.rint(r).astype(np.int64).ravel()
    mean = np.bincount(shell, volume.ravel()) / np.maximum(np.bincount(shell), 1)
    return np.interp(r, np.arange(len(mean)), mean).astype(np.float32)


def pose_null(posed: PosedImages, mean: ComponentModel) -> PoseNull:
    """How far poses are off by what one map explains best, and the evidence of one map then.

    Parameters
    ----------
    posed : PosedImages
    mean : ComponentModel
        One map of either half, and the noise.
    """
    volumes, contrasts = [h.volumes[:1] for h in mean.halves], [h.contrasts for h in mean.halves]
    parts = list(_products(posed, volumes, contrasts, mean.sigma2))
    profile = _profile_evidence(posed, [v[0] for v in volumes], contrasts, mean.sigma2)
    best: PoseNull | None = None
    for turn_deg in _TURN_DEG:
        for shift_A in _SHIFT_A:
            scales = PoseFreedom(turn_deg, shift_A, 0.0).scales(posed)
            log = np.zeros(len(posed))
            for part in parts:
                log[part.rows] = part.evidence(0, scales)
            share = _best_share(log, profile)
            made_null = PoseNull(PoseFreedom(turn_deg, shift_A, share), log, profile)
            made_null = replace(made_null, evidence=made_null.with_profile(log))
            if best is None or made_null.evidence.mean() > best.evidence.mean():
                best = made_null
    assert best is not None
    return best


def _profile_evidence(
    posed: PosedImages, volumes: list[Float32Array], contrasts: list[Contrasts], sigma2: FloatArray
) -> FloatArray:
    """(n,) log evidence under the mean over orientations of the map of the other half."""
    out = np.zeros(len(posed))
    for number in (1, 2):
        other = radial_map(volumes[2 - number])[None]
        for made in products(posed, other, sigma2, posed.rows_of_half(number)):
            out[made.batch.rows] = latent_posterior(made.gram, made.cross, contrasts[2 - number]).log_evidence
    return out


def _best_share(evidence: FloatArray, profile: FloatArray) -> float:
    """Of the second, of maximum likelihood."""
    share, log = 0.05, np.column_stack([evidence, profile])
    for _ in range(_WEIGHT_PASSES):
        posterior = np.log(share) + profile - _mixture(log, np.array([1 - share, share]))
        share = float(np.clip(np.exp(posterior).mean(), _LEAST_WEIGHT, 1 - _LEAST_WEIGHT))
    return share


def freed_component_evidence(posed: PosedImages, model: ComponentModel, null: PoseNull) -> FloatArray:
    """(n, 1 + q) log evidence of the mean and the first 0, 1, ..., q components when poses may be off.

    Parameters
    ----------
    posed : PosedImages
    model : ComponentModel
        With the noise that all models are judged by.
    null : PoseNull
    """
    out = np.zeros((len(posed), 1 + model.n_components))
    halves = model.halves
    for part in _products(posed, [h.volumes for h in halves], [h.contrasts for h in halves], model.sigma2):
        for q in range(out.shape[1]):
            out[part.rows, q] = part.evidence(q, null.freedom.scales(posed))
    return np.stack([null.with_profile(column) for column in out.T], axis=1)


def freed_class_evidence(
    posed: PosedImages, model: FixedClasses, sigma2: FloatArray, null: PoseNull
) -> tuple[FloatArray, FloatArray]:
    """Log evidence (n,) of classes when poses may be off, and of the same with one class less and its mean profile.

    Where many poses are entirely wrong, one class takes these particles; its map is their mean over orientations, and
    says nothing of another structure. The second evidence is with the class whose profile does most in its place:
    classes that do no better than this show wrong poses.

    Parameters
    ----------
    posed : PosedImages
    model : FixedClasses
    sigma2 : (groups, radius + 1) float64
        The noise that all models are judged by.
    null : PoseNull
    """
    count, halves = len(model.halves[0].volumes), model.halves
    log, profile = np.zeros((len(posed), count)), np.zeros((len(posed), count))
    contrasts = [h.contrasts for h in halves]
    for k in range(count):
        for part in _products(posed, [h.volumes[k : k + 1] for h in halves], contrasts, sigma2):
            log[part.rows, k] = part.evidence(0, null.freedom.scales(posed))
        profile[:, k] = _profile_evidence(posed, [h.volumes[k] for h in halves], contrasts, sigma2)

    def mixture(table: FloatArray) -> FloatArray:
        mixed = np.zeros(len(posed))
        for number in (1, 2):
            rows = posed.rows_of_half(number)
            mixed[rows] = _mixture(table[rows], halves[2 - number].class_weight)
        return null.with_profile(mixed)

    replaced = [mixture(np.where(np.arange(count) == k, profile, log)) for k in range(count)]
    return mixture(log), max(replaced, key=lambda evidence: float(evidence.mean()))
