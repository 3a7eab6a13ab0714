"""The listener people see: bars on a terminal and in a notebook, a line now and then in a log; on standard error."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from verglas.types.listener import Listener, Silence

# What jobs take for ``listener``: the screen, silence, or an object of the caller's.
ListenerChoice = Listener | Literal["screen"] | None

_LINE_EVERY_S = 30.0  # between two lines in a log; the end of a phase has a line of its own


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process."""
    get = sys.modules.get("IPython")
    shell = get.get_ipython() if get is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


class Screen(Silence):
    """Shows a job. Use it in a ``with`` statement, which leaves the terminal as it was.

    Parameters
    ----------
    lines_only : bool, optional
        Plain lines instead of bars; by default where standard error is neither a terminal nor a notebook.
    describe : callable, optional
        Sentence of an iteration's figures; by default the figures themselves.
    """

    def __init__(
        self, lines_only: bool | None = None, describe: Callable[[Mapping[str, Any]], str] | None = None
    ) -> None:
        plain = not (sys.stderr.isatty() or in_notebook()) if lines_only is None else lines_only
        self._bars: Any = None if plain else _bars()
        self._describe = describe or _describe
        self._tasks: dict[str, Any] = {}
        self._begun: dict[str, float] = {}
        self._last_line = time.monotonic()
        self._lock = threading.Lock()  # one bar, several threads of devices

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}

    def say(self, line: str) -> None:
        """One line; above the bars where there are some."""
        if self._bars is not None and self._tasks:
            self._bars.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """One line per iteration."""
        self.say(self._describe(figures))

    def note(self, code: str, sentence: str) -> None:
        """A warning, so marked."""
        self.say(f"{code}: {sentence}")

    def progress(self, phase: str, done: int, total: int) -> None:
        """Move the bar of a phase, or write a line if the last one is old."""
        with self._lock:
            if self._bars is not None:
                self._move_bar(phase, done, total)
            else:
                self._write_line(phase, done, total)

    def _move_bar(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            if not self._tasks:
                self._bars.start()
            self._tasks[phase] = self._bars.add_task(phase, total=total)
        self._bars.update(self._tasks[phase], completed=done, total=total)
        if done >= total:  # a long job has hundreds of phases: those that ended make room
            self._bars.remove_task(self._tasks.pop(phase))

    def _write_line(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        begun = self._begun.setdefault(phase, now)
        if done < total and now - self._last_line < _LINE_EVERY_S:
            return
        if done >= total:
            del self._begun[phase]
            if now - begun < _LINE_EVERY_S / 10:  # what took no time needs no line
                return
        self._last_line = now
        rate = done / max(now - begun, 1e-3)
        left = f", {(total - done) / rate:.0f} s left" if 0 < done < total and rate > 0 else ""
        print(f"{phase}: {done} of {total}{left}", file=sys.stderr, flush=True)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=None if in_notebook() else Console(stderr=True),
        transient=True,
    )


def _describe(figures: Mapping[str, Any]) -> str:
    shown = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    ]
    return "  ".join(shown)


@contextmanager
def shown_to(choice: ListenerChoice, describe: Callable[[Mapping[str, Any]], str] | None = None) -> Iterator[Listener]:
    """The listener that a caller's choice stands for; a screen made here is closed at the end.

    Examples
    --------
    >>> from verglas._screen import shown_to
    >>> with shown_to(None) as listener:
    ...     listener.say("nobody reads this")
    """
    if choice is None:
        yield Silence()
    elif choice == "screen":
        if os.environ.get("VERGLAS_PROGRESS") == "0":
            yield Silence()
            return
        with Screen(describe=describe) as screen:
            yield screen
    else:
        yield choice
