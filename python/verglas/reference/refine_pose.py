"""Reference of ops.refine_pose: the score of one pose by exact Fourier sums, its derivatives, a general optimiser."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize
from scipy.spatial.transform import Rotation

from verglas.reference.project import slice_points

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Score L, gradient (5,) and Fisher information (5, 5) of one pose, parameters as in ops.refine_pose."""

    score: float
    gradient: FloatArray
    fisher: FloatArray


def move_pose(matrix: npt.ArrayLike, shift_px: npt.ArrayLike, step: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The pose exp([omega]x) A, d + step of five parameters (rad, px) from a pose."""
    step = np.asarray(step, np.float64)
    return Rotation.from_rotvec(step[:3]).as_matrix() @ matrix, np.asarray(shift_px) + step[3:]


def mean(
    volume: npt.ArrayLike,
    matrix: npt.ArrayLike,
    shift_px: npt.ArrayLike,
    max_radius: int,
    factor: npt.NDArray | None = None,
) -> tuple[tuple[npt.NDArray, npt.NDArray], npt.NDArray, npt.NDArray]:
    """Pixels (rows, columns), values (k,) and derivatives (k, 5) of the mean image on the half plane, origin left out.

    The transform of the map and its gradient are sums over voxels: V(q) = sum v(x) e^{-2 pi i q.x}, and
    dV/dq = sum (-2 pi i x) v(x) e^{-2 pi i q.x}. ``factor`` is scale times CTF, (N, N // 2 + 1).
    """
    volume, matrix = np.asarray(volume, np.float64), np.asarray(matrix, np.float64)
    box = len(volume)
    rows, columns, frequencies = slice_points(box, matrix, max_radius)
    keep = (rows != 0) | (columns != 0)
    rows, columns, frequencies = rows[keep], columns[keep], frequencies[keep]
    x = np.arange(box) - box // 2
    ez, ey, ex = (np.exp(-2j * np.pi * frequencies[:, axis, None] * x) for axis in range(3))
    dz, dy, dx = (-2j * np.pi * x * e for e in (ez, ey, ex))
    value, gx, gy, gz = (
        np.einsum("kx,zyx,kz,ky->k", a, volume, c, b, optimize=True)
        for a, b, c in ((ex, ey, ez), (dx, ey, ez), (ex, dy, ez), (ex, ey, dz))
    )
    kx, ky = columns / box, np.fft.fftfreq(box)[rows]
    # q = A^T exp(-[omega]x) k: the change of q with omega, seen from the image's frame, is k x omega.
    in_image = np.stack([gx, gy, gz], axis=1) @ matrix.T
    turned = [-ky * in_image[:, 2], kx * in_image[:, 2], ky * in_image[:, 0] - kx * in_image[:, 1]]
    derivatives = np.stack([*turned, -2j * np.pi * kx * value, -2j * np.pi * ky * value], axis=1)
    phase = np.exp(-2j * np.pi * (np.stack([kx, ky], axis=1) @ np.asarray(shift_px, np.float64)))
    phase = phase if factor is None else phase * factor[rows, columns]
    return (rows, columns), value * phase, derivatives * phase[:, None]


def evaluate(
    volume: npt.ArrayLike,
    image: npt.ArrayLike,
    matrix: npt.ArrayLike,
    shift_px: npt.ArrayLike,
    shell_weight: npt.ArrayLike,
    factor: npt.NDArray | None = None,
) -> Evaluation:
    """Score, gradient and Fisher information over shells 1 .. len(shell_weight) - 1 of one half transform."""
    weights = np.asarray(shell_weight, np.float64)
    (rows, columns), mu, derivatives = mean(volume, matrix, shift_px, len(weights) - 1, factor)
    box = len(np.asarray(volume))
    shells = np.rint(np.hypot(columns, np.fft.fftfreq(box, 1 / box)[rows])).astype(int)
    # On the column kx = 0 both mates are in the half transform, elsewhere each pixel stands for two.
    weight = weights[shells] * np.where(columns > 0, 2.0, 1.0)
    x = np.asarray(image)[rows, columns]
    score = np.sum(weight * ((np.conj(mu) * x).real - np.abs(mu) ** 2 / 2))
    gradient = np.einsum("k,ka,k->a", weight, np.conj(derivatives), x - mu).real
    fisher = np.einsum("k,ka,kb->ab", weight, np.conj(derivatives), derivatives).real
    return Evaluation(float(score), gradient, fisher)


def refine_pose(
    volume: npt.ArrayLike,
    image: npt.ArrayLike,
    matrix: npt.ArrayLike,
    shift_px: npt.ArrayLike,
    shell_weight: npt.ArrayLike,
    factor: npt.NDArray | None = None,
) -> tuple[FloatArray, FloatArray, Evaluation]:
    """Maximum of the score near a pose: matrix, shift, evaluation there.

    scipy's BFGS on the five parameters, with finite differences of the score alone: it knows nothing of the gradient.
    Each round starts the parameters anew at zero, so the rotation vector stays small; they are scaled by the Fisher
    information, so that one unit of any of them is about one standard deviation, and a gradient of 1e-3 is a distance
    of about 1e-3 standard deviations from the maximum.
    """
    matrix, shift = np.asarray(matrix, np.float64), np.asarray(shift_px, np.float64)
    # A second start in units of the Fisher information at the first maximum: BFGS stops early where scales are off.
    for _ in range(2):
        start = evaluate(volume, image, matrix, shift, shell_weight, factor)
        unit = 1 / np.sqrt(np.diag(start.fisher))

        def negative(p: FloatArray, unit: FloatArray = unit, a: FloatArray = matrix, d: FloatArray = shift) -> float:
            return -evaluate(volume, image, *move_pose(a, d, p * unit), shell_weight, factor).score

        fit = scipy.optimize.minimize(negative, np.zeros(5), method="BFGS", options={"gtol": 1e-3, "eps": 1e-5})
        matrix, shift = move_pose(matrix, shift, fit.x * unit)
    return matrix, shift, evaluate(volume, image, matrix, shift, shell_weight, factor)
