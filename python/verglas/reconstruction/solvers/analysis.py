"""What can be said before or after a run: rates, convergence of unmatched pairs, the best relaxation, conditioning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg as sla

from verglas.types.arrays import Array, FloatArray
from verglas.types.display import one_line


@one_line
@dataclass(frozen=True)
class UnmatchedPair:
    """Whether x + eta B (f - A x) converges for a back-projector B that is not the transpose of A.

    Attributes
    ----------
    converges : bool
        All eigenvalues of B A that matter have a positive real part: some relaxation converges.
    largest_relaxation : float
        Below this it does: min 2 Re(lambda) / abs(lambda)^2; 0 where none does.
    eigenvalues : array of complex
        Of B A.
    """

    converges: bool
    largest_relaxation: float
    eigenvalues: Array


def unmatched_pair(forward: Array, backward: Array) -> UnmatchedPair:
    """Analyse a pair of matrices (Elfving and Hansen 2018).

    Parameters
    ----------
    forward : (m, n) array
        A.
    backward : (n, m) array
        B.
    """
    values = np.linalg.eigvals(np.asarray(backward) @ np.asarray(forward))
    # Eigenvalues of 0 belong to what no data see: no relaxation moves it, and none is limited by it.
    nonzero = values[np.abs(values) > 1e-10 * np.abs(values).max()]
    limits = 2 * nonzero.real / np.abs(nonzero) ** 2
    smallest = float(limits.min()) if len(limits) else 0.0
    return UnmatchedPair(smallest > 0, max(smallest, 0.0), values)


def spectral_radius(iteration_matrix: Any) -> float:
    """Largest abs(eigenvalue): the factor by which a stationary iteration's error falls in the end."""
    if isinstance(iteration_matrix, np.ndarray):
        return float(np.abs(np.linalg.eigvals(iteration_matrix)).max())
    values = sla.eigs(iteration_matrix, 1, return_eigenvectors=False)
    return float(np.abs(values).max())


@one_line
@dataclass(frozen=True)
class RelaxationScan:
    """Errors of a solver over relaxations and iterations.

    Attributes
    ----------
    relaxations : (r,) array
    errors : (r, iterations) array
        Root mean square difference from the truth, on that of the truth.
    """

    relaxations: FloatArray
    errors: FloatArray

    @property
    def best(self) -> tuple[float, int]:
        """Relaxation and number of iterations (from 1) of the least error: beyond it noise is fitted."""
        row, column = np.unravel_index(int(np.nanargmin(self.errors)), self.errors.shape)
        return float(self.relaxations[row]), int(column) + 1


def relaxation_scan(
    run: Callable[[float, Callable[[int, Array, float], None]], object], truth: Array, relaxations: Sequence[float]
) -> RelaxationScan:
    """Errors against the truth at every iteration, for several relaxations (semiconvergence).

    Parameters
    ----------
    run : callable
        ``run(relaxation, callback)`` runs a solver with that callback.
    truth : array
    relaxations : sequence of float
    """
    scale, curves = float(np.linalg.norm(np.ravel(truth))), []
    for relaxation in relaxations:
        errors: list[float] = []

        def keep(number: int, x: Array, residual: float, errors: list[float] = errors) -> None:
            errors.append(float(np.linalg.norm(np.ravel(x) - np.ravel(truth))) / scale)

        run(relaxation, keep)
        curves.append(errors)
    longest = max(map(len, curves))
    table = np.full((len(curves), longest), np.nan)
    for row, curve in zip(table, curves, strict=True):
        row[: len(curve)] = curve
    return RelaxationScan(np.asarray(relaxations, np.float64), table)


def condition_numbers(matrix: Array) -> tuple[float, float]:
    """Of A and of A^T A: the second is the square of the first, which is why normal equations lose digits."""
    values = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    normal = np.linalg.svd(np.asarray(matrix, np.float64).T @ matrix, compute_uv=False)
    return float(values[0] / values[-1]), float(normal[0] / normal[-1])
