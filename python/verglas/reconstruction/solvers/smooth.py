"""Two methods of tomography by name: weighted back-projection, and total variation with a weight of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from verglas.errors import InputError
from verglas.reconstruction.priors import Shaped, TotalVariation
from verglas.reconstruction.solvers.course import Course, Solution
from verglas.reconstruction.solvers.preconditioned import preconditioned_primal_dual
from verglas.reconstruction.solvers.proximal import fista
from verglas.types.arrays import Array

_PROX_ITERATIONS = 15


def weighted_back_projection(course: Course) -> Solution:
    """Back-projection after the filter that the operator knows (``weighted_back_projection``: tilt series, views).

    Raises
    ------
    InputError
        The operator knows none.
    """
    system = course.system
    filtered = getattr(system.operator, "weighted_back_projection", None)
    if filtered is None:
        raise InputError("wbp: the operator has no weighted back-projection; operators.tilt_series makes one that has")
    x = filtered(system.data)
    course.take(x, system.residual(x))
    return course.solution(x)


def total_variation(course: Course, prior: Any = None, weight: float | None = None) -> Solution:
    """Least squares with total variation, whose prox is accelerated where the operator has a ramp filter.

    Parameters
    ----------
    course : Course
    prior : Prior, optional
        In place of total variation on the operator's ``map_shape``.
    weight : float, optional
        Of the variation, in the unit of the data; by default the standard deviation of their noise, from differences of
        neighbours. ``verglas tomogram`` chooses it by tilts that are left out.

    Raises
    ------
    InputError
        The operator does not say the shape of its map, and no prior is given.
    """
    operator = course.system.operator
    if prior is None:
        shape = getattr(operator, "map_shape", None)
        if shape is None:
            raise InputError(
                "tv: the operator does not say the shape of its map; give prior=Shaped(TotalVariation(), shape)"
            )
        used = noise_deviation(course.system.data, operator) if weight is None else weight
        prior = Shaped(TotalVariation(used, iterations=_PROX_ITERATIONS), shape)
    elif weight is not None:
        raise InputError("tv: a prior has its own weight; give one of them")
    # A filter along x evens out the frequencies only where the axis is along y; without it fista is quicker.
    if getattr(operator, "turn", True) is None:
        return preconditioned_primal_dual(course, prior)
    return fista(course, prior)


def noise_deviation(data: Array, operator: Any = None) -> float:
    """Standard deviation of white noise in images, from differences of neighbours, which little else makes."""
    shape = getattr(operator, "data_shape", np.shape(data))
    images = np.reshape(data, shape)
    thinned = images[:, ::2, ::2] if images.ndim == 3 else images
    # 0.6745: median deviation of a normal variable of sd 1; sqrt(2): a difference has the noise of two pixels.
    spread = float(np.median(np.abs(np.diff(thinned, axis=-1)))) / 0.6745 / np.sqrt(2)
    return max(spread, 1e-6 * float(np.abs(images).max()), np.finfo(np.float32).tiny)
