r"""Ewald's sphere: images as the sum of two side bands, each a slice on a paraboloid.

What a weak object adds to the electron wave at the image frequency k lies on the sphere of radius
:math:`1/\lambda`, which close to the axis is the paraboloid :math:`z = \mp s \lambda |k|^2 / 2`; an image is
twice the real part of that wave beside the undiffracted one:

.. math::
    I(k) = \frac{1}{2i} \left[ e^{i\chi(k)}\, V\!\left(k, -\tfrac{s \lambda |k|^2}{2}\right)
           - e^{-i\chi(k)}\, V\!\left(k, +\tfrac{s \lambda |k|^2}{2}\right) \right]

with all that CTF = sin(chi) holds. s = +1 where the electrons travel along the +z of the particle as it is turned
(underfocus grows with z), -1 where they travel against it. Flat, both bands are one slice and I = sin(chi) V.

Reconstruction inserts each band's share: :math:`\frac12(S + iC) I` on the surface of the first and
:math:`\frac12(S - iC) I` on that of the second, S and C being sine and cosine of chi with the envelope, weighted by

.. math:: w = \tfrac14 \left[ (S^2 + C^2) + \rho\,(S^2 - C^2) \right]

where :math:`\rho` is how alike V is on both surfaces: 1 where they are closer than the particle's transform varies,
0 far out, in between the transform of a ball, :math:`3(\sin x - x \cos x)/x^3` with :math:`x = \pi D \lambda |k|^2`.
The second part of w is what one band leaves in the other; its average over defoci is 0, and with it the flat limit is
exact.

References: DeRosier (2000) Ultramicroscopy 81, 83-98; Russo and Henderson (2018) Ultramicroscopy 187, 26-33 and 56-63.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas._array_module import array_module
from verglas.errors import InputError
from verglas.optics import wavelength_A
from verglas.types.arrays import Array, FloatArray

if TYPE_CHECKING:
    from verglas.reconstruction.sums import Batch

Sign = Literal["positive", "negative"]
_VOLTAGE, _PHASE_SHIFT = 3, 6  # columns of Optics.as_params
_FILL = 0.75  # share of the box that a particle of unknown diameter is taken to fill


def curvatures(params: FloatArray, box: int, pixel_size_A: float, sign: Sign = "positive") -> FloatArray:
    r"""Curvature of the second band's slice, :math:`s \lambda / (2 N p)` per Fourier pixel: what the kernels take.

    Parameters
    ----------
    params : (n, 14) float64
        ``Optics.as_params()``.
    box : int
    pixel_size_A : float
    sign : {"positive", "negative"}
        s of the module's formula.

    Returns
    -------
    (n,) float64

    Raises
    ------
    InputError
        Another sign.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.reconstruction.ewald import curvatures
    >>> curvatures(vg.Optics([15000], [15000]).as_params(), 100, 1.0).round(7).tolist()
    [9.84e-05]
    """
    if sign not in ("positive", "negative"):
        raise InputError(f"ewald_sign: expected positive or negative, got {sign!r}")
    lift = wavelength_A(np.asarray(params)[:, _VOLTAGE]) / (2 * box * pixel_size_A)
    return np.asarray(lift if sign == "positive" else -lift, np.float64)


def quadrature(params: FloatArray, box: int, pixel_size_A: float, **where: Any) -> Array:
    """C: the cosine of the phase whose sine is the CTF, with the same envelope and scale, (n, box, box // 2 + 1)."""
    turned = np.array(params, np.float64)
    turned[:, _PHASE_SHIFT] += 90.0
    return ops.ctf(turned, box, pixel_size_A, **where)


@dataclass(frozen=True)
class SideBands:
    """What curves the slices of some images.

    Attributes
    ----------
    curvature : (n,) float64
        :func:`curvatures`, on the host.
    cosine : (n, N, N // 2 + 1) float32
        :func:`quadrature`.
    diameter_px : float
        Of the particle, for what the bands share.
    """

    curvature: FloatArray
    cosine: Array
    diameter_px: float

    @classmethod
    def of(
        cls, params: FloatArray, box: int, pixel_size_A: float, sign: Sign, diameter_A: float | None, **where: Any
    ) -> SideBands:
        """Of images with these CTFs; without a diameter the particle is taken to fill 3/4 of the box."""
        diameter_px = _FILL * box if diameter_A is None else diameter_A / pixel_size_A
        cosine = quadrature(params, box, pixel_size_A, **where)
        return cls(curvatures(params, box, pixel_size_A, sign), cosine, diameter_px)

    def __getitem__(self, rows: Any) -> SideBands:
        """Of some of the images; rows on the host."""
        where = array_module(self.cosine).asarray(rows)
        return replace(self, curvature=self.curvature[rows], cosine=self.cosine[where])


def band_likeness(curvature: FloatArray, box: int, diameter_px: float) -> npt.NDArray[np.float32]:
    """Rho of the module's formula, (n, N, N // 2 + 1).

    Examples
    --------
    >>> from verglas.reconstruction.ewald import band_likeness
    >>> band_likeness([0.0, 0.05], 16, 12.0)[:, 0, [0, 4]].tolist()
    [[1.0, 1.0], [1.0, 0.137...]]
    """
    k2 = fourier.radius((box, box)) ** 2
    # The bands lie 2 c k^2 Fourier pixels apart; a ball of diameter D has its transform's argument pi D q / N there.
    x = 2 * np.pi * diameter_px / box * np.abs(np.asarray(curvature, np.float64))[:, None, None] * k2
    small = x < 1e-2
    safe = np.where(small, 1.0, x)
    return np.where(small, 1 - x**2 / 10, 3 * (np.sin(safe) - safe * np.cos(safe)) / safe**3).astype(np.float32)


def project_bands(
    spectrum: Array,
    grid: ops.Grid,
    matrices: npt.ArrayLike,
    bands: SideBands,
    ctf: Array,
    *,
    shifts_px: npt.ArrayLike | None = None,
    max_radius: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> Array:
    """Images of the module's formula, as half transforms; arguments as of :func:`verglas.ops.project`."""
    common: dict[str, Any] = {"shifts_px": shifts_px, "max_radius": max_radius, "threads": threads, "device": device}
    first = ops.project(spectrum, grid, matrices, curvature=-bands.curvature, **common)
    second = ops.project(spectrum, grid, matrices, curvature=bands.curvature, **common)
    half = np.float32(0.5)
    return half * (ctf * (first + second) + np.complex64(1j) * bands.cosine * (second - first))


def insert_bands(sums: ops.GridSums, batch: Batch, matrices: FloatArray, **where: Any) -> None:
    """Add both side bands of a batch to sums, values and weights by themselves: their factors differ.

    Parameters
    ----------
    sums : GridSums
        Added to; either kind may be absent.
    batch : Batch
        With CTF and :class:`SideBands`.
    matrices : (n, 3, 3) float64
        Of the images, a coset applied.
    **where
        ``threads``, ``device``, ``deterministic`` of :func:`verglas.ops.insert`.
    """
    bands, sine = batch.bands, batch.ctf
    if bands is None or sine is None:
        raise InputError("ewald: expected a batch with a CTF and side bands")
    common: dict[str, Any] = {"shifts_px": batch.shifts_px, "shell_weight": batch.shell_weight, **where}
    half, i = np.float32(0.5), np.complex64(1j)
    if sums.values is not None:
        values = ops.GridSums(sums.grid, sums.values, None)
        for turn, curvature in ((i, -bands.curvature), (-i, bands.curvature)):
            share = batch.images * (half * (sine + turn * bands.cosine))
            ops.insert(values, share, matrices, curvature=curvature, **common)
    if sums.weights is not None:
        weights = ops.GridSums(sums.grid, None, sums.weights)
        rho = array_module(sine).asarray(band_likeness(bands.curvature, sums.grid.box, bands.diameter_px))
        # Written as a sum of squares: rounding cannot make it negative.
        root = half * array_module(sine).sqrt((1 + rho) * sine**2 + (1 - rho) * bands.cosine**2)
        for curvature in (-bands.curvature, bands.curvature):
            ops.insert(weights, None, matrices, ctf=root, curvature=curvature, **common)
