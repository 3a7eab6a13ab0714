"""How the specimen moved during a movie: shifts of whole frames and a smooth field on top of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray
from verglas.types.display import one_line

MODELS = ("global", "polynomial", "spline")
POLYNOMIAL_TERMS = 18  # per axis: six of x, y times three of t


def polynomial_space(x_px: npt.ArrayLike, y_px: npt.ArrayLike, shape: tuple[int, int]) -> FloatArray:
    """1, x, x^2, y, y^2, x y with x = X / nx - 1/2 and y likewise: (..., 6)."""
    x, y = np.asarray(x_px, float) / shape[1] - 0.5, np.asarray(y_px, float) / shape[0] - 0.5
    return np.stack(np.broadcast_arrays(np.ones(()), x, x * x, y, y * y, x * y), -1)


def polynomial_time(n_frames: int) -> FloatArray:
    """t, t^2, t^3 of the frames from 0: (n_frames, 3)."""
    return np.arange(n_frames, dtype=float)[:, None] ** np.arange(1, 4)


def spline_basis(at_px: npt.ArrayLike, side_px: int, nodes: int) -> FloatArray:
    """Uniform cubic B-splines of an axis whose ends are its outer pixels: (..., nodes), four not zero, sum 1.

    Examples
    --------
    >>> from verglas.types.motion import spline_basis
    >>> spline_basis([0.0, 99.0], 100, 5).round(3).tolist()
    [[0.167, 0.667, 0.167, 0.0, 0.0], [0.0, 0.0, 0.167, 0.667, 0.167]]
    """
    place = np.asarray(at_px, float) / max(1, side_px - 1) * (nodes - 3)
    distance = np.abs(place[..., None] - (np.arange(nodes) - 1.0))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)


def local_shifts(
    x_px: npt.ArrayLike,
    y_px: npt.ArrayLike,
    shape: tuple[int, int],
    n_frames: int,
    *,
    polynomial: FloatArray | None = None,
    lattice_px: FloatArray | None = None,
) -> FloatArray:
    """The field of a lattice, or else of a polynomial, at places of the frame: (..., n_frames, 2) px; zero without.

    Parameters
    ----------
    x_px, y_px : array_like
        Pixels, broadcast against each other; the first pixel is (0, 0).
    shape : (int, int)
        (y, x) of the frames in pixels.
    n_frames : int
    polynomial, lattice_px : array, optional
        As of :class:`Motion`.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types.motion import local_shifts
    >>> terms = np.zeros((2, 18))
    >>> terms[0, 3] = 2.0  # x t
    >>> local_shifts([0, 75], 0, (100, 100), 3, polynomial=terms)[..., 0].tolist()
    [[0.0, -1.0, -2.0], [0.0, 0.5, 1.0]]
    """
    x, y = np.broadcast_arrays(np.asarray(x_px, float), np.asarray(y_px, float))
    # The lattice first: files hold the nearest polynomial beside it, for programs that know no lattice.
    if lattice_px is not None:
        down = spline_basis(y, shape[0], lattice_px.shape[1])
        across = spline_basis(x, shape[1], lattice_px.shape[2])
        return np.asarray(np.einsum("...j,...i,tjia->...ta", down, across, lattice_px, optimize=True))
    if polynomial is not None:
        space, time = polynomial_space(x, y, shape), polynomial_time(n_frames)
        return np.asarray(np.einsum("...s,tp,asp->...ta", space, time, polynomial.reshape(2, 6, 3), optimize=True))
    return np.zeros((*x.shape, n_frames, 2))


@one_line
@dataclass(frozen=True, eq=False)
class Motion:
    """Where the specimen points of a corrected micrograph lie in each frame of its movie.

    The specimen point that the corrected micrograph shows at (x, y) lies in frame f at (x, y) + at(x, y)[f].

    Attributes
    ----------
    shape : (int, int)
        (y, x) of the frames in pixels.
    global_px : (n_frames, 2) float64
        Shifts of whole frames, x then y.
    model : str
        "global": these alone; "polynomial": RELION's 18 coefficients an axis besides; "spline": a lattice besides.
    polynomial : (2, 18) float64 or None
        Coefficients of x, then y: number 3 s + p - 1 belongs to phi_s t^p, phi = 1, x, x^2, y, y^2, x y with
        x = X / nx - 1/2, y = Y / ny - 1/2, t the frame from 0 and p = 1, 2, 3.
    lattice_px : (n_frames, nodes_y, nodes_x, 2) float64 or None
        Coefficients of uniform cubic B-splines over the frame (:func:`spline_basis`), x then y.
    global_error_px : (n_frames, 2) float64 or None
        Standard errors of the field's mean over the frame, about the mean of all frames.
    used : (n_frames,) bool
        Frames that were fitted and are part of the sums; the shifts of the others lie between their neighbours'.

    Raises
    ------
    InputError
        Parts that do not belong to the model, another shape, a value that is not finite.

    Examples
    --------
    >>> from verglas.types.motion import Motion
    >>> m = Motion((100, 200), [[0, 0], [1, -2]])
    >>> m.at(50, 50).tolist(), len(m)
    ([[0.0, 0.0], [1.0, -2.0]], 2)
    """

    shape: tuple[int, int]
    global_px: FloatArray | Any
    model: str = "global"
    polynomial: FloatArray | None = None
    lattice_px: FloatArray | None = None
    global_error_px: FloatArray | None = None
    used: npt.NDArray[np.bool_] | Any = None

    def __post_init__(self) -> None:
        """Check once, here."""
        if self.model not in MODELS:
            raise InputError(f"motion: expected a model of {', '.join(MODELS)}, got {self.model!r}")
        shifts = np.asarray(self.global_px, float)
        n = len(shifts)
        if shifts.shape != (n, 2) or n == 0:
            raise InputError(f"motion: expected (n_frames, 2) global shifts, got shape {shifts.shape}")
        object.__setattr__(self, "global_px", shifts)
        given = {"polynomial": self.polynomial, "spline": self.lattice_px}
        for model, part in given.items():
            if (part is not None) != (self.model == model):
                raise InputError(f"motion: model {self.model!r} and the coefficients of a {model} do not go together")
            if part is not None:
                part = np.asarray(part, float)
                right = (
                    part.shape == (2, POLYNOMIAL_TERMS)
                    if model == "polynomial"
                    else (part.ndim == 4 and part.shape[::3] == (n, 2) and min(part.shape[1:3]) >= 4)
                )
                if not right:
                    raise InputError(
                        f"motion: coefficients of a {model} of shape {part.shape} for {n} frames; expected "
                        "(2, 18), or (n_frames, nodes_y >= 4, nodes_x >= 4, 2) of a spline"
                    )
                object.__setattr__(self, "polynomial" if model == "polynomial" else "lattice_px", part)
        for part in (shifts, self.polynomial, self.lattice_px):
            if part is not None and not np.isfinite(part).all():
                raise InputError("motion: a shift or coefficient is not finite")
        used = np.ones(n, bool) if self.used is None else np.asarray(self.used, bool)
        if used.shape != (n,):
            raise InputError(f"motion: expected {n} flags of used frames, got shape {used.shape}")
        object.__setattr__(self, "used", used)

    def __len__(self) -> int:
        return len(self.global_px)

    def local(self, x_px: npt.ArrayLike, y_px: npt.ArrayLike) -> FloatArray:
        """The field without the shifts of whole frames: (..., n_frames, 2) px."""
        return local_shifts(x_px, y_px, self.shape, len(self), polynomial=self.polynomial, lattice_px=self.lattice_px)

    def at(self, x_px: npt.ArrayLike, y_px: npt.ArrayLike) -> FloatArray:
        """Where the specimen point that the corrected micrograph shows at (x, y) lies in each frame, minus (x, y).

        Parameters
        ----------
        x_px, y_px : array_like
            Pixels of the corrected micrograph, broadcast against each other; the first pixel is (0, 0).

        Returns
        -------
        (..., n_frames, 2) float64
            x, then y.
        """
        return self.local(x_px, y_px) + self.global_px

    def on_lattice(self, nodes_y: int, nodes_x: int) -> FloatArray:
        """The field at nodes spread evenly from the first pixel to the last: (n_frames, nodes_y, nodes_x, 2)."""
        y, x = np.linspace(0, self.shape[0] - 1, nodes_y), np.linspace(0, self.shape[1] - 1, nodes_x)
        return np.moveaxis(self.at(x[None, :], y[:, None]), 2, 0)

    def as_polynomial(self) -> FloatArray | None:
        """The 18 coefficients an axis nearest to the field, for programs that know no other: (2, 18), or None.

        Those of a polynomial are its own; through a lattice they are fitted by least squares over a grid of places and
        all frames.
        """
        if self.lattice_px is None:
            return self.polynomial
        y, x = np.meshgrid(*(np.linspace(0, n - 1, 13) for n in self.shape), indexing="ij")
        space, time = polynomial_space(x.ravel(), y.ravel(), self.shape), polynomial_time(len(self))
        scale = max(1.0, len(self) - 1.0) ** np.arange(1, 4)
        design = np.einsum("ps,ft->pfst", space, time / scale).reshape(-1, POLYNOMIAL_TERMS)
        coefficients = np.linalg.lstsq(design, self.local(x.ravel(), y.ravel()).reshape(-1, 2), rcond=None)[0]
        return np.asarray((coefficients.T.reshape(2, 6, 3) / scale).reshape(2, POLYNOMIAL_TERMS))

    def drift_px(self) -> FloatArray:
        """Path length of the whole frames up to each frame: (n_frames,)."""
        steps = np.hypot(*np.diff(self.global_px, axis=0).T)
        return np.concatenate([[0.0], np.cumsum(steps)])
