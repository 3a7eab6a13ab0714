r"""Images of several boxes and pixel sizes on one grid, so that one job can use them all.

The pixel is the coarsest of the set, the box the widest even one that lies inside every image: nothing is made up, and
images that have both are used as they are. An image of N pixels of p angstroms is the trigonometric polynomial through
its pixels; its values at the new pixels, without the frequencies that these cannot hold, are

.. math:: y_i = \sqrt{\frac{q}{p}}\, \frac{1}{N} \sum_j x_j \sum_{|n| < N p / 2 q} e^{2\pi i n (q i - p j) / N p}

along x and along y, i and j counted from the centres, pixel N // 2 and M // 2. White noise keeps its power through the
square root, and images normalised to the same noise at each pixel size, as extraction leaves them, keep one scale.
The CTF of an image is the same function of frequency on both grids.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError, VerglasWarning
from verglas.types import Particles
from verglas.types import _columns as col
from verglas.types.arrays import Float32Array, FloatArray, IntArray

_SAME = 1e-5  # relative: pixel sizes that files have rounded are one
Change = Callable[[Float32Array, IntArray], Float32Array]


@dataclass(frozen=True, eq=False)
class Grids:
    """Kinds of image in a set, and the grid that all are brought to.

    Attributes
    ----------
    kind : (n,) int64
        Of each particle.
    boxes : list of int
        Of each kind.
    pixel_sizes_A : list of float
    box : int
    pixel_size_A : float
        In common.
    """

    kind: IntArray
    boxes: list[int]
    pixel_sizes_A: list[float]
    box: int
    pixel_size_A: float

    @classmethod
    def of(cls, particles: Particles) -> Grids | None:
        """Of particles with images; None where all have one grid or their sizes are not known."""
        if particles.source is None or not len(particles) or col.GRID_BOX in particles.table:
            return None
        tables = col.Tables(particles.table, particles.optics_table, particles.where)
        pixel = col.pixel_sizes_A(tables)
        pixel = np.broadcast_to(particles.source.pixel_sizes_A() if pixel is None else pixel, len(particles))
        if not np.isfinite(pixel).all():
            return None
        sizes = tables.value("rlnImageSize", optics_first=True)
        if sizes is None and abs(pixel.max() / pixel.min() - 1) <= _SAME and "rlnOpticsGroup" not in particles.table:
            return None  # headers are asked for where there may be several sizes only
        sizes = np.broadcast_to(particles.source.boxes() if sizes is None else sizes, len(particles))
        first, kind = np.unique(np.column_stack([sizes, pixel]), axis=0, return_inverse=True)
        if len(first) == 1 or (np.ptp(first[:, 0]) == 0 and abs(first[:, 1].max() / first[:, 1].min() - 1) <= _SAME):
            return None
        q = float(first[:, 1].max())
        box = int((first.prod(axis=1) / q * (1 + _SAME)).min()) // 2 * 2
        return cls(kind.reshape(-1).astype(np.int64), first[:, 0].astype(int).tolist(), first[:, 1].tolist(), box, q)

    @property
    def sizes_text(self) -> str:
        """Every box and pixel size."""
        return ", ".join(f"{n} px of {p:g} A" for n, p in zip(self.boxes, self.pixel_sizes_A, strict=True))

    @property
    def sentence(self) -> str:
        """What is done."""
        return (
            f"images of several sizes ({self.sizes_text}) are brought to {self.box} px of {self.pixel_size_A:g} A; "
            f"nothing finer than {2 * self.pixel_size_A:.3g} A can come of them together"
        )

    def warn(self, where: str) -> None:
        """Say it."""
        warnings.warn(f"{where}: {self.sentence}", VerglasWarning, stacklevel=4)


def common_size(particles: Particles) -> tuple[int, float]:
    """Box and pixel size in angstrom that a job has the images at; of particles of one size, their own.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics import common_size
    >>> common_size(vg.Particles.from_images(np.zeros((1, 8, 8), np.float32), 2.0))
    (8, 2.0)
    """
    grids = Grids.of(particles)
    return (particles.box, particles.pixel_size_A) if grids is None else (grids.box, grids.pixel_size_A)


def refuse_several_sizes(particles: Particles, job: str) -> None:
    """Of jobs that deal with images as they are stored.

    Raises
    ------
    InputError
        Images of several boxes or pixel sizes.
    """
    grids = Grids.of(particles)
    if grids is not None:
        raise InputError(
            f"{particles.where}: {job} takes images of one size at a time, and these are of several "
            f"({grids.sizes_text}); take the optics groups of one size first"
        )


def grid_matrix(box: int, pixel_size_A: float, new_box: int, new_pixel_size_A: float) -> FloatArray:
    """(new_box, box): values at the new pixels of a line, of the module's formula; not finer than the old ones.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.optics.one_grid import grid_matrix
    >>> wave = np.cos(2 * np.pi * 3 * (np.arange(128) - 64) / 128)
    >>> made = grid_matrix(128, 1.0, 96, 1.31) @ wave / np.sqrt(1.31)
    >>> bool(np.allclose(made, np.cos(2 * np.pi * 3 * 1.31 * (np.arange(96) - 48) / 128)))
    True
    """
    old, new = np.arange(box) - box // 2, np.arange(new_box) - new_box // 2
    ratio = new_pixel_size_A / pixel_size_A
    if abs(ratio - 1) <= _SAME:
        return np.asarray((old[None] == new[:, None]).astype(float))
    n = np.arange(1, int(np.ceil(box / (2 * ratio))))
    waves = np.concatenate([np.cos(2 * np.pi * np.outer(x, n) / box) for x in (new * ratio, old)])
    sines = np.concatenate([np.sin(2 * np.pi * np.outer(x, n) / box) for x in (new * ratio, old)])
    inner = waves[:new_box] @ waves[new_box:].T + sines[:new_box] @ sines[new_box:].T
    return np.asarray(np.sqrt(ratio) * (1 + 2 * inner) / box)


@dataclass(frozen=True, eq=False)
class ToGrid:
    """Brings stored images of one kind at a time to the model, and to the common grid.

    Attributes
    ----------
    kind : (n,) int64
    models : list of callable or None
        Of each kind, what brings its images to the model at their own size.
    place : (n,) int64
        Row of each particle among those of its kind.
    matrices : list of (box, box of the kind) float32
    """

    kind: IntArray
    models: list[Change | None]
    place: IntArray
    matrices: list[Float32Array]

    def __call__(self, images: Float32Array, rows: IntArray) -> Float32Array:
        """Images (m, N, N) of these rows, all of one kind, on the common grid."""
        if not len(rows):
            return images
        kind = int(self.kind[rows[0]])
        model, matrix = self.models[kind], self.matrices[kind]
        if model is not None:
            images = model(images, self.place[rows])
        return np.asarray(np.matmul(np.matmul(matrix, images), matrix.T), np.float32)
