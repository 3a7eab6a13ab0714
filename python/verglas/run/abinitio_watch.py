"""What an ab initio reconstruction leaves and tells while it runs: checkpoints, progress, and the page so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verglas.initial_model.records import StartRecords
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start
from verglas.report.abinitio import StartSoFar, abinitio_running_page
from verglas.report.html import Page
from verglas.run.abinitio_memory import InitialModelPlan
from verglas.run.checkpoint import Checkpoints
from verglas.run.forecast import abinitio_forecast
from verglas.run.live_page import LivePage, footer_text
from verglas.run.refine_inputs import close_identity
from verglas.run.refine_memory import PAGE_PROCESS_GB
from verglas.run.tenure import Tenure
from verglas.search.problem import Problem
from verglas.types import Keeper, Particles, Snapshot
from verglas.types.listener import Listener
from verglas.types.settings import result_settings


class Watch(StartRecords):
    """Who is told how it goes.

    Parameters
    ----------
    folder : Path or None
        Where it writes.
    settings : AbInitioSettings
    particles : Particles
    listener : Listener
    resume : bool
        There must be a checkpoint.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: AbInitioSettings,
        particles: Particles,
        listener: Listener,
        *,
        resume: bool = False,
    ) -> None:
        super().__init__(listener)
        self.settings = settings
        self.starts: dict[int, StartSoFar] = {}
        self.problem: Problem | None = None
        self.checkpoints: Checkpoints | None = None
        self.page: LivePage | None = None
        if folder is not None:
            self.checkpoints = Checkpoints(folder, result_settings(settings), close_identity(particles), listener.say)
            self.checkpoints.open(resume=resume)
            self.page = LivePage(folder / "report.html", listener.say)

    def show_plan(self, plan: InitialModelPlan) -> None:
        """Memory is told of before anything is read."""
        self.listener.say(str(plan))
        if self.page is not None and plan.limit_GB is not None:
            self.page.beside = plan.limit_GB - plan.peak_GB >= PAGE_PROCESS_GB
        if isinstance(self.listener, Tenure):
            self.listener.write(memory_plan={name: round(size, 3) for name, size in plan.phases_GB.items()})

    def take_problem(self, problem: Problem) -> None:
        """The pixel size and sphere of what the page shows are known, and with them what it will take."""
        self.problem = problem
        forecast = abinitio_forecast(problem, self.settings)
        if forecast is None:
            return
        if isinstance(self.listener, Tenure):
            self.listener.expect(forecast)
        else:
            self.listener.say(str(forecast))

    def of_start(self, number: int, group: str = "") -> Keeper | None:
        """Of a start; None where nothing is written."""
        if self.checkpoints is None:
            return None
        if group:
            return self.checkpoints.part(f"{group}_start{number + 1}")
        return _StartKept(self.checkpoints.part(f"start{number + 1}"), self, number)

    def of_poses(self) -> Keeper | None:
        """Of the poses of all particles."""
        return None if self.checkpoints is None else self.checkpoints.part("poses")

    def show_start(self, number: int, snapshot: Snapshot) -> None:
        """A start stands here."""
        if self.page is None or self.problem is None or snapshot.record["finished"]:
            return
        arrays, record = snapshot.arrays, snapshot.record
        self.starts[number] = StartSoFar(
            number,
            record["iteration"],
            record["of"],
            self.problem.resolution_of_A(max(record["resolved"], 1.0)),
            arrays["model.volumes"] * self.problem.sphere,
        )
        self.page.show(*self._request(""))

    def take_start(self, start: Start) -> None:
        """A start is done, perhaps by an earlier run."""
        if self.problem is None:
            return
        total = self.settings.all_iterations
        self.starts[start.number] = StartSoFar(
            start.number, total, total, None, start.model.volumes * self.problem.sphere, start.score
        )

    def show_stop(self, reason: str) -> None:
        """It ends without a result: the page says so, the checkpoint stays."""
        # Before the first start stands there is nothing to show.
        if self.page is not None and self.starts:
            self.page.show(*self._request(reason), now=True)

    def last_page(self) -> None:
        """The results are there and their page is written next."""
        if self.page is not None:
            self.page.stop()

    def remove_checkpoints(self) -> None:
        """The results are written."""
        if self.checkpoints is not None:
            self.checkpoints.remove()

    def _request(self, reason: str) -> tuple[Callable[..., Page], list[StartSoFar], str, float, Mapping[str, Any], str]:
        """What draws the page, and of what."""
        assert self.problem is not None
        starts = [self.starts[number] for number in sorted(self.starts)]
        return (
            abinitio_running_page,
            starts,
            reason,
            self.problem.pixel_size_A,
            asdict(self.settings),
            footer_text(),
        )


@dataclass(frozen=True)
class _StartKept:
    """The checkpoint of a start; the page is drawn when it is written."""

    part: Keeper
    watch: Watch
    number: int

    def load(self) -> Snapshot | None:
        """What was kept last."""
        return self.part.load()

    def save(self, snapshot: Snapshot, *, needed: bool = False) -> None:
        """Keep it."""
        self.part.save(snapshot, needed=needed)
        self.watch.show_start(self.number, snapshot)
