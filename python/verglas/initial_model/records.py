"""What the search for a first map leaves while it runs: where starts and poses stand, and who is told of it."""

from __future__ import annotations

from verglas.initial_model.starts import Start
from verglas.search.problem import Problem
from verglas.types import Keeper
from verglas.types.listener import Listener, Silence


class StartRecords:
    """Records that keep nothing; base of those that do. ``listener`` is told how the search goes."""

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener: Listener = listener or Silence()

    def take_problem(self, problem: Problem) -> None:
        """Take the particles at the working pixel size, centred."""

    def take_start(self, start: Start) -> None:
        """Take a start that is done, perhaps by an earlier run."""

    def of_start(self, number: int, group: str = "") -> Keeper | None:
        """Who keeps a start, perhaps one under a point group that is tried."""
        return None

    def of_poses(self) -> Keeper | None:
        """Who keeps the poses of all particles."""
        return None
