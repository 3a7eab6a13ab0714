"""--profile of every command: taken from the arguments, sampled while the command runs, failures told."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from verglas.cli import main, sampling
from verglas.errors import VerglasWarning

# Writes its file when it is told to end, as py-spy does.
WRITER = """
import signal, sys, time
def end(*_):
    open(sys.argv[1], "w").write("chart")
    sys.exit(0)
signal.signal(signal.SIGINT, end)
open(sys.argv[1] + ".began", "w").close()
time.sleep(60)
"""


# Cannot look into the process, whenever it is told to end.
# It tells more than a pipe holds.
REFUSED = """
import signal, sys
sys.stderr.write("behind in sampling\\n" * 10_000)
signal.signal(signal.SIGINT, signal.SIG_IGN)
open(sys.argv[1] + ".began", "w").close()
sys.exit("Permission denied: try again as root")
"""


def until_it_began(path):
    end = time.monotonic() + 10
    while not path.with_name(f"{path.name}.began").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def use_sampler(monkeypatch, code):
    command = [sys.executable, "-S", "-E", "-c", code]
    monkeypatch.setattr(sampling, "_sampler", lambda path: [*command, str(path)])


def test_the_option_may_stand_anywhere_and_says_what_it_takes():
    assert sampling.taken_profile(["fsc", "a", "--profile=x.json"]) == (["fsc", "a"], Path("x.json"))
    assert sampling.taken_profile(["--profile", "x.svg", "fsc"]) == (["fsc"], Path("x.svg"))
    assert sampling.taken_profile(["fsc", "--", "--profile"]) == (["fsc", "--", "--profile"], None)
    for given in (["--profile"], ["--profile", "x.png"]):
        with pytest.raises(typer.BadParameter, match=r"expected a file that ends in \.svg, \.json, \.txt"):
            sampling.taken_profile(given)
    with pytest.raises(typer.BadParameter, match="folder nowhere does not exist"):
        sampling.taken_profile(["info", "--profile", "nowhere/x.svg"])


def test_the_chart_is_asked_for_when_the_command_has_ended(tmp_path, monkeypatch):
    use_sampler(monkeypatch, WRITER)
    path = tmp_path / "x.svg"

    def command():
        with sampling.sample_stacks(path):
            until_it_began(path)
            assert not path.exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()
    assert path.read_text() == "chart"


def test_a_chart_that_was_not_made_is_a_warning(tmp_path, monkeypatch):
    use_sampler(monkeypatch, REFUSED)
    path = tmp_path / "x.svg"
    told = r"--profile: .*x\.svg was not written: Permission denied"
    with pytest.warns(VerglasWarning, match=told), sampling.sample_stacks(path):
        until_it_began(path)


def test_without_py_spy_the_call_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SystemExit) as stop:
        main(["info", "--profile", str(tmp_path / "x.svg")])
    assert stop.value.code == 2
    assert "needs py-spy, which is not installed" in capsys.readouterr().err


@pytest.mark.slow
def test_py_spy_draws_the_command(tmp_path):
    if shutil.which("py-spy") is None and not Path(sys.executable).with_name("py-spy").is_file():
        pytest.skip("py-spy is not installed")
    path = tmp_path / "flame.txt"
    command = [sys.executable, "-m", "verglas", "info", "--profile", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "was not written" in done.stderr and "ermission" in done.stderr:
        pytest.skip("this machine lets nobody look into a process")
    assert done.returncode == 0, done.stderr
    assert "verglas/cli/app.py" in path.read_text()
