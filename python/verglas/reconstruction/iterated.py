r"""Iterated reconstruction of particles from their normal equations: SIRT, plain conjugate gradients, total variation.

All work on b = A^T y and on B = A^T A, a convolution (:class:`verglas.reconstruction.least_squares.NormalOperator`): an
iteration costs two transforms of a box of 2N, however many particles there are. SIRT and conjugate gradients are
regularised by ending early; the weight of total variation is that under which each half of the particles explains the
other best: for a map x of one half, the other half's :math:`\tfrac12 x^T B_2 x - x^T b_2` is what its squared residual
depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from verglas._native import resolve_threads
from verglas.reconstruction import least_squares
from verglas.reconstruction.least_squares import NormalOperator, Solution
from verglas.reconstruction.priors import TotalVariation
from verglas.types.arrays import Array, Float32Array

ITERATED = ("sirt", "cg", "tv")
ITERATIONS = {"sirt": 60, "cg": 12, "tv": 40}
_TV_WEIGHTS = (0.1, 0.3, 1.0, 3.0)  # standard deviations of b's noise, tried where no weight is given
_PROX_ITERATIONS = 8  # each starts near the last map, which has little variation left


@dataclass(frozen=True)
class TvWeight:
    """A weight of total variation and how it was chosen.

    Attributes
    ----------
    weight : float
        In standard deviations of the noise of b.
    noise : float
        That standard deviation, of b of all particles.
    tried : list of (float, float)
        Weight, and the other half's relative squared residual; lower is better.
    """

    weight: float
    noise: float
    tried: Sequence[tuple[float, float]] = ()


def iterate_map(
    operator: NormalOperator,
    right_side: Float32Array,
    method: str,
    iterations: int | None = None,
    *,
    tv_weight: float = 0.0,
    threads: int | None = None,
) -> Solution:
    """Map from the normal equations, inside the operator's support.

    Parameters
    ----------
    operator : NormalOperator
        B.
    right_side : (N, N, N) float32
        b.
    method : {"sirt", "cg", "tv"}
    iterations : int, optional
        60, 12, 40.
    tv_weight : float
        Of total variation, in the unit of b.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Solution
        Its residuals are those of the normal equations, relative.
    """
    workers, steps = resolve_threads(threads), iterations or ITERATIONS[method]
    if method == "cg":
        # Without the preconditioner: the course of the plain method is what ending early regularises.
        plain = replace(operator, preconditioner=np.ones_like(operator.preconditioner))
        return least_squares.solve(plain, right_side, iterations=steps, tolerance=0.0, threads=threads)
    b = right_side * operator.support
    # No eigenvalue of a convolution, restricted to a support, is larger than the largest value of its transfer.
    rate = np.float32(1 / max(float(np.abs(operator.transfer).max()), 1e-30))
    prior = TotalVariation(tv_weight, iterations=_PROX_ITERATIONS) if method == "tv" and tv_weight > 0 else None
    x, residuals = np.zeros_like(b), []
    ahead, momentum, norm = x, 1.0, max(float(np.linalg.norm(b)), 1e-30)
    for _ in range(steps):
        slope = b - operator.apply(ahead, workers)
        residuals.append(float(np.linalg.norm(slope)) / norm)
        fresh = ahead + rate * slope
        if method == "sirt":
            x = ahead = fresh
            continue
        if prior is not None:
            fresh = np.asarray(prior.prox(fresh, float(rate)) * operator.support, np.float32)
        following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        ahead = fresh + np.float32((momentum - 1) / following) * (fresh - x)
        x, momentum = fresh, following
    return Solution(x, residuals)


def choose_tv_weight(
    operators: Sequence[NormalOperator],
    right_sides: Sequence[Float32Array],
    weight: float | None = None,
    iterations: int | None = None,
    *,
    threads: int | None = None,
) -> TvWeight:
    """The weight under which the map of each half of the particles explains the other half best.

    Parameters
    ----------
    operators, right_sides : pairs
        B and b of both halves.
    weight : float, optional
        To be used in any case; only the noise is measured then.
    iterations : int, optional
        Of each map.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    TvWeight
    """
    workers = resolve_threads(threads)
    inside = operators[0].support > 0
    # The halves' b hold the same signal and independent noise; half of the difference of their sums is their noise.
    half_noise = float((right_sides[0] - right_sides[1])[inside].std() / np.sqrt(2))
    noise = half_noise * float(np.sqrt(2))
    if weight is not None:
        return TvWeight(weight, noise)
    tried = []
    for factor in _TV_WEIGHTS:
        losses = []
        for own in (0, 1):
            steps = max(1, (iterations or ITERATIONS["tv"]) // 2)  # enough to rank weights
            strength = factor * half_noise
            made = iterate_map(operators[own], right_sides[own], "tv", steps, tv_weight=strength, threads=threads)
            losses.append(_relative_loss(operators[1 - own], right_sides[1 - own], made.volume, workers))
        tried.append((factor, float(np.mean(losses))))
    best = min(tried, key=lambda one: one[1])
    return TvWeight(best[0], noise, tried)


def _relative_loss(operator: NormalOperator, right_side: Float32Array, x: Array, workers: int) -> float:
    """1/2 x^T B x - x^T b in units of b^T b over the largest value of the transfer; 0 for an empty map."""
    quadratic = float(np.sum(x * operator.apply(x, workers), dtype=np.float64))
    linear = float(np.sum(x * right_side, dtype=np.float64))
    power = float(np.sum(right_side * right_side, dtype=np.float64))
    return (0.5 * quadratic - linear) * float(np.abs(operator.transfer).max()) / max(power, 1e-30)
