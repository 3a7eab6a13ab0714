"""Operators: exact adjoints, agreement with the projector and with least squares, tilt series with any axis."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg as sla

import verglas as vg
from verglas.reconstruction import operators, priors, solve

BOX, PIXEL_A = 20, 6.0


@pytest.fixture(scope="module")
def particles():
    model = vg.simulate.phantom(BOX, PIXEL_A, 80.0, seed=4)
    return vg.simulate.particles(model, 40, BOX, PIXEL_A, snr=5.0, seed=2)


def check_adjoint(A, seed=0, tolerance=2e-6):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=A.shape[1]).astype(np.float32), rng.normal(size=A.shape[0]).astype(np.float32)
    forward, backward = A @ x, A.rmatvec(y)
    difference = abs(np.vdot(forward.astype(float), y) - np.vdot(x, backward.astype(float)))
    assert difference < tolerance * np.linalg.norm(forward) * np.linalg.norm(y)


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
@pytest.mark.parametrize("ctf", [True, False])
def test_the_adjoint_of_particles_is_exact(particles, symmetry, ctf):
    check_adjoint(operators.particles(particles, symmetry, ctf=ctf))


def test_particles_are_projected_as_project_does(particles):
    volume = vg.Map(np.random.default_rng(1).normal(size=(BOX,) * 3).astype(np.float32), PIXEL_A)
    made = (operators.particles(particles) @ volume.data.ravel()).reshape(-1, BOX, BOX)
    expected = vg.project(volume, particles.poses, particles.optics)
    np.testing.assert_allclose(made, expected, atol=1e-5 * np.abs(expected).max())


def test_the_normal_operator_is_the_product(particles):
    A = operators.particles(particles)
    inside = vg.masks.soft_sphere(BOX, BOX / 2 - 3, 2.0)
    x = (np.random.default_rng(3).normal(size=(BOX,) * 3) * inside).astype(np.float32).ravel()
    expected = A.rmatvec(A @ x)
    assert np.linalg.norm(A.normal() @ x - expected) < 0.01 * np.linalg.norm(expected)


def test_scipys_solver_runs_on_it(particles):
    A = operators.particles(particles)
    images = particles.images(slice(None))
    np.testing.assert_allclose(A.back_project_images(), A.rmatvec(images.ravel()), rtol=1e-5, atol=1e-6)
    ours = solve(A, images.ravel(), "cg", iterations=6)
    theirs = sla.lsqr(A, images.ravel(), iter_lim=6, atol=0, btol=0)[0]
    assert np.linalg.norm(ours.x - theirs) < 1e-3 * np.linalg.norm(theirs)


@pytest.mark.parametrize(("axis_deg", "thickness"), [(0.0, None), (0.0, 7), (20.0, None), (90.0, 8)])
def test_the_adjoint_of_a_tilt_series_is_exact(axis_deg, thickness):
    A = operators.tilt_series(np.zeros((5, 9, 14)), np.linspace(-60, 60, 5), axis_deg, thickness)
    assert A.map_shape == (thickness or 14, 9, 14)
    check_adjoint(A, tolerance=2e-5)


def test_a_tilt_series_on_a_device(device):
    how = {"axis_deg": 20.0, "thickness_px": 7}
    A = operators.tilt_series(np.zeros((5, 9, 14)), np.linspace(-60, 60, 5), **how, device=device)
    check_adjoint(A, tolerance=2e-5)
    of_host = operators.tilt_series(np.zeros((5, 9, 14)), np.linspace(-60, 60, 5), **how)
    data = np.random.default_rng(2).normal(size=A.shape[0])
    found, expected = (solve(one, data, "sirt", iterations=5).x for one in (A, of_host))
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_an_axis_along_x():
    """A point beside the axis moves across it: an axis at 90 degrees, +y towards +x, lies along x."""
    A = operators.tilt_series(np.zeros((1, 31, 31)), [60.0], axis_deg=90.0)
    volume = np.zeros(A.map_shape, np.float32)
    volume[15, 15, 25] = 1  # ten pixels from the axis in the map, whose y is the axis
    image = (A @ volume.ravel()).reshape(31, 31)
    y, x = np.unravel_index(int(image.argmax()), image.shape)
    assert (abs(int(y) - 15), int(x)) == (5, 15)  # cos 60


def test_weighted_back_projection_of_a_disc():
    n = 64
    z, x = np.indices((n, n)) - n // 2
    radius = np.hypot(z, x)
    parts = (np.arange(8) - 3.5) / 8
    sharp = np.mean([np.hypot(z + a, x + b) < 20 for a in parts for b in parts], axis=0).astype(np.float32)
    soft = (1 / (1 + np.exp((radius - 20) / 0.6))).astype(np.float32)
    A = operators.tilt_series(np.zeros((180, 1, n)), np.arange(-90, 90, 1.0))
    # An edge within a pixel is beyond what pixels hold.
    for disc, most in ((soft, 0.025), (sharp, 0.06)):
        made = operators.weighted_back_projection(A, (A @ disc.ravel()).reshape(A.data_shape))[:, 0]
        seen = radius < 30  # by all views
        assert np.linalg.norm((made - disc)[seen]) < most * np.linalg.norm(disc)
        assert abs(made[radius < 16].mean() - 1) < 0.01


def test_back_projection_with_a_wedge_missing_keeps_its_low_frequencies():
    n = 64
    z, x = np.indices((n, n)) - n // 2
    soft = (1 / (1 + np.exp((np.hypot(z, x) - 20) / 0.6))).astype(np.float32)
    A = operators.tilt_series(np.zeros((41, 1, n)), np.linspace(-60, 60, 41))
    made = operators.weighted_back_projection(A, (A @ soft.ravel()).reshape(A.data_shape))[:, 0]
    assert np.linalg.norm((made - soft)[np.hypot(z, x) < 30]) < 0.33 * np.linalg.norm(soft)


def test_total_variation_beats_back_projection_with_few_views():
    n = 48
    z, x = np.indices((n, n)) - n // 2
    phantom = (
        1.0 * (np.hypot(z / 1.3, x) < 15) + 1.0 * (np.hypot(z - 5, x - 3) < 5) - 0.5 * (np.hypot(z + 7, x + 4) < 4)
    )
    A = operators.tilt_series(np.zeros((30, 1, n)), np.linspace(-90, 84, 30))
    data = A @ phantom.astype(np.float32).ravel()
    data = data + 0.2 * np.random.default_rng(4).normal(size=data.shape)

    def error(made):
        return np.linalg.norm(made.reshape(n, n) - phantom) / np.linalg.norm(phantom)

    wbp = error(operators.weighted_back_projection(A, data.reshape(A.data_shape)))
    tv = priors.Shaped(priors.TotalVariation(2.0, iterations=30), (n, n))
    found = solve(A, data, "fista", prior=tv, iterations=120)
    assert error(found.x) <= 0.5 * wbp


def test_leaving_one_tilt_out():
    n = 24
    tilts = np.linspace(-60, 60, 13)
    z, x = np.indices((n, n)) - n // 2
    disc = (np.hypot(z, x) < 6)[:, None].astype(np.float32)
    A = operators.tilt_series(np.zeros((13, 1, n)), tilts)
    images = (A @ disc.ravel()).reshape(A.data_shape)

    def sirt(some, angles):
        B = operators.tilt_series(some, angles)
        return solve(B, some, "sirt", iterations=40).x.reshape(B.map_shape)

    seen, predicted = operators.leave_one_out(images, tilts, sirt, 6)
    assert np.corrcoef(seen.ravel(), predicted.ravel())[0, 1] > 0.95


def test_bad_input(particles):
    with pytest.raises(vg.InputError, match="3 images but 2 tilts"):
        operators.tilt_series(np.zeros((3, 4, 4)), [0, 1])
    with pytest.raises(vg.InputError, match="thickness of 2 pixels or more"):
        operators.tilt_series(np.zeros((1, 4, 4)), [0], thickness_px=1)
    with pytest.raises(vg.InputError, match="have no poses"):
        operators.particles(vg.Particles.from_images(np.zeros((2, 8, 8), np.float32), 1.0))


def test_the_filter_of_any_directions_is_its_formula(particles):
    A = operators.particles(particles[:7], "C2", ctf=False)
    overlap, k = operators.view_overlap(A, 3, 25.0), np.fft.fftfreq(BOX)
    for row, column in ((0, 0), (2, 5), (13, 9), (19, 1)):
        at = k[column] * A.matrices[3][0] + k[row] * A.matrices[3][1]
        total = sum(np.sinc(25.0 * (at @ (matrix @ turn)[2])) for matrix in A.matrices for turn in A.group)
        assert overlap[row, column] == pytest.approx(total, abs=1e-12)


def test_weighted_back_projection_of_a_ball():
    box, n = 32, 180
    radius = np.sqrt(((np.indices((box,) * 3) - box // 2) ** 2).sum(axis=0))
    ball = (1 / (1 + np.exp((radius - 9) / 0.6))).astype(np.float32)
    i = np.arange(n) + 0.5
    angles = np.column_stack([180 * (1 + 5**0.5) * i % 360, np.degrees(np.arccos(1 - i / n)), 0 * i])
    images = np.zeros((n, box, box), np.float32)
    A = operators.particles(vg.Particles.from_images(images, 3.0, poses=vg.Poses(angles)), ctf=False)
    made = operators.weighted_back_projection_of_views(A, A @ ball.ravel())
    assert np.linalg.norm(made - ball) < 0.05 * np.linalg.norm(ball)
    inside = radius < 15
    assert np.linalg.norm((made - ball)[inside]) < 0.02 * np.linalg.norm(ball)


def test_views_to_filter_are_without_ctf(particles):
    with pytest.raises(vg.InputError, match=r"expected images \(40, 20, 20\), got shape \(41, 20, 20\)"):
        operators.weighted_back_projection_of_views(operators.particles(particles, ctf=False), np.zeros((41, BOX, BOX)))
    with pytest.raises(vg.InputError, match="takes images without CTF"):
        operators.weighted_back_projection_of_views(operators.particles(particles), np.zeros((40, BOX, BOX)))
    with pytest.raises(vg.InputError, match="diameter of 1 to 40 pixels, got 50"):
        operators.view_overlap(operators.particles(particles, ctf=False), 0, 50.0)


def test_weights_of_the_normal_operator_come_set_by_set(particles):
    A = operators.particles(particles)
    x = np.random.default_rng(5).normal(size=A.shape[1]).astype(np.float32)
    weights = operators.particles(particles[:15]).normal_weights()
    weights = operators.particles(particles[15:]).normal_weights(weights)
    whole = A.normal() @ x
    np.testing.assert_allclose(A.normal(weights) @ x, whole, atol=1e-5 * np.abs(whole).max())
    with pytest.raises(vg.InputError, match="used up by normal"):
        A.normal(weights)
    with pytest.raises(vg.InputError, match="used up by normal"):
        A.normal_weights(weights)
    with pytest.raises(vg.InputError, match="another box or limit"):
        A.normal(operators.particles(particles, max_resolution_A=40.0).normal_weights())
