"""Reference of ops.scatter: the sum over atoms, written out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def _frequencies(box: int, pixel_size_A: float) -> npt.NDArray[np.float64]:
    return np.fft.fftfreq(box, pixel_size_A).astype(np.float64)


def _phases(x: npt.NDArray[np.float64], box: int, pixel_size_A: float) -> npt.NDArray[np.complex128]:
    """exp(-2 pi i k x), (a, box); the mean of +N/2 and -N/2 at the Nyquist frequency of an even box."""
    phases = np.exp(-2j * np.pi * np.outer(x, _frequencies(box, pixel_size_A)))
    if box % 2 == 0:
        phases[:, box // 2] = phases[:, box // 2].real
    return phases


def _amplitude(
    atoms: npt.NDArray[np.float64],
    types: npt.NDArray[np.int64],
    factors: npt.NDArray[np.float64],
    k2: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """W exp(-B k^2/4) f(k) of every atom, (a, *k2.shape)."""
    k2 = k2[None]
    form = np.array([sum(a * np.exp(-b * k2[0] / 4) for a, b in row) for row in factors])
    weight, b_factor = (atoms[:, c].reshape(-1, *(1,) * (k2.ndim - 1)) for c in (3, 4))
    return weight * np.exp(-b_factor * k2 / 4) * form[types]


def scatter(
    atoms: npt.ArrayLike,
    types: npt.ArrayLike,
    factors: npt.ArrayLike,
    matrices: npt.ArrayLike,
    shifts_A: npt.ArrayLike,
    box: int,
    pixel_size_A: float,
) -> npt.NDArray[np.complex128]:
    """Same arguments as :func:`verglas.ops.scatter`, complex128."""
    atoms, types, factors = np.asarray(atoms, np.float64), np.asarray(types), np.asarray(factors, np.float64)
    k, half = _frequencies(box, pixel_size_A), box // 2 + 1
    amplitude = _amplitude(atoms, types, factors, k[:, None] ** 2 + k[None, :half] ** 2)
    out = []
    for matrix, shift in zip(np.asarray(matrices, np.float64), np.asarray(shifts_A, np.float64), strict=True):
        # Minus: RELION's origin brings the particle to the centre, so it lies at minus the origin.
        xy = atoms[:, :3] @ matrix[:2].T - shift
        ex, ey = _phases(xy[:, 0], box, pixel_size_A)[:, :half], _phases(xy[:, 1], box, pixel_size_A)
        out.append(np.einsum("ayx,ay,ax->yx", amplitude, ey, ex))
    return np.array(out).reshape(-1, box, half)


def scatter_volume(
    atoms: npt.ArrayLike, types: npt.ArrayLike, factors: npt.ArrayLike, box: int, pixel_size_A: float
) -> npt.NDArray[np.complex128]:
    """Same arguments as :func:`verglas.ops.scatter_volume`, complex128."""
    atoms, types, factors = np.asarray(atoms, np.float64), np.asarray(types), np.asarray(factors, np.float64)
    k, half = _frequencies(box, pixel_size_A), box // 2 + 1
    k2 = k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :half] ** 2
    ez, ey, ex = (_phases(atoms[:, c], box, pixel_size_A) for c in (2, 1, 0))
    return np.einsum("azyx,az,ay,ax->zyx", _amplitude(atoms, types, factors, k2), ez, ey, ex[:, :half])
