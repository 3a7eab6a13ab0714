"""Damaged files: how many end in an exception of a library. Writes bench/results/fuzz.json; goes on where it stopped.

The cases are those of tests/fuzz/damage.py, by number; a failure is written with its kind and number, so that
``failure(kind, number, folder)`` shows it again.

    python bench/bench_fuzz.py --cases 6250 --minutes 9
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from common import collect

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from fuzz.damage import READERS, failure

_TOGETHER = 250  # files of one trial


def some_cases(kind: str, first: int, count: int) -> dict[str, Any]:
    """Cases ``first`` to ``first + count`` of a kind."""
    begun, failures = time.process_time(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            message = failure(kind, number, Path(folder))
            if message is not None:
                failures.append(message)
    return {"files": count, "failures": failures, "processor_seconds": round(time.process_time() - begun, 2)}


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Counts per kind, and of all."""
    rows = []
    for kind in [*dict.fromkeys(key.rsplit(" ", 1)[0] for key in done), "all"]:
        those = [one for key, one in done.items() if kind in ("all", key.rsplit(" ", 1)[0])]
        rows.append(
            {
                "what": kind,
                "files": sum(one["files"] for one in those),
                "failures": sum(len(one["failures"]) for one in those),
                "processor_seconds": sum(one["processor_seconds"] for one in those),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=6250, help="files of each kind")
    parser.add_argument("--kind", choices=READERS, help="only this kind")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new files after so long; goes on next time")
    given = parser.parse_args()
    kinds = [given.kind] if given.kind else list(READERS)
    trials: dict[str, Callable[[], Any]] = {
        f"{kind} {first}": partial(some_cases, kind, first, min(_TOGETHER, given.cases - first))
        for first in range(0, given.cases, _TOGETHER)
        for kind in kinds
    }
    collect("fuzz", trials, summary, given.minutes)


if __name__ == "__main__":
    main()
