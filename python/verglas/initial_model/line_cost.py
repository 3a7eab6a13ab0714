r"""Orientations of many images jointly, by the distances of the two ends of all their common lines.

.. math:: f(R_1 \dots R_n) = \frac{\sum_{ij} w_{ij} \left(1 - (R_i c_{ij}) \cdot (R_j c_{ji})\right)}{\sum_{ij} w_{ij}}
                            = \frac{\sum_{ij} w_{ij} |R_i c_{ij} - R_j c_{ji}|^2}{2 \sum_{ij} w_{ij}}

(Penczek, Zhu and Frank 1996, Ultramicroscopy 63, 205-218). Of one image, all others fixed, the minimum is known in
closed form: the nearest rotation to a 3 x 2 matrix. Going round with it is the local search of every optimiser here.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from verglas.initial_model.common_lines import (
    CommonLines,
    Synchronised,
    line_ends,
    refine_rotations,
    summarise_lines,
    trust_of_lines,
)
from verglas.initial_model.optimisers import Optimum, Task, minimise
from verglas.types.arrays import FloatArray

_SWEEPS = 60
_STILL = 1e-4


class LineCost:
    """The cost of orientations, for all members of a population at once.

    A vector of parameters holds a quaternion of any length for each image: no angle wraps, and none is singular.

    Parameters
    ----------
    lines : CommonLines
        Of four images or more.
    """

    def __init__(self, lines: CommonLines) -> None:
        self.ends, self.weight = line_ends(lines), trust_of_lines(lines)
        self.total = float(self.weight.sum())

    def of(self, rotations: FloatArray) -> FloatArray:
        """(m,) costs of (m, n, 3, 3) rotations, whose columns are the axes of the image and its normal."""
        m, n = rotations.shape[:2]
        at = np.matmul(self.ends, rotations[..., :2].transpose(0, 1, 3, 2))  # (m, i, j, 3)
        agreement = (at * at.transpose(0, 2, 1, 3)).sum(axis=-1).reshape(m, n * n) @ self.weight.ravel()
        return np.asarray(1 - agreement / self.total)

    def rotations(self, x: FloatArray) -> FloatArray:
        """(m, n, 3, 3) of (m, 4 n) parameters."""
        quaternions = np.reshape(x, (len(x), -1, 4))
        # A quaternion of length 0 is no rotation: it stands for no turn.
        length = np.linalg.norm(quaternions, axis=-1, keepdims=True)
        quaternions = np.where(length > 1e-9, quaternions, [0.0, 0.0, 0.0, 1.0])
        return Rotation.from_quat(quaternions.reshape(-1, 4)).as_matrix().reshape(*quaternions.shape[:2], 3, 3)

    def parameters(self, rotations: FloatArray) -> FloatArray:
        """(4 n,) of (n, 3, 3)."""
        return np.asarray(Rotation.from_matrix(rotations).as_quat()).ravel()

    def descend(self, rotations: FloatArray) -> FloatArray:
        """Every image in turn where its lines with the others fit best, until none moves; the cost never rises."""
        result = np.array(rotations)
        for _ in range(_SWEEPS):
            before = result.copy()
            for i in range(len(result)):
                others = np.einsum("jab,jb->ja", result[:, :, :2], self.ends[:, i])
                u, _, vt = np.linalg.svd((others * self.weight[i][:, None]).T @ self.ends[i], full_matrices=False)
                axes = u @ vt
                result[i] = np.column_stack([axes, np.cross(axes[:, 0], axes[:, 1])])
            if np.abs(result - before).max() < _STILL:
                break
        return result

    def task(self) -> Task:
        """As optimisers take it."""
        bounds = np.tile([-1.0, 1.0], (4 * len(self.ends), 1))
        return Task(
            lambda x: self.of(self.rotations(x)),
            bounds,
            lambda x: self.parameters(self.descend(self.rotations(x[None])[0])),
        )


def search_orientations(
    lines: CommonLines,
    method: str = "annealing",
    *,
    evaluations: int = 4000,
    seed: int = 0,
    threads: int | None = None,
) -> tuple[Synchronised, Optimum]:
    """Orientations of all images jointly, by a stochastic search of the common lines' cost.

    The search is ended by the closed-form descent, and that by the likelihood of all lines
    (:func:`verglas.initial_model.common_lines.refine_rotations`).

    Parameters
    ----------
    lines : CommonLines
        Of four images or more.
    method : str
        A name of :data:`verglas.initial_model.optimisers.OPTIMISERS`.
    evaluations : int
        Of the cost, about.
    seed : int
        Of the search.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Synchronised, Optimum

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.initial_model import find_common_lines
    >>> from verglas.initial_model.line_cost import search_orientations
    >>> truth = vg.simulate.phantom(32, 4.0, 90.0)
    >>> p = vg.simulate.particles(truth, 12, 32, 4.0, ctf=False, shift_sd_A=0.0)
    >>> result, optimum = search_orientations(find_common_lines(p.images(), 10), "genetic", evaluations=800)
    >>> result.agreeing > 0.5, optimum.value <= optimum.before_polish
    (True, True)
    """
    cost = LineCost(lines)
    optimum = minimise(cost.task(), method, evaluations=evaluations, seed=seed)
    rotations = refine_rotations(lines, cost.rotations(optimum.x[None])[0], threads=threads)
    return summarise_lines(lines, rotations), optimum
