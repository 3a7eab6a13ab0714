"""A shaded picture of a map's surface: rays along z to the first voxel above a level, lit by the density's gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import affine_transform, map_coordinates, spline_filter
from threadpoolctl import threadpool_limits

from verglas.errors import InputError
from verglas.types import Map

Density = Callable[[npt.NDArray, npt.NDArray, npt.NDArray], npt.NDArray]
_LIGHTS = (((-0.45, -0.6, 0.66), 0.75), ((0.8, 0.2, 0.4), 0.25))  # direction (x right, y down, z to the eye), strength
_AMBIENT = 0.18


def level_for_volume(data: npt.NDArray[np.float32], fraction: float) -> float:
    """Density level above which the given fraction of the voxels lies."""
    return float(np.quantile(data, 1.0 - fraction))


def shade_surface(
    volume: Map,
    level: float,
    *,
    colour: tuple[float, float, float] = (0.36, 0.56, 0.72),
    size: int = 320,
    matrix: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float32]:
    """Surface at a density level, orthographic, seen along the z axis of the turned map.

    Parameters
    ----------
    volume : Map
        A cube.
    level : float
        Density of the surface.
    colour : (r, g, b)
        0 to 1.
    size : int
        Side of the picture in screen pixels.
    matrix : (3, 3), optional
        Rotation of the molecule, acting on (x, y, z).

    Returns
    -------
    (size, size, 4) float32
        Red, green, blue, opacity, 0 to 1; transparent where no surface is hit.

    Raises
    ------
    InputError
        The map is no cube.
    """
    box = volume.box
    data = volume.data if matrix is None else _rotate_map(volume.data, np.asarray(matrix, np.float64))
    coefficients = spline_filter(data, order=3, output=np.float32)
    # Middles of the picture's pixels in voxels, whose own middles are whole numbers.
    plane = (np.arange(size) + 0.5) / size * box - 0.5
    y, x = (a.ravel() for a in np.meshgrid(plane, plane, indexing="ij"))

    def density(px: npt.NDArray, py: npt.NDArray, depth: npt.NDArray) -> npt.NDArray:
        return map_coordinates(coefficients, [depth, py, px], order=3, prefilter=False, mode="constant")

    with threadpool_limits(1, user_api="blas"):  # of hundreds of small products; threads would wait for each other
        depth, hit = _first_crossing(coefficients, plane, level)
    normal = np.stack([_slope(density, x[hit], y[hit], depth[hit], axis) for axis in range(3)])
    # Density falls outwards: the surface's normal is against the gradient.
    normal = -normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-12)
    light = np.full(normal.shape[1], _AMBIENT)
    for direction, strength in _LIGHTS:
        unit = np.asarray(direction) / np.linalg.norm(direction)
        light += strength * np.clip(unit @ normal, 0, None)
    # Nearer parts are brighter: depth is hard to read from shading alone.
    light *= 0.72 + 0.28 * (depth[hit] - depth[hit].min(initial=0)) / max(np.ptp(depth[hit]) if hit.any() else 1, 1e-9)
    picture = np.zeros((size * size, 4), np.float32)
    picture[hit, :3] = np.clip(light[:, None] * np.asarray(colour) * 1.25, 0, 1)
    picture[hit, 3] = 1.0
    return picture.reshape(size, size, 4)


def _rotate_map(data: npt.NDArray[np.float32], matrix: npt.NDArray) -> npt.NDArray[np.float32]:
    """The map after a rotation of the molecule: value(r) = data(matrix^T r)."""
    if matrix.shape != (3, 3):
        raise InputError(f"shade_surface: expected a (3, 3) matrix, got shape {matrix.shape}")
    backwards = matrix.T[::-1, ::-1]  # (x, y, z) to array order
    centre = np.full(3, len(data) // 2)
    return affine_transform(data, backwards, offset=centre - backwards @ centre, order=3, mode="constant")


def _spline_rows(places: npt.NDArray, n: int) -> npt.NDArray[np.float32]:
    """(places, n) weights of cubic B-spline coefficients, mirrored at the ends; zero beyond them."""
    first = np.floor(places).astype(np.int64)
    t = places - first
    weights = np.stack([(1 - t) ** 3, 4 - 3 * t**2 * (2 - t), 4 - 3 * (1 - t) ** 2 * (1 + t), t**3]) / 6
    rows = np.zeros((len(places), n), np.float32)
    inside = np.flatnonzero((places >= 0) & (places <= n - 1))
    for tap, weight in enumerate(weights):
        rows[inside, _mirror(first[inside] - 1 + tap, n)] += weight[inside].astype(np.float32)
    return rows


def _mirror(index: npt.NDArray | int, n: int) -> npt.NDArray:
    """Indices of a row of n that goes on as in a mirror, the end counted once."""
    return np.abs(n - 1 - np.abs(n - 1 - np.abs(index)))


def _along_ray(taps: npt.NDArray, t: npt.NDArray | float) -> npt.NDArray:
    """The spline between its second and third coefficient, t from 0 to 1; taps (4, ...)."""
    u = 1 - t
    middle = taps[1] * (4 - 3 * t * t * (1 + u)) + taps[2] * (4 - 3 * u * u * (1 + t))
    return (taps[0] * u * u * u + middle + taps[3] * t * t * t) / 6


def _first_crossing(
    coefficients: npt.NDArray[np.float32], plane: npt.NDArray, level: float
) -> tuple[npt.NDArray, npt.NDArray[np.bool_]]:
    """Depth of the first point above the level on each ray from the eye (large z), to a hundredth of a voxel.

    The spline is a product of splines along the axes, and rays go along z: every plane of coefficients is spread over
    the picture by two matrix products, once, and along a ray four of them are left to weigh.
    """
    box, size = len(coefficients), len(plane)
    rows = _spline_rows(plane, box)
    planes: dict[int, npt.NDArray] = {}

    def spread(z: int) -> npt.NDArray:
        there = int(_mirror(z, box))
        if there not in planes:
            planes[there] = (rows @ coefficients[there] @ rows.T).ravel()
        return planes[there]

    depth, hit = np.full(size * size, -1.0), np.zeros(size * size, bool)
    taps, t = np.zeros((4, size * size), np.float32), np.zeros(size * size)
    for z in range(box - 1, -1, -1):
        near = np.stack([spread(z + k) for k in (-1, 0, 1, 2)])
        for ahead in (0.5, 0.0) if z < box - 1 else (0.0,):
            new = ~hit & (_along_ray(near, ahead) > level)
            hit |= new
            taps[:, new], depth[new], t[new] = near[:, new], z, ahead
        planes.pop(z + 2, None)
    chosen, outer, inner = taps[:, hit].astype(np.float64), np.minimum(t[hit] + 0.5, 1.0), t[hit]
    for _ in range(6):  # bisection of a half-voxel interval
        middle = 0.5 * (outer + inner)
        above = _along_ray(chosen, middle) > level
        inner = np.where(above, middle, inner)
        outer = np.where(above, outer, middle)
    depth[hit] += inner
    return depth, hit


def _slope(density: Density, x: npt.NDArray, y: npt.NDArray, z: npt.NDArray, axis: int) -> npt.NDArray:
    """Central difference over one voxel along an axis of the picture."""
    offset = 0.5 * np.eye(3)[axis]
    ahead = density(x + offset[0], y + offset[1], z + offset[2])
    return ahead - density(x - offset[0], y - offset[1], z - offset[2])
