r"""Total variation: the sum of the lengths of the gradient, which keeps edges and flattens what lies between.

.. math:: TV(x) = \sum_i \sqrt{\sum_a (D_a x)_i^2} \quad \text{(isotropic)}, \qquad \sum_i \sum_a |(D_a x)_i|

with forward differences D_a along every axis, zero at the last pixel (Rudin, Osher and Fatemi 1992).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError
from verglas.types.arrays import Array


def gradient(x: Array) -> Array:
    """(axes, ...) forward differences, zero at the last pixel of every axis."""
    out = np.zeros((x.ndim, *x.shape), x.dtype)
    for axis in range(x.ndim):
        inner = [slice(None)] * x.ndim
        inner[axis] = slice(0, -1)
        out[axis][tuple(inner)] = np.diff(x, axis=axis)
    return out


def divergence(p: Array) -> Array:
    """Minus the transpose of :func:`gradient`."""
    out = np.zeros_like(p[0])
    for axis, one in enumerate(p):
        n = one.shape[axis]
        if n < 2:
            continue
        first, last, inner, shifted = ([slice(None)] * one.ndim for _ in range(4))
        first[axis], last[axis] = slice(0, 1), slice(n - 1, n)
        inner[axis], shifted[axis] = slice(1, n - 1), slice(0, n - 2)
        out[tuple(first)] += one[tuple(first)]
        out[tuple(inner)] += one[tuple(inner)] - one[tuple(shifted)]
        before = [slice(None)] * one.ndim
        before[axis] = slice(n - 2, n - 1)
        out[tuple(last)] -= one[tuple(before)]
    return out


@dataclass(frozen=True)
class TotalVariation:
    """weight TV(x) of an array of any number of axes.

    Attributes
    ----------
    weight : float
    isotropic : bool
        Length of the gradient; else the sum of its parts.
    iterations : int
        Of the prox: accelerated projected gradient on the dual (Beck and Teboulle 2009).
    tolerance : float
        Change of the result, relative, at which the prox stops.
    """

    weight: float = 1.0
    isotropic: bool = True
    iterations: int = 100
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        """Check."""
        if not (np.isfinite(self.weight) and self.weight > 0):
            raise InputError(f"prior: weight: expected a positive number, got {self.weight}")

    def value(self, x: Array) -> float:
        """The weighted total variation."""
        g = gradient(np.asarray(x, np.float64))
        length = np.sqrt((g**2).sum(axis=0)) if self.isotropic else np.abs(g).sum(axis=0)
        return self.weight * float(length.sum())

    def prox(self, v: Array, step: float) -> Array:
        """Denoising by total variation."""
        strength = step * self.weight
        if strength == 0 or v.size < 2:
            return v.copy()
        rate = 1 / (4 * v.ndim * strength)  # norm of the gradient operator squared is at most 4 per axis
        dual = np.zeros((v.ndim, *v.shape), v.dtype)
        ahead, momentum, x = dual.copy(), 1.0, v
        for _ in range(self.iterations):
            before = x
            fresh = self._onto_ball(ahead + rate * gradient(v + strength * divergence(ahead)))
            following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
            # Nesterov's momentum on the dual: a plain projected gradient needs about the square of as many steps.
            ahead = fresh + ((momentum - 1) / following) * (fresh - dual)
            dual, momentum = fresh, following
            x = v + strength * divergence(dual)
            if np.linalg.norm((x - before).ravel()) <= self.tolerance * max(float(np.linalg.norm(x.ravel())), 1e-30):
                break
        return x

    def analyse(self, x: Array) -> Array:
        """D x, of which :meth:`value` is a norm."""
        return gradient(x)

    def synthesise(self, p: Array) -> Array:
        """The transpose of :meth:`analyse`."""
        return -divergence(p)

    def onto_dual_ball(self, p: Array) -> Array:
        """The nearest p whose product with D x is at most the value of any x: lengths of ``weight`` at most."""
        return self._onto_ball(p / self.weight) * self.weight

    def dual_radius(self) -> float:
        """Of that ball."""
        return self.weight

    def largest_gain(self, shape: tuple[int, ...]) -> float:
        """What the square of the norm of :meth:`analyse` cannot exceed: 4 for each axis of more than one pixel."""
        return 4.0 * sum(n > 1 for n in shape)

    def _onto_ball(self, p: Array) -> Array:
        length = np.sqrt((p**2).sum(axis=0, keepdims=True)) if self.isotropic else np.abs(p)
        return p / np.maximum(1, length)
