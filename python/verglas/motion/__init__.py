"""Movies to micrographs on arrays: how the specimen moved, and sums of frames moved back."""

from functools import partial

from verglas.motion.correct import CorrectedMovie, MotionSettings, correct_motion
from verglas.motion.dose import accumulated_dose, dose_weights
from verglas.motion.estimate import Estimate, estimate_motion
from verglas.motion.exposure import Exposure
from verglas.motion.fixed_pattern import FixedPattern, PatternOfMovies, RecordedSum

__all__ = [
    "CorrectedMovie",
    "Estimate",
    "Exposure",
    "FixedPattern",
    "MotionSettings",
    "PatternOfMovies",
    "RecordedSum",
    "accumulated_dose",
    "correct_motion",
    "dose_weights",
    "estimate_motion",
]
__dir__ = partial(sorted, __all__)
