"""verglas: cryo-EM single-particle images to 3D maps one can trust.

The public names are those of docs/api; heavy modules are loaded on first use, so ``import verglas`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from verglas._version import __version__
from verglas.errors import DeviceError, FormatError, InputError, VerglasError
from verglas.types import Map, Optics, Poses

# name -> module that holds it, loaded when first asked for
_LAZY = {
    "devices": "verglas.run.machine",
    "euler_to_matrix": "verglas.geometry",
    "fsc": "verglas.assessment.fsc",
    "info": "verglas.run.machine",
    "matrix_to_euler": "verglas.geometry",
    "orientation_grid": "verglas.geometry",
    "symmetry_matrices": "verglas.geometry",
}
_SUBMODULES = ("assessment", "fourier", "geometry", "masks", "ops", "reference", "simulate")

if TYPE_CHECKING:
    from verglas import assessment, fourier, geometry, masks, ops, reference, simulate
    from verglas.assessment.fsc import fsc
    from verglas.geometry import euler_to_matrix, matrix_to_euler, orientation_grid, symmetry_matrices
    from verglas.run.machine import devices, info

__all__ = [
    "DeviceError",
    "FormatError",
    "InputError",
    "Map",
    "Optics",
    "Poses",
    "VerglasError",
    "__version__",
    "assessment",
    "devices",
    "euler_to_matrix",
    "fourier",
    "fsc",
    "geometry",
    "info",
    "masks",
    "matrix_to_euler",
    "ops",
    "orientation_grid",
    "reference",
    "simulate",
    "symmetry_matrices",
]


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
