"""A job alone in its folder: locks, heartbeats, ends by signals, standstill, and what status says of them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import main
from process_set import environment

import verglas as vg
from verglas.classification import Class2DSettings
from verglas.io import read_json, write_json
from verglas.run import tenure as tenures
from verglas.run.class2d import Class2DJob, class2d_files
from verglas.run.tenure import Tenure, lock_project, tenure
from verglas.types.listener import Silence

from blank_figures import CODE

pytestmark = pytest.mark.usefixtures("blank_figures_of_module", "no_verdict_of_module")

BOX, PIXEL_A = 24, 5.0
OPTIONS = ["--diameter", "100", "--iterations", "2", "--threads", "1", "--seed", "1"]
CHOICES = {"diameter_A": 100.0, "iterations": 2, "threads": 1, "seed": 1, "listener": None}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0)
    vg.write_particles(folder / "p.star", vg.simulate.particles(model, 100, BOX, PIXEL_A, snr=1.0, seed=1))
    vg.write_map(folder / "ref.mrc", vg.simulate.density(model, BOX, PIXEL_A))
    return folder


@pytest.fixture(scope="module")
def whole(inputs):
    return vg.refine(inputs / "p.star", inputs / "ref.mrc", **CHOICES)


def child(inputs, out, *, before="", more=()):
    """``verglas refine`` in a process of its own, after some lines of Python."""
    words = ["refine", str(inputs / "p.star"), "--reference", str(inputs / "ref.mrc"), "--out", str(out), *OPTIONS]
    code = f"{CODE}{before}\nfrom verglas.cli import main\nmain({[*words, *more]!r})"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=pipe, stderr=pipe, text=True)


# Slow enough, after its first iteration, that a signal meets it at work.
SLOW = """
import time
import verglas.run.refine_folder as f
was = f.RefineFolder.iteration
def iteration(self, *rest):
    was(self, *rest)
    for i in range(600):
        self.held.progress("waiting in the test", i, 600)
        time.sleep(0.1)
f.RefineFolder.iteration = iteration
"""


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def at_work(inputs, out):
    process = child(inputs, out, before=SLOW)
    wait_for(lambda: (out / "iterations.csv").is_file() and read_json(out / "run.json")["state"] == "running")
    return process


def test_sigterm_is_a_clean_end_that_can_be_resumed(inputs, whole, tmp_path, capsys):
    out = tmp_path / "run"
    process = at_work(inputs, out)
    found = vg.status(out)
    assert (found.state, found.pid, found.command) == ("running", process.pid, "refine")
    with pytest.raises(vg.InputError, match=f"another process \\({process.pid}\\) works"):
        vg.refine(inputs / "p.star", inputs / "ref.mrc", out=out, resume=True, **CHOICES)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert "Traceback" not in said
    found = vg.status(out)
    assert (found.state, found.recorded) == ("stopped", "stopped")
    assert "SIGTERM" in found.sentence
    assert "--resume" in found.sentence
    assert 'http-equiv="refresh"' not in (out / "report.html").read_text()
    again = vg.refine(inputs / "p.star", inputs / "ref.mrc", out=out, resume=True, **CHOICES)
    assert np.array_equal(again.map.data, whole.map.data)
    assert main(["status", str(out), "--json"], capsys)[0] == 0


@pytest.mark.slow
def test_after_sigkill_status_says_dead(inputs, tmp_path, capsys):
    out = tmp_path / "run"
    process = at_work(inputs, out)
    process.kill()
    process.communicate()
    assert read_json(out / "run.json")["state"] == "running"  # nobody was left to say otherwise
    status, said, _ = main(["status", str(out)], capsys)
    assert status == 1
    assert "refine is dead, at waiting in the test, " in said or "refine is dead" in said
    assert f"its process {process.pid} is gone" in said
    assert vg.status(out).details["iterations"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_first_checkpoint_a_folder_can_start_or_resume(inputs, whole, tmp_path, moment):
    out = tmp_path / "run"
    kill = f"""
import os, signal
import verglas.run.refine_setup as r
was = r.write_checkpoint
def write(*rest):
    if {moment!r} == "after":
        was(*rest)
    os.kill(os.getpid(), signal.SIGKILL)
r.write_checkpoint = write
"""
    process = child(inputs, out, before=kill)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert read_json(out / "run.json")["state"] == "starting"
    more = {"resume": True} if moment == "after" else {}
    with pytest.raises(vg.InputError, match="holds a run" if moment == "after" else "nothing to resume"):
        vg.refine(inputs / "p.star", inputs / "ref.mrc", out=out, resume=moment == "before", **CHOICES)
    found = vg.refine(inputs / "p.star", inputs / "ref.mrc", out=out, **more, **CHOICES)
    assert np.array_equal(found.map.data, whole.map.data)
    assert vg.status(out).state == "finished"


def test_two_jobs_in_one_folder(inputs, tmp_path):
    taken = tmp_path / "taken"
    star = inputs / "p.star"
    jobs = {
        "refine": lambda: vg.refine(star, inputs / "ref.mrc", out=taken, **CHOICES),
        "class2d": lambda: class2d_files(Class2DJob(star, taken, Class2DSettings(classes=2, iterations=1))),
        "abinitio": lambda: vg.abinitio(star, out=taken, diameter_A=100),
        "process": lambda: vg.process(taken, micrographs=[str(star.with_name("p.mrcs"))], diameter_A=100),
    }
    with lock_project(taken):
        for job in jobs.values():
            with pytest.raises(vg.InputError, match="another process"):
                job()
        assert [p.name for p in taken.iterdir()] == [".lock"]


def test_a_folder_that_is_removed_under_a_job(tmp_path, monkeypatch):
    with lock_project(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
    # A lock file that another job removed just before it was locked locks nobody out: another is made.
    taken, flock = [], fcntl.flock

    def removed_meanwhile(handle, how):
        if not taken:
            shutil.rmtree(tmp_path / "run")
        taken.append(how)
        flock(handle, how)

    monkeypatch.setattr("fcntl.flock", removed_meanwhile)
    with lock_project(tmp_path / "run"):
        assert (tmp_path / "run/.lock").read_text().startswith(str(os.getpid()))
        with pytest.raises(vg.InputError, match="another process"), lock_project(tmp_path / "run"):
            pass
    assert not (tmp_path / "run").exists()
    assert len(taken) == 3


def test_a_job_that_never_began_leaves_nothing(inputs, tmp_path):
    with pytest.raises(vg.InputError, match="poses='local'"):
        vg.refine(inputs / "p.star", out=tmp_path / "run", **CHOICES)
    assert not (tmp_path / "run").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(vg.InputError):
        vg.refine(inputs / "p.star", out=tmp_path / "full", **CHOICES)
    assert not (tmp_path / "full/run.json").exists()
    assert (tmp_path / "full/notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(vg.InputError, match="it is a file"), tenure(tmp_path / "file", "refine"):
        pass


class _Told(Silence):
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def test_a_phase_without_progress_leaves_the_stacks_of_all_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(tenures, "BEAT_S", 0.05)
    monkeypatch.setattr(tenures, "STALL_S", 0.4)
    told = _Told()

    def a_step_that_hangs(held):
        wait_for(lambda: told.said, 20)
        assert vg.status(tmp_path / "run").state == "stalled"
        held.progress("scoring", 4, 10)
        wait_for(lambda: vg.status(tmp_path / "run").state == "running")

    with tenure(tmp_path / "run", "refine", told) as held:
        held.write(state="running")
        held.progress("scoring", 3, 10)
        a_step_that_hangs(held)
    stacks = (tmp_path / "run/stalled.log").read_text()
    assert "in: scoring, 3 of 10" in stacks
    assert "a_step_that_hangs" in stacks
    assert stacks.count("Current thread") == 1  # once per standstill
    assert "no progress for" in told.said[0]
    record = read_json(tmp_path / "run/run.json")
    assert (record["state"], record["run_state"]) == ("finished", "finished")


def test_patience_grows_with_the_longest_pause(tmp_path, monkeypatch):
    monkeypatch.setattr(tenures, "STALL_S", 0.05)
    held = Tenure(tmp_path, "refine")
    time.sleep(0.06)
    held.progress("scoring", 1, 10)
    assert 0.3 <= held.patience_s < 3


def test_status_of_other_machines_and_states(tmp_path):
    def said(**changes):
        beat = {"pid": 1, "host": "elsewhere", "time": tenures.now_text(), "every_s": 15}
        write_json(tmp_path / "run.json", {"command": "class2d", "state": "running", "heartbeat": beat} | changes)
        return vg.status(tmp_path)

    old = {"pid": 1, "host": "elsewhere", "time": "2020-01-01T00:00:00+00:00", "every_s": 15}
    assert said().state == "running"
    assert said(heartbeat=old).state == "dead"
    assert said(state="stopped after 25 iterations").state == "finished"
    assert said(state="failed: no room").sentence.startswith("class2d failed: no room")
    assert said(state="stopped by a verdict: noise").state == "stopped"
    # the word counts, whatever the sentence says
    assert said(state="stopped after 25 iterations", run_state="finished").state == "finished"
    assert said(state="gave up", run_state="failed", reason="OSError").sentence.startswith("class2d gave up")
    assert said(heartbeat={}).state == "dead"
    with pytest.raises(vg.InputError, match=r"no run\.json"):
        vg.status(tmp_path / "none")


def test_a_handler_of_the_caller_stays(tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        with tenure(tmp_path / "run", "refine"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def sleeps_on(folder):
    with tenure(folder, "refine") as held:
        held.write(state="running")
        os.kill(os.getpid(), signal.SIGTERM)
        begun = time.monotonic()
        while time.monotonic() < begun + 20:
            time.sleep(0.01)


def test_a_job_that_tells_nothing_is_ended_after_a_grace(tmp_path, monkeypatch):
    monkeypatch.setattr(tenures, "BEAT_S", 0.05)
    monkeypatch.setattr(tenures, "GRACE_S", 0.2)
    begun = time.monotonic()
    with pytest.raises(tenures.Terminated) as ended:
        sleeps_on(tmp_path / "run")
    assert ended.value.code == 143
    assert 0.15 < time.monotonic() - begun < 10
    assert read_json(tmp_path / "run/run.json")["state"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def breaks_on(folder):
    with tenure(folder, "refine") as held:
        held.write(state="running")
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            held.progress("scoring", 1, 2)
        except SystemExit as error:
            raise AttributeError("half a module") from error


def test_what_a_library_makes_of_the_signal_is_no_failure(tmp_path):
    with pytest.raises(tenures.Terminated):
        breaks_on(tmp_path / "run")
    assert read_json(tmp_path / "run/run.json")["state"] == "stopped"


def test_class2d_says_how_it_ended(inputs, tmp_path, capsys):
    words = ["class2d", str(inputs / "p.star"), "--classes", "2", "--iterations", "1", "--threads", "1"]
    assert main([*words, "--out", str(tmp_path / "c")], capsys)[0] == 0
    assert vg.status(tmp_path / "c").state == "finished"
    found = json.loads(main(["status", str(tmp_path / "c"), "--json"], capsys)[1])
    assert (found["command"], found["state"], found["host"]) == ("class2d", "finished", os.uname().nodename)
