"""Krylov methods: conjugate gradients on the normal equations, and SciPy's for square systems.

SciPy's solve A^T W A x = A^T W f where A is not square; the residuals told are f - A x in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg as sla

from verglas.reconstruction.solvers.course import Course, Solution, System, norm
from verglas.reconstruction.solvers.stationary import is_square
from verglas.types.arrays import Array


def cg(course: Course) -> Solution:
    r"""Conjugate gradients for :math:`A^T W A x = A^T W f` without forming the product (CGLS; Bjorck 1996).

    In exact arithmetic it ends after as many steps as there are distinct singular values.
    """
    system = course.system
    x = system.first()
    residual = system.residual(x)
    descent = system.back(residual)
    direction, power = descent.copy(), _dot(descent, descent)
    while True:
        if power == 0.0:
            course.reason = "tolerance"
            course.take(x, residual)
            return course.solution(x)
        image = system.operator.matvec(direction)
        weighted = image if system.weights is None else system.weights * image
        step = power / _dot(image, weighted)
        x += step * direction
        residual = residual - step * image
        if course.take(x, residual):
            return course.solution(x)
        descent = system.back(residual)
        before, power = power, _dot(descent, descent)
        direction = descent + (power / before) * direction


def conjugate_residuals(course: Course) -> Solution:
    """Conjugate residuals for a symmetric square A (SciPy's MINRES, which it is where A is definite)."""
    return _scipy(course, sla.minres, rtol=1e-14)


def bicg(course: Course) -> Solution:
    """Biconjugate gradients for a square A; SciPy's."""
    return _scipy(course, sla.bicg, rtol=0.0)


def bicgstab(course: Course) -> Solution:
    """Stabilised biconjugate gradients for a square A; SciPy's."""
    return _scipy(course, sla.bicgstab, rtol=0.0)


def gmres(course: Course) -> Solution:
    """Generalised minimal residuals for a square A, restarted every 50 steps; SciPy's."""
    return _scipy(course, sla.gmres, rtol=0.0, restart=50, callback_type="x")


def cgs(course: Course) -> Solution:
    """Squared conjugate gradients for a square A; SciPy's."""
    return _scipy(course, sla.cgs, rtol=0.0)


def qmr(course: Course) -> Solution:
    """Quasi-minimal residuals for a square A (two-sided Lanczos); SciPy's."""
    return _scipy(course, sla.qmr, rtol=0.0)


class _Enough(Exception):
    """What ends SciPy's loop from its callback."""


def _square_form(system: System) -> tuple[sla.LinearOperator, Array]:
    """A and f, or those of the normal equations."""
    if is_square(system):
        return system.operator, system.data
    n = system.operator.shape[1]
    normal = sla.LinearOperator((n, n), matvec=system.normal, rmatvec=system.normal, dtype=system.first().dtype)
    return normal, system.back(system.data)


def _scipy(course: Course, method: Callable[..., Any], **more: Any) -> Solution:
    system = course.system
    operator, data = _square_form(system)
    last = [system.first()]

    def after(x: Array) -> None:
        # A copy: SciPy goes on working in the array that it hands over.
        last[0] = np.array(x)
        if course.take(last[0], system.residual(last[0])):
            raise _Enough

    try:
        # SciPy's own tolerance is (next to) nothing: only the course decides when to stop, so that all methods stop
        # alike.
        x, _ = method(operator, data, x0=last[0], maxiter=course.iterations, callback=after, **more)
    except _Enough:
        return course.solution(last[0])
    if course.reason == "iterations" and len(course.residuals) < course.iterations:
        course.reason = "stalled" if norm(system.residual(x)) > 0 else "tolerance"
    return course.solution(np.asarray(x))


def _dot(a: Array, b: Array) -> float:
    return float(np.real(np.vdot(a.astype(np.result_type(a, np.float64)), b.astype(np.result_type(b, np.float64)))))
