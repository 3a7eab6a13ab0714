"""Progress of a job: a bar on a terminal, a plain line now and then in a log; both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Seconds between two lines in a log.
_LINE_EVERY = 30.0


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total) to call as the job goes on."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last = [time.monotonic()]

    def line(done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _LINE_EVERY:
            last[0] = now
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

    yield line
