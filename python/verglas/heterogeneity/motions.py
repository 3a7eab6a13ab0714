r"""Principal motions of the bodies of a particle: what is left of their poses when the whole has been laid on itself.

A body's pose in the frame of the whole is a small turn :math:`\omega_b` about its centre :math:`c_b` and a move
:math:`t_b` of it, of which the image shows what lies across the viewing direction v. The rigid motion that all bodies
share, by least squares over their voxels, is the error of the pose of the whole, and is taken off:

.. math:: \min_{\Omega, T} \sum_b s_b \Bigl[ (\omega_b - \Omega)^T M_b (\omega_b - \Omega)
          + |P_v (t_b - \Omega \times c_b - T)|^2 \Bigr], \qquad P_v = I - v v^T,

with :math:`M_b` the body's inertia and :math:`s_b` its share of the volume. Principal components are those of
:math:`(\sqrt{s_b} M_b^{1/2} \omega_b, \sqrt{s_b} t_b)`, whose length is the root mean square way that the particle's
voxels go, in angstrom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from verglas.geometry import euler_to_matrix
from verglas.heterogeneity.bodies import Body, moved
from verglas.heterogeneity.multibody import Multibodies
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray

_PERCENTILES = (5.0, 95.0)
_CLEAR = 2.0  # variance along a motion, on that of the errors of poses, above which it is one


@dataclass(frozen=True, eq=False)
class Motions:
    """Principal motions of bodies against each other.

    Attributes
    ----------
    turns_deg : (n, B, 3) float64
        Rotation vector of every body in the frame of the particle (x, y, z of the map), the common motion taken off.
    moves_A : (n, B, 3) float64
        Of its centre; nothing is known along the viewing direction, where it is 0.
    variance : (Q,) float64
        Along each motion, angstrom^2, falling.
    noise_variance : (Q,) float64
        What the stated errors of the poses make of it.
    vectors : (Q, B, 6) float64
        Of a coordinate of 1 A: turn of each body, degrees, and move, angstrom.
    coordinates : (n, Q) float64
        Of every particle, angstrom, mean 0.
    n_motions : int
        Leading motions that stand out: their variance is more than twice that of the errors, and a larger share of the
        whole than the broken-stick rule gives (Jackson 1993, Ecology 74, 2204), since stated errors leave out what is
        wrong with the maps.
    """

    turns_deg: FloatArray
    moves_A: FloatArray
    variance: FloatArray
    noise_variance: FloatArray
    vectors: FloatArray
    coordinates: FloatArray
    n_motions: int

    @property
    def share(self) -> FloatArray:
        """(Q,) each motion's share of the whole variance."""
        return np.asarray(self.variance / self.variance.sum())

    def range_A(self, motion: int, count: int) -> FloatArray:
        """Coordinates from the 5th to the 95th percentile of the particles'."""
        low, high = np.percentile(self.coordinates[:, motion], _PERCENTILES)
        return np.linspace(low, high, count)


def principal_motions(made: Multibodies) -> Motions:
    """Of refined bodies.

    Parameters
    ----------
    made : Multibodies
    """
    given = made.particles.poses
    assert given is not None
    pixel_size_A = made.particles.pixel_size_A
    whole = euler_to_matrix(given.angles_deg)
    bodies = [one.body for one in made.bodies]
    turns, moves = np.empty((len(whole), len(bodies), 3)), np.zeros((len(whole), len(bodies), 3))
    for number, one in enumerate(made.bodies):
        turns[:, number] = Rotation.from_matrix(np.swapaxes(whole, 1, 2) @ one.matrices).as_rotvec()
        centre = one.problem.particles.poses
        assert centre is not None
        moves[:, number, :2] = centre.shifts_A - one.state.poses.origin_px * pixel_size_A
        moves[:, number] = np.einsum("nji,nj->ni", whole, moves[:, number])  # from the image's frame to the map's
    errors = [(one.state.poses.angle_error_deg, one.state.poses.shift_error_px * pixel_size_A) for one in made.bodies]
    return motions_of(turns, moves, whole[:, 2], bodies, errors, pixel_size_A)


def motions_of(
    turns_rad: FloatArray,
    moves_A: FloatArray,
    views: FloatArray,
    bodies: Sequence[Body],
    errors: Sequence[tuple[FloatArray, FloatArray]],
    pixel_size_A: float,
) -> Motions:
    """From motions of bodies in the frame of the particle.

    Parameters
    ----------
    turns_rad, moves_A : (n, B, 3) float64
        Of every body; moves along the view are not looked at.
    views : (n, 3) float64
        Viewing directions, in the frame of the particle.
    bodies : sequence of Body
    errors : sequence of ((n,), (n,)) float64
        Of each body: root mean square errors of its turns (degrees) and of its moves (angstrom).
    pixel_size_A : float
    """
    across = np.eye(3) - views[:, :, None] * views[:, None, :]
    turns, moves = _without_common(turns_rad, moves_A, across, bodies, pixel_size_A)
    n, count = turns.shape[:2]
    # y = W (turn, move): its length is the root mean square way of the voxels, angstrom.
    roots = [np.sqrt(b.share) * _square_root(b.inertia_px2) * pixel_size_A for b in bodies]
    scaled = np.empty((n, count, 6))
    for number, (root, body) in enumerate(zip(roots, bodies, strict=True)):
        scaled[:, number, :3] = turns[:, number] @ root.T
        scaled[:, number, 3:] = moves[:, number] * np.sqrt(body.share)
    flat = scaled.reshape(n, -1)
    centred = flat - flat.mean(axis=0)
    variance, axes = np.linalg.eigh(centred.T @ centred / n)
    order = np.argsort(-variance)[: 6 * (count - 1)]
    variance, axes = np.maximum(variance[order], 0), axes[:, order].T  # (Q, 6 B)
    axes *= np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    vectors = axes.reshape(-1, count, 6).copy()
    for number, (root, body) in enumerate(zip(roots, bodies, strict=True)):
        vectors[:, number, :3] = np.rad2deg(np.linalg.solve(root, axes.reshape(-1, count, 6)[:, number, :3].T).T)
        vectors[:, number, 3:] /= np.sqrt(body.share)
    noise = _noise(axes.reshape(-1, count, 6), roots, bodies, errors)
    stick = np.cumsum(1 / np.arange(len(variance), 0, -1))[::-1] / len(variance)
    clear = (variance > _CLEAR * noise) & (variance > stick * variance.sum())
    n_motions = int(np.argmin(np.append(clear, False)))
    return Motions(np.rad2deg(turns), moves, variance, noise, vectors, centred @ axes.T, n_motions)


def _without_common(
    turns: FloatArray, moves: FloatArray, across: FloatArray, bodies: Sequence[Body], pixel_size_A: float
) -> tuple[FloatArray, FloatArray]:
    """Turns and moves less the rigid motion that all bodies share, of every particle."""
    n = len(turns)
    system, right = np.zeros((n, 6, 6)), np.zeros((n, 6))
    levers = [_cross_matrix(b.centre_px * pixel_size_A) for b in bodies]  # a turn W moves the centre by -[c]x W
    for number, (body, lever) in enumerate(zip(bodies, levers, strict=True)):
        inertia = body.inertia_px2 * pixel_size_A**2
        moved_by = np.concatenate([-lever, np.eye(3)], axis=1)  # of the centre, by (turn, move)
        seen = across @ moved_by
        system += body.share * np.einsum("nij,nik->njk", seen, seen)
        system[:, :3, :3] += body.share * inertia
        right += body.share * np.einsum("nij,ni->nj", seen, moves[:, number])
        right[:, :3] += body.share * turns[:, number] @ inertia
    # The move along the view, which nothing else asks for, is 0.
    system[:, 3:, 3:] += np.eye(3) - across
    common = np.linalg.solve(system, right[:, :, None])[:, :, 0]
    left_turns, left_moves = turns - common[:, None, :3], np.empty_like(moves)
    for number, lever in enumerate(levers):
        by_common = common[:, 3:] - common[:, :3] @ lever.T
        left_moves[:, number] = np.einsum("nij,nj->ni", across, moves[:, number] - by_common)
    return left_turns, left_moves


def _cross_matrix(v: FloatArray) -> FloatArray:
    """[v]x: the matrix of the cross product with v."""
    x, y, z = v
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float64)


def _square_root(matrix: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 1e-6 * values.max()))) @ vectors.T)


def _noise(
    axes: FloatArray, roots: list[FloatArray], bodies: Sequence[Body], errors: Sequence[tuple[FloatArray, FloatArray]]
) -> FloatArray:
    """Variance along each motion that errors of the poses make, alike about all axes."""
    noise = np.zeros(len(axes))
    for number, (root, body, (angle_deg, shift_A)) in enumerate(zip(roots, bodies, errors, strict=True)):
        turn = np.mean(np.square(np.deg2rad(np.nan_to_num(angle_deg)))) / 3
        move = np.mean(np.square(np.nan_to_num(shift_A))) / 3  # two of three directions are seen
        noise += turn * np.square(axes[:, number, :3] @ root).sum(axis=1)
        noise += move * body.share * np.square(axes[:, number, 3:]).sum(axis=1)
    return noise


def map_along(
    maps: Sequence[Float32Array],
    bodies: Sequence[Body],
    motions: Motions,
    motion: int,
    coordinate_A: float,
    pixel_size_A: float,
    *,
    threads: int | None = None,
) -> Map:
    """The particle with its bodies moved along a motion.

    Parameters
    ----------
    maps : sequence of (N, N, N) float32
        Of the bodies, in place, masked.
    bodies : sequence of Body
    motions : Motions
    motion : int
        From 0.
    coordinate_A : float
        How far.
    pixel_size_A : float
    threads : int, optional
    """
    total = np.zeros(maps[0].shape, np.float32)
    mean_turn, mean_move = motions.turns_deg.mean(axis=0), motions.moves_A.mean(axis=0)
    for number, (volume, body) in enumerate(zip(maps, bodies, strict=True)):
        turn = mean_turn[number] + coordinate_A * motions.vectors[motion, number, :3]
        move = mean_move[number] + coordinate_A * motions.vectors[motion, number, 3:]
        matrix = Rotation.from_rotvec(np.deg2rad(turn)).as_matrix()
        shift_px = move / pixel_size_A + body.centre_px
        total += moved(body.centred(volume), matrix, shift_px, threads=threads)
    return Map(total, pixel_size_A)
