"""Progress of a job: bars on a terminal, a plain line now and then in a log; both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Seconds between two lines in a log; a stage's end has a line of its own.
_LINE_EVERY = 30.0


@contextmanager
def shown_stages(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function of (stage, done, total) to call as the job goes on; a bar for every stage."""
    if quiet:
        yield lambda stage, done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def update(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done, total=total)

            yield update
    else:
        last = [time.monotonic()]

        def line(stage: str, done: int, total: int) -> None:
            now = time.monotonic()
            if done >= total or now - last[0] >= _LINE_EVERY:
                last[0] = now
                print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)

        yield line


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total): a job of one stage."""
    with shown_stages() as update:
        yield lambda done, total: update(what, done, total)


def say_set_aside(reasons: Mapping[str, str], account: Path, most: int = 10) -> None:
    """A line for each of the first files that could not be used, and where all of them stand."""
    for name, reason in list(reasons.items())[:most]:
        print(f"set aside: {name}: {reason}")
    if len(reasons) > most:
        print(f"set aside: {len(reasons) - most} more, in {account}")


def say_verdict(state: str, reasons: Sequence[str]) -> None:
    """Whether to go on, and why not."""
    print("; ".join([f"verdict: {state}", *reasons]))
