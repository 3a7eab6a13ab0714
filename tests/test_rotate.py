"""ops.rotate against the exact transform, and as a group action."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from volumes import blob, relative

from verglas import fourier, gridding, ops, reference

from devices import host, on
from tolerance import PROJECT_FINE_RELATIVE, PROJECT_RELATIVE


@pytest.mark.parametrize("box", [12, 13])
@pytest.mark.parametrize(
    ("kwargs", "tolerance"), [({}, PROJECT_RELATIVE), ({"width": 6, "oversampling": 1.25}, PROJECT_FINE_RELATIVE)]
)
def test_equals_the_exact_transform(device, box, kwargs, tolerance):
    volume, matrix = blob(box, 1), Rotation.random(random_state=2).as_matrix()
    grid = ops.Grid(box, **kwargs)
    got = host(ops.rotate(gridding.to_grid(volume, grid), grid, matrix, device=device))
    assert relative(got, reference.rotate.rotate(volume, matrix, grid.max_radius)) < tolerance


def test_rotation_of_the_map_is_rotation_of_the_transform(device):
    """A projection of the rotated map along z is the projection of the map at that rotation."""
    box = 20
    volume, matrix = blob(box, 3, fill=0.6), Rotation.random(random_state=4).as_matrix()
    grid = ops.Grid(box, width=8)
    spectrum = on(device, gridding.to_grid(volume, grid))
    plane = host(ops.rotate(spectrum, grid, matrix, device=device))[0]
    view = host(ops.project(spectrum, grid, matrix[None], device=device))[0]
    np.testing.assert_allclose(plane, view, atol=1e-4 * np.abs(view).max())


def test_threads_and_bad_input(device):
    grid = ops.Grid(12)
    spectrum = gridding.to_grid(blob(12, 1), grid)
    matrix = Rotation.random(random_state=2).as_matrix()
    assert np.array_equal(ops.rotate(spectrum, grid, matrix, threads=1), ops.rotate(spectrum, grid, matrix, threads=3))
    with pytest.raises(ValueError, match="matrix"):
        ops.rotate(spectrum, grid, matrix[None], device=device)
    with pytest.raises(ValueError, match="max_radius"):
        ops.rotate(spectrum, grid, matrix, max_radius=6, device=device)


def test_identity_is_the_band_limited_map(device):
    volume = blob(16, 5)
    grid = ops.Grid(16, width=8)
    want = fourier.forward(volume, 3) * (fourier.shells((16,) * 3) <= grid.max_radius)
    got = host(ops.rotate(gridding.to_grid(volume, grid), grid, np.eye(3), device=device))
    assert relative(got, want) < PROJECT_FINE_RELATIVE
