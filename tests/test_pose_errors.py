"""assessment.pose_errors: the frame that all particles share is found and taken off, errors are those put in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas.assessment import pose_errors


def poses(matrices, shifts):
    return vg.Poses(vg.matrix_to_euler(matrices), shifts)


@pytest.fixture
def true():
    rng = np.random.default_rng(3)
    return poses(vg.euler_to_matrix(vg.geometry.random_orientations(400, seed=1)), rng.normal(0, 3, (400, 2)))


def in_frame(true, matrix, offset):
    """The same images explained by the map turned and moved."""
    a = vg.euler_to_matrix(true.angles_deg) @ matrix.T
    return poses(a, true.shifts_A + (a @ offset)[:, :2])


@pytest.mark.parametrize(
    ("symmetry", "turn", "offset"),
    [("C1", (4.0, -6, 9), (1.0, -2, 3)), ("C3", (0, 0, 12), (0, 0, 2.5)), ("D2", (0, 0, 0), (0, 0, 0))],
)
def test_a_common_frame_is_no_error(true, symmetry, turn, offset):
    matrix = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    found = in_frame(true, matrix, np.array(offset))
    group = vg.symmetry_matrices(symmetry)
    operators = group[np.random.default_rng(0).integers(len(group), size=len(true))]
    # Which symmetry mate was found does not matter; the operator acts in the frame of the found map, on the right.
    found = poses(vg.euler_to_matrix(found.angles_deg) @ operators, found.shifts_A)
    errors = pose_errors(found, true, symmetry)
    assert errors.angle_deg.max() < 1e-6
    assert errors.shift_A.max() < 1e-6
    assert errors.matrix == pytest.approx(matrix, abs=1e-9)
    assert errors.offset_A == pytest.approx(offset, abs=1e-6)
    assert errors.turn_deg == pytest.approx(np.linalg.norm(turn), abs=1e-6)


def test_errors_are_those_put_in_and_mistaken_poses_do_not_turn_the_frame(true):
    rng = np.random.default_rng(5)
    axes = rng.normal(size=(400, 3))
    size = np.abs(rng.normal(0, 1.5, 400))
    size[:60] = rng.uniform(60, 170, 60)
    turns = Rotation.from_rotvec(axes / np.linalg.norm(axes, axis=1)[:, None] * size[:, None], degrees=True).as_matrix()
    matrix = Rotation.from_rotvec((3.0, 2, -1), degrees=True).as_matrix()
    moved = in_frame(true, matrix, np.zeros(3))
    errors = pose_errors(poses(turns @ vg.euler_to_matrix(moved.angles_deg), moved.shifts_A), true)
    assert errors.angle_deg == pytest.approx(size, abs=0.3)
    assert vg.geometry.angular_distance(
        vg.matrix_to_euler(errors.matrix[None]), vg.matrix_to_euler(matrix[None])
    ) == pytest.approx(0, abs=0.3)


def test_the_turned_model_is_the_found_map():
    """Model.moved by what was found gives the map that the found poses belong to."""
    model = vg.simulate.phantom(32, 4.0, 80.0)
    particles = vg.simulate.particles(model, 30, 32, 4.0, seed=2)
    matrix, offset = Rotation.from_rotvec((5.0, -3, 8), degrees=True).as_matrix(), np.array([2.0, -1, 4])
    errors = pose_errors(in_frame(particles.poses, matrix, offset), particles.poses)
    turned = model.move(errors.matrix, errors.offset_A)
    again = vg.simulate.particles(turned, 30, 32, 4.0, seed=2, poses=in_frame(particles.poses, matrix, offset))
    assert again.images() == pytest.approx(particles.images(), abs=1e-3 * float(np.abs(particles.images()).max()))


def test_numbers_that_do_not_match(true):
    with pytest.raises(vg.InputError, match="as many"):
        pose_errors(true, true[:3])
