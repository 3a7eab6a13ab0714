r"""Stationary iterations: each step is the same affine map of x, so its rate is the spectral radius of one matrix.

With A^T W f = b and B = A^T W A, all of them are :math:`x \leftarrow x + \eta M (b - B x)`, M being the identity
(Landweber, Richardson), the inverse diagonal of B (Jacobi), of its lower triangle (Gauss-Seidel), or inverse row and
column sums (SIRT, Cimmino, CAV). The printed form of Richardson's :math:`x + \eta (I - A) x` has the wrong fixed point
and is not used.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from verglas.errors import InputError
from verglas.reconstruction.solvers.course import Course, Solution, System
from verglas.types.arrays import Array, FloatArray


def _iterate(course: Course, step: float, scale: Array | None) -> Solution:
    system = course.system
    x = system.first()
    residual = system.residual(x)
    while True:
        change = system.back(residual)
        x += step * (change if scale is None else scale * change)
        residual = system.residual(x)
        if course.take(x, residual):
            return course.solution(x)


def landweber(course: Course, relaxation: float = 1.0) -> Solution:
    r"""X + eta A^T W (f - A x), eta = relaxation / sigma_max^2; converges for a relaxation between 0 and 2.

    The residual falls monotonically for every relaxation of 1 or less (Landweber 1951).
    """
    return _iterate(course, relaxation / largest_eigenvalue(course.system), None)


def richardson(course: Course, relaxation: float = 1.0) -> Solution:
    """X + eta (f - A x) for a square A: converges if, and only if, every eigenvalue has abs(1 - eta lambda) < 1.

    Of another A the normal equations, whose step is that of :func:`landweber`.
    """
    system = course.system
    if not is_square(system):
        return landweber(course, relaxation)
    x = system.first()
    residual = system.residual(x)
    while True:
        x = x + relaxation * residual
        residual = system.residual(x)
        if course.take(x, residual):
            return course.solution(x)


def jacobi(course: Course, relaxation: float = 1.0) -> Solution:
    """X + eta diag(B)^-1 A^T W (f - A x), on the normal equations."""
    return _iterate(course, relaxation, _inverse(normal_diagonal(course.system)))


def gauss_seidel(course: Course, relaxation: float = 1.0) -> Solution:
    """Successive over-relaxation on the normal equations; needs the matrix itself, dense or sparse.

    Raises
    ------
    InputError
        The operator is not a matrix.
    """
    system = course.system
    dense = isinstance(getattr(system.operator, "A", None), np.ndarray)
    matrix = system.operator.A if dense else _matrix(system)
    rows = np.ones(len(system.data)) if system.weights is None else system.weights
    normal = matrix.conj().T @ (rows[:, None] * matrix if dense else sp.diags_array(rows) @ matrix)
    diagonal = normal.diagonal()
    if not (diagonal != 0).all():
        raise InputError("gauss-seidel: an unknown is seen by no data (zero column); leave it out or add a prior")
    # A full matrix stays one: as a sparse one its product would take a hundred times as long.
    if dense:
        lower = np.tril(normal, -1) + np.diag(diagonal / relaxation)
        substituted = partial(scipy.linalg.solve_triangular, lower, lower=True)
    else:
        lower = (sp.tril(normal, -1) + sp.diags_array(diagonal / relaxation)).tocsr()
        substituted = partial(sla.spsolve_triangular, lower, lower=True)
    b, x = system.back(system.data), system.first()
    while True:
        x = x + substituted(b - normal @ x)
        if course.take(x, system.residual(x)):
            return course.solution(x)


def sirt(course: Course, relaxation: float = 1.0) -> Solution:
    r"""X + eta D_c A^T D_r W (f - A x), D_r and D_c the inverse row and column sums of abs(A) (Gregor and Benson 2008).

    With these the spectral radius of what multiplies x is at most 1, so a relaxation between 0 and 2 converges. An
    operator whose entries are not at hand and have both signs, as images with a CTF, has no such sums: its step is that
    of :func:`landweber`, which is the form that SIRT has for particles.
    """
    system = course.system
    rows, columns = absolute_sums(system)
    if min(rows.min(), columns.min()) < -_ROUNDING * max(rows.max(), columns.max()):
        return landweber(course, relaxation)
    return _iterate(_scale_weights(course, _inverse(rows)), relaxation, _inverse(columns))


def cimmino(course: Course, relaxation: float = 1.0) -> Solution:
    """Mean of the projections onto all hyperplanes: weights 1 / (m norm(a_i)^2) (Cimmino 1938)."""
    system = course.system
    scales = _inverse(row_norms(system)) / len(system.data)
    return _iterate(_scale_weights(course, scales), relaxation * len(system.data) / _most_seen(system), None)


def cav(course: Course, relaxation: float = 1.0) -> Solution:
    """Component averaging: Cimmino with each unknown counted as often as data see it (Censor, Gordon, Gordon 2001)."""
    scales = component_averages(_matrix(course.system))
    return _iterate(_scale_weights(course, scales), relaxation, None)


_ROUNDING = 1e-5  # of sums of non-negative float32 numbers, beside the largest
_EIGENVALUE_TOLERANCE = 1e-3  # relative; to the last digit Lanczos takes hundreds of steps where eigenvalues crowd


def largest_eigenvalue(system: System) -> float:
    """Of A^T W A, by Lanczos, rounded up by its tolerance of 1e-3: a step made from it is never too long."""
    n = system.operator.shape[1]
    return symmetric_largest(sla.LinearOperator((n, n), matvec=system.normal, dtype=np.float64))


def symmetric_largest(normal: sla.LinearOperator) -> float:
    """Largest eigenvalue of a symmetric positive operator, rounded up by the tolerance."""
    n = normal.shape[1]
    if n <= 3:
        return float(np.linalg.eigvalsh(np.column_stack([normal.matvec(e) for e in np.eye(n)])).max())
    start = np.random.default_rng(0).standard_normal(n)
    values = sla.eigsh(normal, 1, which="LM", v0=start, return_eigenvectors=False, tol=_EIGENVALUE_TOLERANCE)
    return float(values[0]) * (1 + _EIGENVALUE_TOLERANCE)


def normal_diagonal(system: System) -> FloatArray:
    """diag(A^T W A), of a matrix, or of an operator that knows it (``normal_diagonal``)."""
    diagonal = getattr(system.operator, "normal_diagonal", None)
    if diagonal is not None and system.weights is None:
        return np.asarray(diagonal(), np.float64)
    matrix = _matrix(system)
    squares = abs(matrix).power(2)
    return np.asarray(squares.T @ (np.ones(len(system.data)) if system.weights is None else system.weights)).ravel()


def absolute_sums(system: System) -> tuple[FloatArray, FloatArray]:
    """Row and column sums of abs(A); of an operator without entries those of A, some negative where A is."""
    matrix = getattr(system.operator, "A", None)
    if matrix is not None:
        return entry_sums(sp.csr_array(matrix))
    m, n = system.operator.shape
    return np.asarray(system.operator.matvec(np.ones(n))), np.asarray(system.operator.rmatvec(np.ones(m)))


def entry_sums(matrix: sp.csr_array) -> tuple[FloatArray, FloatArray]:
    """Row and column sums of the absolute entries of a matrix."""
    absolute = abs(matrix)
    return np.asarray(absolute.sum(axis=1)).ravel(), np.asarray(absolute.sum(axis=0)).ravel()


def component_averages(matrix: sp.csr_array) -> FloatArray:
    """1 / sum_j s_j abs(a_ij)^2 of every row, s_j the number of rows that see unknown j."""
    counts = np.asarray((matrix != 0).sum(axis=0)).ravel().astype(np.float64)
    return _inverse(np.asarray(abs(matrix).power(2) @ counts).ravel())


def row_norms(system: System) -> FloatArray:
    """norm(a_i)^2 of every row."""
    return np.asarray(abs(_matrix(system)).power(2).sum(axis=1)).ravel()


def _most_seen(system: System) -> float:
    """Largest number of data that see one unknown: with it Cimmino's step is as long as it may safely be."""
    return float(np.asarray((_matrix(system) != 0).sum(axis=0)).max())


def _scale_weights(course: Course, scales: FloatArray) -> Course:
    """The course with every datum's weight multiplied by a method's own."""
    old = course.system
    weights = scales if old.weights is None else old.weights * scales
    course.system = System(old.operator, old.data, weights, old.start)
    return course


def _inverse(values: Array) -> FloatArray:
    """1 / values, and 0 where they vanish: what no data see stays as it is."""
    values = np.asarray(values, np.float64)
    out = np.zeros_like(values)
    np.divide(1.0, values, out=out, where=values > values.max(initial=0.0) * 1e-12)
    return out


def _matrix(system: System) -> sp.csr_array:
    """The operator's entries, or those that it makes (``entries``).

    Raises
    ------
    InputError
        It has none: it is known by its action only.
    """
    matrix, entries = getattr(system.operator, "A", None), getattr(system.operator, "entries", None)
    if matrix is None and entries is None:
        raise InputError(
            "this method needs the entries of the matrix; the operator is known by its action only: use landweber, "
            "sirt, cg or a method with a prior"
        )
    return sp.csr_array(matrix if entries is None else entries())


def is_square(system: System) -> bool:
    """Whether there are as many data as unknowns."""
    m, n = system.operator.shape
    return bool(m == n)
