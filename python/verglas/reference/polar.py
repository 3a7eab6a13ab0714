"""Reference of the polar ops: direct sums in float64, one term per pixel, angle and harmonic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]


def angles_rad(n_theta: int) -> Real:
    """The full circle."""
    return 2 * np.pi * np.arange(n_theta) / n_theta


def points(radii: npt.ArrayLike, n_theta: int) -> tuple[Real, Real]:
    """kx, ky of every ring and angle, (n_rings, n_theta)."""
    theta = angles_rad(n_theta)
    r = np.asarray(radii, np.float64)[:, None]
    return r * np.cos(theta), r * np.sin(theta)


def transform_2d(images: npt.ArrayLike, kx: Real, ky: Real) -> Complex:
    """Fourier transform of (n, N, N) images at any points, by the sum itself: (n, *kx.shape)."""
    x = np.asarray(images, np.float64)
    n = np.arange(x.shape[-1]) - x.shape[-1] // 2
    ex = np.exp(-2j * np.pi * kx[..., None] * n / x.shape[-1])
    ey = np.exp(-2j * np.pi * ky[..., None] * n / x.shape[-1])
    return np.einsum("iyx,...y,...x->i...", x, ey, ex, optimize=True)


def transform_3d(volume: npt.ArrayLike, k: Real) -> Complex:
    """Fourier transform of one (N, N, N) volume at points k (..., 3), x y z."""
    v = np.asarray(volume, np.float64)
    n = np.arange(v.shape[-1]) - v.shape[-1] // 2
    flat = np.asarray(k, np.float64).reshape(-1, 3)
    out = np.empty(len(flat), np.complex128)
    for begin in range(0, len(flat), 1000):  # the intermediate array holds N^2 values per point
        e = np.exp(-2j * np.pi * flat[begin : begin + 1000, :, None] * n / v.shape[-1])
        out[begin : begin + 1000] = np.einsum("zyx,kx,ky,kz->k", v, e[:, 0], e[:, 1], e[:, 2], optimize=True)
    return out.reshape(np.shape(k)[:-1])


def polar(images: npt.ArrayLike, radii: npt.ArrayLike, n_theta: int) -> Complex:
    """Samples (n, n_rings, n_theta) on the full circle."""
    return transform_2d(images, *points(radii, n_theta))


def polar_slices(volume: npt.ArrayLike, matrices: npt.ArrayLike, radii: npt.ArrayLike, n_theta: int) -> Complex:
    """Central slices V(A^T k) of one volume, (n, n_rings, n_theta); A as in docs/conventions.md."""
    kx, ky = points(radii, n_theta)
    a = np.asarray(matrices, np.float64).reshape(-1, 3, 3)
    # A^T (kx, ky, 0): the first two rows of A.
    k = kx[..., None] * a[:, None, None, 0] + ky[..., None] * a[:, None, None, 1]
    return transform_3d(volume, k)


def polar_harmonics(samples: npt.ArrayLike, max_m: int) -> Complex:
    """x_m = sum over the full circle of x exp(-i m theta), m = 0..max_m, over the last axis: unnormalised."""
    s = np.asarray(samples)
    m = np.arange(max_m + 1)[:, None]
    return s @ np.exp(-1j * m * angles_rad(s.shape[-1])).T
