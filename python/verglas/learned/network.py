"""A network that sees an image at three scales and says something about its pixels, with its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError
from verglas.learned.convolution import convolve, convolve_adjoint, enlarge, enlarge_adjoint
from verglas.types.arrays import Float32Array
from verglas.types.display import one_line

# Negative values keep this share of themselves: no unit dies on the few fields of a fine-tuning.
_LEAK = np.float32(0.1)


def picker_layers(width: int = 12) -> dict[str, tuple[int, int, int, int]]:
    """Shapes of the kernels by layer, for ``width`` channels at half the image's scale; a layer's bias has the last.

    Examples
    --------
    >>> from verglas.learned import picker_layers
    >>> sum(a * b * c * d + d for a, b, c, d in picker_layers().values())
    69433
    """
    two, four = 2 * width, 4 * width
    return {
        "half_0": (5, 5, 1, width),
        "half_1": (3, 3, width, width),
        "quarter_0": (3, 3, width, two),
        "quarter_1": (3, 3, two, two),
        "eighth_0": (3, 3, two, four),
        "eighth_1": (3, 3, four, four),
        "eighth_2": (3, 3, four, four),
        "up_0": (1, 1, four, two),
        "quarter_2": (3, 3, two, two),
        "up_1": (1, 1, two, width),
        "half_2": (3, 3, width, width),
        "out": (1, 1, width, 1),
    }


_STRIDES = {"quarter_0": 2, "eighth_0": 2}
# What is added to a layer's result: the layers' own input, or what the finer scale saw before.
_ADDED = {"eighth_1": "eighth_0", "eighth_2": "eighth_1", "up_0": "quarter_1", "up_1": "half_1"}
_ENLARGED = ("up_0", "up_1")


@one_line
@dataclass(frozen=True)
class Network:
    """Weights by name: ``<layer>.weight`` (k, k, c, o) and ``<layer>.bias`` (o,), float32.

    Three scales down (1/2, 1/4, 1/8), each a convolution of stride two and others after it; two up, where what was seen
    on the way down is added (Ronneberger et al. 2015, arXiv:1505.04597; added rather than joined as Lin et al. 2017,
    arXiv:1612.03144, do). The result stands at half the image's scale: pixel i is the image's pixel 2 i. With
    ``stride`` = 1 all scales are twice as fine and the result has as many pixels as the image.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.learned import Network
    >>> network = Network.random(seed=0)
    >>> network.apply(np.zeros((1, 50, 61), np.float32)).shape
    (1, 25, 31)
    """

    parameters: Mapping[str, Float32Array]
    stride: int = 2

    @classmethod
    def random(cls, seed: int, width: int = 12, stride: int = 2) -> Network:
        """Weights of He et al. 2015 (arXiv:1502.01852): every layer keeps the variance of its input."""
        rng = np.random.default_rng(seed)
        parameters: dict[str, Float32Array] = {}
        for layer, shape in picker_layers(width).items():
            fan_in = shape[0] * shape[1] * shape[2]
            scale = np.sqrt((1 if layer in _ADDED or layer == "out" else 2) / fan_in)
            parameters[f"{layer}.weight"] = (scale * rng.standard_normal(shape)).astype(np.float32)
            parameters[f"{layer}.bias"] = np.zeros(shape[-1], np.float32)
        return cls(parameters, stride)

    @property
    def coarsest(self) -> int:
        """Pixels of the image that one of the coarsest scale stands for: sides are padded to a multiple of it."""
        return 4 * self.stride

    def __post_init__(self) -> None:
        """Check that all layers are there and fit each other."""
        first = self.parameters.get("half_0.weight")
        width = 0 if first is None else first.shape[-1]
        for layer, shape in picker_layers(width).items():
            for name, expected in ((f"{layer}.weight", shape), (f"{layer}.bias", shape[-1:])):
                got = getattr(self.parameters.get(name), "shape", None)
                if got != expected or not width:
                    raise InputError(f"network: expected {name} of shape {expected}, got {got}; are these its weights?")

    def apply(self, images: Float32Array) -> Float32Array:
        """The result (n, ceil(y / stride), ceil(x / stride)) for images (n, y, x)."""
        height, width = images.shape[1:]
        out = self._layers(_multiple(images, self.coarsest))["out"]
        return out[:, : -(-height // self.stride), : -(-width // self.stride), 0]

    def _stride(self, layer: str) -> int:
        return self.stride if layer == "half_0" else _STRIDES.get(layer, 1)

    def _layers(self, images: Float32Array) -> dict[str, Float32Array]:
        """Result of every layer, after its rectifier."""
        seen: dict[str, Float32Array] = {}
        current = images[..., None]
        for layer in picker_layers(1):
            weight, bias = self.parameters[f"{layer}.weight"], self.parameters[f"{layer}.bias"]
            current = convolve(current, weight, bias, self._stride(layer))
            if layer in _ENLARGED:
                current = enlarge(current)
            if layer in _ADDED:
                current += seen[_ADDED[layer]]
            if layer != "out":
                np.maximum(current, _LEAK * current, out=current)
            seen[layer] = current
        return seen

    def gradient(
        self, images: Float32Array, of_result: Float32Array, seen: Mapping[str, Float32Array]
    ) -> dict[str, Float32Array]:
        """Gradient with respect to all weights of a function of the result.

        Parameters
        ----------
        images : (n, y, x) float32
            Sides are multiples of :attr:`coarsest`.
        of_result : (n, y / stride, x / stride) float32
            Gradient with respect to what :meth:`apply` gives.
        seen : mapping
            From :meth:`forward`.
        """
        out: dict[str, Float32Array] = {}
        waiting: dict[str, Float32Array] = {"out": of_result[..., None]}
        order = list(picker_layers(1))
        for number in range(len(order) - 1, -1, -1):
            layer = order[number]
            back = waiting.pop(layer)
            if layer != "out":
                back = np.where(seen[layer] > 0, back, _LEAK * back)
            if layer in _ADDED:
                _add(waiting, _ADDED[layer], back)
            if layer in _ENLARGED:
                back = enlarge_adjoint(back)
            before = seen[order[number - 1]] if number else images[..., None]
            to_input, out[f"{layer}.weight"], out[f"{layer}.bias"] = convolve_adjoint(
                before, self.parameters[f"{layer}.weight"], back, self._stride(layer), of_images=number > 0
            )
            if to_input is not None:
                _add(waiting, order[number - 1], to_input)
        return out

    def forward(self, images: Float32Array) -> tuple[Float32Array, dict[str, Float32Array]]:
        """As :meth:`apply` for sides that are multiples of :attr:`coarsest`, with what :meth:`gradient` needs."""
        if any(side % self.coarsest for side in images.shape[1:]):
            raise InputError(f"network: expected sides that are multiples of {self.coarsest}, got {images.shape[1:]}")
        seen = self._layers(images)
        return seen["out"][..., 0], seen


def _add(waiting: dict[str, Float32Array], layer: str, gradient: Float32Array) -> None:
    waiting[layer] = waiting[layer] + gradient if layer in waiting else gradient


def _multiple(images: Float32Array, step: int) -> Float32Array:
    """Images mirrored beyond the far edges up to a multiple of the coarsest scale."""
    more = [-side % step for side in images.shape[1:]]
    return np.pad(images, ((0, 0), (0, more[0]), (0, more[1])), mode="symmetric") if any(more) else images
