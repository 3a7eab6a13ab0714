"""ops.shift_score against its reference, finite differences, the truth of moved waves, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference

from devices import host, on
from tolerance import SHIFT_SCORE_RELATIVE


def problem(n: int, frames: int, rows: int, columns: int, seed: int):
    rng = np.random.default_rng(seed)
    data = (rng.standard_normal((n, frames, rows, columns, 2)) @ [1, 1j]).astype(np.complex64)
    data += 2 * data.mean(1, keepdims=True)
    weights = rng.uniform(0, 1, (rows, columns)).astype(np.float32)
    weights[rng.random(rows) < 0.3, columns // 2 :] = 0
    fy, fx = np.sort(rng.uniform(-0.5, 0.5, rows)), rng.uniform(0, 0.5, columns)
    return data, rng.normal(0, 1, (n, frames, 2)), weights, fy, fx


@settings(deadline=None, max_examples=20)
@given(
    n=st.integers(1, 3),
    frames=st.integers(1, 6),
    rows=st.integers(1, 9),
    columns=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_equals_the_reference(device, n, frames, rows, columns, seed):
    data, shifts, weights, fy, fx = problem(n, frames, rows, columns, seed)
    arguments = (data, shifts, weights, fy, fx)
    got = host(ops.shift_score(*arguments, device=device))
    want = reference.shift_score.shift_score(data.astype(np.complex128), shifts, weights.astype(float), fy, fx)
    scale = (weights * (np.abs(data).sum(1) ** 2)).sum((1, 2)).max() + 1e-3
    for one, other, power in zip(got, want, (1, 2 * np.pi, 4 * np.pi**2), strict=True):
        assert np.abs(one - other).max() <= SHIFT_SCORE_RELATIVE * power * scale
    alone = host(ops.shift_score(*arguments, derivatives=False, device=device))
    assert np.array_equal(alone.value, got.value)
    assert alone.gradient is None
    again = host(ops.shift_score(on(device, data), *arguments[1:], threads=3, device=device))
    assert np.array_equal(again.gradient, got.gradient)


def test_shifts_of_the_device_that_are_not_finite_give_nan(device):
    if device == "cpu":
        pytest.skip("the host refuses them")
    data, shifts, weights, fy, fx = problem(3, 3, 4, 40, 1)
    shifts[1, 2, 0] = np.nan
    scores = host(ops.shift_score(data, on(device, shifts), weights + 1, fy, fx, device=device))
    assert np.isnan(scores.value).tolist() == [False, True, False]


def test_gradient_is_the_slope():
    data, shifts, weights, fy, fx = problem(1, 4, 12, 20, 7)
    gradient = ops.shift_score(data, shifts, weights, fy, fx).gradient
    step = 1e-2
    for frame in range(4):
        for axis in (0, 1):
            ends = []
            for sign in (1, -1):
                moved = shifts.copy()
                moved[0, frame, axis] += sign * step
                ends.append(ops.shift_score(data, moved, weights, fy, fx).value[0])
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(gradient[0, frame, axis], rel=1e-2, abs=2)


def test_highest_at_the_truth(device):
    rng = np.random.default_rng(5)
    fy, fx = np.fft.fftfreq(16), np.fft.rfftfreq(16)
    truth = rng.normal(0, 2, (2, 5, 2))
    phase = truth[..., 0, None, None] * fx + truth[..., 1, None, None] * fy[:, None]
    data = np.exp(-2j * np.pi * phase).astype(np.complex64)
    weights = np.ones((16, 9))
    best = host(ops.shift_score(data, truth, weights, fy, fx, device=device))
    assert best.value == pytest.approx(16 * 9 * 5 * 4, rel=1e-5)
    assert np.abs(best.gradient).max() < 1e-2
    beside = host(ops.shift_score(data, truth + rng.normal(0, 0.3, truth.shape), weights, fy, fx, device=device))
    assert np.all(beside.value < best.value)


def test_bad_input(device):
    data, shifts, weights, fy, fx = problem(2, 3, 4, 5, 1)
    with pytest.raises(ValueError, match="shifts: expected finite"):
        ops.shift_score(data, np.full_like(shifts, np.nan), weights, fy, fx, device=device)
    with pytest.raises(ValueError, match="weights: expected finite values of 0 or more"):
        ops.shift_score(data, shifts, -weights, fy, fx, device=device)
    with pytest.raises(ValueError, match="frequencies_x"):
        ops.shift_score(data, shifts, weights, fy, fx[1:], device=device)
    with pytest.raises(ValueError, match="complex64"):
        ops.shift_score(data.real.copy(), shifts, weights, fy, fx, device=device)
