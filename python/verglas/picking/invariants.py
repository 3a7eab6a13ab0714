r"""A classifier of rotational invariants, taught by a few particles.

A window is expanded in circular harmonics about its centre, of rings of Gaussian profile,

.. math:: F_{jm} = \sum_x w(x)\, e^{-(|x| - r_j)^2 / 2 s^2}\, e^{-i m \varphi}

of which F_{j0}, abs(F_{jm}) and the products of neighbouring rings F_{jm} F*_{j+1,m} do not change when the window
turns (Sorzano et al. 2009, J. Struct. Biol. 167, 252-260; Abrishami et al. 2013, Bioinformatics 29, 2460-2468). A
logistic regression on them tells the examples of particles from peaks that are none; how surely, examples that it was
not taught with say. Its probability is for as many
particles as others; the share of particles among the micrograph's peaks is found by expectation
maximisation (Saerens, Latinne and Decaestecker 2002, Neural Comput. 14, 21-41), and the cut is that of the largest
expected F (:mod:`verglas.picking.mixture`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.picking.examples import PickExamples, windows_at
from verglas.picking.mixture import ScoreCut, best_count
from verglas.picking.scored import ScoredPeaks, Search
from verglas.types.arrays import Float32Array, FloatArray

# Radii of the rings in particle radii, their width, and the highest angular order.
_RINGS, _WIDTH, _ORDERS = (0.0, 0.3, 0.6, 0.9, 1.2, 1.6), 0.16, 4
# Strength of the prior on the weights: sixty weights from fifteen clicks.
_INVERSE_RIDGE = 0.03
_ROUNDS, _FOLDS = 50, 5
_BATCH = 4096


@lru_cache(maxsize=8)
def _harmonics(side: int, radius_px: float) -> npt.NDArray[np.complex64]:
    """Circular harmonics of the rings, (side * side, rings, orders + 1), each of unit norm."""
    grid = np.arange(side) - side // 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    distance, angle = np.hypot(x, y) / radius_px, np.arctan2(y, x)
    rings = np.exp(-((distance[..., None] - np.array(_RINGS)) ** 2) / (2 * _WIDTH**2))
    turned = np.exp(-1j * angle[..., None] * np.arange(_ORDERS + 1))
    turned[side // 2, side // 2, 1:] = 0  # the centre has no direction
    basis = (rings[..., None] * turned[:, :, None]).reshape(side * side, len(_RINGS), _ORDERS + 1)
    return np.asarray(basis / np.sqrt((np.abs(basis) ** 2).sum(axis=0)), np.complex64)


def rotational_invariants(windows: Float32Array, radius_px: float) -> FloatArray:
    """Rotational invariants of windows.

    Parameters
    ----------
    windows : (n, s, s) float32
    radius_px : float
        Of the particle.

    Returns
    -------
    (n, 71) float64
        Means of the rings minus that of the outermost, moduli of their harmonics, products of neighbouring rings, and
        the logarithm of the window's deviation.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.invariants import rotational_invariants
    >>> window = np.random.default_rng(0).normal(size=(1, 51, 51)).astype(np.float32)
    >>> turned = np.rot90(window, axes=(1, 2))
    >>> one, other = rotational_invariants(np.concatenate([window, turned]), 11.0)
    >>> bool(np.allclose(one, other, rtol=1e-3, atol=1e-4))
    True
    """
    stack = np.asarray(windows, np.float32)
    basis = _harmonics(stack.shape[1], round(float(radius_px), 3))
    flat = basis.reshape(len(basis), -1)
    rows = []
    for start in range(0, len(stack), _BATCH):
        part = stack[start : start + _BATCH].reshape(-1, len(basis))
        harmonics = (part @ flat).reshape(len(part), len(_RINGS), _ORDERS + 1)
        # A ring's phase is measured from the next ring's: of one ring alone it says how the window lies.
        products = harmonics[:, :-1, 1:] * harmonics[:, 1:, 1:].conj()
        rings = harmonics[:, :, 0].real
        moduli = np.abs(harmonics[:, :, 1:]).reshape(len(part), -1)
        columns = [rings - rings[:, -1:], moduli, _signed_root(products.real), _signed_root(products.imag)]
        columns.append(np.log(np.maximum(part.std(axis=1), 1e-6))[:, None])
        rows.append(np.concatenate([c.reshape(len(part), -1) for c in columns], axis=1))
    width = len(_RINGS) * (1 + _ORDERS) + 2 * (len(_RINGS) - 1) * _ORDERS + 1
    return np.concatenate(rows).astype(np.float64) if rows else np.zeros((0, width))


def _signed_root(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.sign(values) * np.sqrt(np.abs(values))


@dataclass(frozen=True)
class ParticleClassifier:
    """A logistic regression on standardised invariants, calibrated on examples that it had not seen.

    Attributes
    ----------
    machine : scikit-learn pipeline
    means : (float, float)
        Of its decision about others and about particles that it was not taught with.
    deviation : float
        Of both about their means.
    """

    machine: Any
    means: tuple[float, float]
    deviation: float

    @classmethod
    def of(cls, examples: PickExamples) -> ParticleClassifier:
        """Taught by examples.

        Raises
        ------
        InputError
            Too few of one kind.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        counts = len(examples.particles), len(examples.others)
        if min(counts) < _FOLDS:
            raise InputError(
                f"pick: {counts[0]} examples of particles and {counts[1]} of background; expected {_FOLDS} of each"
            )
        features = rotational_invariants(np.concatenate([examples.particles, examples.others]), examples.radius_px)
        labels = np.r_[np.ones(counts[0], int), np.zeros(counts[1], int)]
        machine = make_pipeline(StandardScaler(), LogisticRegression(C=_INVERSE_RIDGE, class_weight="balanced"))
        # What it was taught with it tells apart better than anything new.
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        decision = cross_val_predict(machine, features, labels, cv=folds, method="decision_function")
        means = float(decision[labels == 0].mean()), float(decision[labels == 1].mean())
        rest = decision - np.array(means)[labels]
        return cls(machine.fit(features, labels), means, max(float(rest.std()), 1e-6))

    def odds(self, windows: Float32Array, radius_px: float) -> FloatArray:
        """Logarithm of the odds that each window holds a particle, were there as many particles as others."""
        decision = self.machine.decision_function(rotational_invariants(windows, radius_px))
        low, high = self.means
        middle = (low + high) / 2
        return np.asarray((decision - middle) * max(high - low, 0.0) / self.deviation**2, np.float64)


def with_share(odds: FloatArray) -> tuple[FloatArray, float]:
    """Probabilities for the share of particles that the odds themselves make likeliest, and that share.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.invariants import with_share
    >>> probability, share = with_share(np.r_[np.full(90, -4.0), np.full(10, 4.0)])
    >>> round(share, 2), bool(probability[-1] > 0.5)
    (0.09, True)
    """
    ratio = np.exp(np.clip(odds, -30, 30))
    share = 0.5
    probability = ratio / (1 + ratio)
    for _ in range(_ROUNDS):
        probability = share * ratio / (share * ratio + 1 - share)
        share = float(np.clip(probability.mean(), 1e-4, 1 - 1e-4)) if len(odds) else share
    return np.asarray(probability), share


def invariant_peaks(search: Search, peaks: ScoredPeaks, taught: PickExamples) -> ScoredPeaks:
    """Peaks of a filter with their probability of being particles as heights.

    Parameters
    ----------
    search : Search
    peaks : ScoredPeaks
        The peaks to judge.
    taught : PickExamples

    Raises
    ------
    InputError
        Examples of another sampling.
    """
    small = search.small
    windows = windows_at(small, peaks.xy_px)
    if windows.shape[1:] != taught.particles.shape[1:]:
        raise InputError(
            f"pick: examples of {taught.particles.shape[1]} pixels for a micrograph that needs {windows.shape[1]}; "
            "they were made for another diameter or pixel size"
        )
    odds = ParticleClassifier.of(taught).odds(windows, small.radius_px)
    probability, share = with_share(odds)
    order = np.argsort(-probability, kind="stable")
    picked = probability[order[: best_count(probability[order])]] if len(order) else probability
    cut = ScoreCut(
        float(picked[-1]) if len(picked) else 1.0,
        peaks.cut.separation,
        peaks.cut.clear,
        peaks.cut.gain,
        share * len(probability),
        float(picked.mean()) if len(picked) else 0.0,
        0.9,
    )
    return ScoredPeaks("invariants", peaks.score, peaks.xy_px[order], probability[order], cut, peaks.null)
