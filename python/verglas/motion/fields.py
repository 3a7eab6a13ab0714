"""Smooth fields as sums of known functions: shifts of whole frames, a polynomial, a lattice with a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas.types.arrays import FloatArray
from verglas.types.motion import Motion, polynomial_space, spline_basis

LATTICE = 7  # nodes along each axis: four intervals of cubic splines
ANYWHERE_PX = 300.0
START_PX = 3.0  # standard deviations before the evidence has spoken
SETTLING_FRAMES = 6.0  # over which motion that the beam starts slows down
KEPT = 1e-3  # parts of the variance of a prior in space below this are left out
KEPT_IN_TIME = 1e-6


@dataclass(frozen=True, eq=False)
class Field:
    """d(p, f, axis) = sum over terms of space[term](p, :) a time[term](f, :)^T, the same functions for both axes.

    Attributes
    ----------
    space : tuple of (n, s) float64
        Functions of place, at the patches.
    time : tuple of (frames, t) float64
        Functions of time.
    deviations_px : tuple of float
        Standard deviations of the coefficients of each term.
    n_global : int
        How many of the terms, from the first on, are shifts of whole frames.
    """

    space: tuple[FloatArray, ...]
    time: tuple[FloatArray, ...]
    deviations_px: tuple[float, ...]
    n_global: int

    @property
    def sizes(self) -> list[int]:
        """Coefficients of each term, of one axis."""
        return [s.shape[1] * t.shape[1] for s, t in zip(self.space, self.time, strict=True)]

    @property
    def size(self) -> int:
        """Of one axis."""
        return sum(self.sizes)

    def split(self, coefficients: FloatArray) -> list[FloatArray]:
        """(2, size) to (2, s, t) of each term."""
        parts = np.split(coefficients, np.cumsum(self.sizes)[:-1], axis=1)
        return [
            part.reshape(2, s.shape[1], t.shape[1]) for part, s, t in zip(parts, self.space, self.time, strict=True)
        ]

    def at_patches(self, coefficients: FloatArray) -> FloatArray:
        """(n, frames, 2) px."""
        return np.asarray(
            sum(
                np.einsum("ps,ast,ft->pfa", s, c, t, optimize=True)
                for c, s, t in zip(self.split(coefficients), self.space, self.time, strict=True)
            )
        )

    def adjoint(self, values: FloatArray) -> FloatArray:
        """From (n, frames, 2) to coefficients (2, size): the gradient's way back."""
        parts = [
            np.einsum("ps,pfa,ft->ast", s, values, t, optimize=True).reshape(2, -1)
            for s, t in zip(self.space, self.time, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def precision(self) -> FloatArray:
        """Of the prior, (size,), the same for both axes."""
        return np.concatenate([np.full(n, d**-2.0) for n, d in zip(self.sizes, self.deviations_px, strict=True)])

    def information(self, places: FloatArray, frames: FloatArray) -> FloatArray:
        """Of the coefficients of one axis, (size, size): places (n,) times frames (f, f) are that of the shifts."""
        rows = []
        for s, t in zip(self.space, self.time, strict=True):
            row = []
            for s2, t2 in zip(self.space, self.time, strict=True):
                row.append(np.kron((s * places[:, None]).T @ s2, t.T @ frames @ t2))
            rows.append(np.concatenate(row, axis=1))
        return np.concatenate(rows, axis=0)

    def with_deviations(self, deviations_px: tuple[float, ...]) -> Field:
        """The same functions under another prior."""
        return replace(self, deviations_px=tuple(deviations_px))


Term = tuple[FloatArray, FloatArray, float]


def global_terms(n_places: int, frames: FloatArray, jumps: Sequence[int] = ()) -> list[Term]:
    """Shifts of whole frames: a path that settles, a jitter of every frame, and frames that may lie anywhere."""
    one, each = np.ones((n_places, 1)), np.eye(len(frames))
    terms = [(one, settling_times(frames, SETTLING_FRAMES), START_PX), (one, each[:, 1:], START_PX)]
    return [*terms, (one, each[:, list(jumps)], ANYWHERE_PX)] if len(jumps) else terms


def polynomial_term(centres_px: FloatArray, shape: tuple[int, int], frames: FloatArray) -> Term:
    """The 15 functions an axis that shifts of whole frames leave of the 18; t is scaled to end at 1."""
    space = polynomial_space(centres_px[:, 0], centres_px[:, 1], shape)[:, 1:]
    return space, (frames / max(1.0, frames.max()))[:, None] ** np.arange(1, 4), START_PX


def lattice_places(
    centres_px: FloatArray, shape: tuple[int, int], length: float, nodes: int = LATTICE
) -> tuple[FloatArray, FloatArray]:
    """Functions (n, s) of place with independent coefficients of variance 1, and the lattice (nodes^2, s) of each.

    The control points are correlated as exp(-r^2 / (2 length^2)), lengths in sides of the frame.
    """
    side = max(shape)
    axes = [(np.arange(nodes) - 1.0) / (nodes - 3) * n / side for n in shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    r2 = (x.reshape(-1, 1) - x.reshape(1, -1)) ** 2 + (y.reshape(-1, 1) - y.reshape(1, -1)) ** 2
    values, vectors = np.linalg.eigh(np.exp(-r2 / (2 * length**2)))
    keep = values > KEPT * values.max()
    lattice = (vectors[:, keep] * np.sqrt(values[keep]))[:, ::-1]
    down = spline_basis(centres_px[:, 1], shape[0], nodes)
    across = spline_basis(centres_px[:, 0], shape[1], nodes)
    basis = (down[:, :, None] * across[:, None, :]).reshape(len(centres_px), -1)
    return basis @ lattice, lattice


def settling_times(frames: FloatArray, length: float) -> FloatArray:
    """Functions (frames, t) of time with independent coefficients of variance 1, zero at the first frame.

    Displacement is the sum of velocities, which are correlated over ``length`` frames and shrink from the first on,
    by 1 / (1 + f / SETTLING_FRAMES) but not below a tenth; scaled so that the last frame has variance 1.
    """
    f = frames - frames.min()
    fine = np.arange(int(f.max()) + 1, dtype=float)
    pace = np.maximum(0.1, 1 / (1 + fine / SETTLING_FRAMES))
    velocity = pace[:, None] * pace * np.exp(-((fine[:, None] - fine) ** 2) / (2 * length**2))
    summed = np.tril(np.ones((len(fine), len(fine))), -1)  # displacement of frame f: velocities before it
    covariance = (summed @ velocity @ summed.T)[np.ix_(f.astype(int), f.astype(int))]
    covariance /= max(covariance[-1, -1], 1e-30)
    values, vectors = np.linalg.eigh(covariance)
    keep = values > KEPT_IN_TIME * values.max()
    return np.asarray((vectors[:, keep] * np.sqrt(values[keep]))[:, ::-1])


def field_of(of_frames: list[Term], local: list[Term]) -> Field:
    """Terms added up: shifts of whole frames, and what changes over the frame."""
    space, time, deviations = zip(*of_frames, *local, strict=True)
    return Field(tuple(space), tuple(time), tuple(deviations), len(of_frames))


def frame_errors(field: Field, covariance: FloatArray) -> FloatArray:
    """Standard errors (frames,) along one axis of the field's mean over the patches, about the mean of all frames.

    Local terms count, too: a lattice does not add up to nothing over the frame, and what it takes over, shifts of whole
    frames give up. Of those alone the error would be that of a division which nothing depends on.
    """
    columns = [np.kron(s.mean(0), t) for s, t in zip(field.space, field.time, strict=True)]
    design = np.concatenate(columns, axis=1)
    design = design - design.mean(0)
    return np.sqrt(np.maximum(0.0, np.einsum("fi,ij,fj->f", design, covariance, design, optimize=True)))


@dataclass(frozen=True)
class Timing:
    """Which frames of a movie were fitted."""

    n_frames: int
    used: npt.NDArray[np.int64]

    @property
    def frames(self) -> FloatArray:
        """Their numbers as floats."""
        return self.used.astype(float)

    def everywhere(self, values: FloatArray) -> FloatArray:
        """(used, ...) to (n_frames, ...): those not fitted lie between their neighbours."""
        flat = values.reshape(len(self.used), -1)
        full = np.stack([np.interp(np.arange(self.n_frames), self.frames, column) for column in flat.T], 1)
        return np.asarray(full.reshape(self.n_frames, *values.shape[1:]))


def to_motion(
    field: Field, coefficients: FloatArray, shape: tuple[int, int], timing: Timing, lattice: FloatArray | None = None
) -> Motion:
    """What a fitted field says of all frames.

    ``lattice`` (nodes^2, s): the control points of each function of place; without it a local term is a polynomial.
    """
    parts, k = field.split(coefficients), field.n_global
    moved = [np.einsum("ast,ft->fa", part, time) for part, time in zip(parts[:k], field.time[:k], strict=True)]
    shifts = np.sum(moved, axis=0)
    used = np.isin(np.arange(timing.n_frames), timing.used)
    if len(parts) == k:
        return Motion(shape, timing.everywhere(shifts - shifts[0]), used=used)
    if lattice is None:
        polynomial = np.zeros((2, 6, 3))
        polynomial[:, 1:] = parts[k] * max(1.0, timing.frames.max()) ** -np.arange(1.0, 4.0)
        shifts = timing.everywhere(shifts - shifts[0])
        return Motion(shape, shifts, "polynomial", polynomial=polynomial.reshape(2, 18), used=used)
    nodes = np.einsum("ns,ast,ft->fna", lattice, parts[k], field.time[k], optimize=True)
    side = int(np.sqrt(nodes.shape[1]))
    full = timing.everywhere((nodes - nodes[0]).reshape(len(timing.used), side, side, 2))
    return Motion(shape, timing.everywhere(shifts - shifts[0]), "spline", lattice_px=full, used=used)
