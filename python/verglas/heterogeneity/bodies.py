"""Bodies of a particle: masks that cut a map into rigid parts, each turned about its own centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verglas import fourier, gridding, ops
from verglas.errors import InputError
from verglas.masks import checked_mask
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.display import one_line
from verglas.types.verdict import Finding

_SAME_PIXEL = 0.01
_EMPTY = 0.3  # root mean square of the map inside a mask, on that of the whole box, below which nothing is there
_SAID, _MOST_SHARED = 0.05, 0.5  # of the smaller of two masks
_LEFT_OUT = 0.1  # of the map's power outside all bodies


@one_line
@dataclass(frozen=True, eq=False)
class Body:
    r"""A rigid part.

    Attributes
    ----------
    number : int
        From 1, in the order of the masks.
    mask : (N, N, N) float32
        Where it is; the masks of all bodies add up to 1 at most.
    centre_px : (3,) int64
        x, y, z of the voxel nearest to the mask's centre of mass, counted from N // 2: what it turns about.
    diameter_px : float
        Of the sphere about the centre that holds the mask.
    inertia_px2 : (3, 3) float64
        Mean of :math:`|r|^2 I - r r^T` over the mask, r from the centre: a small turn w moves its voxels by
        :math:`\sqrt{w^T M w}`, root mean square.
    share : float
        Of the volume of all bodies.
    """

    number: int
    mask: Float32Array
    centre_px: FloatArray
    diameter_px: float
    inertia_px2: FloatArray
    share: float

    def move_to_centre(self, volume: Float32Array) -> Float32Array:
        """A volume moved by whole voxels, so that the body's centre is the box's."""
        x, y, z = (-int(c) for c in self.centre_px)
        return np.roll(volume, (z, y, x), (0, 1, 2))

    def in_place(self, volume: Float32Array) -> Float32Array:
        """Back again."""
        x, y, z = (int(c) for c in self.centre_px)
        return np.roll(volume, (z, y, x), (0, 1, 2))

    def origins_px(self, origin_px: FloatArray, matrices: FloatArray) -> FloatArray:
        """(n, 2) shifts that bring the body's centre to the image's, from those of the whole particle."""
        return np.asarray(origin_px - (matrices @ self.centre_px)[:, :2])

    def whole_origins_px(self, origin_px: FloatArray, matrices: FloatArray) -> FloatArray:
        """(n, 2) shifts of the whole particle at which the body lies where these have it."""
        return np.asarray(origin_px + (matrices @ self.centre_px)[:, :2])


def make_bodies(map: Map, masks: Sequence[Map]) -> tuple[list[Body], list[Finding]]:
    """Bodies from masks, and what a reader should know of them.

    Where masks overlap, each body has its share: every mask is divided by the sum, where that is above 1.

    Parameters
    ----------
    map : Map
        Of the whole particle.
    masks : sequence of Map
        Two or more, on the same grid; 1 inside, 0 outside, soft between.

    Raises
    ------
    InputError
        One mask; another grid; a mask where the map is empty; two masks that are one.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.heterogeneity.bodies import make_bodies
    >>> data = np.zeros((16, 16, 16), np.float32); data[6:10, 6:10, 2:14] = 1
    >>> left, right = data.copy(), data.copy()
    >>> left[:, :, 8:] = 0; right[:, :, :8] = 0
    >>> [b.centre_px.tolist() for b in make_bodies(vg.Map(data, 2.0), [vg.Map(left, 2.0), vg.Map(right, 2.0)])[0]]
    [[-4, 0, 0], [2, 0, 0]]
    """
    if len(masks) < 2:
        raise InputError(
            f"multibody: {len(masks)} mask; two or more bodies are moved against each other (a single part is refined "
            "by verglas refine --poses local --mask)"
        )
    values = []
    for number, mask in enumerate(masks, 1):
        if mask.box != map.box or abs(mask.pixel_size_A / map.pixel_size_A - 1) > _SAME_PIXEL:
            raise InputError(
                f"multibody: mask {number} has {mask.box} px of {mask.pixel_size_A:g} A, the map {map.box} px of "
                f"{map.pixel_size_A:g} A; resample it first (verglas resample)"
            )
        values.append(checked_mask(mask.data, name=f"multibody: mask {number}"))
    _refuse_empty(map, values)
    notes = _overlaps(values) + _left_out(map, values)
    total = np.maximum(np.sum(values, axis=0), 1)
    shares = [value / total for value in values]
    volume = float(sum(share.sum(dtype=np.float64) for share in shares))
    return [_body(number, share, volume) for number, share in enumerate(shares, 1)], notes


def _body(number: int, mask: Float32Array, volume: float) -> Body:
    half = len(mask) // 2
    at = np.argwhere(mask > 0)[:, ::-1] - half  # x, y, z
    weight = mask[mask > 0].astype(np.float64)
    centre = np.rint(weight @ at / weight.sum()).astype(np.int64)
    r = at - centre
    square = np.einsum("i,ij,ik->jk", weight, r, r) / weight.sum()
    reach = float(np.sqrt(np.square(r[weight > 0.5 * weight.max()]).sum(axis=1).max()))
    inertia = np.trace(square) * np.eye(3) - square
    return Body(number, mask, centre, 2 * reach + 1, inertia, float(weight.sum()) / volume)


def _refuse_empty(map: Map, masks: list[Float32Array]) -> None:
    whole = np.sqrt(np.mean(np.square(map.data, dtype=np.float64)))
    if not whole > 0:
        raise InputError("multibody: the map is empty (all zero)")
    for number, mask in enumerate(masks, 1):
        inside = np.sqrt(np.average(np.square(map.data, dtype=np.float64), weights=mask))
        if inside < _EMPTY * whole:
            raise InputError(
                f"multibody: mask {number} lies where the map is empty (root mean square {inside:.3g} inside it, "
                f"{whole:.3g} in the box); masks and map must have one origin"
            )


def _overlaps(masks: list[Float32Array]) -> list[Finding]:
    notes = []
    for q in range(len(masks)):
        for p in range(q):
            least = min(float(masks[p].sum()), float(masks[q].sum()))
            shared = float(np.minimum(masks[p], masks[q]).sum()) / least
            pair = f"masks {p + 1} and {q + 1} share {100 * shared:.0f} % of the smaller one"
            if shared > _MOST_SHARED:
                raise InputError(f"multibody: {pair}: they are no two bodies; cut them apart")
            if shared > _SAID:
                sentence = f"{pair}: there each body has its share of the density"
                notes.append(Finding("overlap", "warn", sentence, {"shared": round(shared, 4)}))
    return notes


def _left_out(map: Map, masks: list[Float32Array]) -> list[Finding]:
    power = np.square(map.data, dtype=np.float64)
    left = float((power * (1 - np.clip(np.sum(masks, axis=0), 0, 1)) ** 2).sum() / power.sum())
    if left < _LEFT_OUT:
        return []
    sentence = (
        f"{100 * left:.0f} % of the map's power lies outside all bodies and stays in the images; a body for the rest "
        "keeps it out"
    )
    return [Finding("left_out", "warn", sentence, {"share": round(left, 4)})]


def move_map(
    volume: Float32Array, matrix: FloatArray, shift_px: FloatArray, *, threads: int | None = None
) -> Float32Array:
    """A map turned about its centre, then moved.

    Parameters
    ----------
    volume : (N, N, N) float32
    matrix : (3, 3) float64
        What was at r (x, y, z from N // 2) is at A r + shift afterwards.
    shift_px : (3,) float64
        x, y, z.
    threads : int, optional

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.bodies import move_map
    >>> volume = np.zeros((16, 16, 16), np.float32); volume[8, 8, 10] = 1  # on +x
    >>> quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])  # x to y
    >>> [int(i) for i in np.unravel_index(move_map(volume, quarter, np.array([0, 0, 3.0])).argmax(), volume.shape)]
    [11, 10, 8]
    """
    box = len(volume)
    grid = ops.Grid(box)
    spectrum = ops.rotate(gridding.to_grid(volume, grid, threads=threads), grid, matrix, threads=threads)
    spectrum *= fourier.shift_phases((box,) * 3, np.asarray(shift_px, np.float64))
    return np.asarray(fourier.inverse(spectrum, (box,) * 3, threads=threads), np.float32)
