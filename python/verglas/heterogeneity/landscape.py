r"""How the particles of a set are spread over their coordinates, freed of what each coordinate is unsure by.

A histogram of coordinates is the density blurred by every particle's own error. Here the density itself is a mixture of
Gaussians, fitted to the particles' likelihoods :math:`p(X_i | z) \propto N(z;\, P_i^{-1} h_i,\, P_i^{-1})` by
expectation-maximisation (extreme deconvolution; Bovy, Hogg and Roweis 2011, Ann. Appl. Stat. 5, 1657-1677). Views
that do not show a coordinate have no information P on it, and are no trouble. The number of Gaussians is chosen by
particles of the half set that a mixture was not fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy.cluster.vq import kmeans2
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.special import logsumexp

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray, any_arrays
from verglas.types.display import one_line

_MOST = 6
_PASSES = 80
_STILL = 1e-5  # nats per particle that an iteration must gain
_STARTS = 3
_FIRST_PASSES = 8  # of every start; the best goes on
_FLOOR = 1e-3  # least variance of a Gaussian, of that of all coordinates
_SURE = 1.0  # standard error by which more Gaussians must be better (Breiman et al. 1984)
_FIT_MOST = 20_000  # particles that a mixture is fitted to
_FEWEST = 20
_GRID = {1: 400, 2: 80, 3: 30}  # points along each coordinate on which a path is looked for
_MARGIN = 0.15


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians: shares (K,), means (K, q), covariances (K, q, q); float64."""

    shares: FloatArray
    means: FloatArray
    covariances: FloatArray

    def log_density(self, points: FloatArray) -> FloatArray:
        """(m,) logarithm of the density at points (m, q)."""
        away = points[:, None] - self.means
        inverse = np.linalg.inv(self.covariances)
        distance = np.einsum("mkp,kpq,mkq->mk", away, inverse, away)
        log = -0.5 * distance - 0.5 * np.linalg.slogdet(2 * np.pi * self.covariances)[1] + np.log(self.shares)
        return np.asarray(logsumexp(log, axis=1))

    def marginal(self, axes: Sequence[int]) -> Mixture:
        """The density of some of the coordinates, whatever the others."""
        some = list(axes)
        return Mixture(self.shares, self.means[:, some], self.covariances[:, some][:, :, some])


@one_line
@dataclass(frozen=True, eq=False)
class Landscape:
    """A density of coordinates, its clusters and its free energy.

    Attributes
    ----------
    mixture : Mixture
        Of all particles.
    halves : list of Mixture
        Of each half set alone, as many Gaussians.
    membership : (n, K) float64
        Posterior of every particle's cluster: the Gaussians, the largest share first.
    trials : DataFrame
        ``clusters``, ``gain_nats`` over one Gaussian, held out, and ``error_nats``; nats per particle. Of all numbers
        that were tried, or of one and the number asked for.
    lower, upper : (q,) float64
        Where particles are: bounds of the coordinates.
    """

    mixture: Mixture
    halves: list[Mixture]
    membership: FloatArray
    trials: pd.DataFrame
    lower: FloatArray
    upper: FloatArray

    @property
    def clusters(self) -> int:
        """K."""
        return len(self.mixture.shares)

    @property
    def cluster(self) -> IntArray:
        """(n,) most probable cluster of every particle, from 1."""
        return np.asarray(self.membership.argmax(axis=1) + 1, np.int64)

    def free_energy_kT(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(m,) free energy at points (m, q') of the first coordinates, 0 where the density is largest, and its error.

        The error is half the difference of what the half sets give: of chance alone, not of a model that is wrong.
        """
        axes = range(points.shape[1])
        energies = []
        for one in (self.mixture, *self.halves):
            part = one.marginal(axes)
            top = max(float(part.log_density(points).max()), float(part.log_density(part.means).max()))
            energies.append(top - part.log_density(points))
        return energies[0], np.abs(energies[1] - energies[2]) / 2

    def grid(self, axes: int) -> list[FloatArray]:
        """Values of the first coordinates on which a picture or a path is made."""
        return [np.linspace(self.lower[k], self.upper[k], _GRID[axes]) for k in range(axes)]

    def ends(self) -> tuple[FloatArray, FloatArray]:
        """The two centres that are furthest apart; of one cluster, two standard deviations along its longest axis."""
        mix, scale = self.mixture, self.upper - self.lower
        if self.clusters == 1:
            spread, axes = np.linalg.eigh(mix.covariances[0])
            way = 2 * np.sqrt(spread[-1]) * axes[:, -1]
            both = np.clip(mix.means[0] + np.array([[-1.0], [1.0]]) * way, self.lower, self.upper)
            return both[0], both[1]
        apart = np.linalg.norm((mix.means[:, None] - mix.means) / scale, axis=2)
        first, second = np.unravel_index(apart.argmax(), apart.shape)
        return mix.means[first], mix.means[second]

    def path(self, start: FloatArray, end: FloatArray, count: int = 7) -> FloatArray:
        r"""(count, q) points along the way from one point to another on which most particles lie.

        The way for which :math:`\int ds / p(z)` is least, s in standard deviations of the coordinates, found on a grid
        of the first three coordinates; further ones are the mean that particles there have.

        Raises
        ------
        InputError
            Points of another dimension, or beyond all particles.
        """
        q = self.mixture.means.shape[1]
        ends = np.array([start, end], np.float64)
        if ends.shape != (2, q):
            raise InputError(f"path: expected points of {q} coordinates, got shape {np.shape(start)}")
        if count < 2 or not ((ends >= self.lower) & (ends <= self.upper)).all():
            raise InputError("path: expected two points or more, with ends where particles are")
        axes = min(q, 3)
        values = self.grid(axes)
        points = np.stack(np.meshgrid(*values, indexing="ij"), -1).reshape(-1, axes)
        log = self.mixture.marginal(range(axes)).log_density(points)
        slowness = np.exp(np.minimum(log.max() - log, 30.0))
        scale = (self.upper - self.lower)[:axes]
        begin, finish = (int(np.square((points - e[:axes]) / scale).sum(axis=1).argmin()) for e in ends)
        way = _shortest(slowness, tuple(len(v) for v in values), begin, finish)
        line = np.concatenate([ends[:1, :axes], points[way[1:-1]], ends[1:, :axes]])
        run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line / scale, axis=0), axis=1))])
        at = np.linspace(0, run[-1], count)
        even = np.column_stack([np.interp(at, run, line[:, k]) for k in range(axes)])
        return even if axes == q else np.column_stack([even, self._conditional(even)])

    def _conditional(self, first: FloatArray) -> FloatArray:
        """Mean of the further coordinates given the first ones."""
        a, mix = first.shape[1], self.mixture
        away = first[:, None] - mix.means[:, :a]
        inverse = np.linalg.inv(mix.covariances[:, :a, :a])
        log = np.log(mix.shares) - 0.5 * np.linalg.slogdet(mix.covariances[:, :a, :a])[1]
        log = log - 0.5 * np.einsum("mkp,kpq,mkq->mk", away, inverse, away)
        weight = np.exp(log - logsumexp(log, axis=1, keepdims=True))
        each = mix.means[:, a:] + np.einsum("kbp,kpq,mkq->mkb", mix.covariances[:, a:, :a], inverse, away)
        return np.asarray(np.einsum("mk,mkb->mb", weight, each))


def _shortest(slowness: FloatArray, shape: tuple[int, ...], begin: int, finish: int) -> IntArray:
    """Numbers of the grid points of the quickest way between two of them."""
    number = np.arange(slowness.size).reshape(shape)
    rows, columns, costs = [], [], []
    for step in product((-1, 0, 1), repeat=len(shape)):
        if step <= (0,) * len(shape):
            continue
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, shape, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, shape, strict=True))
        a, b = number[here].ravel(), number[there].ravel()
        length = np.linalg.norm(np.array(step) / np.array(shape))
        rows.append(a)
        columns.append(b)
        costs.append(length * (slowness[a] + slowness[b]) / 2)
    joined = [np.concatenate(one) for one in (costs, rows, columns)]
    graph = coo_matrix((joined[0], (joined[1], joined[2])), (slowness.size,) * 2).tocsr()
    before = dijkstra(graph, directed=False, indices=begin, return_predecessors=True)[1]
    way = [finish]
    while way[-1] != begin:
        way.append(int(before[way[-1]]))
    return np.array(way[::-1] if len(way) > 1 else [begin, finish], np.int64)


def likelihoods(
    coordinates: FloatArray, covariances: FloatArray, prior_variance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What each particle says of its coordinates without the normal prior under which they were found.

    Parameters
    ----------
    coordinates : (n, q) float64
        Posterior means.
    covariances : (n, q, q) float64
    prior_variance : (q,) float64
        Of the prior, whose mean is 0.

    Returns
    -------
    (n, q), (n, q, q) float64
        h and P, the likelihood being exp(h z - z P z / 2).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.landscape import likelihoods
    >>> h, information = likelihoods(np.array([[1.0]]), np.array([[[0.5]]]), np.array([1.0]))
    >>> float(h[0, 0]), float(information[0, 0, 0])  # a reading of 2 with a variance of 1
    (2.0, 1.0)
    """
    root = np.sqrt(prior_variance)
    inside = covariances / (root[:, None] * root)
    spread, vectors = np.linalg.eigh(inside)
    spread = np.clip(spread, 1e-9, 1.0)
    information = np.einsum("nak,nk,nbk->nab", vectors, 1 / spread - 1, vectors)
    h = np.einsum("nak,nk,nbk,nb->na", vectors, 1 / spread, vectors, coordinates / root)
    return h / root, information / (root[:, None] * root)


def _inverse(matrices: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inverses of symmetric (..., q, q) matrices, and determinants; one or two rows are written out: quicker."""
    q = matrices.shape[-1]
    if q > 2:
        return np.asarray(np.linalg.inv(matrices), np.float64), np.asarray(np.linalg.det(matrices), np.float64)
    if q == 1:
        return 1 / matrices, matrices[..., 0, 0]
    a, b, d = matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 1]
    determinant = a * d - b * b
    out = np.empty_like(matrices)
    out[..., 0, 0], out[..., 1, 1] = d / determinant, a / determinant
    out[..., 0, 1] = out[..., 1, 0] = -b / determinant
    return out, determinant


def _posterior(h: FloatArray, information: FloatArray, mix: Mixture) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log evidence by Gaussian (n, K), mean (n, K, q) and covariance (n, K, q, q) of z in each."""
    inverse = np.linalg.inv(mix.covariances)
    covariance, determinant = _inverse(information[:, None] + inverse)
    shifted = np.einsum("kpq,kq->kp", inverse, mix.means)
    b = h[:, None] + shifted
    mean = np.matmul(covariance, b[..., None])[..., 0]
    log = 0.5 * (b * mean).sum(axis=2) - 0.5 * (shifted * mix.means).sum(axis=1)
    log = log - 0.5 * np.log(determinant) - 0.5 * np.linalg.slogdet(mix.covariances)[1]
    return log + np.log(mix.shares), mean, covariance


def fit_mixture(h: FloatArray, information: FloatArray, count: int, scale: FloatArray, *, seed: int = 0) -> Mixture:
    """The most likely mixture of Gaussians, the best of some starts; the largest share first.

    Parameters
    ----------
    h, information : (n, q), (n, q, q) float64
        Of :func:`likelihoods`.
    count : int
        Gaussians.
    scale : (q,) float64
        Variance of all coordinates.
    seed : int
        Of the starts.
    """
    best: tuple[float, Mixture] | None = None
    shrunk = np.linalg.solve(information + np.diag(1 / scale), h[:, :, None])[:, :, 0]
    for number in range(_STARTS if count > 1 else 1):
        rng = np.random.default_rng([seed, count, number])
        centres, label = kmeans2(shrunk / np.sqrt(scale), count, minit="++", seed=rng, missing="warn")
        shares = np.maximum(np.bincount(label, minlength=count), 1) / len(h)
        mix = Mixture(shares / shares.sum(), centres * np.sqrt(scale), np.tile(np.diag(scale / count), (count, 1, 1)))
        mix, log = _climb(h, information, mix, scale, _FIRST_PASSES)
        if best is None or log > best[0]:
            best = log, mix
    assert best is not None
    mix = _climb(h, information, best[1], scale, _PASSES)[0]
    order = np.argsort(-mix.shares, kind="stable")
    return Mixture(mix.shares[order], mix.means[order], mix.covariances[order])


def _climb(
    h: FloatArray, information: FloatArray, mix: Mixture, scale: FloatArray, passes: int
) -> tuple[Mixture, float]:
    last = -np.inf
    for _ in range(passes):
        log, mean, covariance = _posterior(h, information, mix)
        evidence = logsumexp(log, axis=1)
        gamma = np.exp(log - evidence[:, None])
        now = float(evidence.mean())
        if now - last < _STILL:
            break
        last = now
        weight = np.maximum(gamma.sum(axis=0), 1e-9)
        means = np.einsum("nk,nkp->kp", gamma, mean) / weight[:, None]
        away = mean - means
        spread = np.einsum("nkp,nkq->kpq", gamma[:, :, None] * away, away) + np.einsum(
            "nk,nkpq->kpq", gamma, covariance
        )
        mix = Mixture(weight / weight.sum(), means, spread / weight[:, None, None] + np.diag(_FLOOR * scale))
    return mix, last


def check_clusters(particles: int, clusters: int | None) -> None:
    """Refuse more clusters than so many particles allow; without a number asked for, 20 particles do.

    Examples
    --------
    >>> from verglas.heterogeneity.landscape import check_clusters
    >>> check_clusters(60, 3)
    """
    number = clusters or 1
    if particles < _FEWEST * number:
        raise InputError(
            f"landscape: {particles} particles are too few for {number} clusters; a cluster takes {_FEWEST}"
        )


@any_arrays
def landscape(
    coordinates: FloatArray,
    covariances: FloatArray,
    prior_variance: FloatArray,
    half: IntArray,
    *,
    clusters: int | None = None,
    most_clusters: int = _MOST,
    seed: int = 0,
) -> Landscape:
    """Density of coordinates, deconvolved by their covariances, and clusters.

    Parameters
    ----------
    coordinates : (n, q) float64
        Posterior means under a normal prior of mean 0.
    covariances : (n, q, q) float64
        Of each.
    prior_variance : (q,) float64
        Of that prior.
    half : (n,) int64
        Half sets, 1 and 2.
    clusters : int, optional
        Gaussians; by default the fewest that particles of the other half do not refute, by one standard error.
    most_clusters : int
        Where that ends.
    seed : int
        Of starts, and of the particles that are fitted to where there are more than 20,000.

    Raises
    ------
    InputError
        No coordinates, one along which the prior lets nothing vary, too few particles.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.landscape import landscape
    >>> rng = np.random.default_rng(0)
    >>> true = rng.choice([-2.0, 2.0], (400, 1), p=[0.3, 0.7]) + 0.2 * rng.normal(size=(400, 1))
    >>> seen = true + rng.normal(size=true.shape)  # read with an error of 1; posterior under N(0, 4)
    >>> made = landscape(0.8 * seen, np.full((400, 1, 1), 0.8), np.array([4.0]), np.arange(400) % 2 + 1)
    >>> made.clusters, made.mixture.shares.round(1).tolist()
    (2, [0.7, 0.3])
    """
    n, q = coordinates.shape
    if not q:
        raise InputError("landscape: there are no coordinates: nothing varies")
    if not (prior_variance > 0).all():
        raise InputError(f"landscape: coordinate {int(np.argmin(prior_variance)) + 1} has a prior variance of 0")
    check_clusters(n, clusters)
    h, information = likelihoods(coordinates, covariances, prior_variance)
    scale = coordinates.var(axis=0) + np.einsum("iqq->q", covariances) / n
    rng = np.random.default_rng([seed, n])
    used = np.sort(rng.permutation(n)[:_FIT_MOST])
    rows = [used[half[used] == k] for k in (1, 2)]
    most = clusters or max(1, min(most_clusters, min(map(len, rows)) // _FEWEST))
    counts = range(1, most + 1) if clusters is None else sorted({1, most})
    halves, held_out = [], []
    for count in counts:
        pair = [fit_mixture(h[r], information[r], count, scale, seed=seed) for r in rows]
        logs = [logsumexp(_posterior(h[r], information[r], pair[1 - k])[0], axis=1) for k, r in enumerate(rows)]
        halves.append(pair)
        held_out.append(np.concatenate(logs))
    gain = np.array(held_out) - held_out[0]
    chosen = _fewest(np.array(held_out)) if clusters is None else len(counts) - 1
    trials = pd.DataFrame(
        {
            "clusters": list(counts),
            "gain_nats": gain.mean(axis=1),
            "error_nats": gain.std(axis=1) / np.sqrt(gain.shape[1]),
        }
    )
    mix = fit_mixture(h[used], information[used], counts[chosen], scale, seed=seed)
    log = _posterior(h, information, mix)[0]
    low, high = np.quantile(coordinates, [0.001, 0.999], axis=0)
    low, high = np.minimum(low, mix.means.min(axis=0)), np.maximum(high, mix.means.max(axis=0))
    margin = _MARGIN * (high - low)
    membership = np.exp(log - logsumexp(log, axis=1, keepdims=True))
    return Landscape(mix, halves[chosen], membership, trials, low - margin, high + margin)


def _fewest(held_out: FloatArray) -> int:
    """Number of the first trial that is not worse than the best by a standard error of their difference."""
    best = held_out[int(held_out.sum(axis=1).argmax())]
    for number, one in enumerate(held_out):
        lost = best - one
        if lost.mean() <= _SURE * lost.std() / np.sqrt(len(lost)):
            return number
    raise AssertionError  # the best one is not worse than itself
