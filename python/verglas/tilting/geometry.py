r"""How the two images of a tilt pair lie to each other: the tilt, and where its axis is in each image.

The stage turns the specimen between the two exposures. With RELION's passive matrices (docs/conventions.md) the turn is

.. math:: D = R_z(-\gamma_t)\, R_y(\theta)\, R_z(\gamma_u),

:math:`\gamma_u` and :math:`\gamma_t` being the angles of the tilt axis from +y in the first and the second image. A
particle of orientation :math:`A_u` in the first has :math:`A_t = D A_u` in the second, and what lies in the plane of
the specimen moves as :math:`x_t = R(-\gamma_t)\,\mathrm{diag}(\cos\theta, 1)\,R(\gamma_u)\,x_u + t`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.display import one_line

_LEAST_PAIRS = 4  # five numbers from two coordinates each, and something left to judge them by
_RAYLEIGH_MEDIAN = 1.1774  # median length of two normal numbers, in standard deviations
_HUBER = 1.5  # residuals beyond so many robust standard deviations count less


@one_line
@dataclass(frozen=True)
class TiltGeometry:
    """Tilt and axes of a pair of images.

    Attributes
    ----------
    tilt_deg : float
        Of the second image relative to the first. Coordinates know its size only: the sign is the microscope's (another
        one gives mirrored maps).
    axis_untilted_deg, axis_tilted_deg : float
        Angle of the tilt axis from +y, towards -x, in each image (0: the axis is the image's y).
    shift_px : (2,) float64
        Where the first image's pixel (0, 0) lies in the second.
    magnification : float
        Of the second image over the first.
    tilt_error_deg, axis_untilted_error_deg, axis_tilted_error_deg : float
        Standard errors from the residuals of the pairs; NaN where nothing was fitted.
    magnification_error : float
    residual_px : float
        Root mean square distance between where pairs are and where this geometry says, per coordinate.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.tilting import TiltGeometry
    >>> g = TiltGeometry(60.0, 0.0, 0.0)
    >>> g.map_px([[100.0, 40.0]]).round(6).tolist()        # foreshortened across the axis, y
    [[50.0, 40.0]]
    >>> g.tilted_angles_deg([[0.0, 0.0, 25.0]]).round(6).tolist()
    [[25.0, 60.0, 0.0]]
    """

    tilt_deg: float
    axis_untilted_deg: float
    axis_tilted_deg: float
    shift_px: FloatArray = None  # type: ignore[assignment]
    magnification: float = 1.0
    tilt_error_deg: float = float("nan")
    axis_untilted_error_deg: float = float("nan")
    axis_tilted_error_deg: float = float("nan")
    magnification_error: float = float("nan")
    residual_px: float = float("nan")

    def __post_init__(self) -> None:
        """Check once; a missing shift is zero."""
        shift = np.zeros(2) if self.shift_px is None else np.array(self.shift_px, np.float64)
        numbers = (self.tilt_deg, self.axis_untilted_deg, self.axis_tilted_deg, self.magnification)
        if shift.shape != (2,) or not np.isfinite([*numbers, *shift]).all() or not self.magnification > 0:
            raise InputError(f"TiltGeometry: expected finite angles, a shift of x, y and a magnification, got {self}")
        object.__setattr__(self, "shift_px", shift)

    @property
    def matrix(self) -> FloatArray:
        """(2, 2): the linear part of the map of coordinates in the plane of the specimen."""
        return self.magnification * _plane_map(self.tilt_deg, self.axis_untilted_deg, self.axis_tilted_deg)

    @property
    def rotation(self) -> FloatArray:
        """(3, 3): D, the turn of the specimen from the first image to the second."""
        return euler_to_matrix([[self.axis_untilted_deg, self.tilt_deg, -self.axis_tilted_deg]])[0]

    def map_px(self, untilted_px: npt.ArrayLike) -> FloatArray:
        """Where positions (n, 2) of the first image lie in the second."""
        return np.asarray(untilted_px, np.float64) @ self.matrix.T + self.shift_px

    def map_back_px(self, tilted_px: npt.ArrayLike) -> FloatArray:
        """Where positions (n, 2) of the second image lie in the first; a tilt of 90 degrees cannot be undone."""
        if abs(np.cos(np.radians(self.tilt_deg))) < 1e-6:
            raise InputError(f"map_back_px: at a tilt of {self.tilt_deg:g} degrees positions across the axis are lost")
        return (np.asarray(tilted_px, np.float64) - self.shift_px) @ np.linalg.inv(self.matrix).T

    def tilted_angles_deg(self, angles_deg: npt.ArrayLike) -> FloatArray:
        """Orientations (n, 3) in the second image of particles with these in the first."""
        return matrix_to_euler(self.rotation @ euler_to_matrix(angles_deg))

    def near_axis(self, axis_deg: float) -> TiltGeometry:
        """The same geometry with the axis of the first image within 90 degrees of a direction.

        An axis has two directions; turned round, the same coordinates stand for the opposite tilt. All pairs of a
        session must name it the same way, or some of their maps are mirrored.
        """
        turns = np.round((self.axis_untilted_deg - axis_deg) / 180.0)
        if not turns:
            return self
        return replace(
            self,
            axis_untilted_deg=self.axis_untilted_deg - 180.0 * turns,
            axis_tilted_deg=_half_open(self.axis_tilted_deg - 180.0 * turns),
        )


def plane_turn(angle_deg: float) -> FloatArray:
    """R_z in the plane, passive: (x, y) -> (x cos + y sin, -x sin + y cos)."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, s], [-s, c]])


def _plane_map(tilt_deg: float, axis_untilted_deg: float, axis_tilted_deg: float) -> FloatArray:
    """(2, 2): of the plane of the specimen, from the first image to the second, at one magnification."""
    foreshortened = np.diag([np.cos(np.radians(tilt_deg)), 1.0])
    return plane_turn(-axis_tilted_deg) @ foreshortened @ plane_turn(axis_untilted_deg)


def _half_open(angle_deg: float) -> float:
    """In (-180, 180]."""
    return float(180.0 - (180.0 - angle_deg) % 360.0)


@any_arrays
def fit_geometry(
    untilted_px: npt.ArrayLike,
    tilted_px: npt.ArrayLike,
    *,
    axis_deg: float = 0.0,
    negative_tilt: bool = False,
    fit_magnification: bool = False,
) -> TiltGeometry:
    r"""Tilt and axes from positions of the same particles in both images, with standard errors.

    Robust least squares (Huber's loss on residuals beyond 1.5 robust standard deviations) of :math:`x_t` against the
    map of the plane of the specimen, from the singular vectors of the affine map that fits best. Errors are those of
    the linearised problem with the residuals' own variance; particles at different heights in the ice add to it.

    Parameters
    ----------
    untilted_px, tilted_px : (n, 2) array_like
        x, y of n pairs, at least 4 that do not lie on a line.
    axis_deg : float
        Direction that the axis in the first image is named after: the answer lies within 90 degrees of it.
    negative_tilt : bool
        The second image was taken at a negative tilt in the sense of :class:`TiltGeometry`.
    fit_magnification : bool
        Fit a ratio of magnifications, too; otherwise it is 1, and the foreshortening is better known.

    Returns
    -------
    TiltGeometry

    Raises
    ------
    InputError
        Too few pairs, pairs on a line, or positions that only a mirrored image would explain.

    References
    ----------
    Radermacher (1988) J. Electron Microsc. Tech. 9, 359-394.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.tilting import TiltGeometry, fit_geometry
    >>> x = np.random.default_rng(0).uniform(0, 1000, (50, 2))
    >>> planted = TiltGeometry(50.0, 4.0, -3.0, [20.0, 7.0])
    >>> g = fit_geometry(x, planted.map_px(x))
    >>> round(g.tilt_deg, 3), round(g.axis_untilted_deg, 3), round(g.axis_tilted_deg, 3)
    (50.0, 4.0, -3.0)
    """
    first, second = (np.asarray(v, np.float64) for v in (untilted_px, tilted_px))
    if first.ndim != 2 or first.shape != second.shape or first.shape[-1] != 2:
        raise InputError(f"fit_geometry: expected (n, 2) positions of the same n, got {first.shape}, {second.shape}")
    if len(first) < _LEAST_PAIRS:
        raise InputError(f"fit_geometry: {len(first)} pairs; tilt and axes need {_LEAST_PAIRS} or more")
    centre = first.mean(axis=0)
    start = _start(first - centre, second, fit_magnification)
    free = 6 if fit_magnification else 5

    def residuals(p: FloatArray) -> FloatArray:
        return (second - _map_points(p, first - centre)).ravel()

    # A scale from the middle of the distances: least squares would let a few wrong pairs set it, and the middle of the
    # components is nothing where the axis lies along the image.
    distances = np.hypot(*residuals(start).reshape(-1, 2).T)
    fitted_away = 1 - free / (2 * len(first) + 1)  # few residuals are smaller than the errors they are left by
    spread = float(np.median(distances)) / _RAYLEIGH_MEDIAN / np.sqrt(fitted_away)
    spread = max(spread, 1e-6 * float(np.ptp(second)))
    fit = least_squares(residuals, start[:free], loss="huber", f_scale=_HUBER * spread, x_scale="jac")
    clean = residuals(fit.x)
    errors = np.full(6, np.nan)
    errors[:free] = _standard_errors(residuals, fit.x, clean, _HUBER * spread)
    return _as_geometry(fit.x, errors, centre, np.sqrt(np.mean(clean**2)), axis_deg, negative_tilt)


def _map_points(p: FloatArray, centred: FloatArray) -> FloatArray:
    """Positions under (tilt, axis, axis, x, y[, log magnification]), degrees."""
    scale = float(np.exp(p[5])) if len(p) > 5 else 1.0
    return scale * centred @ _plane_map(p[0], p[1], p[2]).T + p[3:5]


def _start(centred: FloatArray, second: FloatArray, fit_magnification: bool) -> FloatArray:
    if np.linalg.matrix_rank(centred, tol=1e-6 * max(np.ptp(centred), 1e-300)) < 2:
        raise InputError("fit_geometry: the pairs lie on a line, so that tilt and axis cannot be told")
    design = np.column_stack([centred, np.ones(len(centred))])
    linear = np.linalg.lstsq(design, second, rcond=None)[0]
    matrix, offset = linear[:2].T, linear[2]
    if np.linalg.det(matrix) <= 0:
        raise InputError(
            "fit_geometry: one image is a mirror image of the other, which no tilt explains; flip one of them"
        )
    left, stretch, right = np.linalg.svd(matrix)
    axis_first, axis_second = right[0], left[:, 0]
    angles = [np.degrees(np.arctan2(-a[0], a[1])) for a in (axis_first, axis_second)]
    largest = stretch[0] if fit_magnification else 1.0
    # From no tilt at all least squares could not leave: the derivative of the cosine is zero there.
    tilt = np.degrees(np.arccos(np.clip(stretch[1] / largest, 0.0, np.cos(np.radians(3.0)))))
    return np.array([tilt, *angles, *offset, np.log(stretch[0]) if fit_magnification else 0.0])


def _standard_errors(
    residuals: Callable[[FloatArray], FloatArray], best: FloatArray, clean: FloatArray, limit: float
) -> FloatArray:
    """Of Huber's estimate: the variance of the clipped residuals over the square of the share that was not clipped."""
    step = 1e-4  # degrees and pixels; of the log magnification 1e-6 is the same displacement
    steps = np.where(np.arange(len(best)) == 5, 1e-2 * step, step)
    jacobian = np.column_stack(
        [
            (residuals(best + s * e) - residuals(best - s * e)) / (2 * s)
            for s, e in zip(steps, np.eye(len(best)), strict=True)
        ]
    )
    inside = max(float((np.abs(clean) <= limit).mean()), 0.1)
    freedom = max(1, len(clean) - len(best))
    variance = float(np.minimum(clean**2, limit**2).sum()) / freedom / inside**2
    # At no tilt the axis moves nothing and the cosine does not feel the angle: nothing is known of them, then.
    known = np.linalg.norm(jacobian, axis=0) > 1e-9
    errors = np.full(len(best), np.inf)
    inner = jacobian[:, known]
    scale = np.linalg.norm(inner, axis=0)
    errors[known] = np.sqrt(np.diag(np.linalg.pinv((inner / scale).T @ (inner / scale))) * variance) / scale
    return errors


def _as_geometry(
    p: FloatArray, errors: FloatArray, centre: FloatArray, rms: float, axis_deg: float, negative: bool
) -> TiltGeometry:
    """What was fitted as a geometry, the tilt positive or negative as asked, the axis near the direction asked for."""
    tilt = abs(_half_open(p[0]))
    if tilt > 90:  # cos < 0: a half turn about the axis more, which coordinates cannot mean
        raise InputError(f"fit_geometry: the pairs fit a tilt of {tilt:.0f} degrees, beyond 90: they do not match")
    magnification = float(np.exp(p[5])) if len(p) > 5 else 1.0
    geometry = TiltGeometry(
        -tilt if negative else tilt,
        _half_open(p[1]),
        _half_open(p[2]),
        magnification=magnification,
        tilt_error_deg=float(errors[0]),
        axis_untilted_error_deg=float(errors[1]),
        axis_tilted_error_deg=float(errors[2]),
        magnification_error=float(errors[5]) * magnification,
        residual_px=float(rms),
    )
    return replace(geometry, shift_px=p[3:5] - geometry.matrix @ centre).near_axis(axis_deg)
