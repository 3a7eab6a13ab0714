"""Gaussian priors about given poses in local refinement: limits, and the posterior of a Gaussian likelihood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas import fourier, gridding, ops
from verglas.errors import SettingError
from verglas.geometry import angular_distance, euler_to_matrix, matrix_to_euler
from verglas.refinement.schedule import first_step
from verglas.refinement.settings import RefineSettings
from verglas.refinement.start import make_problem
from verglas.search.pose_step import PoseStep
from verglas.search.state import HalfModel, PoseTable

BOX, PIXEL_A, RADIUS = 24, 5.0, 8
SIGMA2 = 2e6  # one shift is then known to a third of a pixel


@pytest.fixture(scope="module")
def data():
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0, seed=4)
    particles = vg.simulate.particles(model, 24, BOX, PIXEL_A, seed=4, shift_sd_A=3.0, listener=None)
    return particles, vg.simulate.density(model, BOX, PIXEL_A)


def given_poses(particles: vg.Particles, turn_deg: float, shift_A: float) -> vg.Particles:
    """Particles whose stated poses lie off the true ones, each in a direction of its own."""
    rng = np.random.default_rng(1)
    axes = rng.normal(size=(len(particles), 3))
    axes *= np.deg2rad(turn_deg) / np.linalg.norm(axes, axis=1, keepdims=True)
    turned = Rotation.from_rotvec(axes).as_matrix() @ euler_to_matrix(particles.poses.angles_deg)
    moved = particles.poses.shifts_A + np.array([shift_A, 0.0])
    return particles.with_poses(vg.Poses(matrix_to_euler(turned), moved))


def local_pass(particles: vg.Particles, truth: vg.Map, **settings: float) -> PoseTable:
    """One local pass from the stated poses, at a known noise."""
    problem = make_problem(
        particles, {}, RefineSettings(poses="local", initial_resolution_A=BOX * PIXEL_A / RADIUS, **settings)
    )
    shells = (BOX - 1) // 2 + 1
    model = HalfModel(truth.data[None], np.full((1, shells), SIGMA2), np.ones(problem.n_micrographs), np.ones(1))
    poses = PoseTable.unknown(len(problem))
    poses.angles_deg, poses.origin_px = particles.poses.angles_deg.copy(), particles.poses.shifts_A / PIXEL_A
    step = replace(first_step(problem), insert_radius=RADIUS)
    for half in (1, 2):
        PoseStep(problem, model, np.ones((BOX,) * 3, np.float32), step).run(half, poses, lambda count: None)
    return poses


def test_a_wide_prior_is_no_prior(data):
    particles, truth = data
    off = given_poses(particles, 3.0, 2.0)
    free, wide = local_pass(off, truth), local_pass(off, truth, prior_deg=1e6)
    assert angular_distance(free.angles_deg, wide.angles_deg).max() < 1e-3
    assert np.abs(free.origin_px - wide.origin_px).max() < 1e-4
    assert np.allclose(free.angle_error_deg, wide.angle_error_deg, rtol=1e-4)
    assert angular_distance(free.angles_deg, particles.poses.angles_deg).max() < 1.0  # there was something to find


def test_a_narrow_prior_keeps_the_poses(data):
    particles, truth = data
    off = given_poses(particles, 3.0, 2.0)
    kept = local_pass(off, truth, prior_deg=0.01, prior_A=0.01)
    assert angular_distance(kept.angles_deg, off.poses.angles_deg).max() < 0.01
    assert np.abs(kept.origin_px * PIXEL_A - off.poses.shifts_A).max() < 0.01
    # What is known of a pose is then what the prior says: three angles, two shifts.
    assert np.allclose(kept.angle_error_deg, 0.01 * np.sqrt(3), rtol=1e-3)
    assert np.allclose(kept.shift_error_px, 0.01 / PIXEL_A * np.sqrt(2), rtol=1e-3)


def test_the_posterior_of_a_gaussian_likelihood(data):
    r"""Orientations pinned, images without noise: the likelihood of a shift is Gaussian with Fisher information F.

    The maximum lies at (F + P)^-1 (F x + P x0), P the prior's precision, and the evidence falls with the distance d of
    the prior's centre as N(d; 0, 1 / F + 1 / P).
    """
    particles, truth = data
    width_A, off_A = 2.0, 2.5
    spectrum = gridding.to_grid(truth.data, grid := ops.Grid(BOX))
    shell_weight = np.full((len(particles), RADIUS + 1), 1 / SIGMA2, np.float32)
    fisher = ops.refine_pose(
        fourier.forward(particles.images(slice(None)), 2),
        spectrum,
        grid,
        euler_to_matrix(particles.poses.angles_deg),
        -particles.poses.shifts_A / PIXEL_A,
        ctf=ops.ctf(particles.optics.as_params(), BOX, PIXEL_A),
        shell_weight=shell_weight,
        search=ops.PoseSettings(max_radius=RADIUS, steps=0),
    ).fisher[:, 3:, 3:]
    precision = (width_A / PIXEL_A) ** -2.0 * np.eye(2)
    away = np.array([off_A / PIXEL_A, 0.0])
    want = np.linalg.solve(fisher + precision, np.broadcast_to(precision @ away, (len(fisher), 2))[:, :, None])[..., 0]
    at, beside = (
        local_pass(given_poses(particles, 0.0, d), truth, prior_deg=1e-4, prior_A=width_A) for d in (0.0, off_A)
    )
    assert np.abs(at.origin_px - particles.poses.shifts_A / PIXEL_A).max() < 0.01
    assert 0.1 < np.abs(want).max() < 0.45  # neither the image nor the prior decides alone
    assert np.abs(beside.origin_px - particles.poses.shifts_A / PIXEL_A - want).max() < 0.03 * off_A / PIXEL_A
    both = np.linalg.inv(np.linalg.inv(fisher) + np.linalg.inv(precision))
    assert np.allclose(beside.log_evidence - at.log_evidence, -0.5 * away @ both @ away, rtol=0.06)


@pytest.mark.slow
def test_refine_takes_priors(data):
    particles, truth = data
    off = given_poses(particles, 3.0, 2.0)
    how = {"poses": "local", "diameter_A": 100.0, "initial_resolution_A": 25.0, "iterations": 1, "listener": None}
    kept = vg.refine(off, truth, prior_deg=0.05, prior_A=0.05, **how).particles
    assert angular_distance(kept.poses.angles_deg, off.poses.angles_deg).max() < 0.5
    assert kept.table["verglasCredibleRadius"].max() < 0.5
    assert (kept.table["verglasProbabilityFar"] == 0).all()


def test_priors_that_cannot_be_are_refused(data):
    particles, truth = data
    with pytest.raises(SettingError, match=r'prior_deg: a prior about given poses goes with poses = "local"'):
        RefineSettings(prior_deg=5.0)
    with pytest.raises(SettingError, match="prior_A: a prior weighs against a likelihood"):
        RefineSettings(poses="local", mode="max-cc", prior_A=2.0)
    poseless = particles.with_columns(rlnAngleRot=None, rlnAngleTilt=None, rlnAnglePsi=None)
    with pytest.raises(vg.InputError, match="a prior about given poses, but these particles have none"):
        vg.refine(poseless, truth, poses="local", prior_A=2.0, listener=None)
