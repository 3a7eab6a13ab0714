"""One page for all who wait for it: readers that ask for the same thing at the same time share one making."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class _Making(Generic[Made]):
    """One making, and those who wait for it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.values: list[Made] = []
        self.error: BaseException | None = None

    def outcome(self) -> Made:
        if self.error is not None:
            raise self.error
        return self.values[0]


class SharedWork(Generic[Made]):
    """Makes what several threads ask for once, and never hands out what was begun before they asked.

    A thread that asks while a page is being made may not take that page: files may have changed since it was begun, by
    this very reader. All who ask in the meantime share the next one. Nothing is kept once everybody has it.

    Examples
    --------
    >>> from verglas.window.shared_work import SharedWork
    >>> SharedWork()("/", lambda: b"page")
    b'page'
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[str, _Making[Made]] = {}
        self._current: dict[str, _Making[Made]] = {}

    def __call__(self, key: str, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, or raises, here or in a thread that asked for the same key.

        Parameters
        ----------
        key : str
            What is asked for.
        make : callable
        """
        with self._lock:
            making = self._next.get(key)
            if making is None:
                mine = self._next[key] = _Making()
        if making is not None:
            making.done.wait()
            return making.outcome()
        self._make(key, mine, make)
        return mine.outcome()

    def _make(self, key: str, mine: _Making[Made], make: Callable[[], Made]) -> None:
        with self._lock:
            before = self._current.get(key)
        if before is not None:
            before.done.wait()
        with self._lock:
            self._current[key] = self._next.pop(key)
        try:
            mine.values.append(make())
        except BaseException as error:
            mine.error = error  # of everyone who waits
        finally:
            with self._lock:
                del self._current[key]
            mine.done.set()
