"""Where time goes: seconds of each op and bytes read, counted in one process; jobs tell them by phase.

An op inside another one is part of that one. Threads are added up: two that work for a second side by side are two
seconds.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Counts:
    """What has been counted.

    Attributes
    ----------
    seconds, calls : dict of op -> number
    bytes_read : int
        Of images, from files.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    bytes_read: int = 0

    def since(self, before: Counts) -> Counts:
        """What has been counted since; ops that were not called are left out."""
        called = [name for name, n in self.calls.items() if n > before.calls.get(name, 0)]
        return Counts(
            {name: self.seconds[name] - before.seconds.get(name, 0.0) for name in called},
            {name: self.calls[name] - before.calls.get(name, 0) for name in called},
            self.bytes_read - before.bytes_read,
        )


class _Counter:
    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), threading.local()
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.bytes_read = 0


_COUNTER = _Counter()


def counts() -> Counts:
    """All that this process has counted so far."""
    with _COUNTER.lock:
        return Counts(dict(_COUNTER.seconds), dict(_COUNTER.calls), _COUNTER.bytes_read)


def count_read(n_bytes: int) -> None:
    """Count bytes that were read from a file of images."""
    with _COUNTER.lock:
        _COUNTER.bytes_read += n_bytes


@contextmanager
def timing(name: str) -> Iterator[None]:
    """Count what follows as one call of an op, unless it is part of another op."""
    inside = _COUNTER.inside
    if getattr(inside, "op", False):
        yield
        return
    inside.op = True
    begun = time.perf_counter()
    try:
        yield
    finally:
        inside.op = False
        seconds = time.perf_counter() - begun
        with _COUNTER.lock:
            _COUNTER.seconds[name] = _COUNTER.seconds.get(name, 0.0) + seconds
            _COUNTER.calls[name] = _COUNTER.calls.get(name, 0) + 1


def time_calls(name: str, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, whose calls are counted under a name: a few microseconds each.

    Examples
    --------
    >>> from verglas.types.profile import counts, time_calls
    >>> before = counts()
    >>> double = time_calls("double", lambda x: time_calls("inner", lambda y: 2 * y)(x))
    >>> double(2), double(3), counts().since(before).calls
    (4, 6, {'double': 2})
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with timing(name):
            return function(*args, **kwargs)

    return call
