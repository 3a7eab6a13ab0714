"""Orientations of three images by their common lines, in closed form."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError, VerglasWarning
from verglas.geometry import matrix_to_euler
from verglas.types.arrays import FloatArray


def three_orientations(angle: npt.ArrayLike, *, least_deg: float = 10.0) -> FloatArray:
    """Relative orientations of three images from the common lines of their pairs: angular reconstitution.

    In each image the angle between its two lines is known; the three lines are unit vectors with these angles between
    them, and two of them fix each image (van Heel 1987, Ultramicroscopy 21, 111-124). Where the two lines of an image
    nearly coincide, an error of theirs grows by one over the sine of the angle between them: a warning names them.

    Parameters
    ----------
    angle : (3, 3)
        ``angle[i, j]``: angle in image i of its line with image j, radian.
    least_deg : float
        Lines closer than this are named.

    Returns
    -------
    (3, 3) float64
        rot, tilt, psi of each; up to one rotation and the hand of all.

    Raises
    ------
    InputError
        No three directions have these angles between them: a line is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.initial_model.three_images import three_orientations
    >>> three_orientations([[0, 0, np.pi / 2], [0, 0, np.pi / 2], [0, np.pi / 2, 0]]).shape
    (3, 3)
    """
    lines = np.asarray(angle, np.float64)
    ends = np.stack([np.cos(lines), np.sin(lines)], axis=-1)
    # Lines 01, 02, 12: 01 and 02 lie in image 0, 01 and 12 in image 1, 02 and 12 in image 2.
    inside = (((0, 1), (0, 2)), ((1, 0), (1, 2)), ((2, 0), (2, 1)))
    pairs = ((0, 1), (0, 2), (1, 2))
    gram = np.eye(3)
    for (i, j), (one, other) in zip(pairs, inside, strict=True):
        gram[i, j] = gram[j, i] = ends[one] @ ends[other]
    values, vectors = np.linalg.eigh(gram)
    if values[0] < -1e-3:
        raise InputError("common lines: no three directions have these angles between them; one of the lines is wrong")
    where = vectors * np.sqrt(np.maximum(values, 0))  # row: the line in space
    rotations = np.empty((3, 3, 3))
    for image in range(3):
        flat = np.stack([ends[a, b] for a, b in inside[image]])
        space = where[list(pairs[image])]
        sine = abs(float(np.linalg.det(flat)))
        others = " and ".join(str(k) for k in range(3) if k != image)
        if sine < 1e-6:
            raise InputError(
                f"common lines: in image {image} the lines with images {others} are the same; three images need "
                "distinct ones"
            )
        if sine < np.sin(np.deg2rad(least_deg)):
            warnings.warn(
                f"common lines: in image {image} the lines with images {others} are "
                f"{np.rad2deg(np.arcsin(sine)):.1f} degrees apart: errors of theirs become {1 / sine:.0f} times larger",
                VerglasWarning,
                stacklevel=2,
            )
        columns = np.linalg.solve(flat, space).T
        u, _, vt = np.linalg.svd(columns, full_matrices=False)
        first, second = (u @ vt).T
        rotations[image] = np.stack([first, second, np.cross(first, second)], axis=1)
    return matrix_to_euler(rotations.transpose(0, 2, 1))
