"""ops.polar_insert on every device: the transpose of polar_slices, repeatable sums, the CPU's sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from verglas import gridding, ops

from devices import host, on
from tolerance import ADJOINT_RELATIVE, INSERT_DEVICE_RELATIVE


def case(seed: int, n: int = 5, box: int = 18, radius: int = 7):
    rng = np.random.default_rng(seed)
    grid = ops.PolarGrid(box, radius, diameter_px=0.8 * box, spacing=0.5)
    shape = (n, grid.n_rings, grid.n_theta // 2)
    samples = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    weights = rng.uniform(0, 1, shape).astype(np.float32)
    return grid, samples, weights, Rotation.random(n, random_state=seed).as_matrix()


WINDOWS = [{}, {"width": 6, "oversampling": 1.25}, {"width": 2, "oversampling": 2.0, "window": "linear"}]


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 99),
    box=st.integers(8, 18),
    deterministic=st.booleans(),
    kwargs=st.sampled_from(WINDOWS),
)
def test_is_the_transpose_of_polar_slices(device, seed, box, deterministic, kwargs):
    rng = np.random.default_rng(seed)
    radius = int(rng.integers(1, (box - 1) // 2 + 1))
    grid, y, _, matrices = case(seed, 3, box, radius)
    volume_grid = ops.Grid(box, **kwargs)
    volume = rng.standard_normal((box,) * 3).astype(np.float32)
    slices = host(ops.polar_slices(gridding.to_grid(volume, volume_grid), volume_grid, matrices, grid, device=device))
    sums = ops.GridSums.zeros(volume_grid, weights=False, device=device)
    ops.polar_insert(sums, y, None, matrices, grid, device=device, deterministic=deterministic)
    ops.fold(sums)
    back = gridding.from_grid(host(sums.values), volume_grid).astype(np.float64)
    want = 2 * np.vdot(slices.astype(complex), y).real
    assert abs(np.sum(volume * back) - want) <= ADJOINT_RELATIVE * np.linalg.norm(slices) * np.linalg.norm(y)


@pytest.mark.parametrize("deterministic", [False, True])
def test_sums_of_a_device_are_those_of_the_cpu(device, deterministic):
    grid, y, w, matrices = case(1)
    want, got = ops.GridSums.zeros(ops.Grid(18)), ops.GridSums.zeros(ops.Grid(18), device=device)
    ops.polar_insert(want, y, w, matrices, grid)
    ops.polar_insert(got, *(on(device, a) for a in (y, w, matrices)), grid, device=device, deterministic=deterministic)
    for a, b in ((host(got.values), want.values), (host(got.weights), want.weights)):
        assert np.linalg.norm(a - b) <= INSERT_DEVICE_RELATIVE * np.linalg.norm(b)


def test_sums_are_bitwise_equal_for_any_batches(device):
    grid, y, w, matrices = case(2, n=9)
    whole, parts = (ops.GridSums.zeros(ops.Grid(18), device=device) for _ in range(2))
    ops.polar_insert(whole, y, w, matrices, grid, device=device, deterministic=True)
    for rows in (slice(0, 2), slice(2, 9)):
        ops.polar_insert(parts, y[rows], w[rows], matrices[rows], grid, device=device, deterministic=True)
    assert np.array_equal(host(whole.values), host(parts.values))
    assert np.array_equal(host(whole.weights), host(parts.weights))


@pytest.mark.parametrize("deterministic", [False, True])
def test_bad_input_is_named(device, deterministic):
    grid, y, w, matrices = case(3)
    how = {"device": device, "deterministic": deterministic}
    sums = ops.GridSums.zeros(ops.Grid(18), device=device)
    with pytest.raises(ValueError, match="samples: expected"):
        ops.polar_insert(sums, y[:, 1:].copy(), w, matrices, grid, **how)
    with pytest.raises(ValueError, match="matrix 2 is not a rotation"):
        ops.polar_insert(sums, y, w, matrices * np.array([1, 1, 2, 1, 1])[:, None, None], grid, **how)
    with pytest.raises(ValueError, match="max_radius"):
        ops.polar_insert(ops.GridSums.zeros(ops.Grid(18, max_radius=4), device=device), y, w, matrices, grid, **how)
    if device != "cpu":
        matrices[2] *= 2
        ops.polar_insert(sums, y, w, on(device, matrices), grid, **how)
        assert np.isnan(host(sums.values)).sum() == np.isnan(host(sums.weights)).sum() == 1
