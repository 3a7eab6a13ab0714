"""HEALPix pixels of the sphere in the nested order: 12 . 4^order pixels of equal area.

Górski et al. (2005) ApJ 622, 759-771; written here through the plane projection of Calabretta and Roukema (2007)
MNRAS 381, 865-872, in which every pixel is a square. With longitude phi and z = cos(tilt), in units of pi/4,

    |z| <= 2/3:  X = phi,                            Y = 3 z / 2
    beyond:      X = phi_c + (phi - phi_c) sigma,    Y = sign(z) (2 - sigma),    sigma = sqrt(3 (1 - |z|))

with phi_c the middle of the quadrant. Turned by 45 degrees, a = (X + Y + 1)/2 and b = (Y - X + 1)/2 are the coordinates
of unit squares, one per base face: floor(a) + floor(b) is 1, 0 or -1 in the northern, equatorial and southern row, and
the fractions, cut into 2^order parts and interleaved bit by bit, are the place in the face (a is north-east, b
north-west). The children of pixel p one order on are 4 p .. 4 p + 3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray, any_arrays

MAX_ORDER = 29
# Offsets (a, b) of the eight neighbours: SW, W, NW, N, NE, E, SE, S.
_NEIGHBOURS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
# Stepping off a face in a and b: (row of faces, step in a, step in b) -> (row entered, columns eastward, turned). Rows:
# 0 north, 1 equatorial, 2 south. Over an edge between two faces of one cap the coordinates swap (turned); elsewhere
# faces join as squares of the plane do. Absent corners are those where three faces meet.
_STEPS = {
    (0, 1, 0): (0, 1, 1),
    (0, 0, 1): (0, -1, 1),
    (0, 1, 1): (0, 2, 1),
    (0, 0, -1): (1, 1, 0),
    (0, -1, 0): (1, 0, 0),
    (0, -1, -1): (2, 0, 0),
    (1, 1, 0): (0, 0, 0),
    (1, 0, 1): (0, -1, 0),
    (1, 0, -1): (2, 0, 0),
    (1, -1, 0): (2, -1, 0),
    (1, 1, -1): (1, 1, 0),
    (1, -1, 1): (1, -1, 0),
    (2, 0, -1): (2, 1, 1),
    (2, -1, 0): (2, -1, 1),
    (2, -1, -1): (2, 2, 1),
    (2, 1, 0): (1, 1, 0),
    (2, 0, 1): (1, 0, 0),
    (2, 1, 1): (0, 0, 0),
    **{(row, 0, 0): (row, 0, 0) for row in range(3)},
}
_STEP_TABLE = np.array(
    [[[_STEPS.get((row, da, db), (-1, 0, 0)) for db in (-1, 0, 1)] for da in (-1, 0, 1)] for row in range(3)]
)
# Masks that spread the 32 low bits of a number to the even bits.
_SPREAD = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


def _check_order(order: int) -> int:
    if not 0 <= int(order) <= MAX_ORDER or int(order) != order:
        raise InputError(f"HEALPix order: expected a whole number from 0 to {MAX_ORDER}, got {order}")
    return int(order)


def _check_index(order: int, index: npt.ArrayLike) -> IntArray:
    pixels = np.asarray(index)
    if pixels.size and not np.issubdtype(pixels.dtype, np.integer):
        raise InputError(f"HEALPix index: expected whole numbers, got {pixels.dtype}")
    pixels = pixels.astype(np.int64)
    count = healpix_count(order)
    if pixels.size and not (pixels.min() >= 0 and pixels.max() < count):
        bad = pixels[(pixels < 0) | (pixels >= count)].flat[0]
        raise InputError(f"HEALPix index: expected 0 to {count - 1} at order {order}, got {bad}")
    return pixels


def healpix_count(order: int) -> int:
    """Number of pixels, 12 . 4^order.

    Examples
    --------
    >>> from verglas.geometry import healpix_count
    >>> [healpix_count(k) for k in range(4)]
    [12, 48, 192, 768]
    """
    return 12 << (2 * _check_order(order))


def healpix_spacing_deg(order: int) -> float:
    """Side of a square of a pixel's area, in degrees: 58.6 / 2^order.

    Examples
    --------
    >>> from verglas.geometry import healpix_spacing_deg
    >>> round(healpix_spacing_deg(3), 3)
    7.329
    """
    return float(np.rad2deg(np.sqrt(4 * np.pi / healpix_count(order))))


def healpix_order(step_deg: float) -> int:
    """Lowest order whose spacing is at most ``step_deg``.

    Examples
    --------
    >>> from verglas.geometry import healpix_order
    >>> [healpix_order(s) for s in (60, 30, 7.5, 1.875)]
    [0, 1, 3, 5]
    """
    if not (np.isfinite(step_deg) and step_deg > 0):
        raise InputError(f"step_deg: expected a positive angle in degrees, got {step_deg}")
    # Less a rounding error: the spacing of an order must give that order back.
    order = max(0, int(np.ceil(np.log2(healpix_spacing_deg(0) / step_deg) - 1e-12)))
    if order > MAX_ORDER:
        raise InputError(f"step_deg: {step_deg} degrees needs HEALPix order {order}, more than {MAX_ORDER}")
    return order


def _spread(value: IntArray) -> IntArray:
    for shift, mask in _SPREAD:
        value = (value | (value << shift)) & mask
    return value


def _gather(value: IntArray) -> IntArray:
    value = value & _SPREAD[-1][1]
    masks = [mask for _, mask in _SPREAD]
    for (shift, _), mask in zip(reversed(_SPREAD), [*reversed(masks[:-1]), 0x00000000FFFFFFFF], strict=True):
        value = (value | (value >> shift)) & mask
    return value


def _split(order: int, index: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Face and place (a, b) of pixels."""
    face, rest = index >> (2 * order), index & ((1 << (2 * order)) - 1)
    return face, _gather(rest), _gather(rest >> 1)


def _join(order: int, face: IntArray, a: IntArray, b: IntArray) -> IntArray:
    return (face << (2 * order)) | _spread(a) | (_spread(b) << 1)


@any_arrays
def healpix_directions(order: int, index: npt.ArrayLike | None = None) -> FloatArray:
    """Centres of pixels as viewing directions.

    Parameters
    ----------
    order : int
        0 to 29.
    index : (n,) int, optional
        Nested pixel numbers; all pixels in order by default.

    Returns
    -------
    (n, 2) float64
        rot in (-180, 180] and tilt in [0, 180], degrees.

    Raises
    ------
    InputError
        Order or index out of range.

    Examples
    --------
    >>> from verglas.geometry import healpix_directions
    >>> healpix_directions(0)[[0, 4, 11]].round(3).tolist()
    [[45.0, 48.19], [0.0, 90.0], [-45.0, 131.81]]
    """
    order = _check_order(order)
    index = np.arange(healpix_count(order)) if index is None else _check_index(order, index)
    face, a, b = _split(order, index)
    row, column = 1 - face // 4, face % 4
    # South corner of the face, then the middle of the pixel, in the coordinates a, b of the module's head.
    corner_a = column + (row == 1)
    corner_b = -column - (row == -1)
    side = 2.0**-order
    at_a, at_b = corner_a + (a + 0.5) * side, corner_b + (b + 0.5) * side
    x, y = at_a - at_b, at_a + at_b - 1
    sigma = 2 - np.abs(y)
    cap = sigma < 1
    # The quadrant's middle is 1, 3, 5 or 7 (faces of the caps): 2 column + 1. There z = 1 - sigma^2/3, and
    # sin(tilt/2) = sigma/sqrt 6 is the form without cancellation near the pole.
    middle = 2 * column + 1
    near = 2 * np.arcsin(np.where(cap, sigma, 0) / 6**0.5)
    tilt = np.where(cap, np.where(y > 0, near, np.pi - near), np.arccos(np.where(cap, 0, y) * 2 / 3))
    x = np.where(cap, middle + (x - middle) / np.where(cap, sigma, 1), x)
    rot = 180 - np.mod(180 - 45 * x, 360)
    return np.stack([rot, np.rad2deg(tilt)], axis=-1)


@any_arrays
def healpix_index(order: int, directions_deg: npt.ArrayLike) -> IntArray:
    """Nested number of the pixel that holds each direction.

    Parameters
    ----------
    order : int
        0 to 29.
    directions_deg : (n, 2)
        rot (any range) and tilt (0 to 180), degrees.

    Returns
    -------
    (n,) int64

    Raises
    ------
    InputError
        Another shape, or a tilt outside 0 to 180.

    Examples
    --------
    >>> from verglas.geometry import healpix_directions, healpix_index
    >>> healpix_index(4, healpix_directions(4, [7, 3000])).tolist()
    [7, 3000]
    """
    order = _check_order(order)
    directions = np.asarray(directions_deg, dtype=np.float64)
    if directions.ndim == 0 or directions.shape[-1] != 2:
        raise InputError(f"directions: expected shape (n, 2) for rot, tilt, got {directions.shape}")
    rot, tilt = directions[..., 0], directions[..., 1]
    if not (np.isfinite(rot).all() and ((tilt >= 0) & (tilt <= 180)).all()):
        raise InputError("directions: expected finite rot and tilt from 0 to 180 degrees")
    # np.mod of a tiny negative angle rounds to 360 itself.
    phi = np.mod(np.mod(rot, 360) / 45, 8)
    z = np.cos(np.deg2rad(tilt))
    cap = np.abs(z) > 2 / 3
    quadrant = (phi // 2).astype(np.int64)
    sigma = 6**0.5 * np.sin(np.deg2rad(np.minimum(tilt, 180 - tilt)) / 2)
    middle = 2 * quadrant + 1
    x = np.where(cap, middle + (phi - middle) * sigma, phi)
    y = np.where(cap, np.sign(z) * (2 - sigma), 1.5 * z)
    at_a, at_b = (x + y + 1) / 2, (y - x + 1) / 2
    # In the caps the quadrant says the face (rounding on its edge must not), elsewhere the squares do.
    floor_a = np.where(cap, quadrant + (z > 0), np.floor(at_a).astype(np.int64))
    floor_b = np.where(cap, -quadrant - (z < 0), np.floor(at_b).astype(np.int64))
    # z = 2/3 rounds onto the very corner where two caps' faces meet: it belongs to the equatorial face below.
    corner = floor_a + floor_b > 1
    floor_a, floor_b = floor_a - corner, floor_b - corner
    row = floor_a + floor_b
    column = np.where(row == 1, -floor_b, floor_a) % 4
    last = (1 << order) - 1
    a = np.clip(((at_a - floor_a) * 2.0**order).astype(np.int64), 0, last)
    b = np.clip(((at_b - floor_b) * 2.0**order).astype(np.int64), 0, last)
    return _join(order, 4 * (1 - row) + column, a, b)


@any_arrays
def healpix_children(index: npt.ArrayLike) -> IntArray:
    """The four pixels of the next order inside each pixel: 4 p .. 4 p + 3; the parent of q is q // 4.

    Examples
    --------
    >>> from verglas.geometry import healpix_children
    >>> healpix_children([0, 5]).tolist()
    [[0, 1, 2, 3], [20, 21, 22, 23]]
    """
    return 4 * np.asarray(index, dtype=np.int64)[..., None] + np.arange(4)


def _cross_faces(order: int, face: IntArray, a: IntArray, b: IntArray) -> IntArray:
    """Nested numbers of places that may lie one step outside their face; -1 where there is no such pixel."""
    side = 1 << order
    over_a, over_b = ((v >= side).astype(np.int64) - (v < 0) for v in (a, b))
    row, columns, turned = np.moveaxis(_STEP_TABLE[face // 4, over_a + 1, over_b + 1], -1, 0)
    new_a = np.where(turned == 1, np.clip(b, 0, side - 1), a % side)
    new_b = np.where(turned == 1, np.clip(a, 0, side - 1), b % side)
    return np.where(row < 0, -1, _join(order, 4 * np.maximum(row, 0) + (face + columns) % 4, new_a, new_b))


@any_arrays
def healpix_neighbours(order: int, index: npt.ArrayLike) -> IntArray:
    """The eight pixels around each pixel.

    Parameters
    ----------
    order : int
        0 to 29.
    index : (n,) int
        Nested pixel numbers.

    Returns
    -------
    (n, 8) int64
        South-west, west, north-west, north, north-east, east, south-east, south; -1 at the eight places of the sphere
        where three faces meet and a corner neighbour does not exist.

    Examples
    --------
    >>> from verglas.geometry import healpix_neighbours
    >>> healpix_neighbours(1, [3]).tolist()
    [[2, 13, 1...]]
    """
    order = _check_order(order)
    face, a, b = _split(order, _check_index(order, index))
    return np.stack([_cross_faces(order, face, a + da, b + db) for da, db in _NEIGHBOURS], axis=-1)
