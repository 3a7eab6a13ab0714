"""Q-score: how well the map around each atom falls off as a well resolved atom's does."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.types import Map
from verglas.types.arrays import FloatArray, IntArray, any_arrays
from verglas.types.atoms import Atoms
from verglas.types.convert import MapLike, map_of

_STEP_A, _LARGEST_A = 0.1, 2.0  # radii of the spheres
_POINTS = 8  # on each, at least
_DENSEST = 106  # points tried, two more at a time, until so many are nearer to the atom than to any other
_NEARER = 0.9  # a point is another's where it is nearer to that one than this part of its radius
_CHUNK = 1024


@any_arrays
def q_scores(
    volume: MapLike, atoms: Atoms | npt.ArrayLike, *, sigma_A: float = 0.6, threads: int | None = None
) -> FloatArray:
    r"""Q-score of every atom.

    The map's values u on spheres about an atom (radii 0, 0.1 ... 2 angstrom, at least eight points each, only those
    nearer to it than to any other atom) are correlated with those of a Gaussian:

    .. math:: Q = \frac{\langle u - \bar u, v - \bar v\rangle}{|u - \bar u|\,|v - \bar v|}, \quad
              v(r) = e^{-r^2 / 2\sigma^2}

    Expected for proteins at a resolution of d angstrom: -0.1775 d + 1.1192; nucleic acids -0.1377 d + 0.9973.

    A direction is free of an atom at d up to the radius where :math:`|r u - d|` falls below 0.9 r: one quadratic per
    pair, so that no point has to be tried.

    Parameters
    ----------
    volume : Map
        Any box; sharpened, as it was modelled.
    atoms : Atoms or (n, 3) float
        All atoms but hydrogens, positions in the map's frame (``origin_A``).
    sigma_A : float
        Of the Gaussian.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    (n,) float64
        NaN for atoms whose spheres leave the map, and where the map is constant.

    Raises
    ------
    InputError
        Positions of another shape, or sigma not positive.

    References
    ----------
    Pintilie et al., Nat. Methods 17 (2020) 328.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import q_scores
    >>> r2 = sum(x**2 for x in np.ogrid[-10:11, -10:11, -10:11]) * 0.25
    >>> q_scores(vg.Map(np.exp(-r2 / 0.72), 0.5, (-5, -5, -5)), [[0, 0, 0]]).round(2).tolist()
    [1.0]
    """
    volume = map_of(volume, "q_scores: the map")
    xyz = atoms.xyz_A if isinstance(atoms, Atoms) else np.atleast_2d(np.asarray(atoms, np.float64))
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise InputError(f"q_scores: expected positions of shape (n, 3), got {xyz.shape}")
    if not sigma_A > 0:
        raise InputError(f"q_scores: expected sigma > 0 in angstrom, got {sigma_A:g}")
    tree, scores = cKDTree(xyz), np.empty(len(xyz))

    def score(start: int) -> None:
        rows = slice(start, start + _CHUNK)
        scores[rows] = _correlations(volume, xyz[rows], _Neighbourhood(xyz, rows, tree), sigma_A)

    with ThreadPoolExecutor(resolve_threads(threads)) as pool:
        list(pool.map(score, range(0, len(xyz), _CHUNK)))
    return scores


@functools.cache
def _sphere(n: int) -> npt.NDArray[np.float32]:
    """Unit vectors on a spiral from pole to pole (Saff and Kuijlaars, Math. Intelligencer 19 (1997) 5), (n, 3)."""
    z = -1 + 2 * np.arange(n) / (n - 1)
    step = np.zeros(n)
    step[1:-1] = 3.6 / np.sqrt(n * (1 - z[1:-1] ** 2))
    phi = np.cumsum(step)
    phi[-1] = 0
    rho = np.sqrt(np.maximum(1 - z**2, 0))
    return np.column_stack([rho * np.cos(phi), rho * np.sin(phi), z]).astype(np.float32)


class _Neighbourhood:
    """The atoms about each of some atoms, and how far a direction is free of them."""

    def __init__(self, xyz: FloatArray, rows: slice, tree: cKDTree) -> None:
        # Beyond 1.9 of the largest radius no atom takes a point: (1 - 0.9^2) r^2 - 2 r d + d^2 > 0 for all directions.
        reach = (1 + _NEARER) * _LARGEST_A
        most = int(tree.query_ball_point(xyz[rows], reach, return_length=True).max())
        distance, index = tree.query(xyz[rows], k=[*range(1, most + 1)], distance_upper_bound=reach)
        known = np.isfinite(distance) & (distance > 1e-6)  # not itself, nor alternatives on the same place
        offset = xyz[np.where(known, index, 0)] - xyz[rows, None]
        # Where there is none: at a right angle to every direction, infinitely far.
        inverse = np.where(known, 1 / np.where(known, distance, 1), 0)
        self.unit = (np.where(known[..., None], offset, 0) * inverse[..., None]).astype(np.float32)
        self.inverse = inverse.astype(np.float32)

    def free_to(self, atoms: npt.NDArray[np.int64], directions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Radius up to which each direction from each atom is nearer to it than to any other, (atoms, directions)."""
        q = np.float32(1 - _NEARER**2)
        # 1 / r = (c + sqrt(c^2 - q)) / d of every neighbour, c the cosine of the angle to it; none below sqrt(q).
        cosine = self.unit[atoms] @ directions.T
        met = cosine >= np.sqrt(q)
        root = cosine * cosine
        root -= q
        np.maximum(root, 0, out=root)
        np.sqrt(root, out=root)
        root += cosine
        root *= self.inverse[atoms][:, :, None]
        root *= met
        nearest = root.max(axis=1)
        return np.divide(1, nearest, out=np.full(nearest.shape, np.inf, np.float32), where=nearest > 0)


def _correlations(volume: Map, centres: FloatArray, around: _Neighbourhood, sigma_A: float) -> FloatArray:
    """Q of some atoms, from sums of 1, u, v, u^2, v^2 and u v over their points."""
    origin = (centres - np.asarray(volume.origin_A)) / volume.pixel_size_A  # voxels x, y, z
    radii: FloatArray = _STEP_A * np.arange(1.0, round(_LARGEST_A / _STEP_A) + 1)
    profile = np.exp(-0.5 * (radii / sigma_A) ** 2)
    n, middle = len(centres), _at(volume, origin)
    one = np.ones(n)
    sums = _POINTS * np.stack([one, middle, one, middle**2, one, middle])
    open_at = np.ones((n, len(radii)), bool)  # spheres that have no points yet
    for density in range(_POINTS, _DENSEST + 1, 2):
        atoms = np.flatnonzero(open_at.any(axis=1))
        if not atoms.size:
            break
        directions = _sphere(density)
        # The densest sphere is the last: its points are taken, however few.
        least = _POINTS if density + 2 <= _DENSEST else 0
        atom, sphere, direction = _points(around.free_to(atoms, directions), atoms, radii, least, open_at)
        at = origin[atoms[atom]] + directions[direction] * (radii[sphere] / volume.pixel_size_A)[:, None]
        u, v = _at(volume, at), profile[sphere]
        for row, term in enumerate((None, u, v, u * u, v * v, u * v)):
            sums[row] += np.bincount(atoms[atom], term, minlength=n)
    weight, u, v, uu, vv, uv = sums
    scale = np.sqrt(np.maximum(uu - u * u / weight, 0) * (vv - v * v / weight))
    constant = ~(uu - u * u / weight > 1e-10 * uu)
    scale = np.where(constant, 0, scale)
    return np.divide(uv - u * v / weight, scale, out=np.full(n, np.nan), where=scale > 0)


def _points(
    free_to: npt.NDArray[np.float32],
    atoms: npt.NDArray[np.int64],
    radii: FloatArray,
    least: int,
    open_at: npt.NDArray[np.bool_],
) -> tuple[IntArray, IntArray, IntArray]:
    """Points of the spheres that have enough of them now, as rows of ``atoms``, radii and directions; closes these.

    Small spheres have theirs first, so that most directions are compared with a few radii only.
    """
    rows, spheres, directions = list[IntArray](), list[IntArray](), list[IntArray]()
    for sphere in np.flatnonzero(open_at.any(axis=0)):
        mine = np.flatnonzero(open_at[atoms, sphere])
        free = free_to[mine] >= np.float32(radii[sphere])
        enough = np.count_nonzero(free, axis=1) >= least
        open_at[atoms[mine[enough]], sphere] = False
        row, direction = np.nonzero(free[enough])
        rows.append(mine[enough][row])
        spheres.append(np.full(len(row), sphere))
        directions.append(direction)
    return np.concatenate(rows), np.concatenate(spheres), np.concatenate(directions)


def sample(volume: Map, xyz_A: FloatArray) -> FloatArray:
    """Trilinear values of a map at positions in its frame, (n, 3); NaN outside."""
    return _at(volume, (xyz_A - np.asarray(volume.origin_A)) / volume.pixel_size_A)


def _at(volume: Map, voxels: FloatArray) -> FloatArray:
    """Trilinear values at positions x, y, z in voxels; NaN outside the map."""
    return np.asarray(map_coordinates(volume.data, voxels[:, ::-1].T, order=1, cval=np.nan, output=np.float64))
