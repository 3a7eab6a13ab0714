"""A movie's motion as other programs' files hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.display import one_line
from verglas.types.motion import Motion, local_shifts

_ABSENT: Any = None


@one_line
@dataclass(frozen=True, eq=False)
class Trajectory:
    r"""Where the specimen lay in every frame of one movie, and what goes with it.

    The point that the corrected micrograph shows at (x, y) lies in frame f at (x, y) + u. Files of RELION and MotionCor
    hold minus u: what they add to the frame.

    .. math:: u = g_f + \sum_{s,p} c_{3s+p-1} \phi_s t^p, \quad \phi = (1, x, x^2, y, y^2, xy), \ p = 1, 2, 3

    with x = X/nx - 1/2, y = Y/ny - 1/2 and t the frame from 0.

    Attributes
    ----------
    global_px : (n, 2) float64
        g, x then y.
    polynomial : (2, 18) float64 or None
        c of x, then of y.
    lattice_px : (n, nodes_y, nodes_x, 2) float64 or None
        Coefficients of uniform cubic B-splines over the frame, as those of :class:`verglas.types.motion.Motion`: the
        field itself, of which ``polynomial`` is then the nearest that other programs can read.
    patches : DataFrame or None
        Shifts measured in patches beyond ``global_px``: columns frame (from 0), x_px, y_px (centre), dx_px, dy_px.
    hot_pixels : (m, 2) int64
        Rows (y, x).
    shape : (int, int) or None
        Rows and columns of the frames.
    movie, gain : str or None
        Names of the files.
    pixel_size_A, dose_per_frame_e_A2, pre_exposure_e_A2, voltage_kV : float or None
        Of the frames as recorded.
    binning : float
        Pixels of a frame per pixel of the micrograph, along each axis.
    first_frame : int
        Number of the first frame used, from 0.
    more : mapping of str to value
        What else RELION's general table holds, by its labels.

    Raises
    ------
    InputError
        Another shape, or a number that is not finite.
    """

    global_px: FloatArray
    polynomial: FloatArray | None = None
    patches: pd.DataFrame | None = None
    hot_pixels: IntArray = _ABSENT
    shape: tuple[int, int] | None = None
    movie: str | None = None
    gain: str | None = None
    pixel_size_A: float | None = None
    dose_per_frame_e_A2: float | None = None
    pre_exposure_e_A2: float | None = None
    voltage_kV: float | None = None
    binning: float = 1.0
    first_frame: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)
    lattice_px: FloatArray | None = None

    def __post_init__(self) -> None:
        """Check once."""
        where = f"motion of {self.movie or 'a movie'}"
        moves = np.asarray(self.global_px, np.float64)
        if moves.ndim != 2 or moves.shape[1] != 2 or not len(moves) or not np.isfinite(moves).all():
            raise InputError(f"{where}: expected (n, 2) finite shifts of frames, got shape {moves.shape}")
        object.__setattr__(self, "global_px", moves)
        if self.polynomial is not None:
            terms = np.asarray(self.polynomial, np.float64)
            if terms.shape != (2, 18) or not np.isfinite(terms).all():
                raise InputError(f"{where}: expected 18 finite coefficients an axis, got shape {terms.shape}")
            if self.shape is None:
                raise InputError(f"{where}: a polynomial without the size of the frames")
            object.__setattr__(self, "polynomial", terms)
        if self.lattice_px is not None:
            nodes = np.asarray(self.lattice_px, np.float64)
            if nodes.ndim != 4 or nodes.shape[::3] != (len(moves), 2) or min(nodes.shape[1:3]) < 4:
                raise InputError(f"{where}: a lattice of shape {nodes.shape}; expected ({len(moves)}, >= 4, >= 4, 2)")
            if self.shape is None or not np.isfinite(nodes).all():
                raise InputError(f"{where}: a lattice with a node that is not finite, or without the frames' size")
            object.__setattr__(self, "lattice_px", nodes)
        hot = np.zeros((0, 2), np.int64) if self.hot_pixels is None else np.asarray(self.hot_pixels, np.int64)
        object.__setattr__(self, "hot_pixels", hot.reshape(-1, 2))

    @classmethod
    def from_motion(cls, motion: Motion, **known: Any) -> Trajectory:
        """What files hold of a motion; a spline field besides as the nearest polynomial.

        Parameters
        ----------
        motion : Motion
        **known
            Further attributes.
        """
        return cls(motion.global_px, motion.as_polynomial(), shape=motion.shape, lattice_px=motion.lattice_px, **known)

    def __len__(self) -> int:
        return len(self.global_px)

    def local(self, x_px: Any, y_px: Any) -> FloatArray:
        """The lattice's part at places of the frame, else the polynomial's: (..., n, 2); zero without either."""
        # Parts that depend on the place come with the frames' size (checked above); without them any size does.
        shape = (1, 1) if self.shape is None else self.shape
        return local_shifts(x_px, y_px, shape, len(self), polynomial=self.polynomial, lattice_px=self.lattice_px)

    def at(self, x_px: Any, y_px: Any) -> FloatArray:
        """U at places of the frame: (..., n, 2) pixels, x then y."""
        return np.asarray(self.global_px + self.local(x_px, y_px))

    def flipped_y(self) -> Trajectory:
        """The same motion where rows are counted from the other edge, as RELION counts those of TIFF files.

        Raises
        ------
        InputError
            The size of the frames is not known.
        """
        if self.shape is None:
            raise InputError(f"motion of {self.movie or 'a movie'}: rows cannot be reversed without the frames' size")
        rows = self.shape[0]
        terms = None
        if self.polynomial is not None:
            c = self.polynomial.reshape(2, 6, 3)
            e = 1 / rows  # Y' = ny - 1 - Y, so y = -y' - 1/ny
            one, x, xx, y, yy, xy = (c[:, s] for s in range(6))
            turned = [one - e * y + e * e * yy, x - e * xy, xx, -y + 2 * e * yy, yy, -xy]
            terms = (np.stack(turned, axis=1) * np.array([1, -1])[:, None, None]).reshape(2, 18)
        patches = self.patches
        if patches is not None:
            patches = patches.assign(y_px=rows - 1 - patches["y_px"], dy_px=-patches["dy_px"])
        hot = self.hot_pixels * (-1, 1) + (rows - 1, 0)
        nodes = None if self.lattice_px is None else self.lattice_px[:, ::-1] * (1, -1)
        return replace(
            self,
            global_px=self.global_px * (1, -1),
            polynomial=terms,
            patches=patches,
            hot_pixels=hot,
            lattice_px=nodes,
        )
