"""One pass over a half set: on the CPU, or on GPUs that share its particles in contiguous blocks, a thread each.

Every GPU works on a copy of the poses and of the references, so that no thread sees what another writes; blocks and
the order in which their sums are added are fixed by the number of GPUs. A GPU that runs out of memory starts its block
again with half the batch, once in a pass; a second time is an error. Nothing goes on on the CPU instead.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from verglas._devices import release_memory, work_on
from verglas.errors import DeviceMemoryError
from verglas.search.grid_step import GridStep, HalfSums, Tick
from verglas.search.pose_step import PoseStep
from verglas.search.problem import Problem
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
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
            return self._work(self.problem).run(self.half, poses, tick)
        rows = self.problem.rows_of_half(self.half)
        # Contiguous blocks, summed below in the order of the devices: the same devices give the same bits.
        blocks = np.array_split(rows, len(self.problem.devices))
        # A device that runs out of memory starts its block again: it must not have changed what the others read.
        tables = [poses.copy() for _ in blocks]
        with ThreadPoolExecutor(len(blocks)) as threads:
            futures = [
                threads.submit(self._block, device, block, table, tick)
                for device, block, table in zip(self.problem.devices, blocks, tables, strict=True)
            ]
            results = [future.result() for future in futures]
        for block, table in zip(blocks, tables, strict=True):
            poses.take(block, table)
        with work_on(self.problem.device):
            for block, sums in zip(blocks[1:], results[1:], strict=True):
                results[0].add(sums, block)
        return results[0]

    def _work(self, problem: Problem) -> GridStep | PoseStep:
        kind = GridStep if self.step.phase == "grid" else PoseStep
        return kind(problem, self.model, self.mask, self.step)

    def _block(self, device: str, rows: npt.NDArray[np.int64], poses: PoseTable, tick: Tick) -> HalfSums:
        """One device's share; ``poses`` is its own copy."""
        problem = replace(self.problem, devices=(device,))
        before, n_scored = poses.copy(), [0]

        def count_done(count: int) -> None:
            n_scored[0] += count
            tick(count)

        try:
            return self._run_on_device(problem, rows, poses, count_done)
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
        return self._run_on_device(replace(problem, batch=smaller), rows, poses, tick)

    def _run_on_device(self, problem: Problem, rows: npt.NDArray[np.int64], poses: PoseTable, tick: Tick) -> HalfSums:
        with work_on(problem.device):
            return self._work(problem).run(self.half, poses, tick, rows)
