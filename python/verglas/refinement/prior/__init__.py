"""Priors of the maximisation step: what is told of both half sets, and what is done to the maps of each."""

from collections.abc import Callable

from verglas.refinement.prior.given import DenoisedBy, prior_of
from verglas.refinement.prior.local import LocalWiener
from verglas.refinement.prior.protocol import HalfMaps, MapSource, Prior, Regulariser, Wiener
from verglas.refinement.prior.shrinkage import TotalVariationPrior, WaveletShrinkage
from verglas.refinement.prior.sidesplitter import SideSplitter

# Name in the settings -> the prior.
PRIORS: dict[str, Callable[[], Prior]] = {
    "global": Wiener,
    "local": LocalWiener,
    "sidesplitter": SideSplitter,
    "wavelet": WaveletShrinkage,
    "total-variation": TotalVariationPrior,
}

__all__ = [
    "DenoisedBy",
    "HalfMaps",
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
