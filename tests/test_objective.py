"""The objective of reconstruction: its value, on both devices; traps of greedy refinement; its minimum over maps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import verglas as vg
from verglas.reconstruction import objective

from devices import open_device

BOX, PIXEL_A = 24, 5.0


@pytest.fixture(scope="module")
def case():
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0, seed=6, shape="arch")
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    return truth, vg.simulate.particles(model, 8, BOX, PIXEL_A, snr=2.0, seed=6, listener=None)


def test_value_is_the_distance_of_the_images(case):
    truth, particles = case
    left = particles.images() - vg.project(truth, particles.poses, particles.optics, threads=1)
    spectra = np.fft.fft2(left.astype(np.float64)) / BOX
    k = np.rint(np.hypot(*np.meshgrid(*[np.fft.fftfreq(BOX) * BOX] * 2)))
    inside = (k > 0) & (k <= (BOX - 1) // 2)
    expected = (np.abs(spectra) ** 2 * inside).sum(axis=(1, 2))
    np.testing.assert_allclose(objective(truth, particles, threads=1), expected, rtol=1e-4)


def test_a_map_of_another_sampling_is_refused(case):
    truth, particles = case
    with pytest.raises(vg.InputError, match=r"a map of 4 A and images of 5 A a pixel"):
        objective(vg.Map(truth.data, 4.0), particles)


@pytest.mark.parametrize("device", ["emulated", "cuda:0"])
def test_devices_agree(case, device, monkeypatch):
    truth, particles = case
    there = objective(truth, particles[:3], device=open_device(device, monkeypatch))
    np.testing.assert_allclose(there, objective(truth, particles[:3]), rtol=1e-5)


@pytest.mark.slow
def test_greedy_refinement_is_trapped_by_a_bad_start(case):
    """From 3 degrees the pose is found; from a view far off, refinement ends in another minimum, and the worse."""
    truth, particles = case
    one = particles[:1]

    def misfit(angles, shifts=one.poses.shifts_A):
        return float(objective(truth, one.with_poses(vg.Poses([angles], shifts)), threads=1)[0])

    def refined(start):
        return minimize(misfit, start, method="Nelder-Mead", options={"maxfev": 90, "xatol": 0.05, "fatol": 1e-4})

    true = one.poses.angles_deg[0]
    near, far = refined(true + np.array([2.0, -1.0, 2.0])), refined(true + np.array([0.0, 70.0, 40.0]))
    at_truth = misfit(true)
    assert near.fun <= at_truth * 1.01
    assert far.fun > 1.1 * near.fun
    turned = vg.euler_to_matrix([near.x, far.x]) @ vg.euler_to_matrix([true])[0].T
    angle = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert angle[0] < 6
    assert angle[1] > 20
