"""Ab initio by stochastic hill climbing: the first better direction is taken, a structure is found, it goes on."""

from __future__ import annotations

import numpy as np
import pytest
from abinitio_runs import Stop, agreement_A, drawn_problem, stop_at

import verglas as vg
from verglas.initial_model import find as job
from verglas.initial_model.course import Course
from verglas.initial_model.hill_climbing import ClimbStep, HillClimbing, nearest_directions
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import StartTask, run_start
from verglas.run.checkpoint import Part
from verglas.search.grid_search import Where
from verglas.search.grid_step import DirectionGrid

BOX, PIXEL_A = 32, 5.0
CHOICES = {"diameter_A": 125.0, "final_resolution_A": 16.0, "full_iterations": 1, "method": "hill-climbing"}


@pytest.fixture(scope="module")
def data():
    model = vg.simulate.phantom(BOX, PIXEL_A, 110.0, "D2")
    return vg.simulate.particles(model, 150, BOX, PIXEL_A, snr=1.0, seed=1), vg.simulate.density(model, BOX, PIXEL_A)


@pytest.fixture(scope="module")
def problem(data):
    """What :func:`run_start` is given."""
    settings = AbInitioSettings("D2", iterations=2, **CHOICES)
    made, sigma2 = drawn_problem(data[0], settings)
    return made, settings, StartTask(0, sigma2, np.arange(0, 150, 10))


def climbing(problem):
    """A step after one iteration, with the present scores of all particles."""
    made, settings, task = problem
    train = np.setdiff1d(np.arange(len(made)), task.held_out)
    course, method = Course(made, settings, len(train)), HillClimbing()
    now = method.begin(made, settings, course, train, task)
    method.iterate(made, course, train, now)
    step = ClimbStep(made, now.model, course.step(6), course.grid_radius)
    step.read(train)
    step.keep(train, now.poses.angles_deg[train])
    return step, train


def test_the_first_better_direction_is_taken_in_random_order(problem):
    step, train = climbing(problem)
    before = step.found.score.copy()
    rng = np.random.default_rng(5)
    share = step.climb(train, rng)
    again = np.random.default_rng(5)
    shuffled, slices = again.permutation(train), np.arange(len(step.directions))
    alone = np.stack([step.correlate(train, slices[k : k + 1]).best_score for k in slices], axis=1)
    found = 0
    for begin in range(0, len(train), 64):
        order = again.permutation(len(slices))
        for row in shuffled[begin : begin + 64]:
            scores = alone[np.searchsorted(train, row)][order]
            better = np.flatnonzero(scores > before[row])
            if len(better):
                assert step.found.slice[row] == order[better[0]]
                assert step.found.score[row] == scores[better[0]]
                found += 1
            else:
                assert step.found.score[row] == before[row]
    assert share == pytest.approx(found / len(train))
    assert 0.3 < share < 1  # there is something to see


def test_kept_directions_are_scored_as_they_are(problem):
    step, train = climbing(problem)
    row = train[:1]
    allowed = np.array([[not step.found.opposite[row[0]], step.found.opposite[row[0]]]])
    alone = step.correlate(row, step.found.slice[row], allowed)
    assert alone.best_score[0] == step.found.score[row[0]]
    assert alone.best_psi[0] == step.found.psi[row[0]]


def test_nearest_direction_is_itself_whatever_the_equivalent(problem):
    grid = DirectionGrid(2, "D2")
    entries = np.argwhere(np.isfinite(grid.log_prior))
    angles = grid.angles_deg(entries[:, 0], entries[:, 1] == 1, np.linspace(0, 350, len(entries)))
    turned = vg.euler_to_matrix(angles) @ vg.symmetry_matrices("D2")[2]
    for one in (angles, vg.matrix_to_euler(turned)):
        place, opposite = nearest_directions(grid, problem[0], one)
        assert np.array_equal(place, entries[:, 0])
        assert np.array_equal(opposite, entries[:, 1] == 1)


@pytest.mark.slow
def test_a_structure_is_found_from_random_poses(data):
    found = vg.abinitio(data[0], "D2", starts=1, iterations=8, threads=1, **CHOICES)
    assert agreement_A(data[1], found.map) < 18
    assert found.verdict.gain > 10
    assert found.summary()["starts"] == 1


@pytest.mark.slow
def test_a_start_goes_on(problem, tmp_path, monkeypatch):
    monkeypatch.setattr("verglas.run.checkpoint._COST", 0)
    method, path = HillClimbing(), tmp_path / "checkpoint/start1.npz"
    whole = run_start(*problem, method=method)
    with pytest.raises(Stop):
        run_start(*problem, lambda done, total: stop_at("", 2)("", done, total), keeper=Part(path), method=method)
    again = run_start(*problem, keeper=Part(path), method=method)
    assert np.array_equal(again.model.volumes, whole.model.volumes)
    assert np.array_equal(again.evidence, whole.evidence)


def test_the_poses_do_not_depend_on_threads(problem):
    made, settings, *rest = problem
    two = job._problem(made.particles, {}, settings, Where(threads=2))
    steps = [climbing(p)[0] for p in (problem, (two, settings, *rest))]
    assert np.array_equal(steps[0].model.volumes, steps[1].model.volumes)
    assert np.array_equal(steps[0].found.score, steps[1].found.score)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"method": "luck"}, "method: expected em or hill-climbing, got 'luck'"), ({"classes": 2}, "makes one map")],
)
def test_what_cannot_be_is_said(data, change, message):
    with pytest.raises(vg.InputError, match=message):
        vg.abinitio(data[0], **{**CHOICES, **change})
