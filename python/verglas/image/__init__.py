"""Images and volumes in real space: sums, histograms, normalisation, shifts, rotations, resampling, correlation."""

from functools import partial

from verglas.image.combination import linear_combination, mean_image
from verglas.image.correlation import correlation_coefficient, correntropy, ncc
from verglas.image.histogram import equalise, match_histogram
from verglas.image.normalise import normalise
from verglas.image.particles import ResampledSource, in_memory, resample_particles, with_box
from verglas.image.quality import find_unusable_images, robust_sigma
from verglas.image.resample import (
    ResamplePlan,
    bin_pixels,
    check_sampling,
    crop_or_pad,
    fourier_resample,
    plan_resample,
    resample,
)
from verglas.image.transform import Affine, interpolate, rotate, shift, warp

__all__ = [
    "Affine",
    "ResamplePlan",
    "ResampledSource",
    "bin_pixels",
    "check_sampling",
    "correlation_coefficient",
    "correntropy",
    "crop_or_pad",
    "equalise",
    "find_unusable_images",
    "fourier_resample",
    "in_memory",
    "interpolate",
    "linear_combination",
    "match_histogram",
    "mean_image",
    "ncc",
    "normalise",
    "plan_resample",
    "resample",
    "resample_particles",
    "robust_sigma",
    "rotate",
    "shift",
    "warp",
    "with_box",
]
__dir__ = partial(sorted, __all__)
