"""Where the images of a set of particles come from: a file, or an array in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import IntArray, host_array
from verglas.types.ctf_ranges import check_pixel_size


@runtime_checkable
class ImageSource(Protocol):
    """What :class:`verglas.types.Particles` asks of the thing that holds its images.

    Row i of the source belongs to row i of the particle table. Sources are picklable and hold no open file.
    """

    def __len__(self) -> int:
        """Number of images."""

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Images of these rows in the order asked, (m, y, x) float32, a fresh array."""

    def take(self, rows: IntArray) -> ImageSource:
        """The source of a subset, still lazy."""

    def boxes(self) -> IntArray:
        """Side in pixels of every image, (n,) or (1,) where all agree; may read headers, never images."""

    def pixel_sizes_A(self) -> npt.NDArray[np.float64]:
        """Pixel size in angstrom the source itself knows, (n,) or (1,); NaN where it does not."""


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in memory, for simulators, tests and notebooks.

    Attributes
    ----------
    data : (m, y, x) array
        All images; any real dtype, converted to float32 on reading.
    pixel_size_A : float
        Pixel size in angstrom, NaN where unknown.
    rows : (n,) int64, optional
        The image of each particle; all of them in order by default.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types import ArraySource
    >>> source = ArraySource(np.arange(12).reshape(3, 2, 2), pixel_size_A=1.5)
    >>> source.take(np.array([2, 0])).read(np.array([1, 0]))[:, 0, 0].tolist()
    [0.0, 8.0]
    """

    data: npt.NDArray[Any] | Any
    pixel_size_A: float = float("nan")
    rows: IntArray | None = None

    def __post_init__(self) -> None:
        """Check the shape once."""
        data = host_array(self.data)
        if data.dtype.kind == "c":
            raise InputError("images: the data are complex; images are real: take .real, or the modulus")
        if data.ndim != 3 or data.shape[1] != data.shape[2]:
            raise InputError(f"images: expected (n, box, box), got shape {data.shape}")
        if not data.shape[1]:
            raise InputError("images: expected a box of at least 1 pixel, got 0")
        check_pixel_size(self.pixel_size_A, "images")
        object.__setattr__(self, "data", data)
        if self.rows is not None:
            object.__setattr__(self, "rows", np.asarray(self.rows, np.int64))

    def __len__(self) -> int:
        return len(self.data) if self.rows is None else len(self.rows)

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Images in the order asked, a copy."""
        return np.array(self.data[rows if self.rows is None else self.rows[rows]], dtype=np.float32)

    def take(self, rows: IntArray) -> ArraySource:
        """The images of a subset; the array is shared."""
        return ArraySource(self.data, self.pixel_size_A, rows if self.rows is None else self.rows[rows])

    def boxes(self) -> IntArray:
        """One value: the side of all images."""
        return np.array([self.data.shape[1]], dtype=np.int64)

    def pixel_sizes_A(self) -> npt.NDArray[np.float64]:
        """One value: the pixel size of all images."""
        return np.array([self.pixel_size_A], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ChangedSource:
    """Images computed, when they are read, from those that another source holds.

    Attributes
    ----------
    inner : ImageSource
        What is stored.
    change : callable
        ``change(images, rows)`` gives the images of these rows of the whole set; picklable, as sources are.
    stored : mapping of label -> (n,) array or None
        What the particle table says of the stored images; None: it has no such column. Put back where the particles are
        written without their images.
    rows : (m,) int64, optional
        The row of the whole set of each image of a subset.
    """

    inner: ImageSource
    change: Callable[[npt.NDArray[np.float32], IntArray], npt.NDArray[np.float32]]
    stored: Mapping[str, npt.NDArray[Any] | None]
    rows: IntArray | None = None

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Images in the order asked, changed."""
        return self.change(self.inner.read(rows), rows if self.rows is None else self.rows[rows])

    def take(self, rows: IntArray) -> ChangedSource:
        """The images of a subset."""
        return replace(self, inner=self.inner.take(rows), rows=rows if self.rows is None else self.rows[rows])

    def boxes(self) -> IntArray:
        """As of the stored images."""
        return self.inner.boxes()

    def pixel_sizes_A(self) -> npt.NDArray[np.float64]:
        """As of the stored images."""
        return self.inner.pixel_sizes_A()

    def labels(self) -> dict[str, npt.NDArray[Any] | None]:
        """What the table said of the stored images, of the rows of this subset."""
        return {
            label: values if values is None or self.rows is None else values[self.rows]
            for label, values in self.stored.items()
        }


@dataclass(frozen=True, eq=False)
class GridSource(ChangedSource):
    """Images of several boxes and pixel sizes, brought to one of each when they are read.

    ``change`` is given images of one kind at a time.

    Attributes
    ----------
    kind : (n,) int64
        Of every row of the whole set.
    box : int
    pixel_size_A : float
        Of the images that come out.
    """

    kind: IntArray | Any = None
    box: int = 0
    pixel_size_A: float = float("nan")

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Images in the order asked, of one size."""
        rows = np.asarray(rows, np.int64)
        whole = rows if self.rows is None else self.rows[rows]
        out = np.empty((len(rows), self.box, self.box), np.float32)
        for kind in np.unique(self.kind[whole]):
            here = np.flatnonzero(self.kind[whole] == kind)
            out[here] = self.change(self.inner.read(rows[here]), whole[here])
        return out

    def boxes(self) -> IntArray:
        """One value."""
        return np.array([self.box], dtype=np.int64)

    def pixel_sizes_A(self) -> npt.NDArray[np.float64]:
        """One value."""
        return np.array([self.pixel_size_A])
