"""Masks on images and volumes: spheres, thresholds, dilation, soft edges.

Lengths are in pixels here, because a mask belongs to an array; the command line converts from angstrom.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas.errors import InputError
from verglas.fourier import raised_cosine
from verglas.types.arrays import Float32Array, any_arrays
from verglas.types.convert import MapLike, values_of

__all__ = [
    "BinaryMask",
    "dilate",
    "distance_from",
    "erode",
    "from_threshold",
    "largest_component",
    "soft_circle",
    "soft_edge",
    "soft_sphere",
    "threshold",
]
__dir__ = partial(sorted, __all__)


BinaryMask = npt.NDArray[np.bool_]


def distance_from(shape: tuple[int, ...], center: tuple[float, ...] | None = None) -> npt.NDArray[np.float64]:
    """Distance of every pixel from a point, in pixels.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array, slowest axis first.
    center : tuple of float, optional
        Pixel coordinates in the order of ``shape``; by default N // 2 on every axis, the origin of every array here.

    Returns
    -------
    (*shape) float64

    Examples
    --------
    >>> from verglas import masks
    >>> masks.distance_from((3,)).tolist()
    [1.0, 0.0, 1.0]
    """
    point = tuple(n // 2 for n in shape) if center is None else center
    if len(point) != len(shape):
        raise InputError(f"center: expected {len(shape)} coordinates for shape {tuple(shape)}, got {len(point)}")
    axes = np.ix_(*((np.arange(n) - c) ** 2 for n, c in zip(shape, point, strict=True)))
    return np.sqrt(sum(axes))


def soft_sphere(
    shape: int | tuple[int, ...],
    radius_px: float,
    edge_px: float = 0.0,
    center: tuple[float, ...] | None = None,
) -> Float32Array:
    """Sphere (or circle) with a raised-cosine edge outside its radius.

    m(r) = 1 for r <= R, (1 + cos(pi (r - R) / w)) / 2 for R < r < R + w, 0 beyond.

    Parameters
    ----------
    shape : int or tuple of int
        Side of a cube, or the shape of an image (y, x) or volume (z, y, x).
    radius_px : float
        R, the radius of the part that is 1, in pixels.
    edge_px : float
        w, the width of the edge, in pixels; 0 is a hard edge.
    center : tuple of float, optional
        Centre in the order of ``shape``; N // 2 by default.

    Returns
    -------
    (*shape) float32
        Values in [0, 1].

    Raises
    ------
    InputError
        A negative radius or width.

    Examples
    --------
    >>> from verglas import masks
    >>> m = masks.soft_sphere(8, radius_px=2, edge_px=2)
    >>> m[4, 4, 4:].tolist()
    [1.0, 1.0, 1.0, 0.5]
    """
    if not radius_px >= 0:
        raise InputError(f"radius_px: expected a radius >= 0 in pixels, got {radius_px}")
    sides = (shape,) * 3 if isinstance(shape, int | np.integer) else tuple(shape)
    return raised_cosine(distance_from(sides, center) - radius_px, edge_px).astype(np.float32)


def soft_circle(
    box: int, radius_px: float, edge_px: float = 0.0, center: tuple[float, ...] | None = None
) -> Float32Array:
    """Circle with a raised-cosine edge on a square image: :func:`soft_sphere` on (box, box).

    Examples
    --------
    >>> from verglas import masks
    >>> masks.soft_circle(6, 1, 2)[3].tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.5]
    """
    return soft_sphere((box, box), radius_px, edge_px, center)


@any_arrays
def threshold(values: npt.ArrayLike, level: float, *, above: bool = True) -> BinaryMask:
    """Binary mask of the values at or above a level, or below it.

    Parameters
    ----------
    values : (...) float
        Image or volume.
    level : float
        t.
    above : bool
        True: 1 where value >= t (protein white). False: 1 where value < t (protein dark).

    Returns
    -------
    (...) bool
        The two choices are complements of each other; a NaN is in neither.

    Examples
    --------
    >>> from verglas import masks
    >>> masks.threshold([1.0, 2.0, 3.0], 2.0, above=False).tolist()
    [True, False, False]
    """
    array = np.asarray(values)
    return array >= level if above else array < level


@any_arrays
def dilate(mask: npt.ArrayLike, iterations: int = 1) -> BinaryMask:
    """Binary dilation by the full 3 x 3 (x 3) neighbourhood: 1 where any neighbour is 1.

    Examples
    --------
    >>> from verglas import masks
    >>> masks.dilate([0, 0, 1, 0, 0]).astype(int).tolist()
    [0, 1, 1, 1, 0]
    """
    return _morph(ndimage.binary_dilation, mask, iterations)


@any_arrays
def erode(mask: npt.ArrayLike, iterations: int = 1) -> BinaryMask:
    """Binary erosion by the full 3 x 3 (x 3) neighbourhood: 0 where any neighbour, or the outside, is 0.

    Examples
    --------
    >>> from verglas import masks
    >>> masks.erode([0, 1, 1, 1, 0]).astype(int).tolist()
    [0, 0, 1, 0, 0]
    """
    return _morph(ndimage.binary_erosion, mask, iterations)


def _morph(operation: Callable[..., BinaryMask], mask: npt.ArrayLike, iterations: int) -> BinaryMask:
    array = np.asarray(mask).astype(bool)
    if iterations < 0:
        raise InputError(f"iterations: expected a number >= 0, got {iterations}")
    if iterations == 0:  # scipy reads 0 as "until nothing changes"
        return array
    return operation(array, np.ones((3,) * array.ndim, bool), iterations=iterations)


@any_arrays
def largest_component(mask: npt.ArrayLike) -> BinaryMask:
    """Only the largest connected part, pixels that touch by a face being connected; the first one among equals.

    Examples
    --------
    >>> from verglas import masks
    >>> masks.largest_component([1, 0, 1, 1]).astype(int).tolist()
    [0, 0, 1, 1]
    """
    array = np.asarray(mask).astype(bool)
    labels, n_parts = ndimage.label(array)
    if n_parts <= 1:
        return array
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(np.argmax(sizes))


@any_arrays
def soft_edge(mask: npt.ArrayLike, edge_px: float, *, extend_px: float = 0.0) -> Float32Array:
    """Dilate a binary mask by a distance, then give it a raised-cosine edge.

    With d the Euclidean distance to the nearest pixel of the mask: 1 for d <= e, (1 + cos(pi (d - e) / w)) / 2 for
    e < d < e + w, 0 beyond.

    Parameters
    ----------
    mask : (...) bool
        Binary mask of any dimension; anything but 0 is inside.
    edge_px : float
        w, width of the edge in pixels; 0 is a hard edge.
    extend_px : float
        e, dilation in pixels (a ball, not a cube).

    Returns
    -------
    (...) float32
        1 inside the extended mask.

    Raises
    ------
    InputError
        The mask is empty, or a width is negative.

    Examples
    --------
    >>> from verglas import masks
    >>> masks.soft_edge([0, 0, 0, 1, 0, 0], edge_px=2, extend_px=1).tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.5]
    """
    array = np.asarray(mask).astype(bool)
    if not extend_px >= 0:
        raise InputError(f"extend_px: expected a distance >= 0 in pixels, got {extend_px}")
    if not array.any():
        raise InputError("mask: no pixel is inside; lower the threshold")
    # Farther than the edge reaches everything is 0, and the distance transform takes 50 bytes and more per voxel.
    reach = int(np.ceil(extend_px + max(edge_px, 0.0))) + 1
    near = tuple(
        slice(max(int(inside[0]) - reach, 0), int(inside[-1]) + reach + 1)
        for axis in range(array.ndim)
        if (inside := np.flatnonzero(array.any(axis=tuple(a for a in range(array.ndim) if a != axis)))).size
    )
    distance = np.asarray(ndimage.distance_transform_edt(~array[near]))
    out = np.zeros(array.shape, np.float32)
    out[near] = raised_cosine(distance - extend_px, edge_px)
    return out


@any_arrays
def from_threshold(
    values: MapLike | npt.ArrayLike,
    level: float,
    *,
    extend_px: float = 3.0,
    edge_px: float = 6.0,
    largest: bool = False,
    above: bool = True,
) -> Float32Array:
    """Soft mask of what exceeds a level: threshold, keep the largest part if asked, dilate, soften.

    Parameters
    ----------
    values : Map, path or (...) float
        Map, image or volume, usually low-pass filtered first.
    level : float
        Threshold on the grey values.
    extend_px, edge_px : float
        Dilation and width of the raised-cosine edge, in pixels, as in :func:`soft_edge`.
    largest : bool
        Keep only the largest connected part.
    above : bool
        False: what lies below the level (protein dark).

    Returns
    -------
    (...) float32
        Values in [0, 1].

    Raises
    ------
    InputError
        Nothing passes the level; the message says the range of the values.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import masks
    >>> x = np.zeros(8); x[3] = 1
    >>> masks.from_threshold(x, 0.5, extend_px=1, edge_px=2).tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    array = np.asarray(values_of(values, "masks.from_threshold: values"))
    if not np.isfinite(array).all():
        raise InputError(f"values: {np.count_nonzero(~np.isfinite(array))} of {array.size} are not finite numbers")
    inside = threshold(array, level, above=above)
    if not inside.any():
        raise InputError(
            f"threshold {level:g}: no value is {'at or above' if above else 'below'} it; "
            f"the values range from {array.min():g} to {array.max():g}"
        )
    if largest:
        inside = largest_component(inside)
    return soft_edge(inside, edge_px, extend_px=extend_px)


_ROUNDING = 1e-3  # by which a mask written by others may leave 0 to 1
_BORDER = 0.5  # mean of a mask in the corners that is no molecule's
# By which it is then above the mean of the ball between them: half of the box, as of a body, is the same in both.
_INVERTED = 0.05
_HINTS = {
    (-128, -127): "; IMOD stores bytes less 128: add 128 to the values",
    (0, 255): "; divide it by 255",
}


def checked_mask(values: npt.ArrayLike, shape: tuple[int, ...] | None = None, name: str = "the mask") -> Float32Array:
    """A mask that can be multiplied with maps, or an error that says why it cannot: the one check of every job.

    Parameters
    ----------
    values : array
        1 inside, 0 outside, soft between.
    shape : tuple of int, optional
        That it has to have, slowest axis first.
    name : str
        What the error calls it.

    Returns
    -------
    float32
        Clipped to 0 to 1, where rounding left it.

    Raises
    ------
    InputError
        Another shape; values that are not finite, or outside 0 to 1 by more than a thousandth; a mask that is zero
        everywhere; one that keeps the corners of the box and cuts out the middle.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import masks
    >>> sphere = masks.soft_sphere(16, 4.0, 3.0)
    >>> bool((masks.checked_mask(sphere) == sphere).all())
    True
    >>> masks.checked_mask(2 * sphere)
    Traceback (most recent call last):
    verglas.errors.InputError: the mask has values from 0 to 2; expected 0 to 1
    """
    array = np.asarray(values)
    if shape is not None and array.shape != tuple(shape):
        raise InputError(f"{name} has shape {array.shape}, the maps {tuple(shape)} (z, y, x); crop, pad or resample it")
    wrong = int(np.count_nonzero(~np.isfinite(array)))
    if wrong:
        raise InputError(f"{name} holds {wrong} values that are not finite numbers; expected 0 to 1")
    low, high = float(array.min()), float(array.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        hint = _HINTS.get((round(low), round(high)), "")
        raise InputError(f"{name} has values from {low:g} to {high:g}; expected 0 to 1{hint}")
    if not high > 0:
        raise InputError(f"{name} is zero everywhere; expected 1 inside the molecule")
    _refuse_inverted(array, name)
    return np.clip(array, 0, 1).astype(np.float32)


def _refuse_inverted(array: npt.NDArray, name: str) -> None:
    inside = distance_from(array.shape) <= min(array.shape) / 2
    if inside.all():
        return
    # Masks of others may be float16 or int8: their own dtype would overflow in a sum over a volume.
    corners, middle = float(array[~inside].mean(dtype=np.float64)), float(array[inside].mean(dtype=np.float64))
    if corners > _BORDER and corners > middle + _INVERTED:
        raise InputError(
            f"{name} is inverted: its mean is {corners:.2g} in the corners of the box and {middle:.2g} in the ball "
            "between them; expected 1 inside the molecule and 0 outside (1 minus this mask)"
        )
