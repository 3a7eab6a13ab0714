"""Few non-zero unknowns: greedy pursuit, reweighted least squares; Lasso and ridge are scikit-learn's."""

from __future__ import annotations

import numpy as np

from verglas.errors import InputError
from verglas.reconstruction.solvers.course import Course, Solution
from verglas.reconstruction.solvers.stationary import _matrix


def orthogonal_matching_pursuit(course: Course, nonzeros: int) -> Solution:
    """Take the column that explains most of the residual, fit all taken ones, repeat (Pati, Rezaiifar, Krishnaprasad).

    Parameters
    ----------
    course : Course
        Its iterations bound the number of columns, too.
    nonzeros : int
        Columns taken at most.
    """
    system = course.system
    matrix = _matrix(system).toarray()
    if not 1 <= nonzeros <= min(matrix.shape):
        raise InputError(f"omp: expected 1 to {min(matrix.shape)} non-zero unknowns, got {nonzeros}")
    lengths = np.linalg.norm(matrix, axis=0)
    support: list[int] = []
    x, residual = np.zeros(matrix.shape[1], matrix.dtype), system.data.copy()
    while True:
        merit = np.divide(np.abs(matrix.conj().T @ residual), lengths, out=np.zeros(len(lengths)), where=lengths > 0)
        merit[support] = -1
        support.append(int(np.argmax(merit)))
        values = np.linalg.lstsq(matrix[:, support], system.data, rcond=None)[0]
        x[:] = 0
        x[support] = values
        residual = system.residual(x)
        if course.take(x, residual) or len(support) == nonzeros:
            return course.solution(x)


def reweighted_least_squares(course: Course, power: float = 1.0, weight: float = 1e-3, floor: float = 1e-8) -> Solution:
    """Minimise 1/2 |f - A x|^2 + weight |x|_p^p by ridge regressions of weights |x|^(p-2) (Daubechies et al. 2010)."""
    if not 0 < power <= 2:
        raise InputError(f"irls: expected a power in (0, 2], got {power}")
    system = course.system
    matrix = _matrix(system).toarray()
    normal, b = matrix.conj().T @ matrix, system.back(system.data)
    x = np.linalg.lstsq(matrix, system.data, rcond=None)[0]
    smooth = 1.0
    while True:
        pull = weight * power * (np.abs(x) ** 2 + smooth**2) ** (power / 2 - 1)
        x = np.linalg.solve(normal + np.diag(pull), b)
        smooth = max(floor, 0.7 * smooth)
        if course.take(x, system.residual(x)):
            return course.solution(x)
