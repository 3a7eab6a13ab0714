"""Refinements that begin with a part of the particles, twice as many in each iteration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import verglas as vg
from verglas.cluster.passes import Passes
from verglas.errors import SettingError
from verglas.refinement import schedule, start
from verglas.refinement.em import initial_state, iterate, refine_state
from verglas.refinement.settings import RefineSettings
from verglas.run.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from verglas.run.forecast import UNITS, refine_counts
from verglas.search.half_pass import HalfTask
from verglas.search.problem import survey

BOX, PIXEL_A, GROUP, COUNT, FIRST = 24, 5.0, "O", 240, 50


@pytest.fixture(scope="module")
def begun():
    """A problem and its state before the first iteration."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0, GROUP)
    particles = vg.simulate.particles(model, COUNT, BOX, PIXEL_A, snr=1.0, seed=1)
    particles = particles.with_columns(rlnMicrographName=np.repeat([f"m{i}" for i in range(8)], COUNT // 8))
    settings = RefineSettings(
        GROUP,
        diameter_A=90.0,
        initial_resolution_A=28.0,
        max_resolution_A=15.0,
        shift_range_A=5.0,
        first_particles=FIRST,
        iterations=6,
    )
    found = survey(particles)
    problem = start.make_problem(particles, found.excluded, settings, threads=1)
    state, _ = initial_state(problem, found.power, [vg.simulate.density(model, BOX, PIXEL_A)])
    return problem, state


@pytest.fixture(scope="module")
def course(begun, tmp_path_factory):
    """A whole refinement: state, what was made, and the checkpoint after each iteration."""
    problem, state = begun
    folder, kept = tmp_path_factory.mktemp("run"), []

    def after(now, _made, following):
        if following is not None:
            (folder / f"{now.iteration}").mkdir()
            write_checkpoint(folder / f"{now.iteration}", Checkpoint(now, following, problem.half, {}, {}))
        kept.append(folder / f"{now.iteration}")

    return *refine_state(problem, state, schedule.first_step(problem), after=after), kept


# -- who is in it ------------------------------------------------------------------------------------------------------


def test_parts_hold_those_before_them_and_as_many_of_each_half(begun):
    problem, _ = begun
    first = schedule.first_step(problem)
    assert (first.phase, first.particles) == ("grid", FIRST)
    before = np.empty(0, np.int64)
    for count in (50, 100):
        rows = schedule.rows_of_step(problem, replace(first, particles=count))
        assert np.bincount(problem.half[rows]).tolist() == [0, count, count]
        assert np.all(np.diff(rows) > 0)
        assert np.isin(before, rows).all()
        np.testing.assert_array_equal(rows, schedule.rows_of_step(problem, replace(first, particles=count)))
        before = rows
    other = replace(problem, settings=replace(problem.settings, seed=1))
    assert not np.array_equal(before, schedule.rows_of_step(other, replace(first, particles=100)))
    assert schedule.rows_of_step(problem, replace(first, particles=0)) is None


def test_a_part_as_large_as_a_half_set_is_all(begun):
    problem = begun[0]
    large = replace(problem, settings=replace(problem.settings, first_particles=COUNT // 2))
    assert schedule.first_step(large).particles == 0


# -- iterations --------------------------------------------------------------------------------------------------------


def test_an_iteration_reaches_its_part_and_no_other(begun):
    problem, state = begun
    step = schedule.first_step(problem)
    rows = schedule.rows_of_step(problem, step)
    new, _ = iterate(problem, state, step)
    assert np.flatnonzero(np.isfinite(new.poses.log_evidence)).tolist() == rows.tolist()
    figures = new.figures[-1]
    assert figures.particles == 2 * FIRST
    assert np.isfinite([figures.log_likelihood, figures.effective_poses, figures.max_probability]).all()
    # as a refinement of these alone: the same poses
    alone = replace(problem.part(rows), settings=replace(problem.settings, first_particles=None))
    by_itself, _ = iterate(alone, replace(state, poses=state.poses.of(rows)), replace(step, particles=0))
    np.testing.assert_array_equal(by_itself.poses.angles_deg, new.poses.angles_deg[rows])
    np.testing.assert_array_equal(by_itself.halves[0].sigma2, new.halves[0].sigma2)
    np.testing.assert_array_equal(by_itself.halves[0].volumes, new.halves[0].volumes)


def test_all_are_in_before_poses_are_refined_and_the_range_of_shifts_waits_for_them(course):
    state, _, kept = course
    figures = state.figures
    assert [one.particles for one in figures][:2] == [2 * FIRST, 4 * FIRST]
    assert all(one.particles == COUNT for one in figures if one.phase != "grid")
    first_whole = next(i for i, one in enumerate(figures) if one.particles == COUNT)
    assert [one.shift_range_A for one in figures[: first_whole + 1]] == [figures[0].shift_range_A] * (first_whole + 1)
    assert np.isfinite(state.poses.log_evidence).all()
    assert len(kept) == len(figures)


@pytest.mark.slow
def test_a_run_that_goes_on_makes_the_same_bits(begun, course):
    problem = begun[0]
    state, made, kept = course
    for folder in kept[:2]:  # while parts grow
        checkpoint = read_checkpoint(folder)
        again, made_again = refine_state(problem, checkpoint.state, checkpoint.step)
        np.testing.assert_array_equal(again.poses.angles_deg, state.poses.angles_deg)
        np.testing.assert_array_equal(made_again.maps[0].joint, made.maps[0].joint)


def test_the_last_pass_after_a_part_searches_all_poses(begun):
    problem = begun[0]
    step = schedule.final_step(problem, schedule.first_step(problem))
    assert (step.phase, step.particles, step.final) == ("global", 0, True)
    whole = schedule.final_step(problem, replace(schedule.first_step(problem), particles=0))
    assert whole.phase == "local"


@pytest.fixture
def stalled(begun, course):
    """Wide posteriors, as of a set that is mostly junk, and as many passes of all as patience lasts; their step."""
    problem, state = begun[0], course[0]
    poses = state.poses.copy()
    poses.effective_poses[:] = 1e3
    one = replace(state.figures[0], particles=COUNT, search_resolution_A=problem.resolution_of_A(4))
    figures = [one] * schedule.PATIENCE
    now = replace(state, poses=poses, figures=figures, resolution_shell=2.0, unimproved=schedule.PATIENCE)
    return now, schedule.make_step(problem, "grid", 4, 3, 2.0)


def test_a_grid_that_gains_no_more_hands_over_once_all_are_in(begun, stalled):
    problem, (state, step) = begun[0], stalled
    assert schedule.next_step(problem, state, step).phase == "global"
    assert schedule.next_step(problem, replace(state, unimproved=schedule.PATIENCE - 1), step).phase == "grid"
    assert schedule.next_step(problem, state, replace(step, particles=FIRST)).phase == "grid"


def test_passes_over_parts_or_over_data_held_back_are_no_reason_to_end_the_grid(begun, stalled):
    problem, (state, step) = begun[0], stalled
    first, *others = state.figures
    part = [replace(first, particles=2 * FIRST), *others]
    assert schedule.next_step(problem, replace(state, figures=part), step).phase == "grid"
    # As while particles changed class: the map is finer by now than the data that were looked at.
    finer = replace(state, resolution_shell=4.0)
    following = schedule.next_step(problem, finer, step)
    assert (following.phase, following.radius) == ("grid", 6)
    seen = [replace(one, search_resolution_A=problem.resolution_of_A(6)) for one in state.figures]
    assert schedule.next_step(problem, replace(finer, figures=seen), following).phase == "global"


def test_workers_are_given_the_particles_of_the_part(begun, tmp_path):
    problem, state = begun
    rows = schedule.rows_of_step(problem, schedule.first_step(problem))
    part = problem.part(rows)
    task = HalfTask(part, state.halves[0], problem.sphere, schedule.first_step(problem), 1)
    passes = Passes(None, problem.particles, tmp_path, None)
    (order,) = passes._parts(task, task.blocks())
    mine = rows[problem.half[rows] == 1]
    np.testing.assert_array_equal(order.read().particles.images(), problem.particles.images(mine))


def test_a_forecast_counts_the_particles_of_each_part(begun):
    problem = begun[0]
    step = schedule.first_step(problem)
    pixels = UNITS.index("pixels")
    grown, whole = (refine_counts(problem, replace(step, particles=count)) for count in (FIRST, 0))
    share = [a[1][pixels] / b[1][pixels] for a, b in zip(grown[:2], whole[:2], strict=True)]
    assert share == pytest.approx([2 * FIRST / COUNT, 4 * FIRST / COUNT])


def test_settings_without_a_grid_to_begin_with_are_refused():
    with pytest.raises(SettingError, match="first_particles: it is the search over a grid that grows"):
        RefineSettings(first_particles=100, poses="local")
    with pytest.raises(SettingError, match="first_particles"):
        RefineSettings(first_particles=10)
