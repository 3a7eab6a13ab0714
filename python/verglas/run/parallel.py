"""Work on many files at a time, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from verglas._native import resolve_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(one: Callable[[Item], Result], items: Iterable[Item], threads: int | None) -> Iterator[Result]:
    """``one(item)`` of every item in order, worked on in threads.

    One more item than there are threads is under way at any time, so memory stays bounded however many there are.

    Parameters
    ----------
    one : callable
        Must not share state between items; what it raises is raised here.
    items : iterable
    threads : int, optional
        All processors of this process by default.

    Examples
    --------
    >>> from verglas.run.parallel import in_order
    >>> list(in_order(lambda x: x * x, range(5), 2))
    [0, 1, 4, 9, 16]
    """
    count = resolve_threads(threads)
    with ThreadPoolExecutor(count) as pool:
        rest = iter(items)
        waiting: list[Future[Result]] = [pool.submit(one, item) for item in islice(rest, count + 1)]
        while waiting:
            # The oldest, though another may be ready: results keep their order, and few wait in memory.
            result = waiting.pop(0).result()
            waiting += [pool.submit(one, item) for item in islice(rest, 1)]
            yield result
