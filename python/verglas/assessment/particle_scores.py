"""What a map says of every particle of the other half set: gain, correlation, residual, noise, percentiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, softmax

from verglas.errors import InputError
from verglas.optics.refine import Calibration, Pixels, Setting
from verglas.optics.refine.passes import evaluate
from verglas.optics.refine.pixels import gather, image_spectra, pixel_terms
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, IntArray, any_arrays
from verglas.types.display import one_line
from verglas.types.listener import Listener

_ROUNDS = 20  # of expectation and maximisation
_NO_POWER = 1e-9  # nats: nothing is expected of such an image
_LEAST_IN_BIN = 20  # particles that a percentile is told among


@one_line
@dataclass(frozen=True, eq=False)
class ParticleScores:
    r"""Scores of n particles, each against the other half's map.

    With X the image, M = a C P V the slice of the map on the image's scale (a by shell, 0 where the reference explains
    nothing), :math:`\sigma^2` the noise of the optics group, sums over the pixels of the shells that are explained:

    Attributes
    ----------
    cross, power : (n,) float64
        :math:`c = \sum \mathrm{Re}(X M^*)/\sigma^2` and :math:`p = \sum |M|^2/\sigma^2`, nats.
    cross_high, power_high : (n,) float64
        The same over the finer shells only.
    correlation : (n,) float64
        c / sqrt(p sum |X|^2 / sigma^2), -1 to 1.
    residual_z : (n,) float64
        (sum |X - M|^2 / sigma^2 - m) / sqrt(m) over the m pixels: a standard normal number where pose and noise are
        right.
    noise_ratio : (n,) float64
        :math:`s^2 = \langle |X - M|^2/\sigma^2 \rangle`: power of what the map does not explain over that of the
        group's noise, all shells.
    """

    cross: FloatArray
    power: FloatArray
    cross_high: FloatArray
    power_high: FloatArray
    correlation: FloatArray
    residual_z: FloatArray
    noise_ratio: FloatArray

    @property
    def gain(self) -> FloatArray:
        """2 c - s^2 p, nats: what the particle adds to the logarithm of the map's spectral signal-to-noise ratio.

        In units of what the noise of its pixels is worth. Below 0 a map of equal weights is better without it. With s
        = 1 it is log p(X | map) - log p(X | nothing), the score of CryoSieve.
        """
        return 2 * self.cross - self.noise_ratio * self.power

    @property
    def grey_scale(self) -> FloatArray:
        """Amplitude c / p: of the slice that fits the image best, on that of the set; NaN where no signal is expected.

        Of one particle it is known to s / sqrt(p) only.
        """
        return np.divide(self.cross, self.power, out=np.full_like(self.cross, np.nan), where=self.power > _NO_POWER)

    @property
    def gain_high(self) -> FloatArray:
        """The same of the finer shells."""
        return 2 * self.cross_high - self.noise_ratio * self.power_high

    @property
    def quality(self) -> FloatArray:
        """Expected gain over power: :func:`expected_quality`."""
        return expected_quality(self.cross, self.power, self.noise_ratio)

    @property
    def quality_high(self) -> FloatArray:
        """The same of the finer shells."""
        return expected_quality(self.cross_high, self.power_high, self.noise_ratio)


@any_arrays
def expected_quality(cross: FloatArray, power: FloatArray, noise_ratio: FloatArray) -> FloatArray:
    r"""Gain of particles over their power when the noise in their amplitudes is taken out.

    The amplitude b = c / p of one particle is known with a variance :math:`v = s^2 / 2p` only, which ranks particles by
    chance; their noise s^2 is known well. So b is drawn towards the mean of the set, as its spread beyond chance allows
    (DerSimonian and Laird's estimate :math:`\tau^2`):

    .. math:: 2 \hat b - s^2, \qquad \hat b = (\tau^2 b + v \bar b) / (\tau^2 + v)

    1 is a particle like the others, 0 one that a map of equal weights does as well without. The power p is left out:
    it is large for views that are dense and defoci that pass coarse shells, and a set that is sieved by it loses the
    others.

    Parameters
    ----------
    cross, power, noise_ratio : (n,) float64
        As of :class:`ParticleScores`.

    References
    ----------
    DerSimonian and Laird (1986) Control. Clin. Trials 7, 177-188.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.particle_scores import expected_quality
    >>> expected_quality(np.array([9.0, 11.0]), np.full(2, 10.0), np.ones(2)).tolist()  # differ by chance
    [1.0, 1.0]
    """
    known = power > _NO_POWER
    if not known.any():
        return np.zeros_like(cross)
    p = np.where(known, power, 1.0)
    b, variance = cross / p, np.maximum(noise_ratio, 1e-9) / (2 * p)
    weight = np.where(known, 1 / variance, 0.0)
    mean = np.average(b, weights=weight)
    chance = weight.sum() - np.square(weight).sum() / weight.sum()
    spread = max(0.0, float(weight @ (b - mean) ** 2 - (known.sum() - 1)) / chance) if chance > 0 else 0.0
    drawn = (spread * b + variance * mean) / (spread + variance)
    return np.where(known, 2 * drawn - noise_ratio, 0.0)


def first_high_shell(calibration: Calibration, pixels: Pixels, resolution_A: float | None = None) -> int:
    """First of the finer shells, from 0 for the first in use: beyond a resolution, or half of those explained.

    Raises
    ------
    InputError
        No shell that the reference explains is finer than the resolution.
    """
    explained = np.flatnonzero((calibration.amplitude > 0).any(axis=0))
    if resolution_A is None:
        return int(explained[len(explained) // 2]) if len(explained) else pixels.shells
    shell = int(np.ceil(pixels.box * pixels.pixel_size_A / resolution_A - 1e-9)) - pixels.first
    if not (explained >= shell).any():
        finest = pixels.box * pixels.pixel_size_A / (pixels.first + (explained[-1] if len(explained) else 0))
        raise InputError(
            f"particle scores: nothing finer than {resolution_A:g} A is explained by the maps, which reach "
            f"{finest:.3g} A; give a coarser limit"
        )
    return max(0, shell)


def score_particles(
    setting: Setting, calibration: Calibration, high_shell: int, listener: Listener | None = None
) -> ParticleScores:
    """Score every particle of a setting against the other half's map.

    Parameters
    ----------
    setting : Setting
        Particles, half sets and references (:class:`verglas.optics.refine.Setting`).
    calibration : Calibration
        Amplitudes and noise (:func:`verglas.optics.refine.calibrate`).
    high_shell : int
        First of the finer shells, from 0 (:func:`first_high_shell`).
    listener : Listener, optional
        Told how many are scored.

    Returns
    -------
    ParticleScores

    References
    ----------
    Zhu et al. (2023) Nat. Commun. 14, 7822 (scores from the other half's map); the factor s^2 is the derivative of
    (sum b_i)^2 / sum s_i^2 by a particle of amplitude b and noise s.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.particle_scores import score_particles
    >>> from verglas.optics.refine import Pixels, Setting, calibrate
    >>> model = vg.simulate.phantom(24, 4.0, 60.0)
    >>> truth, p = vg.simulate.density(model, 24, 4.0), vg.simulate.particles(model, 60, 24, 4.0, snr=1.0, seed=1)
    >>> setting = Setting.of(p, np.arange(60) % 2, (truth, truth), Pixels(24, 4.0, 2, 10))
    >>> scores = score_particles(setting, calibrate(setting), 5)
    >>> bool((scores.gain > 0).mean() > 0.9), bool(abs(scores.noise_ratio.mean() - 1) < 0.1)
    (True, True)
    """
    pixels, params = setting.pixels, setting.particles.optics.as_params()
    out = np.zeros((7, len(setting.particles)))
    high = pixels.shell >= high_shell
    ones = np.ones(len(pixels), np.float32)
    for rows in setting.batches(np.arange(len(setting.particles)), listener, "particles scored"):
        h, g = int(setting.half[rows[0]]), int(setting.group[rows[0]])
        amplitude = calibration.amplitude[h][pixels.shell].astype(np.float32)
        inverse = calibration.inverse_noise(g, pixels)
        some = setting.particles[rows]
        spectra = image_spectra(some, setting.threads)
        batch = pixel_terms(spectra, setting.references[h].slices(some), params[rows], inverse, pixels, setting.threads)
        cross = batch.cross.real * batch.sine * amplitude
        power = batch.power * batch.sine**2 * amplitude**2
        image = np.abs(gather(spectra, pixels)) ** 2 * inverse
        used = (amplitude > 0).astype(np.float32)
        c, c_high = cross @ ones, cross @ high.astype(np.float32)
        p, p_high = power @ ones, power @ high.astype(np.float32)
        noise = (image @ ones - 2 * c + p) / len(pixels)
        count = max(1.0, float(used.sum()))
        residual = image @ used - 2 * c + p
        out[:, rows] = (
            c,
            p,
            c_high,
            p_high,
            c / np.sqrt(np.maximum(p * (image @ used), 1e-30)),
            (residual - count) / np.sqrt(count),
            noise,
        )
    return ParticleScores(*out)


@dataclass(frozen=True, eq=False)
class ShellSums:
    """Products of n images with the slices of a map, by shell: what evidence is made from.

    Attributes
    ----------
    cross, power : (n, shells) float32
        sum Re(X (C P)*) / sigma^2 and sum |C P|^2 / sigma^2.
    """

    cross: Float32Array
    power: Float32Array


def shell_sums(setting: Setting, calibration: Calibration, noise_ratio: FloatArray) -> ShellSums:
    """Products of all particles of a setting with their references, under the noise of a calibration and their own."""
    pixels, params = setting.pixels, setting.particles.optics.as_params()
    sums = np.zeros((2, len(setting.particles), pixels.shells), np.float32)
    for rows in setting.batches(np.arange(len(setting.particles))):
        batch, _ = evaluate(setting, calibration, rows, params)
        sums[0, rows] = pixels.shell_sums(batch.cross.real * batch.sine)
        sums[1, rows] = pixels.shell_sums(batch.power * batch.sine**2)
    return ShellSums(*(sums / noise_ratio[:, None].astype(np.float32)))


@any_arrays
def held_out_evidence(of_map: ShellSums, of_ball: ShellSums, fold: IntArray) -> FloatArray:
    r"""What held-out particles gain by a map, nats each, where some of them may be no such particle at all.

    Wrong poses and junk are explained best by maps that have junk in them; to ask them would vote for it. So each
    particle is one of three: a slice of the map, of a ball (the spherical mean: the particle at a wrong pose), or
    nothing,

    .. math:: e_i = \log \sum_m \pi_m \exp \sum_k (2 a_{mk} c_{imk} - a_{mk}^2 p_{imk})

    with amplitudes a by shell and shares :math:`\pi` fitted by expectation and maximisation to the *other* fold.

    Parameters
    ----------
    of_map, of_ball : ShellSums
        Of particles that neither was made from.
    fold : (n,) int64
        0 or 1 (:attr:`verglas.optics.refine.Setting.fold`).

    Returns
    -------
    (n,) float64
        Log evidence over that of nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.particle_scores import ShellSums, held_out_evidence
    >>> power = np.full((40, 1), 50.0, np.float32)  # every second particle has no signal, none is a ball
    >>> cross = np.tile([[50.0], [0.0]], (20, 1)).astype(np.float32)
    >>> nothing = ShellSums(np.zeros_like(cross), power)
    >>> e = held_out_evidence(ShellSums(cross, power), nothing, np.arange(40) // 20)
    >>> e[:2].round(1).tolist()
    [49.3, -0.7]
    """
    models = (of_map, of_ball)
    out = np.zeros(len(fold))
    for one in (0, 1):
        amplitudes, shares = _mixture(models, fold != one)
        terms = _terms(models, fold == one, amplitudes)
        out[fold == one] = logsumexp(terms + np.log(shares), axis=1)
    return out


def _terms(models: tuple[ShellSums, ShellSums], rows: npt.NDArray[np.bool_], amplitudes: FloatArray) -> FloatArray:
    """(n, 3): log likelihood of map, ball and nothing over that of nothing."""
    terms = np.zeros((np.count_nonzero(rows), len(models) + 1))
    for m, sums in enumerate(models):
        terms[:, m] = 2 * sums.cross[rows] @ amplitudes[m] - sums.power[rows] @ amplitudes[m] ** 2
    return terms


def _mixture(models: tuple[ShellSums, ShellSums], rows: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Amplitudes (2, shells) and shares (3,) by expectation and maximisation, from all particles being of the map."""
    count = int(np.count_nonzero(rows))
    weight = np.tile([0.9, 0.05, 0.05], (count, 1))
    for _ in range(_ROUNDS):
        pairs = [(sums.cross[rows].T @ w, sums.power[rows].T @ w) for sums, w in zip(models, weight.T, strict=False)]
        amplitudes = np.stack([np.maximum(c / np.maximum(p, 1e-30), 0.0) for c, p in pairs])
        # a share of nothing at all would forbid what the other fold may hold
        shares = (weight.sum(axis=0) + 1) / (count + weight.shape[1])
        weight = softmax(_terms(models, rows, amplitudes) + np.log(shares), axis=1)
    return amplitudes, shares


def spherical_mean(volume: Map) -> Map:
    """The map averaged over all rotations about its centre.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.particle_scores import spherical_mean
    >>> turned = vg.Map(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32), 1.0)
    >>> ball = spherical_mean(turned).data
    >>> bool(np.isclose(ball[4, 4, 6], ball[4, 6, 4])), bool(np.isclose(ball.mean(), turned.data.mean(), atol=1e-6))
    (True, True)
    """
    place = np.arange(volume.box) - volume.box // 2
    radius = np.sqrt(sum(x**2 for x in np.meshgrid(place, place, place, indexing="ij", sparse=True)))
    shell = np.rint(radius).astype(np.int64).ravel()
    mean = np.bincount(shell, volume.data.ravel()) / np.maximum(np.bincount(shell), 1)
    return volume.with_data(mean[shell].reshape(volume.data.shape).astype(np.float32))


@any_arrays
def percentile_by_defocus(values: npt.ArrayLike, defocus_A: npt.ArrayLike, bins: int = 10) -> FloatArray:
    """Percentile of every value among particles of about its defocus: bins of equal numbers, uniform within each.

    Parameters
    ----------
    values, defocus_A : (n,) array_like
    bins : int
        At most; 20 particles or more fall into each.

    Returns
    -------
    (n,) float64
        100 (rank + 1/2) / number in the bin.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.particle_scores import percentile_by_defocus
    >>> defocus = np.repeat([10000.0, 20000.0], 20)
    >>> percentile_by_defocus(np.arange(40.0), defocus, bins=2)[[0, 19, 20, 39]].tolist()
    [2.5, 97.5, 2.5, 97.5]
    """
    value, defocus = np.asarray(values, np.float64), np.asarray(defocus_A, np.float64)
    n = len(value)
    count = int(np.clip(n // _LEAST_IN_BIN, 1, bins))
    of_bin = np.empty(n, np.int64)
    of_bin[np.argsort(defocus, kind="stable")] = np.arange(n) * count // max(n, 1)
    order: IntArray = np.lexsort((value, of_bin))
    sizes = np.bincount(of_bin, minlength=count)
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return 100.0 * (rank + 0.5) / sizes[of_bin]
