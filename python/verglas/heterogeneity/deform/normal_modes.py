r"""Normal modes of an elastic network: the ways in which atoms, or pseudo-atoms of a map, move with the least energy.

.. math:: E = \frac{1}{2} \sum_{|r^0_{ij}| < r_c} \bigl( |r_{ij}| - |r^0_{ij}| \bigr)^2

(Tirion 1996, Phys. Rev. Lett. 77, 1905). Modes are eigenvectors of its Hessian, all masses alike; six of them are the
rigid motions, so that the softest is the seventh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree

from verglas.errors import InputError
from verglas.types.arrays import FloatArray
from verglas.types.convert import MapLike, map_of
from verglas.types.display import one_line

_RIGID = 6
_ZERO = 1e-6  # of the largest eigenvalue asked for: no energy
_DENSE = 400  # coordinates up to which all eigenvectors are quicker than some
_LLOYD = 30


@one_line
@dataclass(frozen=True)
class NormalModes:
    """The softest modes of an elastic network.

    Attributes
    ----------
    xyz_A : (n, 3) float64
        Where the atoms are at rest.
    vectors : (Q, n, 3) float64
        Unit modes without rigid motions, the softest first: a coordinate of a moves the atoms by a / sqrt(n), root mean
        square.
    eigenvalues : (Q,) float64
        Rising; twice the energy of a unit step, in units of the springs.
    """

    xyz_A: FloatArray
    vectors: FloatArray
    eigenvalues: FloatArray

    def displace(self, amplitudes_A: npt.ArrayLike) -> FloatArray:
        """(..., n, 3) atoms at these coordinates (..., up to Q), angstrom."""
        a = np.asarray(amplitudes_A, np.float64)
        return np.asarray(self.xyz_A + np.tensordot(a, self.vectors[: a.shape[-1]], 1))


def normal_modes(xyz_A: npt.ArrayLike, cutoff_A: float = 12.0, *, count: int = 10) -> NormalModes:
    """Modes of a network of springs between all atoms that are near each other.

    Parameters
    ----------
    xyz_A : (n, 3) array_like
        Atoms, x, y, z; C-alpha atoms or pseudo-atoms.
    cutoff_A : float
        Atoms nearer than this are tied.
    count : int
        Modes beyond the rigid ones.

    Raises
    ------
    InputError
        Not finite, too few atoms for so many modes, or atoms that hang together so loosely that more than the rigid
        motions cost no energy.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.deform import normal_modes
    >>> rod = np.argwhere(np.ones((3, 3, 20))) * 4.0
    >>> modes = normal_modes(rod, 8.0, count=2)
    >>> ways = np.square(modes.vectors).sum(axis=(0, 1))  # a rod bends across its long axis, z
    >>> bool(ways[2] < 0.2 * (ways[0] + ways[1]))
    True
    """
    xyz = np.asarray(xyz_A, np.float64)
    if xyz.ndim != 2 or xyz.shape[1] != 3 or not np.isfinite(xyz).all():
        raise InputError(f"normal_modes: expected finite positions (n, 3), got shape {xyz.shape}")
    if not cutoff_A > 0 or count < 1:
        raise InputError(f"normal_modes: expected a positive cutoff_A and count, got {cutoff_A} and {count}")
    if 3 * len(xyz) < count + _RIGID + 1:
        raise InputError(f"normal_modes: {len(xyz)} atoms have no {count} modes")
    hessian = network_hessian(xyz, cutoff_A)
    values, vectors = _softest(hessian, count + _RIGID + 1)
    free = int(np.count_nonzero(values < _ZERO * values[-1]))
    if free > _RIGID:
        raise InputError(
            f"normal_modes: {free - _RIGID} or more motions beside the rigid ones cost no energy: with springs up to "
            f"{cutoff_A:g} A the atoms fall apart; choose a larger cutoff_A"
        )
    kept = slice(_RIGID, _RIGID + count)
    chosen = vectors[:, kept].T
    # The sign is free: the largest entry positive, so that two runs agree.
    chosen = chosen * np.sign(chosen[np.arange(count), np.abs(chosen).argmax(axis=1)])[:, None]
    return NormalModes(xyz, chosen.reshape(count, -1, 3), values[kept])


def network_hessian(xyz_A: FloatArray, cutoff_A: float) -> sparse.csr_matrix:
    """(3 n, 3 n) second derivatives of the energy at rest: -e e^T of each spring off the diagonal.

    Parameters
    ----------
    xyz_A : (n, 3) float64
    cutoff_A : float
    """
    n = len(xyz_A)
    pairs = cKDTree(xyz_A).query_pairs(cutoff_A, output_type="ndarray")
    if not len(pairs):
        raise InputError(f"normal_modes: no two atoms are nearer than {cutoff_A:g} A")
    i, j = pairs.T
    between = xyz_A[i] - xyz_A[j]
    length = np.linalg.norm(between, axis=1)
    if not length.min() > 0:
        raise InputError(f"normal_modes: two atoms lie at one place (the first is atom {i[length.argmin()]})")
    unit = between / length[:, None]
    blocks = unit[:, :, None] * unit[:, None, :]
    axis = np.arange(3)
    rows = np.broadcast_to(3 * np.concatenate([i, j])[:, None, None] + axis[:, None], (2 * len(i), 3, 3))
    columns = np.broadcast_to(3 * np.concatenate([j, i])[:, None, None] + axis, rows.shape)
    off = sparse.coo_matrix(
        (np.concatenate([-blocks, -blocks]).ravel(), (rows.ravel(), columns.ravel())), (3 * n, 3 * n)
    )
    own = np.zeros((n, 3, 3))
    np.add.at(own, i, blocks)
    np.add.at(own, j, blocks)
    at = 3 * np.arange(n)[:, None, None]
    shape = (n, 3, 3)
    diagonal = sparse.coo_matrix(
        (
            own.ravel(),
            (np.broadcast_to(at + axis[:, None], shape).ravel(), np.broadcast_to(at + axis, shape).ravel()),
        ),
        (3 * n, 3 * n),
    )
    return (off + diagonal).tocsr()


def _softest(hessian: sparse.csr_matrix, count: int) -> tuple[FloatArray, FloatArray]:
    size = hessian.shape[0]
    if size <= max(_DENSE, 2 * count):
        values, vectors = np.linalg.eigh(hessian.toarray())
        return values[:count], vectors[:, :count]
    # About a point just below zero the softest are the nearest; a fixed start, or two runs would differ.
    scale = float(hessian.diagonal().mean())
    start = np.random.default_rng(0).standard_normal(size)
    values, vectors = eigsh(hessian.tocsc(), k=count, sigma=-1e-4 * scale, which="LM", v0=start)
    order = np.argsort(values)
    return values[order], vectors[:, order]


def pseudo_atoms(
    map: MapLike, count: int, *, level: float | None = None, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Points that stand for the density of a map: centres of its cells of about equal mass (Lloyd's algorithm).

    Parameters
    ----------
    map : Map or path
        Density, particles white.
    count : int
        Points.
    level : float, optional
        Density below this is nothing; a tenth of the largest by default.
    seed : int
        Of the first points.

    Returns
    -------
    (n, 3) float64, (n,) float64
        x, y, z in angstrom from the centre of the box, and the density that each stands for.

    Raises
    ------
    InputError
        Fewer voxels above the level than points.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.heterogeneity.deform import pseudo_atoms
    >>> ball = vg.Map(vg.masks.soft_sphere(24, 6.0, 2.0), 3.0)
    >>> points, mass = pseudo_atoms(ball, 50)
    >>> points.shape, bool(abs(points.mean(axis=0)).max() < 1.0)
    ((50, 3), True)
    """
    volume = map_of(map, "pseudo_atoms: the map")
    least = 0.1 * float(volume.data.max()) if level is None else level
    inside = volume.data > max(least, 0)
    if np.count_nonzero(inside) < count:
        raise InputError(
            f"pseudo_atoms: {np.count_nonzero(inside)} voxels above {least:.3g}, which cannot be {count} points; "
            "give a lower level"
        )
    places = (np.argwhere(inside)[:, ::-1] - volume.box // 2).astype(np.float64)
    mass = volume.data[inside].astype(np.float64)
    rng = np.random.default_rng(seed)
    points = places[rng.choice(len(places), count, replace=False, p=mass / mass.sum())]
    for _ in range(_LLOYD):
        nearest = cKDTree(points).query(places)[1]
        weight = np.bincount(nearest, mass, minlength=count)
        sums = np.stack([np.bincount(nearest, mass * places[:, k], minlength=count) for k in range(3)], axis=1)
        points = np.where(weight[:, None] > 0, sums / np.maximum(weight, 1e-30)[:, None], points)
    own = np.asarray(np.bincount(cKDTree(points).query(places)[1], mass, minlength=count), np.float64)
    return points * volume.pixel_size_A, own
