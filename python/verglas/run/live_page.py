"""A page that is written again while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verglas._version import __version__
from verglas.errors import InputError
from verglas.io import read_json, write_text
from verglas.report.html import Page, render
from verglas.run.page_process import PageProcess
from verglas.run.tenure import now_text

SHOWN = "shown"  # of a summary: what the page shows and other files do not hold
EVERY_S = 20.0
_COST = 50  # a page waits so many times as long as the last one took to draw: two per cent of the time


def footer_text(*more: object) -> str:
    """What stands at the foot of every page."""
    return ", ".join([f"verglas {__version__}", now_text(), *map(str, more)])


def finished_summary(path: Path, job: str, page: str) -> dict[str, Any]:
    """Summary of a run that has ended, with :data:`SHOWN` in it: what its page is written again from.

    Raises
    ------
    InputError
        The run has not finished, or is of a version that did not keep what the page shows.
    """
    if not path.is_file():
        raise InputError(f"{path.parent}: this {job} has not finished; while it runs it writes {page} itself")
    summary: dict[str, Any] = read_json(path)
    if SHOWN not in summary:
        raise InputError(f"{path}: of a version that did not keep what the page shows; give the same command again")
    return summary


def write_page(path: Path, draw: Callable[..., Page], *arguments: Any) -> None:
    """Draw a page and write it."""
    write_text(path, render(draw(*arguments)))


class LivePage:
    """Writes a page now and then, by a process beside the job; the run's last page takes its place.

    Parameters
    ----------
    path : Path
        Of the page.
    say : callable
        Told why a page could not be drawn.

    Attributes
    ----------
    beside : bool
        Whether memory is left for that process; without, the job draws between its iterations.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        # Not at once: what ends sooner needs no page of its course.
        self.path, self.next = path, time.monotonic() + EVERY_S
        self.beside = True
        self._pages = PageProcess(path.parent, say)

    def show(self, draw: Callable[..., Page], *arguments: Any, now: bool = False) -> None:
        """Have ``draw``, a function of a module, make the page of these arguments, if it is time or must be ``now``."""
        start_time = time.monotonic()
        if not now and start_time < self.next:
            return
        if self.beside and not now:
            self._pages.ask(write_page, self.path, draw, *arguments)
            self.next = time.monotonic() + EVERY_S
            return
        self.stop()
        write_page(self.path, draw, *arguments)
        end = time.monotonic()
        self.next = end + max(EVERY_S, _COST * (end - start_time))

    def stop(self) -> None:
        """Give up the page that is being drawn: the last one must not be replaced by it."""
        self._pages.stop()
