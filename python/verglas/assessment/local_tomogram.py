"""Resolution at every voxel of a tomogram of any shape, from its odd and even halves (MonoTomo)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.fsc import fsc
from verglas.assessment.local_bands import Band, Windowed, crop_transform
from verglas.assessment.local_resolution import (
    LocalResolution,
    LocalResolutionSettings,
    from_bands,
    plan_bands,
    refuse_useless_halves,
)
from verglas.assessment.local_scan import MonogenicValues, scan_bands
from verglas.errors import InputError
from verglas.masks import checked_mask
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import MapLike, map_of, values_of
from verglas.types.settings import settings_from

_TILE = 128  # voxels of a side, at most
_MARGIN = 1.0  # of a tile, in radii of the window: where a tile's transform wraps round
# Halves rise from 0 at a face over two radii of the window, a quarter of the volume at most: a volume that ends there,
# or goes on mirrored, holds finer waves than it was resolved to, which reach through the filters far into it.
_RISE, _MOST_RISE = 2.0, 0.25
_LEAST_WEIGHT = 0.01  # of a window's voxels, below which nothing is divided by


@dataclass(frozen=True)
class _Tile:
    """A cube of a volume: which voxels it takes, and with which weight; ``inner`` is the part of it that counts.

    Beyond the volume's faces it goes on mirrored, with a weight of 0.
    """

    where: tuple[slice, ...]
    inner: tuple[slice, ...]
    index: tuple[npt.NDArray[np.int64], ...]
    weight: Float32Array


class _WeightedValues(MonogenicValues):
    """Monogenic amplitudes of halves that were multiplied by a weight, which windows make up for."""

    window_share = 0.75  # as the figures of the guide were measured

    def __init__(self, weight: Float32Array, *of: Any) -> None:
        super().__init__(*of)
        self.weight2 = fourier.forward(weight**2, 3, threads=self.threads)

    def averages(self, band: Band, windowed: Windowed) -> list[Float32Array]:
        """Over the weight that each window has."""
        shape = (windowed.coarse,) * 3
        part = crop_transform(self.weight2, self.box, windowed.coarse) * windowed.transform
        weight = fourier.inverse(part, shape, threads=self.threads) * (windowed.coarse / self.box) ** 3
        known = np.maximum(weight, _LEAST_WEIGHT).astype(np.float32)
        return [average / known for average in super().averages(band, windowed)]


@any_arrays
def local_resolution_of_tomogram(
    half1: MapLike,
    half2: MapLike,
    mask: MapLike | npt.ArrayLike | None = None,
    settings: LocalResolutionSettings | None = None,
    *,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> LocalResolution:
    """Resolution at every voxel of a tomogram, from halves of its tilt images (odd and even) or of its frames.

    By monogenic amplitudes as of :func:`verglas.local_resolution`, on overlapping cubes: a tomogram need not be a cube,
    its noise differs from place to place, and each cube has its own quantile of noise. The missing wedge holds neither
    signal nor noise and counts for nothing. At the volume's faces the halves rise from 0, over a quarter of its depth
    at most, and the power under a window is divided by the weight it has there: a volume that ends, or goes on
    mirrored, holds finer waves than it was resolved to.

    Parameters
    ----------
    half1, half2 : Map or path
        Of one shape and pixel size, unfiltered.
    mask : Map, path or array, optional
        What quantiles count; everything if not given. The noise of a cube is that of all its voxels in either case.
    settings : LocalResolutionSettings, optional
        Further keywords (``window_radius_A=60``) change its fields; ``method`` counts for nothing here.
    threads : int, optional
        Threads; the result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    LocalResolution
        ``global_A`` is that of the cube in the middle; thresholds are means over the cubes.

    Raises
    ------
    InputError
        Halves that do not go together or are one; a window that a cube cannot hold.

    References
    ----------
    Vilas et al., J. Struct. Biol. 212 (2020) 107651 (MonoTomo).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import local_resolution_of_tomogram
    >>> x, *noises = np.random.default_rng(0).normal(size=(3, 48, 48, 48)).astype(np.float32)
    >>> coarse = vg.filters.apply(vg.Map(x, 10.0), vg.filters.low_pass(40.0)).data
    >>> halves = [vg.Map((coarse + 0.5 * n)[:30], 10.0) for n in noises]
    >>> made = local_resolution_of_tomogram(*halves, listener=None)
    >>> made.map.data.shape, bool(28 < np.median(made.map.data) < 48)
    ((30, 48, 48), True)
    """
    chosen = settings_from("local_resolution", LocalResolutionSettings, settings, **changes)
    first, second = map_of(half1, "local_resolution: half1"), map_of(half2, "local_resolution: half2")
    _check_halves(first, second)
    envelope = np.ones(first.data.shape, np.float32)
    if mask is not None:
        where = "local_resolution: the mask"
        envelope = checked_mask(values_of(mask, where), first.data.shape, where)
    side = min(_TILE, fourier.fast_size(max(first.data.shape), even=True))
    middle = _middle(first.data.shape, side)
    cubes = [Map(np.ascontiguousarray(half.data[middle.index]), first.pixel_size_A) for half in (first, second)]
    global_A = fsc(cubes[0], cubes[1], middle.weight, threads=threads).resolution_A(0.143)
    plan = plan_bands(cubes[0], global_A, chosen, MonogenicValues.window_waves)
    margin = int(np.ceil(_MARGIN * plan.window_A / first.pixel_size_A))
    if 2 * margin >= side:
        raise InputError(
            f"local_resolution: a window of radius {plan.window_A:.3g} A is too large for cubes of {side} voxels"
        )
    tiles = list(_tiles(first.data.shape, side, margin, _RISE * plan.window_A / first.pixel_size_A))
    frequency, levels = np.empty(first.data.shape, np.float32), []
    with shown_to(listener) as heard:
        for number, tile in enumerate(tiles):
            heard.progress("cubes", number, len(tiles))
            spectra = [fourier.forward(h.data[tile.index] * tile.weight, 3, threads=threads) for h in (first, second)]
            values = _WeightedValues(tile.weight, spectra, side, tile.weight > 0, chosen, threads)
            band_frequency, thresholds = scan_bands(values, plan.bands, side, lambda *_: None, threads)
            frequency[tile.where] = band_frequency[tile.inner]
            levels.append(thresholds)
        heard.progress("cubes", len(tiles), len(tiles))
    resolution = first.with_data(np.float32(side * first.pixel_size_A) / frequency)
    levels_mean = np.mean(levels, axis=0)
    return from_bands(plan, resolution, first.with_data(envelope), levels_mean, "tomogram")


def _check_halves(first: Map, second: Map) -> None:
    if first.data.ndim != 3 or first.data.shape != second.data.shape:
        raise InputError(
            f"local_resolution: expected two volumes of one shape, got {first.data.shape} and {second.data.shape}"
        )
    if abs(first.pixel_size_A - second.pixel_size_A) > 1e-3 * first.pixel_size_A:
        raise InputError(
            f"local_resolution: the halves have voxels of {first.pixel_size_A:g} and {second.pixel_size_A:g} A"
        )
    refuse_useless_halves(first, second, "half", "an image")


def _tiles(shape: tuple[int, ...], side: int, margin: int, rise: float) -> Iterator[_Tile]:
    """Cubes whose inner parts cover a volume once; weights rise over ``margin`` at their sides, ``rise`` at faces."""
    step = side - 2 * margin
    for starts in itertools.product(*(range(0, n, step) for n in shape)):
        ends = [min(start + step, n) for start, n in zip(starts, shape, strict=True)]
        where = tuple(slice(a, b) for a, b in zip(starts, ends, strict=True))
        inner = tuple(slice(margin, margin + b - a) for a, b in zip(starts, ends, strict=True))
        begins = [start - margin for start in starts]
        index = np.ix_(*(_mirror_indices(begin, side, n) for begin, n in zip(begins, shape, strict=True)))
        yield _Tile(where, inner, index, _weight(begins, side, shape, margin, rise))


def _middle(shape: tuple[int, ...], side: int) -> _Tile:
    begins = [(n - side) // 2 for n in shape]
    index = np.ix_(*(_mirror_indices(begin, side, n) for begin, n in zip(begins, shape, strict=True)))
    return _Tile((), (), index, _weight(begins, side, shape, 0, _MOST_RISE * side))


def _weight(begins: list[int], side: int, shape: tuple[int, ...], margin: int, rise: float) -> Float32Array:
    z, y, x = (_axis_weight(begin, side, n, margin, rise) for begin, n in zip(begins, shape, strict=True))
    return (z[:, None, None] * y[:, None] * x).astype(np.float32)


def _axis_weight(begin: int, side: int, n: int, margin: int, rise: float) -> FloatArray:
    """0 beyond the faces of an axis of n voxels, 1 far from them and from the sides of a cube that begins somewhere."""
    place = np.arange(side) + 0.5
    to_side = np.minimum(place, side - place)
    to_face = np.minimum(place + begin, n - begin - place)
    rises = [(to_face, max(min(rise, _MOST_RISE * n), 0.5)), (to_side, max(margin, 0.5))]
    weights = [np.sin(0.5 * np.pi * np.clip(distance / over, 0, 1)) ** 2 for distance, over in rises]
    return np.asarray(weights[0] * weights[1])


def _mirror_indices(start: int, count: int, n: int) -> npt.NDArray[np.int64]:
    """Indices of an axis that goes on mirrored beyond its ends."""
    place = np.arange(start, start + count)
    if n == 1:
        return np.zeros(count, np.int64)
    period = 2 * n - 2
    place = np.abs(place) % period
    return np.asarray(np.where(place < n, place, period - place), np.int64)
