"""A map that has a point group but stands off its axes: how far, and the turn that brings it onto them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas import fourier
from verglas.geometry import symmetry_matrices
from verglas.map_geometry.map_alignment import turned_map
from verglas.map_geometry.sphere import aspherical_part
from verglas.map_geometry.symmetry_search import (
    LEAST_SCORE,
    LEAST_WORST,
    SelfCorrelation,
    SymmetryScore,
    elements_of,
    mass_centre,
    moved_map,
    symmetry_centre,
    symmetry_scores,
)
from verglas.masks import soft_sphere
from verglas.types.arrays import Float32Array, FloatArray

_AGREES = 0.8  # correlation with the turned copies at which a map has a group as it stands
_ROUND = 1e-4  # share of the power that is not spherical below which a map has no orientation


@dataclass(frozen=True)
class Upright:
    """How a map is brought onto the axes of a group.

    Attributes
    ----------
    before, after : float
        Mean correlation with the copies turned by the group's elements, as the map stands and once it is brought.
    worst : float
        The smallest of those after.
    shift_px : (3,) float64
        Displacement x, y, z that comes first.
    matrix : (3, 3) float64
        Rotation that follows: what was at r goes to A r.
    """

    before: float
    after: float
    worst: float
    shift_px: FloatArray
    matrix: FloatArray

    @property
    def fits(self) -> bool:
        """Whether the map then has the group."""
        return self.after >= LEAST_SCORE and self.worst >= LEAST_WORST * self.after and self.after > self.before

    @property
    def angle_deg(self) -> float:
        """Of the rotation."""
        return float(np.rad2deg(np.arccos(np.clip((np.trace(self.matrix) - 1) / 2, -1, 1))))

    def apply(self, volume: Float32Array, *, threads: int | None = None) -> Float32Array:
        """The map, moved and turned."""
        return turned_map(moved_map(volume, self.shift_px, threads=threads), self.matrix, threads=threads)


def upright_map(volume: Float32Array, symmetry: str, max_radius: int, *, threads: int | None = None) -> Upright | None:
    """How to bring a map onto the axes of a group; None where it has the group as it stands, or is round.

    Parameters
    ----------
    volume : (N, N, N) float32
    symmetry : str
        Not C1.
    max_radius : int
        Last shell compared.
    threads : int, optional
        Threads; all by default.

    Examples
    --------
    >>> import numpy as np
    >>> import verglas as vg
    >>> from verglas.map_geometry.axes import upright_map
    >>> from verglas.map_geometry.map_alignment import turned_map
    >>> m = vg.simulate.density(vg.simulate.phantom(32, 4.0, 90.0, "C4"), 32, 4.0)
    >>> upright_map(m.data, "C4", 6) is None
    True
    >>> result = upright_map(turned_map(m.data, vg.euler_to_matrix([[0.0, 30.0, 0.0]])[0]), "C4", 6)
    >>> result.fits, round(result.angle_deg / 5) * 5
    (True, 30)
    """
    box = len(volume)
    radius = (box - 1) // 2
    ball = soft_sphere(box, 0.8 * radius, 0.2 * radius).astype(np.float32)
    masked = np.asarray(volume * ball, np.float32)
    if _is_round(masked, max_radius):
        return None
    ones = np.ones(max_radius + 1)
    before = _scores(masked, symmetry, max_radius, threads)
    if before.mean() >= _AGREES and before.min() >= LEAST_WORST * before.mean():
        return None
    to_mass = -mass_centre(masked)
    moved = moved_map(masked, to_mass, threads=threads)
    rough = symmetry_scores(moved, ones, [symmetry], threads=threads)[0]
    to_axes, score, centred = centre_on_axes(moved, ones, rough, threads=threads)
    matrix = _least_turn(score.matrix, symmetry)
    after = _scores(turned_map(centred, matrix, threads=threads), symmetry, max_radius, threads)
    return Upright(float(before.mean()), float(after.mean()), float(after.min()), to_mass + to_axes, matrix)


def centre_on_axes(
    volume: Float32Array, curve: FloatArray, score: SymmetryScore, *, threads: int | None = None
) -> tuple[FloatArray, SymmetryScore, Float32Array]:
    """Displacement to where the axes of a group meet, the group's score there, and the map so displaced.

    The mass is centred to a fraction of a pixel; the axes meet where the copies fit best.
    """
    shift = -symmetry_centre(volume, score, threads=threads)
    centred = moved_map(volume, shift, threads=threads)
    return shift, symmetry_scores(centred, curve, [score.symmetry], threads=threads)[0], centred


def _scores(volume: Float32Array, symmetry: str, max_radius: int, threads: int | None) -> FloatArray:
    """Correlations with the copies turned by the group's elements, about the axes of convention."""
    own = SelfCorrelation(volume, np.ones(max_radius + 1), threads=threads)
    return own.scores(np.eye(3)[None], elements_of(symmetry))[0]


def _is_round(volume: Float32Array, max_radius: int) -> bool:
    """Whether next to nothing of the map's power to a shell depends on direction."""
    shells = fourier.shells(volume.shape)
    inside = (shells <= max_radius) & (shells > 0)
    power = [float((np.abs(fourier.forward(v, 3)[inside]) ** 2).sum()) for v in (volume, aspherical_part(volume))]
    return not power[1] > _ROUND * power[0]


def _least_turn(matrix: FloatArray, symmetry: str) -> FloatArray:
    """The smallest rotation that brings the map onto the same axes."""
    if symmetry[0] == "C":  # any turn about the axis, and the axis upside down, do as well
        axis = matrix[2] * (1.0 if matrix[2, 2] >= 0 else -1.0)
        cross, cosine = np.cross(axis, [0.0, 0.0, 1.0]), float(axis[2])
        k = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
        return np.asarray(np.eye(3) + k + k @ k / (1 + cosine))
    # What turns the set of axes onto itself: of D2 the octahedron, of Dn the axes between its own.
    same = "O" if symmetry == "D2" else f"D{2 * int(symmetry[1:])}" if symmetry[0] == "D" else symmetry
    turned = symmetry_matrices(same) @ matrix
    return np.asarray(turned[int(np.trace(turned, axis1=1, axis2=2).argmax())])
