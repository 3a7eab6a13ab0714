"""The objects that flow between stages: frozen, columnar, cheap to slice.

Conventions (docs/conventions.md): lengths in angstrom, angles in degrees, images (n, y, x) and volumes (z, y, x)
float32, origin at pixel N // 2, particles white.
"""

from __future__ import annotations

from verglas.types.images import ArraySource, ImageSource
from verglas.types.map import Map
from verglas.types.micrograph import Micrograph
from verglas.types.optics import Optics
from verglas.types.particles import Particles
from verglas.types.poses import FloatArray, Poses

__all__ = ["ArraySource", "FloatArray", "ImageSource", "Map", "Micrograph", "Optics", "Particles", "Poses"]
