"""What has changed in the jobs: one look for all readers, told to each as server-sent events."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress

from verglas.window.folders import Folders
from verglas.window.job import Job

EVERY_S = 1.0
_COST = 20  # a look is followed by a pause so many times as long
_SILENCE_S = 15.0  # a comment as often: a connection that has gone is noticed by writing to it
_LOOKED_AT = (
    "",
    "run.json",
    "iterations.csv",
    "history",
    "records",
    "pictures",
    "candidates",
    "checkpoint",
    "verdict.json",
    "stalled.log",
    "run.out",
)


def signature(job: Job) -> str:
    """Of all that a page of the job shows: another one means that it has changed."""
    stamps = []
    for name in _LOOKED_AT:
        with suppress(OSError):
            stamps.append(os.stat(job.folder / name).st_mtime_ns)
    return f"{hash((job.state, job.verdict, job.phase, job.done, *stamps)) & 0xFFFFFFFFFFFF:012x}"


class Watch:
    """Looks at the jobs as long as somebody reads.

    Parameters
    ----------
    folders : Folders
    every_s : float
        Between two looks, or longer where a look takes long.
    """

    def __init__(self, folders: Folders, every_s: float = EVERY_S) -> None:
        self.folders, self.every_s = folders, every_s
        self.readers = 0
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._signatures: dict[str, str] = {}
        self._version = 0

    def _look(self) -> dict[str, str]:
        return {key: signature(job) for key, job in self.folders.jobs().items()}

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while self.readers:
            start_time = clock()
            now = await asyncio.to_thread(self._look)
            if now != self._signatures:
                async with self._changed:
                    self._signatures, self._version = now, self._version + 1
                    self._changed.notify_all()
            await asyncio.sleep(max(self.every_s, _COST * (clock() - start_time)))

    async def _changes_after(self, version: int) -> bool:
        """Wait for a change; whether there was one in time."""
        try:
            async with self._changed:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._version != version), _SILENCE_S)
        except asyncio.TimeoutError:
            return False
        return True

    async def events(self) -> AsyncIterator[bytes]:
        """Changes as they come, as lines of an event stream; the first says what there is."""
        self.readers += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())
            told: dict[str, str] = {}
            seen = -1
            while True:
                changed = {key: value for key, value in self._signatures.items() if told.get(key) != value}
                gone = [key for key in told if key not in self._signatures]
                if seen != self._version and (changed or gone or seen < 0):
                    told, seen = dict(self._signatures), self._version
                    yield f"data: {json.dumps({'changed': sorted(changed), 'gone': gone})}\n\n".encode()
                    continue
                seen = self._version
                if not await self._changes_after(seen):
                    yield b": still here\n\n"
        finally:
            self.readers -= 1
