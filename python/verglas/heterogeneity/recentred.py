"""Boxes about another point of the particle: images of one part alone need less room, and its poses turn about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.geometry import euler_to_matrix
from verglas.image import with_box
from verglas.types import Map, Particles, Poses
from verglas.types.arrays import Float32Array, FloatArray, IntArray, any_arrays
from verglas.types.convert import ParticlesLike, particles_of
from verglas.types.images import ImageSource

MOVED_X, MOVED_Y = "verglasRecentredX", "verglasRecentredY"  # whole pixels, from the middle of the former box
CENTRES_A = ("verglasRecentredOnXAngst", "verglasRecentredOnYAngst", "verglasRecentredOnZAngst")
FORMER_BOX = "verglasRecentredFromBox"
COLUMNS = (MOVED_X, MOVED_Y, *CENTRES_A, FORMER_BOX)
_SMALLEST = 8
_MAGNIFICATION = "rlnMagMat00"


@dataclass(frozen=True)
class RecentredSource:
    """Boxes cut out of images, about a pixel of each; beyond an image there is the mean of its border.

    Attributes
    ----------
    base : ImageSource
    moved_px : (n, 2) int64
        x, y of the new middle from the middle of the image.
    box : int
        Side of the boxes.
    """

    base: ImageSource
    moved_px: IntArray
    box: int

    def __len__(self) -> int:
        return len(self.base)

    def read(self, rows: IntArray) -> Float32Array:
        """Boxes of these rows."""
        numbers = np.atleast_1d(np.asarray(rows, np.int64))
        images = self.base.read(numbers)
        side = images.shape[1]
        border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
        out = np.empty((len(images), self.box, self.box), np.float32)
        out[:] = border.mean(axis=1)[:, None, None]
        for image, made, (x, y) in zip(images, out, self.moved_px[numbers], strict=True):
            (old_y, new_y), (old_x, new_x) = (_overlap(int(v), side, self.box) for v in (y, x))
            made[new_y, new_x] = image[old_y, old_x]
        return out

    def take(self, rows: IntArray) -> RecentredSource:
        """A subset, still lazy."""
        numbers = np.asarray(rows, np.int64)
        return RecentredSource(self.base.take(numbers), self.moved_px[numbers], self.box)

    def boxes(self) -> IntArray:
        """Of the new images."""
        return np.array([self.box], np.int64)

    def pixel_sizes_A(self) -> FloatArray:
        """Of the images."""
        return self.base.pixel_sizes_A()


def _overlap(moved: int, side: int, box: int) -> tuple[slice, slice]:
    """Pixels of an image in a box along one axis: where they are in the image, and where in the box."""
    first = side // 2 + moved - box // 2
    begin, end = max(0, first), min(side, first + box)
    return slice(begin, max(begin, end)), slice(begin - first, max(begin, end) - first)


def middle_A(mask: Map) -> FloatArray:
    """(3,) x, y, z of a mask's centre of mass, from the middle of the box.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.heterogeneity.recentred import middle_A
    >>> data = np.zeros((16, 16, 16), np.float32); data[8, 8, 11] = 1
    >>> middle_A(vg.Map(data, 2.0)).tolist()
    [6.0, 0.0, 0.0]
    """
    weight = np.clip(np.asarray(mask.data, np.float64), 0, None)
    along = [weight.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in (2, 1, 0)]
    offsets = np.arange(mask.box) - mask.box // 2
    return np.array([line @ offsets for line in along]) / weight.sum() * mask.pixel_size_A


@any_arrays
def recentre_boxes(particles: ParticlesLike, centre_A: npt.ArrayLike, box: int) -> Particles:
    r"""Particles in boxes about a point of the map in place of its middle, still lazy.

    The point c lies at :math:`(R_i c)_{xy} - o_i` from the middle of an image with the origin o. The box is cut about
    the nearest pixel, d pixels from the middle, and the origin becomes :math:`o_i - (R_i c)_{xy} + d\,p`: poses are
    then those of a map whose middle is c. Columns keep d, c and the former box, so that :func:`undo_recentring` finds
    the origins of the whole particle from poses that were refined since. Coordinates in the micrographs stay.

    Parameters
    ----------
    particles : Particles
        With images and poses.
    centre_A : (3,) array
        x, y, z from the middle of the box.
    box : int
        Side of the new boxes.

    Returns
    -------
    Particles

    Raises
    ------
    InputError
        No images or poses, a box larger than the images, images with a magnification matrix, or boxes cut already.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.heterogeneity.recentred import recentre_boxes, undo_recentring
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> p = vg.simulate.particles(model, 5, 32, 5.0, seed=1, listener=None)
    >>> small = recentre_boxes(p, (20.0, 0.0, 10.0), 16)
    >>> small.images().shape, bool(abs(undo_recentring(small).poses.shifts_A - p.poses.shifts_A).max() < 1e-9)
    ((5, 16, 16), True)
    """
    particles = particles_of(particles, "re-centred boxes: particles")
    if particles.source is None or particles.poses is None:
        missing = "images" if particles.source is None else "poses"
        raise InputError(f"{particles.where}: re-centred boxes need {missing}, and these particles have none")
    centre = np.asarray(centre_A, np.float64)
    if centre.shape != (3,) or not np.isfinite(centre).all():
        raise InputError(f"{particles.where}: expected a centre of x, y, z in A, got {np.asarray(centre_A).tolist()}")
    if not _SMALLEST <= box <= particles.box or int(box) != box:
        raise InputError(
            f"{particles.where}: expected boxes of {_SMALLEST} to {particles.box} pixels (the images'), got {box}"
        )
    if MOVED_X in particles.table:
        raise InputError(f"{particles.where}: these boxes are re-centred already; revert the subtraction first")
    optics = particles.optics_table
    if _MAGNIFICATION in particles.table or (optics is not None and _MAGNIFICATION in optics):
        raise InputError(
            f"{particles.where}: images with a magnification matrix ({_MAGNIFICATION}) are not re-centred: the point "
            "would be off in them; extract the particles anew with the magnification corrected"
        )
    box, pixel, poses = int(box), particles.pixel_size_A, particles.poses
    place_A, moved = _places(particles, centre)
    outside = boxes_outside(particles, centre, box)
    if outside.any():
        raise InputError(
            f"{particles.where}: {outside.sum()} boxes about {centre.tolist()} A lie outside their images "
            f"(particle {int(outside.argmax())} first); check where the middle is, or leave these particles out"
        )
    source = RecentredSource(particles.source, moved, box)
    columns = {MOVED_X: moved[:, 0], MOVED_Y: moved[:, 1], FORMER_BOX: particles.box}
    columns |= dict(zip(CENTRES_A, centre.tolist(), strict=True))
    made = with_box(particles, box, source).with_columns(**columns)
    return made.with_poses(Poses(poses.angles_deg, moved * pixel - place_A))


def boxes_outside(particles: Particles, centre_A: npt.ArrayLike, box: int) -> npt.NDArray[np.bool_]:
    """(n,) whether a box about a point of the map has no pixel of its image.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.heterogeneity.recentred import boxes_outside
    >>> p = vg.simulate.particles(vg.simulate.phantom(32, 5.0, 110.0), 2, 32, 5.0, seed=1, listener=None)
    >>> boxes_outside(p, (20.0, 0.0, 10.0), 16).tolist(), boxes_outside(p, (9e4, 0.0, 0.0), 16).tolist()
    ([False, False], [True, True])
    """
    first = particles.box // 2 + _places(particles, np.asarray(centre_A, np.float64))[1] - box // 2
    return np.asarray(((first + box <= 0) | (first >= particles.box)).any(axis=1))


def _places(particles: Particles, centre_A: FloatArray) -> tuple[FloatArray, IntArray]:
    """Where a point of the map lies in every image: A, and whole pixels, from the middle."""
    poses = particles.poses
    assert poses is not None
    place_A = (euler_to_matrix(poses.angles_deg) @ centre_A)[:, :2] - poses.shifts_A
    return place_A, np.rint(place_A / particles.pixel_size_A).astype(np.int64)


def undo_recentring(particles: ParticlesLike) -> Particles:
    """Particles with the origins of the whole at their present poses, without images.

    Raises
    ------
    InputError
        Boxes that were not re-centred, or no poses.
    """
    particles = particles_of(particles, "re-centred boxes: particles")
    if any(name not in particles.table for name in COLUMNS) or particles.poses is None:
        raise InputError(f"{particles.where}: these boxes were not re-centred by verglas (no {MOVED_X} or no poses)")
    table, poses = particles.table, particles.poses
    centre = table[list(CENTRES_A)].to_numpy(np.float64)
    moved = table[[MOVED_X, MOVED_Y]].to_numpy(np.float64)
    place_A = np.einsum("nij,nj->ni", euler_to_matrix(poses.angles_deg), centre)[:, :2]
    pixel, former = particles.pixel_size_A, int(table[FORMER_BOX].iloc[0])
    whole = with_box(particles, former, None).with_columns(**dict.fromkeys(COLUMNS))
    return whole.with_poses(Poses(poses.angles_deg, poses.shifts_A + place_A - moved * pixel))
