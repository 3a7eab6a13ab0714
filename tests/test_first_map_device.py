"""First maps and 2D classes on GPUs: the CPU's answers. Where there is no GPU the kernels run on the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import verglas as vg
from verglas.classification import classify2d
from verglas.errors import DeviceError
from verglas.initial_model import AbInitioSettings, batch_step
from verglas.initial_model.batch_step import BatchStep
from verglas.initial_model.course import Course
from verglas.initial_model.hill_climbing import ClimbStep
from verglas.initial_model.starts import random_map
from verglas.search.grid_step import GridLimits
from verglas.search.problem import Problem, survey
from verglas.search.state import HalfModel, PoseTable

import tolerance
from devices import open_device

# A symmetric particle and low resolution: few directions and rings, or the kernels would take minutes on the host.
BOX, PIXEL_A, DIAMETER_A, GROUP = 24, 5.0, 90.0, "O"


@pytest.fixture(params=["emulated", "cuda:0"])
def gpu(request, monkeypatch) -> str:
    """A GPU, or the kernels on the host; both are named cuda:0."""
    return open_device(request.param, monkeypatch)


@pytest.fixture(scope="module")
def particles() -> vg.Particles:
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, GROUP)
    return vg.simulate.particles(model, 60, BOX, PIXEL_A, snr=1.0, seed=1)


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("kind", [pytest.param(BatchStep, marks=pytest.mark.slow), ClimbStep])
def test_a_step_towards_a_first_map_is_that_of_the_host(gpu, kind, monkeypatch):
    # Which weak candidates are left out, or drawn for the sums, turns on the last bit of their probabilities.
    monkeypatch.setattr(batch_step, "thin_posterior", lambda posterior, rows: posterior)
    monkeypatch.setattr(batch_step, "LIMITS", GridLimits(n_power=3, max_candidates=1 << 16, epsilon=1e-6))
    # Without symmetry: on an axis two poses score alike.
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A)
    particles = vg.simulate.particles(model, 20, BOX, PIXEL_A, snr=1.0, seed=1)
    settings = AbInitioSettings(
        diameter_A=DIAMETER_A, initial_resolution_A=40.0, final_resolution_A=35.0, shift_range_A=5.0
    )
    problem = Problem.of(particles, {}, job="test", diameter_A=DIAMETER_A, threads=1)
    sigma2 = np.tile(survey(particles).power.mean(axis=0, dtype=np.float64), (problem.n_groups, 1))
    rows = np.arange(20)
    volume = random_map(problem, rows, settings, 3)[None]
    model = HalfModel(volume, sigma2, np.ones(problem.n_micrographs), np.ones(1))
    course = Course(problem, settings, len(rows))
    made = []
    for device in ("cpu", gpu):
        step = kind(replace(problem, devices=(device,), batch=9), model, course.step(3), course.grid_radius)
        poses = PoseTable.unknown(20)
        if kind is ClimbStep:
            step.read(rows)
            step.keep(rows, np.zeros((20, 3)))
            step.climb(rows, np.random.default_rng(0))
        made.append((step.sums(rows, poses), poses, step.found if kind is ClimbStep else step.evaluate(rows, poses)))
    (here, poses, scored), (there, device_poses, device_scored) = made
    for wanted, found in zip(here.grids[0], there.grids[0], strict=True):
        assert relative(found.values, wanted.values) < tolerance.DEVICE_SUMS
        assert relative(found.weights, wanted.weights) < tolerance.DEVICE_SUMS
    assert relative(there.squared, here.squared) < tolerance.DEVICE_SUMS
    np.testing.assert_array_equal(device_poses.angles_deg, poses.angles_deg)
    np.testing.assert_array_equal(device_poses.origin_px, poses.origin_px)
    if kind is BatchStep:
        np.testing.assert_allclose(device_scored, scored, atol=tolerance.DEVICE_EVIDENCE_NATS, rtol=0)
    else:
        np.testing.assert_array_equal(device_scored.slice, scored.slice)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["em", "hill-climbing"])
def test_a_first_map_is_made_on_a_device(particles, gpu, method):
    choices = {
        "diameter_A": DIAMETER_A,
        "starts": 1,
        "iterations": 1,
        "full_iterations": 1,
        "first_batch": 40,
        "initial_resolution_A": 30.0,
        "final_resolution_A": 28.0,
        "shift_range_A": 5.0,
        "threads": 1,
        "method": method,
    }
    here, there = (vg.abinitio(particles, GROUP, device=d, **choices) for d in ("cpu", gpu))
    # Draws of weak candidates differ: 4e-3 measured.
    assert relative(there.map.data, here.map.data) < tolerance.DEVICE_DRAWN
    assert there.verdict.kind == here.verdict.kind


def test_classes_are_those_of_the_host(particles, gpu):
    choices = {"diameter_A": DIAMETER_A, "iterations": 1, "start": "random", "max_resolution_A": 30.0, "threads": 1}
    here, there = (classify2d(particles, classes=3, device=d, **choices) for d in ("cpu", gpu))
    assert relative(there.averages, here.averages) < tolerance.DEVICE_SUMS
    assert np.array_equal(there.particles.table["rlnClassNumber"], here.particles.table["rlnClassNumber"])


def test_several_devices_are_refused_by_jobs_that_use_one(particles, monkeypatch):
    open_device("emulated", monkeypatch)
    with pytest.raises(DeviceError, match="abinitio: works on one device, got cuda:0, cuda:1"):
        vg.abinitio(particles, GROUP, diameter_A=DIAMETER_A, device="cuda:0,cuda:1")
    with pytest.raises(DeviceError, match="classify2d: works on one device"):
        classify2d(particles, classes=3, device="cuda:0,cuda:1")


def test_commands_take_a_device_and_say_why_it_cannot_be_used(run, tmp_path):
    for command in ("class2d", "abinitio", "align", "refine", "process"):
        status, out, _ = run(command, "--help")
        assert status == 0
        assert "--device" in out
