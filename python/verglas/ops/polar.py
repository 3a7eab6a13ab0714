"""Images and central slices on polar Fourier grids, and their angular harmonics."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.errors import InputError
from verglas.ops._device import as_array, cuda_session, optics_rows, refuse_non_finite
from verglas.ops.grid import Grid
from verglas.types.arrays import Complex64Array


@dataclass(frozen=True)
class PolarGrid:
    r"""Rings, angles and angular harmonics of a polar Fourier grid: what every polar op works on.

    Rings stand at :math:`r_j = 1/2 + (j + 1/2) s`, :math:`j = 0 \dots R/s - 1` (Fourier pixels): the midpoint rule
    over :math:`1/2 < |k| < R + 1/2`, each ring inside one shell :math:`\mathrm{round}(|k|)`; with spacing s = 1 they
    are 1, 2, ..., R. A sum over the full Fourier plane is :math:`\sum_r w_r \sum_\theta`,
    :math:`w_r = 2\pi r s / n_\theta`. Only the half circle :math:`\theta_j = 2\pi j / n_\theta < \pi` is stored (real
    images), and only harmonics :math:`m \ge 0`, because :math:`a_{-m} = (-1)^m a_m^*`.

    An object of diameter D in a box of N pixels has :math:`|m| \le x + x^{1/3}/2 + 1`, :math:`x = \pi r D/N`, on ring
    r (beyond it the Bessel functions :math:`J_m(x)` fall off: what is dropped changes log-likelihoods by 1e-4 of their
    spread where the object fills the mask). Packed harmonics are m-major: harmonic m holds rings
    ``first_ring[m]`` to the last, from ``offset[m]`` on.

    Parameters
    ----------
    box : int
        Image side N in pixels.
    radius : int
        R, the largest shell in use, Fourier pixels; at most (box - 1) / 2.
    diameter_px : float, optional
        Diameter of the mask the images carry, pixels; the box by default. Content outside it aliases in angle.
    spacing : float
        Ring spacing, 1 / integer: 1 or 0.5. Half the spacing halves the error of sums and doubles the cost.
    n_theta : int, optional
        Angles on the full circle, even; by default enough for the harmonics of shifted, noisy images not to alias.

    Raises
    ------
    InputError
        A value is out of range.

    Examples
    --------
    >>> from verglas import ops
    >>> g = ops.PolarGrid(64, 12, diameter_px=48)
    >>> g.n_rings, g.radii[[0, -1]].tolist(), g.n_theta % 2
    (12, [1.0, 12.0], 0)
    """

    box: int
    radius: int
    diameter_px: float | None = None
    spacing: float = 1.0
    n_theta: int = 0
    radii: npt.NDArray[np.float64] = field(init=False, repr=False, compare=False)
    limits: npt.NDArray[np.int32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay out the rings once and let the kernel check the whole."""
        if self.box < 3 or not 1 <= self.radius <= (self.box - 1) // 2:
            raise InputError(
                f"PolarGrid: expected a radius of 1 to (box - 1) / 2 = {(self.box - 1) // 2}, got {self.radius}"
            )
        per_pixel = round(1 / self.spacing) if self.spacing > 0 else 0
        if per_pixel < 1 or abs(per_pixel * self.spacing - 1) > 1e-9:
            raise InputError(f"PolarGrid: expected a ring spacing of 1 or 1/integer, got {self.spacing}")
        diameter = float(self.box if self.diameter_px is None else self.diameter_px)
        if not 0 < diameter <= self.box:
            raise InputError(f"PolarGrid: expected a diameter above 0 and at most {self.box} px, got {diameter}")
        radii = 0.5 + (np.arange(self.radius * per_pixel) + 0.5) * self.spacing
        x = np.pi * radii * diameter / self.box
        limits = np.ceil(x + np.cbrt(x) / 2 + 1).astype(np.int32)
        least = int(2 * limits[-1] + 2)
        # Images reach further in m than slices: they are shifted, and their noise ends at the mask's edge.
        n_theta = self.n_theta or 2 * int(np.ceil(x[-1] + 2 * np.cbrt(x[-1]) + 1)) + 2
        if n_theta % 2 or n_theta < least:
            raise InputError(f"PolarGrid: expected an even n_theta of at least {least}, got {self.n_theta}")
        for name, value in (("diameter_px", diameter), ("n_theta", int(n_theta)), ("radii", radii), ("limits", limits)):
            object.__setattr__(self, name, value)

    @property
    def n_rings(self) -> int:
        """Number of rings."""
        return len(self.radii)

    @property
    def max_m(self) -> int:
        """Largest harmonic kept."""
        return int(self.limits[-1])

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """w_r of each ring."""
        return 2 * np.pi * self.radii * self.spacing / self.n_theta

    @property
    def shells(self) -> npt.NDArray[np.int64]:
        """Shell round(|k|) that each ring lies in."""
        return np.rint(self.radii).astype(np.int64)

    @cached_property
    def first_ring(self) -> npt.NDArray[np.int64]:
        """First ring on which harmonic m is kept, (max_m + 1,)."""
        return np.searchsorted(self.limits, np.arange(self.max_m + 1))

    @cached_property
    def offset(self) -> npt.NDArray[np.int64]:
        """Where harmonic m starts in packed arrays, (max_m + 2,)."""
        return np.concatenate([[0], np.cumsum(self.n_rings - self.first_ring)])

    @property
    def size(self) -> int:
        """Complex values per image or slice in packed arrays."""
        return int(self.offset[-1])

    @cached_property
    def native(self) -> Any:
        """The kernel's own copy of this grid."""
        return core.PolarGrid(self.box, self.n_theta, self.radii, self.limits, float(self.spacing))

    def unpack(self, harmonics: npt.ArrayLike) -> npt.NDArray[Any]:
        """Packed (..., size) harmonics as (..., max_m + 1, n_rings), zero where none are kept."""
        packed = np.asarray(harmonics)
        out = np.zeros((*packed.shape[:-1], self.max_m + 1, self.n_rings), packed.dtype)
        for m, first in enumerate(self.first_ring):
            out[..., m, first:] = packed[..., self.offset[m] : self.offset[m + 1]]
        return out


def _cuda_polar() -> Any:
    """What is done on a device, loaded only for one."""
    from verglas.ops import _cuda_polar as module

    return module


def _samples(samples: npt.ArrayLike) -> npt.NDArray[Any]:
    array = as_array(samples, np.complex64)
    return array[None] if array.ndim == 2 else array


def polar(images: npt.ArrayLike, grid: PolarGrid, *, device: str = "cpu", threads: int | None = None) -> Complex64Array:
    r"""Fourier transforms of ``n`` images on the rings of a polar grid.

    .. math:: X(r, \theta) = \sum_n x_n \exp\left(-2\pi i\, r (\cos\theta, \sin\theta)\cdot n / N\right)

    with n relative to the centre pixel N // 2, unnormalised.

    Parameters
    ----------
    images : (n, box, box) float32
        Real images.
    grid : PolarGrid
        Rings and angles.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    (n, n_rings, n_theta // 2) complex64
        The half circle; the other half is the complex conjugate. Relative error (L2) below 1e-4.

    Raises
    ------
    InputError
        A pixel is not finite; the message names the image.
    ValueError
        The images are not of the grid's box.

    References
    ----------
    Kaiser-Bessel interpolation: Beatty, Nishimura and Pauly (2005) IEEE Trans. Med. Imaging 24, 799-808.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> image = np.zeros((1, 16, 16), np.float32); image[0, 8, 8] = 1
    >>> x = ops.polar(image, ops.PolarGrid(16, 6))
    >>> bool(np.allclose(x, 1, atol=1e-4))
    True
    """
    if device != "cpu":
        cuda = cuda_session(device)
        with cuda.active() as stream:
            on_device = _cuda_polar().samples_of_images(images, grid, cuda, stream)
            refuse_non_finite(on_device[:, 0], "ops.polar: image {}")
        return on_device
    images = as_array(images, np.float32)
    samples = core.polar(images, grid.native, resolve_threads(threads))
    # A sum over all pixels: a NaN or infinite pixel cannot hide from every sample of the first ring.
    refuse_non_finite(samples[:, 0], "ops.polar: image {}")
    return samples


def polar_slices(
    spectrum: npt.NDArray[np.complex64],
    grid: Grid,
    matrices: npt.ArrayLike,
    polar_grid: PolarGrid,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Complex64Array:
    r"""Central slices of a gridded map on the rings of a polar grid.

    .. math:: A_i(r, \theta) = \hat V\left(A_i^T\, r (\cos\theta, \sin\theta, 0)\right)

    with the same interpolation as :func:`verglas.ops.project`. Make the slices of a block of directions once, at
    psi = 0, and share them among all images: a slice turned by psi is this one read at theta + psi.

    Parameters
    ----------
    spectrum : grid.shape complex64
        :func:`verglas.gridding.to_grid` of the map.
    grid : Grid
        Its geometry.
    matrices : (n, 3, 3) float64
        Rotation matrices in RELION's convention, one per direction.
    polar_grid : PolarGrid
        Rings and angles; its box is the grid's.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    (n, n_rings, n_theta // 2) complex64

    Raises
    ------
    ValueError
        Shapes disagree, or the grid does not reach the last ring.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import gridding, ops
    >>> point = np.zeros((16, 16, 16), np.float32); point[8, 8, 8] = 1
    >>> g = ops.Grid(16)
    >>> a = ops.polar_slices(gridding.to_grid(point, g), g, np.eye(3)[None], ops.PolarGrid(16, 6))
    >>> bool(np.allclose(a, 1, atol=2e-3))
    True
    """
    if device != "cpu":
        cuda = cuda_session(device)
        with cuda.active() as stream:
            rotations = cuda.rotations(matrices)
            out = cuda.empty((len(rotations), polar_grid.n_rings, polar_grid.n_theta // 2), np.complex64)
            cuda.kernels.polar_slices(
                grid.native_for(cuda.kernels),
                cuda.to_device_or_none(spectrum),
                rotations,
                _cuda_polar().tables(polar_grid, cuda),
                polar_grid.radii[-1],
                out,
                stream,
            )
        return out
    return core.polar_slices(
        grid.native, spectrum, as_array(matrices, np.float64), polar_grid.native, resolve_threads(threads)
    )


def polar_harmonics(
    samples: npt.ArrayLike, grid: PolarGrid, *, device: str = "cpu", threads: int | None = None
) -> Complex64Array:
    r"""Packed angular harmonics of polar samples, normalised: the :math:`a_m(r)` of central slices.

    .. math:: a_m(r) = \frac{1}{n_\theta} \sum_\theta A(r, \theta)\, e^{-i m \theta}

    Parameters
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
        From :func:`polar` or :func:`polar_slices`.
    grid : PolarGrid
        The same grid.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. CPU only.

    Returns
    -------
    (n, grid.size) complex64
        Harmonic m on rings ``grid.first_ring[m]`` and above, m-major; see :meth:`PolarGrid.unpack`.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> g = ops.PolarGrid(16, 4)
    >>> a = ops.polar_harmonics(np.ones((1, g.n_rings, g.n_theta // 2), np.complex64), g)
    >>> g.unpack(a)[0, :2].real.round(5).tolist()
    [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    if device != "cpu":
        cuda = cuda_session(device)
        with cuda.active() as stream:
            return _cuda_polar().harmonics_of_samples(samples, grid, cuda, stream)
    return core.polar_harmonics(_samples(samples), grid.native, 1.0 / grid.n_theta, resolve_threads(threads))


def polar_power(
    samples: npt.ArrayLike, grid: PolarGrid, n_power: int = 3, *, device: str = "cpu", threads: int | None = None
) -> Complex64Array:
    r"""Harmonics 0, 2, ..., 2 (n_power - 1) of :math:`|A|^2` on each ring, normalised by :math:`1/n_\theta`.

    Parameters
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
        From :func:`polar_slices` or :func:`polar`.
    grid : PolarGrid
        The same grid.
    n_power : int
        Harmonics kept: 1 suffices without astigmatism, a few more with it.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. CPU only.

    Returns
    -------
    (n, n_rings, n_power) complex64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> g = ops.PolarGrid(16, 4)
    >>> p = ops.polar_power(2j * np.ones((1, g.n_rings, g.n_theta // 2), np.complex64), g)
    >>> bool(np.allclose(p[0, 0], [4, 0, 0], atol=1e-5))
    True
    """
    if device != "cpu":
        cuda = cuda_session(device)
        with cuda.active():
            return _cuda_polar().power_of_samples(samples, grid, int(n_power), cuda)
    return core.polar_power(_samples(samples), grid.native, int(n_power), resolve_threads(threads))


def polar_ctf_power(
    inv_sigma2: npt.ArrayLike,
    grid: PolarGrid,
    n_power: int = 1,
    *,
    ctf: npt.ArrayLike | None = None,
    pixel_size_A: float = 1.0,
    device: str = "cpu",
    threads: int | None = None,
) -> Complex64Array:
    r"""Harmonics 0, 2, ..., 2 (n_power - 1) of :math:`w_r C^2 / \sigma^2` on each ring, unnormalised.

    With :func:`polar_power` of a slice, :math:`\sum_r p_0(r)\,q_0(r)` is the power of that slice in an image, averaged
    over psi.

    Parameters
    ----------
    inv_sigma2 : (n, n_rings) float32
        1 / noise variance of each image on each ring.
    grid : PolarGrid
        Rings and angles.
    n_power : int
        Harmonics kept.
    ctf, pixel_size_A
        As in :func:`polar_weighted`.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. CPU only.

    Returns
    -------
    (n, n_rings, n_power) complex64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> g = ops.PolarGrid(16, 4)
    >>> q = ops.polar_ctf_power(np.ones((1, 4)), g)
    >>> bool(np.allclose(q[0, :, 0], g.weights * g.n_theta))
    True
    """
    if device != "cpu":
        cuda = cuda_session(device)
        with cuda.active() as stream:
            return _cuda_polar().ctf_power(inv_sigma2, grid, int(n_power), ctf, float(pixel_size_A), cuda, stream)
    params = None if ctf is None else optics_rows(ctf)
    return core.polar_ctf_power(
        grid.native,
        params,
        float(pixel_size_A),
        as_array(inv_sigma2, np.float32),
        int(n_power),
        resolve_threads(threads),
    )


def polar_weighted(
    samples: npt.ArrayLike,
    grid: PolarGrid,
    shifts_px: npt.ArrayLike,
    *,
    ctf: npt.ArrayLike | None = None,
    pixel_size_A: float = 1.0,
    inv_sigma2: npt.ArrayLike | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Complex64Array:
    r"""Weighted harmonics of images at many shifts: the :math:`w_r b_m(r)` of the likelihood.

    .. math:: b_m(r) = \sum_\theta \frac{C X}{\sigma^2}\, e^{-2\pi i k\cdot t/N}\, e^{-i m \theta},

    so that :math:`\sum_m \epsilon_m \mathrm{Re}\left(e^{-im\psi} \sum_r a_m^* w_r b_m\right)` is the cross term of a
    slice turned by :math:`\psi` with the image moved by t.

    Parameters
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
        From :func:`polar`.
    grid : PolarGrid
        The same grid.
    shifts_px : (n_shifts, 2) float32
        x, y in pixels; the image is moved by this much.
    ctf : (n, 14) or (n, 9) float64, optional
        CTF parameters, columns as in :func:`verglas.ops.ctf`; no CTF by default.
    pixel_size_A : float
        Pixel size in angstrom, for the CTF.
    inv_sigma2 : (n, n_rings) float32, optional
        1 / noise variance on each ring; 1 by default.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. CPU only.

    Returns
    -------
    (n, n_shifts, grid.size) complex64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> g = ops.PolarGrid(16, 4)
    >>> b = ops.polar_weighted(np.ones((1, g.n_rings, g.n_theta // 2), np.complex64), g, [[0, 0]])
    >>> bool(np.allclose(g.unpack(b)[0, 0, 0], 2 * np.pi * g.radii))
    True
    """
    if device != "cpu":
        cuda, there = cuda_session(device), _cuda_polar()
        with cuda.active() as stream:
            x = there.samples_on_device(samples, grid, cuda)
            images = there.PolarImages.of(grid, x, inv_sigma2=inv_sigma2, ctf=ctf, cuda=cuda)
            return there.weighted_harmonics(images, grid, shifts_px, float(pixel_size_A), cuda, stream)
    samples = _samples(samples)
    n = len(samples)
    inv = np.broadcast_to(np.float32(1) if inv_sigma2 is None else np.asarray(inv_sigma2), (n, grid.n_rings))
    params = None if ctf is None else optics_rows(ctf)
    return core.polar_weighted(
        samples,
        grid.native,
        params,
        float(pixel_size_A),
        as_array(inv, np.float32),
        as_array(shifts_px, np.float32),
        resolve_threads(threads),
    )
