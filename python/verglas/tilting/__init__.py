"""Tilt pairs: particles found in two images at different tilts, and maps from them without any starting model."""

from functools import partial

from verglas.tilting.conical import ConicalSettings, ConicalTilt, conical_poses, conical_tilt
from verglas.tilting.correspondence import Correspondence, match_particles
from verglas.tilting.geometry import TiltGeometry, fit_geometry
from verglas.tilting.merging import MergedClasses, merge_classes
from verglas.tilting.missing import ConeFSC, MissingCone, fsc_outside_cone, missing_cone
from verglas.tilting.pairs import TiltPairs, tilt_pairs
from verglas.tilting.validation import TiltPairPlot, tilt_pair_plot, validate_with_pairs

__all__ = [
    "ConeFSC",
    "ConicalSettings",
    "ConicalTilt",
    "Correspondence",
    "MergedClasses",
    "MissingCone",
    "TiltGeometry",
    "TiltPairPlot",
    "TiltPairs",
    "conical_poses",
    "conical_tilt",
    "fit_geometry",
    "fsc_outside_cone",
    "match_particles",
    "merge_classes",
    "missing_cone",
    "tilt_pair_plot",
    "tilt_pairs",
    "validate_with_pairs",
]
__dir__ = partial(sorted, __all__)
