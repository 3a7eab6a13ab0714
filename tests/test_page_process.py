"""Pages of a running refinement: drawn beside it, one at a time; given up when the last is written; failures told."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_folder import make_run_folder

import verglas as vg
from verglas.report.html import Page
from verglas.run import page_process
from verglas.run.live_page import LivePage
from verglas.run.page_process import PageProcess
from verglas.run.refine_folder import RefineFolder
from verglas.run.refine_memory import MemoryPlan
from verglas.run.tenure import tenure

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


def test_what_cannot_begin_is_told_and_what_was_told_to_end_is_not(tmp_path):
    said = []
    PageProcess(tmp_path, said.append, [str(tmp_path / "no_python")]).ask()
    assert len(said) == 1
    assert "its page was not drawn" in said[0]
    said.clear()
    for end in ("raise SystemExit(130)", "import os; os.kill(os.getpid(), 15)"):  # Ctrl-C and SIGTERM reach all
        pages = PageProcess(tmp_path, said.append, [*QUICK, end])
        pages.ask()
        pages.wait()
    assert said == []


def test_a_page_is_drawn_by_the_modules_of_the_job_and_none_of_the_folder_it_runs_in(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "selectors.py").write_text("raise SystemExit('the wrong module')")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "of_the_job.py").write_text("import selectors")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "own")
    said = []
    pages = PageProcess(tmp_path, said.append, [sys.executable, "-m", "of_the_job"])
    pages.ask()
    pages.wait()
    if sys.version_info >= (3, 11):  # before that the folder it runs in comes first
        assert said == []


def test_a_page_that_says_more_than_a_pipe_holds_ends(tmp_path):
    said = []
    told = "import sys; sys.stderr.write('warning\\n' * 50_000); raise SystemExit('no disk')"
    pages = PageProcess(tmp_path, said.append, [*QUICK, told])
    pages.ask()
    assert pages._process.wait(10) == 1
    pages.wait()
    assert said == [f"{tmp_path}: its page was not drawn: no disk"]


@pytest.mark.parametrize("what", ["tempfile.TemporaryFile", "os.pipe"])
def test_a_full_disk_or_no_more_files_end_no_job(tmp_path, monkeypatch, what):
    """The page is only told of; before, a full /tmp ended the job that it was to show."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    said = []
    pages = PageProcess(tmp_path, said.append, [*QUICK, "pass"])
    with monkeypatch.context() as patched:
        patched.setattr(what, fail)
        pages.ask()
    assert said == [f"{tmp_path}: its page was not drawn: [Errno 28] No space left on device"]
    pages.ask()  # when there is room again
    pages.wait()
    assert len(said) == 1


@pytest.mark.parametrize(("limit_GB", "beside"), [(0.6, False), (0.9, True)])
def test_a_page_is_drawn_beside_the_job_where_memory_is_left_for_it(tmp_path, limit_GB, beside):
    with tenure(tmp_path, "refine") as hold:
        folder = RefineFolder(tmp_path, {}, hold)
        folder.plan(MemoryPlan({"poses": 0.5}, limit_GB, 1, cached=True), ("cpu",))
        assert folder._page_beside is beside


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


def test_a_page_of_what_a_job_hands_over_is_as_it_was_when_it_was_asked_for(tmp_path):
    """By the process, in its own time: what changes in the job meanwhile is of the next page."""
    page, said, lines = LivePage(tmp_path / "page.html", print), [], ["as asked"]
    page.next = 0.0
    page._pages = PageProcess(tmp_path, said.append)
    page.show(page_of_lines, lines)
    lines.append("later")
    page._pages.wait()
    text = (tmp_path / "page.html").read_text()
    assert "as asked" in text
    assert "later" not in text
    assert said == []
    page.next = 0.0
    page.beside = False  # no memory for it: the job draws
    page.show(page_of_lines, lines)
    assert "later" in (tmp_path / "page.html").read_text()


def page_of_lines(lines):
    """A page without figures."""
    return Page("Test", " ".join(lines), {}, [], "")


JOB = """
import sys, time
from pathlib import Path
from verglas.run.page_process import PageProcess
pages = PageProcess(Path(sys.argv[1]), print)
pages.ask(time.sleep, 60)
print(pages._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_page_ends_with_its_job_also_by_sigkill(tmp_path, ignored):
    """Nobody waits for it; also where a shell that starts jobs in the background has them ignore SIGINT."""
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None,
    )
    pid = int(job.stdout.readline())
    time.sleep(1.0)
    assert lives(pid)
    job.kill()
    job.wait()
    end = time.monotonic() + 20
    while lives(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not lives(pid)


def lives(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
