"""How quick this machine's kernels are beside those of the reference that forecasts were fitted on."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from verglas import _native
from verglas._version import __version__
from verglas.run.benchmark import SHORT, problem_named
from verglas.run.benchmark_reference import SECONDS
from verglas.run.machine import processor_name

_MOST_S = 0.4  # of measuring
_FILE = "speed.json"
_SLOWEST, _QUICKEST = 1e-3, 1e3  # of speeds that a machine can have


def cache_folder() -> Path:
    """Where what was measured is kept for later runs of the same user.

    Raises
    ------
    RuntimeError
        The user has no home folder, as in a container under a number that no account has.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "verglas"


def machine_speed() -> float:
    """How many times quicker than the reference one core of this machine is; measured once, then read.

    Returns
    -------
    float
        Geometric mean over the short kernels of ``verglas benchmark``, by processor time, so that what else runs on the
        machine hardly counts.

    Examples
    --------
    >>> from verglas.run.speed import machine_speed
    >>> 0.01 < machine_speed() < 100
    True
    """
    # Another build or another machine that shares the home folder is as quick as it is, not as this one was.
    key = f"{__version__} {_native.core.isa} {processor_name()}"
    try:
        path = cache_folder() / _FILE
    except RuntimeError:
        return _measure()
    known = _read_speeds(path)
    if key in known:
        return known[key]
    speed = _measure()
    # A home folder that cannot be written costs half a second again, no more.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name of the machine: two that share the home folder may have processes of one number.
        temporary = path.with_name(f"{_FILE}.{platform.node()}.{os.getpid()}")
        temporary.write_text(json.dumps({**known, key: float(f"{speed:.4g}")}), encoding="utf-8")
        temporary.replace(path)
    return speed


def _read_speeds(path: Path) -> dict[str, float]:
    """What was measured before; a damaged file, or a number that is no speed, is measured again."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    speeds = {key: value for key, value in known.items() if isinstance(value, int | float)}
    return {key: float(value) for key, value in speeds.items() if _SLOWEST < value < _QUICKEST}


def _measure() -> float:
    ratios = [SECONDS[name] / _least_s(problem_named(name), _MOST_S / len(SHORT)) for name in SHORT]
    return float(np.exp(np.mean(np.log(ratios))))


def _least_s(call: Callable[[], object], most_s: float) -> float:
    """Least processor time of as many calls as fit, two at least."""
    begun, least = time.perf_counter(), np.inf
    for number in range(100):
        before = time.process_time()
        call()
        least = min(least, time.process_time() - before)
        if number and time.perf_counter() - begun > most_s:
            break
    return max(float(least), 1e-9)
