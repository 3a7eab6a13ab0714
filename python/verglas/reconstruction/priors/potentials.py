r"""Potentials of single values, with their proximal operators.

A prior is a penalty :math:`\phi(x)` with :meth:`value` and

.. math:: \mathrm{prox}_{t\phi}(v) = \arg\min_x \tfrac12 |x - v|^2 + t\,\phi(x)

Every class here acts on each value alone; what couples neighbours is in ``differences`` and ``transforms``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from verglas.errors import InputError
from verglas.types.arrays import Array


class Prior(Protocol):
    """What solvers ask of a prior."""

    def value(self, x: Array) -> float:
        """phi(x)."""

    def prox(self, v: Array, step: float) -> Array:
        """The minimiser of 1/2 norm(x - v)^2 + step phi(x), of the shape of v."""


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"prior: {name}: expected a positive number, got {value}")


@dataclass(frozen=True)
class Quadratic:
    r"""Gaussian: weight / 2 |x - mean|^2; prox (v + t w mean) / (1 + t w).

    Attributes
    ----------
    weight : float
        1 / sigma^2.
    mean : float
    """

    weight: float = 1.0
    mean: float = 0.0

    def __post_init__(self) -> None:
        """Check."""
        _positive("weight", self.weight)

    def value(self, x: Array) -> float:
        """Half the weighted sum of squares."""
        return 0.5 * self.weight * float(np.sum(np.abs(x - self.mean) ** 2, dtype=np.float64))

    def prox(self, v: Array, step: float) -> Array:
        """Linear shrinkage."""
        return (v + step * self.weight * self.mean) / (1 + step * self.weight)


@dataclass(frozen=True)
class L1:
    """Laplace: weight |x|_1; prox is the soft threshold."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check."""
        _positive("weight", self.weight)

    def value(self, x: Array) -> float:
        """Weighted sum of magnitudes."""
        return self.weight * float(np.sum(np.abs(x), dtype=np.float64))

    def prox(self, v: Array, step: float) -> Array:
        """Magnitudes less ``step * weight``, not below zero."""
        return soft(v, step * self.weight)


def soft(v: Array, threshold: float) -> Array:
    """Soft threshold, of real and complex values.

    Examples
    --------
    >>> from verglas.reconstruction.priors import soft
    >>> import numpy as np
    >>> soft(np.array([3.0, -0.5, -2.0]), 1.0)
    array([ 2., -0., -1.])
    """
    magnitude = np.abs(v)
    shrunk = np.maximum(magnitude - threshold, 0)
    # Scaled by a real factor and not sign(v) * kept: a complex value keeps its phase.
    return v * np.divide(shrunk, magnitude, out=np.zeros_like(magnitude), where=magnitude > 0)


@dataclass(frozen=True)
class Huber:
    r"""Quadratic up to ``knee``, linear beyond: weight (x^2 / 2 or knee |x| - knee^2 / 2)."""

    weight: float = 1.0
    knee: float = 1.0

    def __post_init__(self) -> None:
        """Check."""
        _positive("weight", self.weight)
        _positive("knee", self.knee)

    def value(self, x: Array) -> float:
        """Sum of the potential."""
        a = np.abs(x)
        each = np.where(a <= self.knee, 0.5 * a**2, self.knee * a - 0.5 * self.knee**2)
        return self.weight * float(each.sum(dtype=np.float64))

    def prox(self, v: Array, step: float) -> Array:
        """Shrinkage by a factor near zero, by a constant far from it."""
        t = step * self.weight
        return np.where(np.abs(v) <= self.knee * (1 + t), v / (1 + t), v - t * self.knee * np.sign(v))


@dataclass(frozen=True)
class Student:
    r"""Student's t: weight (nu + 1) / 2 log(1 + x^2 / (nu s^2)), whose heavy tails leave large values alone.

    Not convex: the prox is the best of the real roots of its stationary condition, a cubic.
    """

    weight: float = 1.0
    scale: float = 1.0
    degrees: float = 3.0

    def __post_init__(self) -> None:
        """Check."""
        for name in ("weight", "scale", "degrees"):
            _positive(name, getattr(self, name))

    def _each(self, x: Array) -> Array:
        spread = self.degrees * self.scale**2
        return 0.5 * self.weight * (self.degrees + 1) * np.log1p(np.asarray(x, np.float64) ** 2 / spread)

    def value(self, x: Array) -> float:
        """Sum of the potential."""
        return float(self._each(x).sum())

    def prox(self, v: Array, step: float) -> Array:
        """Newton steps on (x - v)(s + x^2) + t w (nu + 1) x = 0 from v and from 0; the lower objective is taken."""
        v64 = np.asarray(v, np.float64)
        spread = self.degrees * self.scale**2
        pull = step * self.weight * (self.degrees + 1)

        def newton(x: Array) -> Array:
            for _ in range(60):
                value = (x - v64) * (spread + x**2) + pull * x
                slope = spread + 3 * x**2 - 2 * v64 * x + pull
                x = np.clip(x - value / np.where(np.abs(slope) > 1e-12, slope, 1e-12), lowest, highest)
            return x

        lowest, highest = np.minimum(v64, 0), np.maximum(v64, 0)  # the minimiser lies between 0 and v
        # The objective has up to two minima, since the penalty is not convex: Newton alone would depend on its start.
        candidates = [newton(v64.copy()), newton(np.zeros_like(v64)), newton(v64 / 2)]
        cost = [0.5 * (x - v64) ** 2 + step * self._each(x) for x in candidates]
        return np.choose(np.argmin(cost, axis=0), candidates)


@dataclass(frozen=True)
class NonNegative:
    """Zero for values of 0 or more, infinite else; prox is the projection."""

    def value(self, x: Array) -> float:
        """0 or infinity."""
        return 0.0 if (np.real(x) >= 0).all() else float("inf")

    def prox(self, v: Array, step: float) -> Array:
        """Negative values become zero, whatever the step."""
        return np.maximum(v, 0)


@dataclass(frozen=True)
class TwoValues:
    r"""Half the squared distance to the nearer of two values: binary steering of what is one or the other.

    A step goes from v towards the nearer value, (v + t w u(v)) / (1 + t w). It is not convex: give it to
    ``superiorised``, whose perturbations die out so that data decide in the end (Censor 2001, binary steering), with
    the result of some iterations as its start: from zeros everything is nearer to the lower value.

    Attributes
    ----------
    low, high : float
    weight : float

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction.priors import TwoValues
    >>> TwoValues(0.0, 1.0).prox(np.array([-0.5, 0.25, 0.75]), 1.0).tolist()
    [-0.25, 0.125, 0.875]
    """

    low: float
    high: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check."""
        _positive("weight", self.weight)
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise InputError(f"prior: expected two values, the lower first, got {self.low} and {self.high}")

    def value(self, x: Array) -> float:
        """Half the weighted sum of squared distances."""
        return 0.5 * self.weight * float(np.sum((x - self._nearer(x)) ** 2, dtype=np.float64))

    def prox(self, v: Array, step: float) -> Array:
        """Towards the nearer value."""
        return (v + step * self.weight * self._nearer(v)) / (1 + step * self.weight)

    def _nearer(self, v: Array) -> Array:
        return np.where(v < (self.low + self.high) / 2, self.low, self.high)
