"""Images of points that bend, each a Gaussian, for the tests of deformations."""

from __future__ import annotations

import numpy as np

import verglas as vg

BOX, PIXEL_A, WIDTH_A = 32, 4.0, 4.0


def gaussian_images(xyz_A, poses, optics, noise):
    """Exact images of Gaussian atoms: a sum over atoms at every frequency."""
    k = np.fft.fftfreq(BOX, PIXEL_A)
    ky, kx = np.meshgrid(k, k[: BOX // 2 + 1] * np.where(np.arange(BOX // 2 + 1) == BOX // 2, -1, 1), indexing="ij")
    envelope = np.exp(-2 * np.pi**2 * WIDTH_A**2 * (kx**2 + ky**2))
    ctf = vg.ops.ctf(optics.as_params(), BOX, PIXEL_A)
    out = []
    for number, (atoms_A, matrix) in enumerate(zip(xyz_A, vg.euler_to_matrix(poses.angles_deg), strict=True)):
        x, y = (atoms_A @ matrix.T)[:, :2].T - poses.shifts_A[number][:, None]
        phases = np.exp(-2j * np.pi * (kx[..., None] * x + ky[..., None] * y)).sum(axis=-1)
        out.append((phases * envelope * ctf[number]).astype(np.complex64))
    images = vg.fourier.inverse(np.stack(out), (BOX, BOX))
    return images + np.random.default_rng(5).normal(0, noise * images.std(), images.shape).astype(np.float32)
