"""Small networks in NumPy: convolutions and their gradients, training, weights with a card.

Nothing of this is imported before a learned method is asked for, and it needs no package beside verglas' own.
"""

from functools import partial

from verglas.learned.convolution import convolve, convolve_adjoint
from verglas.learned.network import Network, picker_layers
from verglas.learned.training import TrainingSettings, train
from verglas.learned.weights import Weights, from_safetensors, packaged_weights, to_safetensors

__all__ = [
    "Network",
    "TrainingSettings",
    "Weights",
    "convolve",
    "convolve_adjoint",
    "from_safetensors",
    "packaged_weights",
    "picker_layers",
    "to_safetensors",
    "train",
]
__dir__ = partial(sorted, __all__)
