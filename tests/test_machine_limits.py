"""--threads, --memory, --device and --cluster of commands without such options of their own."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import threadpoolctl
import typer
from command_line import main

import verglas as vg
from verglas.cli import app as application
from verglas.cli import machine_limits
from verglas.cli.machine_limits import MachineLimits, behind_command, taken_limits


@pytest.fixture
def halves(tmp_path):
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(24, 24, 24)).cumsum(0)
    for name in ("a", "b"):
        vg.write_map(tmp_path / f"{name}.mrc", vg.Map(signal + rng.normal(size=signal.shape), 2.0))
    return [str(tmp_path / f"{name}.mrc") for name in "ab"]


def test_a_command_takes_what_it_has_no_option_for(halves, capsys):
    status, told = main(["fsc", *halves, "--json"], capsys)[:2]
    given = ["--threads", "1", "--device=cpu", "--memory", "50"]
    again, same = main(["fsc", *halves, *given, "--json"], capsys)[:2]
    assert (status, again) == (0, 0)
    assert json.loads(told) == json.loads(same)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--device", "cuda:0"], "fsc runs on the processor only"),
        (["--cluster", "local:4"], "fsc does not share its work among workers; refine, class3d and process do"),
        (["--threads", "0"], "expected 1 to 4096"),
        (["--threads", "²"], "expected 1 to 4096, got '²'"),
        (["--memory", "much"], "expected gigabytes"),
        (["--memory"], "expected gigabytes"),
    ],
)
def test_what_it_cannot_do_is_a_sentence(given, message, halves, capsys):
    status, _, error = main(["fsc", *halves, *given], capsys)
    assert status == 2
    assert message in " ".join(error.split())


def test_options_that_a_command_has_stay_its_own():
    arguments = ["refine", "--threads", "2", "--", "--memory"]
    assert taken_limits(arguments, {"--threads"}) == (arguments, MachineLimits())


def test_who_shares_its_work_is_who_is_named():
    for name in application._COMMANDS:
        application._register_command(name)
    commands = typer.main.get_command(application.app).commands
    with_workers = {n for n, c in commands.items() if any("--cluster" in p.opts for p in c.params)}
    assert with_workers == {"refine", "class3d", "process"}


def test_threads_are_limited_for_as_long_as_it_runs():
    before = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    environment = dict(os.environ)
    with MachineLimits(threads=1).in_force():
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {1}
    assert {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == before
    assert dict(os.environ) == environment


def test_memory_that_is_passed_ends_the_command(halves, capsys):
    # Python's own answer to Ctrl-C, whatever was imported before
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _memory_is_passed(halves, capsys)
    finally:
        signal.signal(signal.SIGINT, before)


def _memory_is_passed(halves, capsys):
    with pytest.raises(KeyboardInterrupt), MachineLimits(memory_GB=0.001).in_force():
        time.sleep(5)
    status, _, error = main(["fsc", *halves, "--memory", "0.01"], capsys)
    assert status == 1
    assert "more than --memory 0.01" in error


def test_a_command_that_finished_was_not_stopped(monkeypatch):
    limits, asked, finished = MachineLimits(memory_GB=1.0), threading.Event(), threading.Event()

    def last_poll():
        asked.set()
        assert finished.wait(10)
        return 2.0

    monkeypatch.setattr(machine_limits, "resident_GB", last_poll)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with limits.in_force():
            assert asked.wait(10)
            threading.Timer(0.1, finished.set).start()  # the poll answers when the work is done
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished.is_set()
    assert limits.sentence == ""


def test_memory_is_watched_in_the_background_of_a_script_too():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), MachineLimits(memory_GB=0.001).in_force():
            time.sleep(2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_before_the_command_they_are_the_commands_own(halves, capsys):
    # refine has --device itself: what it says of the value is its own, and no "4 runs on the processor only"
    _, _, error = main(["--threads=1", "--device", "cuda:0", "fsc", *halves], capsys)
    assert "fsc runs on the processor only" in " ".join(error.split())
    assert main(["--threads", "1", "fsc", *halves], capsys)[0] == 0
    _, _, error = main(["--device", "nothing", "refine", "none.star", "--diameter", "9"], capsys)
    assert "processor only" not in error


def test_a_flag_and_limits_before_the_command_go_behind_it():
    before = ["--json", "--memory", "8", "refine", "particles.star", "--out", "x"]
    assert behind_command(before) == ["refine", "--json", "--memory", "8", *before[4:]]
