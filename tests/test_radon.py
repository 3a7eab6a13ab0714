"""radon and its transpose: against the oracle's matrices, a disc in closed form, the 3D projector, each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import ops, reference

from devices import host, on
from tolerance import RADON

ANGLES = np.array([-90.0, -61.3, -45.0, -44.9, -10.0, 0.0, 33.0, 45.0, 45.1, 60.0, 90.0, 135.0, 180.0])


@pytest.mark.parametrize(("shape", "width"), [((16, 3, 20), 20), ((17, 1, 9), 24), ((5, 4, 31), 12), ((2, 1, 2), 1)])
def test_against_the_oracle(device, shape, width):
    rng = np.random.default_rng(1)
    volume, images = rng.normal(size=shape), rng.normal(size=(len(ANGLES), shape[1], width))
    expected = reference.radon.radon(volume, ANGLES, width)
    made = host(ops.radon(volume, ANGLES, width, device=device))
    np.testing.assert_allclose(made, expected, atol=RADON * np.abs(expected).max())
    back = reference.radon.radon_adjoint(images, ANGLES, (shape[0], shape[2]))
    found = host(ops.radon_adjoint(images, ANGLES, (shape[0], shape[2]), device=device))
    np.testing.assert_allclose(found, back, atol=RADON * np.abs(back).max())


@given(
    nz=st.integers(2, 40),
    ny=st.integers(1, 4),
    nx=st.integers(2, 40),
    width=st.integers(1, 50),
    angle=st.floats(-180, 180),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_the_transpose_is_one(device, nz, ny, nx, width, angle, seed):
    rng = np.random.default_rng(seed)
    v, p = rng.normal(size=(nz, ny, nx)), rng.normal(size=(2, ny, width))
    angles = [angle, 17.0]
    forward = np.sum(host(ops.radon(v, angles, width, device=device)).astype(float) * p)
    backward = np.sum(v * host(ops.radon_adjoint(p, angles, (nz, nx), device=device)).astype(float))
    size = np.linalg.norm(v) * np.linalg.norm(p) * max(nz, nx) ** 0.5
    assert abs(forward - backward) < RADON * size


def test_a_disc_in_closed_form():
    n, radius = 256, 80.0
    y, x = np.mgrid[:n, :n] - n // 2
    fine = (np.arange(8) - 3.5) / 8  # area sampled
    disc = np.mean([(x + a) ** 2 + (y + b) ** 2 < radius**2 for a in fine for b in fine], axis=0)
    made = ops.radon(disc[:, None], np.arange(0, 180, 7.0))[:, 0]
    t = np.arange(n) - n // 2
    chord = 2 * np.sqrt(np.maximum(radius**2 - t**2, 0))
    assert np.sqrt(np.mean((made - chord) ** 2)) < 0.01 * chord.max()


def test_a_tilt_is_an_euler_tilt():
    """Against the exact projector, of a density without fine detail."""
    n = 32
    model = vg.simulate.phantom(n, 6.0, 120.0, seed=2)
    map_ = vg.simulate.density(model, n, 6.0, b_factor_A2=3000)
    tilts = np.array([0.0, 35.0, -60.0, 90.0])
    poses = vg.Poses(np.column_stack([np.zeros(4), tilts, np.zeros(4)]))
    exact, made = vg.project(map_, poses), ops.radon(map_.data, tilts)
    assert np.linalg.norm(made - exact) < 0.02 * np.linalg.norm(exact)


def test_threads_change_nothing():
    rng = np.random.default_rng(3)
    v, p = rng.normal(size=(20, 5, 24)), rng.normal(size=(len(ANGLES), 5, 24))
    for threads in (2, 3):
        assert np.array_equal(ops.radon(v, ANGLES, threads=1), ops.radon(v, ANGLES, threads=threads))
        one = ops.radon_adjoint(p, ANGLES, (20, 24), threads=1)
        assert np.array_equal(one, ops.radon_adjoint(p, ANGLES, (20, 24), threads=threads))


def test_bad_input():
    with pytest.raises(ValueError, match="volume: expected a C-contiguous float32 array"):
        ops.radon(np.zeros((4, 4)), [0.0])
    with pytest.raises(ValueError, match="angle 1 is not finite"):
        ops.radon(np.zeros((4, 1, 4)), [0.0, np.nan])
    with pytest.raises(ValueError, match="images: expected"):
        ops.radon_adjoint(np.zeros((3, 2, 4)), [0.0], (4, 4))
    with pytest.raises(ValueError, match="at least 2 voxels"):
        ops.radon(np.zeros((1, 1, 4)), [0.0])


def test_arrays_may_lie_on_the_device(device):
    rng = np.random.default_rng(5)
    v, p = rng.normal(size=(9, 2, 12)).astype(np.float32), rng.normal(size=(3, 2, 12)).astype(np.float32)
    angles = [-50.0, 0.0, 70.0]
    for made, expected in (
        (ops.radon(on(device, v), angles, device=device), ops.radon(v, angles)),
        (ops.radon_adjoint(on(device, p), angles, (9, 12), device=device), ops.radon_adjoint(p, angles, (9, 12))),
    ):
        np.testing.assert_allclose(host(made), expected, atol=RADON * np.abs(expected).max())
    if device != "cpu":
        with pytest.raises(ValueError, match="angle 1 is not finite"):
            ops.radon(v, [0.0, np.inf], device=device)
        with pytest.raises(ValueError, match="of three axes, got shape"):
            ops.radon_adjoint(p[0], [0.0], (4, 4), device=device)
        with pytest.raises(ValueError, match="at least 2 voxels"):
            ops.radon(v[:1], [0.0], device=device)
