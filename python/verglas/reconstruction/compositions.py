r"""Published methods of tomography, each a few lines of our solvers and priors: ICON, FIRT, MBIR.

They take any operator (:mod:`verglas.reconstruction.operators`) and data; the weight of what they assume is best chosen
by data left out (:func:`verglas.reconstruction.tomogram.reconstruct_tilts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.reconstruction.priors import (
    NonNegative,
    Prior,
    Shaped,
    TotalVariation,
    WaveletL0,
    divergence,
    gradient,
)
from verglas.reconstruction.solvers import Solution, solve
from verglas.types.arrays import Array, FloatArray, any_arrays

_DIFFUSION_STEP = 0.15  # below 1 / (2 axes), beyond which an explicit step of diffusion in three dimensions oscillates
_ROUNDS_MBIR = 5


@dataclass(frozen=True)
class InTurn:
    """Several priors whose proximal operators are applied one after the other; the sum of their values."""

    priors: Sequence[Prior]

    def value(self, x: Array) -> float:
        """Of all."""
        return float(sum(one.value(x) for one in self.priors))

    def prox(self, v: Array, step: float) -> Array:
        """One after the other: no longer the minimiser of the sum, but each constraint that is last holds."""
        for one in self.priors:
            v = one.prox(v, step)
        return v


@any_arrays
def solve_icon(
    operator: Any,
    data: npt.ArrayLike,
    shape: tuple[int, ...],
    weight: float,
    *,
    iterations: int = 60,
    non_negative: bool = True,
) -> Solution:
    r"""ICON: as few wavelet coefficients as explain the data, and no negative density.

    .. math:: \min_x \tfrac12 |Ax - f|^2 + w |\Psi x|_0, \quad x \ge 0

    by proximal steps (hard thresholds of the wavelet coefficients, then the projection onto x >= 0), after Deng et al.
    2016, J. Struct. Biol. 195, 100-112, whose transform is the image's own.

    Parameters
    ----------
    operator : LinearOperator
    data : array
    shape : tuple
        Of the map.
    weight : float
        Of the number of coefficients, in the unit of the data squared.
    iterations : int
    non_negative : bool
        Only of data whose background is 0.

    Returns
    -------
    Solution

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction import operators
    >>> from verglas.reconstruction.compositions import solve_icon
    >>> A = operators.parallel_beam((16, 16), np.arange(-60, 61, 10.0))
    >>> truth = np.zeros((16, 16)); truth[5:11, 6:12] = 1
    >>> x = solve_icon(A, A @ truth.ravel(), (16, 16), 0.01, iterations=80).x
    >>> bool(x.min() >= 0), bool(np.corrcoef(x, truth.ravel())[0, 1] > 0.95)
    (True, True)
    """
    priors: list[Prior] = [Shaped(WaveletL0(weight), shape)]
    if non_negative:
        priors.append(NonNegative())
    return solve(operator, data, "fista", prior=InTurn(priors), iterations=iterations)


@any_arrays
def diffuse(x: Array, knee: float, steps: int = 1) -> Array:
    r"""Nonlinear diffusion, :math:`x + \tau \nabla \cdot \frac{\nabla x}{1 + |\nabla x|^2 / K^2}`: edges above K stay.

    Perona and Malik (1990), IEEE Trans. Pattern Anal. 12, 629-639.

    Parameters
    ----------
    x : array
        Of any number of axes.
    knee : float
        K, in the unit of x.
    steps : int

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction.compositions import diffuse
    >>> edge = np.repeat([0.0, 10.0], 8) + 0.1 * np.cos(np.pi * np.arange(16))
    >>> smooth = diffuse(edge, 1.0, 40)
    >>> bool(np.diff(smooth)[7] > 9), bool(np.abs(np.diff(smooth)[:7]).max() < 0.1)  # 0.2 before
    (True, True)
    """
    for _ in range(steps):
        slope = gradient(x)
        x = x + _DIFFUSION_STEP * divergence(slope / (1 + (slope**2).sum(axis=0) / knee**2))
    return x


@any_arrays
def solve_firt(
    operator: Any,
    data: npt.ArrayLike,
    shape: tuple[int, ...],
    knee: float,
    *,
    rounds: int = 20,
    iterations: int = 3,
    method: str = "sirt",
    relaxation: float = 1.0,
) -> Solution:
    """FIRT: a few iterations of SIRT (or ART, of matrices), then nonlinear diffusion, in turn; it ends with the data.

    Chen et al. (2016), IEEE/ACM Trans. Comput. Biol. Bioinform., their filtered iterative reconstruction technique.

    Parameters
    ----------
    operator : LinearOperator or matrix
    data : array
    shape : tuple
        Of the map.
    knee : float
        Differences of neighbours above it are edges, in the map's unit.
    rounds, iterations : int
        Of diffusion, and of the solver in each.
    method : {"sirt", "art", "sart"}
    relaxation : float
        Of the solver; less than 1 for ART on noisy data.

    Returns
    -------
    Solution

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction import operators
    >>> from verglas.reconstruction.compositions import solve_firt
    >>> A = operators.parallel_beam((16, 16), np.arange(-60, 61, 10.0))
    >>> truth = np.zeros((16, 16)); truth[5:11, 6:12] = 1
    >>> bool(np.corrcoef(solve_firt(A, A @ truth.ravel(), (16, 16), 0.2).x, truth.ravel())[0, 1] > 0.9)
    True
    """
    if not knee > 0:
        raise InputError(f"firt: expected a positive knee, got {knee}")
    residuals: list[float] = []
    solution = solve(operator, data, method, iterations=iterations, relaxation=relaxation)
    for _ in range(rounds):
        residuals += solution.residuals
        start = diffuse(solution.x.reshape(shape), knee).ravel()
        solution = solve(operator, data, method, iterations=iterations, start=start, relaxation=relaxation)
    residuals += solution.residuals
    return Solution(solution.x, residuals, len(residuals), solution.reason)


@dataclass(frozen=True)
class ModelBased:
    """A map and what its images' detector did.

    Attributes
    ----------
    x : array
        Of the operator's ``shape[1]``.
    gain, offset : (images,) float64
        Images are gain times the projection, plus offset; the mean gain is 1, the mean offset 0.
    sigma : (images,) float64
        Standard deviation of each image's noise.
    residuals : list of float
        Norm of the residual over that of the data, after each round.
    """

    x: Array
    gain: FloatArray
    offset: FloatArray
    sigma: FloatArray
    residuals: list[float]


@any_arrays
def solve_mbir(
    operator: Any,
    data: npt.ArrayLike,
    shape: tuple[int, ...],
    weight: float,
    *,
    rounds: int = _ROUNDS_MBIR,
    iterations: int = 15,
    fit_gain: bool = True,
) -> ModelBased:
    r"""MBIR: the map under total variation, and the gain, offset and noise of every image, in turn.

    .. math:: f_k = g_k A_k x + d_k + n_k, \quad n_k \sim N(0, \sigma_k^2)

    (Venkatakrishnan et al. 2015, IEEE Trans. Comput. Imaging 1, 1-15; Yan et al. 2019.) What all gains or all offsets
    share cannot be told from the map: their means are 1 and 0.

    Parameters
    ----------
    operator : LinearOperator
    data : (images, ...) array
    shape : tuple
        Of the map.
    weight : float
        Of total variation, in the unit of the data.
    rounds, iterations : int
        Of map and detector in turn, and of the solver in each.
    fit_gain : bool
        Gains are 1 without.

    Returns
    -------
    ModelBased

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction import operators
    >>> from verglas.reconstruction.compositions import solve_mbir
    >>> A = operators.parallel_beam((24, 24), np.arange(-60, 61, 10.0))
    >>> truth = np.zeros((24, 24)); truth[8:16, 9:17] = 1
    >>> offset = np.array([*[1.0, -1.0] * 6, 0.0])  # offsets that change slowly with the angle take more rounds
    >>> data = (A @ truth.ravel()).reshape(13, 24) + offset[:, None]
    >>> result = solve_mbir(A, data, (24, 24), 0.05, fit_gain=False)
    >>> bool(np.abs(result.offset - offset).max() < 0.1)
    True
    """
    images = np.asarray(data, np.float64)
    flat = images.reshape(len(images), -1)
    gain, offset = np.ones(len(flat)), np.zeros(len(flat))
    sigma = np.full(len(flat), max(float(flat.std()), 1e-30))
    prior = Shaped(TotalVariation(weight, iterations=15), shape)
    x, residuals = None, []
    for _ in range(rounds):
        corrected = (flat - offset[:, None]) / gain[:, None]
        # Relative to the mean weight, so that the prior's weight keeps its meaning from round to round.
        precision = (gain / sigma) ** 2
        weights = np.repeat(precision / precision.mean(), flat.shape[1])
        x = solve(operator, corrected, "fista", prior=prior, iterations=iterations, weights=weights, start=x).x
        projected = np.asarray(operator @ x, np.float64).reshape(flat.shape)
        centred = projected - projected.mean(axis=1, keepdims=True)
        if fit_gain:
            power = (centred**2).sum(axis=1)
            gain = np.where(power > 0, (centred * flat).sum(axis=1) / np.maximum(power, 1e-30), 1.0)
            gain = np.clip(gain / gain.mean(), 0.1, 10.0)
            gain /= gain.mean()
        offset = flat.mean(axis=1) - gain * projected.mean(axis=1)
        offset -= offset.mean()
        rest = flat - gain[:, None] * projected - offset[:, None]
        # A floor: an image that is explained exactly must not outweigh all others.
        sigma = np.maximum(rest.std(axis=1), 0.1 * rest.std() + 1e-30)
        residuals.append(float(np.linalg.norm(rest)) / max(float(np.linalg.norm(flat)), 1e-30))
    assert x is not None
    return ModelBased(x, gain, offset, sigma, residuals)
