"""Poses against known ones, whatever frame the map stands in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError
from verglas.geometry import angular_distance, euler_to_matrix, matrix_to_euler, symmetry_matrices
from verglas.types import Poses
from verglas.types.arrays import FloatArray

# Poses farther off than this many times the median are mistaken, and do not count for the frame.
_OUTLYING = 3.0
_ROUNDS = 5
# Frames that pairs of poses propose, pairs that judge them, and pairs that the best one is fitted to.
_PROPOSED, _JUDGING, _FITTED = 200, 2000, 20_000
_LEAST_NEAR_DEG = 5.0


@dataclass(frozen=True)
class PoseErrors:
    """What :func:`pose_errors` found.

    Attributes
    ----------
    angle_deg, shift_A : (n,) float64
        Errors of each particle once the frames agree, modulo symmetry.
    matrix : (3, 3) float64
        Rotation that takes the frame of the true map to that of the found one.
    offset_A : (3,) float64
        Where the origin of the true map then lies (x, y, z).
    """

    angle_deg: FloatArray
    shift_A: FloatArray
    matrix: FloatArray
    offset_A: FloatArray

    @property
    def turn_deg(self) -> float:
        """Angle between the frames."""
        return float(angular_distance(matrix_to_euler(self.matrix[None]), [[0.0, 0.0, 0.0]])[0])


def pose_errors(found: Poses, true: Poses, symmetry: str = "C1") -> PoseErrors:
    r"""Angular and shift errors of poses, apart from a turn and an offset that all particles share.

    A refinement fixes the frame of its map only as well as its first reference did: a map turned by Q and moved by o
    explains the images as well, with poses :math:`A Q^T` and shifts :math:`s + (A Q^T o)_{xy}`. Q is the rotation
    nearest to :math:`\sum_i A_i^T B_i g_i` (B true, g the symmetry operator that brings them nearest) over the poses
    that are not mistaken, o follows by least squares; both are averaged over the group, whose axes no frame may leave.

    Parameters
    ----------
    found, true : Poses
        Of the same particles, in the same order; frames less than half of a symmetry operation apart.
    symmetry : str
        Point group.

    Returns
    -------
    PoseErrors

    Raises
    ------
    InputError
        Different numbers of poses, or none.

    References
    ----------
    Kabsch (1978) Acta Cryst. A34, 827-828 (the nearest rotation).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import pose_errors
    >>> true = vg.Poses(vg.geometry.random_orientations(50, seed=0), np.zeros((50, 2)))
    >>> turned = vg.euler_to_matrix(true.angles_deg) @ vg.euler_to_matrix([[5.0, 3, 0]])[0].T
    >>> errors = pose_errors(vg.Poses(vg.matrix_to_euler(turned), np.zeros((50, 2))), true)
    >>> round(float(errors.angle_deg.max()), 6), round(errors.turn_deg, 2)
    (0.0, 5.83)
    """
    _refuse_unequal("pose_errors", found, true)
    group = symmetry_matrices(symmetry)
    a, b = euler_to_matrix(found.angles_deg), euler_to_matrix(true.angles_deg)
    matrix, good = np.eye(3), np.ones(len(a), bool)
    for _ in range(_ROUNDS):
        nearest = b @ _operators(a @ matrix, b, group)
        matrix = _nearest_rotation(np.swapaxes(a[good], 1, 2) @ nearest[good], group)
        angle = angular_distance(matrix_to_euler(a @ matrix), true.angles_deg, symmetry)
        good = angle <= max(_OUTLYING * float(np.median(angle)), 1e-6)
    difference = found.shifts_A - true.shifts_A
    offset = _shared_offset(a[good], difference[good], group)
    return PoseErrors(angle, np.hypot(*(difference - a[:, :2] @ offset).T), matrix, offset)


def agreed_errors(found: Poses, true: Poses, symmetry: str = "C1", *, near_deg: float = 10.0) -> PoseErrors:
    """Errors as of :func:`pose_errors`, in the frame in which most poses agree, however far the frames are apart.

    Two maps of a point group may stand a quarter or half turn apart although their axes lie in the same places, and
    most poses of one may be mistaken. Each pair of poses proposes the frame in which it agrees; the frame that brings
    most pairs nearer than ``near_deg`` (5 degrees at least) is fitted to those pairs.

    Parameters
    ----------
    found, true : Poses
        Of the same particles, in the same order.
    symmetry : str
        Point group, its axes in the same places of both maps.
    near_deg : float
        Largest angle between poses that agree.

    Returns
    -------
    PoseErrors

    Raises
    ------
    InputError
        Different numbers of poses, or none.

    References
    ----------
    Fischler and Bolles (1981) Commun. ACM 24, 381-395 (proposals of few pairs, judged by all).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.poses import agreed_errors
    >>> matrices = vg.euler_to_matrix(vg.geometry.random_orientations(50, seed=0))
    >>> flipped = matrices @ np.diag([1.0, -1, -1])  # a C4 map upside down
    >>> one, two = (vg.Poses(vg.matrix_to_euler(m)) for m in (matrices, flipped))
    >>> round(float(agreed_errors(two, one, "C4").angle_deg.max()), 6)
    0.0
    """
    _refuse_unequal("agreed_errors", found, true)
    group = symmetry_matrices(symmetry)
    # Drawn: the first rows may be of one micrograph, and the fit needs no more.
    rows = np.random.default_rng(0).permutation(len(found))[:_FITTED]
    a, b = euler_to_matrix(found.angles_deg[rows]), euler_to_matrix(true.angles_deg[rows])
    near = max(near_deg, _LEAST_NEAR_DEG)
    proposed = np.swapaxes(a[:_PROPOSED], 1, 2) @ b[:_PROPOSED]
    some = slice(0, _JUDGING)
    matrix = max(proposed, key=lambda one: np.count_nonzero(_apart_deg(a[some] @ one, b[some], group) <= near))
    good = np.ones(len(a), bool)
    for _ in range(_ROUNDS):
        angle = _apart_deg(a @ matrix, b, group)
        good = angle <= near
        good &= angle <= max(_OUTLYING * float(np.median(angle[good])), 1e-3) if good.any() else True
        if not good.any():
            break
        nearest = b @ _operators(a @ matrix, b, group)
        # One element: what normalises the group need not commute with it, as a mean over the group would.
        matrix = _nearest_rotation(np.swapaxes(a[good], 1, 2) @ nearest[good], np.eye(3)[None])
    every = euler_to_matrix(found.angles_deg)
    angle = angular_distance(matrix_to_euler(every @ matrix), true.angles_deg, symmetry)
    difference = found.shifts_A - true.shifts_A
    used = rows[good] if good.any() else rows
    offset = _shared_offset(every[used], difference[used], group)
    return PoseErrors(angle, np.hypot(*(difference - every[:, :2] @ offset).T), matrix, offset)


def _refuse_unequal(name: str, found: Poses, true: Poses) -> None:
    if len(found) != len(true) or not len(true):
        raise InputError(f"{name}: expected as many found as true poses, got {len(found)} and {len(true)}")


def _apart_deg(a: FloatArray, b: FloatArray, group: FloatArray) -> FloatArray:
    """Angles between poses, modulo the group; to about 1e-6 degrees."""
    relative = (np.swapaxes(b, 1, 2) @ a).reshape(-1, 9)
    trace = (relative @ group.reshape(-1, 9).T).max(axis=1)
    return np.asarray(np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0))))


def _shared_offset(a: FloatArray, difference: FloatArray, group: FloatArray) -> FloatArray:
    """The shift of the map that explains differences of shifts best, on the axes of the group."""
    offset = np.linalg.lstsq(a[:, :2].reshape(-1, 3), difference.ravel(), rcond=None)[0]
    return np.asarray((group @ offset).mean(axis=0))


def _operators(a: FloatArray, b: FloatArray, group: FloatArray) -> FloatArray:
    """Of each particle the g that brings B g nearest to A."""
    relative = (np.swapaxes(b, 1, 2) @ a).reshape(-1, 9)
    best: FloatArray = group[(relative @ group.reshape(-1, 9).T).argmax(axis=1)]
    return best


def _nearest_rotation(relative: FloatArray, group: FloatArray) -> FloatArray:
    total = relative.sum(axis=0)
    u, _, vt = np.linalg.svd((group @ total @ np.swapaxes(group, 1, 2)).mean(axis=0))
    # The determinant's sign keeps the least-squares matrix a rotation where a mirror image would fit better (Kabsch
    # 1978).
    rotation: FloatArray = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return rotation
