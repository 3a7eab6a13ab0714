r"""The posterior of one image's coordinates and contrast, in closed form.

With G the slices of mean and components, :math:`M = \mathrm{Re}\,G^H \Sigma^{-1} G` and
:math:`h = \mathrm{Re}\,G^H \Sigma^{-1} X`, at a contrast a, for z ~ N(0, I):

.. math:: A = I + a^2 M_{zz},\quad b = a h_z - a^2 M_{z0},\quad z \sim N(A^{-1} b, A^{-1}),\quad
   \ln p = a h_0 - \tfrac{a^2}{2} M_{00} + \tfrac12 b^T A^{-1} b - \tfrac12 \ln |A|

up to what depends on neither. The contrast runs over a grid, whose prior is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from verglas.types.arrays import FloatArray


@dataclass(frozen=True)
class Contrasts:
    """A grid of contrasts and its prior.

    Attributes
    ----------
    values, log_prior : (A,) float64
    """

    values: FloatArray
    log_prior: FloatArray

    @classmethod
    def grid(cls, spread: float = 0.2) -> Contrasts:
        """From 0.4 to 1.6, normal about 1; the spread is kept between 0.03 and 0.4."""
        values = np.linspace(0.4, 1.6, 25)
        log_prior = -0.5 * ((values - 1) / float(np.clip(spread, 0.03, 0.4))) ** 2
        return cls(values, log_prior - logsumexp(log_prior))

    def learn(self, weight: FloatArray) -> tuple[Contrasts, float]:
        """The prior that posteriors (A,), summed over images, suggest, of mean 1; and the mean taken out of it."""
        if len(self.values) == 1:
            return self, 1.0
        share = weight / weight.sum()
        mean = float(share @ self.values)
        return Contrasts.grid(float(np.sqrt(share @ (self.values - mean) ** 2)) / mean), mean

    @classmethod
    def none(cls) -> Contrasts:
        """1 alone."""
        return cls(np.ones(1), np.zeros(1))


@dataclass(frozen=True)
class Latent:
    """Posteriors of m images.

    Attributes
    ----------
    log_evidence : (m,) float64
        Over contrast and coordinates, relative to a model without density.
    contrast_weight : (m, A) float64
        Posterior of the contrasts.
    mean : (m, q) float64
        E[z].
    covariance : (m, q, q) float64
        Of z, the uncertain contrast included.
    first : (m, 1 + q) float64
        E[a (1, z)].
    second : (m, 1 + q, 1 + q) float64
        E[a^2 (1, z)(1, z)^T].
    """

    log_evidence: FloatArray
    contrast_weight: FloatArray
    mean: FloatArray
    covariance: FloatArray
    first: FloatArray
    second: FloatArray


def latent_posterior(gram: FloatArray, cross: FloatArray, contrasts: Contrasts) -> Latent:
    """Posterior of coordinates and contrast.

    Parameters
    ----------
    gram : (m, 1 + q, 1 + q) float64
        M; the mean comes first.
    cross : (m, 1 + q) float64
        h.
    contrasts : Contrasts

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.latent import Contrasts, latent_posterior
    >>> made = latent_posterior(np.diag([4.0, 3.0])[None], np.array([[4.0, 8.0]]), Contrasts.none())
    >>> made.mean.tolist(), made.covariance.tolist()
    ([[2.0]], [[[0.25]]])
    """
    a = contrasts.values
    spread, vectors = np.linalg.eigh(gram[:, 1:, 1:])
    h = np.einsum("iqk,iq->ik", vectors, cross[:, 1:])
    m0 = np.einsum("iqk,iq->ik", vectors, gram[:, 0, 1:])
    information = 1 + a[None, :, None] ** 2 * np.maximum(spread, 0)[:, None, :]
    b = a[None, :, None] * h[:, None, :] - a[None, :, None] ** 2 * m0[:, None, :]
    z = b / information
    log = a * cross[:, :1] - a**2 / 2 * gram[:, 0, :1] + contrasts.log_prior
    log = log + 0.5 * (b * z).sum(axis=2) - 0.5 * np.log(information).sum(axis=2)
    evidence = logsumexp(log, axis=1)
    weight = np.exp(log - evidence[:, None])
    once, twice = weight * a, weight * a**2

    def moment(factor: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sums over contrasts of factor z and of factor (z z^T + covariance), turned back."""
        one = np.einsum("ia,iak->ik", factor, z)
        two = np.einsum("ia,iak,ial->ikl", factor, z, z)
        diagonal = np.arange(two.shape[1])
        two[:, diagonal, diagonal] += np.einsum("ia,iak->ik", factor, 1 / information)
        return np.einsum("iqk,ik->iq", vectors, one), vectors @ two @ vectors.transpose(0, 2, 1)

    mean, square = moment(weight)
    first = np.concatenate([once.sum(axis=1)[:, None], moment(once)[0]], axis=1)
    linear, full = moment(twice)
    second = np.empty_like(gram)
    second[:, 0, 0] = twice.sum(axis=1)
    second[:, 0, 1:] = second[:, 1:, 0] = linear
    second[:, 1:, 1:] = full
    return Latent(evidence, weight, mean, square - mean[:, :, None] * mean[:, None, :], first, second)
