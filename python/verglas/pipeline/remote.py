"""Micrographs of a project worked on by the workers of a cluster: what a worker needs to know of the project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from verglas.cluster.items import in_order
from verglas.io import write_bytes
from verglas.pipeline.project import Project, Results, Shot
from verglas.pipeline.settings import ProcessSettings

if TYPE_CHECKING:
    from verglas.pipeline.micrographs import MicrographStage, Work


@dataclass(frozen=True)
class Remote:
    """A stage, and the project that it is of, as a worker takes them."""

    stage: MicrographStage
    root: Path
    settings: ProcessSettings
    threads: int | None

    def work(self, shot: Shot) -> Work:
        """One micrograph: its result, with its pictures drawn and written."""
        project = _ProjectOfOne(self.root, self.settings, [shot], threads=self.threads)
        work = self.stage.work(project, shot)
        for path, draw in work.pictures:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, draw())
        return replace(work, pictures=())


class _ProjectOfOne(Project):
    """The project as one micrograph sees it: records of the others are not read."""

    def results(self, stage: str) -> Results:
        """With the record of the one micrograph."""
        results = super().results(stage)
        results.read(self.shots[0].key)
        return results


def work_elsewhere(stage: MicrographStage, project: Project, shots: Sequence[Shot]) -> Iterator[Work]:
    """The work of a stage on micrographs, in order, by the project's workers."""
    workers = project.workers
    assert workers is not None
    remote = Remote(stage, project.root, project.settings, workers.threads)
    yield from in_order(workers, partial(_work, remote), shots, job="process")


def _work(remote: Remote, shot: Shot) -> Work:
    return remote.work(shot)
