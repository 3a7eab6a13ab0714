r"""Gradient descent on mini-batches of the data: plain, with momentum, Nesterov's, and Adam.

Of the cost :math:`\tfrac12 (f - A x)^T W (f - A x)` a batch B of rows gives the gradient estimate
:math:`g = -(m / |B|)\, A_B^T W_B (f_B - A_B x)`, whose mean over random batches is the gradient. One batch of all
rows is batch gradient descent, one row each is stochastic gradient descent (Robbins and Monro 1951).
"""

from __future__ import annotations

import numpy as np

from verglas.errors import InputError
from verglas.reconstruction.solvers.course import Course, Solution
from verglas.reconstruction.solvers.row_action import block_rows
from verglas.reconstruction.solvers.stationary import _matrix, largest_eigenvalue, row_norms
from verglas.types.arrays import FloatArray

VARIANTS = ("plain", "momentum", "nesterov", "adam")
_ADAM_SECOND, _ADAM_LEAST = 0.999, 1e-12


def sgd(
    course: Course,
    *,
    relaxation: float = 1.0,
    batches: int = 1,
    variant: str = "plain",
    momentum: float = 0.9,
    decay: float = 0.0,
    seed: int = 0,
) -> Solution:
    r"""Mini-batch gradient descent; an iteration is one pass over all rows in random batches.

    Steps are :math:`\eta_t = \eta / (1 + \text{decay}\; t)` in pass t, eta = relaxation / L, L a bound of the curvature
    of any batch's estimate: sigma_max^2 for one batch of all rows, up to m / |B| times that for smaller ones. With v
    the velocity and mu the momentum: ``plain`` x - eta g; ``momentum`` v = mu v - eta g, x + v (Polyak 1964);
    ``nesterov`` the same with the gradient at x + mu v (Nesterov 1983), both with eta (1 - mu) of several batches,
    since velocities add up what batches disagree about; ``adam`` steps of eta in units of the running root mean square
    of each unknown's gradient (Kingma and Ba 2015), eta = relaxation times the mean abs of f over that of A's rows'
    norms. Batches of noisy data do not agree on x: without decay it wanders about the solution.

    Raises
    ------
    InputError
        An unknown variant, a momentum outside 0 to 1, a negative decay, or complex data.
    """
    system = course.system
    if variant not in VARIANTS:
        raise InputError(f"sgd: expected a variant of {', '.join(VARIANTS)}, got {variant!r}")
    if not (0 <= momentum < 1 and decay >= 0):
        raise InputError(f"sgd: expected 0 <= momentum < 1 and a decay of 0 or more, got {momentum} and {decay}")
    if np.iscomplexobj(system.data):
        raise InputError("sgd: takes real data; split complex data into real and imaginary rows")
    matrix = _matrix(system)
    weights = np.ones(len(system.data)) if system.weights is None else system.weights
    x = system.first().astype(np.float64)
    slower = 1 - momentum if batches > 1 and variant in ("momentum", "nesterov") else 1.0
    step = slower * relaxation * (_adam_step(course) if variant == "adam" else 1 / _curvature(course, batches))
    rng, velocity, square, count = np.random.default_rng(seed), np.zeros_like(x), np.zeros_like(x), 0
    sizes = block_rows(len(system.data), batches)
    while True:
        order = rng.permutation(len(system.data)) if batches > 1 else np.arange(len(system.data))
        now = step / (1 + decay * len(course.residuals))
        for places in sizes:
            rows = order[places]
            at = x + momentum * velocity if variant == "nesterov" else x
            part, count = matrix[rows], count + 1
            miss = weights[rows] * (system.data[rows] - part @ at)
            gradient = -(len(order) / len(rows)) * (part.T @ miss)
            if variant == "adam":
                velocity = momentum * velocity + (1 - momentum) * gradient
                square = _ADAM_SECOND * square + (1 - _ADAM_SECOND) * gradient**2
                x = x - now * _adam_direction(velocity, square, momentum, count)
            else:
                velocity = (0.0 if variant == "plain" else momentum) * velocity - now * gradient
                x = x + velocity
        if course.take(x, system.residual(x)):
            return course.solution(x)


def _curvature(course: Course, batches: int) -> float:
    """Largest eigenvalue that (m / |B|) A_B^T W_B A_B of any batch can have: a longer step would not converge."""
    system = course.system
    rows = len(system.data)
    largest = largest_eigenvalue(system)
    if batches == 1:
        return largest
    least = min(len(one) for one in block_rows(rows, batches))
    powers = row_norms(system)
    powers = np.sort(powers if system.weights is None else powers * system.weights)[::-1]
    # A batch has no more than its trace, nor than the whole; batches of two sizes differ by one row.
    sizes = {least, min(least + 1, rows)}
    return max(rows / size * min(float(powers[:size].sum()), largest) for size in sizes)


def _adam_step(course: Course) -> float:
    system = course.system
    rows = np.sqrt(row_norms(system))
    return float(np.abs(system.data).mean() / max(float(rows.mean()), 1e-300))


def _adam_direction(velocity: FloatArray, square: FloatArray, momentum: float, count: int) -> FloatArray:
    """Mean gradient over its root mean square, both without the bias of having begun at zero."""
    mean = velocity / (1 - momentum**count)
    return np.asarray(mean / (np.sqrt(square / (1 - _ADAM_SECOND**count)) + _ADAM_LEAST))
