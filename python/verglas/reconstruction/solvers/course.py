"""What every solver shares: the system it solves, its course, when it stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse.linalg as sla

from verglas.errors import InputError
from verglas.types.arrays import Array, FloatArray
from verglas.types.display import one_line

# Called after each iteration with its number, from 1, the solution so far and the relative residual; true stops.
Callback = Callable[[int, Array, float], bool | None]


@one_line
@dataclass(frozen=True)
class Solution:
    """A solution and how it was reached.

    Attributes
    ----------
    x : array
        Of the operator's ``shape[1]``.
    residuals : list of float
        Norm of f - A x over the norm of f, after each iteration.
    iterations : int
        Done.
    reason : str
        "tolerance", "iterations", "callback", or "stalled".
    """

    x: Array
    residuals: list[float]
    iterations: int
    reason: str


@dataclass(frozen=True)
class System:
    """Weighted least squares: minimise (f - A x)^T W (f - A x).

    Attributes
    ----------
    operator : LinearOperator
        A; SciPy's kind, so that its matvec, rmatvec and SciPy's own solvers are at hand.
    data : array
        f.
    weights : array or None
        Diagonal of W; all one by default.
    start : array or None
        First x; zero by default.
    """

    operator: sla.LinearOperator
    data: Array
    weights: FloatArray | None = None
    start: Array | None = None

    @classmethod
    def of(cls, operator: Any, data: Any, *, weights: Any = None, start: Any = None) -> System:
        """Check once.

        Raises
        ------
        InputError
            Shapes do not go together, a number is not finite, a weight is negative.
        """
        A = sla.aslinearoperator(operator)
        f = np.ravel(np.asarray(data))
        if f.size != A.shape[0]:
            raise InputError(f"solve: the operator makes {A.shape[0]} data, got {f.size}")
        if not np.isfinite(f).all():
            raise InputError(f"solve: {np.count_nonzero(~np.isfinite(f))} of {f.size} data are not finite")
        w = None if weights is None else np.broadcast_to(np.asarray(weights, np.float64), f.shape)
        if w is not None and not (np.isfinite(w).all() and (w >= 0).all()):
            raise InputError("solve: expected finite weights of 0 or more")
        x = None if start is None else np.ravel(np.asarray(start))
        if x is not None and x.size != A.shape[1]:
            raise InputError(f"solve: the operator takes {A.shape[1]} unknowns, the start has {x.size}")
        return cls(A, f, w, x)

    def first(self) -> Array:
        """A copy of the start."""
        kind = np.result_type(self.data.dtype, self.operator.dtype or np.float64)
        return np.zeros(self.operator.shape[1], kind) if self.start is None else self.start.astype(kind)

    def residual(self, x: Array) -> Array:
        """F - A x."""
        return self.data - self.operator.matvec(x)

    def back(self, residual: Array) -> Array:
        """A^T W r."""
        return self.operator.rmatvec(residual if self.weights is None else self.weights * residual)

    def normal(self, x: Array) -> Array:
        """A^T W A x."""
        return self.back(self.operator.matvec(x))


def norm(a: Array) -> float:
    """Euclidean norm, summed in float64."""
    return float(np.sqrt(np.sum(np.abs(a.astype(np.complex128 if np.iscomplexobj(a) else np.float64)) ** 2)))


@dataclass
class Course:
    """Counts iterations, keeps residuals, and says when to stop.

    Parameters
    ----------
    system : System
    iterations : int
        At most.
    tolerance : float
        Relative residual, or relative change of x, at which to stop; 0 goes on to the end.
    callback : callable, optional
        See :data:`Callback`.
    """

    system: System
    iterations: int
    tolerance: float = 0.0
    callback: Callback | None = None
    residuals: list[float] = field(default_factory=list)
    reason: str = "iterations"

    def __post_init__(self) -> None:
        """Scale of the residuals."""
        if self.iterations < 1:
            raise InputError(f"solve: expected 1 iteration or more, got {self.iterations}")
        self._scale = max(norm(self.system.data), np.finfo(float).tiny)

    def take(self, x: Array, residual: Array) -> bool:
        """Take the state after an iteration; whether it was the last."""
        relative = norm(residual) / self._scale
        self.residuals.append(relative)
        if not np.isfinite(relative):
            self.reason = "stalled"
            return True
        if self.callback is not None and self.callback(len(self.residuals), x, relative):
            self.reason = "callback"
            return True
        if relative <= self.tolerance:
            self.reason = "tolerance"
            return True
        return len(self.residuals) >= self.iterations

    def solution(self, x: Array) -> Solution:
        """The result."""
        return Solution(x, self.residuals, len(self.residuals), self.reason)
