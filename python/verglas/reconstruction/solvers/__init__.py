"""Solvers of linear systems that know nothing of images: one small function each, one interface.

:func:`solve` finds them by name; each takes a :class:`Course` (system, iterations, tolerance, callback).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from verglas.errors import InputError
from verglas.reconstruction.solvers.analysis import (
    RelaxationScan,
    UnmatchedPair,
    condition_numbers,
    relaxation_scan,
    spectral_radius,
    unmatched_pair,
)
from verglas.reconstruction.solvers.course import Callback, Course, Solution, System
from verglas.reconstruction.solvers.gradient import sgd
from verglas.reconstruction.solvers.krylov import bicg, bicgstab, cg, cgs, conjugate_residuals, gmres, qmr
from verglas.reconstruction.solvers.preconditioned import preconditioned_primal_dual
from verglas.reconstruction.solvers.proximal import admm, fista, primal_dual, projected_subgradient, superiorise
from verglas.reconstruction.solvers.row_action import art, bicav, sart
from verglas.reconstruction.solvers.smooth import total_variation, weighted_back_projection
from verglas.reconstruction.solvers.sparse import orthogonal_matching_pursuit, reweighted_least_squares
from verglas.reconstruction.solvers.stationary import (
    cav,
    cimmino,
    gauss_seidel,
    jacobi,
    landweber,
    largest_eigenvalue,
    richardson,
    sirt,
)

METHODS: dict[str, Callable[..., Solution]] = {
    "wbp": weighted_back_projection,
    "landweber": landweber,
    "richardson": richardson,
    "jacobi": jacobi,
    "gauss-seidel": gauss_seidel,
    "sirt": sirt,
    "cimmino": cimmino,
    "cav": cav,
    "art": art,
    "sart": sart,
    "bicav": bicav,
    "sgd": sgd,
    "cg": cg,
    "conjugate-residuals": conjugate_residuals,
    "bicg": bicg,
    "bicgstab": bicgstab,
    "gmres": gmres,
    "cgs": cgs,
    "qmr": qmr,
    "tv": total_variation,
    "fista": fista,
    "admm": admm,
    "primal-dual": primal_dual,
    "preconditioned-primal-dual": preconditioned_primal_dual,
    "projected-subgradient": projected_subgradient,
    "superiorised": superiorise,
    "omp": orthogonal_matching_pursuit,
    "irls": reweighted_least_squares,
}
_WITH_PRIOR = {"fista", "primal-dual", "preconditioned-primal-dual", "projected-subgradient", "superiorised"}


def solve(
    operator: Any,
    data: Any,
    method: str = "cg",
    *,
    iterations: int = 100,
    tolerance: float = 0.0,
    weights: Any = None,
    start: Any = None,
    prior: Any = None,
    callback: Callback | None = None,
    **choices: Any,
) -> Solution:
    """Solve A x = f in the least-squares sense, with or without a prior.

    Parameters
    ----------
    operator : LinearOperator, array or sparse matrix
        A, (m, n). Methods that work row by row (gauss-seidel, jacobi, cimmino, cav, art, sart, bicav) need its entries:
        a matrix, or an operator that can make them (``entries``, as of small tilt series).
    data : array of m
        f.
    method : str
        A name of :data:`METHODS`. Those for square systems (richardson, conjugate-residuals, bicg, bicgstab, gmres,
        cgs, qmr) solve the normal equations of others.
    iterations : int
        At most.
    tolerance : float
        Relative residual at which to stop.
    weights : array of m, optional
        Diagonal of W.
    start : array of n, optional
        Zero by default.
    prior : Prior or sequence of them, optional
        Of the methods fista, primal-dual, preconditioned-primal-dual (total variation), projected-subgradient,
        superiorised, and (several) admm; of tv, total variation without.
    callback : callable, optional
        ``callback(iteration, x, relative_residual)``, in the manner of SciPy's solvers and not a listener: it is given
        the iterate, and true stops.
    **choices
        Of the method: ``relaxation``, ``blocks``, ``weight`` (tv), ``seed``, ``nonzeros``, ``penalty``, ...

    Returns
    -------
    Solution

    Raises
    ------
    InputError
        An unknown method, shapes that do not go together, a prior where none is used or none where one is needed.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction import solve
    >>> A = np.array([[2.0, 0.0], [1.0, 3.0], [0.0, 1.0]])
    >>> solve(A, A @ [1.0, -2.0], method="cg", iterations=2).x.round(6)
    array([ 1., -2.])
    """
    if method not in METHODS:
        raise InputError(f"solve: expected method {', '.join(METHODS)}, got {method!r}")
    course = Course(System.of(operator, data, weights=weights, start=start), iterations, tolerance, callback)
    if method == "admm":
        if prior is None:
            raise InputError("solve: admm needs a prior, or several")
        return admm(course, prior if isinstance(prior, (list, tuple)) else [prior], **choices)
    if method == "tv":
        return total_variation(course, prior, **choices)
    if method in _WITH_PRIOR:
        if prior is None:
            raise InputError(f"solve: {method} needs a prior")
        return METHODS[method](course, prior, **choices)
    if prior is not None:
        raise InputError(f"solve: {method} takes no prior; {', '.join(sorted(_WITH_PRIOR))} and admm do")
    return METHODS[method](course, **choices)


__all__ = [
    "METHODS",
    "Course",
    "RelaxationScan",
    "Solution",
    "System",
    "UnmatchedPair",
    "condition_numbers",
    "largest_eigenvalue",
    "relaxation_scan",
    "solve",
    "spectral_radius",
    "unmatched_pair",
]
__dir__ = partial(sorted, __all__)
