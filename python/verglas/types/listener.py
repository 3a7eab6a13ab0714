"""Who is told how a computation goes: one protocol for every job, and the listener that keeps silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Listener(Protocol):
    """What a job tells while it runs. A job never waits for its listener and never reads anything back from it.

    Every public job takes ``listener=``: the default shows a bar on a terminal and in a notebook and a line now and
    then elsewhere; ``None`` is silence; an object with these four methods gets the calls. The functions that jobs are
    made of take it, too, and keep silent by default.
    """

    def say(self, line: str) -> None:
        """Take one sentence: a plan, a choice that was made, what was set aside."""

    def progress(self, phase: str, done: int, total: int) -> None:
        """Take how many of the items of a phase are done; a phase may be announced with 0 done."""

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Take the figures of an iteration that has ended: the row of ``iterations.csv``."""

    def note(self, code: str, sentence: str) -> None:
        """Take a warning or verdict that the page repeats; ``code`` is a word that scripts can test."""


class Silence:
    """A listener that shows nothing; base of those that want some of the calls only."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def progress(self, phase: str, done: int, total: int) -> None:
        """Show nothing."""

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Show nothing."""

    def note(self, code: str, sentence: str) -> None:
        """Show nothing."""


Progress = Callable[[str, int, int], None]  # phase, done, in all


def count_phase(progress: Progress | None, phase: str, total: int) -> Callable[[int], None]:
    """The progress of one phase as a function of how many more are done.

    Examples
    --------
    >>> from verglas.types.listener import count_phase
    >>> tick = count_phase(lambda *told: print(*told), "particles", 5)
    >>> tick(2)
    particles 2 5
    >>> tick(3)
    particles 5 5
    """
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(phase, done, total)

    return tick


def phase_progress(listener: Listener | None, phase: str) -> Callable[[int, int], None]:
    """The listener's progress for one phase, as a function of (done, total); without a listener nobody is told.

    Examples
    --------
    >>> from verglas.types.listener import Silence, phase_progress
    >>> phase_progress(Silence(), "micrographs")(1, 10)
    """

    def tell(done: int, total: int) -> None:
        if listener is not None:
            listener.progress(phase, done, total)

    return tell
