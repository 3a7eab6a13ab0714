"""From positions to particle images: cutting, centring, outliers."""

from functools import partial

from verglas.extraction.centre import (
    centre_of_mass,
    find_centres,
    geometric_median,
    prolate_average,
    prolate_radial,
    recentre,
    ring_average,
    signal_to_noise,
    surrogate_centre,
    surrogate_landscape,
)
from verglas.extraction.centring import CentringTrial, try_centring
from verglas.extraction.cut import (
    Cut,
    ExtractSettings,
    background_excess,
    bad_share_of,
    centre_contrast,
    cut_particles,
)
from verglas.extraction.features import outlier_z, particle_features

__all__ = [
    "CentringTrial",
    "Cut",
    "ExtractSettings",
    "background_excess",
    "bad_share_of",
    "centre_contrast",
    "centre_of_mass",
    "cut_particles",
    "find_centres",
    "geometric_median",
    "outlier_z",
    "particle_features",
    "prolate_average",
    "prolate_radial",
    "recentre",
    "ring_average",
    "signal_to_noise",
    "surrogate_centre",
    "surrogate_landscape",
    "try_centring",
]
__dir__ = partial(sorted, __all__)
