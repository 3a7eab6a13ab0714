"""Alignability: how sharply, and how rightly, images of particles tell their orientation against a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas.geometry import euler_to_matrix, orientation_grid, symmetry_matrices
from verglas.optics.refine import Calibration, Pixels, Setting
from verglas.optics.refine.pixels import Reference, gather, image_spectra, transfer
from verglas.types.arrays import Float32Array, FloatArray, IntArray, any_arrays
from verglas.types.display import one_line
from verglas.types.verdict import Finding

_STEP_DEG = 15.0
_POSES = 512  # slices at a time
_ENTRIES = 1 << 22  # distances at a time
_LEAST_POSTERIOR = 1e-7
_ELSEWHERE = 0.5  # of the precision: the images say another orientation than the file
_PRECISE = 0.3  # less says nothing of where a particle is
_MOST_ELSEWHERE = 0.2


@one_line
@dataclass(frozen=True, eq=False)
class Alignability:
    """Scores of n particles, 0 (nothing is known) to 1.

    Attributes
    ----------
    precision : (n,) float64
        How narrow the posterior of the orientation is about its best one.
    accuracy : (n,) float64
        How near it lies to the orientation that the particle has in its file.
    """

    precision: FloatArray
    accuracy: FloatArray

    @property
    def elsewhere(self) -> float:
        """Share whose images are for another orientation: a precision of 0.3, and an accuracy below half of it."""
        return float(np.mean((self.precision >= _PRECISE) & (self.accuracy < _ELSEWHERE * self.precision)))


def judge_alignability(alignability: Alignability) -> Finding:
    """Whether the poses are those that the images are for.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.alignability import Alignability, judge_alignability
    >>> judge_alignability(Alignability(np.full(10, 0.8), np.r_[np.full(6, 0.7), np.zeros(4)])).sentence
    'of 10 images 40 % favour another orientation than the one in the file, 0 % favour none'
    """
    share = alignability.elsewhere
    precision, accuracy = float(np.median(alignability.precision)), float(np.median(alignability.accuracy))
    vague = float(np.mean(alignability.precision < _PRECISE))
    sentence = (
        f"of {len(alignability.precision)} images {100 * share:.0f} % favour another orientation than the one in the "
        f"file, {100 * vague:.0f} % favour none"
    )
    numbers = {
        "elsewhere": share,
        "imprecise": vague,
        "precision": precision,
        "accuracy": accuracy,
        "particles": len(alignability.precision),
    }
    return Finding("alignability", "warn" if share > _MOST_ELSEWHERE else "go on", sentence, numbers)


@any_arrays
def alignability(
    setting: Setting,
    calibration: Calibration,
    rows: IntArray,
    *,
    diameter_A: float,
    symmetry: str = "C1",
    step_deg: float = _STEP_DEG,
) -> Alignability:
    r"""Precision and accuracy of the alignment of particles to the other half's map.

    The posterior p over a grid of all orientations (particles stay where they lie, data as fine as the grid can follow)
    is compared with one that knows nothing. With d the angle between orientations modulo the point group,

    .. math::
        \mathrm{precision} = 1 - \frac{\sum_j p_j\, d(R_j, \hat R)}{\langle d(R_j, \hat R) \rangle_j}, \qquad
        \mathrm{accuracy} = 1 - \frac{\sum_j p_j\, d(R_j, R)}{\langle d(R_j, R) \rangle_j}

    with :math:`\hat R` the best orientation and R the particle's own; both are cut at 0. An object with a symmetry that
    is not stated, a ball, or noise spread the posterior and score low. The grid leaves a few hundredths to 1.

    Parameters
    ----------
    setting, calibration
        As of :func:`verglas.assessment.particle_scores.score_particles`.
    rows : (m,) int64
        Which particles; each costs a product with every slice of the grid.
    diameter_A : float
        Of the particle: what the data may resolve at this step.
    symmetry : str
        Point group of the map.
    step_deg : float
        Of the grid.

    Returns
    -------
    Alignability

    References
    ----------
    Vargas et al. (2016) Sci. Rep. 6, 21626: precision and accuracy from the spread of the best directions against that
    of noise. Here from the posterior, in closed form.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import alignability
    >>> from verglas.optics.refine import Pixels, Setting, calibrate
    >>> model = vg.simulate.phantom(24, 4.0, 60.0)
    >>> truth, p = vg.simulate.density(model, 24, 4.0), vg.simulate.particles(model, 40, 24, 4.0, snr=2.0, seed=1)
    >>> setting = Setting.of(p, np.arange(40) % 2, (truth, truth), Pixels(24, 4.0, 2, 10))
    >>> found = alignability(setting, calibrate(setting), np.arange(8), diameter_A=60.0, step_deg=30)
    >>> bool(np.median(found.precision) > 0.6), bool(np.median(found.accuracy) > 0.6)
    (True, True)
    """
    pixels = _coarse(setting.pixels, diameter_A, step_deg)
    directions, psi = orientation_grid(step_deg, symmetry)
    grid = euler_to_matrix(np.column_stack([np.repeat(directions, len(psi), axis=0), np.tile(psi, len(directions))]))
    group = symmetry_matrices(symmetry)
    precision, accuracy = np.zeros(len(rows)), np.zeros(len(rows))
    for h in (0, 1):
        amplitude = calibration.amplitude[h][: pixels.shells][pixels.shell].astype(np.float32)
        reference = _GridReference(amplitude, _slices(setting.references[h].on(pixels), grid, pixels))
        mine = np.flatnonzero(setting.half[rows] == h)
        size = max(1, _ENTRIES // (len(grid) * len(group)))
        for begin in range(0, len(mine), size):
            part = mine[begin : begin + size]
            posterior = _posterior(setting, calibration, rows[part], pixels, reference)
            assert setting.particles.poses is not None
            own = euler_to_matrix(setting.particles.poses.angles_deg[rows[part]])
            precision[part] = _concentration(posterior, grid, grid[posterior.argmax(axis=1)], group)
            accuracy[part] = _concentration(posterior, grid, own, group)
    return Alignability(precision, accuracy)


@dataclass(frozen=True)
class _GridReference:
    """A half map on a grid of poses: its amplitude against the images' on each pixel, and its slices."""

    amplitude: Float32Array
    slices: Float32Array


def _coarse(pixels: Pixels, diameter_A: float, step_deg: float) -> Pixels:
    """Shells that turn by less than a pixel's resolution over half a step: 1 / (radius times half the step)."""
    finest_A = diameter_A / 2 * np.deg2rad(step_deg)
    last = int(np.clip(np.floor(pixels.box * pixels.pixel_size_A / finest_A), pixels.first + 3, pixels.last))
    return Pixels(pixels.box, pixels.pixel_size_A, pixels.first, last)


def _slices(reference: Reference, grid: FloatArray, pixels: Pixels) -> Float32Array:
    """(poses, 2 m): real and imaginary parts of the slices on the pixels."""
    out = np.empty((len(grid), 2 * len(pixels)), np.float32)
    for begin in range(0, len(grid), _POSES):
        some = gather(reference.slices_at(grid[begin : begin + _POSES]), pixels)
        out[begin : begin + len(some), : len(pixels)] = some.real
        out[begin : begin + len(some), len(pixels) :] = some.imag
    return out


def _posterior(
    setting: Setting,
    calibration: Calibration,
    rows: IntArray,
    pixels: Pixels,
    reference: _GridReference,
) -> FloatArray:
    """(m, poses): of the orientations, where the particle lies known."""
    slices = reference.slices
    some = setting.particles[rows]
    params = some.optics.as_params()
    inverse = (1 / calibration.noise[setting.group[rows]][:, : pixels.shells]).astype(np.float32)[:, pixels.shell]
    assert some.poses is not None
    # to the centre: a particle that lies at d has exp(-2 pi i k d), and d is minus the origin of the file
    turn = np.exp(-2j * np.pi * (some.poses.shifts_A @ np.stack([pixels.kx, pixels.ky])))
    image = gather(image_spectra(some, setting.threads), pixels) * turn
    contrast = transfer(params, pixels, setting.threads)[0] * reference.amplitude
    weighted = image * contrast * inverse
    both = np.concatenate([weighted.real, weighted.imag], axis=1).astype(np.float32)
    power = slices[:, : len(pixels)] ** 2 + slices[:, len(pixels) :] ** 2
    score = 2 * (both @ slices.T) - (contrast**2 * inverse) @ power.T
    score = np.exp((score - score.max(axis=1, keepdims=True)).astype(np.float64))
    posterior: FloatArray = score / score.sum(axis=1, keepdims=True)
    return np.where(posterior < _LEAST_POSTERIOR, 0.0, posterior)


def _concentration(posterior: FloatArray, grid: FloatArray, about: FloatArray, group: FloatArray) -> FloatArray:
    """1 - mean angle from ``about`` (m, 3, 3) under the posterior over that of the even grid, cut at 0."""
    flat = grid.reshape(-1, 9)
    trace = np.max([flat @ (about @ g).reshape(-1, 9).T for g in group], axis=0)
    angle = np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0))
    # the posterior's small values were cut off: what is left is not quite one
    mean = (posterior.T * angle).sum(axis=0) / posterior.sum(axis=1)
    return np.clip(1 - mean / angle.mean(axis=0), 0.0, 1.0)
