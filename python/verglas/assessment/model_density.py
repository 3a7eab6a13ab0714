"""The density of a model on the grid of a map of any shape, and where its atoms are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.simulate import scattering
from verglas.types import Map
from verglas.types.arrays import FloatArray
from verglas.types.atoms import Atoms

_ALIAS = 1e-3  # what may be left of an atom's transform where the grid folds it back
_CHUNK = 2048


def model_density(atoms: Atoms, like: Map, *, b_factors: bool = True, threads: int | None = None) -> Map:
    """Electrostatic potential of atoms on a map's grid, with occupancies and B-factors of the model.

    Atoms are Gaussians widened until the grid samples them well; their transform is divided by the widening after.

    Parameters
    ----------
    atoms : Atoms
        In the map's frame; those outside the map are left out.
    like : Map
        Gives shape, pixel size and origin.
    b_factors : bool
        Take the model's B-factors; none otherwise.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Map
        Volt, band-limited to the grid.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.model_density import model_density
    >>> one = vg.types.atoms.Atoms([[8, 8, 8]], ["C"], ["C"], ["GLY"], ["A"], [1], [1], [20])
    >>> made = model_density(one, vg.Map(np.zeros((16, 16, 16)), 1.0))
    >>> made.data.shape, [int(i[0]) for i in (made.data == made.data.max()).nonzero()]
    ((16, 16, 16), [8, 8, 8])
    """
    pixel, shape = like.pixel_size_A, like.data.shape
    # exp(-B k^2 / 4) at the frequency 1 / pixel - 1 / (2 pixel), which folds onto Nyquist.
    widening = -4 * np.log(_ALIAS) * (2 * pixel) ** 2
    voxels = (atoms.xyz_A - np.asarray(like.origin_A)) / pixel
    inside = inside_map(atoms, like)
    table = scattering.factors(np.unique(atoms.elements))
    kind = np.unique(atoms.elements, return_inverse=True)[1]
    b_own = np.clip(atoms.b_factors_A2, 0, None) if b_factors else np.zeros(len(atoms))
    total = np.zeros(shape, np.float64)
    rows = np.flatnonzero(inside)
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        gaussians = table[kind[some]]
        exponents = gaussians[..., 1] + (b_own[some] + widening)[:, None]
        _add_gaussians(
            total, voxels[some][:, ::-1], gaussians[..., 0] * atoms.occupancies[some, None], exponents, pixel
        )
    spectrum = fourier.forward(total.astype(np.float32), 3, threads=threads)
    frequency2 = frequencies(shape, pixel) ** 2
    keep = frequency2 <= (0.5 / pixel) ** 2
    spectrum *= np.where(keep, np.exp(np.where(keep, widening * frequency2 / 4, 0)), 0).astype(np.float32)
    data = fourier.inverse(spectrum, shape, threads=threads) * np.float32(scattering.VOLT_PER_LENGTH_A2)
    return like.with_data(data)


def frequencies(shape: tuple[int, ...], pixel_size_A: float) -> FloatArray:
    """|k| in 1/angstrom of the half transform of a map of any shape."""
    squares = [(k / (n * pixel_size_A)) ** 2 for k, n in zip(fourier.half_grid(shape), shape, strict=True)]
    return np.sqrt(np.asarray(sum(squares), np.float64))


def inside_map(atoms: Atoms, like: Map) -> npt.NDArray[np.bool_]:
    """Which atoms lie within the map's box."""
    voxels = (atoms.xyz_A - np.asarray(like.origin_A)) / like.pixel_size_A
    last = np.asarray(like.data.shape[::-1]) - 1
    return np.asarray(((voxels >= 0) & (voxels <= last)).all(axis=1))


def near_atoms(atoms: Atoms, like: Map, radius_A: float | FloatArray) -> npt.NDArray[np.bool_]:
    """Voxels within a radius of any atom, one for all or each its own, (z, y, x)."""
    pixel, shape, inside = like.pixel_size_A, like.data.shape, inside_map(atoms, like)
    voxels = ((atoms.xyz_A - np.asarray(like.origin_A)) / pixel)[inside][:, ::-1]
    radius = np.broadcast_to(np.asarray(radius_A, np.float64), len(atoms))[inside] / pixel
    reach = int(np.ceil(radius.max(initial=0)))
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    near = np.rint(voxels).astype(np.int64)
    mask = np.zeros(shape, bool)
    for offset in offsets:
        at = near + offset
        close = (((at - voxels) ** 2).sum(axis=1) <= radius**2) & (at >= 0).all(axis=1)
        at = at[close & (at < np.asarray(shape)).all(axis=1)]
        mask[at[:, 0], at[:, 1], at[:, 2]] = True
    return mask


def _add_gaussians(
    total: FloatArray, centres: FloatArray, amplitudes: FloatArray, exponents: FloatArray, pixel_A: float
) -> None:
    """Add atoms, sums of Gaussians whose transforms are a exp(-b k^2/4), to a grid; centres (z, y, x) in voxels."""
    # The transform of a exp(-b k^2 / 4) in three dimensions.
    width = 4 * np.pi**2 / exponents
    height = amplitudes * (4 * np.pi / exponents) ** 1.5
    reach = int(np.ceil(np.sqrt(-np.log(1e-6) / width.min()) / pixel_A))
    steps = np.arange(-reach, reach + 1)
    near = np.rint(centres).astype(np.int64)
    place = near[:, :, None] + steps  # (atoms, axes, steps)
    distance2 = ((place - centres[:, :, None]) * pixel_A) ** 2
    factor = np.exp(-width[:, None, :, None] * distance2[:, :, None, :])  # (atoms, axes, gaussians, steps)
    for axis, side in enumerate(total.shape):
        off = (place[:, axis] < 0) | (place[:, axis] >= side)
        factor[:, axis] *= ~off[:, None, :]
        place[:, axis] = np.clip(place[:, axis], 0, side - 1)
    size = len(steps)
    per_turn = max(1, (1 << 22) // size**3)
    for start in range(0, len(centres), per_turn):
        rows = slice(start, start + per_turn)
        z, y, x = factor[rows, 0] * height[rows, :, None], factor[rows, 1], factor[rows, 2]
        plane = np.einsum("agz,agy->agzy", z, y).reshape(len(z), z.shape[1], -1)
        block = np.matmul(plane.transpose(0, 2, 1), x).reshape(len(z), size, size, size)
        index = (place[rows, 0][:, :, None, None] * total.shape[1] + place[rows, 1][:, None, :, None]) * total.shape[2]
        index = index + place[rows, 2][:, None, None, :]
        total += np.bincount(index.ravel(), block.ravel(), minlength=total.size).reshape(total.shape)
