"""The cone of Fourier space without signal: found where it is, and nowhere in maps that lack none."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas import fourier
from verglas.assessment.judge import judge_directions

BOX, PIXEL_A = 32, 3.0


def halves(half_angle_deg: float, axis, left: float = 0.0, noise: float = 0.5, noise_left: float = 1.0) -> list[vg.Map]:
    """White signal and noise, of both only these amplitudes left within a cone."""
    rng = np.random.default_rng(3)
    white, *noises = rng.standard_normal((3, BOX, BOX, BOX), dtype=np.float32)
    z, y, x = fourier.half_grid(white.shape)
    cosine = np.abs(axis[0] * x + axis[1] * y + axis[2] * z) / np.maximum(fourier.radius(white.shape), 1)
    inside = cosine > np.cos(np.deg2rad(half_angle_deg))

    def damped(one, part):
        spectrum = fourier.forward(one, 3) * np.where(inside, part, 1)
        return fourier.inverse(spectrum.astype(np.complex64), one.shape)

    signal = damped(white, left)
    return [vg.Map(signal + noise * damped(n, noise_left), PIXEL_A) for n in noises]


@pytest.mark.parametrize(
    ("half_angle_deg", "left", "noise_left"),
    [(30, 0.0, 1.0), (60, 0.0, 1.0), (60, 0.15, 0.01)],  # the last: views that were not taken, whose leak agrees
)
def test_axis_and_half_angle_are_found(half_angle_deg, left, noise_left):
    axis = np.array([0.48, -0.6, 0.64])
    found = vg.directional_fsc(*halves(half_angle_deg, axis, left, noise_left=noise_left))
    assert found.missing.found
    assert found.missing.half_angle_deg == pytest.approx(half_angle_deg, abs=5)
    assert abs(found.coarse_axis @ axis) > np.cos(np.deg2rad(3))
    assert found.missing.share < 0.1
    along = np.abs(found.directions @ axis)
    assert found.signal[along > np.cos(np.deg2rad(5))].max() < 0.15
    assert found.signal[along < np.cos(np.deg2rad(half_angle_deg + 20))].min() > 0.8
    judged = judge_directions(found)
    assert judged.state == "warn"
    assert judged.numbers["missing_half_angle_deg"] == found.missing.half_angle_deg
    if left:  # the FSC itself sees nothing: what leaks in agrees
        assert found.area_ratio > 0.5


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_maps_that_lack_nothing_have_no_missing_cone(noise):
    found = vg.directional_fsc(*halves(30, (0.0, 0.0, 1.0), left=1.0, noise=noise))
    assert not found.missing.found
    assert judge_directions(found).state == "go on"
    assert np.linalg.norm(found.coarse_axis) == pytest.approx(1)


def test_the_grey_scale_of_a_half_does_not_count():
    one, two = halves(30, (0.0, 0.0, 1.0))
    alike, scaled = (vg.directional_fsc(one, two.with_data(scale * two.data)).missing for scale in (1, 40))
    assert scaled.half_angle_deg == alike.half_angle_deg
    assert scaled.log_ratio == pytest.approx(alike.log_ratio, rel=1e-3)
    np.testing.assert_allclose(scaled.axis, alike.axis, atol=1e-3)
