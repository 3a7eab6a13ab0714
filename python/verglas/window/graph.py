"""Where jobs stand in the drawing of a project: columns by how far they are from the start, rows by their parents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verglas.window.job import Job

WIDTH, WIDEST, HEIGHT, GAP_X, GAP_Y = 150, 196, 50, 26, 14
LETTER = 6.8  # pixels of a letter of a name, in the mean
_ACROSS = 5  # columns beside each other: those of a long chain go on below, as words do


@dataclass(frozen=True)
class Node:
    """A job and the upper left corner of its box."""

    job: Job
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """Boxes, the paths of the lines between them, the size of the whole, the width of a box and its letters."""

    nodes: Sequence[Node]
    paths: Sequence[str]
    width: float
    height: float
    box: int
    letters: int


def columns_of(parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Longest way to each job from one without parents; a cycle, which no project should hold, is cut.

    Examples
    --------
    >>> from verglas.window.graph import columns_of
    >>> columns_of({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["gone"]})
    {'a': 0, 'b': 1, 'c': 2, 'd': 0}
    """
    columns: dict[str, int] = {}
    for start in parents:
        stack = [start]
        while stack:
            key = stack[-1]
            if key in columns:
                stack.pop()
                continue
            # Whoever stands in the stack already waits for this one: going there again would go round for ever.
            ahead = [p for p in parents[key] if p in parents and p not in columns and p not in stack]
            if ahead:
                stack.append(ahead[0])
            else:
                columns[key] = 1 + max((columns[p] for p in parents[key] if p in columns), default=-1)
                stack.pop()
    return columns


def draw(jobs: Sequence[Job]) -> Drawing:
    """The drawing of jobs.

    Parameters
    ----------
    jobs : sequence of Job
        Of one project.
    """
    longest = max((len(job.name) for job in jobs), default=0)
    # Five of the narrow ones stand beside each other on 1000 px.
    box = min(max(WIDTH, int(20 + LETTER * longest)), WIDEST)
    columns = columns_of({job.key: job.parents for job in jobs})
    rows: dict[str, float] = {}
    for column in range(max(columns.values(), default=-1) + 1):
        taken: set[float] = set()
        for job in (job for job in jobs if columns[job.key] == column):
            over = [rows[p] for p in job.parents if p in rows]
            row = float(round(sum(over) / len(over))) if over else 0.0
            while row in taken:
                row += 1
            taken.add(row)
            rows[job.key] = row
    tops = _tops(columns, rows)
    place = {
        key: (
            8 + columns[key] % _ACROSS * (box + GAP_X),
            8 + (tops[columns[key] // _ACROSS] + row) * (HEIGHT + GAP_Y),
        )
        for key, row in rows.items()
    }
    nodes = [Node(job, *place[job.key]) for job in jobs]
    paths = []
    for job in jobs:
        x, y = place[job.key]
        for parent in job.parents:
            if parent in place and columns[parent] < columns[job.key]:
                px, py = place[parent]
                px, py, to = px + box, py + HEIGHT / 2, y + HEIGHT / 2
                paths.append(_line(px, py, x, to))
    width = max((x for x, _ in place.values()), default=0) + box + 12
    height = max((y for _, y in place.values()), default=0) + HEIGHT + 8
    return Drawing(nodes, paths, width, height, box, int((box - 20) / LETTER) + 1)


def _line(px: float, py: float, x: float, y: float) -> str:
    """From a box to one on its right, or to one of a lower stretch: down between the columns and along above it."""
    if px <= x:
        middle = x - GAP_X / 2
        return f"M{px} {py}C{middle} {py} {middle} {y} {x} {y}"
    out, back, above = px + GAP_X / 3, x - GAP_X / 4, y - HEIGHT / 2 - GAP_Y
    return f"M{px} {py}H{out}V{above}H{back}V{y}H{x}"


def _tops(columns: Mapping[str, int], rows: Mapping[str, float]) -> list[float]:
    """The row that each stretch of columns begins with, one below all of the stretch before."""
    tops = [0.0]
    for stretch in range(max(columns.values(), default=0) // _ACROSS):
        lowest = max((rows[key] for key, column in columns.items() if column // _ACROSS == stretch), default=-1.0)
        tops.append(tops[-1] + lowest + 1.5)
    return tops
