"""Normalised cross-correlation of a micrograph with a bank of templates.

With w a mask of n pixels about every position p, I the image and T a template,

    NCC(p) = sum_w (I - mean_w I) (T - mean_w T) / sqrt( sum_w (I - mean_w I)^2  sum_w (T - mean_w T)^2 )

(Roseman 2003, J. Struct. Biol. 145, 91-99: local means and variances by correlation with the mask): 1 at a noiseless
copy whatever its grey scale. Templates turned and tilted by small steps resemble each other, so their matrix is close
to one of low rank; the image is correlated with its singular vectors only, and the score of every template is a linear
combination of those few maps. One transform per singular vector instead of one per template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier, gridding, image, masks, ops
from verglas.errors import InputError
from verglas.fourier import fast_size
from verglas.geometry import euler_to_matrix, orientation_grid
from verglas.types import Map, Optics
from verglas.types.arrays import Float32Array

# Share of the templates' power that the singular vectors leave out: scores change by at most its square root.
_LEFT_OUT = 1e-4
# Where the image's local deviation is below this share of its largest there is nothing to correlate with.
_FLAT = 1e-3
# The mask of the correlation sees the particle and the bright rim that defocus puts about it.
MASK_OVER_PARTICLE = 1.15


@dataclass(frozen=True)
class TemplateBank:
    """Templates as combinations of a few images: template m = ``mix[m] @ basis``.

    Attributes
    ----------
    basis : (k, s, s) float32
        Orthonormal images.
    mix : (m, k) float32
        Unit rows up to what is left out.
    mask : (s, s) float32
        w, 0 or 1.
    pixel_size_A : float
        Sampling of the images.
    """

    basis: Float32Array
    mix: Float32Array
    mask: Float32Array
    pixel_size_A: float

    def __len__(self) -> int:
        return len(self.mix)


def template_bank(
    templates: npt.ArrayLike, pixel_size_A: float, mask_radius_px: float, *, left_out: float = _LEFT_OUT
) -> TemplateBank:
    """Bank of given images, normalised under a circular mask and compressed.

    Parameters
    ----------
    templates : (m, s, s) float
        Particles white, centred on pixel s // 2.
    pixel_size_A : float
        Their sampling: that of the image to be searched.
    mask_radius_px : float
        Radius of the mask w.
    left_out : float
        Share of the power that compression may leave out; 0 keeps every template exact.

    Returns
    -------
    TemplateBank

    Raises
    ------
    InputError
        No templates, values that are not finite, or a template that is constant under the mask.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.template import template_bank
    >>> bank = template_bank(np.random.default_rng(0).normal(size=(3, 9, 9)), 4.0, mask_radius_px=4)
    >>> len(bank), bank.basis.shape
    (3, (3, 9, 9))
    """
    stack = np.asarray(templates, np.float64)
    if stack.ndim != 3 or not len(stack) or stack.shape[1] != stack.shape[2]:
        raise InputError(f"templates: expected a stack (m, s, s) of at least one image, got shape {stack.shape}")
    if not np.isfinite(stack).all():
        raise InputError("templates: values that are not finite")
    side = stack.shape[1]
    mask = masks.soft_circle(side, mask_radius_px)
    inside = mask > 0
    rows = stack[:, inside]
    rows = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1)
    flat = np.flatnonzero(norm <= 1e-9 * max(float(np.abs(stack).max()), 1e-300))
    if flat.size:
        raise InputError(f"template {flat[0]} (from 0) is constant under the mask; {flat.size} templates concerned")
    rows /= norm[:, None]
    vectors, remaining = _singular_vectors(rows)
    rank = min(int(np.searchsorted(-remaining, -max(left_out, 1e-13))) + 1, len(vectors))
    basis = np.zeros((rank, side, side), np.float32)
    basis[:, inside] = vectors[:rank]
    return TemplateBank(basis, (rows @ vectors[:rank].T).astype(np.float32), mask, float(pixel_size_A))


def _singular_vectors(rows: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Right singular vectors as rows, largest first, and the share of the power that those up to each leave out."""
    if len(rows) == 1:
        return rows, np.zeros(1)
    # From the smaller of the two Gram matrices: templates against templates, or pixels against pixels.
    few = len(rows) <= rows.shape[1]
    powers, vectors = np.linalg.eigh(rows @ rows.T if few else rows.T @ rows)
    powers, vectors = powers[::-1], vectors[:, ::-1].T
    kept = powers > 1e-12 * powers[0]
    powers, vectors = powers[kept], vectors[kept]
    if few:
        vectors = vectors @ rows / np.sqrt(powers)[:, None]
    return vectors, 1 - np.cumsum(powers) / powers.sum()


def _pad_for_transform(data: Float32Array, margin: int) -> tuple[Float32Array, tuple[int, int]]:
    """Mirrored borders to a size with quick transforms; the corner of the image in it."""
    shape = tuple(fast_size(n + 2 * margin) for n in data.shape)
    before = [(m - n) // 2 for m, n in zip(shape, data.shape, strict=True)]
    after = [m - n - b for m, n, b in zip(shape, data.shape, before, strict=True)]
    mode = "reflect" if min(data.shape) > max(*before, *after) else "edge"
    padded = np.pad(data, list(zip(before, after, strict=True)), mode=mode)  # type: ignore[call-overload]
    return padded, (before[0], before[1])


@dataclass(frozen=True)
class SearchImage:
    """An image's transform and its local deviation under a mask: what every bank of that mask is searched with.

    Attributes
    ----------
    spectrum : complex64
        Of the image, mirrored beyond its border.
    deviation : (y, x) float32
        sqrt(sum_w (I - mean_w I)^2) about every pixel.
    padded : (int, int)
        Shape of the transform in real space.
    corner : (int, int)
        Where the image lies in it.
    """

    spectrum: npt.NDArray[np.complex64]
    deviation: Float32Array
    padded: tuple[int, int]
    corner: tuple[int, int]

    @property
    def window(self) -> tuple[slice, slice]:
        """The image in the padded one."""
        (y, x), (height, width) = self.corner, self.deviation.shape
        return slice(y, y + height), slice(x, x + width)


def search_image(data: Float32Array, mask: Float32Array, *, threads: int | None = None) -> SearchImage:
    """Transform an image once for many banks with the same mask.

    Raises
    ------
    InputError
        The mask is larger than the image.
    """
    side = mask.shape[0]
    if side > min(data.shape):
        raise InputError(f"templates of {side} pixels do not fit an image of {data.shape[1]} x {data.shape[0]} pixels")
    padded, corner = _pad_for_transform(np.asarray(data, np.float32), side // 2 + 1)
    deviation = local_deviation(padded, mask, threads)
    window = tuple(slice(c, c + n) for c, n in zip(corner, data.shape, strict=True))
    shape = (int(padded.shape[0]), int(padded.shape[1]))
    return SearchImage(fourier.forward(padded, 2, threads=threads), deviation[window], shape, corner)


def basis_maps(searched: SearchImage, bank: TemplateBank, *, threads: int | None = None) -> Float32Array:
    """Correlation of an image with the basis of a bank, (k, y, x).

    The normalised cross-correlation with template m is ``mix[m] @ maps / searched.deviation``.
    """
    maps = np.empty((len(bank.basis), *searched.deviation.shape), np.float32)
    for k, vector in enumerate(bank.basis):
        conjugate = fourier.forward(image.crop_or_pad(vector, searched.padded), 2, threads=threads).conj()
        product = fourier.inverse(searched.spectrum * conjugate, searched.padded, threads=threads)
        maps[k] = product[searched.window]
    return maps


def correlate(
    data: Float32Array | SearchImage, bank: TemplateBank, *, threads: int | None = None
) -> tuple[Float32Array, npt.NDArray[np.int32]]:
    """Largest normalised cross-correlation over a bank at every pixel, and the template that gives it.

    Parameters
    ----------
    data : (y, x) float32, or SearchImage
        Image, particles white, sampled as the bank. Beyond its border it is taken as mirrored.
    bank : TemplateBank
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    score : (y, x) float32
        In [-1, 1]; 1 at a noiseless copy of a template, 0 where the image is flat.
    template : (y, x) int32

    Raises
    ------
    InputError
        The bank is larger than the image.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.template import correlate, template_bank
    >>> t = np.random.default_rng(0).normal(size=(2, 9, 9)).astype(np.float32)
    >>> image = np.zeros((40, 50), np.float32); image[10:19, 20:29] = 3 * t[1] - 1
    >>> score, which = correlate(image, template_bank(t, 4.0, 4))
    >>> round(float(score[14, 24]), 4), int(which[14, 24])
    (1.0, 1)
    """
    searched = data if isinstance(data, SearchImage) else search_image(data, bank.mask, threads=threads)
    deviation = searched.deviation
    maps = basis_maps(searched, bank, threads=threads).reshape(len(bank.basis), -1)
    best, which = ops.match(maps, bank.mix, threads=threads)
    usable = deviation > _FLAT * deviation.max(initial=0.0)
    score = np.divide(best.reshape(deviation.shape), deviation, out=np.zeros_like(deviation), where=usable)
    return score.clip(-1, 1), which.reshape(deviation.shape)


def local_deviation(padded: Float32Array, mask: Float32Array, threads: int | None = None) -> Float32Array:
    """Norm of the image minus its mean under the mask about every pixel, sqrt(sum_w (I - mean_w I)^2)."""
    window = fourier.forward(image.crop_or_pad(mask, padded.shape), 2, threads=threads).conj()
    centred = padded.astype(np.float64) - padded.mean(dtype=np.float64)  # float64: squares minus squared sums cancel
    sums = fourier.inverse(fourier.forward(centred, 2, threads=threads) * window, padded.shape, threads=threads)
    squares = fourier.inverse(fourier.forward(centred**2, 2, threads=threads) * window, padded.shape, threads=threads)
    return np.sqrt(np.maximum(squares - sums**2 / mask.sum(), 0)).astype(np.float32)


@dataclass(frozen=True)
class ProjectionSettings:
    """How templates are made from a map.

    Attributes
    ----------
    diameter_A : float
        Of the particle; the mask is 1.15 times as wide, to see the halo.
    symmetry : str
        Point group of the map.
    step_deg : float
        Step of directions and in-plane angles.
    resolution_A : float, optional
        Low-pass; by default a sixth of the diameter.
    """

    diameter_A: float
    symmetry: str = "C1"
    step_deg: float = 15.0
    resolution_A: float | None = None


def _low_pass(box: int, pixel_size_A: float, resolution_A: float) -> npt.NDArray[np.float64]:
    """Raised-cosine edge of three Fourier pixels about the resolution."""
    limit = box * pixel_size_A / resolution_A
    return fourier.raised_cosine(fourier.radius((box, box)) - (limit - 1.5), 3.0)


def _resample(values: npt.NDArray, ndim: int, old_A: float, new_A: float) -> Float32Array:
    """Images (ndim = 2) or a volume (3) at another pixel size, about the same origin.

    Cropping a transform reaches the pixel sizes n / n' only: the box is padded by up to 32 pixels to the one that comes
    closest.
    """
    box = values.shape[-1]
    sides = np.arange(box, box + 33)
    wanted = sides * (old_A / new_A)
    side = int(sides[np.argmin(np.abs(wanted - np.rint(wanted)) / wanted)])
    padded = image.crop_or_pad(values, (side,) * ndim, "border")
    return image.fourier_resample(padded, (round(side * old_A / new_A),) * ndim).astype(np.float32)


def _template_side(diameter_A: float, pixel_size_A: float) -> int:
    """Odd side that holds the mask."""
    return 2 * int(np.ceil(MASK_OVER_PARTICLE / 2 * diameter_A / pixel_size_A)) + 1


def projection_templates(
    volume: Map, settings: ProjectionSettings, pixel_size_A: float, optics: Optics | None = None
) -> Float32Array:
    """Projections of a map at the sampling of the search, low-passed and modulated by a CTF.

    Parameters
    ----------
    volume : Map
        Particle white.
    settings : ProjectionSettings
    pixel_size_A : float
        Sampling of the templates.
    optics : Optics, optional
        One entry: the CTF of the micrograph. Without it templates are unmodulated.

    Returns
    -------
    (m, s, s) float32

    Raises
    ------
    InputError
        The map is smaller than the particle, or several CTFs.
    """
    field = volume.box * volume.pixel_size_A
    if field < settings.diameter_A:
        raise InputError(f"template map: {field:.0f} A across, smaller than the particle of {settings.diameter_A:g} A")
    if optics is not None and len(optics) != 1:
        raise InputError(f"template CTF: expected the optics of one micrograph, got {len(optics)}")
    directions, psi = orientation_grid(settings.step_deg, settings.symmetry)
    angles = np.column_stack([np.repeat(directions, len(psi), axis=0), np.tile(psi, len(directions))])
    # The map at the sampling of the search, in a box wide enough for the fringes of the CTF.
    side = _template_side(settings.diameter_A, pixel_size_A)
    box = 2 * fast_size(side)
    coarse = _resample(volume.data, 3, volume.pixel_size_A, pixel_size_A)
    coarse = image.crop_or_pad(coarse, (box, box, box)).astype(np.float32)
    grid = ops.Grid(box)
    resolution = settings.resolution_A or max(settings.diameter_A / 6, 2 * pixel_size_A)
    factor = _low_pass(box, pixel_size_A, resolution)
    if optics is not None:
        factor = factor * ops.ctf(optics.as_params(), box, pixel_size_A)[0]
    gridded = gridding.to_grid(coarse, grid)
    out = np.empty((len(angles), side, side), np.float32)
    for start in range(0, len(angles), 256):
        part = slice(start, start + 256)
        slices = ops.project(gridded, grid, euler_to_matrix(angles[part]))
        images = fourier.inverse(slices * factor.astype(np.float32), (box, box))
        out[part] = image.crop_or_pad(images, (side, side))
    return out


def turned_templates(
    averages: npt.ArrayLike, old_pixel_size_A: float, settings: ProjectionSettings, pixel_size_A: float
) -> Float32Array:
    """Class averages at the sampling of the search, low-passed and turned in the plane.

    Parameters
    ----------
    averages : (m, n, n) float
        Particles white, centred. They carry the CTF they were averaged with.
    old_pixel_size_A : float
        Their pixel size.
    settings : ProjectionSettings
        ``step_deg`` is the in-plane step; the symmetry is not used.
    pixel_size_A : float
        Sampling of the templates.

    Returns
    -------
    (m * angles, s, s) float32
    """
    stack = np.asarray(averages, np.float32)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or not len(stack):
        raise InputError(f"templates: expected class averages (m, n, n), got shape {stack.shape}")
    side = _template_side(settings.diameter_A, pixel_size_A)
    small = _resample(stack, 2, old_pixel_size_A, pixel_size_A)
    small = image.crop_or_pad(small, (2 * side, 2 * side), "border")
    resolution = settings.resolution_A or max(settings.diameter_A / 6, 2 * pixel_size_A)
    low = _low_pass(2 * side, pixel_size_A, resolution).astype(np.float32)
    small = fourier.inverse(fourier.forward(small, 2) * low, (2 * side, 2 * side))
    small = image.crop_or_pad(small, (side, side))
    angles = np.arange(0, 360, 360 / max(1, round(360 / settings.step_deg)))
    turned: Sequence[Float32Array] = [image.rotate(t, float(a)) for t in small for a in angles]
    return np.stack(turned)
