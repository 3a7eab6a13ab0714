"""ops.warp against its reference, waves in closed form, parts of a movie, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference

from devices import host, on
from tolerance import WARP_BAND, WARP_RELATIVE


def frames_of(n: int, shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 70)),
    n=st.integers(1, 3),
    shift=st.tuples(st.floats(-130, 130), st.floats(-130, 130)),
    seed=st.integers(0, 99),
)
def test_shifts_of_whole_frames_equal_the_reference(device, shape, n, shift, seed):
    frames = frames_of(n, shape, seed)
    rng = np.random.default_rng(seed)
    shifts = np.float32(np.array(shift) + rng.uniform(-1, 1, (n, 1, 1, 2)))
    weights = rng.uniform(-1, 2, (n, 2)).astype(np.float32)
    got = host(ops.warp(frames, shifts, weights, device=device))
    want = reference.warp.warp(frames.astype(float), shifts.astype(float), weights.astype(float))
    assert np.abs(got - want).max() <= WARP_RELATIVE * max(1.0, np.abs(want).max())


def smooth_field(n: int, nodes: tuple[int, int], seed: int) -> np.ndarray:
    """Slopes of a few thousandths of a pixel per pixel about shifts of a few pixels."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(-4, 4, (n, 1, 1, 2)) + rng.uniform(-0.2, 0.2, (n, *nodes, 2))).astype(np.float32)


@pytest.mark.slow_emulated
def test_a_field_equals_the_reference_within_the_band(device):
    """A field moves a band-limited picture as the reference does: another base pixel gives another 1 % of error."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:150, :700].astype(float)
    waves = [(a, rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4), rng.uniform(0, 6)) for a in rng.uniform(0.5, 1, 12)]
    picture = sum(a * np.cos(2 * np.pi * (u * x + v * y) + p) for a, u, v, p in waves)
    field = smooth_field(1, (3, 9), 4)
    got = host(ops.warp(picture[None].astype(np.float32), field, device=device))[0]
    want = reference.warp.warp(picture[None], field.astype(float), np.ones((1, 1)))[0]
    inside = np.s_[15:-15, 15:-15]
    scale = np.sqrt(np.mean(picture**2))
    assert np.sqrt(np.mean((got - want)[inside] ** 2)) < WARP_BAND * scale
    nodes = reference.warp._bilinear
    dx, dy = (nodes(field[0, :, :, axis].astype(float), y, x, picture.shape) for axis in (0, 1))
    exact = sum(a * np.cos(2 * np.pi * (u * (x + dx) + v * (y + dy)) + p) for a, u, v, p in waves)
    assert np.sqrt(np.mean((got - exact)[inside] ** 2)) < WARP_BAND * scale


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_keeps_its_amplitude_up_to_eight_tenths_of_nyquist(device, axis):
    """Less than 1 % is lost, wherever between the pixels a frame lies."""
    x = np.arange(400.0)
    for frequency in (0.05, 0.2, 0.3, 0.4):
        for shift in (0.5, -0.25, 3.1):
            line = np.cos(2 * np.pi * frequency * x)
            frame = np.broadcast_to(line, (40, 400)) if axis == 0 else np.broadcast_to(line[:, None], (400, 40))
            field = np.zeros((1, 1, 1, 2))
            field[..., axis] = shift
            moved = host(ops.warp(np.ascontiguousarray(frame, np.float32)[None], field, device=device))[0]
            inner = moved[20, 20:-20] if axis == 0 else moved[20:-20, 20]
            want = np.exp(2j * np.pi * frequency * (x[20:-20] + shift))
            amplitude = 2 * np.mean(inner * want.conj()).real
            assert amplitude == pytest.approx(1, abs=0.01)


def test_a_constant_stays(device):
    field = smooth_field(1, (4, 4), 1)
    moved = host(ops.warp(np.full((1, 70, 90), 100, np.float32), field, device=device))
    assert np.abs(moved - 100).max() < 1e-3


def test_parts_and_threads_change_no_bit(device):
    frames, field = frames_of(5, (130, 600), 1), smooth_field(5, (5, 9), 2)
    weights = np.random.default_rng(0).uniform(0, 1, (5, 3))
    whole = host(ops.warp(frames, field, weights, threads=1, device=device))
    parts = on(device, np.zeros_like(whole))
    for at in (slice(0, 2), slice(2, 5)):
        ops.warp(on(device, frames[at]), field[at], weights[at], parts, threads=3, device=device)
    assert np.array_equal(whole, host(parts))


def test_shifts_of_the_device_that_are_not_finite_give_nan(device):
    if device == "cpu":
        pytest.skip("the host refuses them")
    shifts = on(device, [[[[0, np.inf]]], [[[1, 0]]]], np.float32)
    moved = host(ops.warp(frames_of(2, (9, 8), 0), shifts, np.eye(2), device=device))
    assert np.isnan(moved[0]).all()
    assert np.isfinite(moved[1] - moved[0]).sum() == 0
    steep = on(device, np.linspace(0, 3, 8).reshape(1, 1, 4, 2), np.float32)
    assert np.isfinite(host(ops.warp(frames_of(1, (9, 8), 0), steep, device=device))).all()


def test_bad_input(device):
    frames = frames_of(2, (20, 30), 0)
    with pytest.raises(ValueError, match="shifts: expected"):
        ops.warp(frames, np.zeros((1, 1, 1, 2)), device=device)
    with pytest.raises(ValueError, match="frame 1 has a shift that is not finite"):
        ops.warp(frames, [[[[0, 0]]], [[[np.nan, 0]]]], device=device)
    with pytest.raises(ValueError, match="frame 0 changes by 3"):
        ops.warp(frames, [[[[0, 0], [3, 0]]], [[[0, 0], [0, 0]]]], device=device)
    with pytest.raises(ValueError, match="float32"):
        ops.warp(frames.astype(float), np.zeros((2, 1, 1, 2)), device=device)
    with pytest.raises(ValueError, match="sums"):
        ops.warp(frames, np.zeros((2, 1, 1, 2)), sums=np.zeros((1, 20, 31), np.float32), device=device)
