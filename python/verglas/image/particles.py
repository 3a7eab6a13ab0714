"""Resampling of whole particle sets: images lazily, metadata at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError
from verglas.image.resample import ResamplePlan, resample
from verglas.types import Particles
from verglas.types._columns import GRID_BOX, GRID_PIXEL
from verglas.types.arrays import IntArray
from verglas.types.images import ArraySource, ImageSource
from verglas.types.listener import Listener, phase_progress

_READ_BYTES = 64 << 20
_PIECE_BYTES = 16 << 20  # of images that are resampled
RESAMPLING_BYTES = 3 * _PIECE_BYTES
"""What resampling takes at a time: images, their transforms, and what is cut from them."""


@dataclass(frozen=True)
class ResampledSource:
    """Images of another source, resampled when read.

    Attributes
    ----------
    base : ImageSource
        Where the images come from.
    plan : ResamplePlan
        What is done to them.
    """

    base: ImageSource
    plan: ResamplePlan

    def __len__(self) -> int:
        return len(self.base)

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Images of these rows, resampled: few at a time, since what is read may be far larger than what is asked."""
        step = max(1, _PIECE_BYTES // (4 * self.plan.box**2))
        if len(rows) <= step:
            return resample(self.base.read(rows), self.plan)
        images = np.empty((len(rows), self.plan.new_box, self.plan.new_box), np.float32)
        for begin in range(0, len(rows), step):
            images[begin : begin + step] = resample(self.base.read(rows[begin : begin + step]), self.plan)
        return images

    def take(self, rows: IntArray) -> ResampledSource:
        """A subset, still lazy."""
        return ResampledSource(self.base.take(rows), self.plan)

    def boxes(self) -> IntArray:
        """One value: the new box."""
        return np.array([self.plan.new_box], np.int64)

    def pixel_sizes_A(self) -> npt.NDArray[np.float64]:
        """One value: the new pixel size, as realised."""
        return np.array([self.plan.pixel_size_A])


def _set_columns(table: pd.DataFrame, values: dict[str, Any], *, add: bool) -> pd.DataFrame:
    return table.assign(**{name: value for name, value in values.items() if add or name in table})


def resample_particles(particles: Particles, plan: ResamplePlan) -> Particles:
    """Particles at another pixel size and box; the images are resampled when they are read.

    Image size and pixel size change in the tables (with RELION 3.0's columns, the magnification), and so do origins in
    pixels. Everything in angstrom or in pixels of the micrograph stays. Grey values are kept, so the noise of a
    Fourier-cropped image has less variance than before: normalise again where that matters.

    Parameters
    ----------
    particles : Particles
        With images of one box and pixel size.
    plan : ResamplePlan
        From :func:`plan_resample` for their box and pixel size.

    Returns
    -------
    Particles

    Raises
    ------
    InputError
        No images, several sizes, or a plan for another box or pixel size.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> p = vg.Particles.from_images(np.ones((3, 8, 8), np.float32), pixel_size_A=1.5)
    >>> small = vg.image.resample_particles(p, vg.image.plan_resample(p.box, p.pixel_size_A, 3.0))
    >>> small.box, small.pixel_size_A, small.images([2]).shape
    (4, 3.0, (1, 4, 4))
    """
    if particles.source is None:
        raise InputError(f"{particles.where}: these particles have no images to resample, only metadata")
    old, new = particles.pixel_size_A, plan.pixel_size_A
    if particles.box != plan.box:
        raise InputError(f"{particles.where}: images of {particles.box} pixels, but the plan is for {plan.box}")
    planned = new * plan.new_work_box / plan.work_box
    if abs(planned / old - 1) > 1e-6:
        raise InputError(f"{particles.where}: pixels of {old:g} A, but the plan is for {planned:g} A")
    # One of the two tables has to hold the sizes; the labels of older versions change where they are.
    sizes = {"rlnImagePixelSize": new, "rlnImageSize": plan.new_box}
    optics, table = particles.optics_table, particles.table
    if optics is not None:
        optics = _set_columns(_set_columns(optics, sizes, add=True), {"rlnPixelSize": new}, add=False)
    table = _set_columns(_set_columns(table, sizes, add=optics is None), {"rlnPixelSize": new}, add=False)
    if GRID_BOX in table:  # images of several sizes on one grid: these columns go before all others
        table = table.assign(**{GRID_BOX: plan.new_box, GRID_PIXEL: new})
    # Origins in pixels count in the new ones; the magnification of old files is the detector's pixel over the image's.
    scaled = {c: table[c] * (old / new) for c in ("rlnOriginX", "rlnOriginY", "rlnMagnification") if c in table}
    return Particles(
        table.assign(**scaled),
        ResampledSource(particles.source, plan),
        optics_table=optics,
        tables=particles.tables,
        table_name=particles.table_name,
        where=particles.where,
    )


def with_box(particles: Particles, box: int, source: ImageSource | None) -> Particles:
    """The same particles with images of another box, of as large pixels; poses and columns are the caller's.

    Parameters
    ----------
    particles : Particles
    box : int
        Side of the new images.
    source : ImageSource or None
        The new images; None: metadata alone.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> p = vg.Particles.from_images(np.ones((3, 8, 8), np.float32), pixel_size_A=1.5)
    >>> vg.image.with_box(p, 4, None).box
    4
    """
    optics, table = particles.optics_table, particles.table
    size = {"rlnImageSize": box}
    if optics is not None:
        optics = _set_columns(optics, size, add=True)
    table = _set_columns(table, size, add=optics is None)
    if GRID_BOX in table:
        table = table.assign(**{GRID_BOX: box})
    return Particles(
        table,
        source,
        optics_table=optics,
        tables=particles.tables,
        table_name=particles.table_name,
        where=particles.where,
    )


def in_memory(particles: Particles, listener: Listener | None = None) -> Particles:
    """The particles with all images in memory, read in large sequential pieces.

    ``listener`` is told how many are read.
    """
    if isinstance(particles.source, ArraySource):
        return particles
    box = particles.box
    images = np.empty((len(particles), box, box), np.float32)
    step = max(1, _READ_BYTES // (4 * box**2))
    tell = phase_progress(listener, "reading particles")
    for begin in range(0, len(particles), step):
        images[begin : begin + step] = particles.images(slice(begin, begin + step))
        tell(min(begin + step, len(particles)), len(particles))
    # The sign was applied when the images were read: left in the table it would turn them dark again.
    return particles.with_columns(**{"blob/sign": None}).with_source(ArraySource(images, particles.pixel_size_A))
