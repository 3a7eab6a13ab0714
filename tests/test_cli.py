"""The command line: every command helps, statuses 0, 1 and 2, one line per failure and no traceback without --debug."""

from __future__ import annotations

import importlib
import json
import runpy
import sys

import pytest
import typer
from command_line import main

import verglas as vg
from verglas.cli import app as application
from verglas.errors import InputError


def command_names() -> list[str]:
    """Commands as a user types them."""
    fresh = typer.Typer()
    for name in application._COMMANDS:
        importlib.import_module(f"verglas.cli.{name}").register(fresh)
    return [c.name or c.callback.__name__.replace("_", "-") for c in fresh.registered_commands]


@pytest.mark.parametrize("name", command_names())
def test_every_command_helps(name, capsys):
    status, out, _ = main([name, "--help"], capsys)
    assert status == 0
    assert "Usage: verglas " + name in " ".join(out.split())
    assert "Example" in out


def test_help_shows_defaults_in_brackets(capsys, monkeypatch):
    """What lays out the help takes [word] for markup unless it is told not to."""
    monkeypatch.setenv("COLUMNS", "160")
    for _ in range(2):  # commands are registered anew each time
        _, text, _ = main(["pick", "--help"], capsys)
        for words in ("[their headers']", "[all processors]", "[0.7 diameters]", "[half a diameter]", "[default: C1]"):
            assert words in text
        assert "\\[" not in text


def test_the_list_of_commands(capsys):
    status, out, _ = main(["--help"], capsys)
    assert status == 0
    assert all(name in out for name in command_names())


def test_version(capsys):
    assert main(["--version"], capsys)[:2] == (0, f"{vg.__version__}\n")


def test_info_as_json(capsys):
    status, out, _ = main(["info", "--json"], capsys)
    found = json.loads(out)
    assert status == 0
    assert found["version"] == vg.__version__
    assert found["isa"] in found["isa_usable"]
    assert found["devices"][0] == "cpu"
    assert found["threads"] >= 1
    assert set(found["cuda"]) >= {"built", "reason", "devices"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-command"], "No such command"),
        (["info", "--no-such-option"], "No such option"),
        (["demo", "--n", "many"], "valid integer"),
        (["demo", "--snr", "-1"], "--snr: expected more than 0"),
    ],
)
def test_usage_errors_are_status_2(arguments, words, capsys):
    status, out, err = main(arguments, capsys)
    assert status == 2
    assert words in err
    assert "Traceback" not in out + err


@pytest.fixture
def failing(monkeypatch):
    """A command ``fail`` that raises what the test puts into the list."""
    raises: list[BaseException] = []

    def fail() -> None:
        raise raises[0]

    monkeypatch.setattr(application, "_COMMANDS", ())
    monkeypatch.setattr(application, "app", typer.Typer(pretty_exceptions_enable=False))
    application.app.callback()(application._options)
    application.app.command()(fail)
    return raises


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("particles.star, line 7: two columns named rlnImageName"), "verglas: particles.star, line 7: two"),
        (FileNotFoundError(2, "No such file or directory", "missing.mrc"), "missing.mrc"),
        (MemoryError(), "verglas: MemoryError"),
        (KeyboardInterrupt(), "verglas: interrupted"),
        (ZeroDivisionError("division by zero"), "run again with --debug"),
    ],
)
def test_failures_are_status_1_in_one_line(failing, capsys, error, words):
    failing.append(error)
    status, out, err = main(["fail"], capsys)
    assert status == 1
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback(failing, arguments):
    failing.append(InputError("wrong"))
    with pytest.raises(InputError, match="wrong"):
        application.main(arguments)


def test_exit_status_of_a_command_is_kept(failing, capsys):
    failing.append(typer.Exit(1))
    assert main(["fail"], capsys)[0] == 1


def test_as_a_module(monkeypatch, capsys):
    """``python -m verglas.cli``, without the start of another process."""
    monkeypatch.setattr(sys, "argv", ["verglas", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("verglas.cli", run_name="__main__")
    assert not stopped.value.code
    assert capsys.readouterr().out.strip() == vg.__version__
