"""``verglas check-import``: whether a set's coordinates, rows and contrast fit a micrograph, before all is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verglas import fourier
from verglas.errors import InputError
from verglas.extraction import ExtractSettings, cut_particles
from verglas.io import read_micrograph, read_particles
from verglas.types import Micrograph, Particles, Picks
from verglas.types.arrays import Float32Array, FloatArray

_MOST = 100
# Mean correlation of windows cut anew with the images of the set, above which they are the same pixels.
_SAME = 0.5


@dataclass(frozen=True)
class ImportCheck:
    """Windows cut at a set's coordinates, beside its images.

    Attributes
    ----------
    rows : {"as stored", "reversed"}
        Of the micrograph.
    correlation : float
        At the coordinates as given; negative where contrast is inverted between the two.
    best_correlation : float
        Of the largest size over offsets up to half a box.
    offset_px : (float, float)
        x, y, in pixels of the micrograph: what has to be added to the coordinates.
    particles : int
    """

    rows: str
    correlation: float
    best_correlation: float
    offset_px: tuple[float, float]
    particles: int

    @property
    def agrees(self) -> bool:
        """Whether the coordinates give the images of the set."""
        return abs(self.correlation) >= _SAME

    @property
    def sentence(self) -> str:
        """What it means."""
        x, y = self.offset_px
        if self.agrees:
            sign = "contrast inverted, as usual" if self.correlation > 0 else "contrast as in the micrograph"
            return f"coordinates agree; {sign}"
        if abs(self.best_correlation) >= _SAME:
            return f"coordinates agree after adding x {x:+g}, y {y:+g} px"
        return "the set's images are not there"


def check_import(
    particles: str | Path, micrograph: str | Path, *, pixel_size_A: float | None = None
) -> list[ImportCheck]:
    """Cut the particles of one micrograph anew and compare them with the images of the set.

    With c and s an image cut anew and one of the set, both of mean 0 and norm 1, the mean over particles of their
    correlation c * s at no offset tells whether coordinates, order of rows and sign fit; its largest value over offsets
    tells coordinates that are off by a constant (corners for centres, another origin).

    Parameters
    ----------
    particles : path
        STAR or CS file with micrograph names, coordinates and images.
    micrograph : path
        One micrograph of the set; it is known by its name without folder and ending.
    pixel_size_A : float, optional
        Of the micrograph; by default its header's.

    Returns
    -------
    list of ImportCheck
        Rows as stored, and reversed (RELION reads TIFF so).

    Raises
    ------
    InputError
        No coordinates, no particle of that micrograph, or no pixel size.
    """
    data = read_micrograph(micrograph, pixel_size_A)
    if not np.isfinite(data.pixel_size_A):
        raise InputError(f"{micrograph}: the pixel size is unknown; give pixel_size_A (--pixel-size)")
    few, xy = _of_micrograph(read_particles(particles), Path(micrograph), str(particles))
    images = few.images().astype(np.float64)
    settings = ExtractSettings(
        round(few.box * few.pixel_size_A / data.pixel_size_A),
        data.pixel_size_A,
        new_pixel_size_A=max(few.pixel_size_A, data.pixel_size_A),
        new_box=few.box,
        edge="fill",
    )
    height = data.shape[0]
    ways = (
        ("as stored", data),
        ("reversed", Micrograph(np.ascontiguousarray(data.data[::-1]), data.pixel_size_A, data.name)),
    )
    inside = (xy[:, 1] >= 0) & (xy[:, 1] < height) & (xy[:, 0] >= 0) & (xy[:, 0] < data.shape[1])
    if not inside.any():
        raise InputError(
            f"{particles}: all {len(xy)} particles of {Path(micrograph).name} lie outside its "
            f"{data.shape[1]} x {height} pixels; are the coordinates those of another binning?"
        )
    return [_compare(rows, one, xy, images, settings, few.pixel_size_A) for rows, one in ways]


def _of_micrograph(whole: Particles, micrograph: Path, where: str) -> tuple[Particles, FloatArray]:
    """Up to 100 particles of a micrograph and their coordinates."""
    needed = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")
    missing = [name for name in needed if name not in whole.table]
    if missing:
        raise InputError(f"{where}: no {', '.join(missing)}, so nothing says where the particles lay")
    # Without folder and ending: programs name one micrograph by other paths and formats.
    names = np.array([Path(str(name)).stem for name in whole.table["rlnMicrographName"]])
    rows = np.flatnonzero(names == micrograph.stem)[:_MOST]
    if not len(rows):
        examples = ", ".join(sorted(set(names.tolist()))[:3])
        raise InputError(f"{where}: no particle of the micrograph {micrograph.stem}; there are {examples}, ...")
    few = whole[rows]
    return few, few.table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(np.float64)


def _unit(images: FloatArray) -> FloatArray:
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    return np.asarray(centred / np.maximum(np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True)), 1e-12))


def _compare(
    rows: str,
    micrograph: Micrograph,
    xy: FloatArray,
    images: FloatArray,
    settings: ExtractSettings,
    pixel_size_A: float,
) -> ImportCheck:
    cut = cut_particles(micrograph, Picks(xy, micrograph.name), settings)
    if not len(cut.images):
        return ImportCheck(rows, 0.0, 0.0, (0.0, 0.0), 0)
    surface = _mean_correlation(cut.images, images[cut.kept])
    middle = len(surface) // 2
    # Of either sign: contrast may be inverted between the two.
    y, x = np.unravel_index(int(np.abs(surface).argmax()), surface.shape)
    scale = pixel_size_A / micrograph.pixel_size_A
    offset = (float(x - middle) * scale, float(y - middle) * scale)
    return ImportCheck(rows, float(surface[middle, middle]), float(surface[y, x]), offset, len(cut.images))


def _mean_correlation(cut: Float32Array, images: FloatArray) -> FloatArray:
    """Mean over particles of the circular correlation, zero offset in the middle; positive: the cut has to move there.

    A particle at p + o in the window cut at p stands at o from the middle: cut(r + o) = image(r).
    """
    a, b = fourier.forward(_unit(np.asarray(cut, np.float64)), 2), fourier.forward(_unit(images), 2)
    product = (a * b.conj()).mean(axis=0)
    return np.asarray(fourier.inverse(product, images.shape[1:]), np.float64)
