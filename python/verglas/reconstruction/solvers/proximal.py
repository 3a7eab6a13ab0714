r"""Regularised least squares: minimise 1/2 (f - A x)^T W (f - A x) + phi(x), phi a prior with a proximal operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verglas.errors import InputError
from verglas.reconstruction.priors import Prior
from verglas.reconstruction.solvers.course import Course, Solution, System, norm
from verglas.reconstruction.solvers.stationary import _inverse, absolute_sums, largest_eigenvalue
from verglas.types.arrays import Array


def fista(course: Course, prior: Prior) -> Solution:
    """Accelerated proximal gradient with restarts (Beck and Teboulle 2009; O'Donoghue and Candes 2015)."""
    system = course.system
    rate = 1 / largest_eigenvalue(system)  # which is rounded up: a longer step may diverge
    x = system.first()
    ahead, momentum = x.copy(), 1.0
    while True:
        fresh = prior.prox(ahead + rate * system.back(system.residual(ahead)), rate)
        if np.vdot(ahead - fresh, fresh - x).real > 0:  # the momentum points uphill
            momentum = 1.0
        following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        ahead = fresh + ((momentum - 1) / following) * (fresh - x)
        x, momentum = fresh, following
        if course.take(x, system.residual(x)):
            return course.solution(x)


def admm(course: Course, priors: Sequence[Prior], penalty: float | None = None, inner: int = 20) -> Solution:
    """Alternating directions for any number of priors and sets at once (Boyd et al. 2011).

    Each prior gets a copy of x; the x-step solves (B + penalty K) x = b + ... by ``inner`` conjugate gradients from the
    last x. The penalty follows the residuals of primal and dual (their section 3.4.1), so its start matters little.
    """
    system = course.system
    if not priors:
        raise InputError("admm: expected one prior or more")
    rho = largest_eigenvalue(system) / 10 if penalty is None else penalty
    x, b = system.first().astype(np.float64), system.back(system.data)
    copies, duals = [x.copy() for _ in priors], [np.zeros_like(x) for _ in priors]
    while True:
        target = b + rho * sum(z - u for z, u in zip(copies, duals, strict=True))
        x = _normal_cg(system, target, rho * len(priors), x, inner)
        before = copies
        copies = [p.prox(x + u, 1 / rho) for p, u in zip(priors, duals, strict=True)]
        duals = [u + x - z for z, u in zip(copies, duals, strict=True)]
        if course.take(copies[-1], system.residual(copies[-1])):
            return course.solution(copies[-1])
        primal = sum(norm(x - z) for z in copies)
        dual = rho * sum(norm(new - old) for new, old in zip(copies, before, strict=True))
        factor = 2.0 if primal > 10 * dual else 0.5 if dual > 10 * primal else 1.0
        # Scaled duals are y / rho: a new rho must change them, or the multipliers y would jump (Boyd et al. 2011,
        # 3.4.1).
        rho, duals = rho * factor, [u / factor for u in duals]


def _normal_cg(system: System, target: Array, ridge: float, x: Array, steps: int) -> Array:
    residual = target - system.normal(x) - ridge * x
    direction, power = residual.copy(), float(residual @ residual)
    stop = 1e-16 * max(float(target @ target), 1e-300)
    for _ in range(steps):
        if power <= stop:
            break
        image = system.normal(direction) + ridge * direction
        step = power / float(direction @ image)
        x = x + step * direction
        residual = residual - step * image
        before, power = power, float(residual @ residual)
        direction = residual + (power / before) * direction
    return x


def primal_dual(course: Course, prior: Prior) -> Solution:
    """Chambolle and Pock (2011) on the data term's dual: one A and one A^T a step, the prior's prox alone."""
    system = course.system
    bound = np.sqrt(largest_eigenvalue(replace(system, weights=None)))
    # Convergence needs tau sigma |A|^2 < 1.
    tau = sigma = 0.95 / bound
    weights = np.ones(len(system.data)) if system.weights is None else np.asarray(system.weights)
    x = system.first().astype(np.float64)
    ahead, dual = x.copy(), np.zeros(len(system.data))
    weighted = weights > 0
    while True:
        dual = dual + sigma * (system.operator.matvec(ahead) - system.data)
        dual = np.where(weighted, dual / (1 + sigma * _inverse(weights)), 0.0)
        fresh = prior.prox(x - tau * system.operator.rmatvec(dual), tau)
        ahead, x = 2 * fresh - x, fresh
        if course.take(x, system.residual(x)):
            return course.solution(x)


def projected_subgradient(course: Course, prior: Prior, sets: Sequence[Prior] = (), weight: float = 1.0) -> Solution:
    """Steps of length 1 / sqrt(k) along minus a subgradient, then onto the sets; keeps the best point seen.

    Seen are the points and their mean, later ones weighing more, which converges where the points themselves still
    jump to and fro (Shamir and Zhang 2013). The subgradient of phi is taken from its prox: (x - prox(x, e)) / e for a
    small e, which is the gradient of the Moreau envelope and within e of a subgradient.
    """
    system = course.system
    x = mean = system.first().astype(np.float64)
    rate = 1 / largest_eigenvalue(system)  # which is rounded up: a longer step may diverge
    best, lowest, small, number = x, np.inf, 1e-6, 0

    def cost(point: Array) -> float:
        w = 1.0 if system.weights is None else system.weights
        return 0.5 * float(np.sum(w * system.residual(point) ** 2)) + weight * prior.value(point)

    while True:
        number += 1
        # The prior's subgradient from its proximal operator at a small step (Moreau): no prior needs a gradient of its
        # own.
        slope = -system.back(system.residual(x)) + weight * (x - prior.prox(x, small)) / small
        x = x - rate / np.sqrt(number) * slope
        for one in sets:
            x = one.prox(x, 1.0)
        mean = mean + 4 / (number + 3) * (x - mean)
        for point in (x, mean):
            if (value := cost(point)) < lowest:
                best, lowest = point, value
        if course.take(best, system.residual(best)):
            return course.solution(best)


def superiorise(course: Course, prior: Prior, shrink: float = 0.99, relaxation: float = 1.0) -> Solution:
    """SIRT, perturbed before every step towards a lower phi by steps whose lengths are summable (Censor et al. 2010).

    SIRT is resilient to such perturbations: it still converges to what fits the data, by a way on which phi is lower.
    """
    system = course.system
    rows, columns = absolute_sums(system)
    row_scale, column_scale = _inverse(rows), _inverse(columns)
    x = system.first().astype(np.float64)
    length = 1.0
    while True:
        moved = prior.prox(x, length * 1e-1) if x.any() else x
        length *= shrink
        if prior.value(moved) <= prior.value(x):
            x = moved
        x = x + relaxation * column_scale * system.back(row_scale * system.residual(x))
        if course.take(x, system.residual(x)):
            return course.solution(x)
