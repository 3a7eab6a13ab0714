"""How good is a map: Fourier shell correlation and what follows from it, solvent masks, B-factor, sharpening."""

from functools import partial

from verglas.assessment.alignability import Alignability, alignability, judge_alignability
from verglas.assessment.atom_statistics import (
    WilsonMoments,
    debye_power,
    fit_radius_of_gyration,
    model_variability_A,
    radius_of_gyration_A,
    wilson_moments,
)
from verglas.assessment.counts import effective_counts
from verglas.assessment.directional import DirectionalFSC, directional_fsc
from verglas.assessment.fsc import (
    FSC,
    THRESHOLDS,
    c_ref,
    first_crossing,
    fsc,
    full_map_fsc,
    ssnr_from_fsc,
    threshold_curve,
    threshold_name,
)
from verglas.assessment.fsc_q import FscQ, fsc_q
from verglas.assessment.guinier import (
    Guinier,
    GuinierLine,
    amplitude_spectrum,
    b_factor_of_displacement,
    displacement_of_b_factor,
    fit_guinier,
    guinier,
    match_spectrum,
)
from verglas.assessment.local_directional import LocalDirections, local_directions
from verglas.assessment.local_filter import filter_locally
from verglas.assessment.local_resolution import LocalResolution, LocalResolutionSettings, local_resolution
from verglas.assessment.local_sharpen import (
    LocallySharpened,
    LocalSharpenSettings,
    deblur_locally,
    scale_locally,
)
from verglas.assessment.local_tomogram import local_resolution_of_tomogram
from verglas.assessment.map_model import MapModel, MapModelSettings, map_model
from verglas.assessment.micrographs import (
    MicrographQuality,
    QualityLimits,
    judge_ctfs,
    judge_extraction,
    judge_micrographs,
    judge_set,
    untrusted_picks,
)
from verglas.assessment.missing_cone import MissingCone
from verglas.assessment.movies import judge_movies
from verglas.assessment.orientations import OrientationEfficiency, orientation_efficiency, view_counts
from verglas.assessment.particle_scores import (
    ParticleScores,
    expected_quality,
    first_high_shell,
    held_out_evidence,
    percentile_by_defocus,
    score_particles,
)
from verglas.assessment.phase import PhaseResidual, differential_phase_residual
from verglas.assessment.phase_randomisation import corrected_fsc, randomise_phases
from verglas.assessment.poses import PoseErrors, pose_errors
from verglas.assessment.postprocess import Postprocessed, PostprocessSettings, mtf_gain, postprocess
from verglas.assessment.q_score import q_scores
from verglas.assessment.reslog import ResLog, reslog
from verglas.assessment.sampling import Sampling, TiltProposal, fourier_sampling, propose_tilt
from verglas.assessment.single_map import SingleMapResolution, single_map_resolution
from verglas.assessment.solvent import solvent_level, solvent_mask
from verglas.assessment.ssnr import SpectralF, spectral_f
from verglas.assessment.structure_scores import element_z, secondary_structure, side_chain_z
from verglas.assessment.view_proposal import ViewProposal, propose_views
from verglas.types.verdict import Verdict

__all__ = [
    "FSC",
    "THRESHOLDS",
    "Alignability",
    "DirectionalFSC",
    "FscQ",
    "Guinier",
    "GuinierLine",
    "LocalDirections",
    "LocalResolution",
    "LocalResolutionSettings",
    "LocalSharpenSettings",
    "LocallySharpened",
    "MapModel",
    "MapModelSettings",
    "MicrographQuality",
    "MissingCone",
    "OrientationEfficiency",
    "ParticleScores",
    "PhaseResidual",
    "PoseErrors",
    "PostprocessSettings",
    "Postprocessed",
    "QualityLimits",
    "ResLog",
    "Sampling",
    "SingleMapResolution",
    "SpectralF",
    "TiltProposal",
    "Verdict",
    "ViewProposal",
    "WilsonMoments",
    "alignability",
    "amplitude_spectrum",
    "b_factor_of_displacement",
    "c_ref",
    "corrected_fsc",
    "deblur_locally",
    "debye_power",
    "differential_phase_residual",
    "directional_fsc",
    "displacement_of_b_factor",
    "effective_counts",
    "element_z",
    "expected_quality",
    "filter_locally",
    "first_crossing",
    "first_high_shell",
    "fit_guinier",
    "fit_radius_of_gyration",
    "fourier_sampling",
    "fsc",
    "fsc_q",
    "full_map_fsc",
    "guinier",
    "held_out_evidence",
    "judge_alignability",
    "judge_ctfs",
    "judge_extraction",
    "judge_micrographs",
    "judge_movies",
    "judge_set",
    "local_directions",
    "local_resolution",
    "local_resolution_of_tomogram",
    "map_model",
    "match_spectrum",
    "model_variability_A",
    "mtf_gain",
    "orientation_efficiency",
    "percentile_by_defocus",
    "pose_errors",
    "postprocess",
    "propose_tilt",
    "propose_views",
    "q_scores",
    "radius_of_gyration_A",
    "randomise_phases",
    "reslog",
    "scale_locally",
    "score_particles",
    "secondary_structure",
    "side_chain_z",
    "single_map_resolution",
    "solvent_level",
    "solvent_mask",
    "spectral_f",
    "ssnr_from_fsc",
    "threshold_curve",
    "threshold_name",
    "untrusted_picks",
    "view_counts",
    "wilson_moments",
]
__dir__ = partial(sorted, __all__)
