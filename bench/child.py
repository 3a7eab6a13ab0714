"""A command in a process of its own: wall time, peak memory, what it printed; stopped after a while if asked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

import verglas as vg

VERGLAS = [sys.executable, "-m", "verglas.cli"]
_SAMPLED_S = 0.02
_RANKS_SAMPLED_S = 0.5  # the list of all processes is read for it
_END_S = 10.0


@dataclass(frozen=True)
class Watched:
    """What was seen of a command.

    Attributes
    ----------
    seconds : float
        Wall time, to its end or until it was stopped.
    peak_GB : float
        Largest resident size seen while it ran: the child's ru_maxrss would hold this process's own peak.
    output : str
        Standard output; empty where there was a log.
    stopped : bool
        It was stopped at the limit.
    """

    seconds: float
    peak_GB: float
    output: str
    stopped: bool = False


def watch(
    command: Sequence[str],
    folder: Path | None = None,
    *,
    limit_s: float = float("inf"),
    log: Path | None = None,
    ranks: bool = False,
    answers: Sequence[int] = (0,),
) -> Watched:
    """Run a command, at most ``limit_s`` seconds; ends the program if the command fails by itself.

    Parameters
    ----------
    log : path, optional
        Standard output and standard error go there; its end is shown if the command fails.
    ranks : bool
        The command is mpirun: memory is the sum over what it started, itself left out.
    answers : sequence of int
        Statuses that are no failure: of some commands 1 says that nothing was found.
    """
    # A command of verglas must find the one that this script imported, also in a source tree.
    environment = os.environ | {"PYTHONPATH": str(Path(vg.__file__).parents[1])}
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        out: IO[str] | int = subprocess.PIPE if log is None else stack.enter_context(log.open("w"))
        error = None if log is None else subprocess.STDOUT
        started = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=error, text=True)
        reader = threading.Thread(target=lambda: told.append(child.stdout.read() if child.stdout else ""))
        reader.start()
        peak, status = _until(child, started + limit_s, ranks)
        seconds = time.perf_counter() - started
        if status is None:
            _end(psutil.Process(child.pid))
            child.wait()
        reader.join()
    if status not in (None, *answers):
        end = "" if log is None else f":\n{log.read_text()[-2000:]}"
        raise SystemExit(f"{' '.join(command)} failed with status {status}{end}")
    return Watched(seconds, peak / 1e9, told[0], status is None)


def run(command: Sequence[str], folder: Path | None = None) -> tuple[float, float, str]:
    """Wall seconds, peak memory in GB and standard output of a command; ends the program if it fails."""
    seen = watch(command, folder)
    return seen.seconds, seen.peak_GB, seen.output


def command(arguments: Sequence[str]) -> tuple[float, float, str]:
    """:func:`run` of a command of verglas."""
    return run([*VERGLAS, *arguments])


def _until(child: subprocess.Popen[str], end: float, ranks: bool) -> tuple[int, int | None]:
    """Peak in bytes and exit status; None: it still runs at the end of its time."""
    root, peak = psutil.Process(child.pid), 0
    while child.poll() is None and time.perf_counter() < end:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(map(_resident, root.children(recursive=True) if ranks else [root])))
        time.sleep(_RANKS_SAMPLED_S if ranks else _SAMPLED_S)
    return peak, child.poll()


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _end(root: psutil.Process) -> None:
    """Stop a command and what it started, by their numbers."""
    ours = [*root.children(recursive=True), root]
    for process in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(ours, timeout=_END_S)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
