"""Residuals that the M-step measures, and their sums over groups: noise spectra and grey scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.ops.polar import PolarGrid
from verglas.types.arrays import FloatArray

_NO_COEFFICIENTS = 1e-9  # running means of none


@dataclass(frozen=True)
class Residuals:
    r"""Residual of each image on each ring, averaged over its posterior; float64.

    .. math::
        \sum_\theta w_r \langle |X S - C A|^2 \rangle = \mathrm{mass}\; \mathrm{image} - 2\, \mathrm{cross}
        + \mathrm{power}

    All are sums over the ring's share of the plane, :math:`w_r n_\theta = 2 \pi r s` coefficients:
    image :math:`= \sum_\theta w_r |X|^2`, cross
    :math:`= \sum_\mathrm{poses} \gamma \sum_\theta w_r \mathrm{Re}[(C A)^* X S]`, power
    :math:`= \sum_\mathrm{poses} \gamma \sum_\theta w_r |C A|^2`.

    Attributes
    ----------
    mass : (n,)
        Sum of the weights.
    image_power, cross, power : (n, n_rings)
        As above.
    """

    mass: FloatArray
    image_power: FloatArray
    cross: FloatArray
    power: FloatArray

    @property
    def squared(self) -> FloatArray:
        """(n, n_rings), the residual above."""
        return self.mass[:, None] * self.image_power - 2 * self.cross + self.power


def noise_variance(
    squared: FloatArray, coefficients: FloatArray, *, before: FloatArray | None = None, least: float = 0.0
) -> FloatArray:
    r"""Noise variance :math:`E|noise|^2` of one complex coefficient from summed squared residuals.

    .. math:: \sigma^2_{gs} = \frac{\sum \langle |X S - C A|^2 \rangle}{\mathrm{coefficients}}

    Parameters
    ----------
    squared : (groups, shells) float64
        Sums of squared residuals (:attr:`Residuals.squared`).
    coefficients : (groups, shells) float64
        How many coefficients they come from.
    before : (groups, shells) float64, optional
        What was known before: it stays where there is nothing new; NaN there without.
    least : float
        No value falls below this fraction of what was known before: a map that fits its own particles takes the noise
        for too small.

    Returns
    -------
    (groups, shells) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> squared, count = np.array([[6.0, 0.0, 0.0]]), np.array([[3.0, 4.0, 0.0]])
    >>> ops.noise_variance(squared, count, before=np.ones((1, 3)), least=0.01).tolist()
    [[2.0, 0.01, 1.0]]
    """
    measured = coefficients > _NO_COEFFICIENTS
    fresh = np.divide(squared, coefficients, out=np.full_like(squared, np.nan), where=measured)
    if before is None:
        return fresh
    return np.where(measured, np.maximum(fresh, least * before), before)


def grey_scale(cross: FloatArray, power: FloatArray, *, sigma: float = np.inf) -> FloatArray:
    r"""Grey scale of images relative to their present one, by maximum posterior.

    .. math:: s = \frac{\sum\mathrm{cross} + 1/\sigma^2}{\sum\mathrm{power} + 1/\sigma^2}

    Parameters
    ----------
    cross, power : (groups,) float64
        Sums of :attr:`Residuals.cross` and :attr:`Residuals.power` over images and rings, over the noise variance.
    sigma : float
        Standard deviation of a normal prior about 1; infinite: least squares.

    Returns
    -------
    (groups,) float64
        NaN for groups without power where there is no prior.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> ops.grey_scale(np.array([8.0, 0.0]), np.array([4.0, 0.0]), sigma=0.5).tolist()
    [1.5, 1.0]
    """
    weight = 1 / sigma**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (cross + weight) / (power + weight)


@dataclass(frozen=True)
class GroupSums:
    """Sums of residuals over groups of images: noise spectra and scales. Float64, images in the order they come.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> g = ops.PolarGrid(16, 4)
    >>> sums = ops.GroupSums.zeros(1, g)
    >>> one = np.tile(2 * np.pi * g.radii, (3, 1))
    >>> sums.add(ops.Residuals(np.ones(3), 4 * one, 2 * one, 1 * one), [0, 0, 0])
    >>> sums.sigma2().round(6).tolist(), sums.scale().round(6).tolist()
    ([[1.0, 1.0, 1.0, 1.0]], [2.0])
    """

    grid: PolarGrid
    mass: FloatArray
    squared: FloatArray
    cross: FloatArray
    power: FloatArray

    @classmethod
    def zeros(cls, n_groups: int, grid: PolarGrid) -> GroupSums:
        """Empty sums."""
        return cls(grid, np.zeros(n_groups), *(np.zeros((n_groups, grid.n_rings)) for _ in range(3)))

    def add(self, residuals: Residuals, group: npt.ArrayLike, inv_sigma2: npt.ArrayLike | None = None) -> None:
        """Add images, each to its group; ``inv_sigma2`` (n, n_rings) weights what :meth:`scale` sums."""
        index = np.asarray(group, np.int64)
        n = len(residuals.mass)
        if index.shape != (n,) or (n and not (index.min() >= 0 and index.max() < len(self.mass))):
            raise InputError(f"GroupSums.add: expected {n} groups from 0 to {len(self.mass) - 1}")
        inverse = 1.0 if inv_sigma2 is None else np.asarray(inv_sigma2, np.float64)
        # Not self.mass[index] += ...: that adds only one of several images of a group. And in order, unlike a matrix
        # product.
        np.add.at(self.mass, index, residuals.mass)
        np.add.at(self.squared, index, residuals.squared)
        np.add.at(self.cross, index, residuals.cross * inverse)
        np.add.at(self.power, index, residuals.power * inverse)

    def sigma2(self) -> FloatArray:
        r"""Noise variance :math:`E|noise|^2` of one complex coefficient, (n_groups, n_rings); NaN for empty groups."""
        return noise_variance(self.squared, self.mass[:, None] * (self.grid.weights * self.grid.n_theta))

    def scale(self) -> FloatArray:
        r"""Factor :math:`\sum\mathrm{cross}/\sum\mathrm{power}` on the present scale, (n_groups,); NaN if empty."""
        return grey_scale(self.cross.sum(1), self.power.sum(1))
