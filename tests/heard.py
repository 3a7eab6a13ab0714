"""A listener for tests: what it was told can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verglas.types.listener import Silence


class Heard(Silence):
    """Keeps sentences, figures of iterations, and what it is told of every phase."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rows: list[dict] = []
        self.phases: dict[str, list[tuple[int, int]]] = {}

    def say(self, line: str) -> None:
        self.lines.append(line)

    def iteration(self, figures: Mapping[str, Any]) -> None:
        self.rows.append(dict(figures))

    def progress(self, phase: str, done: int, total: int) -> None:
        self.phases.setdefault(phase, []).append((done, total))

    def ends_of(self, phase: str) -> tuple[int, int]:
        """The last call, after calls that rise to it."""
        calls = self.phases[phase]
        assert [c[0] for c in calls] == sorted(c[0] for c in calls)
        assert {c[1] for c in calls} == {calls[-1][1]}
        return calls[-1]
