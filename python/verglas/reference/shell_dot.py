"""Reference of ops.shell_dot: the sums over shells, written out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def shell_dot(a: npt.ArrayLike, b: npt.ArrayLike, max_radius: int) -> npt.NDArray[np.float64]:
    """(n, max_radius + 1) float64; the arguments of :func:`verglas.ops.shell_dot` without the index."""
    x, y = np.asarray(a, np.complex128), np.asarray(b, np.complex128)
    box = x.shape[1]
    ky, kx = np.fft.fftfreq(box, 1 / box)[:, None], np.arange(box // 2 + 1)
    shell = np.rint(np.hypot(ky, kx)).astype(int)
    weight = np.where((kx == 0) | (2 * kx == box), 1.0, 2.0) * np.ones_like(ky)  # those that are their own mates
    product = (x.conj() * y).real * weight
    return np.stack([product[:, shell == s].sum(axis=1) for s in range(max_radius + 1)], axis=1)
