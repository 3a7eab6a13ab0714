"""Pages of a running refinement: drawn beside it, one at a time; given up when the last is written; failures told."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from run_folder import make_run_folder

import verglas as vg
from verglas.run import page_process
from verglas.run.page_process import PageProcess

from blank_figures import blank

QUICK = [sys.executable, "-S", "-E", "-c"]
COUNT = "import sys; open(sys.argv[1], 'a').write('page\\n')"
SLEEP = "import sys, time; open(sys.argv[1], 'a').write('page\\n'); time.sleep(60)"


def drawn(path, n):
    """Until n pages have been begun, ten seconds at most."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if path.is_file() and path.read_text().count("page") >= n:
            return True
        time.sleep(0.01)
    return False


def test_one_page_at_a_time_and_the_one_being_drawn_is_given_up(tmp_path):
    log, said = tmp_path / "log", []
    pages = PageProcess(tmp_path, said.append, [*QUICK, SLEEP, str(log)])
    pages.ask()
    assert drawn(log, 1)
    pages.ask()
    begun = time.monotonic()
    pages.stop()
    assert time.monotonic() - begun < 9  # told to end, not waited for
    assert log.read_text() == "page\n"
    pages.stop()
    assert said == []


def test_a_page_that_fails_is_told_when_the_next_one_is_asked_for_or_at_the_end(tmp_path):
    said = []
    pages = PageProcess(tmp_path, said.append, [*QUICK, "raise SystemExit('no disk')"])
    pages.ask()
    assert pages._process.wait(10) == 1
    pages.ask()
    assert said == [f"{tmp_path}: its page was not drawn: no disk"]
    assert pages._process.wait(10) == 1
    pages.stop()
    assert len(said) == 2


def test_a_refinement_asks_for_pages_and_writes_the_last_one_itself(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setattr(page_process, "_page_command", lambda _: [*QUICK, COUNT, str(log)])
    monkeypatch.setattr("verglas.run.refine_folder._PAGE_EVERY_S", 0.0)
    monkeypatch.setattr("verglas.report.style._draw", blank)
    model = vg.simulate.phantom(24, 5.0, 90.0)
    particles = vg.simulate.particles(model, 40, 24, 5.0, snr=1.0, seed=1)
    start = vg.simulate.density(model, 24, 5.0)
    vg.refine(particles, start, diameter_A=100, iterations=2, out=tmp_path / "run", threads=1, listener=None)
    assert drawn(log, 1)
    assert "Refinement" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_the_process_draws_the_page_of_a_running_folder(tmp_path):
    folder = make_run_folder(tmp_path / "run", state="running", iterations=2)
    said = []
    pages = PageProcess(folder, said.append)
    pages.ask()
    pages.wait()
    assert said == []
    assert "Running" in (folder / "report.html").read_text()
    (folder / "run.json").unlink()
    pages.ask()
    pages.wait()
    assert len(said) == 1
    assert "run.json" in said[0]


def test_threads_that_wait_sleep_unless_the_environment_says_otherwise(monkeypatch):
    """libgomp tells what it read as it was loaded; the environment stays as it was."""
    code = "import os; before = dict(os.environ); import verglas._native; assert before == dict(os.environ)"
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "true")

    def policy():
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
        lines = [line.split("=")[1].strip() for line in told.splitlines() if "OMP_WAIT_POLICY" in line]
        if not lines:
            pytest.skip("this OpenMP does not display its environment")
        return lines[0]

    assert policy() == "'PASSIVE'"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert policy() == "'ACTIVE'"
