"""Reference of ops.ctf: the printed formula, term by term."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def wavelength_A(voltage_kV: float) -> float:
    """Relativistic electron wavelength in angstrom."""
    volt = voltage_kV * 1e3
    return float(12.2643247 / np.sqrt(volt * (1 + 0.978466e-6 * volt)))


def ctf_at(row: npt.ArrayLike, kx: npt.ArrayLike, ky: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """CTF of one parameter row at spatial frequencies kx, ky in 1/A, any shape."""
    u, v, angle, voltage, cs_mm, w, phase, b_factor, scale = np.asarray(row, np.float64)[:9]
    s4, a4, b4, c4, d4 = np.asarray(row, np.float64)[9:] if len(np.asarray(row)) > 9 else np.zeros(5)
    k2, theta = np.square(kx) + np.square(ky), np.arctan2(ky, kx)
    lam = wavelength_A(voltage)
    dz = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (theta - np.deg2rad(angle)))
    chi = np.pi * lam * dz * k2 - np.pi / 2 * (cs_mm * 1e7) * lam**3 * k2**2 + np.deg2rad(phase)
    chi += k2**2 * (
        s4 + a4 * np.cos(2 * theta) + b4 * np.sin(2 * theta) + c4 * np.cos(4 * theta) + d4 * np.sin(4 * theta)
    )
    return scale * np.exp(-b_factor * k2 / 4) * (np.sqrt(1 - w**2) * np.sin(chi) + w * np.cos(chi))


def ctf(params: npt.ArrayLike, box: int, pixel_size_A: float) -> npt.NDArray[np.float64]:
    """Same arguments as :func:`verglas.ops.ctf`, float64."""
    ky = np.fft.fftfreq(box, pixel_size_A)[:, None]
    kx = np.fft.rfftfreq(box, pixel_size_A)[None, :]
    out = [ctf_at(row, kx, ky) for row in np.asarray(params, np.float64)]
    return np.array(out).reshape(-1, box, box // 2 + 1)
