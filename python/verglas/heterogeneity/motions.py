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
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.heterogeneity.bodies import Body, move_map
from verglas.heterogeneity.multibody import Multibodies
from verglas.search.state import PoseTable
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, any_arrays, host_array
from verglas.types.display import one_line

_PERCENTILES = (5.0, 95.0)
_ROWS = 1 << 14  # particles at a time
_SINGULAR = 1e-9
_RELIABLE = 2 / 3  # correlation of two looks along a motion, from which on it is one


@one_line
@dataclass(frozen=True, eq=False)
class Motions:
    """Principal motions of bodies against each other.

    Attributes
    ----------
    mean_turn_deg, mean_move_A : (B, 3) float64
        Where every body lies on average, from where its map has it, less what all share: rotation vector, move of its
        centre (x, y, z of the map); about 0 after :func:`lay_in_place`.
    turns_deg : (n, B, 3) float64
        Rotation vector of every body from its mean, in the frame of the particle, the common motion taken off.
    moves_A : (n, B, 3) float64
        Of its centre from its mean; nothing is known along the viewing direction, where it is 0.
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

    mean_turn_deg: FloatArray
    mean_move_A: FloatArray
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


class Ways(NamedTuple):
    """Turns (rad) and moves (A) of all bodies, (n, B, 3) each."""

    turns: FloatArray
    moves: FloatArray


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
    ways = _ways(made, [one.state.poses for one in made.bodies], whole)
    first, second = (_ways(made, [look[k] for look in looks], whole) for k in (0, 1))
    bodies = [one.body for one in made.bodies]
    return motions_of(ways, (first, second), whole[:, 2], bodies, made.particles.pixel_size_A)


def lay_in_place(made: Multibodies) -> None:
    """Turn and move every body's maps and poses, in place, so that its poses are those of the whole on average.

    A body's maps and poses may turn and move together while they are refined: the images stay as well explained, and
    both half maps agree, but the body no longer lies where it does in the particle.

    Parameters
    ----------
    made : Multibodies
        Refined (:func:`verglas.heterogeneity.multibody.refine_bodies`).
    """
    given = made.particles.poses
    assert given is not None
    whole = euler_to_matrix(given.angles_deg)
    across = np.eye(3) - whole[:, 2, :, None] * whole[:, 2, None, :]
    turns, moves = _ways(made, [one.state.poses for one in made.bodies], whole)
    # Of a move each image shows what lies across its view.
    mean_moves = moves.sum(axis=0) @ np.linalg.pinv(across.sum(axis=0), rcond=_SINGULAR, hermitian=True)
    for one, turn, move_A in zip(made.bodies, turns.mean(axis=0), mean_moves, strict=True):
        matrix, shift_px = Rotation.from_rotvec(turn).as_matrix(), move_A / made.particles.pixel_size_A
        threads = one.problem.threads
        moved = partial(_move, matrix=matrix, shift_px=shift_px, threads=threads)
        one.state.halves = [replace(half, volumes=moved(half.volumes)) for half in one.state.halves]
        if one.made is not None:
            first = one.made.maps[0]
            joint = None if first.joint is None else moved(first.joint[None])[0]
            one.made = replace(one.made, maps=[replace(first, raw=moved(first.raw), joint=joint)])
        # With V'(A r + s) = V(r), the same image is that of V' at R A^T, whose origin moves by (R A^T s)_xy.
        orientation = one.matrices @ matrix.T
        poses = one.state.poses
        poses.angles_deg = matrix_to_euler(orientation)
        poses.origin_px = poses.origin_px + (orientation @ shift_px)[:, :2]


def _move(volumes: Float32Array, *, matrix: FloatArray, shift_px: FloatArray, threads: int | None) -> Float32Array:
    return np.stack([move_map(v, matrix, shift_px, threads=threads) for v in volumes])


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
    return Ways(turns, moves)


@any_arrays
def motions_of(
    ways: Ways, looks: tuple[Ways, Ways], views: FloatArray, bodies: Sequence[Body], pixel_size_A: float
) -> Motions:
    """From motions of bodies in the frame of the particle.

    Parameters
    ----------
    ways : Ways, or a pair of (n, B, 3) float64
        Turns (rad) and moves (A) of every body; moves along the view are not looked at.
    looks : pair of the same
        Two estimates whose errors have nothing to do with each other.
    views : (n, 3) float64
        Viewing directions, in the frame of the particle.
    bodies : sequence of Body
    pixel_size_A : float
    """
    ways, looks = Ways(*map(host_array, ways)), (Ways(*map(host_array, looks[0])), Ways(*map(host_array, looks[1])))
    across = np.eye(3) - views[:, :, None] * views[:, None, :]
    count = len(bodies)
    # The length of W (turn, move) is the root mean square way of the voxels, angstrom.
    roots = [np.sqrt(b.share) * _square_root(b.inertia_px2) * pixel_size_A for b in bodies]
    (mean_turn, mean_move), (turns, moves) = _own_ways(ways, across, bodies, roots, pixel_size_A)
    centred = _as_lengths(turns, moves, roots, bodies)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(-variance)[: 6 * (count - 1)]
    variance, axes = np.maximum(variance[order], 0), axes[:, order].T  # (Q, 6 B)
    axes *= np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    vectors = axes.reshape(-1, count, 6).copy()
    for number, (root, body) in enumerate(zip(roots, bodies, strict=True)):
        vectors[:, number, :3] = np.rad2deg(np.linalg.solve(root, vectors[:, number, :3].T).T)
        vectors[:, number, 3:] /= np.sqrt(body.share)
    one, two = (
        _as_lengths(*_own_ways(look, across, bodies, roots, pixel_size_A)[1], roots, bodies) @ axes.T for look in looks
    )
    signal = np.mean(one * two, axis=0)
    size = np.sqrt(np.mean(one**2, axis=0) * np.mean(two**2, axis=0))
    reliability = np.divide(signal, size, out=np.zeros_like(signal), where=size > 0)
    stick = np.cumsum(1 / np.arange(len(variance), 0, -1))[::-1] / len(variance)
    stands_out = (reliability >= _RELIABLE) & (variance > stick * variance.sum())
    n_motions = int(np.argmin(np.append(stands_out, False)))
    return Motions(
        np.rad2deg(mean_turn),
        mean_move,
        np.rad2deg(turns),
        moves,
        variance,
        signal,
        reliability,
        vectors,
        centred @ axes.T,
        n_motions,
    )


def _flat(turns: FloatArray, moves: FloatArray, roots: list[FloatArray], bodies: Sequence[Body]) -> FloatArray:
    """(n, 6 B) ways as lengths."""
    scaled = np.empty((*turns.shape[:2], 6))
    for number, (root, body) in enumerate(zip(roots, bodies, strict=True)):
        scaled[:, number, :3] = turns[:, number] @ root.T
        scaled[:, number, 3:] = moves[:, number] * np.sqrt(body.share)
    return scaled.reshape(len(turns), -1)


def _as_lengths(turns: FloatArray, moves: FloatArray, roots: list[FloatArray], bodies: Sequence[Body]) -> FloatArray:
    """(n, 6 B) ways as lengths, mean 0."""
    flat = _flat(turns, moves, roots, bodies)
    return np.asarray(flat - flat.mean(axis=0))


def _mean_ways(ways: Ways, across: FloatArray, bodies: Sequence[Body], roots: list[FloatArray], pixel_A: float) -> Ways:
    """(B, 3) mean turn and move of every body, less what all share: least squares over what the views show of them."""
    count = 6 * len(bodies)
    gram, right = np.zeros((count, count)), np.zeros(count)
    unit_turns, unit_moves = np.zeros((2, count, len(bodies), 3))
    for number, (root, body) in enumerate(zip(roots, bodies, strict=True)):
        for axis in range(3):
            unit_turns[6 * number + axis, number] = np.linalg.inv(root)[:, axis]
            unit_moves[6 * number + 3 + axis, number, axis] = 1 / np.sqrt(body.share)
    for begin in range(0, len(across), _ROWS):
        some = slice(begin, begin + _ROWS)
        views = across[some]
        seen = _flat(*_without_common(ways.turns[some], ways.moves[some], views, bodies, pixel_A), roots, bodies)
        columns = np.stack(
            [
                _flat(*_without_common(*_constant(turn, move, views), views, bodies, pixel_A), roots, bodies)
                for turn, move in zip(unit_turns, unit_moves, strict=True)
            ]
        )
        gram += np.einsum("kni,lni->kl", columns, columns)
        right += np.einsum("kni,ni->k", columns, seen)
    # What all bodies share, and what no view shows, is in no column: the pseudo-inverse leaves it at 0.
    means = np.linalg.pinv(gram, rcond=_SINGULAR, hermitian=True) @ right
    return Ways(np.tensordot(means, unit_turns, 1), np.tensordot(means, unit_moves, 1))


def _constant(turn: FloatArray, move: FloatArray, across: FloatArray) -> Ways:
    """The ways (n, B, 3) of bodies that lie alike in all particles, as these views show them."""
    return Ways(np.broadcast_to(turn, (len(across), *turn.shape)), np.einsum("nij,bj->nbi", across, move))


def _own_ways(
    ways: Ways, across: FloatArray, bodies: Sequence[Body], roots: list[FloatArray], pixel_A: float
) -> tuple[Ways, Ways]:
    """The bodies' means, and their ways from these, less what all share."""
    mean = _mean_ways(ways, across, bodies, roots, pixel_A)
    # Not the plain mean: a body that lies off its place in all particles alike shows another part of that in every
    # view, which passed for a motion that both looks agree upon.
    turns, moves = (way - constant for way, constant in zip(ways, _constant(*mean, across), strict=True))
    return mean, _without_common(turns, moves, across, bodies, pixel_A)


def _without_common(
    turns: FloatArray, moves: FloatArray, across: FloatArray, bodies: Sequence[Body], pixel_size_A: float
) -> Ways:
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
    return Ways(left_turns, left_moves)


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
    for number, (volume, body) in enumerate(zip(maps, bodies, strict=True)):
        turn = motions.mean_turn_deg[number] + coordinate_A * motions.vectors[motion, number, :3]
        move = motions.mean_move_A[number] + coordinate_A * motions.vectors[motion, number, 3:]
        matrix = Rotation.from_rotvec(np.deg2rad(turn)).as_matrix()
        shift_px = move / pixel_size_A + body.centre_px
        total += move_map(body.move_to_centre(volume), matrix, shift_px, threads=threads)
    return Map(total, pixel_size_A)
