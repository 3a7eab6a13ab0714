"""Small networks of our own: convolutions and their gradients, training, weights with a card.

Nothing of this is imported before a learned method is asked for, and it needs no package beside verglas' own.
"""

from functools import partial

from verglas.learned.convolution import convolve, convolve_adjoint
from verglas.learned.denoise import DenoiseSettings, denoise, wiener
from verglas.learned.network import Network, picker_layers
from verglas.learned.perceptron import Perceptron, packaged_perceptron
from verglas.learned.training import TrainingSettings, train
from verglas.learned.weights import Weights, from_safetensors, packaged_weights, to_safetensors

__all__ = [
    "DenoiseSettings",
    "Network",
    "Perceptron",
    "TrainingSettings",
    "Weights",
    "convolve",
    "convolve_adjoint",
    "denoise",
    "from_safetensors",
    "packaged_perceptron",
    "packaged_weights",
    "picker_layers",
    "to_safetensors",
    "train",
    "wiener",
]
__dir__ = partial(sorted, __all__)
