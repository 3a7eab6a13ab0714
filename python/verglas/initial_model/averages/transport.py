r"""Orientations from likenesses of averages alone: eigenvectors of the operator that carries frames to neighbours.

Averages that look alike at the in-plane turn :math:`\psi_{ij}` have nearly one viewing direction, and with a, b the
axes of an image in space, :math:`z = a + ib`, :math:`z_i \approx e^{-i\psi_{ij}} z_j`. The matrix
:math:`H_{ij} = w_{ij} e^{-i\psi_{ij}}`, normalised as in diffusion maps, has three large eigenvalues whose eigenvectors
span the three components of all z (Hadani and Singer 2011, Found. Comput. Math. 11, 589-616; Giannakis, Schwander and
Ourmazd 2012, Opt. Express 20, 12799-12826). A mirrored average is the same particle from the other side, so that n
averages stand for 2 n directions. Neighbours must be near: it takes a hundred averages or more.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from verglas.initial_model.averages.views import Views, rotational_correlation
from verglas.types.arrays import Complex128Array, Float32Array, FloatArray

_NEIGHBOURS = 8


def _neighbour_radius(views: Views) -> int:
    """Shells that likenesses are taken over: beyond them two noisy pictures of one view look less and less alike."""
    return max(4, round(0.6 * views.radius))


def transport_matrix(views: Views) -> tuple[Complex128Array, FloatArray]:
    """Normalised Hermitian matrix of averages and their mirror images, and the root of its degrees."""
    both = np.concatenate([views.features, views.features.conj()])  # mirrored in x: harmonics become conjugate
    correlation = rotational_correlation(both, both, views.polar.n_theta, _neighbour_radius(views))
    best, turn = correlation.max(axis=0).astype(np.float64), correlation.argmax(axis=0)
    n = len(views)
    same = np.arange(2 * n)
    best[same, same] = best[same, (same + n) % (2 * n)] = -np.inf
    near = np.argsort(-best, axis=1, kind="stable")[:, : min(_NEIGHBOURS, 2 * n - 2)]
    weight = np.zeros_like(best)
    np.put_along_axis(weight, near, np.maximum(np.take_along_axis(best, near, axis=1), 0.0), axis=1)
    weight = np.maximum(weight, weight.T)
    matrix = weight * np.exp(-2j * np.pi * turn / views.polar.n_theta)
    matrix = (matrix + matrix.conj().T) / 2
    root = np.sqrt(np.maximum(weight.sum(axis=1), 1e-12))
    return matrix / root / root[:, None], root


def frames(vectors: Complex128Array) -> Complex128Array:
    r"""Z = V A of all nodes: the linear map under which every row has :math:`z \cdot z = 0` and :math:`|z|^2 = 2`.

    A is found as :math:`H^{1/2} U`: H, Hermitian, from the lengths; the symmetric unitary :math:`U U^T` from the first
    condition, and U by Takagi's factorisation. A phase common to all rows remains.
    """
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    v = vectors / np.sqrt((np.abs(vectors) ** 2).sum(axis=1).mean() / 2)
    lengths = np.column_stack(
        [(v[:, a] * v[:, b].conj()).real * (1 if a == b else 2) for a, b in pairs]
        + [2 * (v[:, a] * v[:, b].conj()).imag for a, b in pairs[3:]]
    )
    solved = np.linalg.lstsq(lengths, np.full(len(v), 2.0), rcond=None)[0]
    gram = np.zeros((3, 3), np.complex128)
    for index, (a, b) in enumerate(pairs):
        # |z|^2 = v G v^H with G Hermitian: the real part of G_ab v_a conj(v_b) + its conjugate.
        value = solved[index] + (0 if a == b else -1j * solved[index + 3])
        gram[a, b], gram[b, a] = value, np.conj(value)
    values, basis = np.linalg.eigh(gram)
    root = basis * np.sqrt(np.maximum(values, 1e-2 * values.max())) @ basis.conj().T
    w = v @ root
    products = np.column_stack([w[:, a] * w[:, b] * (1 if a == b else 2) for a, b in pairs])
    null = np.linalg.svd(products, full_matrices=False)[2][-1].conj()
    symmetric = np.zeros((3, 3), np.complex128)
    for value, (a, b) in zip(null, pairs, strict=True):
        symmetric[a, b] = symmetric[b, a] = value
    left, _, right = np.linalg.svd(symmetric)
    unitary = left @ right
    unitary = (unitary + unitary.T) / 2
    # Real and imaginary part of a symmetric unitary matrix commute: one real basis diagonalises both.
    real_basis = np.linalg.eigh(unitary.real + 0.6180339887 * unitary.imag)[1]
    phase = np.angle(np.einsum("ai,ab,bi->i", real_basis, unitary, real_basis))
    return np.asarray(w @ (real_basis * np.exp(0.5j * phase)))


def transport_orientations(views: Views) -> tuple[FloatArray, FloatArray]:
    """Matrices (n, 3, 3) of all averages, up to one rotation and the hand; and the largest eigenvalues.

    Parameters
    ----------
    views : Views
        A hundred or more, whose views cover the sphere.
    """
    matrix, root = transport_matrix(views)
    size = len(matrix)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(size - 6, size - 1))
    z = frames((vectors[:, ::-1][:, :3]) / root[:, None])
    n = len(views)
    # A mirrored average stands at diag(-1, 1, -1) A: z' = -conj(z), which fixes the phase common to all.
    z = z * np.exp(0.5j * (np.pi - np.angle(np.sum(z[:n] * z[n:]))))
    z = (z[:n] - z[n:].conj()) / 2
    u, _, vt = np.linalg.svd(np.stack([z.real, z.imag], axis=1), full_matrices=False)
    axes = u @ vt
    matrices = np.concatenate([axes, np.cross(axes[:, 0], axes[:, 1])[:, None]], axis=1)
    return matrices, values[::-1].copy()


def map_by_diffusion(views: Views, rng: np.random.Generator) -> Float32Array:
    """The map of these orientations. Nothing in it is left to chance: ``rng`` draws a start's share of the averages."""
    part = views.draw(rng, 0.9, fewest=8)
    return part.map(transport_orientations(part)[0])
