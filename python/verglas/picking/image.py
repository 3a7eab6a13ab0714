"""What every picker looks at: the micrograph, small, flat, particles white."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import image
from verglas.errors import InputError
from verglas.types import Micrograph
from verglas.types.arrays import Float32Array

# Pixels across a particle after binning: enough for shells down to a tenth of the diameter, and a 4096 x 4096
# micrograph becomes one of 600 x 600 or less.
PIXELS_ACROSS = 22
# Rare grey values beyond this many standard deviations are X-rays or dead pixels.
_CLIP_SIGMA = 8.0
# Share of pixels that may be missing (not finite).
_MOST_MISSING = 0.25
# Second differences over the spread: a gradient without noise has less, noise smoothed over 30 pixels 7e-4.
_SMOOTH = 1e-4
# A row repeats its neighbour if they differ by less than this share of what rows differ by; share of a side in which
# the repeated rows of a border are looked for, and how many it takes.
_REPEATED, _BORDER, _FEWEST_REPEATED = 0.05, 0.1, 4
# Rows and columns of which the typical difference is the median.
_SAMPLED = 64


@dataclass(frozen=True)
class SmallImage:
    """A micrograph prepared for picking.

    Attributes
    ----------
    data : (y, x) float32
        Particles white, slow gradients removed, unit standard deviation over its central 98 per cent.
    grey : (y, x) float32
        The same with its gradients, in standard deviations of ``data``: thick ice and carbon show here.
    factor : (float, float)
        Pixels of the micrograph per pixel here, along (y, x).
    shape : (int, int)
        Of the part of the micrograph that was recorded: a border of repeated rows or columns is left out.
    corner : (int, int)
        First row and column of that part.
    radius_px : float
        Radius of the particle in pixels of this image.
    pixel_size_A : float
        Of this image (mean of both axes).
    left_out : (y, x) bool or None
        Where a person has said that there is nothing to pick.
    """

    data: Float32Array
    grey: Float32Array
    factor: tuple[float, float]
    shape: tuple[int, int]
    radius_px: float
    pixel_size_A: float
    corner: tuple[int, int] = (0, 0)
    left_out: npt.NDArray[np.bool_] | None = None

    def without_discs(self, discs_px: npt.ArrayLike) -> SmallImage:
        """The same with areas left out, given as discs in the micrograph.

        Parameters
        ----------
        discs_px : (n, 3) float
            x, y and radius in pixels of the micrograph.

        Examples
        --------
        >>> import numpy as np, verglas as vg
        >>> from verglas.picking import prepare
        >>> small = prepare(vg.Micrograph(np.random.default_rng(0).normal(size=(300, 300)), 4.0), 96.0)
        >>> left_out = small.without_discs([[150, 150, 60]]).left_out
        >>> bool(abs(left_out.mean() * 300**2 / (np.pi * 60**2) - 1) < 0.05)
        True
        """
        discs = np.asarray(discs_px, np.float64).reshape(-1, 3)
        out = np.zeros(self.shape_here, bool)
        for (x, y), radius in zip(self.from_micrograph(discs[:, :2]), discs[:, 2] / np.mean(self.factor), strict=True):
            low = np.maximum(np.floor([y - radius, x - radius]).astype(int), 0)
            high = np.maximum(np.ceil([y + radius, x + radius]).astype(int) + 1, 0)
            here = out[low[0] : high[0], low[1] : high[1]]
            rows, columns = np.ogrid[low[0] : low[0] + here.shape[0], low[1] : low[1] + here.shape[1]]
            here |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        return replace(self, left_out=out if self.left_out is None else self.left_out | out)

    @property
    def shape_here(self) -> tuple[int, int]:
        """(y, x) of the small image."""
        return int(self.data.shape[0]), int(self.data.shape[1])

    def to_micrograph(self, xy_px: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions here (x, y) as positions in the micrograph: the origins, pixels N // 2, coincide."""
        xy = np.asarray(xy_px, np.float64).reshape(-1, 2)
        here, there = np.array(self.data.shape[::-1]) // 2, np.array(self.shape[::-1]) // 2 + self.corner[::-1]
        return (xy - here) * np.array(self.factor[::-1]) + there

    def from_micrograph(self, xy_px: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Inverse of :meth:`to_micrograph`."""
        xy = np.asarray(xy_px, np.float64).reshape(-1, 2)
        here, there = np.array(self.data.shape[::-1]) // 2, np.array(self.shape[::-1]) // 2 + self.corner[::-1]
        return (xy - there) / np.array(self.factor[::-1]) + here


def _check_micrograph(micrograph: Micrograph, diameter_A: float) -> None:
    name, pixel = micrograph.name or "micrograph", micrograph.pixel_size_A
    if not (np.isfinite(diameter_A) and diameter_A > 0):
        raise InputError(f"diameter_A: expected a positive number of angstrom, got {diameter_A}")
    if not np.isfinite(pixel):
        raise InputError(f"{name}: the pixel size is unknown; give pixel_size_A (--pixel-size)")
    across = diameter_A / pixel
    if across < 6:
        raise InputError(
            f"{name}: a particle of {diameter_A:g} A has {across:.1f} pixels of {pixel:g} A across; "
            "expected at least 6. Is the pixel size right?"
        )
    if across > min(micrograph.shape) / 2:
        raise InputError(
            f"{name}: a particle of {diameter_A:g} A is wider than half the image, {micrograph.shape[1]} "
            f"x {micrograph.shape[0]} pixels of {pixel:g} A. Is the pixel size right?"
        )


def repeated_border(data: Float32Array) -> tuple[slice, slice]:
    """Rows and columns of an image without a border that repeats one row or column, or is constant.

    Frames that were shifted leave such a border, and so does a detector's dead edge; what repeats looks like long
    particles.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.image import repeated_border
    >>> image = np.pad(np.random.default_rng(0).normal(size=(200, 300)), ((12, 0), (0, 9)), mode="edge")
    >>> repeated_border(image.astype(np.float32))
    (slice(13, 212, None), slice(0, 299, None))
    """
    slices = []
    for rows in (data, data.T):
        count, across = rows.shape
        middle = rows[:, across // 5 : across - across // 5 : 3]
        sample = np.unique(np.linspace(0, count - 2, min(_SAMPLED, count - 1)).astype(np.int64))
        typical = float(np.median(np.abs(middle[sample + 1] - middle[sample]).mean(axis=1)))
        outer = max(2, int(_BORDER * count))
        first = _border_rows(middle[:outer], typical)
        slices.append(slice(first, count - _border_rows(middle[::-1][:outer], typical)))
    return slices[0], slices[1]


def _border_rows(outer: Float32Array, typical: float) -> int:
    """Number of rows from the first to the last that repeats its neighbour, that too; 0 if they are few."""
    quiet = np.flatnonzero(np.abs(np.diff(outer, axis=0)).mean(axis=1) < _REPEATED * typical)
    return int(quiet[-1]) + 2 if len(quiet) >= _FEWEST_REPEATED else 0


def prepare(
    micrograph: Micrograph, diameter_A: float, *, white: bool = False, threads: int | None = None
) -> SmallImage:
    """Bin a micrograph for picking, remove gradients and outliers, make particles white.

    Parameters
    ----------
    micrograph : Micrograph
        As recorded; its pixel size must be known.
    diameter_A : float
        Diameter of the particle. Pixels become a 22nd of it (never smaller than they are).
    white : bool
        Particles are already white (an inverted micrograph, negative stain).
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    SmallImage

    Raises
    ------
    InputError
        Unknown pixel size, more than a quarter of the pixels not finite, a constant image or a gradient without noise,
        or a diameter that cannot be right for it.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.picking.image import prepare
    >>> m = vg.Micrograph(np.random.default_rng(0).normal(size=(400, 500)), 2.0)
    >>> prepare(m, 88.0).data.shape
    (200, 250)
    """
    _check_micrograph(micrograph, diameter_A)
    data = micrograph.data
    finite = np.isfinite(data)
    bad = data.size - int(np.count_nonzero(finite))
    if bad > _MOST_MISSING * data.size:
        raise InputError(f"{micrograph.name or 'micrograph'}: {bad} of {data.size} pixels are not finite")
    if bad:  # dead pixels, or an area masked out, which is flat and therefore no place to pick
        data = np.where(finite, data, np.float32(np.median(data[finite])))
    rows, columns = repeated_border(data)
    data = data[rows, columns]
    middle, spread = float(np.median(data[::7, ::3])), image.robust_sigma(data[::7, ::3])
    if not spread > 0:
        raise InputError(f"{micrograph.name or 'micrograph'}: all pixels are {middle:g}; there is nothing to pick")
    curvature = float(np.abs(np.diff(data[::7].astype(np.float64), n=2, axis=1)).mean())
    if curvature < _SMOOTH * spread:
        raise InputError(
            f"{micrograph.name or 'micrograph'}: grey values vary without any noise (a gradient and nothing else); "
            "there is nothing to pick"
        )
    # Strong particles on clean ice are no outliers: what a thousandth of the pixels exceed is the limit there.
    limit = max(_CLIP_SIGMA * spread, float(np.percentile(np.abs(data[::7, ::3] - middle), 99.9)))
    clipped = np.clip(data - np.float32(middle), -limit, limit)
    step = max(1.0, diameter_A / PIXELS_ACROSS / micrograph.pixel_size_A)
    height, width = data.shape
    # Not the next quick size: it would stretch the two axes differently.
    small_shape = (round(height / step), round(width / step))
    small = image.fourier_resample(clipped, small_shape, threads=threads) if step > 1 else clipped
    small = small.astype(np.float32) * np.float32(1.0 if white else -1.0)
    factor = (height / small.shape[0], width / small.shape[1])
    pixel = micrograph.pixel_size_A * (factor[0] + factor[1]) / 2
    radius = diameter_A / 2 / pixel
    flat = small - ndimage.gaussian_filter(small, 2 * radius, mode="reflect")
    low, high = np.percentile(flat, (1, 99))
    scale = float(flat[(flat >= low) & (flat <= high)].std()) or float(flat.std()) or 1.0
    return SmallImage(
        (flat / scale).astype(np.float32),
        (small / scale).astype(np.float32),
        factor,
        (height, width),
        radius,
        pixel,
        (rows.start, columns.start),
    )
