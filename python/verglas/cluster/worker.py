"""What runs on a worker: blocks of particles.

A worker keeps the images of its blocks from one iteration to the next, and the references of one pass. All of it is
also in files of the run folder or in the particles' own, so that any other worker can take a block over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import _native
from verglas._version import __version__
from verglas.errors import InputError
from verglas.image.particles import in_memory
from verglas.io import write_bytes
from verglas.search.blocks import BlockSums, packed, run_block
from verglas.search.grid_step import GridStep, ignore_count
from verglas.search.half_pass import HalfTask
from verglas.search.pose_step import PoseStep
from verglas.search.problem import Problem
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step


@dataclass(frozen=True)
class SpoolFile:
    """A file of the run folder that a worker reads, with the hash of what the coordinator wrote.

    The files are pickles, which run what they say. The hash comes with the order: what somebody else put in a file's
    place, in a run folder that others may write to, is not loaded.

    Attributes
    ----------
    path : str
    digest : str
    """

    path: str
    digest: str

    @classmethod
    def write(cls, path: Path, value: Any) -> SpoolFile:
        """Write a value."""
        content = pickle.dumps(value, protocol=5)
        write_bytes(path, content)
        return cls(str(path), _digest(content))

    def read(self) -> Any:
        """The value, if the file is the one that was written.

        Raises
        ------
        InputError
            It is not there, or is another one.
        """
        try:
            content = Path(self.path).read_bytes()
        except FileNotFoundError as error:
            raise InputError(
                f"a worker does not find {self.path}: the run folder has to lie on a file system that all workers share"
            ) from error
        if _digest(content) != self.digest:
            raise InputError(
                f"{self.path}: not what this run wrote; somebody else writes to its folder, or the disk fails"
            )
        return pickle.loads(content)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@dataclass(frozen=True)
class PassOrder:
    """References of a pass over a half set, as they lie in a file that every worker reads once.

    Attributes
    ----------
    model : HalfModel
    mask : (N, N, N) float32
    step : Step
    half : int
    spread_px : float
        Width of the prior of the shifts.
    """

    model: HalfModel
    mask: npt.NDArray[np.float32]
    step: Step
    half: int
    spread_px: float


@dataclass(frozen=True)
class BlockOrder:
    """A block to be done.

    Attributes
    ----------
    part, references : SpoolFile
        Files of the block's particles (:class:`verglas.search.problem.Problem`) and of the :class:`PassOrder`; never
        changed once they are there.
    threads : int or None
    images_GB : float
        Images that a worker keeps.
    folder : str
        Working folder of the coordinator, from which the particles' file may name its stacks.
    identity : str
        Of the coordinator's program: sums of other programs may differ in their last bits.
    """

    part: SpoolFile
    references: SpoolFile
    threads: int | None
    images_GB: float
    folder: str
    identity: str


def identity() -> str:
    """Version of the package, and for which processors its core was compiled: the same make the same bits."""
    return f"verglas {__version__}, {_native.core.isa}"


class _Kept:
    """Blocks with their images, the least recently used given up first; and the references of the last pass."""

    def __init__(self) -> None:
        self.parts: OrderedDict[SpoolFile, tuple[Problem, float]] = OrderedDict()
        self.references: tuple[SpoolFile, int, GridStep | PoseStep] | None = None

    def part(self, order: BlockOrder) -> Problem:
        if order.part in self.parts:
            self.parts.move_to_end(order.part)
            return self.parts[order.part][0]
        part = replace(order.part.read(), threads=order.threads)
        size_GB = 4e-9 * len(part) * part.box**2
        if size_GB > order.images_GB:
            return part
        while self.parts and size_GB + sum(size for _, size in self.parts.values()) > order.images_GB:
            self.parts.popitem(last=False)
        part = replace(part, particles=in_memory(part.particles))
        self.parts[order.part] = part, size_GB
        return part

    def work(self, order: BlockOrder, part: Problem) -> GridStep | PoseStep:
        # The batch is the problem's: references made for one problem serve all parts of it.
        key = order.references, part.batch
        if self.references is None or self.references[:2] != key:
            self.references = None  # the old ones go before the new ones come
            made: PassOrder = order.references.read()
            task = HalfTask(part, made.model, made.mask, made.step, made.half)
            self.references = *key, task.work(part, made.spread_px)
        return self.references[2]


_KEPT = _Kept()
_ONE_AT_A_TIME = threading.Lock()  # a worker may have been started with several threads


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """No other work in this process, and the coordinator's working folder, from which its files may be named."""
    with _ONE_AT_A_TIME:
        with contextlib.suppress(FileNotFoundError):  # names that are not relative do not need it
            os.chdir(folder)
        yield


def do_block(order: BlockOrder, poses: PoseTable) -> BlockSums:
    """Expectation and sums of a block, packed: they are kept and sent on."""
    if identity() != order.identity:
        raise InputError(
            f"a worker has {identity()}, this program {order.identity}: their sums differ in the last bits; install "
            "the same version everywhere, and set VERGLAS_ISA (v2, v3, v4) to one that all processors have"
        )
    with alone_in(order.folder):
        part = _KEPT.part(order)
        return packed(run_block(_KEPT.work(order, part), part, poses, ignore_count))
