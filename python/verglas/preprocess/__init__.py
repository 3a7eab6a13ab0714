"""From micrographs to particles: CTF estimation and extraction."""

from verglas.preprocess.ctf import CtfFit, CtfSettings, estimate_ctf
from verglas.preprocess.extract import Cut, ExtractSettings, background_excess, cut_particles

__all__ = [
    "CtfFit",
    "CtfSettings",
    "Cut",
    "ExtractSettings",
    "background_excess",
    "cut_particles",
    "estimate_ctf",
]
