"""Images of polycrystalline films, whose diffraction is a ring that anisotropic magnification makes an ellipse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.simulate.noise import stream
from verglas.types import Micrograph
from verglas.types.arrays import any_arrays

GOLD_111_A = 2.355  # spacing of the {111} planes of gold
_REACH = 2.5  # of a grain's Gaussian, standard deviations
_LAYERS = 2.0  # grains that lie over one another at a place, on average


@any_arrays
def polycrystal(
    shape: tuple[int, int],
    pixel_size_A: float,
    matrix: npt.ArrayLike = ((1.0, 0.0), (0.0, 1.0)),
    *,
    spacing_A: float = GOLD_111_A,
    grain_A: float = 60.0,
    snr: float = 0.05,
    seed: int = 0,
) -> Micrograph:
    """Simulate an image of a film of small crystals, seen through a magnification matrix.

    Each grain shows one set of lattice planes as fringes of any direction; white noise is added.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    pixel_size_A : float
    matrix : (2, 2) array_like
        M: what has the frequency Mk on the specimen has k in the image (rlnMagMat00 to 11).
    spacing_A : float
        Of the planes; that of gold {111} by default.
    grain_A : float
        Full width of a grain.
    snr : float
        Variance of the fringes over that of the noise.
    seed : int

    Returns
    -------
    Micrograph

    Raises
    ------
    InputError
        Fringes finer than Nyquist, or a matrix that is no 2 x 2 one.

    Examples
    --------
    >>> import verglas as vg
    >>> vg.simulate.polycrystal((128, 256), 0.8, seed=1).shape
    (128, 256)
    """
    m = np.asarray(matrix, np.float64)
    if m.shape != (2, 2) or not np.isfinite(m).all() or abs(np.linalg.det(m)) < 0.1:
        raise InputError(f"polycrystal: matrix: expected 2 x 2 near the identity, got {m.tolist()}")
    back = np.linalg.inv(m)
    if 2 * pixel_size_A * np.linalg.norm(back, 2) >= spacing_A:
        raise InputError(
            f"polycrystal: fringes of {spacing_A:g} A cannot be seen with pixels of {pixel_size_A:g} A; expected less "
            f"than {spacing_A / 2:g} A"
        )
    random = stream(seed, 0)
    sd_px = grain_A / 2.355 / pixel_size_A
    reach = int(np.ceil(_REACH * sd_px))
    count = int(np.ceil(_LAYERS * (shape[0] + 2 * reach) * (shape[1] + 2 * reach) / (2 * np.pi * sd_px**2)))
    image = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach), np.float32)
    x = np.arange(2 * reach + 1) - reach
    bell = np.exp(-0.5 * (x / sd_px) ** 2)
    for _ in range(count):
        angle, phase = random.uniform(0, 2 * np.pi, 2)
        kx, ky = back @ [np.cos(angle), np.sin(angle)] / spacing_A * pixel_size_A
        row, column = random.integers(0, shape[0]), random.integers(0, shape[1])
        waves = np.exp(2j * np.pi * ky * x + 1j * phase)[:, None] * np.exp(2j * np.pi * kx * x)
        part = image[row : row + len(x), column : column + len(x)]
        part += random.normal() * (bell[:, None] * bell * waves.real).astype(np.float32)
    image = image[reach : reach + shape[0], reach : reach + shape[1]]
    noise = random.normal(0, float(image.std()) / np.sqrt(snr), shape).astype(np.float32)
    return Micrograph(image + noise, pixel_size_A, "polycrystal")
