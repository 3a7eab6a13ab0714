"""Rotations, grids on the sphere and on SO(3), and point groups."""

from functools import partial

from verglas.geometry.euler import (
    direction_vectors,
    euler_to_matrix,
    euler_to_quaternion,
    matrix_to_euler,
    quaternion_to_euler,
    zxz_to_zyz,
    zyz_to_zxz,
)
from verglas.geometry.grid import orientation_grid, random_orientations, search_operation_count, unit_pixels
from verglas.geometry.healpix import (
    healpix_children,
    healpix_count,
    healpix_directions,
    healpix_index,
    healpix_neighbours,
    healpix_order,
    healpix_spacing_deg,
)
from verglas.geometry.symmetry import (
    angular_distance,
    asymmetric_unit,
    parse_symmetry,
    symmetry_matrices,
    symmetry_order,
    to_asymmetric_unit,
)

__all__ = [
    "angular_distance",
    "asymmetric_unit",
    "direction_vectors",
    "euler_to_matrix",
    "euler_to_quaternion",
    "healpix_children",
    "healpix_count",
    "healpix_directions",
    "healpix_index",
    "healpix_neighbours",
    "healpix_order",
    "healpix_spacing_deg",
    "matrix_to_euler",
    "orientation_grid",
    "parse_symmetry",
    "quaternion_to_euler",
    "random_orientations",
    "search_operation_count",
    "symmetry_matrices",
    "symmetry_order",
    "to_asymmetric_unit",
    "unit_pixels",
    "zxz_to_zyz",
    "zyz_to_zxz",
]
__dir__ = partial(sorted, __all__)
