"""Credible radii: quantiles, peaks modulo a group, and a stated 95 % that holds on particles that were simulated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from small_refinement import refined_phantom

from verglas.assessment import pose_errors
from verglas.geometry import symmetry_matrices
from verglas.io import read_particles, write_particles
from verglas.run.credible import COLUMN, FAR_COLUMN, _Orientations, _Peak, _sets, weighted_quantile


def test_quantiles_of_each_image_are_those_of_its_own_weights():
    rng = np.random.default_rng(0)
    image = np.sort(rng.integers(0, 7, 400))
    value, weight = rng.random(400), rng.random(400)
    weight /= np.bincount(image, weight)[image]
    found = weighted_quantile(value, weight, image, 7, np.full(7, 0.8))
    for i in range(7):
        mine = image == i
        below = weight[mine][value[mine] <= found[i]].sum()
        assert below >= 0.8 - 1e-9
        assert below - weight[mine][value[mine] == found[i]].sum() < 0.8


def one_peak(sigma_deg: float, offset_deg: float, group: str = "C1"):
    """A stated pose, a Gaussian peak beside it that is turned to another copy, and a grid that knows only the peak."""
    stated = Rotation.random(random_state=1).as_matrix()
    copy = symmetry_matrices(group)[-1]
    peak = Rotation.from_rotvec(np.deg2rad([offset_deg, 0, 0])).as_matrix() @ stated @ copy
    covariance = np.deg2rad(sigma_deg) ** 2 * np.eye(3)
    grid = _Orientations(np.zeros(1, np.int64), peak[None], np.ones(1))
    return stated[None], _Peak(peak[None], covariance[None]), grid, symmetry_matrices(group)


@pytest.mark.parametrize("group", ["C1", "D2", "O"])
def test_a_sharp_peak_gives_the_radius_of_its_gaussian(group):
    # 95 % of a three-dimensional normal distribution lie within 2.795 standard deviations.
    assert _sets(*one_peak(1.0, 0.0, group)).radius_deg[0] == pytest.approx(2.795, rel=0.05)
    rng = np.random.default_rng(0)
    want = np.quantile(np.linalg.norm(rng.normal((4.0, 0, 0), size=(100_000, 3)), axis=1), 0.95)
    assert _sets(*one_peak(1.0, 4.0, group)).radius_deg[0] == pytest.approx(want, rel=0.05)


def test_a_second_place_that_fits_is_within_the_radius():
    stated, peak, _, group = one_peak(1.0, 0.0)
    far = Rotation.from_rotvec([0, np.deg2rad(100.0), 0]).as_matrix() @ stated[0]
    for weight, want in ((0.2, 100.0), (0.02, 2.9)):
        both = _Orientations(np.zeros(2, np.int64), np.stack([stated[0], far]), np.array([1 - weight, weight]))
        found = _sets(stated, peak, both, group)
        assert found.radius_deg[0] == pytest.approx(want, rel=0.1)
        assert found.far[0] == pytest.approx(weight)


def test_what_a_list_of_orientations_lacks_may_be_anywhere():
    stated, peak, _, group = one_peak(1.0, 0.0)
    cut = _Orientations(np.zeros(1, np.int64), stated, np.array([0.9]))
    found = _sets(stated, peak, cut, group)
    assert found.radius_deg[0] == 180.0
    assert found.far[0] == pytest.approx(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("snr", [0.1, 0.3])
def test_a_refinement_states_radii_that_hold_the_truth(tmp_path, snr):
    particles, found = refined_phantom(200, snr, seed=7)
    radius = found.particles.table[COLUMN].to_numpy()
    error = pose_errors(found.particles.poses, particles.poses).angle_deg
    assert abs(found.particles.table[FAR_COLUMN].mean() - np.mean(error > 30)) < 0.15
    assert 0.89 < np.mean(error <= radius) < 0.995  # three standard errors of 200 particles about 0.95
    write_particles(tmp_path / "p.star", found.particles)
    assert read_particles(tmp_path / "p.star").table[COLUMN].to_numpy(float) == pytest.approx(radius)
    assert np.mean(radius > 30) > 0.05 if snr == 0.1 else np.all(radius < 30)
