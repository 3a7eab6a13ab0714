"""How far data reach in the stages of a 2D classification, how many seeds it begins with, and how far shifts go."""

from __future__ import annotations

import numpy as np

from verglas.classification.settings import Class2DSettings
from verglas.classification.working_set import Geometry

_SECOND_A = 20.0  # end of the seeding
_MAX_SEEDS = 600


def first_radii(geometry: Geometry, settings: Class2DSettings) -> list[int]:
    """Last ring of each iteration of the seeding."""
    first = min(geometry.ring(settings.initial_resolution_A), geometry.search_limit)
    second = min(max(geometry.ring(_SECOND_A), first), geometry.search_limit)
    return [first] * 4 + [second] * 3


def seed_count(n: int, classes: int) -> int:
    """Seeds of a classification of so many particles: more than classes, as a view without a seed is never found.

    Twins among them are merged later.
    """
    return int(np.clip(n // 8, classes, min(3 * classes, max(classes, _MAX_SEEDS))))


def particles_of_seeding(seeds: int) -> int:
    """Particles that the seeding draws on, at most."""
    return max(5000, 30 * seeds)


def shift_range_px(geometry: Geometry, settings: Class2DSettings) -> float:
    """Largest shift searched: as asked, or an eighth of the particle's diameter."""
    default_A = float(np.clip(geometry.diameter_px * geometry.pixel_size_A / 8, 5, 20))
    return (default_A if settings.shift_range_A is None else settings.shift_range_A) / geometry.pixel_size_A
