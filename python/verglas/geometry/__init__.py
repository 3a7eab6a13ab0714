"""Rotations, grids on the sphere and on SO(3), and point groups."""

from verglas.geometry.euler import (
    direction_vectors,
    euler_to_matrix,
    euler_to_quaternion,
    matrix_to_euler,
    quaternion_to_euler,
    zxz_to_zyz,
    zyz_to_zxz,
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
    "matrix_to_euler",
    "parse_symmetry",
    "quaternion_to_euler",
    "symmetry_matrices",
    "symmetry_order",
    "to_asymmetric_unit",
    "zxz_to_zyz",
    "zyz_to_zxz",
]
