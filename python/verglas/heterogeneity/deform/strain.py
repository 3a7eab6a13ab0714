r"""Local strain and rotation of a deformation, from the gradient of its displacements.

.. math:: F = I + \nabla u = R\, U, \qquad E = \tfrac{1}{2}(F^T F - I),

R the rotation nearest to F (polar decomposition), E the Green-Lagrange strain, det F the change of volume
(Sorzano et al. 2016, J. Struct. Biol. 195, 123-128).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from verglas.errors import InputError
from verglas.types.arrays import FloatArray
from verglas.types.display import one_line

_FEWEST = 3  # voxels along an axis: a central difference


@one_line
@dataclass(frozen=True, eq=False)
class LocalStrain:
    """What a deformation does to every voxel's surroundings.

    Attributes
    ----------
    strain : (N, N, N, 3, 3) float64
        Green-Lagrange tensor E in x, y, z; 0 for a rigid motion.
    rotation_deg : (N, N, N, 3) float64
        Rotation vector of R.
    volume : (N, N, N) float64
        det F: 1 where nothing grows or shrinks.
    """

    strain: FloatArray
    rotation_deg: FloatArray
    volume: FloatArray

    @property
    def angle_deg(self) -> FloatArray:
        """(N, N, N) angle of the rotation."""
        return np.asarray(np.linalg.norm(self.rotation_deg, axis=-1))

    @property
    def magnitude(self) -> FloatArray:
        """(N, N, N) largest principal strain, stretched or compressed, without sign."""
        return np.asarray(np.abs(np.linalg.eigvalsh(self.strain)).max(axis=-1))


def local_strain(displacement_A: npt.ArrayLike, pixel_size_A: float) -> LocalStrain:
    """Strain and rotation of every voxel.

    Parameters
    ----------
    displacement_A : (N, N, N, 3) array_like
        Displacement x, y, z of every voxel (z, y, x).
    pixel_size_A : float

    Raises
    ------
    InputError
        Another shape, values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.deform import local_strain
    >>> z, y, x = np.indices((6, 6, 6)) * 2.0
    >>> stretched = local_strain(np.stack([0.1 * x, 0 * y, 0 * z], axis=-1), 2.0)
    >>> stretched.strain[3, 3, 3].round(4).diagonal().tolist(), float(stretched.volume[3, 3, 3].round(4))
    ([0.105, 0.0, 0.0], 1.1)
    """
    field = np.asarray(displacement_A, np.float64)
    if field.ndim != 4 or field.shape[3] != 3 or min(field.shape[:3]) < _FEWEST:
        raise InputError(f"local_strain: expected displacements (z, y, x, 3) of 3 voxels or more, got {field.shape}")
    if not np.isfinite(field).all():
        raise InputError("local_strain: displacements that are not finite numbers")
    # Axis 2 of the array is x; the last axis is what is derived by.
    slopes = np.stack([np.gradient(field, pixel_size_A, axis=axis) for axis in (2, 1, 0)], axis=-1)
    f = slopes + np.eye(3)
    u, _, vt = np.linalg.svd(f)
    # A deformation that turns space inside out has no rotation: the nearest proper one is stated.
    sign = np.sign(np.linalg.det(u @ vt))
    u[..., :, 2] *= sign[..., None]
    rotation = Rotation.from_matrix((u @ vt).reshape(-1, 3, 3)).as_rotvec().reshape(field.shape)
    strain = (np.swapaxes(f, -1, -2) @ f - np.eye(3)) / 2
    return LocalStrain(strain, np.rad2deg(rotation), np.linalg.det(f))
