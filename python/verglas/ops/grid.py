"""The oversampled Fourier grid that ``project`` and ``insert`` share, and the window they interpolate with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft

from verglas._native import core
from verglas.errors import InputError

_WINDOWS = ("kaiser-bessel", "semicircle", "linear")
# Share of the box that the particle fills: the window's shape parameter is the best one for this extent, not for a
# map that is dense up to the corners (docs/kernels.md, table 1, gives both errors).
_FILL = 0.75
# Degree of the tap polynomials: the fit error is then below float32 rounding for every width.
_DEGREE = {2: 1, 4: 9, 6: 11, 8: 13}


def window_value(u: npt.ArrayLike, width: int, name: str, oversampling: float) -> npt.NDArray[np.float64]:
    r"""The interpolation window at distance ``u`` (grid points), float64.

    Parameters
    ----------
    u : array_like
        Distance from the centre in grid points; the window is zero beyond ``width / 2``.
    width : int
        Support in grid points.
    name : {"kaiser-bessel", "semicircle", "linear"}
        :math:`I_0(\beta\sqrt{1-(2u/W)^2}) / I_0(\beta)` with :math:`\beta = \pi\sqrt{(W/\sigma)^2(\sigma-1/2)^2 - 0.8}`
        (Beatty, Nishimura and Pauly 2005, eq. 5); :math:`e^{\beta(\sqrt{1-(2u/W)^2}-1)}` with
        :math:`\beta = 0.97 \pi W (1 - 1/2\sigma)` (Barnett, Magland and af Klinteberg 2019, with their safety factor);
        or the triangle, which is trilinear interpolation. :math:`\sigma` is the oversampling divided by the share of
        the box that the particle fills, 0.75.
    oversampling : float
        Grid points per Fourier pixel.

    Returns
    -------
    float64 array

    Examples
    --------
    >>> from verglas.ops.grid import window_value
    >>> window_value([0.0, 0.5, 2.0], 2, "linear", 2.0).tolist()
    [1.0, 0.5, 0.0]
    """
    u = np.asarray(u, np.float64)
    if name == "linear":
        return np.maximum(1.0 - np.abs(u), 0.0)
    root = np.sqrt(np.maximum(1.0 - (2.0 * u / width) ** 2, 0.0))
    inside = np.abs(u) <= width / 2
    sigma = oversampling / _FILL
    if name == "kaiser-bessel":
        beta = np.pi * np.sqrt((width / sigma) ** 2 * (sigma - 0.5) ** 2 - 0.8)
        return np.where(inside, np.i0(beta * root) / np.i0(beta), 0.0)
    beta = 0.97 * np.pi * width * (1.0 - 0.5 / sigma)
    return np.where(inside, np.exp(beta * (root - 1.0)), 0.0)


def _fit_taps(width: int, name: str, oversampling: float) -> npt.NDArray[np.float32]:
    """Polynomials (degree + 1, width) of t in [-1/2, 1/2] for each tap, by interpolation at Chebyshev nodes."""
    degree = _DEGREE[width] if name != "linear" else 1
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1)) / 2
    taps = np.arange(width)
    distance = taps[None, :] - (width // 2 - 1) - (nodes[:, None] + 0.5)
    values = window_value(distance, width, name, oversampling)
    return np.linalg.solve(np.vander(nodes, increasing=True), values).astype(np.float32)


@dataclass(frozen=True)
class Grid:
    """Geometry of the gridded transform of a cubic map.

    The transform of the map, padded to ``padded`` voxels, is kept at the grid points that central slices up to
    ``max_radius`` can touch: coordinates ``-extent .. extent`` in z and y, ``-halo .. extent`` in x (Friedel's mates
    supply x < 0). Arrays on the grid have :attr:`shape`.

    Attributes
    ----------
    box : int
        Side of the map and of the images.
    max_radius : int
        Largest shell in use, Fourier pixels; at most (box - 1) // 2, which is the default.
    oversampling : float
        Grid points per Fourier pixel, at least; the padded side is rounded up to a size that FFTs like.
    width : {2, 4, 6, 8}
        Window support in grid points.
    window : {"kaiser-bessel", "semicircle", "linear"}
        See :func:`window_value`.

    Raises
    ------
    InputError
        A size is out of range; the message says which.

    Notes
    -----
    The default, 4 taps on a 1.5 times oversampled grid, was chosen by measurement: docs/kernels.md, table 1
    (``bench/bench_window.py``).

    Examples
    --------
    >>> from verglas.ops import Grid
    >>> g = Grid(64)
    >>> g.padded, g.max_radius
    (96, 31)
    """

    box: int
    max_radius: int = -1
    oversampling: float = 1.5
    width: int = 4
    window: str = "kaiser-bessel"
    padded: int = field(init=False)

    def __post_init__(self) -> None:
        """Check, and fix the padded side."""
        if self.box < 2:
            raise InputError(f"Grid: expected a box of at least 2 pixels, got {self.box}")
        if self.window not in _WINDOWS or self.width not in _DEGREE:
            raise InputError(
                f"Grid: expected a window of {', '.join(_WINDOWS)} with 2, 4, 6 or 8 taps, "
                f"got {self.window}, {self.width}"
            )
        if (self.window == "linear") != (self.width == 2):
            raise InputError(
                f"Grid: the linear window has 2 taps, the others 4, 6 or 8; got {self.window}, {self.width}"
            )
        if not 1.0 < self.oversampling <= 4.0:
            raise InputError(f"Grid: expected an oversampling above 1 and up to 4, got {self.oversampling}")
        # Without Nyquist on even sides: the samples at +N/2 and -N/2 are one, and no rotation can tell them apart.
        largest = (self.box - 1) // 2
        radius = largest if self.max_radius == -1 else self.max_radius
        if not 0 <= radius <= largest:
            raise InputError(f"Grid: expected max_radius 0 to {largest} for a box of {self.box}, got {self.max_radius}")
        object.__setattr__(self, "max_radius", radius)
        padded = int(np.ceil(self.oversampling * self.box / 2)) * 2
        while scipy.fft.next_fast_len(padded, real=True) != padded:
            padded += 2
        object.__setattr__(self, "padded", padded)

    def __reduce__(self) -> tuple[type[Grid], tuple[Any, ...]]:
        """What it is made from: the kernels' own form of it, once made, cannot be sent to another process."""
        return type(self), (self.box, self.max_radius, self.oversampling, self.width, self.window)

    @property
    def halo(self) -> int:
        """Grid columns kept at x < 0, so that no tap needs wrapping."""
        return self.width // 2 + 1

    @property
    def extent(self) -> int:
        """Outermost grid coordinate, the window's reach included."""
        return int(np.floor((self.max_radius + 0.5) * self.padded / self.box)) + self.width // 2 + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of arrays on the grid; rows end with the lanes that a SIMD read may touch."""
        rows = 2 * self.extent + 1
        lanes = 8 if self.width == 6 else self.width
        return rows, rows, self.halo + 1 + self.extent + lanes

    @cached_property
    def native(self) -> Any:
        """The grid as the kernels take it."""
        return core.Grid(*self._arguments)

    @cached_property
    def _arguments(self) -> tuple[Any, ...]:
        taps = _fit_taps(self.width, self.window, self.oversampling)
        return self.box, self.padded, self.extent, self.halo, self.shape[2], taps

    def native_for(self, kernels: Any) -> Any:
        """The grid as the CUDA module takes it."""
        return kernels.Grid(*self._arguments)

    def insertion_bytes(self, images: int, max_radius: int | None = None) -> int:
        """Memory that :func:`insert` takes on the CPU besides its arguments, for so many images of one call.

        Pixels are sorted by tiles of the grid before they are added; their room is bounded, whatever the number of
        images.

        Examples
        --------
        >>> from verglas.ops import Grid
        >>> Grid(64).insertion_bytes(1000000) // 1000000
        100
        """
        return int(core.insert_room_bytes(self.native, images, self.max_radius if max_radius is None else max_radius))

    def window_transform(self, box: int | None = None) -> npt.NDArray[np.float64]:
        r"""Transform of the window at the voxels of a box, :math:`\int \phi(u) \cos(2\pi u x/P)\,du`, x = -box//2 ....

        Dividing the map by it along each axis before the transform makes interpolation with the window exact up to
        aliasing; the adjoint divides after the inverse transform. ``box`` is the map's by default.
        """
        box = self.box if box is None else box
        nodes, weights = np.polynomial.legendre.leggauss(48)
        x = (np.arange(box) - box // 2) / self.padded
        total = np.zeros(box)
        for edge in range(self.width):  # piecewise, because the window has a corner at its centre when it is linear
            u = edge - self.width / 2 + (nodes + 1) / 2
            phi = window_value(u, self.width, self.window, self.oversampling)
            total += np.cos(2 * np.pi * x[:, None] * u[None, :]) @ (weights / 2 * phi)
        return total


class GridSpectrum(NamedTuple):
    """The gridded transform of a map, on the host or a device, and the grid that it is kept on."""

    grid: Grid
    spectrum: Any
