"""Reference of ops.ctf_score: model, residual and Jacobian written out, derivatives in closed form."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.reference.ctf import wavelength_A


def ctf_score(
    params: npt.ArrayLike, kx: npt.ArrayLike, ky: npt.ArrayLike, values: npt.ArrayLike, amplitude: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Same arguments and result as :func:`verglas.ops.ctf_score` with derivatives, float64."""
    x, y, data, a = (np.asarray(v, np.float64) for v in (kx, ky, values, amplitude))
    k2, theta = x**2 + y**2, np.arctan2(y, x)
    out = []
    for u, v, angle, voltage, cs_mm, w, phase, _, _ in np.asarray(params, np.float64):
        lam = wavelength_A(voltage)
        dz = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (theta - np.deg2rad(angle)))
        chi = np.pi * lam * dz * k2 - np.pi / 2 * (cs_mm * 1e7) * lam**3 * k2**2 + np.deg2rad(phase) + np.arcsin(w)
        model = a * np.sin(chi) ** 2
        slope = a * np.sin(2 * chi)  # dm / dchi
        chain = [np.pi * lam * k2, np.pi * lam * k2 * np.cos(2 * theta), np.pi * lam * k2 * np.sin(2 * theta)]
        jacobian = np.array([*(slope * c for c in chain), slope * np.pi / 180])
        residual = data - model
        upper = (jacobian @ jacobian.T)[np.triu_indices(4)]
        out.append(np.concatenate([[(model**2).sum(), (data * model).sum()], jacobian @ residual, upper]))
    return np.array(out).reshape(-1, 16)
