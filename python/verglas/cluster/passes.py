"""Passes over half sets on the workers of a cluster: blocks handed out, taken over, and added by the fixed tree."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from verglas.cluster import worker
from verglas.cluster.connect import Workers
from verglas.errors import InputError
from verglas.search.blocks import add_blocks, levels
from verglas.search.grid_step import HalfSums, Tick
from verglas.search.half_pass import HalfTask
from verglas.search.problem import Problem
from verglas.search.state import PoseTable
from verglas.types import Particles
from verglas.types.arrays import IntArray
from verglas.types.images import ArraySource
from verglas.types.listener import Listener

if TYPE_CHECKING:
    from distributed import Future

_LOOK_S = 10.0
_SPOOL_NAME = re.compile(r"\.?(block|references)_.*\.pickle$")
_ATTEMPTS = 6  # of a pass whose scheduler or workers were lost
_IDLE_LOOKS = 2  # in a row at which workers stand idle beside open blocks


class _WorkersIdleError(Exception):
    """Workers are there, blocks are open, and nobody has one.

    Dask does not hand out a task that was meant for a worker, but not only for it, if it became free to run while there
    was no worker at all: those that come later are not asked (distributed 2026.8).
    """


@contextlib.contextmanager
def spool_folder(run_folder: Path | None) -> Iterator[Path]:
    """A folder for what workers read, gone at the end: in the run's or, without one, in the temporary folder."""
    if run_folder is None:
        with tempfile.TemporaryDirectory(prefix="verglas-cluster-") as name:
            yield Path(name)
        return
    path = run_folder.resolve() / "cluster"
    _refuse_others(path)
    shutil.rmtree(path, ignore_errors=True)  # of a run that was killed
    try:
        path.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); workers read their particles there") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _refuse_others(path: Path) -> None:
    """What is not of an earlier run stays: a user's own folder, or a link to one, may have this name."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path}: expected a folder or nothing; workers read their particles there, so move it away")
    foreign = sorted(p.name for p in path.iterdir() if _SPOOL_NAME.match(p.name) is None) if path.is_dir() else []
    if foreign:
        raise InputError(f"{path}: holds {foreign[0]}, which is of no run; workers' files go there, so move it away")


@dataclass(frozen=True)
class _Submitted:
    """A pass that workers have: the root of each half set's tree, and the open blocks with how many particles each."""

    roots: list[Future]
    blocks: list[Future]
    sizes: dict[str, int]


class Passes:
    """Runs the passes of a refinement on workers, as :func:`verglas.search.half_pass.run_here` does in this process.

    Results do not depend on the number of workers, on which of them made a block, or on how often it was lost.

    Parameters
    ----------
    workers : Workers
    particles : Particles, optional
        Those of the problem, in its order, with images that workers can read from files; images in memory are sent. The
        problem's own by default.
    folder : Path
        For blocks and references, seen by all workers.
    listener : Listener
        Is told when workers are lost.
    job : str
        Who asks, for messages.
    """

    def __init__(
        self, workers: Workers, particles: Particles | None, folder: Path, listener: Listener, *, job: str = "refine"
    ) -> None:
        self.workers, self.particles, self.folder = workers, particles, folder
        self.listener, self.job = listener, job
        self._run, self._count, self._said_lost = uuid.uuid4().hex[:8], 0, False
        self._parts_of: tuple[Problem | None, dict[int, list[worker.SpoolFile]]] = None, {}

    def __call__(self, tasks: Sequence[HalfTask], poses: PoseTable, tick: Tick) -> list[HalfSums]:
        """Both half sets; ``poses`` are replaced."""
        from distributed import CancelledError
        from distributed.comm import CommClosedError

        for attempt in range(_ATTEMPTS):
            done = [0]

            def count_done(count: int, done: list[int] = done) -> None:
                done[0] += count
                tick(count)

            try:
                totals = self._gather(self._submit(tasks, poses), count_done)
                return [task.finish(total, poses) for task, total in zip(tasks, totals, strict=True)]
            except (CancelledError, CommClosedError, _WorkersIdleError) as error:
                tick(-done[0])
                lost = "all workers were" if isinstance(error, _WorkersIdleError) else "the cluster's scheduler was"
                if attempt + 1 == _ATTEMPTS:
                    raise InputError(f"{self.job}: {lost} lost {_ATTEMPTS} times") from error
                self.listener.say(f"{lost} lost; this pass begins again")
                self._wait_for_scheduler()
        raise AssertionError("the loop returns or raises")

    # -- handing out -------------------------------------------------------------------------------------------------

    def _submit(self, tasks: Sequence[HalfTask], poses: PoseTable) -> _Submitted:
        addresses = self.workers.addresses()
        self._count += 1
        roots: list[Future] = []
        open_blocks: list[Future] = []
        sizes: dict[str, int] = {}
        for number, task in enumerate(tasks):
            blocks, references = task.blocks(), self._write_references(task, poses)
            made = []
            for i, (rows, part) in enumerate(zip(blocks, self._parts(task, blocks), strict=True)):
                order = worker.BlockOrder(
                    part, references, self.workers.threads, self.workers.images_GB, os.getcwd(), worker.identity()
                )
                # The worker that has had this block has its images; any other may take it if that one is busy or gone.
                home = addresses[i * len(addresses) // len(blocks)] if addresses else None
                key = f"{self._run}-{self._count}-{task.half}-{i}"
                made.append(self._start(worker.do_block, order, poses.of(rows), key=key, home=home, priority=-number))
                sizes[key] = len(rows)
            open_blocks += made
            roots.append(self._add(made, f"{self._run}-{self._count}-{task.half}-sum"))
        return _Submitted(roots, open_blocks, sizes)

    def _start(self, function: Any, *arguments: Any, key: str, home: str | None, priority: int) -> Future:
        where: dict[str, Any] = {} if home is None else {"workers": [home], "allow_other_workers": True}
        return self.workers.client.submit(function, *arguments, key=key, pure=False, priority=priority, **where)

    def _add(self, made: list[Future], name: str) -> Future:
        """The tree of :func:`verglas.search.blocks.levels`; sums before blocks, or all blocks' would wait in memory."""
        for depth, groups in enumerate(levels(len(made))):
            following = []
            for n, group in enumerate(groups):
                total = made[group[0]]
                for i in group[1:]:
                    total = self._start(
                        add_blocks, total, made[i], key=f"{name}-{depth}-{n}-{i}", home=None, priority=10
                    )
                following.append(total)
            made = following
        return made[0]

    def _write_references(self, task: HalfTask, poses: PoseTable) -> worker.SpoolFile:
        path = self.folder / f"references_{self._count}_{task.half}.pickle"
        for old in self.folder.glob(f"references_*_{task.half}.pickle"):
            old.unlink()
        spread_px = task.shift_spread_px(poses)
        return worker.SpoolFile.write(path, worker.PassOrder(task.model, task.mask, task.step, task.half, spread_px))

    def _parts(self, task: HalfTask, blocks: list[IntArray]) -> list[worker.SpoolFile]:
        """Files of the blocks' particles, written once as long as the problem is the same."""
        if self._parts_of[0] is not task.problem:
            self._parts_of = task.problem, {}
        known = self._parts_of[1]
        if task.half not in known:
            name, made = f"{uuid.uuid4().hex[:8]}_{task.half}", []
            for i, rows in enumerate(blocks):
                part = task.problem.part(rows)
                # by their numbers in the whole set: the problem may be a part of it
                particles = part.particles if self.particles is None else self.particles[part.numbers]
                path = self.folder / f"block_{name}_{i}.pickle"
                made.append(worker.SpoolFile.write(path, replace(part, particles=_to_send(particles))))
            known[task.half] = made
        return known[task.half]

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _gather(self, submitted: _Submitted, tick: Tick) -> list[Any]:
        from distributed import KilledWorker

        ended: queue.Queue[Future] = queue.Queue()
        waiting = dict(submitted.sizes)
        while submitted.blocks:  # nothing else may hold them: sums that are held stay in the workers' memory
            submitted.blocks.pop().add_done_callback(ended.put)
        try:
            while waiting:
                future = self._watch(partial(ended.get, timeout=_LOOK_S), submitted, tick)
                # What was lost since it ended is made again for its sum: it is no error, and nothing to wait for here.
                if future.status in ("error", "cancelled"):
                    future.result()  # raises
                tick(waiting.pop(str(future.key)))
                del future  # or its sums would stay in the worker's memory
            # The last workers of a sum may be lost, too, and blocks be made again.
            return [self._watch(partial(root.result, timeout=_LOOK_S), submitted, tick) for root in submitted.roots]
        except KilledWorker as error:
            raise InputError(
                f"{self.job}: a block of particles ended every worker that took it, out of memory most likely; give "
                "workers more, or --block-particles less"
            ) from error

    def _watch(self, look: Callable[[], Any], submitted: _Submitted, tick: Tick) -> Any:
        """What comes of a look that ends after ``_LOOK_S`` seconds, looked again and again."""
        from asyncio import (
            TimeoutError as TimeoutOfAsyncio,  # every command would load asyncio and ssl with this module
        )

        idle_looks = 0
        while True:
            try:
                return look()
            except (queue.Empty, TimeoutOfAsyncio):  # before Python 3.11 it is not the built-in one
                tick(0)  # a sign of life: the job hears signals where it tells how far it is
                self._say_if_alone()
            idle_looks = idle_looks + 1 if self._is_idle() else 0
            if idle_looks == _IDLE_LOOKS:
                self.workers.client.cancel(submitted.roots, force=True)
                raise _WorkersIdleError

    def _is_idle(self) -> bool:
        """Whether there are workers and none has anything of this pass to do."""
        try:
            held = self.workers.client.processing()
        except OSError:
            return False  # the scheduler is being lost: its futures will say so
        prefix = f"{self._run}-{self._count}-"
        return bool(held) and not any(str(key).startswith(prefix) for keys in held.values() for key in keys)

    def _say_if_alone(self) -> None:
        try:
            alone = not self.workers.addresses()
        except OSError:
            return  # the scheduler is being lost: its futures will say so
        if alone and not self._said_lost:
            self.listener.say("no worker is left in the cluster; waiting for others")
        self._said_lost = alone

    def _wait_for_scheduler(self) -> None:
        try:
            self.workers.client.wait_for_workers(1, timeout=600)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(f"{self.job}: the cluster's scheduler does not come back ({error})") from error


def _to_send(particles: Particles) -> Particles:
    """The particles without images of others: an array in memory is shared by all subsets of it."""
    source = particles.source
    if not isinstance(source, ArraySource):
        return particles
    return particles.with_source(ArraySource(source.read(np.arange(len(source))), source.pixel_size_A))
