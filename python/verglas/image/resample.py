"""Other pixel sizes and boxes: Fourier cropping and padding, binning, and a plan that finds a box which fits.

Cropping the transform keeps every frequency that the new grid can hold as it was and drops the others, so nothing folds
back; averaging k x k pixels (binning) multiplies by a sinc and lets what lies above the new Nyquist frequency fold back
(Sorzano, Iriarte, Marabini, Carazo 2009).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.types import Map
from verglas.types.arrays import any_arrays

MapOrArray = TypeVar("MapOrArray", Map, npt.NDArray)

# A pixel size closer than this to the one asked for counts as exact: a millionth of a pixel over a whole box.
_EXACT = 1e-6
# The input may be padded by at most this fraction to make the ratio of pixel sizes fit.
_MAX_PADDING = 0.5


def check_sampling(pixel_size_A: float, resolution_A: float) -> None:
    """Refuse a resolution that a pixel size cannot hold: R must be coarser than 2 T.

    Raises
    ------
    InputError
        ``resolution_A`` <= 2 ``pixel_size_A``.

    Examples
    --------
    >>> from verglas import image
    >>> image.check_sampling(1.5, 3.5)
    """
    if not resolution_A > 2 * pixel_size_A:
        raise InputError(
            f"a pixel size of {pixel_size_A:g} A holds resolutions coarser than {2 * pixel_size_A:g} A only; "
            f"{resolution_A:g} A was asked for"
        )


@any_arrays
def crop_or_pad(values: npt.ArrayLike, new_shape: tuple[int, ...], fill: float | str = 0.0) -> npt.NDArray:
    """Crop or pad real space about the origin, pixel N // 2, which stays the origin.

    Parameters
    ----------
    values : (..., *shape) float
        Images or volumes.
    new_shape : tuple of int
        Their new shape, per axis larger or smaller.
    fill : float or "border"
        Value of new pixels; "border" takes the mean of the outermost pixels of each image, so that no step appears.

    Returns
    -------
    (..., *new_shape) array
        A new array of the same dtype.

    Examples
    --------
    >>> from verglas import image
    >>> image.crop_or_pad([1, 2, 3, 4], (6,)).tolist(), image.crop_or_pad([1, 2, 3, 4], (3,)).tolist()
    ([0, 1, 2, 3, 4, 0], [2, 3, 4])
    """
    array = np.asarray(values)
    ndim = len(new_shape)
    if array.ndim < ndim or min(new_shape) < 1:
        raise InputError(f"crop_or_pad: shape {tuple(new_shape)} does not go with values of shape {array.shape}")
    old = array.shape[-ndim:]
    out = np.empty((*array.shape[:-ndim], *new_shape), array.dtype)
    if any(m > n for m, n in zip(new_shape, old, strict=True)):
        out[...] = _border_mean(array, ndim) if fill == "border" else fill
    take: list[Any] = [Ellipsis]
    put: list[Any] = [Ellipsis]
    for n, m in zip(old, new_shape, strict=True):
        # Not (n - m) // 2: from even to odd sides that is one pixel off, and the origin would not stay at N // 2.
        low = n // 2 - m // 2  # the first new pixel in old coordinates
        first, last = max(low, 0), min(low + m, n)
        take.append(slice(first, last))
        put.append(slice(first - low, last - low))
    out[tuple(put)] = array[tuple(take)]
    return out


def _border_mean(array: npt.NDArray, ndim: int) -> npt.NDArray:
    axes = tuple(range(-ndim, 0))
    total = array.sum(axis=axes, dtype=np.float64, keepdims=True)
    inside: tuple[Any, ...] = (Ellipsis, *(slice(1, -1),) * ndim)
    inner = array[inside]
    count = math.prod(array.shape[-ndim:]) - math.prod(inner.shape[-ndim:])
    return (total - inner.sum(axis=axes, dtype=np.float64, keepdims=True)) / count


@any_arrays
def fourier_resample(values: npt.ArrayLike, new_shape: tuple[int, ...], *, threads: int | None = None) -> npt.NDArray:
    """Resample onto another number of pixels over the same field by cropping or padding the transform.

    Grey values are kept: a constant stays that constant, and so does any wave that both grids can hold.

    Parameters
    ----------
    values : (..., *shape) float
        Images or volumes.
    new_shape : tuple of int
        Their new shape; even or odd, larger or smaller per axis.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (..., *new_shape) float
        float32 for float32 input.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import image
    >>> image.fourier_resample(np.full((6, 6), 2.0), (3, 4)).round(6)[0].tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    array = np.asarray(values)
    ndim = len(new_shape)
    if array.ndim < ndim or ndim == 0:
        raise InputError(f"fourier_resample: shape {tuple(new_shape)} does not go with values of shape {array.shape}")
    shape = array.shape[-ndim:]
    spectra = fourier.resize(fourier.forward(array, ndim, threads=threads), shape, tuple(new_shape))
    # The transforms are unnormalised: the inverse divides by the new number of pixels, and grey values must not change.
    spectra *= spectra.real.dtype.type(math.prod(new_shape) / math.prod(shape))
    return fourier.inverse(spectra, tuple(new_shape), threads=threads)


@any_arrays
def bin_pixels(values: npt.ArrayLike, factor: int, ndim: int = 2) -> npt.NDArray:
    """Average blocks of factor^ndim pixels.

    A wave of f cycles per old pixel is multiplied by sin(pi k f) / (k sin(pi f)), k the factor; what lies above the new
    Nyquist frequency folds back. Prefer :func:`fourier_resample`.

    Parameters
    ----------
    values : (..., *shape) float
        Sides that are not a multiple of the factor lose their last pixels.
    factor : int
        k.
    ndim : int
        How many trailing axes to bin.

    Returns
    -------
    (..., *shape // factor) float
        float32 for float32 input, float64 otherwise; means are taken in float64.

    Examples
    --------
    >>> from verglas import image
    >>> image.bin_pixels([[1.0, 2, 3, 4], [5, 6, 7, 8]], 2).tolist()
    [[3.5, 5.5]]
    """
    array = np.asarray(values)
    if factor < 1 or array.ndim < ndim or min(array.shape[-ndim:]) < factor:
        raise InputError(f"bin_pixels: cannot bin shape {array.shape} by {factor} over {ndim} axes")
    shape: list[int] = list(array.shape[: array.ndim - ndim])
    cut: list[Any] = [Ellipsis]
    for n in array.shape[-ndim:]:
        cut.append(slice(0, n // factor * factor))
        shape += [n // factor, factor]
    blocks = array[tuple(cut)].reshape(shape)
    axes = tuple(array.ndim - ndim + 2 * i + 1 for i in range(ndim))
    dtype = array.dtype if array.dtype == np.float32 else np.float64
    # Mind the centres: block i is centred on old pixel k i + (k - 1) / 2, not on k i.
    return blocks.mean(axis=axes, dtype=np.float64).astype(dtype)


@dataclass(frozen=True)
class ResamplePlan:
    """How to get from one pixel size and box to another: pad to ``work_box``, crop its transform, cut the box.

    Attributes
    ----------
    box : int
        Side of the input.
    work_box : int
        Side to which the input is padded first (or ``box``).
    new_work_box : int
        Side of the resampled, padded field.
    new_box : int
        Side of the result.
    pixel_size_A : float
        Pixel size of the result, as realised: old size * work_box / new_work_box.
    asked_A : float
        Pixel size that was asked for.
    """

    box: int
    work_box: int
    new_work_box: int
    new_box: int
    pixel_size_A: float
    asked_A: float

    @property
    def exact(self) -> bool:
        """Whether the realised pixel size is the one asked for, to a millionth."""
        return abs(self.pixel_size_A / self.asked_A - 1) <= _EXACT


def plan_resample(
    box: int, pixel_size_A: float, new_pixel_size_A: float | None = None, new_box: int | None = None
) -> ResamplePlan:
    """Find the padding that makes a change of pixel size exact, or as near as it gets.

    A transform of W pixels of size p cropped to M has pixels of W p / M: only some ratios exist for each W. The
    smallest W >= box (up to half as much again) that realises the ratio is taken, else the W with the least error.

    Parameters
    ----------
    box : int
        Side of the input.
    pixel_size_A : float
        Its pixel size.
    new_pixel_size_A : float, optional
        The one wanted; without it, the whole field is put into ``new_box`` pixels.
    new_box : int, optional
        Side wanted; by default the even number of pixels nearest to the field of view.

    Returns
    -------
    ResamplePlan

    Raises
    ------
    InputError
        Neither is given, or sizes that are not positive.

    Examples
    --------
    >>> from verglas import image
    >>> plan = image.plan_resample(256, 1.34, 2.0)
    >>> plan.work_box, plan.new_work_box, plan.new_box, plan.exact
    (300, 201, 172, True)
    """
    for name, value in (("pixel size", pixel_size_A), ("new pixel size", new_pixel_size_A), ("new box", new_box)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"resample: expected a positive {name}, got {value}")
    if new_pixel_size_A is None:
        if new_box is None:
            raise InputError("resample: say the new pixel size, the new box, or both")
        realised = pixel_size_A * box / new_box
        return ResamplePlan(box, box, new_box, new_box, realised, realised)
    ratio = pixel_size_A / new_pixel_size_A
    # Even: programs disagree on where the origin of an odd box lies.
    target = new_box if new_box is not None else max(2, 2 * round(box * ratio / 2))

    def error(work: int) -> float:
        return abs(max(1, round(work * ratio)) / (work * ratio) - 1)

    candidates = range(box, box + int(_MAX_PADDING * box) + 2)
    work = next((w for w in candidates if error(w) <= _EXACT), None)
    if work is None:
        work = min(candidates, key=error)
    new_work = max(1, round(work * ratio))
    return ResamplePlan(box, work, new_work, target, pixel_size_A * work / new_work, new_pixel_size_A)


@any_arrays
def resample(
    values: MapOrArray,
    plan: ResamplePlan,
    *,
    ndim: int = 2,
    threads: int | None = None,
) -> MapOrArray:
    """Resample a map, or images, as a plan says; grey values and the origin (pixel N // 2) are kept.

    Grey values are densities per voxel: the projection of a map resampled from p to q is the resampled projection times
    p / q, because a ray then crosses fewer voxels.

    Parameters
    ----------
    values : Map, or (..., N, N) or (..., N, N, N) float
        Cubes or squares of side ``plan.box``.
    plan : ResamplePlan
        From :func:`plan_resample`; its ``pixel_size_A`` is that of the result.
    ndim : int
        For arrays: 2 images (default), 3 volumes.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Map or array
        As the input. A map's ``origin_A`` is moved so that the molecule stays where it was.

    Raises
    ------
    InputError
        The sides are not those of the plan.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> m = vg.Map(np.ones((8, 8, 8), np.float32), 1.5)
    >>> small = vg.image.resample(m, vg.image.plan_resample(m.box, m.pixel_size_A, 3.0))
    >>> small.box, small.pixel_size_A
    (4, 3.0)
    """
    if isinstance(values, Map):
        data = _resample_array(values.data, plan, 3, threads)
        # The centre of the molecule frame, voxel N // 2, keeps its position.
        move = plan.box // 2 * values.pixel_size_A - plan.new_box // 2 * plan.pixel_size_A
        x, y, z = (o + move for o in values.origin_A)
        return replace(values, data=data, pixel_size_A=plan.pixel_size_A, origin_A=(x, y, z))
    return _resample_array(np.asarray(values), plan, ndim, threads)


def _resample_array(array: npt.NDArray, plan: ResamplePlan, ndim: int, threads: int | None) -> npt.NDArray:
    if array.ndim < ndim or set(array.shape[-ndim:]) != {plan.box}:
        raise InputError(f"resample: expected {ndim} sides of {plan.box}, as planned, got shape {array.shape}")
    if plan.work_box != plan.box:
        array = crop_or_pad(array, (plan.work_box,) * ndim, "border")
    if plan.new_work_box != plan.work_box:
        array = fourier_resample(array, (plan.new_work_box,) * ndim, threads=threads)
    if plan.new_box != plan.new_work_box:
        array = crop_or_pad(array, (plan.new_box,) * ndim, "border")
    return array
