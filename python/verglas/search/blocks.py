"""Particles in fixed blocks: sums of each block made anywhere, and added in an order that the number of blocks fixes.

Floating-point sums depend on their order. Here each block of a half set starts from empty sums, and blocks are added
four at a time from the left, then fours of those, and so on. Who made a block, and when, changes no bit of the total:
one process, a thousand workers, or a worker that takes over what another lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from verglas import ops
from verglas.reconstruction.packed_sums import PackedSums
from verglas.search.grid_step import GridStep, HalfSums, Tick
from verglas.search.pose_step import PoseStep
from verglas.search.problem import Problem
from verglas.search.state import PoseTable

FAN_IN = 4  # sums added one after the other: more would need less memory here, and keep workers waiting
_MOST_BLOCKS = 256


@dataclass(frozen=True)
class BlockSums:
    """What a pass over a block, or over several that follow one another, gives.

    Attributes
    ----------
    poses : PoseTable
        Of these particles alone, after the pass.
    sums : HalfSums
        Whole as they are made, packed where they wait.
    """

    poses: PoseTable
    sums: HalfSums[Any]


def count_blocks(n_particles: int, block_particles: int) -> int:
    """Blocks of a half set: of so many particles at most, and of more once there would be over 256.

    Examples
    --------
    >>> from verglas.search.blocks import count_blocks
    >>> count_blocks(1500, 1000), count_blocks(0, 1000), count_blocks(5_000_000, 1000)
    (2, 1, 256)
    """
    return min(_MOST_BLOCKS, max(1, -(-n_particles // block_particles)))


def levels(n_blocks: int) -> list[list[tuple[int, ...]]]:
    """The tree: of each level the groups of results of the level before that are added from the left.

    Examples
    --------
    >>> from verglas.search.blocks import levels
    >>> levels(6)
    [[(0, 1, 2, 3), (4, 5)], [(0, 1)]]
    >>> levels(1)
    []
    """
    tree, n = [], n_blocks
    while n > 1:
        tree.append([tuple(range(begin, min(begin + FAN_IN, n))) for begin in range(0, n, FAN_IN)])
        n = len(tree[-1])
    return tree


def sums_at_once(n_particles: int, block_particles: int) -> int:
    """Sums of a map that one process holds at most while it works through the blocks of a half set: one whole, others
    packed.
    """
    n_blocks = count_blocks(n_particles, block_particles)
    return 1 + len(levels(n_blocks))


def run_block(work: GridStep | PoseStep, part: Problem, poses: PoseTable, tick: Tick) -> BlockSums:
    """Expectation and sums of a block.

    Parameters
    ----------
    work : GridStep or PoseStep
        References, made once for all blocks.
    part : Problem
        The block's particles (:meth:`verglas.search.problem.Problem.part`).
    poses : PoseTable
        Theirs; not changed.
    tick : callable
        Called with how many particles more are done.
    """
    table = poses.copy()  # a block may have to be done again
    return BlockSums(table, work.on(part).run(int(part.half[0]), table, tick))


def packed(block: BlockSums) -> BlockSums:
    """A block whose sums wait for others (:mod:`verglas.reconstruction.packed_sums`); uses the whole ones up."""
    whole, small = block.sums.grids, []
    while whole:
        sums = whole.pop(0)  # one at a time: both kinds of all classes may not fit
        small.append(PackedSums.of(sums) if isinstance(sums, ops.GridSums) else sums)
    return replace(block, sums=replace(block.sums, grids=small))


def add_blocks(first: BlockSums, second: BlockSums) -> BlockSums:
    """Sums of both, packed, ``second`` following ``first``; neither is changed."""
    pairs = zip(first.sums.grids, second.sums.grids, strict=True)
    return _join([a + b for a, b in pairs], first, second)


def _take_in(total: BlockSums, more: BlockSums) -> BlockSums:
    """As :func:`add_blocks`, bit by bit, in the memory of ``total``; ``more`` may be whole."""
    for mine, theirs in zip(total.sums.grids, more.sums.grids, strict=True):
        mine += theirs
    return _join(total.sums.grids, total, more)


def _join(grids: list[PackedSums], first: BlockSums, second: BlockSums) -> BlockSums:
    totals = first.sums.totals.concatenate(second.sums.totals)
    return BlockSums(first.poses.concatenate(second.poses), HalfSums(grids, totals))


def add_in_order(made: Iterable[BlockSums]) -> BlockSums:
    """All blocks of a half set added by the tree as they are made, with one packed sum per level; uses them up."""
    # (sum, how many it holds) of each level from the blocks up.
    waiting: list[tuple[BlockSums | None, int]] = []

    def put(level: int, block: BlockSums) -> None:
        if level == len(waiting):
            waiting.append((None, 0))
        total, count = waiting[level]
        total = packed(block) if total is None else _take_in(total, block)
        if count + 1 < FAN_IN:
            waiting[level] = total, count + 1
        else:
            waiting[level] = None, 0
            put(level + 1, total)

    for block in made:
        put(0, block)
        del block  # or it would be held while the next is made
    total: BlockSums | None = None
    for held, _ in waiting:  # groups that are not full, from the blocks up: each ends the level above it
        if held is not None:
            total = held if total is None else _take_in(held, total)
    assert total is not None, "a half set has particles"
    return total
