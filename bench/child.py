"""A command in a process of its own: wall time, peak memory, what it printed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

import verglas as vg

VERGLAS = [sys.executable, "-m", "verglas.cli"]
_SAMPLED_S = 0.02


def run(command: Sequence[str], folder: Path | None = None) -> tuple[float, float, str]:
    """Wall seconds, peak memory in GB and standard output of a command; ends the program if it fails.

    The peak is the largest resident size seen while it runs: the child's ru_maxrss would hold this process's own peak.
    """
    # A command of verglas must find the one that this script imported, also in a source tree.
    environment = os.environ | {"PYTHONPATH": str(Path(vg.__file__).parents[1])}
    started = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    process, peak = psutil.Process(child.pid), 0
    told: list[str] = []
    assert child.stdout is not None
    reader = threading.Thread(target=lambda pipe=child.stdout: told.append(pipe.read()))
    reader.start()
    while child.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, process.memory_info().rss)
        time.sleep(_SAMPLED_S)
    reader.join()
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with status {child.returncode}")
    return time.perf_counter() - started, peak / 1e9, told[0]


def command(arguments: Sequence[str]) -> tuple[float, float, str]:
    """:func:`run` of a command of verglas."""
    return run([*VERGLAS, *arguments])
