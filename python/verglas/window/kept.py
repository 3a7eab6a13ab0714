"""The last few results of a costly call, for all readers of the pages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

Value = TypeVar("Value")


def file_stamp(path: Path) -> tuple[int, int]:
    """When a file or folder changed last, ns, and its bytes."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


class Kept(Generic[Value]):
    """Results by key, those that were asked for last; two readers at once do not both make one.

    Parameters
    ----------
    most : int
        Results kept.

    Examples
    --------
    >>> from verglas.window.kept import Kept
    >>> calls: list[int] = []
    >>> kept = Kept[int](2)
    >>> [kept.get(key, lambda key=key: calls.append(key) or 10 * key) for key in (1, 2, 1, 3, 1, 2)], calls
    ([10, 20, 10, 30, 10, 20], [1, 2, 3, 2])
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The result of a key, made if it is not there; what ``make`` raises is not kept."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > self.most:
                self._values.popitem(last=False)
            return self._values[key]

    def of_file(self, path: Path, make: Callable[[], Value]) -> Value:
        """What is made of a file or a folder, once more when it has changed."""
        return self.get((path, *file_stamp(path)), make)
