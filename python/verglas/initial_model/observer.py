"""Who is told how the search for a first map goes, and who keeps where it stands."""

from __future__ import annotations

from verglas.initial_model.starts import Start
from verglas.search.problem import Problem
from verglas.types import Keeper


class Observer:
    """One that shows nothing and keeps nothing; base of those that do."""

    def prepared(self, problem: Problem) -> None:
        """Take the particles at the working pixel size, centred."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Take how far a stage has come."""

    def keeper(self, number: int, group: str = "") -> Keeper | None:
        """Who keeps a start, perhaps one under a point group that is tried."""
        return None

    def placing(self) -> Keeper | None:
        """Who keeps the poses of all particles."""
        return None

    def finished(self, start: Start) -> None:
        """Take a start that is done, perhaps by an earlier run."""
