"""Moving and turning images and volumes with one interpolation, however many transforms are composed.

Coordinates are in pixels from the origin (pixel N // 2), in the order x, y (, z); a positive angle turns +x towards +y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import fourier
from verglas.errors import InputError
from verglas.types.arrays import any_arrays

# Spline order of each way to interpolate; "fourier" is a quintic spline on Fourier-padded data.
_ORDER = {"nearest": 0, "linear": 1, "cubic": 3, "quintic": 5, "fourier": 5}
# Oversampling o of "fourier", by dimension. A quintic spline errs by about (f / (o - f))^6 of a wave of f cycles per
# pixel: at the edge of the band (f = 1/2) 1e-5 for o = 4, 1e-3 for o = 2, which volumes take to spare memory.
_OVERSAMPLING = {2: 4, 3: 2}


def _order(method: str) -> int:
    if method not in _ORDER:
        raise InputError(f"interpolation {method!r}: expected one of {', '.join(_ORDER)}")
    return _ORDER[method]


@dataclass(frozen=True)
class Affine:
    """The map r -> A r + t of positions relative to the origin; ``@`` composes, so that one interpolation does all.

    Attributes
    ----------
    matrix : (d, d) float64
        A, acting on (x, y) or (x, y, z).
    offset : (d,) float64
        t in pixels.

    Examples
    --------
    >>> from verglas.image import Affine
    >>> both = Affine.translation([1, 0]) @ Affine.rotation(90)  # first turn, then move
    >>> both([1, 0]).round(6).tolist()
    [1.0, 1.0]
    """

    matrix: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check the shapes once."""
        matrix, offset = np.asarray(self.matrix, np.float64), np.asarray(self.offset, np.float64)
        if matrix.shape not in ((2, 2), (3, 3)) or offset.shape != matrix.shape[:1]:
            raise InputError(
                f"Affine: expected (2, 2) and (2,), or (3, 3) and (3,), got {matrix.shape}, {offset.shape}"
            )
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "offset", offset)

    @classmethod
    def rotation(cls, angle_deg: float) -> Affine:
        """Turn the plane by an angle from +x towards +y."""
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        return cls.linear([[c, -s], [s, c]])

    @classmethod
    def linear(cls, matrix: npt.ArrayLike) -> Affine:
        """A matrix about the origin, e.g. a rotation of space."""
        array = np.asarray(matrix, np.float64)
        return cls(array, np.zeros(len(array)))

    @classmethod
    def translation(cls, offset_px: npt.ArrayLike) -> Affine:
        """Move by x, y (, z) pixels."""
        array = np.asarray(offset_px, np.float64)
        return cls(np.eye(len(array)), array)

    def __matmul__(self, first: Affine) -> Affine:
        """``(b @ a)(r) = b(a(r))``."""
        return Affine(self.matrix @ first.matrix, self.matrix @ first.offset + self.offset)

    def __call__(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (..., d) after the transform."""
        return np.asarray(points, np.float64) @ self.matrix.T + self.offset

    def inverse(self) -> Affine:
        """The transform that undoes this one."""
        back = np.linalg.inv(self.matrix).astype(np.float64)
        return Affine(back, -back @ self.offset)


@any_arrays
def interpolate(
    values: npt.ArrayLike, points_px: npt.ArrayLike, method: str = "cubic", *, mode: str = "mirror"
) -> npt.NDArray[np.float64]:
    """Values of an image or volume at any positions, by B-spline interpolation.

    A spline of degree d passes through the pixels and reproduces polynomials of degree d (away from the border, which
    reaches in by a few pixels for degrees above 1).

    Parameters
    ----------
    values : (y, x) or (z, y, x) float
        The samples.
    points_px : (..., d) float
        Positions x, y (, z) in pixels from the origin, pixel N // 2.
    method : {"nearest", "linear", "cubic", "quintic"}
        Degree 0, 1, 3 or 5.
    mode : str
        What lies beyond the border: "mirror", "grid-wrap", "constant" (0), as in scipy.ndimage.

    Returns
    -------
    (...) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import image
    >>> plane = np.add.outer(2.0 * np.arange(6), np.arange(6))  # 2 y + x, the origin at (3, 3)
    >>> image.interpolate(plane, [[0.0, 0.0], [0.5, -1.25]], "linear").tolist()
    [9.0, 7.0]
    """
    array = np.asarray(values, np.float64)
    points = np.asarray(points_px, np.float64)
    if points.shape[-1] != array.ndim:
        raise InputError(f"interpolate: expected {array.ndim} coordinates per point, got shape {points.shape}")
    if method == "fourier":
        raise InputError("interpolate: 'fourier' is for warp, on whole images")
    origin = [n // 2 for n in array.shape]
    # Points are x, y (, z) from the origin; map_coordinates wants indices, slowest axis first.
    coordinates = [points[..., array.ndim - 1 - axis] + o for axis, o in enumerate(origin)]
    return ndimage.map_coordinates(array, coordinates, order=_order(method), mode=mode)


@any_arrays
def warp(
    image: npt.ArrayLike, transform: Affine, method: str = "cubic", *, mode: str = "constant"
) -> npt.NDArray[np.float32]:
    """Transform an image or volume with a single interpolation: out(r) = in(A^-1 (r - t)).

    Compose transforms with ``@`` first. Each interpolation attenuates high frequencies: linear most, cubic and quintic
    splines less, "fourier" (the data Fourier-padded, then quintic) nearly not at all.

    Parameters
    ----------
    image : (y, x) or (z, y, x) float
        Sides may differ.
    transform : Affine
        Where each point of the content goes.
    method : {"nearest", "linear", "cubic", "quintic", "fourier"}
        How to interpolate.
    mode : {"constant", "grid-wrap"}
        Zeros from outside the image, or its periodic copies.

    Returns
    -------
    same shape, float32

    Raises
    ------
    InputError
        Dimensions that do not agree, or an unknown method.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.image import Affine, warp
    >>> x = np.zeros((5, 5)); x[2, 3] = 1  # at (1, 0); a quarter turn brings it to (0, 1)
    >>> np.argwhere(warp(x, Affine.rotation(90), "linear") > 0.5).tolist()
    [[3, 2]]
    """
    array = np.asarray(image, np.float32)
    if array.ndim != len(transform.offset):
        raise InputError(f"warp: a transform of {len(transform.offset)} axes on an array of shape {array.shape}")
    order, shape = _order(method), array.shape
    source, factor = array, 1
    if method == "fourier":
        factor = _OVERSAMPLING[array.ndim]
        fine = tuple(factor * n for n in shape)
        spectrum = fourier.resize(fourier.forward(array, array.ndim), shape, fine)
        source = fourier.inverse(spectrum, fine) * np.float32(factor**array.ndim)
    back = transform.inverse()
    matrix = factor * back.matrix[::-1, ::-1]  # array order: slowest axis first
    start = np.array([n // 2 for n in source.shape]) + factor * back.offset[::-1]
    offset = start - matrix @ np.array([n // 2 for n in shape])
    # scipy's "constant" does not interpolate across the border: a shift of half a pixel would lose the last row.
    padded = "grid-constant" if mode == "constant" else mode
    return ndimage.affine_transform(source, matrix, offset, shape, np.float32, order, padded)


@any_arrays
def rotate(
    image: npt.ArrayLike, angle_deg: float, shift_px: npt.ArrayLike = (0.0, 0.0), method: str = "cubic"
) -> npt.NDArray[np.float32]:
    """Turn an image about pixel N // 2 from +x towards +y, then move it by a shift, in one interpolation.

    Parameters
    ----------
    image : (y, x) float
    angle_deg : float
    shift_px : (2,) float
        x, y in pixels.
    method : str
        As in :func:`warp`.

    Returns
    -------
    (y, x) float32

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import image
    >>> x = np.zeros((5, 5)); x[2, 3] = 1
    >>> np.argwhere(image.rotate(x, 90, (1, 0)) > 0.5).tolist()
    [[3, 3]]
    """
    return warp(image, Affine.translation(shift_px) @ Affine.rotation(angle_deg), method)


@any_arrays
def shift(
    images: npt.ArrayLike, shifts_px: npt.ArrayLike, method: str = "fourier", *, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Move images or volumes by sub-pixel shifts, periodically.

    "fourier" multiplies the transform by a phase and is exact for what the grid can hold. "linear" averages neighbours:
    the shift (1/2, 1/2) multiplies a wave of (u, v) cycles per pixel by cos(pi u) cos(pi v), so the loss grows with
    resolution.

    Parameters
    ----------
    images : (n, y, x) or (n, z, y, x) float; or one image, with one shift
        The content.
    shifts_px : (n, d) or (d,) float
        x, y (, z) in pixels; the content moves by +s.
    method : {"fourier", "linear"}
        By phase, or bilinear.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    same shape, float32

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import image
    >>> x = np.zeros((1, 4, 4)); x[0, 2, 2] = 1
    >>> image.shift(x, [[0.5, 0.0]], "linear")[0, 2].tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    array, shifts = np.asarray(images, np.float32), np.asarray(shifts_px, np.float64)
    ndim = shifts.shape[-1] if shifts.ndim else 0
    if ndim not in (2, 3) or array.shape[:-ndim] != shifts.shape[:-1]:
        raise InputError(f"shift: {shifts.shape} shifts do not go with images of shape {array.shape}")
    shape = array.shape[-ndim:]
    if method == "fourier":
        spectra = fourier.forward(array, ndim, threads=threads)
        spectra *= fourier.shift_phases(shape, shifts)
        return fourier.inverse(spectra, shape, threads=threads)
    if method != "linear":
        raise InputError(f"shift: method {method!r}; expected 'fourier' or 'linear'")
    stack, rows = array.reshape(-1, *shape), shifts.reshape(-1, ndim)
    out = np.empty_like(stack)
    for i, (one, s) in enumerate(zip(stack, rows, strict=True)):
        out[i] = _shift_linear(one, s[::-1])
    return out.reshape(array.shape)


def _shift_linear(image: npt.NDArray, steps: npt.NDArray) -> npt.NDArray:
    """Periodic (bi-, tri-)linear shift, one axis after the other: the interpolation is separable."""
    for axis, s in enumerate(steps):
        whole = int(np.floor(s))
        part = np.float32(s - whole)
        near = np.roll(image, whole, axis)
        image = near if part == 0 else (1 - part) * near + part * np.roll(near, 1, axis)
    return image
