"""Priors of the maximisation step: what is told of both half sets, and what is done to the maps of each."""

from collections.abc import Callable

from verglas.refinement.prior.local import LocalWiener
from verglas.refinement.prior.protocol import HalfMaps, MapSource, Prior, Regulariser, Wiener

# Name in the settings -> the prior.
PRIORS: dict[str, Callable[[], Prior]] = {"global": Wiener, "local": LocalWiener}

__all__ = ["PRIORS", "HalfMaps", "LocalWiener", "MapSource", "Prior", "Regulariser", "Wiener"]
