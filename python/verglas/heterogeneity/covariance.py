r"""Covariance of the structures at low resolution, by regularised least squares and conjugate gradients.

With residuals :math:`r_i = X_i - a_i C_i P_i V_0`, functions :math:`\Phi` that a resolution allows inside a mask,
:math:`G_i = a_i C_i P_i \Phi` and all of it divided by the noise, the covariance :math:`\Phi S \Phi^T` is that of

.. math:: \min_S \sum_i \bigl\| r_i r_i^T - G_i S G_i^T - I \bigr\|^2 + \lambda \|S\|^2,\quad
   \sum_i A_i S A_i + \lambda S = \sum_i \bigl(b_i b_i^T - A_i\bigr),\quad A_i = G_i^T G_i,\ b_i = G_i^T r_i

(Katsevich, Katsevich and Singer 2015; Anden and Singer 2018). Nothing is assumed of how the structures are distributed,
and there is one solution, whatever the start. Each half set has its own; :math:`\lambda` is the one by which either
half's covariance explains the residuals of the other best. What images share with the slice of the mean is left out, or
errors of the grey scale would be the first component.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from verglas.heterogeneity.components import ComponentModel, HalfComponents, sort_components, turn_second
from verglas.heterogeneity.latent import latent_posterior
from verglas.heterogeneity.linear import half_curve, products
from verglas.heterogeneity.posed import PosedImages
from verglas.types.arrays import Float32Array, FloatArray, IntArray

_INSIDE = 0.5  # of the power of a function, for it to be one of the mask
_MOST_FUNCTIONS = 160
_FIRST_A = 40.0
_MOST_BYTES = 4e8  # of the functions' slices of a half set
_RIDGES = (0.01, 0.1, 1.0, 10.0)  # of the mean information per function
_CG_PASSES = 30
_CG_TOLERANCE = 1e-3
_LEAST_INFORMATION = 1e-3  # of the largest, below which a function is not seen
_CHUNK_BYTES = 64e6


@dataclass(frozen=True)
class Covariance:
    """Covariance at low resolution, of both half sets.

    Attributes
    ----------
    functions : (d, N, N, N) float32
        Of the mask and the resolution.
    halves : list of (d, d) float64
        Coefficients S of each half set.
    resolution_A : float
        Of the functions.
    ridge : float
        Regularisation that was chosen, in units of the mean information.
    """

    functions: Float32Array
    halves: list[FloatArray]
    resolution_A: float
    ridge: float

    def components(self, count: int) -> list[Float32Array]:
        """(count, N, N, N) of each half set: principal components times the square roots of their variances."""
        return [self._leading(half, count) for half in self.halves]

    def eigenvalues(self, count: int) -> FloatArray:
        """(count,) largest variances of the mean of both half sets, of components of unit norm."""
        both = self._leading((self.halves[0] + self.halves[1]) / 2, count)
        return np.square(both, dtype=np.float64).sum(axis=(1, 2, 3))

    def _leading(self, coefficients: FloatArray, count: int) -> Float32Array:
        flat = self.functions.reshape(len(self.functions), -1).astype(np.float64)
        # Functions cut by a mask are not orthogonal: Phi^T = Q R, and the covariance is Q (R S R^T) Q^T.
        basis, root = np.linalg.qr(flat.T)
        value, vector = np.linalg.eigh(root @ coefficients @ root.T)
        value, vector = value[::-1][:count], vector[:, ::-1][:, :count]
        made = (basis @ (vector * np.sqrt(np.maximum(value, 0)))).T
        return made.reshape(-1, *self.functions.shape[1:]).astype(np.float32)


def mask_functions(mask: Float32Array, radius: int) -> Float32Array:
    """Functions of no finer detail than a shell that lie inside a mask (Slepian 1964), the innermost first.

    Parameters
    ----------
    mask : (N, N, N) float32
    radius : int
        Last shell.

    Examples
    --------
    >>> from verglas.heterogeneity.covariance import mask_functions
    >>> from verglas.masks import soft_sphere
    >>> mask_functions(soft_sphere(16, 6, 2), 2).shape
    (9, 16, 16, 16)
    """
    n = len(mask)
    line = np.arange(-radius, radius + 1)
    k = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    k = k[np.square(k).sum(axis=1) <= radius**2]
    k = k[len(k) // 2 :]  # one of each pair k, -k; the middle is 0
    x = (np.arange(n) - n // 2) * (2 * np.pi / n)
    waves = np.exp(1j * k[:, 0, None] * x)[:, :, None, None]
    waves = waves * np.exp(1j * k[:, 1, None] * x)[:, None, :, None] * np.exp(1j * k[:, 2, None] * x)[:, None, None, :]
    flat = waves.reshape(len(k), -1)
    real = np.concatenate([flat.real, flat.imag[1:]]) * np.sqrt(2 / n**3)
    real[0] /= np.sqrt(2)
    inside = (real * mask.ravel()) @ real.T
    value, vector = np.linalg.eigh(inside)
    chosen = np.flatnonzero(value > _INSIDE)[::-1][:_MOST_FUNCTIONS]
    made = (vector[:, chosen].T @ real) * mask.ravel()
    return made.reshape(-1, n, n, n).astype(np.float32)


def estimate_covariance(
    posed: PosedImages, mean: ComponentModel, *, resolution_A: float = _FIRST_A, seed: int = 0
) -> Covariance:
    """Covariance of both half sets at low resolution.

    Parameters
    ----------
    posed : PosedImages
    mean : ComponentModel
        Mean and noise (:func:`verglas.heterogeneity.components.mean_model`); its mask is that of the covariance.
    resolution_A : float
        Of the covariance; coarser where the mask would allow more than 160 functions.
    seed : int
        Of the particles that are used, where they are more than 0.4 GB of slices allow.

    References
    ----------
    Katsevich, Katsevich and Singer (2015) SIAM J. Imaging Sci. 8, 126-185; Anden and Singer (2018) SIAM J. Imaging
    Sci. 11, 1441-1492; Liao, Hashem and Frank (2015) Structure 23, 1129-1137.
    """
    radius = int(np.clip(round(posed.box * posed.pixel_size_A / resolution_A), 2, posed.radius))
    functions = mask_functions(mean.mask, radius)
    while len(functions) == _MOST_FUNCTIONS and radius > 2:
        radius -= 1
        functions = mask_functions(mean.mask, radius)
    whitened = [_Equations.of(posed, mean, functions, radius, number, seed) for number in (1, 2)]
    # In units of what both half sets know of the functions together: one step of the equations is then near the answer.
    information = sum(w.information / w.number for w in whitened) / 2
    value, vector = np.linalg.eigh(information)
    seen = value > _LEAST_INFORMATION * value[-1]
    change = vector[:, seen] / np.sqrt(value[seen])
    first, second = (w.in_units(change) for w in whitened)
    best, chosen = np.inf, None
    starts: list[FloatArray | None] = [None, None]
    for ridge in sorted(_RIDGES, reverse=True):
        pair = [w.solve(ridge, start) for w, start in zip((first, second), starts, strict=True)]
        missed = first.missed(pair[1]) + second.missed(pair[0])
        starts = list(pair)
        if missed < best:
            best, chosen = missed, (pair, ridge)
    assert chosen is not None
    field_A = posed.box * posed.pixel_size_A
    return Covariance(functions, [change @ s @ change.T for s in chosen[0]], field_A / radius, chosen[1])


@dataclass(frozen=True)
class _Equations:
    """Normal equations of a half set: slices G_i of the functions, (d, n, p), and the sums of their right side."""

    slices: Float32Array
    right: FloatArray
    information: FloatArray

    @property
    def number(self) -> int:
        return self.slices.shape[1]

    @classmethod
    def of(
        cls, posed: PosedImages, mean: ComponentModel, functions: Float32Array, radius: int, half: int, seed: int
    ) -> _Equations:
        rows = posed.rows_of_half(half)
        coarse = posed.at_radius(radius)
        d, pixels = len(functions), 2 * len(coarse.pixels)
        most = max(20, int(_MOST_BYTES / (4 * d * pixels)))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng([seed, half]).choice(rows, most, replace=False))
        half_model = mean.halves[half - 1]
        scale = _contrasts(posed, mean, half, rows)
        slices = np.empty((d, len(rows), pixels), np.float32)
        right, information, done = np.zeros((d, d)), np.zeros((d, d)), 0
        volumes = np.concatenate([half_model.volumes[:1], functions])
        most_at_once = max(1, int(_CHUNK_BYTES / (4 * pixels * len(volumes))))
        for made in products(coarse, volumes, mean.sigma2[:, : radius + 1], rows, most=most_at_once):
            count = len(made.batch)
            g, x = made.slices.view(np.float32), made.images.view(np.float32)
            a = scale[done : done + count, None].astype(np.float32)
            middle = a * g[:, 0]
            norm = np.maximum(np.square(middle).sum(axis=1, keepdims=True), np.float32(1e-20))
            along = middle / np.sqrt(norm)
            rest = x - middle
            rest = rest - along * (along * rest).sum(axis=1, keepdims=True)
            part = a[:, None] * g[:, 1:]
            part = part - along[:, None] * np.einsum("idp,ip->id", part, along)[:, :, None]
            b = np.einsum("idp,ip->id", part, rest).astype(np.float64)
            slices[:, done : done + count] = part.transpose(1, 0, 2)
            flat = part.transpose(1, 0, 2).reshape(d, -1)
            own = (flat @ flat.T).astype(np.float64)
            right += b.T @ b - own
            information += own
            done += count
        return cls(slices, right, information)

    def in_units(self, change: FloatArray) -> _Equations:
        """Of the functions times ``change``."""
        d, n, p = self.slices.shape
        slices = (change.T.astype(np.float32) @ self.slices.reshape(d, -1)).reshape(-1, n, p)
        return _Equations(slices, change.T @ self.right @ change, change.T @ self.information @ change)

    def apply(self, s: FloatArray) -> FloatArray:
        r""":math:`\sum_i A_i S A_i`, from the right: images have fewer pixels than there are functions."""
        d, n, p = self.slices.shape
        out = np.zeros((d, d))
        step = max(1, int(_CHUNK_BYTES / (8 * d * p)))
        for begin in range(0, n, step):
            g = np.ascontiguousarray(self.slices[:, begin : begin + step])
            flat = g.reshape(d, -1)
            turned = (s.astype(np.float32) @ flat).reshape(g.shape)
            inner = np.matmul(g.transpose(1, 2, 0), turned.transpose(1, 0, 2))
            again = np.matmul(g.transpose(1, 0, 2), inner).transpose(1, 0, 2)
            out += (again.reshape(d, -1) @ flat.T).astype(np.float64)
        return (out + out.T) / 2

    def solve(self, ridge: float, start: FloatArray | None) -> FloatArray:
        """By conjugate gradients."""
        d = len(self.slices)
        weight = ridge * self.number
        operator = LinearOperator(
            (d * d, d * d), lambda v: self.apply(v.reshape(d, d)).ravel() + weight * v, dtype=np.float64
        )
        begin = None if start is None else start.ravel()
        made = cg(operator, self.right.ravel(), x0=begin, rtol=_CG_TOLERANCE, maxiter=_CG_PASSES)[0].reshape(d, d)
        return (made + made.T) / 2

    def missed(self, s: FloatArray) -> float:
        """What another covariance misses of the residuals here, per image, up to a constant."""
        return float((s * self.apply(s)).sum() - 2 * (s * self.right).sum()) / self.number


def _contrasts(posed: PosedImages, mean: ComponentModel, half: int, rows: IntArray) -> FloatArray:
    """E[a] of these particles by the mean."""
    model = mean.halves[half - 1]
    parts = [np.zeros(0)]
    for made in products(posed, model.volumes[:1], mean.sigma2, rows):
        parts.append(latent_posterior(made.gram, made.cross, model.contrasts).first[:, 0])
    return np.concatenate(parts)


def covariance_components(
    posed: PosedImages, mean: ComponentModel, covariance: Covariance, count: int
) -> ComponentModel:
    """The model of the covariance's leading components: the second half's turned onto those of the first."""
    halves = [
        HalfComponents(np.concatenate([h.volumes[:1], c]), h.contrasts)
        for h, c in zip(mean.halves, covariance.components(count), strict=True)
    ]
    turn_second(halves)
    pairs = zip(*(h.volumes[1:] for h in halves), strict=True)
    curves = [mean.fsc[0], *(half_curve(posed, first, second) for first, second in pairs)]
    return sort_components(ComponentModel(halves, mean.sigma2, np.stack(curves), mean.mask))
