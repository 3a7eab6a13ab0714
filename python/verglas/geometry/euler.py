"""Euler angles, matrices and quaternions.

One convention throughout: rot, tilt, psi in degrees, A = Rz(psi) Ry(tilt) Rz(rot) with passive factors

    Rz(t) = [[ cos t, sin t, 0],    Ry(t) = [[cos t, 0, -sin t],    Rx(t) = [[1,      0,     0],
             [-sin t, cos t, 0],             [    0, 1,      0],             [0,  cos t, sin t],
             [     0,     0, 1]]             [sin t, 0,  cos t]]             [0, -sin t, cos t]]

A point at r in the volume frame projects to (A r)[x, y]; the viewing axis in the volume frame is the third row of A,
(sin tilt cos rot, sin tilt sin rot, cos tilt). A is the transpose of scipy's intrinsic ZYZ matrix of (rot, tilt, psi).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays

# A sine of the tilt below this is rounding: rot and psi are then not separate, and rot is set to 0.
_POLE = 1e-14
# Largest deviation of R R^T from 1 that is still taken for a rotation (matrices printed with six digits pass).
_ORTHOGONAL = 1e-4


def _angles(angles_deg: npt.ArrayLike) -> FloatArray:
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.ndim == 0 or angles.shape[-1] != 3:
        raise InputError(f"angles_deg: expected shape (n, 3) for rot, tilt, psi, got {angles.shape}")
    if not np.isfinite(angles).all():
        row = int(np.argwhere(~np.isfinite(angles).all(axis=-1).reshape(-1))[0, 0])
        raise InputError(f"angles_deg: rot, tilt or psi is not a number in row {row}")
    return angles


def _matrices(matrices: npt.ArrayLike) -> FloatArray:
    rotations = np.asarray(matrices, dtype=np.float64)
    if rotations.shape[-2:] != (3, 3):
        raise InputError(f"rotation matrices: expected shape (n, 3, 3), got {rotations.shape}")
    error = np.abs(rotations @ np.swapaxes(rotations, -1, -2) - np.eye(3)).max(axis=(-1, -2)).reshape(-1)
    proper = (error <= _ORTHOGONAL) & (np.linalg.det(rotations).reshape(-1) > 0)
    if not proper.all():
        row = int(np.flatnonzero(~proper)[0])
        raise InputError(f"rotation matrices: matrix {row} is not a proper rotation (orthogonal, determinant +1)")
    return rotations


@any_arrays
def euler_to_matrix(angles_deg: npt.ArrayLike) -> FloatArray:
    """Rotation matrices A = Rz(psi) Ry(tilt) Rz(rot) of Euler angles.

    Parameters
    ----------
    angles_deg : (n, 3) or (3,)
        rot, tilt, psi in degrees.

    Returns
    -------
    (n, 3, 3) or (3, 3) float64
        A takes a point of the volume frame to the image frame: an atom at r projects to ``(A @ r)[:2]``.

    Raises
    ------
    InputError
        Another shape, or an angle that is not finite.

    References
    ----------
    Heymann, Chagoyen and Belnap (2005) J. Struct. Biol. 151, 196-207.

    Examples
    --------
    >>> import verglas as vg
    >>> vg.euler_to_matrix([0, 0, 90]).round(12) + 0.0
    array([[ 0.,  1.,  0.],
           [-1.,  0.,  0.],
           [ 0.,  0.,  1.]])
    """
    cosine, sine = (np.moveaxis(f(np.deg2rad(_angles(angles_deg))), -1, 0) for f in (np.cos, np.sin))
    (ca, cb, cg), (sa, sb, sg) = cosine, sine
    # RELION's rotations are passive: A is the transpose of the matrix that scipy makes of intrinsic "ZYZ" angles.
    rows = (
        (cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb),
        (-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb),
        (sb * ca, sb * sa, cb),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


@any_arrays
def matrix_to_euler(matrices: npt.ArrayLike) -> FloatArray:
    """Euler angles of rotation matrices; the inverse of :func:`euler_to_matrix`.

    Parameters
    ----------
    matrices : (n, 3, 3) or (3, 3)
        Proper rotations A.

    Returns
    -------
    (n, 3) or (3,) float64
        rot and psi in [-180, 180], tilt in [0, 180] degrees. At tilt 0 and 180, where only a combination of rot and
        psi is defined, rot is 0.

    Raises
    ------
    InputError
        Another shape, or a matrix that is not a proper rotation (checked to 1e-4).

    Examples
    --------
    >>> import verglas as vg
    >>> vg.matrix_to_euler(vg.euler_to_matrix([[10, 20, 30], [0, 180, 45]])).round(9).tolist()
    [[10.0, 20.0, 30.0], [0.0, 180.0, 45.0]]
    """
    a = _matrices(matrices)
    # The third row of A is the viewing direction. Not arccos(a_zz): next to the poles it loses half of the digits.
    sine_tilt = np.hypot(a[..., 2, 0], a[..., 2, 1])
    tilt = np.arctan2(sine_tilt, a[..., 2, 2])
    rot = np.where(sine_tilt < _POLE, 0.0, np.arctan2(a[..., 2, 1], a[..., 2, 0]))
    # psi is read off A m with m = (-sin rot, cos rot, 0), the axis of the tilt, which A turns into the image plane:
    # it is exact for the rot just found, so that the matrix round trip holds next to the poles too.
    in_plane = -np.sin(rot)[..., None] * a[..., :2, 0] + np.cos(rot)[..., None] * a[..., :2, 1]
    psi = np.arctan2(in_plane[..., 0], in_plane[..., 1])
    return np.rad2deg(np.stack([rot, tilt, psi], axis=-1))


@any_arrays
def euler_to_quaternion(angles_deg: npt.ArrayLike) -> FloatArray:
    """Unit quaternions (x, y, z, w) of the rotation r -> A r, as scipy orders them; w >= 0.

    Examples
    --------
    >>> from verglas.geometry import euler_to_quaternion
    >>> (euler_to_quaternion([[0, 0, -180]]) + 0.0).round(9).tolist()
    [[0.0, 0.0, 1.0, 0.0]]
    """
    matrices = euler_to_matrix(angles_deg)
    quaternions = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_quat()
    quaternions = np.where(quaternions[:, 3:] < 0, -quaternions, quaternions)
    return quaternions.reshape(*matrices.shape[:-2], 4)


@any_arrays
def quaternion_to_euler(quaternions: npt.ArrayLike) -> FloatArray:
    """Euler angles of quaternions (x, y, z, w), which need not have unit length; q and -q are one rotation.

    Examples
    --------
    >>> from verglas.geometry import euler_to_quaternion, quaternion_to_euler
    >>> quaternion_to_euler(euler_to_quaternion([[10, 20, 30]])).round(9).tolist()
    [[10.0, 20.0, 30.0]]
    """
    array = np.asarray(quaternions, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != 4:
        raise InputError(f"quaternions: expected shape (n, 4) for x, y, z, w, got {array.shape}")
    if not (np.linalg.norm(array, axis=-1) > 0).all():
        raise InputError("quaternions: a quaternion of length zero (or NaN) is no rotation")
    return matrix_to_euler(Rotation.from_quat(array.reshape(-1, 4)).as_matrix().reshape(*array.shape[:-1], 3, 3))


@any_arrays
def zyz_to_zxz(angles_deg: npt.ArrayLike) -> FloatArray:
    """Z-X-Z angles of the same rotation: A = Rz(third) Rx(second) Rz(first).

    Ry(t) = Rz(-90) Rx(t) Rz(90), hence first = rot + 90, second = tilt, third = psi - 90.

    Examples
    --------
    >>> from verglas.geometry import zyz_to_zxz
    >>> zyz_to_zxz([[10, 20, 30]]).tolist()
    [[100.0, 20.0, -60.0]]
    """
    return _angles(angles_deg) + np.array([90.0, 0.0, -90.0])


@any_arrays
def zxz_to_zyz(angles_deg: npt.ArrayLike) -> FloatArray:
    """rot, tilt, psi of Z-X-Z angles; the inverse of :func:`zyz_to_zxz`.

    Examples
    --------
    >>> from verglas.geometry import zxz_to_zyz
    >>> zxz_to_zyz([[100, 20, -60]]).tolist()
    [[10.0, 20.0, 30.0]]
    """
    return _angles(angles_deg) + np.array([-90.0, 0.0, 90.0])


@any_arrays
def direction_vectors(directions_deg: npt.ArrayLike) -> FloatArray:
    """Unit vectors (sin tilt cos rot, sin tilt sin rot, cos tilt) of viewing directions (n, 2) rot, tilt in degrees.

    Examples
    --------
    >>> from verglas.geometry import direction_vectors
    >>> direction_vectors([[90, 90]]).round(12).tolist()
    [[0.0, 1.0, 0.0]]
    """
    directions = np.asarray(directions_deg, dtype=np.float64)
    if directions.ndim == 0 or directions.shape[-1] != 2:
        raise InputError(f"directions: expected shape (n, 2) for rot, tilt, got {directions.shape}")
    rot, tilt = np.moveaxis(np.deg2rad(directions), -1, 0)
    return np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=-1)
