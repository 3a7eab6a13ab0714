"""The objects that flow between stages: frozen, columnar, cheap to slice.

Conventions (docs/conventions.md): lengths in angstrom, angles in degrees, images (n, y, x) and volumes (z, y, x)
float32, origin at pixel N // 2, particles white.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from verglas.types.arrays import FloatArray
from verglas.types.images import ArraySource, ImageSource
from verglas.types.map import Map
from verglas.types.micrograph import Micrograph, Picks
from verglas.types.movie import FrameArray, FrameSource, Movie
from verglas.types.optics import Optics
from verglas.types.poses import Poses
from verglas.types.snapshot import Keeper, Snapshot

if TYPE_CHECKING:
    from verglas.types.particles import Particles

__all__ = [
    "ArraySource",
    "FloatArray",
    "FrameArray",
    "FrameSource",
    "ImageSource",
    "Keeper",
    "Map",
    "Micrograph",
    "Movie",
    "Optics",
    "Particles",
    "Picks",
    "Poses",
    "Snapshot",
]
__dir__ = partial(sorted, __all__)


def __getattr__(name: str) -> Any:
    """Particles on first use: pandas takes longer to import than all the rest."""
    if name != "Particles":
        raise AttributeError(f"module 'verglas.types' has no attribute {name!r}")
    from verglas.types.particles import Particles

    globals()[name] = Particles
    return Particles
