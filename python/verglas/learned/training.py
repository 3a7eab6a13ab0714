"""Training of a network on images and what it is to say of them: Adam, a rate that falls as a cosine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from verglas.errors import InputError
from verglas.learned.network import Network
from verglas.types.arrays import Float32Array
from verglas.types.listener import Listener

# Kingma and Ba 2015 (arXiv:1412.6980).
_FIRST, _SECOND, _SMALL = 0.9, 0.99, 1e-8
# Deviation of a centre's spot in the heat map, in diameters: picks within a third of the diameter are right.
SPOT = 0.12
# Largest norm of a gradient: one odd field moves no weight far.
_STEEPEST = 1.0


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast.

    Attributes
    ----------
    steps : int
        Steps at most.
    batch : int
        Fields in each.
    rate : float
        Of learning, at the start.
    seconds : float
        No step begins after so long; the rate falls with the larger of the shares of steps and seconds.
    seed : int
        Of the order of fields and of how they are turned.
    loss : {"logistic", "square"}
        Cross entropy of chances whose logits the network says, or squared differences.
    until : int, optional
        Stop after this step of all; another call goes on from there with the same ``adam``.
    """

    steps: int = 2000
    batch: int = 4
    rate: float = 3e-3
    seconds: float = float("inf")
    seed: int = 0
    loss: Literal["logistic", "square"] = "logistic"
    until: int | None = None


def heat_map(shape: tuple[int, int], xy_px: npt.ArrayLike, radius_px: float) -> Float32Array:
    """What the network is to say: one at each centre, falling as a Gaussian, at half the image's scale.

    Parameters
    ----------
    shape : (int, int)
        Of the image.
    xy_px : (n, 2) float
        Centres in it.
    radius_px : float
        Of the particle.

    Examples
    --------
    >>> from verglas.learned.training import heat_map
    >>> spot = heat_map((32, 48), [[20, 10]], 11)
    >>> spot.shape, float(spot[5, 10]), bool(spot[5, 20] < 1e-6)
    ((16, 24), 1.0, True)
    """
    rows, columns = np.arange(0, shape[0], 2), np.arange(0, shape[1], 2)
    out = np.zeros((len(rows), len(columns)), np.float32)
    sigma = SPOT * 2 * radius_px
    for x, y in np.asarray(xy_px, np.float64).reshape(-1, 2):
        near_y = np.flatnonzero(np.abs(rows - y) < 4 * sigma)
        near_x = np.flatnonzero(np.abs(columns - x) < 4 * sigma)
        if not len(near_y) or not len(near_x):
            continue
        part = np.s_[near_y[0] : near_y[-1] + 1, near_x[0] : near_x[-1] + 1]
        spot = np.exp(-((rows[near_y, None] - y) ** 2 + (columns[None, near_x] - x) ** 2) / (2 * sigma**2))
        out[part] = np.maximum(out[part], spot)
    return out


def logistic_loss(logits: Float32Array, wanted: Float32Array, weight: Float32Array) -> tuple[float, Float32Array]:
    """Mean cross entropy of what is wanted and 1 / (1 + exp(-logit)), and its gradient."""
    total = max(float(weight.sum()), 1.0)
    each = np.maximum(logits, 0) - logits * wanted + np.log1p(np.exp(-np.abs(logits)))
    share = expit(logits)
    return float((each * weight).sum()) / total, ((share - wanted) * weight / np.float32(total)).astype(np.float32)


def square_loss(said: Float32Array, wanted: Float32Array, weight: Float32Array) -> tuple[float, Float32Array]:
    """Mean squared difference of what is said and wanted, and its gradient."""
    total = max(float(weight.sum()), 1.0)
    away = (said - wanted) * weight
    return float((away * (said - wanted)).sum()) / total, (2 * away / np.float32(total)).astype(np.float32)


_LOSSES = {"logistic": logistic_loss, "square": square_loss}


class Adam:
    """Steps of Adam on the weights of a network.

    Attributes
    ----------
    parameters : dict
        The weights as they are now.
    steps : int
        Taken so far.
    """

    def __init__(self, network: Network) -> None:
        self.parameters = {name: value.copy() for name, value in network.parameters.items()}
        self._first = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self._second = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.steps = 0

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that the next step depends on, to be kept in a file."""
        groups = {"weight": self.parameters, "first": self._first, "second": self._second}
        named = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
        return named | {"steps": np.array(self.steps)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], stride: int = 2) -> Adam:
        """Inverse of :meth:`to_arrays`."""
        groups: dict[str, dict[str, Float32Array]] = {"weight": {}, "first": {}, "second": {}}
        for key in arrays:
            if "/" in key:
                group, name = key.split("/", 1)
                groups[group][name] = np.array(arrays[key], np.float32)
        out = cls(Network(groups["weight"], stride))
        out._first, out._second, out.steps = groups["first"], groups["second"], int(arrays["steps"])
        return out

    def step(self, gradient: dict[str, Float32Array], rate: float) -> None:
        """Move the weights against the gradient."""
        self.steps += 1
        norm = np.sqrt(sum(float((one**2).sum()) for one in gradient.values()))
        scale = min(1.0, _STEEPEST / max(norm, 1e-12))
        correct = np.sqrt(1 - _SECOND**self.steps) / (1 - _FIRST**self.steps)
        for name, value in gradient.items():
            value = value * np.float32(scale)
            first, second = self._first[name], self._second[name]
            first += np.float32(1 - _FIRST) * (value - first)
            second += np.float32(1 - _SECOND) * (value**2 - second)
            self.parameters[name] -= np.float32(rate * correct) * first / (np.sqrt(second) + np.float32(_SMALL))


def train(
    network: Network,
    images: Float32Array,
    wanted: Float32Array,
    weight: Float32Array,
    settings: TrainingSettings | None = None,
    listener: Listener | None = None,
    *,
    adam: Adam | None = None,
) -> Network:
    """Weights after training, as they are at the end of it.

    Parameters
    ----------
    network : Network
        To start from.
    images : (n, y, x) float32
        Fields of one size, a multiple of the network's coarsest scale.
    wanted : (n, y / stride, x / stride) float32
        What it is to say of each: for the picker :func:`heat_map`.
    weight : (n, y / stride, x / stride) float32
        How much each pixel counts; zero where it is not known what is there.
    settings : TrainingSettings, optional
    listener : Listener, optional
        Is told the figures ``step`` and ``loss`` of every step.
    adam : Adam, optional
        Of a training that was stopped: goes on after its last step, as one that was not stopped would have, with the
        same fields and settings. Its weights are changed.

    Returns
    -------
    Network

    Raises
    ------
    InputError
        Arrays that do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.learned import Network, TrainingSettings, train
    >>> image = np.zeros((1, 32, 32), np.float32)
    >>> trained = train(Network.random(0), image, np.zeros((1, 16, 16), np.float32), np.ones((1, 16, 16), np.float32),
    ...                 TrainingSettings(steps=3))
    >>> trained.apply(image).shape
    (1, 16, 16)
    """
    chosen = settings or TrainingSettings()
    stride, step_px = network.stride, network.coarsest
    maps = (len(images), *(side // stride for side in images.shape[1:]))
    if wanted.shape != maps or weight.shape != maps or any(side % step_px for side in images.shape[1:]):
        raise InputError(
            f"train: expected fields with sides that are multiples of {step_px} and maps of their size over {stride}, "
            f"got {images.shape}, {wanted.shape} and {weight.shape}"
        )
    rng, began, adam = np.random.default_rng(chosen.seed), time.monotonic(), adam or Adam(network)
    done, order = adam.steps, np.zeros(0, np.int64)
    for step in range(chosen.steps if chosen.until is None else min(chosen.steps, chosen.until)):
        share = max(step / chosen.steps, (time.monotonic() - began) / chosen.seconds)
        if share >= 1:
            break
        while len(order) < chosen.batch:
            order = np.r_[order, rng.permutation(len(images))]
        rows, order = order[: chosen.batch], order[chosen.batch :]
        turn = int(rng.integers(8))
        if step < done:  # taken before: what is random goes on from where it was
            continue
        batch, aim, counts = (
            _turn(images[rows], turn, stride - 1),
            _turn(wanted[rows], turn),
            _turn(weight[rows], turn),
        )
        now = Network(adam.parameters, stride)
        logits, seen = now.forward(batch)
        loss, of_logits = _LOSSES[chosen.loss](logits, aim, counts)
        warm = min(1.0, (step + 1) / 20)
        adam.step(
            now.gradient(batch, of_logits, seen), chosen.rate * warm * (0.02 + 0.98 * np.cos(np.pi / 2 * share) ** 2)
        )
        if listener is not None:
            listener.iteration({"step": step, "loss": loss})
    return Network(adam.parameters, stride)


def _turn(fields: Float32Array, turn: int, offset: int = 0) -> Float32Array:
    """Turned by quarter turns and mirrored.

    Pixels of a map are the even ones of its image, so a mirrored image is moved by ``offset`` = 1 to keep them so.
    """
    out = fields
    for bit, axis in ((1, 1), (2, 2)):
        if turn & bit:
            out = np.roll(np.flip(out, axis), -offset, axis)
    return np.ascontiguousarray(out.transpose(0, 2, 1) if turn & 4 else out)
