r"""Rotation that brings one map onto another, by exhaustive search and descent; axes of symmetry.

The correlation of map 1 with map 2 turned by A is summed over a few central sections E_j that spread over the ball:

.. math:: c(A) = \frac{\sum_j \mathrm{Re} \langle \hat V_1(E_j^T k), \hat V_2((E_j A)^T k) \rangle}
                      {\|\hat V_1\| \|\hat V_2\|}

which needs slices only, and no rotated volume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from verglas import fourier, gridding, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, healpix_directions, orientation_grid
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import MapLike, map_of

_BLOCK = 512
_SEARCH_DEG = 15.0


class Sections:
    """Central sections of a map through the ball of a radius, for correlations with turned maps.

    Parameters
    ----------
    volume : (N, N, N) float32
    max_radius : int
        Last shell compared.
    threads : int, optional
        Threads; all by default.
    """

    def __init__(self, volume: Float32Array, max_radius: int, *, threads: int | None = None) -> None:
        self.box, self.radius, self.threads = len(volume), max_radius, threads
        self.grid = ops.Grid(self.box, max_radius=max_radius)
        self.spectrum = gridding.to_grid(volume, self.grid, threads=threads)
        directions = healpix_directions(0)[:8]  # four of the northern hemisphere, four of the equator
        self.planes = euler_to_matrix(np.column_stack([directions, np.zeros(len(directions))]))

    def at(self, rotations: FloatArray) -> npt.NDArray[np.complex64]:
        """(n, pixels) coefficients of the map turned by each rotation, on all sections."""
        matrices = np.einsum("jab,nbc->njac", self.planes, rotations).reshape(-1, 3, 3)
        slices = ops.project(self.spectrum, self.grid, matrices, max_radius=self.radius, threads=self.threads)
        return slices[:, self._inside].reshape(len(rotations), -1)

    @cached_property
    def _inside(self) -> npt.NDArray[np.bool_]:
        shells = fourier.shells((self.box, self.box))
        return (shells > 0) & (shells <= self.radius)

    @cached_property
    def coefficients(self) -> npt.NDArray[np.complex64]:
        """(pixels,) coefficients of the map as it stands."""
        return self.at(np.eye(3)[None])[0]

    def correlations(self, other: Sections, rotations: FloatArray) -> FloatArray:
        """Correlation of this map with the other turned by each rotation."""
        out = np.empty(len(rotations))
        norm = np.linalg.norm(self.coefficients)
        for begin in range(0, len(rotations), _BLOCK):
            turned = other.at(rotations[begin : begin + _BLOCK])
            out[begin : begin + _BLOCK] = (turned @ self.coefficients.conj()).real / (
                np.linalg.norm(turned, axis=1) * norm
            )
        return out


@dataclass(frozen=True)
class Aligned:
    """A map turned onto another.

    Attributes
    ----------
    map : Map
        The second map, turned.
    matrix : (3, 3) float64
        Rotation: what was at r is at A r.
    correlation : float
        With the first map, over shells 1 to the radius.
    """

    map: Map
    matrix: FloatArray
    correlation: float


def best_rotation(first: Sections, second: Sections) -> tuple[FloatArray, float]:
    """Rotation of the second map that correlates best with the first.

    All rotations of a grid of 15 degrees are tried, and the best eight descend (Nelder and Mead).
    """
    directions, psi = orientation_grid(_SEARCH_DEG)
    angles = np.column_stack([np.repeat(directions, len(psi), axis=0), np.tile(psi, len(directions))])
    rotations = euler_to_matrix(angles)
    score = first.correlations(second, rotations)
    best, value = np.eye(3), -np.inf
    starts: list[FloatArray] = []
    for i in np.argsort(-score, kind="stable"):
        # A rotation by an angle a has the trace 1 + 2 cos a.
        near = [np.trace(rotations[i] @ t.T) for t in starts]
        if near and max(near) > 1 + 2 * np.cos(np.deg2rad(1.5 * _SEARCH_DEG)):
            continue
        starts.append(rotations[i])
        matrix, local = climb_rotation(lambda turn: float(first.correlations(second, turn[None])[0]), rotations[i])
        if local > value:
            best, value = matrix, local
        if len(starts) == 8:
            break
    return best, value


def climb_rotation(
    score: Callable[[FloatArray], float],
    start: FloatArray,
    *,
    first_deg: float = 5.0,
    tolerance: float = 1e-6,
    most: int = 150,
) -> tuple[FloatArray, float]:
    """Local maximum of a score of rotations near ``start`` (Nelder and Mead, from steps of ``first_deg``, to 0.1 deg).

    Parameters
    ----------
    score : callable
        Of a (3, 3) rotation.
    start : (3, 3)
        Where the search begins.
    first_deg : float
        First steps about the three axes.
    tolerance : float
        Of the score.
    most : int
        Iterations.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.geometry import euler_to_matrix
    >>> from verglas.map_geometry.map_alignment import climb_rotation
    >>> target = euler_to_matrix([[3, 4, -2]])[0]
    >>> best, value = climb_rotation(lambda turn: float(np.trace(target.T @ turn)), np.eye(3))
    >>> bool(np.abs(best - target).max() < 0.01), round(value, 3)
    (True, 3.0)
    """

    def turn_matrix(vector: FloatArray) -> FloatArray:
        return Rotation.from_rotvec(np.deg2rad(vector)).as_matrix() @ start

    options = {
        "xatol": 0.1,
        "fatol": tolerance,
        "initial_simplex": np.vstack([np.zeros(3), first_deg * np.eye(3)]),
        "maxiter": most,
    }
    best = minimize(lambda vector: -score(turn_matrix(vector)), np.zeros(3), method="Nelder-Mead", options=options)
    return turn_matrix(best.x), -float(best.fun)


def align_maps(
    first: MapLike, second: MapLike, *, max_radius: int | None = None, threads: int | None = None
) -> Aligned:
    """Turn a map onto another.

    Parameters
    ----------
    first, second : Map
        Cubes of one box, centred; nothing is shifted.
    max_radius : int, optional
        Last shell compared; a quarter of the box by default.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Aligned

    Raises
    ------
    InputError
        The boxes differ.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.map_geometry.map_alignment import align_maps
    >>> m = vg.simulate.density(vg.simulate.phantom(32, 4.0, 90.0), 32, 4.0)
    >>> turned = vg.Map(m.data.transpose(0, 2, 1)[:, ::-1].copy(), 4.0)
    >>> align_maps(m, turned).correlation > 0.8
    True
    """
    first, second = map_of(first, "align_maps: the first map"), map_of(second, "align_maps: the second map")
    if first.data.shape != second.data.shape:
        raise InputError(f"align_maps: expected maps of one box, got {first.data.shape} and {second.data.shape}")
    radius = max_radius or max(3, first.box // 4)
    one, two = (Sections(m.data.astype(np.float32), radius, threads=threads) for m in (first, second))
    matrix, value = best_rotation(one, two)
    return Aligned(Map(turned_map(second.data, matrix, threads=threads), second.pixel_size_A), matrix, value)


@any_arrays
def turned_map(volume: Float32Array, matrix: FloatArray, *, threads: int | None = None) -> Float32Array:
    """A map turned about its centre."""
    box = len(volume)
    grid = ops.Grid(box)
    spectrum = gridding.to_grid(volume.astype(np.float32), grid, threads=threads)
    return fourier.inverse(ops.rotate(spectrum, grid, matrix, threads=threads), (box,) * 3, threads=threads)
