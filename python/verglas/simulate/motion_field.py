"""How a specimen moves under the beam: a displacement for every place and frame."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from verglas.errors import InputError
from verglas.simulate.noise import stream
from verglas.types.arrays import FloatArray
from verglas.types.display import one_line

_ABSENT: Any = None
_WALK, _COEFFICIENTS = 61, 62  # numbers of random streams
# Widths as shares of the frame: where the dome is steepest (of half the diagonal), and of the shear zone (of the rows).
_DOME_WIDTH, _SHEAR_WIDTH = 0.5, 0.15


@one_line
@dataclass(frozen=True)
class MotionField:
    r"""Displacement u(x, y, f) of the specimen in frame f against where it lies in the reference, pixels, x then y.

    .. math::
        u = g_f + \sum_{s,p} c_{3s+p-1} \phi_s t^p
            + q_f \left[ d\, \frac{r}{w} e^{(1 - r^2/w^2)/2} + h \tanh\frac{y/n_y - 1/2}{0.15}\, \hat{x} \right]

    The polynomial is RELION's (Zivanov et al. 2019, IUCrJ 6, 5): phi = (1, x, x^2, y, y^2, xy) of x = X/nx - 1/2 and
    y = Y/ny - 1/2, p = 1..3, t the number of the frame from 0; 18 coefficients for x, then 18 for y. The dome (r from
    ``dome_centre``, w half of half the diagonal) and the shear are what no such polynomial fits; both follow
    q_f = 1 - exp(-f / settles_frames).

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the frame.
    global_px : (n, 2) float64
        g: shift of every frame.
    coefficients : (36,) float64
        c; zeros by default.
    dome_px : float
        d: largest displacement of the dome.
    dome_centre : (float, float)
        Its place (x, y) as shares of the frame.
    shear_px : float
        h.
    settles_frames : float
        Time constant of dome and shear.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.simulate import MotionField
    >>> field = MotionField((100, 200), np.array([[0.0, 0.0], [3.0, 1.0]]), dome_px=2.0)
    >>> field.at([100.0, 150.0], 50.0).shape, field.at(100.0, 50.0)[1].tolist()
    ((2, 2, 2), [3.0, 1.0])
    """

    shape: tuple[int, int]
    global_px: FloatArray
    coefficients: FloatArray = _ABSENT
    dome_px: float = 0.0
    dome_centre: tuple[float, float] = (0.5, 0.5)
    shear_px: float = 0.0
    settles_frames: float = 6.0

    def __post_init__(self) -> None:
        """Check once."""
        moves = np.array(self.global_px, np.float64)
        terms = np.zeros(36) if self.coefficients is None else np.array(self.coefficients, np.float64)
        if moves.ndim != 2 or moves.shape[1] != 2 or not len(moves):
            raise InputError(f"MotionField.global_px: expected (n, 2), got shape {moves.shape}")
        if terms.shape != (36,):
            raise InputError(f"MotionField.coefficients: expected 18 for x and 18 for y, got shape {terms.shape}")
        if not (np.isfinite(moves).all() and np.isfinite(terms).all() and self.settles_frames > 0):
            raise InputError("MotionField: expected finite shifts and coefficients and a positive settles_frames")
        object.__setattr__(self, "global_px", moves)
        object.__setattr__(self, "coefficients", terms)

    def __len__(self) -> int:
        return len(self.global_px)

    def frame(self, index: int, x_px: npt.ArrayLike, y_px: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Displacement (along x, along y) in one frame of places of the reference that broadcast together."""
        x, y = np.asarray(x_px, np.float64), np.asarray(y_px, np.float64)
        ux, uy = self._polynomial(float(index), x / self.shape[1] - 0.5, y / self.shape[0] - 0.5)
        ux, uy = ux + self.global_px[index, 0], uy + self.global_px[index, 1]
        settled = 1 - np.exp(-index / self.settles_frames)
        if self.dome_px:
            width = _DOME_WIDTH * np.hypot(*self.shape) / 2
            dx, dy = x - self.dome_centre[0] * self.shape[1], y - self.dome_centre[1] * self.shape[0]
            pull = settled * self.dome_px / width * np.exp((1 - (dx * dx + dy * dy) / width**2) / 2)
            ux, uy = ux + pull * dx, uy + pull * dy
        if self.shear_px:
            ux = ux + settled * self.shear_px * np.tanh((y / self.shape[0] - 0.5) / _SHEAR_WIDTH)
        return ux, uy

    def at(self, x_px: npt.ArrayLike, y_px: npt.ArrayLike) -> FloatArray:
        """Displacements in all frames.

        Parameters
        ----------
        x_px, y_px : array_like
            Places in the reference, that broadcast together.

        Returns
        -------
        (..., n, 2) float64
            Pixels, x then y.
        """
        x, y = np.broadcast_arrays(np.asarray(x_px, np.float64), np.asarray(y_px, np.float64))
        moves = [np.stack(np.broadcast_arrays(*self.frame(f, x, y)), axis=-1) for f in range(len(self))]
        return np.stack(moves, axis=-2)

    def _polynomial(self, t: float, x: FloatArray, y: FloatArray) -> tuple[Any, Any]:
        powers = np.array([t, t**2, t**3])
        # (2, 6): of each axis, what stands before 1, x, x^2, y, y^2, xy in this frame
        rows = self.coefficients.reshape(2, 6, 3) @ powers
        out = []
        for c in rows:
            along_x, along_y = c[0] + x * (c[1] + x * c[2]), y * (c[3] + y * c[4])
            out.append(along_x + along_y + (c[5] * x * y if c[5] else 0.0))
        return out[0], out[1]


@dataclass(frozen=True)
class Recording:
    """How a movie is recorded, how the specimen moves meanwhile, and what is wrong with the detector.

    Attributes
    ----------
    frames : int
        Number of frames.
    dose_per_frame_e_A2, pre_exposure_e_A2 : float
        Electrons per square angstrom in a frame, and before the first.
    damage : bool
        At exposure N, particles and ice keep exp(-N / (2 N_c(k))) of their amplitude, N_c that of
        :func:`verglas.optics.critical_exposure_e_A2`.
    ice_thickness_A : float
        Of the water that makes the Thon rings; 0 for none.
    ice_motion_A2_per_e : float
        Mean square displacement of its molecules along one axis per exposure of 1 e/A^2: ice does not stay the same
        picture (McMullan, Vinothkumar and Henderson 2015, Ultramicroscopy 158, 26-32).
    drift_px : (float, float)
        x, y: drift that settles, drift_px (1 - exp(-t / settles_frames)).
    drift_px_per_frame : (float, float)
        x, y: steady drift.
    polynomial_px : float
        Standard deviation over the frame and all frames of a random polynomial field.
    coefficients : (36,) array, optional
        The polynomial itself.
    dome_px, dome_centre, shear_px, settles_frames
        As in :class:`MotionField`.
    walk_px : float
        Standard deviation along each axis of one step of every particle's own random walk.
    walk_correlation_px : float
        Distance over which particles walk together, exp(-distance / this); 0: each by itself.
    gain_sd : float
        Relative standard deviation of the pixels' gain; blocks of columns and a slope come on top, half as strong.
    hot_pixels, dead_pixels, dead_columns : int
        Defects, at random places.
    hot_counts : float
        Mean counts of a hot pixel in a frame beyond the electrons.
    detector_seed : int, optional
        Of gain and defects: movies of one session have the same detector. None: the movie's own seed.

    Raises
    ------
    InputError
        A value outside its range.
    """

    frames: int = 24
    dose_per_frame_e_A2: float = 1.0
    pre_exposure_e_A2: float = 0.0
    damage: bool = True
    ice_thickness_A: float = 300.0
    ice_motion_A2_per_e: float = 0.5
    drift_px: tuple[float, float] = (0.0, 0.0)
    drift_px_per_frame: tuple[float, float] = (0.0, 0.0)
    polynomial_px: float = 0.0
    coefficients: FloatArray | None = None
    dome_px: float = 0.0
    dome_centre: tuple[float, float] = (0.5, 0.5)
    shear_px: float = 0.0
    settles_frames: float = 6.0
    walk_px: float = 0.0
    walk_correlation_px: float = 0.0
    gain_sd: float = 0.0
    hot_pixels: int = 0
    dead_pixels: int = 0
    dead_columns: int = 0
    hot_counts: float = 30.0
    detector_seed: int | None = None

    def __post_init__(self) -> None:
        """Check ranges once."""
        if self.frames < 1 or not 0 < self.dose_per_frame_e_A2 < np.inf:
            raise InputError(
                "Recording: expected at least one frame and a positive dose_per_frame_e_A2, got "
                f"{self.frames} and {self.dose_per_frame_e_A2}"
            )
        if not 0 <= self.gain_sd < 0.5:
            raise InputError(f"Recording.gain_sd: expected 0 to 0.5, got {self.gain_sd}")
        signed = ("frames", "dose_per_frame_e_A2", "dome_px", "shear_px", "gain_sd")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and field.name not in signed and not 0 <= value < np.inf:
                raise InputError(f"Recording.{field.name}: expected 0 or more, got {value}")

    def field(self, shape: tuple[int, int], seed: int = 0) -> MotionField:
        """The displacements that these settings mean."""
        t = np.arange(self.frames, dtype=np.float64)[:, None]
        drift = np.array(self.drift_px) * (1 - np.exp(-t / self.settles_frames)) + t * np.array(self.drift_px_per_frame)
        terms = np.zeros(36) if self.coefficients is None else np.array(self.coefficients, np.float64)
        if self.polynomial_px:
            terms = terms + random_polynomial(self.frames, self.polynomial_px, seed)
        return MotionField(shape, drift, terms, self.dome_px, self.dome_centre, self.shear_px, self.settles_frames)

    def walks(self, n: int, seed: int = 0, places_px: FloatArray | None = None) -> FloatArray:
        """(frames, n, 2) pixels: random walks of particles, zero in the first frame; particle i depends on those to i.

        ``places_px`` (n, 2) count where walks are correlated.
        """
        out = np.zeros((self.frames, n, 2))
        if self.walk_px:
            for i in range(n):
                # A stream for each particle: more particles leave the walks of the first ones as they are.
                steps = stream(seed, i, _WALK).normal(0, self.walk_px, (self.frames - 1, 2))
                out[1:, i] = np.cumsum(steps, axis=0)
        if self.walk_correlation_px and places_px is not None and n:
            covariance = np.exp(-cdist(places_px, places_px) / self.walk_correlation_px)
            out = np.einsum("ij,fja->fia", np.linalg.cholesky(covariance), out)
        return out


def random_polynomial(frames: int, rms_px: float, seed: int = 0) -> FloatArray:
    """Coefficients of a random field of :class:`MotionField`'s polynomial.

    Parameters
    ----------
    frames : int
        Frames it spans.
    rms_px : float
        Root mean square of one component over the frame and all frames.
    seed : int

    Returns
    -------
    (36,) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.simulate import MotionField
    >>> from verglas.simulate.motion_field import random_polynomial
    >>> field = MotionField((64, 64), np.zeros((10, 2)), random_polynomial(10, 1.5, seed=1))
    >>> y, x = np.mgrid[0.5:64, 0.5:64]
    >>> round(float(np.sqrt((field.at(x, y) ** 2).mean())), 2)
    1.5
    """
    span = max(frames - 1, 1)
    # each of 1, x, .. xy and t, t^2, t^3 reaches about the same size at the edge and in the last frame
    size = np.outer([1.0, 2.0, 4.0, 2.0, 4.0, 4.0], [1.0 / span, 1.0 / span**2, 1.0 / span**3])
    terms = (stream(seed, 0, _COEFFICIENTS).normal(size=(2, 6, 3)) * size).reshape(36)
    y, x = (np.mgrid[0:33, 0:33] + 0.5) / 33
    unit = MotionField((1, 1), np.zeros((frames, 2)), terms)
    rms = np.sqrt((unit.at(x, y) ** 2).mean()) if frames > 1 else 1.0
    return np.asarray(terms * rms_px / rms)
