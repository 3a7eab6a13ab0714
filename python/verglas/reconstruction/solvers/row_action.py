"""Row and block action: each step satisfies one equation, or the mean of a block of them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from verglas.errors import InputError
from verglas.reconstruction.solvers.course import Course, Solution
from verglas.reconstruction.solvers.stationary import _inverse, _matrix, component_averages, entry_sums, row_norms
from verglas.types.arrays import FloatArray, IntArray


def art(course: Course, relaxation: float = 1.0, seed: int | None = None) -> Solution:
    r"""Kaczmarz: :math:`x + \eta (f_i - a_i \cdot x) a_i / |a_i|^2` for every row in turn; an iteration is all rows.

    A consistent system started at zero ends in its solution of least norm (Kaczmarz 1937; Gordon, Bender, Herman 1970).
    With a seed the rows of every iteration are taken in a random order, which seldom converges slower (Strohmer and
    Vershynin 2009).
    """
    system = course.system
    matrix, squares, x = _matrix(system), row_norms(system), system.first().astype(np.float64)
    rows = np.flatnonzero(squares > 0)
    rng = None if seed is None else np.random.default_rng(seed)
    pointer, columns, values = matrix.indptr, matrix.indices, matrix.data
    while True:
        for i in rows if rng is None else rng.permutation(rows):
            part = slice(pointer[i], pointer[i + 1])
            where = columns[part]
            miss = system.data[i] - values[part] @ x[where]
            x[where] += (relaxation * miss / squares[i]) * np.conj(values[part])
        if course.take(x, system.residual(x)):
            return course.solution(x)


def sart(course: Course, relaxation: float = 1.0, blocks: int = 1) -> Solution:
    """SIRT on one block of data after another (Andersen and Kak 1984); with one block it is SIRT.

    Each block divides by its own column sums: where these differ much between blocks, as of a matrix near the identity,
    several blocks diverge for any useful relaxation. Tomographic blocks, each of which sees all unknowns, converge.
    """
    return _blocks(course, relaxation, blocks, "sart")


def bicav(course: Course, relaxation: float = 1.0, blocks: int = 1) -> Solution:
    """Component averaging on one block after another (Censor, Gordon and Gordon 2001)."""
    return _blocks(course, relaxation, blocks, "bicav")


def block_rows(count: int, blocks: int) -> list[IntArray]:
    """Rows of each block: contiguous, as even as can be.

    Raises
    ------
    InputError
        Fewer rows than blocks.
    """
    if not 1 <= blocks <= count:
        raise InputError(f"solve: expected 1 to {count} blocks, got {blocks}")
    return [np.asarray(part) for part in np.array_split(np.arange(count), blocks)]


def _blocks(course: Course, relaxation: float, blocks: int, kind: str) -> Solution:
    system = course.system
    matrix, x = _matrix(system), system.first().astype(np.float64)
    parts = [(rows, matrix[rows]) for rows in block_rows(len(system.data), blocks)]
    scales = [_scales(part, kind, None if system.weights is None else system.weights[rows]) for rows, part in parts]
    while True:
        for (rows, part), (row_scale, column_scale) in zip(parts, scales, strict=True):
            x += relaxation * column_scale * (part.conj().T @ (row_scale * (system.data[rows] - part @ x)))
        if course.take(x, system.residual(x)):
            return course.solution(x)


def _scales(part: sp.csr_array, kind: str, weights: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    if kind == "sart":
        row, column = (_inverse(sums) for sums in entry_sums(part))
    else:
        row, column = component_averages(part), np.ones(part.shape[1])
    return (row if weights is None else row * weights), column
