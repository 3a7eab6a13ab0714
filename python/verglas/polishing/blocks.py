"""Cholesky factor of a precision whose frames know of the two before and after them only: blocks of two frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from verglas.types.arrays import FloatArray


@dataclass(frozen=True, eq=False)
class BlockFactor:
    """Lower factor L of a symmetric block tridiagonal matrix L L^T: products of whole blocks, which processors like.

    Attributes
    ----------
    own : list of (m, m) float64
        Lower triangular blocks on the diagonal.
    below : list of (m', m) float64
        Blocks under them, one less.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.polishing.blocks import BlockFactor
    >>> own, below = [np.diag([4.0, 5.0]), np.diag([6.0])], [np.array([[1.0, 2.0]])]
    >>> whole = np.array([[4.0, 0, 1], [0, 5, 2], [1, 2, 6]])
    >>> factor = BlockFactor.of(own, below)
    >>> bool(np.allclose(whole @ factor.solve(np.ones((3, 1))), 1))
    True
    >>> bool(np.isclose(2 * factor.log_diagonal, np.log(np.linalg.det(whole))))
    True
    """

    own: list[FloatArray]
    below: list[FloatArray]

    @classmethod
    def of(cls, own: Sequence[FloatArray], below: Sequence[FloatArray]) -> BlockFactor:
        """Of the blocks of the matrix itself.

        Raises
        ------
        numpy.linalg.LinAlgError
            It is not positive definite to rounding.
        """
        factors, under = list[FloatArray](), list[FloatArray]()
        for i, block in enumerate(own):
            left = block - under[-1] @ under[-1].T if i else block
            factors.append(cholesky(left, lower=True, check_finite=False))
            if i < len(below):
                # transposed: the triangle is then solved from the left
                turned = solve_triangular(factors[-1], below[i].T, lower=True, check_finite=False)
                under.append(np.ascontiguousarray(turned.T))
        return cls(factors, under)

    @property
    def log_diagonal(self) -> float:
        """Sum of the logarithms of L's diagonal: half the log determinant of the matrix."""
        return float(sum(np.log(np.diag(block)).sum() for block in self.own))

    def _split(self, flat: FloatArray) -> list[FloatArray]:
        return np.split(flat, np.cumsum([len(block) for block in self.own])[:-1])

    def solve(self, flat: FloatArray) -> FloatArray:
        """(N, n) that the matrix turns into ``flat`` (N, n)."""
        made = self._split(flat)
        for i, block in enumerate(self.own):
            right = made[i] - self.below[i - 1] @ made[i - 1] if i else made[i]
            made[i] = solve_triangular(block, right, lower=True, check_finite=False)
        for i in range(len(self.own))[::-1]:
            right = made[i] - self.below[i].T @ made[i + 1] if i < len(self.below) else made[i]
            made[i] = solve_triangular(self.own[i], right, lower=True, trans="T", check_finite=False)
        return np.concatenate(made)

    def times(self, flat: FloatArray) -> FloatArray:
        """L times ``flat`` (N, n)."""
        parts = self._split(flat)
        made = [block @ part for block, part in zip(self.own, parts, strict=True)]
        for i, block in enumerate(self.below):
            made[i + 1] += block @ parts[i]
        return np.concatenate(made)
