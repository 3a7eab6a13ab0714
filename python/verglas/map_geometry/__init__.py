"""Maps as shapes: turned onto each other, their symmetry, their hand, their round part."""

from functools import partial

from verglas.map_geometry.hand import flip_hand, mirrored_angles
from verglas.map_geometry.map_alignment import Aligned, align_maps, turned_map
from verglas.map_geometry.sphere import aspherical_part, spherical_average
from verglas.map_geometry.symmetry_search import SymmetryScore, mass_centre, moved_map, symmetry_scores

__all__ = [
    "Aligned",
    "SymmetryScore",
    "align_maps",
    "aspherical_part",
    "flip_hand",
    "mass_centre",
    "mirrored_angles",
    "moved_map",
    "spherical_average",
    "symmetry_scores",
    "turned_map",
]
__dir__ = partial(sorted, __all__)
