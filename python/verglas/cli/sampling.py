"""``--profile FILE`` of every command: where its time goes, as a flame chart that py-spy draws while it runs."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import typer

from verglas.errors import VerglasWarning

OPTION = "--profile"
_FORMATS = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}
_RATE_PER_S = 100
_WAIT_S = 60.0  # for the chart to be written
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


def taken_profile(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without ``--profile FILE``, and the file.

    Raises
    ------
    typer.BadParameter
        No file, one of a kind that is not known, or in a folder that does not exist.

    Examples
    --------
    >>> from verglas.cli.sampling import taken_profile
    >>> taken_profile(["refine", "--profile", "flame.svg", "particles.star"])
    (['refine', 'particles.star'], PosixPath('flame.svg'))
    """
    rest: list[str] = []
    path = None
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if argument == "--":
            rest += [argument, *left]
        elif name == OPTION:
            path = Path(value if equals else next(left, "")).expanduser()
            if path.suffix not in _FORMATS:
                raise typer.BadParameter(
                    f"expected a file that ends in {', '.join(_FORMATS)}, got {str(path)!r}", param_hint=OPTION
                )
            if not path.parent.is_dir():  # py-spy would find out when all is over
                raise typer.BadParameter(f"the folder {path.parent} does not exist", param_hint=OPTION)
        else:
            rest.append(argument)
    return rest, path


def _sampler(path: Path) -> list[str]:
    """py-spy's command for this process.

    Raises
    ------
    typer.BadParameter
        It is not installed.
    """
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.is_file() else shutil.which("py-spy")
    if program is None:
        raise typer.BadParameter("needs py-spy, which is not installed: pip install py-spy", param_hint=OPTION)
    how = ["--format", _FORMATS[path.suffix], "--rate", str(_RATE_PER_S), "--output", str(path)]
    return [program, "record", "--pid", str(os.getpid()), *how]


@contextmanager
def sample_stacks(path: Path | None) -> Iterator[None]:
    """Sample this process while the block runs, and write the chart; a chart that cannot be made is a warning."""
    if path is None:
        yield
        return
    command = _sampler(path)
    _allow_to_be_watched()
    # A file, not a pipe: of hours on a busy machine it tells more than a pipe holds, and would stand still then.
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=told,
            start_new_session=True,  # Ctrl-C is for the command; the chart is asked for when that has ended
        )
        try:
            yield
        finally:
            _end(process, path, told)


def _end(process: subprocess.Popen[bytes], path: Path, output: IO[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    late = ""
    try:
        process.wait(timeout=_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        late = f"it did not end within {_WAIT_S:g} s"
    output.seek(0)
    told = output.read() or late
    if process.returncode != 0 or not path.is_file():
        lines = told.strip().splitlines() or [f"py-spy ended with exit status {process.returncode}"]
        warnings.warn(f"{OPTION}: {path} was not written: {lines[-1]}", VerglasWarning, stacklevel=2)


def _allow_to_be_watched() -> None:
    """Linux with Yama lets only ancestors look into a process, unless it asks for more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
