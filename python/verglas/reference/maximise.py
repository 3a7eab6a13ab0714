"""Reference of the M-step: every candidate inserted on its own, by the Fourier sum itself; no harmonics, no grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.reference import ctf as reference_ctf
from verglas.reference import polar as reference_polar

Real = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]


@dataclass(frozen=True)
class Problem:
    """Images, optics and noise, and the rings to sum over (n_theta angles on the full circle)."""

    images: npt.NDArray
    radii: Real
    n_theta: int
    spacing: float = 1.0
    ctf: Real | None = None  # (n, 14)
    pixel_size_A: float = 1.0
    inv_sigma2: Real | None = None  # (n, n_rings)

    @property
    def points(self) -> tuple[Real, Real]:
        """kx, ky, (n_rings, n_theta)."""
        return reference_polar.points(self.radii, self.n_theta)

    @property
    def weights(self) -> Real:
        """w_r of every point, (n_rings, n_theta)."""
        return np.repeat(2 * np.pi * self.radii[:, None] * self.spacing / self.n_theta, self.n_theta, axis=1)

    def optics(self, i: int) -> Real:
        """C of image i."""
        kx, ky = self.points
        if self.ctf is None:
            return np.ones(kx.shape)
        step = 1.0 / (self.pixel_size_A * np.shape(self.images)[-1])
        return reference_ctf.ctf_at(self.ctf[i], kx * step, ky * step)

    def shift_image(self, i: int, shift_px: npt.ArrayLike) -> Complex:
        """X S of image i."""
        kx, ky = self.points
        tx, ty = np.asarray(shift_px, np.float64)
        phase = np.exp(-2j * np.pi * (kx * tx + ky * ty) / np.shape(self.images)[-1])
        return reference_polar.transform_2d(self.images[i : i + 1], kx, ky)[0] * phase


def _adjoint(values: Complex, matrix: Real, problem: Problem) -> Real:
    """Map of sum_points Re(values exp(2 pi i q.x / N)), q = A^T k."""
    kx, ky = problem.points
    box = np.shape(problem.images)[-1]
    q = (kx[..., None] * matrix[0] + ky[..., None] * matrix[1]).reshape(-1, 3)
    n = np.arange(box) - box // 2
    ex, ey, ez = (np.exp(2j * np.pi * q[:, axis, None] * n / box) for axis in range(3))
    return np.einsum("k,kz,ky,kx->zyx", values.ravel(), ez, ey, ex, optimize=True).real


def maximise(
    problem: Problem, image: npt.NDArray, matrices: Real, shifts_px: npt.NDArray, weight: npt.NDArray
) -> tuple[Real, Real]:
    """Numerator and denominator as maps, (N, N, N); one matrix (in-plane angle included) and shift per candidate."""
    box = np.shape(problem.images)[-1]
    numerator, denominator = np.zeros((box,) * 3), np.zeros((box,) * 3)
    for i, matrix, shift, gamma in zip(image, matrices, shifts_px, weight, strict=True):
        c = problem.optics(i)
        inverse = 1.0 if problem.inv_sigma2 is None else problem.inv_sigma2[i][:, None]
        factor = gamma * problem.weights * inverse
        numerator += _adjoint(factor * c * problem.shift_image(i, shift), matrix, problem)
        denominator += _adjoint(factor * c * c + 0j, matrix, problem)
    return numerator, denominator


def residuals(
    problem: Problem,
    volume: npt.ArrayLike,
    image: npt.NDArray,
    matrices: Real,
    shifts_px: npt.NDArray,
    weight: npt.NDArray,
) -> Real:
    """Sum over candidates of gamma sum_theta w_r |X S - C A|^2, (n, n_rings), as it is written."""
    out = np.zeros((len(problem.images), len(problem.radii)))
    for i, matrix, shift, gamma in zip(image, matrices, shifts_px, weight, strict=True):
        a = reference_polar.polar_slices(volume, matrix, problem.radii, problem.n_theta)[0]
        difference = problem.shift_image(i, shift) - problem.optics(i) * a
        out[i] += gamma * (problem.weights * np.abs(difference) ** 2).sum(axis=1)
    return out
