"""From micrographs to particles: CTF estimation, picking and extraction."""

from verglas.preprocess.centre import (
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
from verglas.preprocess.centring import CentringTrial, try_centring
from verglas.preprocess.ctf import CtfFit, CtfSettings, estimate_ctf
from verglas.preprocess.extract import Cut, ExtractSettings, background_excess, cut_particles
from verglas.preprocess.ice import ice_ring
from verglas.preprocess.pick_consensus import consensus, remove_duplicates
from verglas.preprocess.pick_image import SmallImage, prepare
from verglas.preprocess.pick_mask import BadAreas, bad_areas
from verglas.preprocess.pick_merit import PickMerit, RocCurve, compare_picks, match_picks, roc_curve
from verglas.preprocess.pick_particles import Averages, PickResult, PickSettings, inside, pick, pick_detailed
from verglas.preprocess.quality import (
    MicrographQuality,
    QualityLimits,
    Verdict,
    judge_ctfs,
    judge_extraction,
    judge_micrographs,
    judge_set,
    outlier_z,
    particle_features,
)

__all__ = [
    "Averages",
    "BadAreas",
    "CentringTrial",
    "CtfFit",
    "CtfSettings",
    "Cut",
    "ExtractSettings",
    "MicrographQuality",
    "PickMerit",
    "PickResult",
    "PickSettings",
    "QualityLimits",
    "RocCurve",
    "SmallImage",
    "Verdict",
    "background_excess",
    "bad_areas",
    "centre_of_mass",
    "compare_picks",
    "consensus",
    "cut_particles",
    "estimate_ctf",
    "find_centres",
    "geometric_median",
    "ice_ring",
    "inside",
    "judge_ctfs",
    "judge_extraction",
    "judge_micrographs",
    "judge_set",
    "match_picks",
    "outlier_z",
    "particle_features",
    "pick",
    "pick_detailed",
    "prepare",
    "prolate_average",
    "prolate_radial",
    "recentre",
    "remove_duplicates",
    "ring_average",
    "roc_curve",
    "signal_to_noise",
    "surrogate_centre",
    "surrogate_landscape",
    "try_centring",
]
