"""Priors of the maximisation step: what is told of both half sets, and what is done to the maps of each."""

from collections.abc import Callable
from functools import partial

from verglas.regularisation.denoise import LearnedDenoiser
from verglas.regularisation.given import DenoisedBy, prior_of
from verglas.regularisation.local import LocalWiener
from verglas.regularisation.protocol import HalfMaps, MapSource, Prior, Regulariser, Wiener
from verglas.regularisation.shrinkage import TotalVariationPrior, WaveletShrinkage
from verglas.regularisation.sidesplitter import SideSplitter

# Name in the settings -> the prior.
PRIORS: dict[str, Callable[[], Prior]] = {
    "global": Wiener,
    "local": LocalWiener,
    "sidesplitter": SideSplitter,
    "wavelet": WaveletShrinkage,
    "total-variation": TotalVariationPrior,
    "denoise": LearnedDenoiser,
}

__all__ = [
    "DenoisedBy",
    "HalfMaps",
    "LearnedDenoiser",
    "LocalWiener",
    "MapSource",
    "Prior",
    "Regulariser",
    "SideSplitter",
    "TotalVariationPrior",
    "WaveletShrinkage",
    "Wiener",
    "prior_of",
]
__dir__ = partial(sorted, __all__)
