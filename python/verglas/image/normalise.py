"""Normalisation of particle images by their background, the pixels outside a circle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import any_arrays

# Fraction of the half box that the particle is assumed to fill if no radius is given.
_DEFAULT_RADIUS = 0.75


def _background_basis(box: int, radius_px: float | None, ramp: bool) -> tuple[npt.NDArray, npt.NDArray]:
    """Pixels outside the circle, and the background's basis on all pixels: constant, or constant and two slopes."""
    radius = _DEFAULT_RADIUS * box / 2 if radius_px is None else float(radius_px)
    pixel = np.arange(box) - box // 2
    outside = (np.hypot(pixel, pixel[:, None]) > radius).ravel()
    if np.count_nonzero(outside) < 4:
        raise InputError(
            f"normalise: a radius of {radius:g} px leaves {np.count_nonzero(outside)} background pixels in a box of "
            f"{box}; choose a smaller radius or a larger box"
        )
    x = pixel / box
    columns = [np.ones((box, box))]
    if ramp:
        columns += [np.broadcast_to(x, (box, box)), np.broadcast_to(x[:, None], (box, box))]
    return outside, np.stack([c.ravel() for c in columns], axis=1)


@any_arrays
def normalise(
    images: npt.ArrayLike, radius_px: float | None = None, *, ramp: bool = True, batch: int = 256
) -> npt.NDArray[np.float32]:
    """Bring the background of each image to mean 0 and standard deviation 1.

    The background is what lies outside a circle of ``radius_px`` about pixel N // 2. With ``ramp``, the plane
    a + b x + c y that fits it best (least squares) is subtracted from the whole image, else its mean; then the image
    is divided by the background's standard deviation.

    Parameters
    ----------
    images : (n, N, N) or (N, N) float
        Square images.
    radius_px : float, optional
        Radius of the particle in pixels; by default 0.75 of the half box.
    ramp : bool
        Remove a linear gradient (uneven ice).
    batch : int
        Images at a time; it changes memory, not the result.

    Returns
    -------
    same shape, float32
        A new array; the input is untouched.

    Raises
    ------
    InputError
        Images that are not square, too little background, an image with a flat background or with values that are not
        finite (named by its number).

    References
    ----------
    Sorzano et al., Ultramicroscopy 101 (2004) 129.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import image
    >>> stack = np.random.default_rng(0).normal(5, 3, (2, 32, 32)).astype(np.float32)
    >>> normal = image.normalise(stack, radius_px=12)
    >>> outside = np.hypot(*np.mgrid[-16:16, -16:16]) > 12
    >>> np.abs(normal[:, outside].mean(1)).max() < 1e-4, np.abs(normal[:, outside].std(1) - 1).max() < 1e-3
    (np.True_, np.True_)
    """
    array = np.asarray(images)
    if array.ndim not in (2, 3) or array.shape[-1] != array.shape[-2]:
        raise InputError(f"normalise: expected square images (n, N, N), got shape {array.shape}")
    stack = array if array.ndim == 3 else array[None]
    box = stack.shape[-1]
    outside, basis = _background_basis(box, radius_px, ramp)
    fit = np.linalg.pinv(basis[outside])  # (columns, background pixels): the least-squares solution of every image
    out = np.empty(stack.shape, np.float32)
    for start in range(0, len(stack), batch):
        chunk = stack[start : start + batch].reshape(-1, box * box).astype(np.float64)
        # One image at a time: a matrix product would depend on the batch in its last bits.
        for i, pixels in enumerate(chunk):
            _normalise_one(pixels, outside, basis, fit, start + i)
        out[start : start + batch] = chunk.reshape(-1, box, box)
    return out if array.ndim == 3 else out[0]


def _normalise_one(
    pixels: npt.NDArray, outside: npt.NDArray, basis: npt.NDArray, fit: npt.NDArray, number: int
) -> None:
    """Normalise one flat float64 image in place."""
    background = pixels[outside]
    if not np.isfinite(pixels).all():
        raise InputError(f"normalise: image {number} (from 0) holds values that are not finite; leave it out")
    # The plane is fitted outside the circle but taken off the particle too: the ramp of ice goes on under it.
    pixels -= basis @ (fit @ background)
    deviation = pixels[outside].std()
    # 1e-7 is the rounding of float32 pixels: so little spread is left of a constant, not of noise.
    if deviation <= 1e-7 * np.abs(background).max():
        raise InputError(f"normalise: the background of image {number} (from 0) is flat; leave the image out")
    pixels /= deviation
