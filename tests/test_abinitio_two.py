"""Ab initio of two structures at once: a class that no image goes to."""

from __future__ import annotations

import numpy as np
from abinitio_runs import drawn_problem

import verglas as vg
from verglas.initial_model.batch_step import BatchStep
from verglas.initial_model.course import Course
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import update_model
from verglas.search.state import HalfModel, PoseTable

BOX, PIXEL_A, DIAMETER_A = 32, 6.0, 140.0


def test_a_class_that_no_image_of_a_half_went_to_keeps_its_map():
    settings = AbInitioSettings(diameter_A=160.0, classes=2, final_resolution_A=30.0)
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, "D2")
    problem, sigma2 = drawn_problem(vg.simulate.particles(model, 60, BOX, PIXEL_A, snr=1.0, seed=1), settings)
    volumes = np.random.default_rng(0).normal(size=(2, problem.box, problem.box, problem.box)).astype(np.float32)
    before = HalfModel(volumes, sigma2, np.ones(problem.n_micrographs), np.array([0.5, 0.5]))
    course = Course(problem, settings, len(problem))
    step = BatchStep(problem, before, course.step(course.last_radius), course.grid_radius)
    sums = step.sums(np.arange(16), PoseTable.unknown(len(problem)))
    for half in sums.grids[1][:1]:
        half.values[:], half.weights[:] = 0, 0
    after, curves = update_model(problem, before, sums)
    assert np.array_equal(after.volumes[1], volumes[1])
    assert not curves[1].any()
    assert not np.allclose(after.volumes[0], volumes[0])
