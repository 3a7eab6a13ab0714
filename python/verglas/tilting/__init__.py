"""Tilt pairs: particles found in two images at different tilts, and maps from them without any starting model."""

from functools import partial

from verglas.tilting.correspondence import Correspondence, match_particles
from verglas.tilting.geometry import TiltGeometry, fit_geometry
from verglas.tilting.pairs import TiltPairs, tilt_pairs

__all__ = [
    "Correspondence",
    "TiltGeometry",
    "TiltPairs",
    "fit_geometry",
    "match_particles",
    "tilt_pairs",
]
__dir__ = partial(sorted, __all__)
