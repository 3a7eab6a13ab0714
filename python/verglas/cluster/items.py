"""Many items, each worked on by itself by a worker of a cluster; results in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from verglas.cluster import worker
from verglas.cluster.connect import Workers
from verglas.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(workers: Workers, one: Callable[[Item], Result], items: Iterable[Item], *, job: str) -> Iterator[Result]:
    """``one(item)`` of every item in order, on workers: :func:`verglas.run.parallel.in_order` elsewhere.

    A few more items than there are workers are under way at any time. What a lost worker had is done again by another,
    so ``one`` may only write files as a whole, the same ones each time.

    Parameters
    ----------
    workers : Workers
    one : callable
        A function of this package, or a partial of one, with arguments that can be sent.
    items : iterable
    job : str
        Who asks, for messages.

    Raises
    ------
    InputError
        An item ended every worker that took it.
    """
    from distributed import KilledWorker

    folder = os.getcwd()
    rest = iter(items)
    room = 2 * max(1, len(workers.addresses()))
    waiting = [workers.client.submit(_do, one, item, folder, pure=False) for item in islice(rest, room)]
    while waiting:
        try:
            result = waiting[0].result()
        except KilledWorker as error:
            raise InputError(f"{job}: an item ended every worker that took it, out of memory most likely") from error
        waiting.pop(0)
        waiting += [workers.client.submit(_do, one, item, folder, pure=False) for item in islice(rest, 1)]
        yield result


def _do(one: Callable[[Item], Result], item: Item, folder: str) -> Result:
    with worker.alone_in(folder):
        return one(item)
