r"""Classes as points in the space of the components: a mixture whose every class has one place z for all its particles.

Where structures differ in kind, the normal prior of the components is wrong and k-means of coordinates drawn together
by it finds groups of like size only. With h and P of :func:`verglas.heterogeneity.landscape.likelihoods` or of
:func:`verglas.heterogeneity.components.held_out_information`, the likelihood of class k is
:math:`\pi_k \exp(h z_k - z_k P z_k / 2)`: what each image knows of each coordinate counts, shares come out as they
are, and many starts cost little, as no image is read.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.special import logsumexp

from verglas.types.arrays import FloatArray, IntArray, any_arrays

_STARTS = 5
_FIRST_PASSES = 15  # of every start; the best goes on
_SWAPS = 60
_SWAP_PASSES = 10
_PASSES = 200
_STILL = 1e-6  # nats per particle that a pass must gain
_RIDGE = 1e-3  # of the normal prior, for a class whose images know nothing of a coordinate
_LEAST_SHARE = 1e-6
_FIT_MOST = 20_000  # particles that the points are fitted to


@dataclass(frozen=True, eq=False)
class PointMixture:
    """Classes at points.

    Attributes
    ----------
    shares : (K,) float64
    points : (K, q) float64
    log_likelihood : float
        Per particle that was fitted to, over z = 0 for all, in nats.
    """

    shares: FloatArray
    points: FloatArray
    log_likelihood: float

    def log_evidence(self, h: FloatArray, information: FloatArray) -> FloatArray:
        """(n, K) logarithm of share times likelihood of particles."""
        quadratic = np.einsum("kp,npq,kq->nk", self.points, information, self.points, optimize=True)
        return np.asarray(h @ self.points.T - quadratic / 2 + np.log(self.shares))

    def posterior(self, h: FloatArray, information: FloatArray) -> FloatArray:
        """(n, K) of particles."""
        log = self.log_evidence(h, information)
        return np.asarray(np.exp(log - logsumexp(log, axis=1, keepdims=True)))


@any_arrays
def fit_points(
    h: FloatArray, information: FloatArray, count: int, half: IntArray, *, seed: int = 0
) -> PointMixture | None:
    """The most likely mixture of points that is found, the largest share first.

    The best of some starts, and then random swaps (Franti and Kivijarvi 2000): a point is put where any one particle
    lies, and stays if the mixture explains the particles better after some iterations. Small classes beside large ones
    are found by this where starts alone end in local maxima.

    Parameters
    ----------
    h, information : (n, q), (n, q, q) float64
        The likelihood of a particle's coordinates, exp(h z - z P z / 2).
    count : int
        Classes.
    half : (n,) int64
        Half sets, 1 and 2: a class that one of them has no particle of is none, as it would have no map there.
    seed : int
        Of the starts, and of the particles that are fitted to where there are more than 20,000.

    Returns
    -------
    PointMixture, or None if no start gives so many classes.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.point_mixture import fit_points
    >>> rng = np.random.default_rng(0)
    >>> true = rng.choice([-2.0, 2.0, 6.0], (900, 1), p=[0.7, 0.25, 0.05])
    >>> seen = true + rng.normal(size=true.shape)  # read with an error of 1
    >>> found = fit_points(seen, np.ones((900, 1, 1)), 3, np.arange(900) % 2 + 1)
    >>> found.shares.round(2).tolist(), bool(np.abs(found.points[:, 0] - [-2, 2, 6]).max() < 0.3)
    ([0.67, 0.28, 0.05], True)
    """
    n, q = h.shape
    if q == 0 or n < 2 * count:  # nothing to tell classes by, or some that a half set has no particle of
        return None
    used = np.sort(np.random.default_rng([seed, n]).permutation(n)[:_FIT_MOST])
    some, known = h[used], information[used]
    shrunk = np.linalg.solve(known + np.eye(q), some[:, :, None])[:, :, 0]
    best: PointMixture | None = None

    def better(made: PointMixture) -> bool:
        if best is not None and made.log_likelihood <= best.log_likelihood + _STILL:
            return False
        return _in_both(made.log_evidence(some, known).argmax(axis=1), half[used], count)

    for number in range(_STARTS):
        rng = np.random.default_rng([seed, count, number])
        with warnings.catch_warnings():  # particles that lie on one another make empty classes, which are not taken
            warnings.simplefilter("ignore", UserWarning)
            with np.errstate(invalid="ignore"):
                centres, label = kmeans2(shrunk, count, minit="++", seed=rng, missing="warn")
        shares = np.maximum(np.bincount(label, minlength=count), 1) / len(used)
        made = _climb(some, known, PointMixture(shares / shares.sum(), centres, -np.inf), _FIRST_PASSES)
        best = made if better(made) else best
    if best is None:
        return None
    rng = np.random.default_rng([seed, count, _STARTS])
    for _ in range(_SWAPS if count > 1 else 0):
        points, shares = best.points.copy(), best.shares.copy()
        moved = rng.integers(count)
        points[moved], shares[moved] = shrunk[rng.integers(len(used))], 1 / count
        made = _climb(some, known, PointMixture(shares / shares.sum(), points, -np.inf), _SWAP_PASSES)
        best = made if better(made) else best
    made = _climb(some, known, best, _PASSES)
    best = made if better(made) else best
    order = np.argsort(-best.shares, kind="stable")
    return PointMixture(best.shares[order], best.points[order], best.log_likelihood)


def _climb(h: FloatArray, information: FloatArray, mixture: PointMixture, passes: int) -> PointMixture:
    """Expectation-maximisation."""
    ridge = _RIDGE * np.eye(h.shape[1])
    for _ in range(passes):
        log = mixture.log_evidence(h, information)
        evidence = logsumexp(log, axis=1)
        likelihood = float(evidence.mean())
        gamma = np.exp(log - evidence[:, None])
        shares = np.maximum(gamma.mean(axis=0), _LEAST_SHARE)
        system = np.einsum("nk,npq->kpq", gamma, information, optimize=True) + ridge
        points = np.linalg.solve(system, (gamma.T @ h)[:, :, None])[:, :, 0]
        gain = likelihood - mixture.log_likelihood
        mixture = PointMixture(shares / shares.sum(), points, likelihood)
        if gain < _STILL:
            break
    return mixture


def _in_both(label: IntArray, half: IntArray, count: int) -> bool:
    return all(len(np.unique(label[half == number])) == count for number in (1, 2))
