"""One pass over a half set: on the CPU in fixed blocks, or on GPUs that share its particles, a thread each.

On the CPU, in this process or on the workers of a cluster, blocks and the order in which their sums are added follow
from the number of particles alone (:mod:`verglas.search.blocks`).

Every GPU works on a copy of the poses and of the references, so that no thread sees what another writes; blocks and
the order in which their sums are added are fixed by the number of GPUs. A GPU that runs out of memory starts its block
again with half the batch, once in a pass; a second time is an error. Nothing goes on on the CPU instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from verglas._devices import release_memory, work_on
from verglas.errors import DeviceMemoryError
from verglas.search.blocks import BlockSums, add_in_order, count_blocks, run_block
from verglas.search.grid_step import GridStep, HalfSums, Tick
from verglas.search.pose_step import PoseStep, shift_spread_px
from verglas.search.problem import Problem
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types.arrays import IntArray
from verglas.types.verdict import Finding

Say = Callable[[str], None]
_LEAST_BATCH = 8


@dataclass(frozen=True)
class HalfTask:
    """What a pass over a half set needs.

    Attributes
    ----------
    problem : Problem
    model : HalfModel
        References and noise.
    mask : (N, N, N) float32
        Of the references.
    step : Step
    half : int
        1 or 2.
    notes : list of Finding
        Sentences for the log are added: devices that ran out of memory.
    """

    problem: Problem
    model: HalfModel
    mask: npt.NDArray[np.float32]
    step: Step
    half: int
    notes: list[Finding] = field(default_factory=list)

    def run(self, poses: PoseTable, tick: Tick) -> HalfSums:
        """Expectation and sums; ``poses`` of this half are replaced."""
        if self.problem.devices == ("cpu",):
            spread_px = self.shift_spread_px(poses)
            work = self.work(self.problem, spread_px)
            made = (run_block(work, self.problem.part(rows), poses.of(rows), tick) for rows in self.blocks())
            return self.finish(add_in_order(made), poses)
        return self._run_on_devices(poses, tick)

    def blocks(self) -> list[IntArray]:
        """Rows of the fixed blocks of the half set, in order."""
        rows = self.problem.rows_of_half(self.half)
        return np.array_split(rows, count_blocks(len(rows), self.problem.block_particles))

    def shift_spread_px(self, poses: PoseTable) -> float:
        """Width of the prior of the shifts, of the whole half set before any of it is searched again.

        Of the whole, whoever works on which block: the prior may not depend on how the particles are shared.
        """
        return shift_spread_px(self.step, poses, self.problem.rows_of_half(self.half))

    def finish(self, total: BlockSums, poses: PoseTable) -> HalfSums:
        """The sums of all blocks as those of the half set; ``poses`` of it are replaced."""
        rows = self.problem.rows_of_half(self.half)
        poses.put(rows, total.poses)
        ratio = np.ones(len(self.problem))
        ratio[rows] = total.sums.totals.ratio
        return replace(total.sums, totals=replace(total.sums.totals, ratio=ratio))

    def _run_on_devices(self, poses: PoseTable, tick: Tick) -> HalfSums:
        rows = self.problem.rows_of_half(self.half)
        # Contiguous blocks, summed below in the order of the devices: the same devices give the same bits.
        blocks = np.array_split(rows, len(self.problem.devices))
        spread_px = self.shift_spread_px(poses)
        # A device that runs out of memory starts its block again: it must not have changed what the others read.
        tables = [poses.copy() for _ in blocks]
        with ThreadPoolExecutor(len(blocks)) as threads:
            futures = [
                threads.submit(self._share, _Share(device, block, table, spread_px), tick)
                for device, block, table in zip(self.problem.devices, blocks, tables, strict=True)
            ]
            results = [future.result() for future in futures]
        for block, table in zip(blocks, tables, strict=True):
            poses.take(block, table)
        with work_on(self.problem.device):
            for block, sums in zip(blocks[1:], results[1:], strict=True):
                results[0].add(sums, block)
        return results[0]

    def work(self, problem: Problem, spread_px: float) -> GridStep | PoseStep:
        """What scores and sums particles of a problem, all or some of this half set."""
        if self.step.phase == "grid":
            return GridStep(problem, self.model, self.mask, self.step)
        return PoseStep(problem, self.model, self.mask, self.step, spread_px)

    def _share(self, share: _Share, tick: Tick) -> HalfSums:
        device, rows, poses = share.device, share.rows, share.poses
        problem = replace(self.problem, devices=(device,))
        before, n_scored = poses.copy(), [0]

        def count_done(count: int) -> None:
            n_scored[0] += count
            tick(count)

        try:
            return self._run_share(problem, share, count_done)
        except DeviceMemoryError as error:
            smaller = problem.batch // 2
            if smaller < _LEAST_BATCH:
                raise
            sentence = (
                f"{device} ran out of memory with {problem.batch} images at a time; this pass starts again there with "
                f"{smaller} ({error})"
            )
            numbers = {"device": device, "images": problem.batch, "now": smaller}
            self.notes.append(Finding("device_memory", "warn", sentence, numbers))
        # Outside the except clause: the traceback holds the arrays that have to be released.
        tick(-n_scored[0])
        release_memory(device)
        poses.take(rows, before)
        return self._run_share(replace(problem, batch=smaller), share, tick)

    def _run_share(self, problem: Problem, share: _Share, tick: Tick) -> HalfSums:
        with work_on(problem.device):
            return self.work(problem, share.spread_px).run(self.half, share.poses, tick, share.rows)


@dataclass(frozen=True)
class _Share:
    """What a GPU works on: its rows, its own copy of the poses, and the prior's width that all have in common."""

    device: str
    rows: IntArray
    poses: PoseTable
    spread_px: float


Runner = Callable[[Sequence[HalfTask], PoseTable, Tick], list[HalfSums]]


def run_here(tasks: Sequence[HalfTask], poses: PoseTable, tick: Tick) -> list[HalfSums]:
    """The passes over both half sets, one after the other, in this process."""
    return [task.run(poses, tick) for task in tasks]
