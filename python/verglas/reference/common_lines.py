"""Reference of ops.common_lines and ops.common_line_scores, written out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def _full(lines: npt.ArrayLike, loss: npt.ArrayLike) -> tuple[npt.NDArray[np.complex128], Float]:
    """Lines and losses on the full circle: half a turn on, a line is its conjugate."""
    x, own = np.asarray(lines, np.complex128), np.asarray(loss, np.float64)
    return np.concatenate([x, x.conj()], axis=1), np.concatenate([own, own], axis=1)


def pair_scores(lines: npt.ArrayLike, loss: npt.ArrayLike, i: int, j: int) -> Float:
    """Scores of every direction of image i on the half circle with every one of image j, (half, 2 half)."""
    x, own = _full(lines, loss)
    half = x.shape[1] // 2
    return (x[i, :half] @ x[j].conj().T).real - own[i, :half, None] - own[j][None]


def common_line_scores(
    lines: npt.ArrayLike, loss: npt.ArrayLike, rotations: npt.ArrayLike, candidates: npt.ArrayLike, image: npt.ArrayLike
) -> Float:
    """The arguments of :func:`verglas.ops.common_line_scores`; (m,)."""
    x, own = _full(lines, loss)
    turn = x.shape[1]
    fixed = np.asarray(rotations, np.float64)

    def at(i: int, rotation: Float, v: Float) -> tuple[npt.NDArray[np.complex128], float]:
        t = np.arctan2(v @ rotation[:, 1], v @ rotation[:, 0]) / (2 * np.pi) * turn
        first, f = int(np.floor(t)), t - np.floor(t)
        a, b = first % turn, (first + 1) % turn
        return (1 - f) * x[i, a] + f * x[i, b], float((1 - f) * own[i, a] + f * own[i, b])

    out = []
    for i, rotation in zip(np.asarray(image, int), np.asarray(candidates, np.float64), strict=True):
        total = 0.0
        for j in range(len(x)):
            # Two central planes meet in the line across both normals; nearly parallel ones meet in none that is worth a
            # score.
            v = np.cross(rotation[:, 2], fixed[j][:, 2])
            if j == i or np.linalg.norm(v) < 1e-3:
                continue
            (p, loss_p), (q, loss_q) = at(i, rotation, v), at(j, fixed[j], v)
            total += float((p * q.conj()).real.sum()) - loss_p - loss_q
        out.append(total)
    return np.array(out)
