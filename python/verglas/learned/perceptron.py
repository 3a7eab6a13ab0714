"""A network of one hidden layer that gives numbers a probability, kept as JSON with its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from scipy.special import expit

from verglas.types.arrays import Array, FloatArray

# A standardised number counts as no farther than this: one absurd value must not decide alone.
FAR = 4.0
_ARRAYS = ("mean", "scale", "hidden", "hidden_bias", "out")


@dataclass(frozen=True)
class Perceptron:
    r"""Weights, and what they were made from.

    .. math:: p = \sigma(w_2 \cdot \tanh(W_1 z + b_1) + b_2), \qquad z = \mathrm{clip}((x - \mu) / s, -4, 4)

    Attributes
    ----------
    names : list of str
        Of the numbers x, in order.
    mean, scale : (d,) float64
    hidden, hidden_bias : (d, h), (h,) float64
    out, out_bias : (h,) float64, float
    threshold : float
        Probability from which the answer is yes.
    card : dict
        Data, command, seed, scores.
    """

    names: list[str]
    mean: FloatArray
    scale: FloatArray
    hidden: FloatArray
    hidden_bias: FloatArray
    out: FloatArray
    out_bias: float
    threshold: float = 0.5
    card: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Perceptron:
        """From :meth:`as_dict`."""
        mean, scale, hidden, hidden_bias, out = (np.asarray(record[name], np.float64) for name in _ARRAYS)
        names, card = list(record["names"]), dict(record["card"])
        bias, threshold = float(record["out_bias"]), float(record["threshold"])
        return cls(names, mean, scale, hidden, hidden_bias, out, bias, threshold, card)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        arrays = {name: np.round(getattr(self, name), 5).tolist() for name in _ARRAYS}
        return {
            "card": dict(self.card),
            "names": self.names,
            "threshold": self.threshold,
            "out_bias": self.out_bias,
        } | arrays

    def probabilities(self, values: Array) -> Array:
        """Of rows of numbers, (..., d), in their precision.

        Examples
        --------
        >>> import numpy as np
        >>> from verglas.learned import Perceptron
        >>> one = np.ones(1)
        >>> Perceptron(["x"], 0 * one, one, one[None], 0 * one, one, 0.0).probabilities(np.zeros((2, 1))).tolist()
        [0.5, 0.5]
        """
        kind = values.dtype
        z = np.clip((values - self.mean.astype(kind)) / self.scale.astype(kind), -FAR, FAR)
        inner = np.tanh(z @ self.hidden.astype(kind) + self.hidden_bias.astype(kind))
        return np.asarray(expit(inner @ self.out.astype(kind) + kind.type(self.out_bias)))


def fit_perceptron(
    names: list[str], values: FloatArray, labels: Array, weight: FloatArray, *, hidden: int, decay: float, seed: int
) -> Perceptron:
    """Weights of least penalised cross entropy (L-BFGS from scikit-learn's starting weights, which the seed draws).

    Parameters
    ----------
    names : list of str
    values : (n, d) float64
    labels : (n,) bool
    weight : (n,) float64
        How much each row counts; rounded to how often it is shown, 1 at least.
    hidden : int
        Units.
    decay : float
        Penalty on squared weights (``alpha`` of :class:`sklearn.neural_network.MLPClassifier`).
    seed : int
    """
    from sklearn.neural_network import MLPClassifier

    mean, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    z = np.clip((values - mean) / scale, -FAR, FAR)
    times = np.maximum(1, np.rint(weight / weight.mean())).astype(int)
    fit = MLPClassifier(hidden, activation="tanh", solver="lbfgs", alpha=decay, max_iter=600, random_state=seed)
    fit.fit(np.repeat(z, times, axis=0), np.repeat(np.asarray(labels, int), times))
    (first, out), (bias, out_bias) = fit.coefs_, fit.intercepts_
    return Perceptron(names, mean, scale, first, bias, out[:, 0], float(out_bias[0]))


@lru_cache(maxsize=4)
def packaged_perceptron(name: str) -> Perceptron:
    """Weights that come with verglas: ``class_ranker``, ``local_resolution``.

    Examples
    --------
    >>> from verglas.learned import packaged_perceptron
    >>> packaged_perceptron("class_ranker").card["name"]
    'class ranker'
    """
    path = files("verglas.learned") / "packaged" / f"{name}.json"
    return Perceptron.of(json.loads(path.read_text(encoding="utf-8")))
