"""Cells of the pose space, and how each splits into finer ones.

A cell of level l is a HEALPix pixel, an in-plane step, a square of shifts; it stands for every pose in it and is scored
at its centre. It splits into 4 pixels x 2 in-plane angles x 4 shifts. Euler angles are a poor measure of nearness close
to the poles (two pixels beside a pole differ by up to 90 degrees in rot), so a child's psi is counted from its parent's
orientation carried over without twist: every fine cell then has exactly one parent, and that parent is near.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, healpix_children, healpix_directions, healpix_index, healpix_spacing_deg
from verglas.types.arrays import FloatArray, IntArray

CHILDREN = 32


@dataclass(frozen=True)
class Level:
    """Resolution and grid of one level.

    Attributes
    ----------
    radius : int
        Largest shell scored, Fourier pixels.
    order : int
        HEALPix order of the directions.
    n_psi : int
        In-plane angles, a multiple of 8; psi = (j + 1/2) 360 / n_psi.
    shift_step_px : float
        Side of the squares of shifts.
    """

    radius: int
    order: int
    n_psi: int
    shift_step_px: float


def search_levels(
    radii: list[int], *, order: int = 3, n_psi: int | None = None, shift_step_px: float = 1.0
) -> list[Level]:
    """Levels of rising radius; each halves every step of the one before.

    Parameters
    ----------
    radii : list of int
        Radius of each level, rising.
    order : int
        HEALPix order of the first level: 3 is 7.3 degrees.
    n_psi : int, optional
        In-plane angles of the first level; by default the step of the directions, rounded up to a multiple of 16.
    shift_step_px : float
        Shift step of the first level.

    Returns
    -------
    list of Level

    Raises
    ------
    InputError
        The radii do not rise, or a number is out of range.

    Examples
    --------
    >>> from verglas.search import search_levels
    >>> [(v.radius, v.order, v.n_psi, v.shift_step_px) for v in search_levels([16, 32])]
    [(16, 3, 64, 1.0), (32, 4, 128, 0.5)]
    """
    first = n_psi or 16 * int(np.ceil(360 / healpix_spacing_deg(order) / 16 - 1e-9))
    if not radii or any(b < a for a, b in pairwise(radii)):
        raise InputError(f"search levels: expected radii that do not fall, got {radii}")
    if first % 8 or not shift_step_px > 0:
        raise InputError(
            f"search levels: expected n_psi a multiple of 8 and a positive shift step, got {first}, {shift_step_px}"
        )
    return [Level(int(r), order + k, first * 2**k, shift_step_px / 2**k) for k, r in enumerate(radii)]


@dataclass(frozen=True)
class Cells:
    """Cells of one level, of many images.

    Attributes
    ----------
    image : (n,) int64
        Index of the image in its batch.
    pixel : (n,) int64
        Nested HEALPix pixel.
    psi : (n,) int64
        Index of the in-plane angle.
    shift : (n, 2) int64
        x, y of the centre in units of the finest lattice.
    """

    image: IntArray
    pixel: IntArray
    psi: IntArray
    shift: IntArray

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: npt.NDArray) -> Cells:
        return Cells(self.image[index], self.pixel[index], self.psi[index], self.shift[index])


def angles_deg(level: Level, pixel: IntArray, psi: IntArray) -> FloatArray:
    """rot, tilt, psi of cell centres."""
    return np.column_stack([healpix_directions(level.order, pixel), (psi + 0.5) * 360 / level.n_psi])


def untwisted_psi_deg(matrices: FloatArray, directions_deg: FloatArray) -> FloatArray:
    """In-plane angle that brings each direction, B, nearest to an orientation A: it maximises tr(A^T Rz(psi) B)."""
    b = euler_to_matrix(np.column_stack([directions_deg, np.zeros(len(directions_deg))]))
    m = np.einsum("nij,nkj->nik", b, matrices)
    return np.rad2deg(np.arctan2(m[:, 1, 0] - m[:, 0, 1], m[:, 0, 0] + m[:, 1, 1]))


def _twist_turns(order: int, parents: IntArray) -> FloatArray:
    """In-plane angle of each of the four children at which it meets its parent's psi = 0, in turns, (n, 4)."""
    children = healpix_children(parents)
    at = np.column_stack([healpix_directions(order, parents), np.zeros(len(parents))])
    matrices = np.repeat(euler_to_matrix(at), 4, axis=0)
    return (untwisted_psi_deg(matrices, healpix_directions(order + 1, children.ravel())) / 360).reshape(-1, 4)


def split(cells: Cells, level: Level, quarter: int) -> Cells:
    """The 32 children of every cell; ``quarter`` is a quarter of the level's shift step in lattice units.

    Child angle k (centre (k + 1/2) / (2 n_psi) turns) belongs to parent j when it lies, less the twist, inside the
    parent's step: two consecutive k for every parent, none shared.
    """
    pixels, where = np.unique(cells.pixel, return_inverse=True)
    twist = _twist_turns(level.order, pixels)[where]  # (n, 4)
    first = np.ceil(2 * (cells.psi[:, None] + twist * level.n_psi) - 0.5).astype(np.int64)
    psi = (first[:, :, None] + np.arange(2)) % (2 * level.n_psi)  # (n, 4, 2)
    pixel = healpix_children(cells.pixel)
    step = quarter * np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    shape = (len(cells), 4, 2, 4)
    return Cells(
        np.broadcast_to(cells.image[:, None, None, None], shape).ravel(),
        np.broadcast_to(pixel[:, :, None, None], shape).ravel(),
        np.broadcast_to(psi[:, :, :, None], shape).ravel(),
        np.broadcast_to((cells.shift[:, None] + step)[:, None, None], (*shape, 2)).reshape(-1, 2),
    )


def opposite_pixels(order: int, pixel: IntArray) -> IntArray:
    """The pixel seen from the other side: (rot + 180, 180 - tilt)."""
    d = healpix_directions(order, pixel)
    return healpix_index(order, np.column_stack([d[:, 0] + 180, 180 - d[:, 1]]))


def slices_of_pixels(order: int, pixel: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Pixel whose slice serves each pixel (the lesser of it and its opposite), and whether it is the opposite's."""
    unique, where = np.unique(pixel, return_inverse=True)
    other = opposite_pixels(order, unique)
    return np.minimum(unique, other)[where], (other < unique)[where]
