"""Elastic networks, flexible alignment, Zernike deformations, strain, distances of maps: each on what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from bending_points import BOX, PIXEL_A, WIDTH_A, gaussian_images
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

import verglas as vg
from verglas.errors import InputError
from verglas.heterogeneity.deform import (
    Deformation,
    align_modes,
    fit_deformation,
    local_strain,
    normal_modes,
    pseudo_atoms,
    structmap,
)
from verglas.heterogeneity.deform.normal_modes import network_hessian
from verglas.heterogeneity.deform.zernike3d import zernike_basis, zernike_orders
from verglas.simulate import Model, hinge
from verglas.types.listener import Silence


@pytest.fixture(scope="module")
def atoms():
    """Every fourth atom of a phantom, and its softest modes."""
    xyz = vg.simulate.phantom(BOX, PIXEL_A, 80.0, seed=5, shape="dumbbell").xyz_A[::4]
    xyz = xyz - xyz.mean(axis=0)
    return xyz, normal_modes(xyz, 18.0, count=3)


def test_rigid_motions_cost_nothing_and_energy_is_the_hessian(atoms):
    xyz, modes = atoms
    hessian = network_hessian(xyz, 18.0)
    for axis in np.eye(3):
        for way in (np.broadcast_to(axis, xyz.shape), np.cross(axis, xyz)):
            assert np.abs(hessian @ way.ravel()).max() < 1e-9 * np.linalg.norm(way)
    flat = modes.vectors.reshape(3, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(hessian @ flat.T, flat.T * modes.eigenvalues, atol=1e-6 * modes.eigenvalues[-1])
    # The springs themselves, stretched a little along the softest mode: E = a^2 eigenvalue / 2.
    i, j = np.triu_indices(len(xyz), 1)
    rest = np.linalg.norm(xyz[i] - xyz[j], axis=1)
    near = rest < 18.0
    way = 1e-3 * modes.vectors[0]
    now = np.linalg.norm((xyz + way)[i] - (xyz + way)[j], axis=1)
    energy = 0.5 * np.square((now - rest)[near]).sum()
    assert energy == pytest.approx(0.5e-6 * modes.eigenvalues[0], rel=0.01)


def test_planted_amplitude_along_the_seventh_mode_is_recovered(atoms):
    """Amplitudes of 2 A rms, poses off by 1.5 degrees and 1 A: found within a tenth, and within the stated errors."""
    xyz, modes = atoms
    drawn = vg.simulate.particles(vg.simulate.phantom(BOX, PIXEL_A, 80.0), 12, BOX, PIXEL_A, seed=3, listener=None)
    rng = np.random.default_rng(7)
    planted = np.sign(rng.normal(size=12)) * rng.uniform(1.5, 2.5, 12) * np.sqrt(len(xyz))
    images = gaussian_images(modes.displace(planted[:, None]), drawn.poses, drawn.optics, noise=0.2)
    turned = Rotation.from_rotvec(np.deg2rad(rng.normal(0, 0.9, (12, 3)))).as_matrix()
    off = vg.Poses(
        vg.matrix_to_euler(turned @ vg.euler_to_matrix(drawn.poses.angles_deg)),
        drawn.poses.shifts_A + rng.normal(0, 0.7, (12, 2)),
    )
    given = drawn.with_source(vg.ArraySource(images, PIXEL_A)).with_poses(off)
    found = align_modes(given, modes, width_A=WIDTH_A, resolution_A=9.0, n_modes=1)
    error = found.amplitudes_A[:, 0] - planted
    assert np.abs(error / planted).max() < 0.1
    assert np.median(np.abs(error / planted)) < 0.04
    assert np.mean(np.square(error / found.errors_A[:, 0])) < 2.5
    right = given.with_poses(drawn.poses)
    still = align_modes(right, modes, width_A=WIDTH_A, resolution_A=9.0, n_modes=1, refine_poses=False)
    assert np.median(np.abs(still.amplitudes_A[:, 0] / planted - 1)) < 0.04
    np.testing.assert_array_equal(still.poses.shifts_A, drawn.poses.shifts_A)


def test_pseudo_atoms_share_the_mass():
    ball = vg.Map(vg.masks.soft_sphere(BOX, 8.0, 1.0), PIXEL_A)
    points, mass = pseudo_atoms(ball, 60)
    assert mass.sum() == pytest.approx(ball.data[ball.data > 0.1].sum(), rel=1e-6)
    assert mass.std() < 0.5 * mass.mean()
    assert np.linalg.norm(points, axis=1).max() < 8.5 * PIXEL_A
    assert len(normal_modes(points, 20.0, count=2).vectors) == 2


def test_zernike_functions_are_orthonormal_in_the_ball():
    grid = np.moveaxis(np.indices((40,) * 3), 0, -1).reshape(-1, 3) / 19.5 - 1
    inside = np.linalg.norm(grid, axis=1) <= 1
    basis = zernike_basis(grid, 3)
    assert basis.shape[1] == len(zernike_orders(3)) == 20
    assert not basis[~inside].any()
    np.testing.assert_allclose(basis[inside].T @ basis[inside] / inside.sum(), np.eye(20), atol=0.05)


def test_planted_deformation_is_recovered():
    """A bend of 4 A or more: less than 5 % of the difference is left, and the field is that one in the density."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0, seed=2)
    first = vg.simulate.density(model, BOX, PIXEL_A)
    rng = np.random.default_rng(4)
    radius_A = BOX * PIXEL_A / 2
    planted = Deformation(rng.normal(0, 1.2, (len(zernike_orders(2)), 3)), 2, radius_A)
    second = planted.apply(first)
    identity = Deformation(np.zeros((20, 3)), 3, radius_A)
    np.testing.assert_allclose(identity.apply(first).data, first.data, atol=1e-3 * first.data.std())
    found = fit_deformation(first, second, degree=3, resolutions_A=(25.0, 12.0))
    ways = [d.field_A(BOX, PIXEL_A) for d in (planted, found)]
    dense = first.data > 0.2 * first.data.max()
    assert np.linalg.norm(ways[0][dense], axis=1).max() > 4.0
    off = np.square(ways[1] - ways[0])[dense].sum() / np.square(ways[0])[dense].sum()
    assert off < 0.05
    before, after = (np.square(m.data - second.data).sum() for m in (first, found.apply(first)))
    assert after < 0.05 * before
    assert found.correlation > 0.98


def test_affine_deformation_has_the_strain_that_it_has():
    matrix = Rotation.from_rotvec(np.deg2rad([3.0, -5.0, 8.0])).as_matrix() @ np.diag([1.05, 0.97, 1.0])
    places = np.moveaxis(np.indices((8, 9, 10))[::-1], 0, -1) * 2.5
    found = local_strain(places @ (matrix - np.eye(3)).T, 2.5)
    want = (matrix.T @ matrix - np.eye(3)) / 2
    np.testing.assert_allclose(found.strain, np.broadcast_to(want, found.strain.shape), atol=0.01 * np.abs(want).max())
    np.testing.assert_allclose(
        found.rotation_deg, np.broadcast_to([3.0, -5.0, 8.0], found.rotation_deg.shape), atol=0.01
    )
    np.testing.assert_allclose(found.volume, np.linalg.det(matrix), rtol=1e-6)
    np.testing.assert_allclose(found.magnitude, 0.05125, rtol=1e-3)
    assert found.angle_deg[0, 0, 0] == pytest.approx(np.sqrt(98), abs=0.01)


class Counts(Silence):
    def __init__(self):
        self.told = []

    def progress(self, phase, done, total):
        self.told.append((phase, done, total))


def test_distances_order_a_planted_trajectory():
    model = vg.simulate.phantom(16, 8.0, 90.0, seed=1)
    order = [2, 0, 3, 1]
    maps = [vg.simulate.density(hinge(model, 10.0 * k), 16, 8.0) for k in order]
    listener = Counts()
    made = structmap(maps, dimensions=1, degree=2, resolutions_A=(25.0,), listener=listener)
    assert abs(spearmanr(made.coordinates_A[:, 0], order).statistic) == pytest.approx(1)
    assert listener.told[-1] == ("pairs of maps", 12, 12)
    np.testing.assert_array_equal(made.distances_A, made.distances_A.T)
    assert made.stress < 0.2


def test_what_cannot_be_is_refused(atoms):
    xyz, modes = atoms
    far = np.concatenate([xyz, xyz + 500.0])
    with pytest.raises(InputError, match="the atoms fall apart"):
        normal_modes(far, 18.0, count=1)
    with pytest.raises(InputError, match="no two atoms are nearer"):
        normal_modes(xyz, 0.01)
    with pytest.raises(InputError, match="at one place"):
        normal_modes(np.concatenate([xyz, xyz[:1]]), 18.0)
    with pytest.raises(InputError, match="3 atoms have no 10 modes"):
        normal_modes(xyz[:3], 18.0)
    empty, small = vg.Map(np.zeros((BOX,) * 3), PIXEL_A), vg.Map(np.ones((16,) * 3), PIXEL_A)
    with pytest.raises(InputError, match="0 voxels above"):
        pseudo_atoms(empty, 5)
    with pytest.raises(InputError, match="a map is empty"):
        fit_deformation(empty, empty)
    with pytest.raises(InputError, match="resample one"):
        fit_deformation(empty, small)
    with pytest.raises(InputError, match="does not fit a box"):
        fit_deformation(small, small, diameter_A=500.0)
    with pytest.raises(InputError, match=r"structmap: 2 maps; three or more"):
        structmap([small, small])
    with pytest.raises(InputError, match="not finite"):
        local_strain(np.full((4, 4, 4, 3), np.nan), 1.0)
    bare = vg.Particles.from_images(np.zeros((2, BOX, BOX)), PIXEL_A)
    with pytest.raises(InputError, match="align_modes needs poses"):
        align_modes(bare, modes)
    with pytest.raises(InputError, match="5 modes asked for, there are 3"):
        align_modes(bare.with_poses(vg.Poses(np.zeros((2, 3)))), modes, n_modes=5)


def test_a_model_of_vg_simulate_gives_modes():
    """Atoms of a model serve as they are."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 60.0)
    assert isinstance(model, Model)
    assert len(normal_modes(model.xyz_A, 10.0, count=1).eigenvalues) == 1
