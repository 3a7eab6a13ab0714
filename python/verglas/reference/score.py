"""Reference of ops.score: the log-likelihood of every pose in float64, twice: on the Cartesian plane, pixel by pixel,
and on a polar grid, ring by ring. No recurrences, no symmetries, everything in memory: small problems only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.reference import ctf as ctf_reference
from verglas.reference import polar

Real = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]


def psi_deg(n_psi: int) -> Real:
    """The in-plane angles: cell centres (j + 1/2) 360 / n_psi."""
    return (np.arange(n_psi) + 0.5) * 360 / n_psi


def plane(box: int, radius: float) -> tuple[Real, Real]:
    """kx, ky of every lattice point 0 < |k| < radius + 1/2 of the full plane."""
    k = np.arange(-(box // 2), (box + 1) // 2, dtype=np.float64)
    ky, kx = (g.ravel() for g in np.meshgrid(k, k, indexing="ij"))
    inside = (np.hypot(kx, ky) > 0) & (np.hypot(kx, ky) < radius + 0.5)
    return kx[inside], ky[inside]


def plane_of_slices(matrices: npt.ArrayLike, box: int, radius: float) -> Real:
    """Where the lattice points of each orientation's slice lie in the map's transform, (poses, points, 3) x y z."""
    kx, ky = plane(box, radius)
    a = np.asarray(matrices, np.float64)
    return kx[:, None] * a[:, None, 0] + ky[:, None] * a[:, None, 1]


def cartesian_terms(
    images: npt.ArrayLike,
    slices: npt.ArrayLike,
    shifts_px: npt.ArrayLike,
    inv_sigma2: npt.ArrayLike,
    radius: int,
    params: npt.ArrayLike | None = None,
    pixel_size_A: float = 1.0,
) -> tuple[Real, Real]:
    """Cross (n, poses, shifts) and power (n, poses) of images against slices, summed over the full lattice.

    ``slices`` (poses, points) hold the map's transform at :func:`plane_of_slices`, in-plane angle included;
    ``inv_sigma2`` (n, shells) is indexed by round(|k|).
    """
    x, slices = np.asarray(images, np.float64), np.asarray(slices, np.complex128)
    box = x.shape[-1]
    kx, ky = plane(box, radius)
    inv = np.asarray(inv_sigma2, np.float64)[:, np.rint(np.hypot(kx, ky)).astype(int)]
    c = np.ones((len(x), len(kx)))
    if params is not None:
        step = 1 / (box * pixel_size_A)
        c = np.array([ctf_reference.ctf_at(row, kx * step, ky * step) for row in np.asarray(params, np.float64)])
    y = polar.transform_2d(x, kx, ky) * c * inv
    t = np.asarray(shifts_px, np.float64)
    phase = np.exp(-2j * np.pi * (t[:, :1] * kx + t[:, 1:] * ky) / box)
    cross = np.einsum("pk,ik,tk->ipt", slices.conj(), y, phase, optimize=True).real
    return cross, np.einsum("pk,ik->ip", np.abs(slices) ** 2, c**2 * inv)


def polar_terms(
    samples: npt.ArrayLike,
    slices: npt.ArrayLike,
    weights: npt.ArrayLike,
    radii: npt.ArrayLike,
    limits: npt.ArrayLike,
    n_psi: int,
    shifts_px: npt.ArrayLike,
    box: int,
    inv_sigma2: npt.ArrayLike,
    ctf: npt.ArrayLike | None = None,
) -> tuple[Real, Real]:
    """Cross (n, slices, psi, shifts) and power (n, slices, psi) from full-circle samples (n, rings, n_theta).

    A slice turned by psi is its harmonic series at theta + psi, harmonics beyond ``limits`` of each ring dropped; the
    power series is not cut. ``ctf`` (n, rings, n_theta) holds CTF values on the grid, ``inv_sigma2`` (n, rings).
    """
    x, a = np.asarray(samples, np.complex128), np.asarray(slices, np.complex128)
    w = np.asarray(weights, np.float64)[:, None]
    inv = np.asarray(inv_sigma2, np.float64)[..., None]
    c = np.ones(x.shape) if ctf is None else np.asarray(ctf, np.float64)
    n_theta = x.shape[-1]
    kx, ky = polar.points(radii, n_theta)
    t = np.asarray(shifts_px, np.float64)[:, :, None, None]
    y = (x * c * inv * w)[:, None] * np.exp(-2j * np.pi * (t[:, 0] * kx + t[:, 1] * ky) / box)
    m = np.fft.fftfreq(n_theta, 1 / n_theta)
    inside = np.abs(m) <= np.asarray(limits)[:, None]
    turn = np.exp(1j * np.deg2rad(psi_deg(n_psi))[:, None] * m)
    turned = np.fft.ifft((np.fft.fft(a) * inside)[:, None] * turn[:, None, :])  # (slices, psi, rings, n_theta)
    cross = np.einsum("dprk,itrk->idpt", turned.conj(), y, optimize=True).real
    squares = np.fft.ifft(np.fft.fft(np.abs(a) ** 2)[:, None] * turn[:, None, :]).real
    return cross, np.einsum("dprk,irk->idp", squares, c**2 * inv * w, optimize=True)


def log_sum_exp(values: npt.ArrayLike, axis: int | tuple[int, ...] | None = None) -> Real:
    """Log sum exp without overflow."""
    v = np.asarray(values, np.float64)
    top = v.max(axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(v - top).sum(axis=axis))


def posterior(log_joint: npt.ArrayLike) -> Real:
    """exp(L + log prior) / sum over everything but the first axis."""
    v = np.asarray(log_joint, np.float64)
    flat = v.reshape(len(v), -1)
    p = np.exp(flat - flat.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)).reshape(v.shape)


def gaussian_log_density(x: npt.ArrayLike, mean: npt.ArrayLike, sigma2: float) -> float:
    """Log P(X | R) = -J/2 log(2 pi sigma^2) - |X - R|^2 / (2 sigma^2) of J independent real values."""
    d = np.asarray(x, np.float64) - np.asarray(mean, np.float64)
    return float(-d.size / 2 * np.log(2 * np.pi * sigma2) - np.sum(d**2) / (2 * sigma2))
