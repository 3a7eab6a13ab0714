"""verglas class2d stopped and started again: the same result bit for bit, or a refusal; the page while it runs."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

import numpy as np
import pytest
from command_line import main
from planted_classes import planted

import verglas as vg
from verglas.classification import Class2DSettings
from verglas.classification.class2d import iteration_sentence
from verglas.run import live_page
from verglas.run.checkpoint import Checkpoints, Part
from verglas.run.class2d import Class2DJob, class2d_files
from verglas.types.listener import Silence

SETTINGS = Class2DSettings(classes=4, diameter_A=170, max_resolution_A=16, iterations=6)
SPLIT = dataclasses.replace(SETTINGS, classes=6, start="split", mini_batch=40)
SEEDING, LEVEL = 7, 4  # iterations of the seeding, and of a level of the start by splitting


class Stop(Exception):
    """What ends a run in these tests."""


@pytest.fixture(scope="module")
def star(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class2d")
    vg.write_particles(folder / "p.star", planted(48, noise=12)[0])
    return folder / "p.star"


@pytest.fixture(scope="module")
def particles(star):
    return vg.read_particles(star)


@pytest.fixture(scope="module")
def whole(particles):
    """A way of classifying, left alone."""
    return cache(lambda settings: vg.classify2d(particles, settings, threads=1, listener=None))


class Stopping(Silence):
    """A listener that stops in an iteration (from 0) when this part of its particles is done."""

    def __init__(self, at, part=0.5):
        self.at, self.part, self.done = at, part, 0

    def iteration(self, figures):
        self.done += 1

    def progress(self, phase, done, total):
        if self.done >= self.at and "particles" in phase and done >= self.part * total:
            raise Stop("by the test")


class Log(Silence):
    """A listener that keeps the lines of a log."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def iteration(self, figures):
        self.lines.append(iteration_sentence(figures))


def stopped(job, iteration):
    with pytest.raises(Stop):
        class2d_files(job, listener=Stopping(iteration))


def same(one, two):
    assert np.array_equal(one.averages, two.averages)
    assert np.array_equal(one.curves, two.curves)
    assert one.table.equals(two.table)
    assert np.array_equal(one.labels, two.labels)
    assert np.array_equal(one.particles.poses.angles_deg, two.particles.poses.angles_deg)
    assert np.array_equal(one.particles.poses.shifts_A, two.particles.poses.shifts_A)
    assert one.verdict == two.verdict
    assert [dataclasses.replace(line, seconds=0) for line in one.record] == [
        dataclasses.replace(line, seconds=0) for line in two.record
    ]


@pytest.mark.parametrize(
    ("settings", "iteration", "cost"),
    [
        pytest.param(SETTINGS, 0, 0, marks=pytest.mark.slow),
        pytest.param(SETTINGS, 3, 0, marks=pytest.mark.slow),
        pytest.param(SETTINGS, 3, 50, marks=pytest.mark.slow),
        pytest.param(SETTINGS, SEEDING, 0, marks=pytest.mark.slow),
        pytest.param(SETTINGS, SEEDING + 2, 0, marks=pytest.mark.slow),
        pytest.param(SETTINGS, SEEDING + 2, 50, marks=pytest.mark.slow),
        pytest.param(SETTINGS, -1, 0, marks=pytest.mark.slow),
        pytest.param(SPLIT, LEVEL - 1, 0, marks=pytest.mark.slow),
        pytest.param(SPLIT, LEVEL + 2, 0, marks=pytest.mark.slow),
        (SPLIT, LEVEL + 2, 50),
        pytest.param(SPLIT, 2 * LEVEL + 2, 0, marks=pytest.mark.slow),
        pytest.param(SPLIT, -2, 0, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_classes(particles, whole, tmp_path, monkeypatch, settings, iteration, cost):
    """In the seeding, in a level of splitting, between mini-batches, in the last iterations."""
    monkeypatch.setattr("verglas.run.checkpoint._COST", cost)
    expected, path = whole(settings), tmp_path / "checkpoint/state.npz"
    at = iteration % len(expected.record)
    with pytest.raises(Stop):
        vg.classify2d(particles, settings, threads=1, listener=Stopping(at), keeper=Part(path))
    log = Log()
    same(vg.classify2d(particles, settings, threads=1, listener=log, keeper=Part(path)), expected)
    first = int(next(line for line in log.lines if line.startswith("iteration")).split()[1].rstrip(":"))
    # Without a limit to the cost nothing is done again but the iteration that classes were being split after.
    assert max(at, 1) <= first <= at + 1 if cost == 0 else first <= at + 1
    same(vg.classify2d(particles, settings, listener=None, keeper=Part(path)), expected)  # it is finished


@pytest.mark.slow
def test_stopped_again_and_again_and_in_a_repeat(star, tmp_path):
    """Whatever is stopped, and however often; the log on the page is whole."""
    plain = class2d_files(Class2DJob(star, tmp_path / "plain", SETTINGS, repeats=1))
    job = Class2DJob(star, tmp_path / "run", SETTINGS, repeats=1)
    for _ in range(3):
        stopped(job, 2)
    count = len(plain.classes.record)
    stopped(job, count + 1)  # those of the first run that are left, and more of the repeat
    assert (tmp_path / "run/checkpoint/repeat1.npz").is_file()
    found = class2d_files(dataclasses.replace(job, resume=True))
    same(found.classes, plain.classes)
    assert found.classes.table["stability"].notna().any()
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["forecast"]["processor_seconds"] > 0
    assert record["eta_seconds"] is None
    pages = [(tmp_path / name / "classes.html").read_text() for name in ("plain", "run")]
    assert [page.count("seeds grouped to 4 classes") for page in pages] == [2, 2]


def test_other_settings_other_particles_and_damage_are_refused(star, tmp_path):
    job = Class2DJob(star, tmp_path / "run", SETTINGS)
    with pytest.raises(vg.InputError, match="nothing to resume: no checkpoint there"):
        class2d_files(dataclasses.replace(job, resume=True))
    stopped(job, 1)
    other = dataclasses.replace(SETTINGS, classes=5)
    with pytest.raises(vg.InputError, match=r"a run with other settings was stopped here \(classes: was 4, now 5\)"):
        class2d_files(dataclasses.replace(job, settings=other))
    particles = vg.read_particles(star)
    vg.write_particles(tmp_path / "moved.star", particles.with_columns(rlnDefocusU=particles.table["rlnDefocusU"] + 9))
    with pytest.raises(
        vg.InputError, match=r"other particles was stopped here \(.*other values or order in column rlnDefocusU"
    ):
        class2d_files(dataclasses.replace(job, particles=tmp_path / "moved.star"))
    vg.write_particles(tmp_path / "fewer.star", particles[:40])
    with pytest.raises(vg.InputError, match=r"other particles .*n_particles: was 60, now 40"):
        class2d_files(dataclasses.replace(job, particles=tmp_path / "fewer.star"))
    path = tmp_path / "run/checkpoint/state.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(vg.FormatError, match=r"cannot be read as a checkpoint \(.*remove .*checkpoint to begin anew"):
        class2d_files(job)


def test_a_checkpoint_of_another_version_is_no_place_to_go_on_from(tmp_path):
    said = []
    kept = Checkpoints(tmp_path, {"classes": 3}, {"n_particles": 60}, said.append)
    assert not kept.open()
    (tmp_path / "checkpoint/part.npz").touch()
    assert Checkpoints(tmp_path, {"classes": 3}, {"n_particles": 60}).open(resume=True)
    path = tmp_path / "checkpoint/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verglas": "0.0.1"}))
    assert not kept.open()
    assert "the checkpoint is of verglas 0.0.1" in said[-1]
    assert not (tmp_path / "checkpoint/part.npz").exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_version_is_set_aside(star, whole, tmp_path):
    log = Log()
    job = Class2DJob(star, tmp_path / "run", SETTINGS, threads=2, memory_GB=1)
    stopped(job, 2)
    path = tmp_path / "run/checkpoint/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verglas": "0.0.1"}))
    same(class2d_files(job, listener=log).classes, whole(SETTINGS))
    assert "the checkpoint is of verglas 0.0.1" in log.lines[0]
    assert "iteration 1:" in next(line for line in log.lines if line.startswith("iteration"))


def test_the_page_shows_classes_while_it_runs_and_where_it_stopped(star, tmp_path, monkeypatch):
    monkeypatch.setattr(live_page, "EVERY_S", 0.0)
    seen = []

    class Reader(Silence):
        def progress(self, phase, done, total):
            path = tmp_path / "run/classes.html"
            if path.is_file() and not seen:
                seen.append(path.read_text())

    # No memory is left for a process beside: the job draws the pages.
    class2d_files(Class2DJob(star, tmp_path / "run", SETTINGS, memory_GB=0.45), listener=Reader())
    assert "Running: iteration 1 done" in seen[0]
    assert seen[0].count("<label>") == 60 // 8  # seeds
    assert "refresh" in seen[0]
    assert "Running" not in (tmp_path / "run/classes.html").read_text()
    stopped(Class2DJob(star, tmp_path / "again", SETTINGS), SEEDING + 1)
    page = (tmp_path / "again/classes.html").read_text()
    assert "Stopped (by the test): iteration 8 done" in page
    assert page.count("<label>") == 4
    assert 'http-equiv="refresh"' not in page


def test_checkpoints_take_little_of_the_time(tmp_path, monkeypatch):
    """One that took long to write makes the next wait; what must be kept is kept."""
    clock = [0.0]
    monkeypatch.setattr("verglas.run.checkpoint.time.perf_counter", lambda: clock[0])

    def slow(path, snapshot):
        clock[0] += 1.0
        written.append(snapshot)

    written: list[object] = []
    monkeypatch.setattr("verglas.run.checkpoint.write_snapshot", slow)
    part = Part(tmp_path / "x.npz")
    for _ in range(100):
        part.save(vg.types.Snapshot({}))
        clock[0] += 1.0
    assert len(written) == 2
    part.save(vg.types.Snapshot({}), needed=True)
    assert len(written) == 3


@pytest.mark.slow
def test_command_line(star, tmp_path, capsys):
    given = ["class2d", str(star), "-K", "4", "--diameter", "170", "--max-resolution", "16", "--iterations", "6"]
    status, _, error = main([*given, "--out", str(tmp_path / "run"), "--resume"], capsys)
    assert status == 1
    assert "nothing to resume" in error
    stopped(Class2DJob(star, tmp_path / "run", SETTINGS), SEEDING)
    status, text, _ = main([*given, "--out", str(tmp_path / "run"), "--resume", "--json"], capsys)
    assert status == 0
    assert len(json.loads(text)["classes"]) == 5
