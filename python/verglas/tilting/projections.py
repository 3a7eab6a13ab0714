"""Tilted images compared with maps made from the other images of their class: small turns and shifts.

An image that took part in a map is found again where it was put; so every image is compared with a map of the others.
The images are sorted into as many lots as there are (at most 16), and each lot sees the map without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.masks import soft_sphere
from verglas.reconstruction import project, reconstruct
from verglas.types import Map, Particles, Poses
from verglas.types.arrays import Float32Array, FloatArray, IntArray

if TYPE_CHECKING:
    from verglas.tilting.conical import ConicalSettings

_LOTS = 16
_TURNS = 5  # tried about each axis, over twice the expected error either way
_FLOOR_PX = 0.5  # no comparison of noisy images is surer
_TRUST = 1e-3


@dataclass(frozen=True)
class _Weights:
    """By shell: amplitude of a projection in the images, and the noise power of a coefficient."""

    gain: FloatArray
    noise: FloatArray


@dataclass(frozen=True)
class ShiftPrior:
    """Where each tilted image is expected before it is compared with a map: a normal density of shifts.

    Attributes
    ----------
    mean_px : (n, 2) float64
        x, y.
    precision : (n, 2, 2) float64
        Inverse covariance, 1 / px^2.
    """

    mean_px: FloatArray
    precision: FloatArray

    def on_grid(self, reach: int) -> FloatArray:
        """Log density, but for a constant, at whole shifts up to ``reach``: (n, y, x)."""
        window = np.arange(-reach, reach + 1)
        grid = np.stack(np.meshgrid(window, window), axis=-1)  # (y, x, xy)
        off = grid[None] - self.mean_px[:, None, None]
        return -0.5 * np.einsum("nyxi,nij,nyxj->nyx", off, self.precision, off)


def shift_prior(
    found_px: FloatArray, turns: FloatArray, pick_error_px: float | None, usable: npt.NDArray[np.bool_], reach: int
) -> ShiftPrior:
    r"""The picks, and what the foreshortened average said, weighted by what each is worth.

    Along the axis nothing is foreshortened and the average is found well: the spread of shifts there is that of the
    picks, :math:`\sigma_p`. Across it a thick particle is not its flat average; the spread in excess of the picks' is
    the error :math:`\sigma_c` of the comparison, and the mean :math:`c\,\sigma_p^2 / (\sigma_p^2 + \sigma_c^2)`.

    Parameters
    ----------
    found_px : (n, 2) float64
        Shifts from the foreshortened average.
    turns : (n, 3, 3) float64
        The stage's.
    pick_error_px : float, optional
        :math:`\sigma_p`, where it is known.
    usable : (n,) bool
        Where there was enough of the average to compare with; elsewhere the picks stand alone.
    reach : int
        Largest shift searched.
    """
    across = turns[:, :2, 2]  # where z goes: at right angles to the axis
    length = np.linalg.norm(across, axis=1, keepdims=True)
    across = np.where(length > 1e-6, across / np.maximum(length, 1e-6), [1.0, 0.0])
    along = np.column_stack([-across[:, 1], across[:, 0]])
    seen = [(found_px * direction).sum(axis=1)[usable] for direction in (across, along)]
    spread = [1.4826 * float(np.median(np.abs(v - np.median(v)))) if len(v) > 2 else reach / 2 for v in seen]
    pick = max(_FLOOR_PX, spread[1]) if pick_error_px is None else pick_error_px
    # In excess: both spreads are guesses from few values, so that equal ones do not make a sure comparison.
    error = (max(np.sqrt(max(spread[0] ** 2 - spread[1] ** 2, 0.0)), 0.5 * pick, _FLOOR_PX), max(0.5 * pick, _FLOOR_PX))
    mean, precision = np.zeros_like(found_px), np.zeros((len(found_px), 2, 2))
    for direction, sigma in zip((across, along), error, strict=True):
        compared = np.where(usable, 1 / sigma**2, 0.0)
        total = 1 / pick**2 + compared
        mean += direction * ((found_px * direction).sum(axis=1) * compared / total)[:, None]
        precision += total[:, None, None] * direction[:, :, None] * direction[:, None, :]
    return ShiftPrior(mean, precision)


def mask_radius_px(box: int, pixel_size_A: float, diameter_A: float | None) -> float:
    """Half the particle's diameter; four fifths of the box without one."""
    return 0.4 * box if diameter_A is None else min(0.5 * diameter_A / pixel_size_A, 0.48 * box)


def shift_range_px(box: int, pixel_size_A: float, shift_range_A: float | None) -> int:
    """Largest shift, whole pixels."""
    return max(1, round(box / 8 if shift_range_A is None else shift_range_A / pixel_size_A))


def reconstruct_tilted(particles: Particles, settings: ConicalSettings, *, threads: int | None) -> Map:
    """A map of the tilted images: division on the grid, which noise disturbs least (docs/kernels.md)."""
    return reconstruct(
        particles,
        settings.symmetry,
        settings.max_resolution_A,
        ctf=settings.ctf,
        threads=threads,
        listener=None,
    )


def refine_tilted(
    tilted: Particles,
    poses: Poses,
    stage_angles_deg: FloatArray,
    prior: ShiftPrior,
    settings: ConicalSettings,
    *,
    threads: int | None = None,
) -> Poses:
    r"""Turns and shifts of the tilted images by maps of the others: the mean of the posterior.

    .. math:: \ln L = \sum_k \frac{g_k\, \mathrm{Re}\, F_k^* P_k - g_k^2 |P_k|^2 / 2}{\sigma_k^2}
              - \frac{\delta_1^2 + \delta_2^2}{2 \sigma_\psi^2} + \ln p(s)

    with the gain :math:`g` and the noise :math:`\sigma^2` of each shell from all images against the maps that they are
    not in, which is what keeps few noisy images from being fitted to themselves.

    Parameters
    ----------
    tilted : Particles
    poses : Poses
        Where they are thought to be: what maps and noise are made from.
    stage_angles_deg : (n, 3) float64
        Orientations as the in-plane angles and the stage say; turns are about these.
    prior : ShiftPrior
        p(s).
    settings : ConicalSettings
        ``turn_error_deg`` is :math:`\sigma_\psi`; shifts are searched to ``shift_range_A``.
    threads : int, optional

    Returns
    -------
    Poses
    """
    n, box, pixel = len(tilted), tilted.box, tilted.pixel_size_A
    lots = np.arange(n) % min(n, _LOTS)
    images = tilted.images()
    maps = [_map_without(tilted, poses, lots == lot, settings, threads) for lot in range(lots.max() + 1)]
    others = _OtherMaps(tilted, maps, lots, settings, threads)
    weights = _measure(images, poses, others)
    if not (weights.gain > 0).any():
        return poses
    width = 2 * settings.turn_error_deg
    offsets = np.linspace(-width, width, _TURNS) if width > 0 else np.zeros(1)
    reach = shift_range_px(box, pixel, settings.shift_range_A)
    transforms = np.conj(np.fft.rfft2(images)) * _on_grid(weights.gain / weights.noise, box)
    prior_shift = prior.on_grid(reach)
    mean = _PosteriorMean(n, reach)
    for first in offsets:
        for second in offsets:
            trial = stage_angles_deg + np.array([first, 0.0, second])
            views = np.fft.rfft2(others.views(trial))
            penalty = (first**2 + second**2) / (2 * max(settings.turn_error_deg, 1e-6) ** 2)
            mean.add(_likelihoods(transforms, views, weights, box, reach) + prior_shift - penalty, first, second)
    turns, shifts = mean.result()
    return Poses(stage_angles_deg + np.column_stack([turns[:, 0], np.zeros(n), turns[:, 1]]), shifts * pixel)


class _PosteriorMean:
    """Means of turns and shifts under exp(score), added turn by turn; the largest score so far is taken out."""

    def __init__(self, n: int, reach: int) -> None:
        self.window = np.arange(-reach, reach + 1)
        self.highest = np.full(n, -np.inf)
        self.total, self.sums = np.zeros(n), np.zeros((n, 4))

    def add(self, score: FloatArray, first: float, second: float) -> None:
        """Scores (n, y, x) of all shifts at one pair of turns."""
        highest = np.maximum(self.highest, score.max(axis=(1, 2)))
        old = np.exp(self.highest - highest)  # 0 at the first
        weight = np.exp(score - highest[:, None, None])
        total = weight.sum(axis=(1, 2))
        x, y = (weight.sum(axis=axis) @ self.window for axis in (1, 2))
        self.sums = self.sums * old[:, None] + np.column_stack([first * total, second * total, x, y])
        self.total, self.highest = self.total * old + total, highest

    def result(self) -> tuple[FloatArray, FloatArray]:
        """(n, 2) turns and (n, 2) shifts x, y."""
        means = self.sums / self.total[:, None]
        return means[:, :2], means[:, 2:]


def _on_grid(by_shell: FloatArray, box: int) -> FloatArray:
    """Values of the shells on the half transform of an image; 0 beyond the last."""
    return np.append(by_shell, 0.0)[np.minimum(fourier.shells((box, box)), len(by_shell))]


def _likelihoods(transforms: np.ndarray, views: np.ndarray, weights: _Weights, box: int, reach: int) -> FloatArray:
    """Log-likelihood of each image at whole shifts up to ``reach``, (n, 2 reach + 1, 2 reach + 1), y then x."""
    # The sum over the whole plane: irfft2 divides by the number of pixels.
    cross = np.fft.irfft2(transforms * views, (box, box)) * float(box) ** 2
    factor = _on_grid(weights.gain**2 / weights.noise, box) * fourier.half_weights((box, box))
    power = (np.abs(views) ** 2 * factor).sum(axis=(1, 2))
    window = np.arange(-reach, reach + 1)
    # F moved by s is F exp(-2 pi i k s / N); its cross term with P is the correlation at s.
    return cross[:, window[:, None] % box, window % box] - 0.5 * power[:, None, None]


def _map_without(
    tilted: Particles, poses: Poses, out: np.ndarray, settings: ConicalSettings, threads: int | None
) -> Map:
    rows = np.flatnonzero(~out)
    made = reconstruct_tilted(tilted[rows].with_poses(poses[rows]), settings, threads=threads)
    radius = mask_radius_px(made.box, made.pixel_size_A, settings.diameter_A)
    return made.with_data(made.data * soft_sphere(made.box, radius, 3.0))


@dataclass(frozen=True, eq=False)
class _OtherMaps:
    """Tilted images in lots, and of each lot the map of the others."""

    tilted: Particles
    maps: list[Map]
    lots: IntArray
    settings: ConicalSettings
    threads: int | None

    def views(self, angles_deg: FloatArray) -> Float32Array:
        """Projections, each from the map that its image is not in."""
        views = np.empty((len(self.lots), self.tilted.box, self.tilted.box), np.float32)
        for lot, made in enumerate(self.maps):
            rows = np.flatnonzero(self.lots == lot)
            optics = self.tilted[rows].optics if self.settings.ctf else None
            views[rows] = project(made, Poses(angles_deg[rows]), optics, threads=self.threads)
        return views


def _measure(images: Float32Array, poses: Poses, others: _OtherMaps) -> _Weights:
    """Gain and noise of each shell, from the images at the poses they have."""
    views = others.views(poses.angles_deg)
    box = others.tilted.box
    shells = fourier.shells((box, box))
    count = (box - 1) // 2 + 1
    index = np.minimum(shells, count).ravel()
    half = fourier.half_weights((box, box))

    def total(values: np.ndarray) -> FloatArray:
        summed = (values * half).sum(axis=0).ravel()
        return np.bincount(index, weights=summed, minlength=count + 1)[:count].astype(np.float64)

    frequency = np.fft.fftfreq(box), np.fft.rfftfreq(box)
    shift_px = poses.shifts_A / others.tilted.pixel_size_A
    phase = np.exp(
        -2j * np.pi * (shift_px[:, 0, None, None] * frequency[1] + shift_px[:, 1, None, None] * frequency[0][:, None])
    )
    f, p = (np.fft.rfft2(v.astype(np.float64)) for v in (images, views))
    f = f * phase
    cross, power, own = total((f * np.conj(p)).real), total(np.abs(p) ** 2), total(np.abs(f) ** 2)
    coefficients = total(np.ones((1, *f.shape[1:]))) * len(images)
    gain = np.divide(cross, power, out=np.zeros(count), where=power > 0)
    # Shells whose agreement chance explains, of which few noisy images have many, say nothing.
    agreement = np.divide(cross, np.sqrt(power * own), out=np.zeros(count), where=power * own > 0)
    gain = np.where(agreement > 2 / np.sqrt(np.maximum(coefficients / 2, 1)), gain, 0.0)
    gain[0] = 0.0  # the mean is the background's
    noise = (own - gain**2 * power) / np.maximum(coefficients, 1)
    return _Weights(gain, np.maximum(noise, _TRUST * own / np.maximum(coefficients, 1) + 1e-300))
