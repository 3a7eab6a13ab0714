"""verglas: cryo-EM single-particle images to 3D maps one can trust.

The public names are those of docs/api; heavy modules are loaded on first use, so ``import verglas`` stays quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from verglas._version import __version__
from verglas.errors import DeviceError, FormatError, InputError, VerglasError, VerglasWarning
from verglas.types import ArraySource, Map, Micrograph, Movie, Optics, Poses, convert, display

# name -> module that holds it, loaded when first asked for
_LAZY = {
    "show": "verglas.report.show",
    "abinitio": "verglas.run.abinitio",
    "align": "verglas.search",
    "correct_motion": "verglas.motion",
    "classify2d": "verglas.classification",
    "classify3d": "verglas.run.class3d",
    "Particles": "verglas.types",
    "Picks": "verglas.types.micrograph",
    "ctf": "verglas.optics",
    "deposit": "verglas.run.deposit",
    "devices": "verglas.run.machine",
    "directional_fsc": "verglas.assessment.directional",
    "estimate_ctf": "verglas.optics.fit",
    "euler_to_matrix": "verglas.geometry",
    "expand_symmetry": "verglas.heterogeneity.expand",
    "extract": "verglas.run.extract",
    "fsc": "verglas.assessment.fsc",
    "heterogeneity_test": "verglas.heterogeneity.evidence",
    "info": "verglas.run.machine",
    "local_resolution": "verglas.assessment.local_resolution",
    "map_model": "verglas.assessment.map_model",
    "matrix_to_euler": "verglas.geometry",
    "multibody": "verglas.run.multibody",
    "orientation_grid": "verglas.geometry",
    "plan": "verglas.run.plan",
    "postprocess": "verglas.assessment.postprocess",
    "pick": "verglas.picking",
    "process": "verglas.pipeline",
    "project": "verglas.reconstruction",
    "read_atoms": "verglas.io",
    "read_map": "verglas.io",
    "read_micrograph": "verglas.io",
    "read_movie": "verglas.run.movies",
    "read_particles": "verglas.io",
    "reconstruct": "verglas.reconstruction",
    "refine": "verglas.run.refine",
    "refine_ctf": "verglas.run.ctf_refine",
    "polish": "verglas.run.polish",
    "sieve": "verglas.run.sieve",
    "status": "verglas.run.status",
    "subtract": "verglas.heterogeneity.subtract",
    "symmetry_matrices": "verglas.geometry",
    "tilt_pairs": "verglas.tilting",
    "validate": "verglas.run.validate",
    "variability": "verglas.heterogeneity.variability",
    "write_map": "verglas.io",
    "write_particles": "verglas.io",
}
_SUBMODULES = (
    "assessment",
    "classification",
    "detector",
    "extraction",
    "filters",
    "fourier",
    "geometry",
    "gridding",
    "heterogeneity",
    "image",
    "initial_model",
    "io",
    "map_geometry",
    "masks",
    "motion",
    "ops",
    "optics",
    "picking",
    "polishing",
    "reconstruction",
    "reference",
    "refinement",
    "search",
    "simulate",
    "tilting",
)

if TYPE_CHECKING:
    from verglas import (
        assessment,
        classification,
        detector,
        extraction,
        filters,
        fourier,
        geometry,
        gridding,
        heterogeneity,
        image,
        initial_model,
        io,
        map_geometry,
        masks,
        motion,
        ops,
        optics,
        picking,
        polishing,
        reconstruction,
        reference,
        refinement,
        search,
        simulate,
        tilting,
    )
    from verglas.assessment.directional import directional_fsc
    from verglas.assessment.fsc import fsc
    from verglas.assessment.local_resolution import local_resolution
    from verglas.assessment.map_model import map_model
    from verglas.assessment.postprocess import postprocess
    from verglas.classification import classify2d
    from verglas.geometry import euler_to_matrix, matrix_to_euler, orientation_grid, symmetry_matrices
    from verglas.heterogeneity.evidence import heterogeneity_test
    from verglas.heterogeneity.expand import expand_symmetry
    from verglas.heterogeneity.subtract import subtract
    from verglas.heterogeneity.variability import variability
    from verglas.io import read_atoms, read_map, read_micrograph, read_particles, write_map, write_particles
    from verglas.motion import correct_motion
    from verglas.optics import ctf
    from verglas.optics.fit import estimate_ctf
    from verglas.picking import pick
    from verglas.pipeline import process
    from verglas.reconstruction import project, reconstruct
    from verglas.run.abinitio import abinitio
    from verglas.run.class3d import classify3d
    from verglas.run.ctf_refine import refine_ctf
    from verglas.run.deposit import deposit
    from verglas.run.extract import extract
    from verglas.run.machine import devices, info
    from verglas.run.movies import read_movie
    from verglas.run.multibody import multibody
    from verglas.run.plan import plan
    from verglas.run.polish import polish
    from verglas.run.refine import refine
    from verglas.run.sieve import sieve
    from verglas.run.status import status
    from verglas.run.validate import validate
    from verglas.search import align
    from verglas.tilting import tilt_pairs
    from verglas.types import Particles, Picks

__all__ = [
    "ArraySource",
    "DeviceError",
    "FormatError",
    "InputError",
    "Map",
    "Micrograph",
    "Movie",
    "Optics",
    "Particles",
    "Picks",
    "Poses",
    "VerglasError",
    "VerglasWarning",
    "__version__",
    "abinitio",
    "align",
    "assessment",
    "classification",
    "classify2d",
    "classify3d",
    "correct_motion",
    "ctf",
    "deposit",
    "detector",
    "devices",
    "directional_fsc",
    "estimate_ctf",
    "euler_to_matrix",
    "expand_symmetry",
    "extract",
    "extraction",
    "filters",
    "fourier",
    "fsc",
    "geometry",
    "gridding",
    "heterogeneity",
    "heterogeneity_test",
    "image",
    "info",
    "initial_model",
    "io",
    "local_resolution",
    "map_geometry",
    "map_model",
    "masks",
    "matrix_to_euler",
    "motion",
    "multibody",
    "ops",
    "optics",
    "orientation_grid",
    "pick",
    "picking",
    "plan",
    "polish",
    "polishing",
    "postprocess",
    "process",
    "project",
    "read_atoms",
    "read_map",
    "read_micrograph",
    "read_movie",
    "read_particles",
    "reconstruct",
    "reconstruction",
    "reference",
    "refine",
    "refine_ctf",
    "refinement",
    "search",
    "show",
    "sieve",
    "simulate",
    "status",
    "subtract",
    "symmetry_matrices",
    "tilt_pairs",
    "tilting",
    "validate",
    "variability",
    "write_map",
    "write_particles",
]


def _reader(name: str) -> Callable[[Any], Any]:
    """A public function that reads a path, loaded when it is called."""
    return lambda path: getattr(importlib.import_module(_LAZY[name]), name)(path)


# What stages and types, which know no files and no pictures, are given: how paths are read and objects are drawn.
convert.readers.update(
    Map=_reader("read_map"),
    Particles=_reader("read_particles"),
    Micrograph=_reader("read_micrograph"),
    Movie=_reader("read_movie"),
    Atoms=_reader("read_atoms"),
)
display.drawers[:] = [lambda thing: str(importlib.import_module("verglas.report.cards").card(thing))]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"verglas.{name}")
    else:
        raise AttributeError(f"module 'verglas' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
