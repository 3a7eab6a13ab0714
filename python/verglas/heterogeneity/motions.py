r"""Principal motions of the bodies of a particle: what is left of their poses when the whole has been laid on itself.

A body's pose in the frame of the whole is a small turn :math:`\omega_b` about its centre :math:`c_b` and a move
:math:`t_b` of it, of which the image shows what lies across the viewing direction v. The rigid motion that all bodies
share, by least squares over their voxels, is the error of the pose of the whole, and is taken off:

.. math:: \min_{\Omega, T} \sum_b s_b \Bigl[ (\omega_b - \Omega)^T M_b (\omega_b - \Omega)
          + |P_v (t_b - \Omega \times c_b - T)|^2 \Bigr], \qquad P_v = I - v v^T,

with :math:`M_b` the body's inertia and :math:`s_b` its share of the volume. Principal components are those of
:math:`(\sqrt{s_b} M_b^{1/2} \omega_b, \sqrt{s_b} t_b)`, whose length is the root mean square way that the particle's
voxels go, in angstrom. Errors of the poses have principal components, too. What is no error shows in two looks at each
particle whose noise is independent: poses from the even shells of its image, and from the odd ones, against the maps of
the half that it is not in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from verglas.geometry import euler_to_matrix
from verglas.heterogeneity.bodies import Body, moved
from verglas.heterogeneity.multibody import Multibodies
from verglas.search.state import PoseTable
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray

_PERCENTILES = (5.0, 95.0)
_RELIABLE = 2 / 3  # correlation of two looks along a motion, from which on it is one


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
        Along each motion, angstrom^2, falling: of the particles and of the errors of their poses.
    signal_variance : (Q,) float64
        What two looks at the same particles have in common along it: covariance of their coordinates.
    reliability : (Q,) float64
        Correlation of the two looks.
    vectors : (Q, B, 6) float64
        Of a coordinate of 1 A: turn of each body, degrees, and move, angstrom.
    coordinates : (n, Q) float64
        Of every particle, angstrom, mean 0.
    n_motions : int
        Leading motions that stand out: what the two looks have in common has twice the variance of what they have not
        (a reliability of two thirds), and their share of the variance is above that of a stick broken at random
        (Jackson 1993, Ecology 74, 2204). Errors of imperfect maps are common to both looks: neither rule does alone.
    """

    turns_deg: FloatArray
    moves_A: FloatArray
    variance: FloatArray
    signal_variance: FloatArray
    reliability: FloatArray
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


Ways = tuple[FloatArray, FloatArray]  # turns (rad) and moves (A) of all bodies, (n, B, 3) each


def principal_motions(made: Multibodies, looks: Sequence[tuple[PoseTable, PoseTable]]) -> Motions:
    """Of refined bodies.

    Parameters
    ----------
    made : Multibodies
    looks : sequence of (PoseTable, PoseTable)
        Two looks at the poses of every body (:meth:`verglas.heterogeneity.multibody.Multibodies.looks`).
    """
    given = made.particles.poses
    assert given is not None
    whole = euler_to_matrix(given.angles_deg)
    found = _ways(made, [one.state.poses for one in made.bodies], whole)
    first, second = (_ways(made, [look[k] for look in looks], whole) for k in (0, 1))
    bodies = [one.body for one in made.bodies]
    return motions_of(found, (first, second), whole[:, 2], bodies, made.particles.pixel_size_A)


def _ways(made: Multibodies, tables: Sequence[PoseTable], whole: FloatArray) -> Ways:
    """Turns and moves of the bodies in the frame of the particle."""
    turns, moves = np.empty((len(whole), len(tables), 3)), np.zeros((len(whole), len(tables), 3))
    pixel_size_A = made.particles.pixel_size_A
    for number, (one, poses) in enumerate(zip(made.bodies, tables, strict=True)):
        turns[:, number] = Rotation.from_matrix(
            np.swapaxes(whole, 1, 2) @ euler_to_matrix(poses.angles_deg)
        ).as_rotvec()
        centre = one.problem.particles.poses
        assert centre is not None
        moves[:, number, :2] = centre.shifts_A - poses.origin_px * pixel_size_A
        moves[:, number] = np.einsum("nji,nj->ni", whole, moves[:, number])  # from the image's frame to the map's
    return turns, moves


def motions_of(
    found: Ways, looks: tuple[Ways, Ways], views: FloatArray, bodies: Sequence[Body], pixel_size_A: float
) -> Motions:
    """From motions of bodies in the frame of the particle.

    Parameters
    ----------
    found : ((n, B, 3), (n, B, 3)) float64
        Turns (rad) and moves (A) of every body; moves along the view are not looked at.
    looks : pair of the same
        Two estimates whose errors have nothing to do with each other.
    views : (n, 3) float64
        Viewing directions, in the frame of the particle.
    bodies : sequence of Body
    pixel_size_A : float
    """
    across = np.eye(3) - views[:, :, None] * views[:, None, :]
    turns, moves = _without_common(*found, across, bodies, pixel_size_A)
    count = len(bodies)
    # The length of W (turn, move) is the root mean square way of the voxels, angstrom.
    roots = [np.sqrt(b.share) * _square_root(b.inertia_px2) * pixel_size_A for b in bodies]
    centred = _scaled(turns, moves, roots, bodies)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(-variance)[: 6 * (count - 1)]
    variance, axes = np.maximum(variance[order], 0), axes[:, order].T  # (Q, 6 B)
    axes *= np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    vectors = axes.reshape(-1, count, 6).copy()
    for number, (root, body) in enumerate(zip(roots, bodies, strict=True)):
        vectors[:, number, :3] = np.rad2deg(np.linalg.solve(root, vectors[:, number, :3].T).T)
        vectors[:, number, 3:] /= np.sqrt(body.share)
    one, two = (
        _scaled(*_without_common(*look, across, bodies, pixel_size_A), roots, bodies) @ axes.T for look in looks
    )
    signal = np.mean(one * two, axis=0)
    size = np.sqrt(np.mean(one**2, axis=0) * np.mean(two**2, axis=0))
    reliability = np.divide(signal, size, out=np.zeros_like(signal), where=size > 0)
    stick = np.cumsum(1 / np.arange(len(variance), 0, -1))[::-1] / len(variance)
    stands_out = (reliability >= _RELIABLE) & (variance > stick * variance.sum())
    n_motions = int(np.argmin(np.append(stands_out, False)))
    return Motions(np.rad2deg(turns), moves, variance, signal, reliability, vectors, centred @ axes.T, n_motions)


def _scaled(turns: FloatArray, moves: FloatArray, roots: list[FloatArray], bodies: Sequence[Body]) -> FloatArray:
    """(n, 6 B) ways as lengths, mean 0."""
    scaled = np.empty((*turns.shape[:2], 6))
    for number, (root, body) in enumerate(zip(roots, bodies, strict=True)):
        scaled[:, number, :3] = turns[:, number] @ root.T
        scaled[:, number, 3:] = moves[:, number] * np.sqrt(body.share)
    flat = scaled.reshape(len(turns), -1)
    return np.asarray(flat - flat.mean(axis=0))


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
