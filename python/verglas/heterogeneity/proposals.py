"""Maps that another structure of the same particle might have: what classes are first guessed from.

Expectation-maximisation that starts from copies of one map with noise added leaves them copies, or settles where every
class is a mixture: the poses of the other structures' particles on a wrong map are scattered, and their mean shows
nothing. A guess need not be right, only nearer to another structure than the map is; the particles decide.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from verglas.image import Affine, warp
from verglas.types.arrays import Float32Array, FloatArray

_TURNS_DEG = (15.0, 60.0)
_OFFSET = 0.12  # of the plane of a hinge from the centre, in diameters at most
_PART = (0.12, 0.35)  # radius of a part that goes or comes, in diameters
_HINGE_EDGE_PX = 2.0
_PART_EDGE_PX = 1.0
_MORE = 0.7  # by how much a part that is there more often than the map says is raised
_KINDS = ("hinge", "part", "noise")
_KIND_WEIGHT = (0.7, 0.2, 0.1)


def _coordinates(box: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    axis = np.arange(box, dtype=np.float64) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return z, y, x


def hinge_map(
    volume: Float32Array, normal: FloatArray, offset_px: float, axis: FloatArray, angle_deg: float
) -> Float32Array:
    """A map whose density on one side of a plane is turned about an axis through the centre.

    Parameters
    ----------
    volume : (N, N, N) float32
    normal : (3,) float64
        Of the plane, x, y, z; what lies where it points to is turned.
    offset_px : float
        Distance of the plane from the centre.
    axis : (3,) float64
        Of the turn, x, y, z.
    angle_deg : float

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.proposals import hinge_map
    >>> v = np.zeros((16, 16, 16), np.float32); v[8, 8, 13] = v[8, 8, 3] = 1  # at x = 5 and x = -5
    >>> made = hinge_map(v, np.array([1.0, 0, 0]), 0.0, np.array([0, 0, 1.0]), 90.0)
    >>> [tuple(map(int, p)) for p in np.argwhere(made > 0.5)]  # x = 5 went to y = 5
    [(8, 8, 3), (8, 13, 8)]
    """
    z, y, x = _coordinates(len(volume))
    along = normal[0] * x + normal[1] * y + normal[2] * z - offset_px
    turned_side = (1 / (1 + np.exp(-along / (_HINGE_EDGE_PX / 2)))).astype(np.float32)
    turn = Rotation.from_rotvec(np.deg2rad(angle_deg) * axis / np.linalg.norm(axis)).as_matrix()
    moved = warp(volume * turned_side, Affine(turn, np.zeros(3)), "linear")
    return np.asarray(volume * (1 - turned_side) + moved, np.float32)


def part_map(volume: Float32Array, centre: FloatArray, radius_px: float, factor: float) -> Float32Array:
    """A map whose density in a soft ball about a point (x, y, z from the centre) is multiplied by a factor.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.proposals import part_map
    >>> made = part_map(np.ones((16, 16, 16), np.float32), np.array([4.0, 0, 0]), 3.0, 0.0)
    >>> bool(made[8, 8, 12] < 0.1), bool(made[8, 8, 4] > 0.99)
    (True, True)
    """
    z, y, x = _coordinates(len(volume))
    away = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    inside = 1 / (1 + np.exp((away - radius_px) / _PART_EDGE_PX))
    return np.asarray(volume * (1 + (factor - 1) * inside), np.float32)


def propose_map(
    volume: Float32Array, diameter_px: float, smooth_noise: Float32Array, rng: np.random.Generator
) -> Float32Array:
    """Another structure, guessed from a map: a half that turns, a part that goes or is there more often, or noise.

    Parameters
    ----------
    volume : (N, N, N) float32
    diameter_px : float
        Of the particle.
    smooth_noise : (N, N, N) float32
        Of unit variance, at the resolution of the map.
    rng : Generator
    """
    kind = rng.choice(_KINDS, p=_KIND_WEIGHT)
    if kind == "hinge":
        normal, axis = rng.normal(size=3), rng.normal(size=3)
        offset_px = rng.uniform(-_OFFSET, _OFFSET) * diameter_px
        return hinge_map(volume, normal / np.linalg.norm(normal), offset_px, axis, rng.uniform(*_TURNS_DEG))
    if kind == "part":
        # About a voxel drawn by its squared density: parts are looked for where the particle is.
        weight = np.square(np.clip(volume, 0, None), dtype=np.float64).ravel()
        total = weight.sum()
        place = int(rng.choice(len(weight), p=weight / total)) if total > 0 else 0
        at = np.array(np.unravel_index(place, volume.shape))[::-1] - len(volume) // 2
        radius_px = rng.uniform(*_PART) * diameter_px
        return part_map(volume, at.astype(np.float64), radius_px, float(rng.choice([0.0, 1 + _MORE])))
    return np.asarray(volume + volume.std() * smooth_noise, np.float32)
