"""Power spectra of tiles of a micrograph, inside a band of frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from verglas.errors import InputError
from verglas.types import Micrograph
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.power_spectrum import PowerSpectrum

# Rings of 30,000 A underfocus are 1/236 A apart at 5 A; a Hann window blurs by 2 pixels of 1/field.
_FIELD_A = 1000.0
# From one tile to the next, in tiles: half a tile uses nearly all the data under a Hann window (Welch 1967); of large
# micrographs three quarters are enough.
_STEP, _WIDE_STEP, _MANY = 0.5, 0.75, 36
# Of a small micrograph the outer half of each edge tile hardly counts under the window: at 1024 pixels of 1.5 A
# 57 % of the data are lost. There tiles also hang over the edges, by half of their side, where the image fades out.
_FADE = 20  # a tile's side over the width of the fading
_LEAST_SHARE = 0.02  # of a whole tile's weight, below which one that hangs over is left out
_OUTLIER = 6.0  # median absolute deviations of a tile's log variance


@dataclass(frozen=True)
class Band:
    """The pixels of a half transform between two frequencies.

    Attributes
    ----------
    tile : int
        Side of the tiles in pixels.
    pixel_size_A : float
    low, high : float
        Frequencies in 1/A.
    flat : (m,) int64
        Places in the flattened (tile, tile // 2 + 1) half transform.
    kx, ky : (m,) float32
        Frequencies in 1/A.
    """

    tile: int
    pixel_size_A: float
    low: float
    high: float
    flat: npt.NDArray[np.int64]
    kx: Float32Array
    ky: Float32Array

    @property
    def step(self) -> float:
        """One Fourier pixel in 1/A."""
        return 1 / (self.tile * self.pixel_size_A)


@dataclass(frozen=True)
class Spectra:
    """Mean spectrum of the tiles and, where kept, the tiles' own inside a band.

    Attributes
    ----------
    mean : (tile, tile // 2 + 1) float32
        Mean power, each tile scaled to mean power 1 inside the band.
    band : Band
    tiles : (t, m) float32
        Power of each tile at the band's pixels; empty where not kept.
    centres_px : (t, 2) float64
        x, y of the tiles used.
    skipped : int
        Tiles left out: not finite, constant, or with a variance unlike the others' (contaminants, carbon, holes).
    """

    mean: Float32Array
    band: Band
    tiles: Float32Array
    centres_px: FloatArray
    skipped: int


def make_band(tile: int, pixel_size_A: float, coarsest_A: float, finest_A: float) -> Band:
    """The pixels with kx > 0, and those with kx = 0 once, between two resolutions."""
    kx = np.fft.rfftfreq(tile, pixel_size_A)[None, :]
    ky = np.fft.fftfreq(tile, pixel_size_A)[:, None]
    k = np.hypot(kx, ky)
    inside = (k >= 1 / coarsest_A) & (k <= 1 / finest_A) & ((kx > 0) | (ky > 0))
    inside[:, 0] = False  # the axes hold the leakage of edges and, in scanned or scaled images, lines
    inside[0, :] = False
    flat = np.flatnonzero(inside)
    y, x = np.divmod(flat, tile // 2 + 1)
    return Band(
        tile, pixel_size_A, 1 / coarsest_A, 1 / finest_A, flat, kx[0, x].astype(np.float32), ky[y, 0].astype(np.float32)
    )


def tile_side(shape: tuple[int, int], pixel_size_A: float, field_A: float = _FIELD_A) -> int:
    """Side of a tile: about ``field_A``, fast to transform, even, and no more than the micrograph has."""
    longest = min(field_A / pixel_size_A, min(shape))
    fast = [n for n in (2**a * 3**b * 5**c for a in range(1, 13) for b in range(3) for c in range(3)) if n <= longest]
    if not fast or max(fast) < 64:
        raise InputError(
            f"a micrograph of {shape[1]} x {shape[0]} pixels is too small for its CTF; expected at least 64"
        )
    return max(fast)


def _corners(shape: tuple[int, int], tile: int, dense: bool) -> list[tuple[int, int]]:
    """First rows and columns of the tiles, evenly spaced from edge to edge."""
    for step in (_STEP, _WIDE_STEP):
        counts = [int(np.ceil((length - tile) / (step * tile))) + 1 for length in shape]
        if dense or counts[0] * counts[1] <= _MANY:
            break
    y, x = (np.round(np.linspace(0, n - tile, c)).astype(int) for n, c in zip(shape, counts, strict=True))
    return [(int(a), int(b)) for a in y for b in x]


@dataclass(frozen=True)
class _Tiling:
    """Where tiles lie, and what each sees.

    Attributes
    ----------
    corners : list of (int, int)
        First rows and columns; negative where a tile hangs over the edge.
    edges : ((rows,), (columns,)) float32, optional
        Factors with which the image fades out; their product is that of a pixel. None: it does not.
    """

    corners: list[tuple[int, int]]
    edges: tuple[Float32Array, Float32Array] | None = None


def _tiling(shape: tuple[int, int], tile: int, dense: bool) -> _Tiling:
    """Tiles that hang over where that takes no more than usual."""
    over = tile // 2
    hanging = _corners((shape[0] + 2 * over, shape[1] + 2 * over), tile, dense=True)
    if dense or len(hanging) > _MANY:
        return _Tiling(_corners(shape, tile, dense))
    rise = np.sin(np.pi / 2 * (np.arange(max(1, tile // _FADE)) + 0.5) / max(1, tile // _FADE)) ** 2
    edges = []
    for length in shape:
        edge = np.ones(length, np.float32)
        edge[: len(rise)], edge[length - len(rise) :] = rise, rise[::-1]
        edges.append(edge)
    return _Tiling([(y - over, x - over) for y, x in hanging], (edges[0], edges[1]))


def _cut(values: Float32Array, first: int, side: int) -> Float32Array:
    """A stretch of a curve, zero where it has none."""
    cut = np.zeros(side, np.float32)
    low, high = max(first, 0), min(first + side, len(values))
    cut[low - first : high - first] = values[low:high]
    return cut


def _from(part: slice, corner: int) -> slice:
    """A part of the image as a part of the tile that begins at a corner."""
    return slice(part.start - corner, part.stop - corner)


def _inside(corner: int, tile: int, length: int) -> slice:
    return slice(max(corner, 0), min(corner + tile, length))


def tile_spectra(micrograph: Micrograph, coarsest_A: float, finest_A: float, *, keep: bool = False) -> Spectra:
    """Average the power spectra of overlapping tiles under a Hann window (Welch 1967).

    Tiles of small micrographs also hang over the edges, and count as much as they see.

    Parameters
    ----------
    micrograph : Micrograph
        With a pixel size.
    coarsest_A, finest_A : float
        The band.
    keep : bool
        Keep the spectra of the tiles, for a tilt plane.

    Raises
    ------
    InputError
        No tile can be used: the image is constant or not finite.
    """
    data = micrograph.data
    tile = tile_side(micrograph.shape, micrograph.pixel_size_A)
    band = make_band(tile, micrograph.pixel_size_A, coarsest_A, finest_A)
    tiling = _tiling(micrograph.shape, tile, dense=keep)
    rows, columns = micrograph.shape
    parts = [(_inside(y, tile, rows), _inside(x, tile, columns)) for y, x in tiling.corners]
    finite = bool(np.isfinite(data).all())
    level = np.array([_log_variance(data[part], finite) for part in parts])
    good = np.isfinite(level)
    if not good.any():
        why = "constant" if finite else "not finite"
        raise InputError(
            f"{micrograph.name or 'micrograph'}: the image is {why} in every part; no CTF can be estimated"
        )
    middle = np.median(level[good])
    spread = max(np.median(np.abs(level[good] - middle)), 0.02)
    good &= np.abs(level - middle) <= _OUTLIER * 1.4826 * spread
    # one level for all tiles: what is left of a tile's own lies within two Fourier pixels of the origin
    level_of_all = np.float32(data[np.isfinite(data)].mean() if not finite else data.mean())
    # Periodic, not symmetric: only so does the window have three Fourier coefficients, as HANN_CORRELATION assumes.
    window = np.hanning(tile + 1)[:-1].astype(np.float32)
    total, shares = np.zeros((tile, tile // 2 + 1), np.float32), 0.0
    tiles, centres = [], []
    for (y, x), part, use in zip(tiling.corners, parts, good, strict=True):
        down, along = window, window
        if tiling.edges is not None:
            down, along = window * _cut(tiling.edges[0], y, tile), window * _cut(tiling.edges[1], x, tile)
        share = float((down**2).sum() * (along**2).sum() / (window**2).sum() ** 2)
        if not use or share < _LEAST_SHARE:
            continue
        seen = np.zeros((tile, tile), np.float32)
        seen[_from(part[0], y), _from(part[1], x)] = data[part] - level_of_all
        spectrum = scipy.fft.rfft2(seen * down[:, None] * along)
        power = spectrum.real**2 + spectrum.imag**2
        inside = power.ravel()[band.flat]
        # Every tile at one level: a tile of thick ice or carbon would otherwise outweigh the rest.
        scale = np.float32(1 / inside.mean(dtype=np.float64))
        total += power * (scale * np.float32(share))
        shares += share
        centres.append((x + (tile - 1) / 2, y + (tile - 1) / 2))
        if keep:
            tiles.append(inside * scale)
    own = np.array(tiles, np.float32) if keep else np.zeros((0, len(band.flat)), np.float32)
    mean = (total / np.float32(shares)).astype(np.float32)
    return Spectra(mean, band, own, np.array(centres), int(len(good) - good.sum()))


def averaged_spectrum(micrographs: Sequence[Micrograph]) -> PowerSpectrum:
    """The mean spectrum of the tiles of one or more images of the same place.

    Parameters
    ----------
    micrographs : sequence of Micrograph
        One: what :func:`tile_spectra` gives of it. Several, as sums of groups of frames: the mean of theirs.

    Returns
    -------
    PowerSpectrum

    Raises
    ------
    InputError
        No tile can be used, or an image is too small.
    """
    first = micrographs[0]
    each = [tile_spectra(image, *usual_band_A(first.pixel_size_A)) for image in micrographs]
    mean = np.asarray(np.mean([spectra.mean for spectra in each], axis=0), np.float32)
    return PowerSpectrum(mean, first.pixel_size_A, sum(len(s.centres_px) for s in each))


def usual_band_A(pixel_size_A: float) -> tuple[float, float]:
    """Band in which tiles have one level where no fit says another, coarse and fine."""
    return 20.0, max(4.0, 2.1 * pixel_size_A)


def of_average(average: PowerSpectrum, coarsest_A: float, finest_A: float) -> Spectra:
    """A mean spectrum as a fit takes it, of mean power 1 inside its band."""
    band = make_band(average.side, average.pixel_size_A, coarsest_A, finest_A)
    level = float(average.power.ravel()[band.flat].mean(dtype=np.float64))
    if not level > 0:
        raise InputError("power spectrum: no power inside the band of the fit")
    none = np.zeros((0, len(band.flat)), np.float32)
    return Spectra(average.power / np.float32(level), band, none, np.zeros((average.tiles, 2)), 0)


def _log_variance(part: Float32Array, finite: bool) -> float:
    """Log of the variance of a tile, thinned out; NaN where it is not finite or constant."""
    if not finite and not np.isfinite(part).all():
        return float("nan")
    thin = part[::4, ::4]
    variance = float(thin.var(dtype=np.float64))
    return float(np.log(variance)) if variance > 1e-12 * max(1.0, float(np.abs(thin).max()) ** 2) else float("nan")
