"""Zernike polynomials as RELION numbers them, and the aberrations of Seidel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import factorial

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays


@cache
def _radial(n: int, m: int) -> tuple[int, ...]:
    """Coefficients of r^n, r^(n-2), ..., r^m."""
    return tuple(
        (-1) ** s * factorial(n - s) // (factorial(s) * factorial((n + m) // 2 - s) * factorial((n - m) // 2 - s))
        for s in range((n - m) // 2 + 1)
    )


@any_arrays
def zernike(n: int, m: int, kx: npt.ArrayLike, ky: npt.ArrayLike) -> FloatArray:
    r"""Zernike polynomial, not normalised.

    .. math:: Z_n^m = R_n^{|m|}(r) \cos(m\varphi),\ m \ge 0; \quad R_n^{|m|}(r) \sin(|m|\varphi),\ m < 0

    with R(1) = 1 and the angle from +x towards +y. RELION evaluates them at k in 1/A.

    Parameters
    ----------
    n, m : int
        Order and azimuthal frequency; n - abs(m) is even and not negative.
    kx, ky : array_like
        Where.

    Returns
    -------
    float64
        Of the shape both broadcast to.

    Raises
    ------
    InputError
        There is no such polynomial.

    Examples
    --------
    >>> from verglas.optics import zernike
    >>> float(zernike(4, 0, 0.5, 0.0)), float(zernike(2, -2, 1.0, 1.0))
    (-0.125, 2.0)
    """
    if abs(m) > n or (n - abs(m)) % 2:
        raise InputError(f"zernike: n = {n}, m = {m}: expected n - |m| even and not negative")
    z = np.asarray(kx, np.float64) + 1j * np.asarray(ky, np.float64)
    r2 = np.abs(z) ** 2
    powers = range((n - abs(m)) // 2, -1, -1)
    radial = sum(c * r2**p for c, p in zip(_radial(n, abs(m)), powers, strict=True))
    turned = z ** abs(m)  # r^m exp(i m phi): no arctangent, no division at the origin
    return np.asarray(radial * (turned.real if m >= 0 else turned.imag), np.float64)


def zernike_indices(count: int, parity: str) -> list[tuple[int, int]]:
    """(n, m) of the first coefficients of ``rlnOddZernike`` (``"odd"``) or ``rlnEvenZernike`` (``"even"``).

    Examples
    --------
    >>> from verglas.optics import zernike_indices
    >>> zernike_indices(6, "odd")
    [(1, -1), (1, 1), (3, -3), (3, -1), (3, 1), (3, 3)]
    """
    first = {"odd": 1, "even": 0}.get(parity)
    if first is None:
        raise InputError(f"zernike_indices: parity: expected 'odd' or 'even', got {parity!r}")
    indices: list[tuple[int, int]] = []
    n = first
    while len(indices) < count:
        indices += [(n, m) for m in range(-n, n + 1, 2)]
        n += 2
    return indices[:count]


@any_arrays
def zernike_sum(coefficients: npt.ArrayLike, parity: str, kx: npt.ArrayLike, ky: npt.ArrayLike) -> FloatArray:
    """Sum of Zernike polynomials with the coefficients of one group, radians; arguments as of the functions above."""
    values = np.asarray(coefficients, np.float64)
    total = np.zeros(np.broadcast_shapes(np.shape(kx), np.shape(ky)))
    for value, (n, m) in zip(values, zernike_indices(len(values), parity), strict=True):
        if value:
            total += value * zernike(n, m, kx, ky)
    return total


@dataclass(frozen=True)
class Seidel:
    """Primary aberrations of a wavefront on the unit disc, in the unit of its Zernike coefficients.

    ``W = piston + tilt r cos(t - tilt_angle) + defocus r^2 + astigmatism r^2 cos(t - axis)^2 + coma r^3 cos(t - its
    angle) + spherical r^4``, angles in degrees. ``defocus`` is that of the plus sign of Vargas et al.: the weaker of
    the two principal curvatures, with an astigmatism that is not negative.
    """

    piston: float
    tilt: float
    tilt_angle_deg: float
    defocus: float
    astigmatism: float
    astigmatism_axis_deg: float
    coma: float
    coma_angle_deg: float
    spherical: float

    def wavefront(self, x: npt.ArrayLike, y: npt.ArrayLike) -> FloatArray:
        """W at points of the disc."""
        z = np.asarray(x, np.float64) + 1j * np.asarray(y, np.float64)
        r2 = np.abs(z) ** 2

        def along(angle_deg: float) -> FloatArray:
            return np.asarray((z * np.exp(-1j * np.deg2rad(angle_deg))).real)

        return np.asarray(
            self.piston
            + self.tilt * along(self.tilt_angle_deg)
            + self.defocus * r2
            + self.astigmatism * along(self.astigmatism_axis_deg) ** 2
            + self.coma * r2 * along(self.coma_angle_deg)
            + self.spherical * r2**2
        )


@any_arrays
def seidel(z: npt.ArrayLike) -> Seidel:
    r"""Seidel aberrations of nine Zernike coefficients; exact.

    The order is that of the fringe set: Z0 = 1, Z1 = x, Z2 = y, Z3 = 2 r^2 - 1, Z4 = r^2 cos 2t, Z5 = r^2 sin 2t,
    Z6 = (3 r^2 - 2) x, Z7 = (3 r^2 - 2) y, Z8 = 6 r^4 - 6 r^2 + 1.

    Parameters
    ----------
    z : (9,) array_like

    Raises
    ------
    InputError
        Not nine finite numbers.

    References
    ----------
    Vargas et al. (2013) J. Struct. Biol. 183, 342, table 2.

    Examples
    --------
    >>> from verglas.optics import seidel
    >>> s = seidel([0, 0, 0, 1, 0, 0, 0, 0, 0.5])
    >>> s.piston, s.defocus, s.spherical
    (-0.5, -1.0, 3.0)
    """
    c = np.asarray(z, np.float64)
    if c.shape != (9,) or not np.isfinite(c).all():
        raise InputError(f"seidel: expected nine finite coefficients, got shape {c.shape}")
    tilt = complex(c[1] - 2 * c[6], c[2] - 2 * c[7])
    astigmatism, coma = complex(c[4], c[5]), complex(c[6], c[7])

    def degrees(value: complex) -> float:
        return float(np.rad2deg(np.angle(value)))

    return Seidel(
        piston=float(c[0] - c[3] + c[8]),
        tilt=abs(tilt),
        tilt_angle_deg=degrees(tilt),
        # r^2 cos 2(t - a) = 2 r^2 cos^2(t - a) - r^2
        defocus=float(2 * (c[3] - 3 * c[8]) - abs(astigmatism)),
        astigmatism=2 * abs(astigmatism),
        astigmatism_axis_deg=degrees(astigmatism) / 2,
        coma=3 * abs(coma),
        coma_angle_deg=degrees(coma),
        spherical=float(6 * c[8]),
    )


def zernike_of_seidel(s: Seidel) -> FloatArray:
    """The nine coefficients that :func:`seidel` takes, of its result; exact.

    Examples
    --------
    >>> from verglas.optics import seidel, zernike_of_seidel
    >>> zernike_of_seidel(seidel([1, 2, 3, 4, 5, 6, 7, 8, 9])).round(12).tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    """
    z8 = s.spherical / 6
    coma = s.coma / 3 * np.exp(1j * np.deg2rad(s.coma_angle_deg))
    tilt = s.tilt * np.exp(1j * np.deg2rad(s.tilt_angle_deg)) + 2 * coma
    astigmatism = s.astigmatism / 2 * np.exp(2j * np.deg2rad(s.astigmatism_axis_deg))
    z3 = (s.defocus + s.astigmatism / 2) / 2 + 3 * z8
    z0 = s.piston + z3 - z8
    return np.array([z0, tilt.real, tilt.imag, z3, astigmatism.real, astigmatism.imag, coma.real, coma.imag, z8])
