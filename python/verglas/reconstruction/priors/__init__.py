"""Penalties and sets with their proximal operators; they know arrays, and nothing of images or microscopes."""

from functools import partial

from verglas.reconstruction.priors.differences import TotalVariation, divergence, gradient
from verglas.reconstruction.priors.potentials import L1, Huber, NonNegative, Prior, Quadratic, Student, TwoValues, soft
from verglas.reconstruction.priors.transforms import FourierGaussian, Shaped, Support, Symmetric, WaveletL0, WaveletL1

__all__ = [
    "L1",
    "FourierGaussian",
    "Huber",
    "NonNegative",
    "Prior",
    "Quadratic",
    "Shaped",
    "Student",
    "Support",
    "Symmetric",
    "TotalVariation",
    "TwoValues",
    "WaveletL0",
    "WaveletL1",
    "divergence",
    "gradient",
    "soft",
]
__dir__ = partial(sorted, __all__)
