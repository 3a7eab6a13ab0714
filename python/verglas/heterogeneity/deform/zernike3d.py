r"""Deformations between maps in a basis of Zernike functions of the ball.

.. math:: V_2(r) = V_1(r + g(r)), \qquad g(r) = \sum_{l,n,m} c_{lnm}\, R_{ln}(|r| / r_0)\, y_l^m(r / |r|)

with a vector c of three for every function (Herreros et al. 2021, IUCrJ 8, 992-1005). The coefficients are found by
Gauss-Newton with analytic gradients on both maps low-passed, coarse before fine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates, spline_filter
from scipy.special import eval_jacobi, gammaln, lpmv

from verglas import filters
from verglas.errors import InputError
from verglas.masks import soft_sphere
from verglas.types import Map
from verglas.types.arrays import FloatArray
from verglas.types.convert import MapLike, map_of
from verglas.types.display import one_line

_STEPS = 12
_STILL_A = 0.01
_SAME_PIXEL = 0.01
_RIDGE = 1e-4  # of the mean diagonal of the normal equations: stiffness of what the maps do not show


@one_line
@dataclass(frozen=True, eq=False)
class Deformation:
    """A displacement of every point of a ball.

    Attributes
    ----------
    coefficients_A : (F, 3) float64
        Of every basis function, x, y, z.
    degree : int
        Largest n of the functions, which has all l <= n with n - l even.
    radius_A : float
        r_0; beyond it nothing is displaced.
    correlation : float
        Of the second map with the first one deformed, inside the ball, at the finest resolution in use.
    residual : float
        Power of their difference there, least squares, on that of the second.
    """

    coefficients_A: FloatArray
    degree: int
    radius_A: float
    correlation: float = float("nan")
    residual: float = float("nan")

    def displacement_A(self, xyz_A: npt.ArrayLike) -> FloatArray:
        """(..., 3) displacement g of points (..., 3) from the centre."""
        points = np.asarray(xyz_A, np.float64)
        flat = points.reshape(-1, 3)
        made = zernike_basis(flat / self.radius_A, self.degree) @ self.coefficients_A
        return np.asarray(made.reshape(points.shape))

    def field_A(self, box: int, pixel_size_A: float) -> FloatArray:
        """(N, N, N, 3) displacement of every voxel of a box."""
        return self.displacement_A(_voxels(box) * pixel_size_A)

    def apply(self, map: MapLike) -> Map:
        """The map V(r + g(r))."""
        volume = map_of(map, "Deformation.apply: the map")
        places = _voxels(volume.box) + self.field_A(volume.box, volume.pixel_size_A) / volume.pixel_size_A
        return volume.with_data(_sample(volume.data, places))


def zernike_orders(degree: int) -> list[tuple[int, int, int]]:
    """(n, l, m) of all functions up to a degree.

    Examples
    --------
    >>> from verglas.heterogeneity.deform.zernike3d import zernike_orders
    >>> zernike_orders(1)
    [(0, 0, 0), (1, 1, -1), (1, 1, 0), (1, 1, 1)]
    """
    return [(n, l, m) for n in range(degree + 1) for l in range(n % 2, n + 1, 2) for m in range(-l, l + 1)]


def zernike_basis(points: FloatArray, degree: int) -> FloatArray:
    """Zernike functions of the unit ball at points, (n, F); 0 outside.

    Each has a mean square of 1 over the ball.

    Parameters
    ----------
    points : (n, 3) float64
    degree : int
    """
    r = np.linalg.norm(points, axis=1)
    inside = r <= 1
    x, y, z = (points / np.maximum(r, 1e-12)[:, None]).T
    theta, phi = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    harmonics: dict[tuple[int, int], FloatArray] = {}
    out = np.empty((len(points), len(zernike_orders(degree))))
    for column, (n, l, m) in enumerate(zernike_orders(degree)):
        if (l, m) not in harmonics:
            harmonics[l, m] = _real_harmonic(l, m, theta, phi)
        radial = r**l * eval_jacobi((n - l) // 2, 0, l + 0.5, 2 * r**2 - 1)
        out[:, column] = np.sqrt(2 * n + 3) * np.sqrt(4 * np.pi / 3) * radial * harmonics[l, m]
    return out * inside[:, None]


def _real_harmonic(l: int, m: int, theta: FloatArray, phi: FloatArray) -> FloatArray:
    """Real spherical harmonic of unit norm on the sphere."""
    a = abs(m)
    norm = np.sqrt((2 * l + 1) / (4 * np.pi) * np.exp(gammaln(l - a + 1) - gammaln(l + a + 1)))
    legendre = lpmv(a, l, np.cos(theta))
    turn = np.ones_like(phi) if m == 0 else np.sqrt(2) * (np.cos(a * phi) if m > 0 else np.sin(a * phi))
    return np.asarray(norm * legendre * turn)


def _voxels(box: int) -> FloatArray:
    """(N, N, N, 3) x, y, z of every voxel from the centre."""
    return np.moveaxis(np.indices((box,) * 3)[::-1], 0, -1).astype(np.float64) - box // 2


def _sample(data: npt.NDArray, places: FloatArray, *, filtered: bool = False) -> FloatArray:
    """Values at places (x, y, z from the centre, in voxels), by cubic splines."""
    at = np.moveaxis(places, -1, 0)[::-1] + len(data) // 2
    return np.asarray(map_coordinates(data, at, order=3, mode="constant", prefilter=not filtered), np.float64)


def fit_deformation(
    first: MapLike,
    second: MapLike,
    *,
    degree: int = 3,
    diameter_A: float | None = None,
    resolutions_A: Sequence[float] = (30.0, 15.0),
    ridge: float = _RIDGE,
) -> Deformation:
    r"""The deformation g with which the first map becomes the second, :math:`V_2(r) = V_1(r + g(r))`.

    Parameters
    ----------
    first, second : Map or path
        On one grid.
    degree : int
        Of the basis; 3 has 20 functions, of three coefficients each.
    diameter_A : float, optional
        Of the ball; the box by default.
    resolutions_A : sequence of float
        Low-passes, coarse first: each starts from the deformation before.
    ridge : float
        Added to the normal equations, as a fraction of their mean diagonal.

    Raises
    ------
    InputError
        Maps of two grids, an empty one, a ball beyond the box.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.heterogeneity.deform import fit_deformation
    >>> model = vg.simulate.phantom(24, 5.0, 80.0)
    >>> a = vg.simulate.density(model, 24, 5.0)
    >>> bool(abs(fit_deformation(a, a, degree=1).coefficients_A).max() < 1e-6)
    True
    """
    one, two = map_of(first, "fit_deformation: the first map"), map_of(second, "fit_deformation: the second map")
    if one.box != two.box or abs(one.pixel_size_A / two.pixel_size_A - 1) > _SAME_PIXEL:
        raise InputError(
            f"fit_deformation: maps of {one.box} px of {one.pixel_size_A:g} A and {two.box} px of "
            f"{two.pixel_size_A:g} A; resample one (verglas resample)"
        )
    field_A = one.box * one.pixel_size_A
    radius_A = (field_A if diameter_A is None else diameter_A) / 2
    if radius_A > field_A / 2:
        raise InputError(f"fit_deformation: a diameter of {diameter_A:g} A does not fit a box of {field_A:g} A")
    if not one.data.any() or not two.data.any():
        raise InputError("fit_deformation: a map is empty (all zero)")
    if degree < 0 or not len(resolutions_A):
        raise InputError("fit_deformation: expected a degree of 0 or more, and one resolution or more")
    fit = _Fit(one.box, one.pixel_size_A, radius_A, degree, ridge)
    coefficients = np.zeros((len(zernike_orders(degree)), 3))
    for resolution_A in resolutions_A:
        gain = filters.low_pass(resolution_A)
        coefficients, correlation, residual = fit.run(
            filters.apply(one, gain).data, filters.apply(two, gain).data, coefficients
        )
    return Deformation(coefficients, degree, radius_A, correlation, residual)


class _Fit:
    """Gauss-Newton on the voxels of the ball."""

    def __init__(self, box: int, pixel_size_A: float, radius_A: float, degree: int, ridge: float) -> None:
        ball = soft_sphere(box, radius_A / pixel_size_A, 0.0) > 0
        self.places = _voxels(box)[ball]
        self.ball, self.pixel_size_A, self.ridge = ball, pixel_size_A, ridge
        self.basis = zernike_basis(self.places * pixel_size_A / radius_A, degree)

    def run(self, first: npt.NDArray, second: npt.NDArray, start: FloatArray) -> tuple[FloatArray, float, float]:
        """Coefficients, correlation and residual."""
        # Of splines, so that values and slopes are those of one smooth function.
        spline = spline_filter(first.astype(np.float64), order=3, mode="mirror")
        slopes = [
            spline_filter(s, order=3, mode="mirror") for s in np.gradient(first.astype(np.float64), self.pixel_size_A)
        ][::-1]
        target, coefficients, damping = second[self.ball].astype(np.float64), start.copy(), 1e-3
        cost, residual = self._cost(spline, coefficients, target)
        for _ in range(_STEPS):
            places = self.places + self.basis @ coefficients / self.pixel_size_A
            along = np.stack([_sample(s, places, filtered=True) for s in slopes], axis=1)
            jacobian = (self.basis[:, :, None] * along[:, None, :]).reshape(len(places), -1)
            normal, right = jacobian.T @ jacobian, jacobian.T @ residual
            diagonal = np.diag(normal)
            stiff = self.ridge * diagonal.mean()
            right -= stiff * coefficients.ravel()
            better = False
            while not better and damping < 1e6:
                step = np.linalg.solve(normal + np.diag(damping * diagonal + stiff), right).reshape(coefficients.shape)
                new_cost, new_residual = self._cost(spline, coefficients + step, target)
                better = (
                    new_cost + 0.5 * stiff * np.square(coefficients + step).sum()
                    < cost + 0.5 * stiff * np.square(coefficients).sum()
                )
                damping = damping / 10 if better else damping * 10
            if not better:
                break
            coefficients, cost, residual = coefficients + step, new_cost, new_residual
            if np.abs(step).max() < _STILL_A:
                break
        made = target - residual
        correlation = float(np.corrcoef(made, target)[0, 1])
        return coefficients, correlation, float(np.square(residual).sum() / np.square(target).sum())

    def _cost(self, spline: npt.NDArray, coefficients: FloatArray, target: FloatArray) -> tuple[float, FloatArray]:
        places = self.places + self.basis @ coefficients / self.pixel_size_A
        residual = target - _sample(spline, places, filtered=True)
        return 0.5 * float(residual @ residual), residual
