"""Classical estimators: polynomial through patches, linear tracks, optical flow, a dome under a tilt; as methods."""

from __future__ import annotations

import numpy as np
import pytest
from motion_movies import SHAPE, error_px, movie_of, picture, planted_dome, planted_polynomial, settling

import verglas as vg
from verglas.motion.classical import from_first_frame
from verglas.motion.optical_flow import dense_flow
from verglas.motion.patch_shifts import fit_dome, lattice_through, linear_tracks, polynomial_through
from verglas.types.motion import Motion, spline_basis


def grid(n: int = 5) -> np.ndarray:
    x, y = np.linspace(20, SHAPE[1] - 20, n), np.linspace(20, SHAPE[0] - 20, n)
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


@pytest.mark.parametrize("seed", range(3))
def test_polynomial_through_patches(seed):
    """The planted coefficients come back, a tenth of the shifts wrong by 20 px notwithstanding."""
    truth = planted_polynomial(12, seed, 2.0)
    xy, rng = grid(), np.random.default_rng(seed)
    shifts = truth.local(xy[:, 0], xy[:, 1]) + rng.normal(0, 0.1, (25, 12, 2))
    wrong = rng.random((25, 12)) < 0.1
    shifts[wrong] += 20
    found = polynomial_through(xy, shifts, SHAPE)
    corners = np.array([0, SHAPE[1] - 1, 0, SHAPE[1] - 1]), np.array([0, 0, SHAPE[0] - 1, SHAPE[0] - 1])
    fitted = Motion(SHAPE, np.zeros((12, 2)), "polynomial", polynomial=found.coefficients)
    assert np.hypot(*np.moveaxis(fitted.at(*corners) - truth.local(*corners), -1, 0)).mean() < 0.3
    assert not (found.kept & wrong).any()
    plain = polynomial_through(xy, shifts, SHAPE, robust=False)
    off = Motion(SHAPE, np.zeros((12, 2)), "polynomial", polynomial=plain.coefficients)
    assert np.hypot(*np.moveaxis(off.at(*corners) - truth.local(*corners), -1, 0)).mean() > 1


def test_a_polynomial_does_not_follow_the_first_frame():
    """Shifts are measured against the mean of all frames: an error of the first frame moves the others less."""
    truth = planted_polynomial(12, 1, 2.0)
    xy = grid()
    planted = truth.local(xy[:, 0], xy[:, 1])
    exact = polynomial_through(xy, planted - planted.mean(1, keepdims=True), SHAPE, about_mean=True).coefficients
    assert np.allclose(exact, truth.polynomial, atol=1e-6)

    def error(coefficients):
        fitted = Motion(SHAPE, np.zeros((12, 2)), "polynomial", polynomial=coefficients)
        off = fitted.local(xy[:, 0], xy[:, 1]) - planted
        return np.hypot(*np.moveaxis(off - off.mean(1, keepdims=True), -1, 0)).mean()

    of_first, of_mean = [], []
    for seed in range(10):
        shifts = planted.copy()
        shifts[:, 0] += np.random.default_rng(seed).normal(0, 1.0, (25, 2))
        first = polynomial_through(xy, shifts - shifts[:, :1], SHAPE, robust=False).coefficients
        mean = polynomial_through(xy, shifts - shifts.mean(1, keepdims=True), SHAPE, robust=False, about_mean=True)
        of_first.append(error(first))
        of_mean.append(error(mean.coefficients))
    assert 0.05 < np.mean(of_mean) < 0.85 * np.mean(of_first)


def test_fields_begin_at_the_first_frame_without_its_noise():
    time = np.arange(20.0)
    smooth = np.stack([time / 19, (time / 19) ** 2], 1)
    noise = np.random.default_rng(1).normal(0, 0.3, smooth.shape)
    made = from_first_frame(smooth + noise, time)
    assert np.abs(made[0]).max() < 1e-12
    off = made - smooth
    assert (off - off.mean(0)).std() < 0.5 * noise.std()
    assert np.allclose(from_first_frame(smooth, time), smooth)
    assert np.allclose(from_first_frame(smooth[3:], time[3:]), smooth[3:] - smooth[3])


def test_linear_tracks_are_weighted_least_squares():
    rng = np.random.default_rng(1)
    xy, shifts = rng.uniform(0, 500, (20, 2)), rng.normal(0, 1, (20, 9, 2))
    got = linear_tracks(xy, shifts, 120.0)
    for p in (0, 7):
        weight = np.exp(-((xy - xy[p]) ** 2).sum(1) / (2 * 120.0**2))
        root = np.sqrt(np.repeat(weight, 9))[:, None]
        design = np.tile(np.stack([np.ones(9), np.arange(9)], 1), (20, 1))
        want = np.linalg.lstsq(root * design, root * shifts.reshape(-1, 2), rcond=None)[0]
        assert np.allclose(got[p], design[:9] @ want, atol=1e-10)


@pytest.mark.slow
def test_optical_flow_finds_a_dome():
    """... that no polynomial fits, to less than 0.5 px on average, in an image of signal-to-noise ratio 1."""
    truth = planted_dome(12, 1.5)
    field = truth.on_lattice(33, 33)[-1:] - truth.global_px[-1]
    image = picture(SHAPE, 3)
    rng = np.random.default_rng(3)
    moved = vg.ops.warp(image[None], -field.astype(np.float32))[0] + rng.standard_normal(SHAPE).astype(np.float32)
    fixed = image + rng.standard_normal(SHAPE).astype(np.float32)
    flow = dense_flow(fixed, moved, 24.0)
    y, x = np.mgrid[8 : SHAPE[0] : 16, 8 : SHAPE[1] : 16]
    want = truth.local(x, y)[..., -1, :]
    error = np.hypot(*np.moveaxis(flow[8::16, 8::16] - want, -1, 0))
    assert np.hypot(*np.moveaxis(want, -1, 0)).mean() > 0.25
    assert error.mean() < 0.5
    assert error.mean() < 0.5 * np.hypot(*np.moveaxis(want, -1, 0)).mean()


@pytest.mark.parametrize("tilt_deg", [0.0, 30.0])
def test_dome_is_found(tilt_deg):
    xy, rng = grid(6), np.random.default_rng(2)
    time = 1 - np.exp(-np.arange(10) / 3)
    radius, centre, axis = np.hypot(*SHAPE) / 2, np.array([280.0, 230.0]), np.deg2rad(110)
    away = (xy - centre) / radius
    lift = np.tan(np.deg2rad(tilt_deg)) * np.array([np.cos(axis), np.sin(axis)]) * (1 - (away**2).sum(1))[:, None]
    planted = 2.0 * time[:, None] * away[:, None] + 5.0 * time[:, None] * lift[:, None]
    found = fit_dome(xy, planted + rng.normal(0, 0.05, planted.shape), SHAPE, tilt_deg, 20.0)
    assert np.abs(found.at(xy) - planted).mean() < 0.05
    assert np.allclose(found.stretch_px, 2.0 * time, atol=0.1)
    if tilt_deg:
        assert np.allclose(found.height_px, 5.0 * time, atol=0.4)
        assert np.allclose(found.centre_px, centre, atol=20)


def test_lattice_through_its_own_values():
    rng = np.random.default_rng(4)
    nodes = rng.normal(0, 1, (3, 7, 7, 2))
    xy = grid(24)
    down, across = spline_basis(xy[:, 1], SHAPE[0], 7), spline_basis(xy[:, 0], SHAPE[1], 7)
    values = np.einsum("pj,pi,fjia->pfa", down, across, nodes)
    again = lattice_through(xy, values, SHAPE, ridge=1e-6)
    back = np.einsum("pj,pi,fjia->pfa", down, across, again)
    assert np.abs(back - values).max() < 1e-2


@pytest.mark.parametrize(
    ("method", "truth", "most_px"),
    [
        ("pairs", Motion(SHAPE, settling(10, (6, -4))), 0.1),
        ("robust-pairs", Motion(SHAPE, settling(10, (6, -4))), 0.1),
        ("patches", planted_polynomial(10, 3, 1.5), 0.3),
        ("tracks", Motion(SHAPE, settling(10, (6, -4))), 0.15),
        pytest.param("flow", planted_dome(10, 1.2), 0.35, marks=pytest.mark.slow),
        ("dome", Motion(SHAPE, settling(10, (6, -4))), 0.15),
    ],
)
def test_methods_correct_movies(method, truth, most_px):
    found = vg.correct_motion(movie_of(truth, 5, signal=1.0), method=method)
    assert error_px(found.motion, truth) < most_px


def test_bad_input():
    with pytest.raises(vg.InputError, match="method"):
        vg.correct_motion(movie_of(Motion((128, 128), np.zeros((2, 2))), 1), method="magic")
    with pytest.raises(vg.InputError, match="at least 6 and 4"):
        polynomial_through(np.zeros((3, 2)), np.zeros((3, 5, 2)), SHAPE)
    with pytest.raises(vg.InputError, match="sigma"):
        linear_tracks(np.zeros((3, 2)), np.zeros((3, 5, 2)), 0.0)
    with pytest.raises(vg.InputError, match="one shape"):
        dense_flow(np.zeros((32, 32), np.float32), np.zeros((32, 33), np.float32), 5.0)
    with pytest.raises(vg.InputError, match="4 places"):
        fit_dome(np.zeros((3, 2)), np.zeros((3, 5, 2)), SHAPE)
