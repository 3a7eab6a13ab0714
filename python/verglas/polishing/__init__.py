"""Polishing on arrays: tracks of particles through the frames of movies, and what each frame is worth."""

from functools import partial

from verglas.polishing.evidence import Evidence, fit_prior, prior_evidence
from verglas.polishing.movie import Measured, MovieParticles, add_frames, correlate_frames, measure
from verglas.polishing.prior import KnownTracks, MotionPrior, fit_prior_to_tracks
from verglas.polishing.references import OtherHalf
from verglas.polishing.smoothing import Scene, TrackSmoother
from verglas.polishing.surfaces import References, SurfaceBuilder, Surfaces, Window
from verglas.polishing.tracks import (
    HeldOutGain,
    Tracks,
    fit_offsets,
    fit_tracks,
    held_out_gain,
    log_evidence,
    smoother_of,
    track_errors_A,
)
from verglas.polishing.weights import FrameCorrelation, FrameWeights, fit_frame_weights, weights_gain

__all__ = [
    "Evidence",
    "FrameCorrelation",
    "FrameWeights",
    "HeldOutGain",
    "KnownTracks",
    "Measured",
    "MotionPrior",
    "MovieParticles",
    "OtherHalf",
    "References",
    "Scene",
    "SurfaceBuilder",
    "Surfaces",
    "TrackSmoother",
    "Tracks",
    "Window",
    "add_frames",
    "correlate_frames",
    "fit_frame_weights",
    "fit_offsets",
    "fit_prior",
    "fit_prior_to_tracks",
    "fit_tracks",
    "held_out_gain",
    "log_evidence",
    "measure",
    "prior_evidence",
    "smoother_of",
    "track_errors_A",
    "weights_gain",
]
__dir__ = partial(sorted, __all__)
