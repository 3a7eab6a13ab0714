r"""Defocus of every particle, with a prior whose width the particles decide.

The phase of a particle's CTF is linear in its defocus: with theta = pi lambda k^2 times a change of defocus, the model
is (sin chi cos theta + cos chi sin theta) P. Sums over narrow bins of k^2 therefore hold the likelihood of every change
at once, and all changes on a grid cost one product of matrices.

Heights of particles of a micrograph scatter about a plane. The prior is N(plane, width^2) of the defocus, or N(mean,
width^2) of its change, whichever has the larger evidence; plane and width maximise the evidence of all particles (EM).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas._array_module import array_module, to_host
from verglas.optics.refine.held_out import HeldOutGain
from verglas.optics.refine.pixels import Pixels, PixelTerms
from verglas.types.arrays import Array, Float32Array, FloatArray, IntArray

_BINS = 256
_STEP_A = 25.0
_EM_ROUNDS = 40
_LEAST_WIDTH_A = 5.0
_LEAST_FOR_A_PLANE = 12


@dataclass(frozen=True)
class DefocusFit(HeldOutGain):
    """Change of defocus of n particles.

    Attributes
    ----------
    change_A, standard_error_A : (n,) float64
        Mean and standard deviation of the posterior.
    width_A : float
        Of the prior.
    about : str
        What the prior is about: ``"plane"`` or ``"change"``.
    gain_nats, gain_error_nats : float
        What pixels that a fit did not see gain, all particles together, and its standard error.
    """

    change_A: FloatArray
    standard_error_A: FloatArray
    width_A: float
    about: str
    gain_nats: float
    gain_error_nats: float


class DefocusScores:
    """Log-likelihood of changes of defocus on a grid, of both halves of the pixels."""

    def __init__(self, count: int, pixels: Pixels, range_A: float) -> None:
        self.changes_A = np.arange(-np.ceil(range_A / _STEP_A), np.ceil(range_A / _STEP_A) + 1) * _STEP_A
        self.values = np.zeros((2, count, len(self.changes_A)), np.float32)
        self._starts: list[IntArray] = []
        self._k2: list[FloatArray] = []
        edge = int(np.count_nonzero(pixels.half == 0))
        for begin, end in ((0, edge), (edge, len(pixels))):
            k2 = pixels.k2[begin:end]
            bins = ((k2 - k2[0]) / max(k2[-1] - k2[0], 1e-12) * (_BINS - 1e-6)).astype(np.int64)
            starts = np.flatnonzero(np.diff(bins, prepend=-1))
            self._starts.append(starts + begin)
            self._k2.append(np.add.reduceat(k2, starts) / np.diff(np.append(starts, len(k2))))

    def add(self, rows: IntArray, batch: PixelTerms, amplitude: Float32Array, wavelength_A: float) -> None:
        """Of a batch whose particles share a wavelength; ``amplitude`` (m,) is the reference's of each pixel."""
        xp = array_module(batch.cross)
        of_pixels = xp.asarray(amplitude)
        real = batch.cross.real * of_pixels
        power = batch.power * of_pixels**2
        terms = (
            real * batch.sine,
            real * batch.cosine,
            power * ((batch.sine - batch.cosine) * (batch.sine + batch.cosine)),
            power * (batch.sine * batch.cosine),
        )
        starts = np.concatenate(self._starts)
        binned = [_bin_sums(term, starts) for term in terms]
        first = len(self._starts[0])
        for half, part in enumerate((slice(0, first), slice(first, None))):
            theta = np.pi * wavelength_A * np.outer(self._k2[half], self.changes_A)
            tables = (2 * np.cos(theta), 2 * np.sin(theta), -0.5 * np.cos(2 * theta), -np.sin(2 * theta))
            score = sum(b[:, part] @ t.astype(np.float32) for b, t in zip(binned, tables, strict=True))
            self.values[half, rows] = score


def _bin_sums(values: Array, starts: IntArray) -> Float32Array:
    """(n, bins) sums of (n, m) from one start to the next, on the host; CuPy has no ``reduceat``."""
    xp = array_module(values)
    if xp is np:
        return np.asarray(np.add.reduceat(values, starts, axis=1))
    # in double precision: differences of sums over all pixels
    running = xp.cumsum(values, axis=1, dtype=np.float64)[:, xp.asarray(np.append(starts[1:], values.shape[1]) - 1)]
    return np.diff(to_host(running), axis=1, prepend=0.0).astype(np.float32)


@dataclass(frozen=True)
class Prior:
    """Normal prior of each particle's change, and its evidence."""

    mean_A: FloatArray
    width_A: float
    evidence: float


def _posterior(score: Float32Array, changes_A: FloatArray, mean_A: FloatArray, width_A: float) -> tuple[Array, ...]:
    """Mean, variance and log evidence of every particle."""
    log = score - 0.5 * ((changes_A - mean_A[:, None]) / width_A) ** 2
    top = log.max(axis=1, keepdims=True)
    p = np.exp(log - top)
    total = p.sum(axis=1)
    mean = p @ changes_A / total
    variance = p @ changes_A**2 / total - mean**2
    step = changes_A[1] - changes_A[0]
    evidence = top[:, 0] + np.log(total * step / (width_A * np.sqrt(2 * np.pi)))
    # a posterior narrower than the grid: the parabola through its three highest values
    at = log.argmax(axis=1).clip(1, log.shape[1] - 2)
    rows = np.arange(len(log))
    low, mid, high = log[rows, at - 1], log[rows, at], log[rows, at + 1]
    curve = np.maximum(2 * mid - low - high, 1e-9)
    narrow = variance < (0.7 * step) ** 2
    peak = changes_A[at] + step * np.clip(0.5 * (high - low) / curve, -1, 1)
    return np.where(narrow, peak, mean), np.where(narrow, step**2 / curve, variance), evidence


def _plane(values_A: FloatArray, micrograph: IntArray, xy: FloatArray | None) -> FloatArray:
    """Least-squares plane of each micrograph at its particles; the mean where they are few."""
    count = np.bincount(micrograph)
    mean = (np.bincount(micrograph, values_A) / np.maximum(count, 1))[micrograph]
    if xy is None:
        return np.asarray(mean)
    centred = xy - np.stack([np.bincount(micrograph, v) / np.maximum(count, 1) for v in xy.T], axis=1)[micrograph]
    rest = values_A - mean
    products = {
        name: np.bincount(micrograph, value)
        for name, value in {
            "xx": centred[:, 0] ** 2,
            "xy": centred[:, 0] * centred[:, 1],
            "yy": centred[:, 1] ** 2,
            "xz": centred[:, 0] * rest,
            "yz": centred[:, 1] * rest,
        }.items()
    }
    det = products["xx"] * products["yy"] - products["xy"] ** 2
    good = (count >= _LEAST_FOR_A_PLANE) & (det > 1e-6 * products["xx"] * products["yy"]) & (det > 0)
    safe = np.where(good, det, 1.0)
    a = np.where(good, (products["xz"] * products["yy"] - products["yz"] * products["xy"]) / safe, 0.0)
    b = np.where(good, (products["yz"] * products["xx"] - products["xz"] * products["xy"]) / safe, 0.0)
    return np.asarray(mean + a[micrograph] * centred[:, 0] + b[micrograph] * centred[:, 1])


Where = tuple[IntArray, FloatArray | None]  # micrograph of each particle, and its place there


def _learn(score: Float32Array, changes_A: FloatArray, base_A: FloatArray, where: Where) -> Prior:
    """EM of plane and width; ``base_A`` is what the plane is of, without the change."""
    width = float(changes_A[-1] / 4)
    mean = _plane(base_A, *where) - base_A
    for _ in range(_EM_ROUNDS):
        best, variance, _ = _posterior(score, changes_A, mean, width)
        mean = _plane(base_A + best, *where) - base_A
        new = max(float(np.sqrt(np.mean((best - mean) ** 2 + variance))), _LEAST_WIDTH_A)
        if abs(new / width - 1) < 1e-3:
            break
        width = new
    return Prior(mean, width, float(_posterior(score, changes_A, mean, width)[2].sum()))


def fit_defocus(
    scores: DefocusScores, defocus_A: FloatArray, micrograph: IntArray, xy: FloatArray | None = None
) -> DefocusFit:
    """Changes of defocus, and what held-out pixels say of them.

    Parameters
    ----------
    scores : DefocusScores
    defocus_A : (n,) float64
        Mean of the two defoci of each particle, as they are.
    micrograph : (n,) int64
        Numbers from 0.
    xy : (n, 2) float64, optional
        Where each lies on its micrograph.

    Returns
    -------
    DefocusFit
    """
    changes = scores.changes_A
    whole = scores.values.sum(axis=0)
    choices: dict[str, tuple[FloatArray, Where]] = {
        "plane": (defocus_A, (micrograph, xy)),
        "change": (np.zeros_like(defocus_A), (np.zeros_like(micrograph), None)),
    }
    priors = {name: _learn(whole, changes, *choice) for name, choice in choices.items()}
    about = max(priors, key=lambda name: priors[name].evidence)
    prior, (base, where) = priors[about], choices[about]
    best, variance, _ = _posterior(whole, changes, prior.mean_A, prior.width_A)
    gains = np.zeros(len(best))
    for half in range(2):
        own = _learn(scores.values[half], changes, base, where)  # nor may the plane know of the unseen half
        guess = _posterior(scores.values[half], changes, own.mean_A, own.width_A)[0]
        gains += _at(scores.values[1 - half], changes, guess) - _at(scores.values[1 - half], changes, 0 * guess)
    error = float(np.sqrt(len(gains)) * gains.std()) if len(gains) > 1 else np.inf
    return DefocusFit(best, np.sqrt(np.maximum(variance, 0.0)), prior.width_A, about, float(gains.sum()), error)


def _at(score: Float32Array, changes_A: FloatArray, change_A: FloatArray) -> FloatArray:
    """The score at a change between grid points: a parabola through the three nearest."""
    step = changes_A[1] - changes_A[0]
    at = np.rint((change_A - changes_A[0]) / step).astype(np.int64).clip(1, len(changes_A) - 2)
    t = (change_A - changes_A[at]) / step
    rows = np.arange(len(score))
    low, mid, high = (score[rows, at + i].astype(np.float64) for i in (-1, 0, 1))
    return np.asarray(mid + 0.5 * t * (high - low) + 0.5 * t**2 * (high + low - 2 * mid))
