"""From micrographs to particles: CTF estimation and extraction."""

from verglas.preprocess.extract import Cut, ExtractSettings, background_excess, cut_particles

__all__ = ["Cut", "ExtractSettings", "background_excess", "cut_particles"]
