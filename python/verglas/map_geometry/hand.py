"""The hand: mirror images of maps, and the poses that go with them."""

from __future__ import annotations

import numpy as np

from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.types.arrays import Float32Array, FloatArray, any_arrays


@any_arrays
def flip_hand(volume: Float32Array) -> Float32Array:
    """The mirror image through the plane x = 0, the origin (voxel N // 2) kept.

    Images cannot tell a structure from its mirror image: projections of one along d are those of the other, turned.

    Parameters
    ----------
    volume : (N, N, N) float
        In an even box the first plane in x, which has no counterpart, becomes zero.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.map_geometry.hand import flip_hand
    >>> v = np.zeros((4, 4, 4)); v[2, 2, 3] = 1
    >>> np.argwhere(flip_hand(v)).tolist()
    [[2, 2, 1]]
    """
    flipped = np.flip(volume, axis=2)
    if volume.shape[2] % 2 == 0:
        # The flip takes voxel i to N - 1 - i; the roll makes it N - i, which keeps N / 2. Column 0 has no partner:
        # zeros.
        flipped = np.roll(flipped, 1, axis=2).copy()
        flipped[:, :, 0] = 0
    return np.ascontiguousarray(flipped)


@any_arrays
def mirrored_angles(angles_deg: FloatArray) -> FloatArray:
    """Poses of the same images for the map mirrored in the plane x = 0: M A' M = A with M = diag(-1, 1, 1) on the map.

    An image is unchanged if the depth axis is turned round: A' = diag(1, 1, -1) A diag(-1, 1, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.map_geometry.hand import mirrored_angles
    >>> np.round(np.abs(mirrored_angles(mirrored_angles(np.array([[20.0, 40.0, 60.0]])))), 6).tolist()
    [[20.0, 40.0, 60.0]]
    """
    return matrix_to_euler(np.diag([1.0, 1, -1]) @ euler_to_matrix(angles_deg) @ np.diag([-1.0, 1, 1]))
