"""Phantoms and atomic models to maps and particle images with a known answer.

``particles`` also writes files, so it lives in :mod:`verglas.run.simulate`; it is found here on first use.
"""

import importlib
from functools import partial
from typing import Any

from verglas.simulate import noise, scattering, text
from verglas.simulate.crystals import polycrystal
from verglas.simulate.density import density
from verglas.simulate.filaments import FilamentTruth, filaments
from verglas.simulate.grid_squares import SQUARE_KINDS, grid_square
from verglas.simulate.imaging import Imaging, Simulation, Truth, draw_truth
from verglas.simulate.micrographs import MicrographTruth, Scene, micrograph
from verglas.simulate.mixed import BOX_KINDS, mixed_particles
from verglas.simulate.model import Model
from verglas.simulate.motion_field import MotionField, Recording
from verglas.simulate.movies import MovieTruth, movie
from verglas.simulate.multislice import exit_wave, image_of_wave, project_3d_ctf, project_layers
from verglas.simulate.noise import SNR, measured_snr
from verglas.simulate.phantom import hinge, phantom
from verglas.simulate.planted import MixedBlur, PlantedHalves, mixed_blur, planted_halves
from verglas.simulate.reader import read_model
from verglas.simulate.spoilt import spoilt_micrograph

__all__ = [
    "BOX_KINDS",
    "SNR",
    "SQUARE_KINDS",
    "FilamentTruth",
    "Imaging",
    "MicrographTruth",
    "MixedBlur",
    "Model",
    "MotionField",
    "MovieTruth",
    "PlantedHalves",
    "Recording",
    "Scene",
    "Simulation",
    "Truth",
    "density",
    "draw_truth",
    "exit_wave",
    "filaments",
    "grid_square",
    "hinge",
    "image_of_wave",
    "measured_snr",
    "micrograph",
    "mixed_blur",
    "mixed_particles",
    "movie",
    "noise",
    "phantom",
    "planted_halves",
    "polycrystal",
    "project_3d_ctf",
    "project_layers",
    "read_model",
    "scattering",
    "spoilt_micrograph",
    "text",
]
__dir__ = partial(sorted, __all__)


def __getattr__(name: str) -> Any:
    if name == "particles":
        return importlib.import_module("verglas.run.simulate").particles
    raise AttributeError(f"module 'verglas.simulate' has no attribute {name!r}")
