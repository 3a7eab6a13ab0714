r"""Total variation and its like in tens of iterations: a primal-dual method whose steps see all frequencies alike.

With K = (A, D) and duals y of the data and p of the prior,

.. math::

    x &\leftarrow x - \tau (A^T y + D^T p), \\
    y &\leftarrow (I + s R)^{-1} (y + s R (A \bar x - f)), \quad
    p \leftarrow \Pi (p + \sigma D \bar x)

where x-bar runs ahead, Pi is the projection onto the prior's dual ball, and R evens out what projections weaken: of
parallel beams the ramp, so that :math:`A^T R A` is about a multiple of the identity on what was measured (Chambolle
and Pock 2011; steps as in Pock and Chambolle 2011, with a filter in place of a diagonal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse.linalg as sla

from verglas.errors import InputError
from verglas.reconstruction.solvers.course import Course, Solution, System
from verglas.reconstruction.solvers.stationary import symmetric_largest
from verglas.types.arrays import Array

# Steps of the prior's duals, in units of their largest value over the map's contrast; and those of the data beside
# them: more holds to the data sooner, less flattens sooner. Tried from 0.1 to 3 and 3 to 40 on three phantoms.
_DUAL_OF_CONTRAST, _DATA_STEPS = 0.3, 20.0


class AnalysisPrior(Protocol):
    """A prior that is a norm of D x."""

    def value(self, x: Array) -> float:
        """phi(x)."""

    def prox(self, v: Array, step: float) -> Array:
        """The minimiser of 1/2 norm(x - v)^2 + step phi(x)."""

    def analyse(self, x: Array) -> Array:
        """D x."""

    def synthesise(self, p: Array) -> Array:
        """D^T p."""

    def onto_dual_ball(self, p: Array) -> Array:
        """The nearest p within the dual ball."""

    def dual_radius(self) -> float:
        """Of that ball."""

    def largest_gain(self, shape: tuple[int, ...]) -> float:
        """A bound of the square of the norm of D."""


class DataFilter(Protocol):
    """R, symmetric and positive, on the data."""

    def apply(self, y: Array) -> Array:
        """R y."""

    def resolve(self, y: Array, residual: Array, step: float) -> Array:
        """(I + s R)^-1 (y + s R r)."""


@dataclass(frozen=True)
class Unfiltered:
    """R = I."""

    def apply(self, y: Array) -> Array:
        """As it is."""
        return y

    def resolve(self, y: Array, residual: Array, step: float) -> Array:
        """Closed form."""
        return (y + step * residual) / (1 + step)


def preconditioned_primal_dual(
    course: Course, prior: AnalysisPrior, ramp: DataFilter | None = None, contrast: float | None = None
) -> Solution:
    """The minimiser of 1/2 norm(f - A x)^2 + phi(x); one A and one A^T an iteration, no inner iterations.

    Parameters
    ----------
    course : Course
        Without weights.
    prior : AnalysisPrior
        As :class:`verglas.reconstruction.priors.TotalVariation`, in :class:`~verglas.reconstruction.priors.Shaped`.
    ramp : DataFilter, optional
        R; of parallel beams ``operator.ramp()``, by default that of the operator if it has one.
    contrast : float, optional
        Differences that the map is made of, in its unit, which the balance of the steps follows (a factor of ten
        either way costs about twice as many iterations); by default the root mean square of the first map, which is
        the filtered back-projection where no start is given.
    """
    system = course.system
    if system.weights is not None:
        raise InputError("solve: preconditioned-primal-dual takes no weights; fista and primal-dual do")
    if not hasattr(prior, "onto_dual_ball"):
        raise InputError(
            "solve: preconditioned-primal-dual needs a prior that is a norm of differences; fista does not"
        )
    if contrast is not None and not (np.isfinite(contrast) and contrast > 0):
        raise InputError(f"solve: contrast: expected a positive number, got {contrast}")
    own = getattr(system.operator, "ramp", None)
    # A turned axis has no ramp along rows.
    turned = getattr(system.operator, "turn", None) is not None
    R = ramp if ramp is not None else own() if own is not None and not turned else Unfiltered()
    gain = _filtered_gain(system, R)
    x = system.first()
    if system.start is None:
        x += system.operator.rmatvec(R.apply(system.data)) / x.dtype.type(gain)
    image = system.operator.matvec(x)
    if contrast is None:
        contrast = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) or 1.0
    analysed = prior.analyse(x)
    dual_step = _DUAL_OF_CONTRAST * prior.dual_radius() / contrast
    data_step = _DATA_STEPS * dual_step
    # Convergence needs tau (s norm(A^T R A) + sigma norm(D)^2) < 1.
    tau = 0.98 / (data_step + dual_step * prior.largest_gain(analysed.shape[1:]))
    y, p = np.zeros_like(system.data), np.zeros_like(analysed)
    ahead_image, ahead_analysed = image, analysed
    while True:
        y = R.resolve(y, ahead_image - system.data, data_step / gain).astype(x.dtype, copy=False)
        p = prior.onto_dual_ball(p + x.dtype.type(dual_step) * ahead_analysed)
        fresh = x - x.dtype.type(tau) * (system.operator.rmatvec(y) + prior.synthesise(p))
        # A is linear: the image of what runs ahead costs no A of its own.
        fresh_image, fresh_analysed = system.operator.matvec(fresh), prior.analyse(fresh)
        ahead_image, ahead_analysed = 2 * fresh_image - image, 2 * fresh_analysed - analysed
        x, image, analysed = fresh, fresh_image, fresh_analysed
        if course.take(x, system.data - image):
            return course.solution(x)


def _filtered_gain(system: System, R: DataFilter) -> float:
    """The largest eigenvalue of A^T R A, rounded up."""
    n = system.operator.shape[1]

    def normal(v: Array) -> Array:
        return system.operator.rmatvec(R.apply(system.operator.matvec(np.ravel(v))))

    return symmetric_largest(sla.LinearOperator((n, n), matvec=normal, dtype=np.float64))
