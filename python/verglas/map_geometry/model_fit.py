"""A model placed in a map as one rigid body: all rotations and shifts on a coarse grid, then a descent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from verglas import fourier
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, orientation_grid
from verglas.types import Map
from verglas.types.arrays import Complex64Array, FloatArray
from verglas.types.atoms import Atoms
from verglas.types.listener import Progress, count_phase

_SEARCH_DEG = 20.0
_COARSE_A = 12.0  # resolution of the search: 20 degrees move the rim of a 70 A body by one such length
_STARTS = 12
_MOST_ATOMS = 3000  # in the descent


@dataclass(frozen=True)
class Placed:
    """A model moved into a map.

    Attributes
    ----------
    atoms : Atoms
        Moved.
    matrix, shift_A : (3, 3), (3,) float64
        An atom at r now lies at ``matrix @ r + shift_A``.
    density : float
        Mean of the map at the atoms, in standard deviations above the map's mean.
    runner_up : float
        The same of the best place that differs, by more than 15 degrees or 8 angstrom.
    """

    atoms: Atoms
    matrix: FloatArray
    shift_A: FloatArray
    density: float
    runner_up: float


def fit_atoms(volume: Map, atoms: Atoms, *, threads: int | None = None, progress: Progress | None = None) -> Placed:
    """Place a model in a map as one rigid body.

    The map's density, low-pass filtered, is summed over the atoms for every rotation of a grid of 20 degrees and every
    shift at once (by FFT); the twelve best climb, at 12 angstrom, then at 5.

    Parameters
    ----------
    volume : Map
        Any box.
    atoms : Atoms
        Anywhere.
    threads : int, optional
        Threads; the result does not depend on it.
    progress : callable, optional
        Called with a phase, how much of it is done, and how much there is.

    Returns
    -------
    Placed

    Raises
    ------
    InputError
        The model is larger than the map, or the map is constant or not finite.
    """
    if bad := np.count_nonzero(~np.isfinite(volume.data)):
        raise InputError(f"fit: the map holds {bad} values that are not finite numbers")
    if not np.ptp(volume.data) > 0:
        raise InputError("fit: the map is constant")
    centre = atoms.xyz_A.mean(axis=0)
    body = atoms.xyz_A - centre
    extent = np.asarray(volume.data.shape[::-1]) * volume.pixel_size_A
    if np.ptp(body, axis=0).min() > extent.max():
        raise InputError(f"fit: {atoms.name} is larger than the map ({extent.max():.0f} A)")
    coarse = _Field(volume, _COARSE_A, threads)
    starts = _search(coarse, body, threads, progress)
    some = body[:: max(1, len(body) // _MOST_ATOMS)]
    tick = count_phase(progress, "fit, places", len(starts))
    climbed = []
    for start in starts:
        climbed.append(_climb(coarse, some, start, step_deg=6.0, step_A=4.0))
        tick(1)
    climbed.sort(key=lambda one: -one.density)
    fine = _Field(volume, max(5.0, 3 * volume.pixel_size_A), threads)
    climbed = [_climb(fine, some, one, step_deg=2.0, step_A=1.0) for one in climbed[:4]]
    climbed.sort(key=lambda one: -one.density)
    best = climbed[0]
    others = [one.density for one in climbed[1:] if one.differs_from(best)]
    shift = best.centre_A - best.matrix @ centre
    return Placed(atoms.move(best.matrix, shift), best.matrix, shift, best.density, max(others, default=float("nan")))


@dataclass(frozen=True)
class _Place:
    """Of a body in a map: its turn, where its centre lies, and the map's mean at its atoms."""

    matrix: FloatArray
    centre_A: FloatArray
    density: float = 0.0

    def differs_from(self, other: _Place) -> bool:
        """By more than 15 degrees or 8 A."""
        cosine = (np.trace(self.matrix @ other.matrix.T) - 1) / 2
        return bool(cosine < np.cos(np.deg2rad(15)) or np.linalg.norm(self.centre_A - other.centre_A) > 8)


class _Field:
    """A map low-pass filtered to a resolution, of mean 0 and variance 1, as a spline and as a transform."""

    def __init__(self, volume: Map, resolution_A: float, threads: int | None) -> None:
        self.origin = np.asarray(volume.origin_A)
        shape = volume.data.shape
        spectrum = fourier.forward(volume.data - volume.data.mean(), 3, threads=threads)
        squares = [(k / (n * volume.pixel_size_A)) ** 2 for k, n in zip(fourier.half_grid(shape), shape, strict=True)]
        # exp(-k^2 d^2 ln 2): one half at the resolution.
        spectrum *= np.exp(-np.log(2) * resolution_A**2 * np.asarray(sum(squares))).astype(np.float32)
        # As coarse as the filter allows: a quarter of the resolution.
        side = [
            min(n, fourier.fast_size(int(np.ceil(n * volume.pixel_size_A * 4 / resolution_A)), even=True))
            for n in shape
        ]
        small = fourier.resize(spectrum, shape, tuple(side))
        data = fourier.inverse(small, tuple(side), threads=threads)
        self.data = data / max(float(data.std()), 1e-30)
        self.voxel = np.array([n * volume.pixel_size_A / m for n, m in zip(shape, side, strict=True)])  # z, y, x
        # Centres of both grids, voxel N // 2, coincide.
        middle = np.array([n // 2 * volume.pixel_size_A for n in shape])
        self.corner = self.origin[::-1] + middle - np.array([m // 2 for m in side]) * self.voxel
        self.spline = spline_filter(self.data, order=3, output=np.float32)

    def at(self, xyz: FloatArray) -> float:
        """Mean over positions; 0 outside, the map's mean."""
        voxels = (xyz[:, ::-1] - self.corner) / self.voxel
        return float(map_coordinates(self.spline, voxels.T, order=3, prefilter=False, cval=0.0).mean())


def _search(field: _Field, body: FloatArray, threads: int | None, progress: Progress | None) -> list[_Place]:
    """Places that differ, best first."""
    shape = field.data.shape
    spectrum = fourier.forward(field.data, 3, threads=threads)
    directions, psi = orientation_grid(_SEARCH_DEG)
    angles = np.column_stack([np.repeat(directions, len(psi), axis=0), np.tile(psi, len(directions))])
    rotations = euler_to_matrix(angles)
    best = np.empty(len(rotations))
    where = np.empty((len(rotations), 3), np.int64)
    tick = count_phase(progress, "fit, rotations", len(rotations))
    for number, matrix in enumerate(rotations):
        correlation = fourier.inverse(
            spectrum * _histogram(body @ matrix.T, field, shape).conj(), shape, threads=threads
        )
        at = int(np.argmax(correlation))
        best[number] = correlation.flat[at]
        where[number] = np.unravel_index(at, shape)
        tick(1)
    kept: list[_Place] = []
    for number in np.argsort(-best, kind="stable"):
        one = _Place(rotations[number], (field.corner + where[number] * field.voxel)[::-1])
        if all(one.differs_from(other) for other in kept):
            kept.append(one)
        if len(kept) == _STARTS:
            break
    return kept


def _histogram(body: FloatArray, field: _Field, shape: tuple[int, ...]) -> Complex64Array:
    """Transform of the atoms' share of each voxel, the body's centre on voxel N // 2; what is outside wraps."""
    voxels = body[:, ::-1] / field.voxel + np.array([n // 2 for n in shape])
    index = np.rint(voxels).astype(np.int64) % np.array(shape)
    flat = np.ravel_multi_index(tuple(index.T), shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
    return np.asarray(fourier.forward((counts / len(body)).astype(np.float32), 3))


def _climb(field: _Field, body: FloatArray, start: _Place, *, step_deg: float, step_A: float) -> _Place:
    """Local maximum of the mean density over turns and shifts, from first steps of these sizes."""

    def pose_of(vector: npt.NDArray) -> tuple[FloatArray, FloatArray]:
        return Rotation.from_rotvec(np.deg2rad(vector[:3])).as_matrix() @ start.matrix, start.centre_A + vector[3:]

    def loss(vector: npt.NDArray) -> float:
        turn, at = pose_of(vector)
        return -field.at(body @ turn.T + at)

    simplex = np.vstack([np.zeros(6), np.diag([step_deg] * 3 + [step_A] * 3)])
    options = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-5, "maxiter": 400}
    best = minimize(loss, np.zeros(6), method="Nelder-Mead", options=options)
    turn, at = pose_of(best.x)
    return _Place(turn, at, -float(best.fun))
