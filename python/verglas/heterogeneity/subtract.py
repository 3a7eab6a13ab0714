"""Signal subtraction: what lies outside a mask is taken out of the images, by the model that made the map."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError, VerglasWarning
from verglas.masks import checked_mask
from verglas.optics import common_size, for_job
from verglas.optics.stored import Change, stored_images, to_stored
from verglas.reconstruction import project
from verglas.types import Map, Particles, Poses
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of
from verglas.types.images import GridSource, ImageSource

SCALE = "verglasSubtractionScale"
_SAME_PIXEL = 0.01
LEAST_SCALE, MOST_SCALE = 0.2, 3.0


@dataclass(frozen=True)
class SubtractedSource:
    r"""Images less the projections of part of a map, made when they are read.

    .. math:: X'_i = X_i - a_i C_i P_i [(1 - M) V]

    Attributes
    ----------
    base : ImageSource
        Of the images.
    particles : Particles
        Poses and optics, row for row those of the source.
    removed : Map
        (1 - M) V.
    scale : (n,) float64
        a.
    sign : int
        -1 takes away, 1 puts back.
    threads : int, optional
    to_stored : callable, optional
        ``to_stored(projections, rows)``: projections in the state of the images, where these carry odd aberrations, a
        magnification, or were flipped or multiplied by their CTF.
    numbers : (n,) int64, optional
        The row for ``to_stored`` of each image of a subset.
    """

    base: ImageSource
    particles: Particles
    removed: Map
    scale: FloatArray
    sign: int = -1
    threads: int | None = None
    to_stored: Change | None = None
    numbers: IntArray | None = None

    def __len__(self) -> int:
        return len(self.base)

    def read(self, rows: IntArray) -> Float32Array:
        """Images of these rows, subtracted."""
        images = self.base.read(rows)
        return (images + self.sign * self.projections(rows)).astype(np.float32)

    def projections(self, rows: IntArray) -> Float32Array:
        """(m, N, N) what is taken away of these rows."""
        numbers = np.atleast_1d(np.asarray(rows, np.int64))
        poses = self.particles.poses
        assert poses is not None
        clean = project(
            self.removed,
            Poses(poses.angles_deg[numbers], poses.shifts_A[numbers]),
            self.particles.optics[numbers],
            threads=self.threads,
        )
        scaled = np.asarray(clean * self.scale[numbers, None, None], np.float32)
        if self.to_stored is None:
            return scaled
        return self.to_stored(scaled, numbers if self.numbers is None else self.numbers[numbers])

    def take(self, rows: IntArray) -> SubtractedSource:
        """A subset, still lazy."""
        numbers = np.asarray(rows, np.int64)
        return SubtractedSource(
            self.base.take(numbers),
            self.particles[numbers],
            self.removed,
            self.scale[numbers],
            self.sign,
            self.threads,
            self.to_stored,
            numbers if self.numbers is None else self.numbers[numbers],
        )

    def boxes(self) -> IntArray:
        """Of the images."""
        return self.base.boxes()

    def pixel_sizes_A(self) -> FloatArray:
        """Of the images."""
        return self.base.pixel_sizes_A()


def subtract(
    particles: ParticlesLike, map: MapLike, mask: MapLike, *, fit_scale: bool = True, threads: int | None = None
) -> Particles:
    r"""Particles less the projections of what a map holds outside a mask.

    Poses, CTF parameters and all other columns stay as they are; the images are made when they are read. Images with
    odd aberrations or a magnification, or flipped or multiplied by their CTF, are so afterwards, too; those of several
    boxes or pixel sizes are brought to one grid, and stay there. The scale
    :math:`a_i` of each particle is that of least squares against the whole map,
    :math:`a_i = \langle X_i, C_i P_i V \rangle / \| C_i P_i V \|^2`, kept between 0.2 and 3.

    Parameters
    ----------
    particles : Particles
        With images, poses and CTFs.
    map : Map
        On the images' grey scale (``vg.reconstruct``, ``vg.refine``), same box and pixel size.
    mask : Map
        1 where the signal stays, 0 where it is taken away.
    fit_scale : bool
        Estimate a scale per particle; 1 without.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Particles
        Subtracted, with their scales in the column ``verglasSubtractionScale``.

    Raises
    ------
    InputError
        No poses or images, a map or mask that does not fit.

    References
    ----------
    Bai et al. (2015) eLife 4, e11182.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> p = vg.simulate.particles(model, 10, 32, 5.0, seed=1, listener=None)
    >>> volume = vg.simulate.density(model, 32, 5.0)
    >>> empty = vg.Map(np.zeros((32, 32, 32), np.float32), 5.0)
    >>> left = vg.subtract(p, volume, empty)
    >>> SCALE = "verglasSubtractionScale"
    >>> bool(left.images().std() < 0.2 * p.images().std()), bool(abs(left.table[SCALE] - 1).max() < 0.01)
    (True, True)
    """
    particles = particles_of(particles, "subtract: particles")
    map, mask = map_of(map, "subtract: the map"), map_of(mask, "subtract: the mask")
    if particles.source is None:
        raise InputError(f"{particles.where}: these particles have no images")
    if particles.poses is None:
        raise InputError(f"{particles.where}: subtract needs poses and these particles have none; refine them first")
    stored = stored_images(particles)
    box, pixel_size_A = common_size(stored)
    for name, value in (("map", map), ("mask", mask)):
        if value.box != box or abs(value.pixel_size_A / pixel_size_A - 1) > _SAME_PIXEL:
            raise InputError(
                f"subtract: the {name} has {value.box} px of {value.pixel_size_A:g} A, the particles "
                f"{box} px of {pixel_size_A:g} A; resample it first (verglas resample)"
            )
    if not np.isfinite(map.data).all() or not np.ptp(map.data):
        raise InputError("subtract: the map is constant or holds values that are not finite; expected a density")
    work = for_job(stored, "subtract", posed=True)
    if isinstance(work.source, GridSource):
        stored = work  # one stack has one size
    assert stored.source is not None
    keep = np.asarray(mask.data, np.float32) if not mask.data.any() else checked_mask(mask.data)
    removed = Map(map.data * (1 - keep), pixel_size_A)
    scale = _scales(work, map, threads) if fit_scale else np.ones(len(work))
    # the images stay in the state that their columns tell, for every program that reads them
    back = None if stored is work else to_stored(work)
    source = SubtractedSource(stored.source, work, removed, scale, threads=threads, to_stored=back)
    return stored.with_source(source).with_columns(**{SCALE: scale})


def _scales(particles: Particles, map: Map, threads: int | None) -> FloatArray:
    """Least-squares scale of every image against the whole map."""
    step = max(8, (1 << 22) // particles.box**2)
    scale, unknown = np.ones(len(particles)), []
    poses = particles.poses
    assert poses is not None
    for begin in range(0, len(particles), step):
        some = slice(begin, min(begin + step, len(particles)))
        clean = project(
            map, Poses(poses.angles_deg[some], poses.shifts_A[some]), particles.optics[some], threads=threads
        )
        clean -= clean.mean(axis=(1, 2), keepdims=True)
        power = np.einsum("iyx,iyx->i", clean, clean, dtype=np.float64)
        cross = np.einsum("iyx,iyx->i", clean, particles.images(some), dtype=np.float64)
        # An image or CTF that is not finite says nothing: left as bad as it is, for the next job to set aside.
        known = (power > 0) & np.isfinite(power) & np.isfinite(cross)
        scale[some] = np.divide(cross, power, out=np.ones(len(power)), where=known)
        unknown += [begin + int(i) for i in np.flatnonzero(~known)]
    if unknown:
        warnings.warn(
            f"{particles.where}: subtract: {len(unknown)} particles (the first is {unknown[0]}) have no finite image, "
            "CTF or projection; their scale is 1",
            VerglasWarning,
            stacklevel=3,
        )
    return np.clip(scale, LEAST_SCALE, MOST_SCALE)
