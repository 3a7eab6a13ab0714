"""verglas abinitio stopped and started again: the same map bit for bit, or a refusal; the page while it runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from abinitio_runs import Stop, Stopping, drawn_problem, stop_at
from command_line import main

import verglas as vg
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import StartTask, place_particles, run_start
from verglas.run import abinitio as run_job
from verglas.run import live_page
from verglas.run.checkpoint import Part
from verglas.types.listener import Silence

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

BOX, PIXEL_A = 32, 5.0


CHOICES = {"diameter_A": 125.0, "final_resolution_A": 16.0, "iterations": 5, "full_iterations": 1}
TWO = {**CHOICES, "starts": 2, "most_starts": 2}


@pytest.fixture(scope="module")
def particles():
    model = vg.simulate.phantom(BOX, PIXEL_A, 110.0)
    return vg.simulate.particles(model, 80, BOX, PIXEL_A, snr=1.0, seed=1)


@pytest.fixture(scope="module")
def problem(particles):
    """What :func:`run_start` is given, for two classes."""
    settings = AbInitioSettings(classes=2, **CHOICES)
    made, sigma2 = drawn_problem(particles, settings)
    return made, settings, StartTask(1, sigma2, np.arange(0, 80, 8))


@pytest.fixture(scope="module")
def start(problem):
    return run_start(*problem)


@pytest.mark.parametrize(
    ("iteration", "cost"),
    [(1, 0), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((3, 1e9), (1, 1e9), (3, 0), (6, 0), (6, 1e9)))],
)
def test_a_stopped_start_goes_on_to_the_same_maps(problem, start, tmp_path, monkeypatch, iteration, cost):
    """Cost: without a limit nothing is done again, with one more is done again than need be."""
    monkeypatch.setattr("verglas.run.checkpoint._COST", cost)
    path, seen = tmp_path / "checkpoint/start2.npz", []
    with pytest.raises(Stop):
        run_start(*problem, lambda done, total: stop_at("", iteration)("", done, total), keeper=Part(path))
    again = run_start(*problem, lambda done, _: seen.append(done), keeper=Part(path))
    assert seen == list(range(iteration + 1 if cost == 0 else 2, 7))
    finished = run_start(*problem, lambda done, _: pytest.fail("done again"), keeper=Part(path))
    for one in (again, finished):
        assert np.array_equal(one.evidence, start.evidence)
        assert np.array_equal(one.curves, start.curves)
        for name, value in {**vars(start.model), **vars(start.poses)}.items():
            theirs = {**vars(one.model), **vars(one.poses)}[name]
            assert np.array_equal(value, theirs, equal_nan=True), name


def test_poses_of_many_particles_go_on(problem, start, tmp_path, monkeypatch):
    monkeypatch.setattr("verglas.initial_model.starts._PLACED_AT_ONCE", 32)
    monkeypatch.setattr("verglas.run.checkpoint._COST", 0)
    whole, path, seen = place_particles(*problem[:2], start.model), tmp_path / "checkpoint/poses.npz", []
    with pytest.raises(Stop):
        place_particles(*problem[:2], start.model, lambda done, _: stop_at("", 32)("", done, _), keeper=Part(path))
    again = place_particles(*problem[:2], start.model, lambda done, _: seen.append(done), keeper=Part(path))
    assert seen == [64, 80]
    assert np.array_equal(again.angles_deg, whole.angles_deg)
    assert np.array_equal(again.log_evidence, whole.log_evidence)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_result(particles, tmp_path, monkeypatch):
    """Stopped in the second start; then one start more than the run that was stopped was asked for, from some only."""
    monkeypatch.setattr("verglas.run.checkpoint._COST", 0)
    choices = {**TWO, "most_particles": 60}
    whole, out, seen = vg.abinitio(particles, listener=None, **choices), tmp_path / "run", Stopping()
    for starts, iteration in ((1, 2), (2, 3)):
        stopping = Stopping(f"start {starts}", iteration)
        with pytest.raises(Stop):
            vg.abinitio(particles, out=out, listener=stopping, **{**choices, "starts": starts})
    found = vg.abinitio(particles, out=out, listener=seen, **choices)
    assert "goes on from the checkpoint" in seen.lines[0]
    assert seen.lines[1].startswith("memory: at most ")
    assert seen.lines[2].startswith("time: about ")
    assert next(step for step in seen.seen if step[0].startswith("start")) == ("start 2 of 2", 4)
    assert seen.seen[-1] == ("poses of all particles", 80)
    assert np.array_equal(found.map.data, whole.map.data)
    assert np.array_equal(vg.read_map(out / "map.mrc").data, whole.map.data)
    assert np.array_equal(found.particles.poses.angles_deg, whole.particles.poses.angles_deg)
    assert [(s.number, s.score) for s in found.starts] == [(s.number, s.score) for s in whole.starts]
    assert found.verdict == whole.verdict
    assert not (out / "checkpoint").exists()


def test_other_settings_and_other_particles_are_refused(particles, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(vg.InputError, match="nothing to resume: no checkpoint there"):
        vg.abinitio(particles, out=out, resume=True, **TWO)
    with pytest.raises(vg.InputError, match="resume needs the run folder"):
        vg.abinitio(particles, resume=True, **TWO)
    with pytest.raises(Stop):
        vg.abinitio(particles, out=out, listener=Stopping("start 1", 2), **TWO)
    with pytest.raises(
        vg.InputError, match=r"a run with other settings was stopped here \(seed: was 0, now 1\); go on"
    ):
        vg.abinitio(particles, out=out, seed=1, **TWO)
    with pytest.raises(vg.InputError, match=r"other particles was stopped here \(.*n_particles: was 80, now 60"):
        vg.abinitio(particles[:60], out=out, **TWO)
    other = particles.with_source(vg.ArraySource(particles.images()[::-1].copy(), PIXEL_A))
    with pytest.raises(vg.InputError, match=r"other particles was stopped here \(other images\)"):
        vg.abinitio(other, out=out, **TWO)
    path = out / "checkpoint/start1.npz"
    path.write_bytes(path.read_bytes()[:999])
    with pytest.raises(vg.FormatError, match=r"cannot be read as a checkpoint .*remove .* to begin anew"):
        vg.abinitio(particles, out=out, **TWO)


@pytest.mark.slow
def test_the_page_shows_maps_while_it_runs_and_where_it_stopped(particles, tmp_path, monkeypatch):
    monkeypatch.setattr(live_page, "EVERY_S", 0.0)
    monkeypatch.setattr(live_page, "_COST", 0)
    pages = []

    class Reader(Silence):
        def progress(self, name, done, total):
            if name.startswith("start"):
                pages.append((tmp_path / "run/report.html").read_text())
            if name == "start 2 of 2" and done == 3:
                raise Stop("by the test")

    with pytest.raises(Stop):
        # No memory is left for a process beside: the job draws the pages.
        vg.abinitio(particles, out=tmp_path / "run", listener=Reader(), memory_GB=0.5, **TWO)
    assert "Running: start 1, 1 of 6 mini-batches done" in pages[0]
    assert "Running: start 2, 1 of 6 mini-batches done" in pages[6]
    assert all(page.count("data:image/") == 1 and 'http-equiv="refresh"' in page for page in pages)
    page = (tmp_path / "run/report.html").read_text()
    assert "Stopped (by the test): start 2, 3 of 6 mini-batches done. The same command goes on" in page
    assert 'http-equiv="refresh"' not in page


@pytest.mark.slow
def test_command_line(particles, tmp_path, capsys):
    vg.write_particles(tmp_path / "p.star", particles)
    given = [
        "abinitio",
        str(tmp_path / "p.star"),
        "--diameter",
        "125",
        "--final-resolution",
        "16",
        "--iterations",
        "2",
        "--starts",
        "1",
        "--out",
        str(tmp_path / "run"),
        "--json",
        "--resume",
    ]
    status, _, error = main(given, capsys)
    assert status == 1
    assert "nothing to resume" in error
    with pytest.raises(Stop):
        run_job.abinitio_files(
            tmp_path / "p.star",
            settings={"diameter_A": 125.0, "final_resolution_A": 16.0, "iterations": 2, "starts": 1},
            out=tmp_path / "run",
            listener=Stopping("start 1", 1),
        )
    status, text, error = main(given, capsys)
    assert status == 0
    assert "goes on from the checkpoint" in error
    assert json.loads(text)["starts"] == 1
