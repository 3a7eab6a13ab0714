"""``verglas process --watch``: micrographs are worked on as they finish writing; the rest follows in quiet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError
from verglas.io import find_movies, micrograph_header
from verglas.io.frames import open_frames
from verglas.io.micrographs import find_micrographs
from verglas.io.star import writable
from verglas.io.tiff import tiff_pixel_A
from verglas.pipeline.job import Outcome, finish_project, record_end
from verglas.pipeline.micrographs import MicrographStage, Work
from verglas.pipeline.page import write_page
from verglas.pipeline.project import Project, Shot, shot_of
from verglas.pipeline.settings import ProcessSettings, load_settings, save_settings
from verglas.pipeline.stage import StageStopped, run_stages
from verglas.pipeline.stages import stages_of
from verglas.pipeline.tables import usable_shots
from verglas.pipeline.watch_table import SeenFile, WatchRow, WatchTable
from verglas.run.parallel import in_order
from verglas.run.tenure import tenure

_TABLE = "watch.sqlite"
_ATTEMPTS = 3  # of a file whose work fails for reasons that may pass, or kills the process
_PATIENCE = 10  # settle times after which a file with an incomplete header is taken for broken
_PAGE_S = 15.0  # the page is at most this often written anew ...
_PAGE_SHARE = 0.1  # ... and takes at most this share of the time
_OF_MOVIES = ("gain", "dose_per_frame_e_A2", "metadata")  # settings


@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched.

    Attributes
    ----------
    settle_s : float
        A file is whole if size and time of change have stood still for so long and its header promises no more.
    until_idle_s : float, optional
        End when nothing has been new for so long; else watch until interrupted.
    once : bool
        End when everything that is there has been done.
    """

    settle_s: float = 10.0
    until_idle_s: float | None = None
    once: bool = False

    def __post_init__(self) -> None:
        """Check once."""
        if not self.settle_s > 0 or (self.until_idle_s is not None and not self.until_idle_s > 0):
            raise InputError(f"watch: expected positive times, got {self.settle_s} and {self.until_idle_s} s")


def watch_folder(
    folder: str | Path,
    out: str | Path,
    options: WatchOptions | None = None,
    settings: ProcessSettings | None = None,
    *,
    force: bool = False,
    threads: int | None = None,
    memory_GB: float | None = None,
    device: str = "cpu",
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Outcome:
    """Work on the micrographs of a folder as they arrive; then run all stages on what there is.

    Every file is done once; a file that changes later is done again. The table of states (``watch.sqlite`` in the
    project) and the results of single micrographs survive a kill at any moment: the next call goes on.

    Parameters
    ----------
    folder : path
        TIFF and MRC files in it are watched.
    out : path
        Project folder.
    options : WatchOptions, optional
    settings, force, threads, memory_GB, device, listener, changes
        As of :func:`verglas.process`.

    Returns
    -------
    Outcome
        Of all stages, when the watch ends (``until_idle_s``, ``once``, or an interrupt).

    Raises
    ------
    InputError
        The folder does not exist, or what :func:`verglas.process` raises.
    """
    start_time = time.perf_counter()
    source, root = Path(folder), Path(out)
    if not source.is_dir():
        raise InputError(f"--watch {source}: no such folder")
    process_settings = load_settings(root, settings, {**changes, "micrographs": (str(source),)})
    if process_settings.movies is None:  # nothing has arrived to be looked into
        process_settings = replace(
            process_settings,
            # what only movies have
            movies=any(getattr(process_settings, name) is not None for name in _OF_MOVIES),
        )
    stages = stages_of(process_settings)
    with (
        shown_to(listener) as screen,
        tenure(root, "process", screen) as heard,
        closing(WatchTable(root / _TABLE)) as table,
    ):
        save_settings(root, process_settings)
        heard.write(state="running")
        project = Project(root, process_settings, [], heard, threads=threads, memory_GB=memory_GB, device=device)
        unfinished = table.take_up(_ATTEMPTS)
        if unfinished:
            project.listener.say(
                f"{len(unfinished)} files were being worked on when the last process ended; taken up again"
            )
        watcher = Watcher(project, source, options or WatchOptions(), table, heard.alive)
        try:
            watcher.watch()
        except KeyboardInterrupt:
            project.listener.say("interrupted: what is done is kept")
        watcher.say_throughput()
        project.shots = watcher.finished_shots()
        reason = "" if project.shots else f"no micrograph has arrived in {source}"
        try:
            if project.shots:
                run_stages(project, stages, force=force)
        except StageStopped as error:
            reason = str(error)
        record_end(heard, reason)
        return finish_project(project, time.perf_counter() - start_time, reason)


class _StageWork(NamedTuple):
    """What a stage made of a micrograph."""

    stage: MicrographStage
    work: Work


class _Chain(NamedTuple):
    """What the stages made of a micrograph, one after the other."""

    shot: Shot
    works: list[_StageWork]


class Watcher:
    """Looks, works, tells.

    Parameters
    ----------
    project : Project
    folder : Path
    options : WatchOptions
    table : WatchTable
    alive : callable, optional
        Called at every look at the folder: waiting for files is no standstill.
    """

    def __init__(
        self,
        project: Project,
        folder: Path,
        options: WatchOptions,
        table: WatchTable,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.project, self.folder, self.options, self.table = project, folder, options, table
        self.alive = alive
        stages = stages_of(project.settings)
        self.stages: Sequence[MicrographStage] = [stage for stage in stages if isinstance(stage, MicrographStage)]
        self.began, self.done = time.monotonic(), 0
        self.page_at, self.page_took = -1e9, 0.0

    def watch(self) -> None:
        """Until there is nothing more to wait for."""
        news_at = time.monotonic()
        # Four looks while a file settles see it grow; oftener is load on a file server that many cameras write to.
        pause = max(0.05, min(2.0, self.options.settle_s / 4))
        while True:
            self.alive()
            news = self.look() > 0
            n_worked = self.work()
            if news or n_worked:
                news_at = time.monotonic()
            counts = self.table.counts()
            self.page(force=n_worked > 0 and not counts["ready"])
            waiting = counts["seen"] + counts["growing"] + counts["ready"]
            if self.options.once and not waiting:
                return
            idle = self.options.until_idle_s
            if idle is not None and not waiting and time.monotonic() - news_at >= idle:
                return
            if not n_worked:
                time.sleep(pause)

    # ---- looking

    def look(self) -> int:
        """One look at the folder: new files, changed files, files that have become whole."""
        news = self.table.look(self._files())
        now = time.time()
        for row in self.table.rows("seen", "growing"):
            state, reason = self._judge(row, now)
            if (state, reason) != (row.state, row.reason):
                self.table.mark([row.path], state, reason)
        return news

    def _files(self) -> Iterator[SeenFile]:
        try:
            if self.project.settings.movies:
                names = [str(path) for path in find_movies(str(self.folder))]
            else:
                names = find_micrographs(str(self.folder), checked=False)["path"].tolist()
        except InputError:  # nothing there yet
            return
        for name in names:
            try:
                status = os.stat(name)
            except FileNotFoundError:  # renamed or removed since
                continue
            yield SeenFile(os.path.abspath(name), status.st_size, status.st_mtime_ns)

    def _judge(self, row: WatchRow, now: float) -> tuple[str, str]:
        """Whether a file is whole: unchanged for a while, and as long as its header says."""
        if not writable(row.path):
            return "failed", "a quote, a # or a control character in its name, which no STAR file can hold"
        # A file server whose clock runs ahead gives times to come, which would keep a file unsettled for ever.
        still = now - max(row.changed, row.mtime_ns / 1e9 if row.mtime_ns / 1e9 < now else 0.0)
        if still < self.options.settle_s or not row.bytes:
            return ("growing" if row.state == "growing" or not row.bytes else "seen"), row.reason
        try:
            if self.project.settings.movies or row.path.lower().endswith(".eer"):
                # every frame: the first, which a header of a micrograph is, may be whole long before the last
                open_frames(row.path, unit_A=tiff_pixel_A)
            else:
                micrograph_header(row.path)
            # Cut short or not yet whole look alike: it is given time, and the stage then says what is wrong with it.
        except (InputError, OSError) as error:
            if still < _PATIENCE * self.options.settle_s and not self.options.once:
                return "growing", str(error)
        return "ready", ""

    # ---- working

    def shots(self, *states: str) -> list[Shot]:
        """Files in some states, sorted by name as a pattern would be."""
        return [shot_of(path) for path in sorted(row.path for row in self.table.rows(*states))]

    def finished_shots(self) -> list[Shot]:
        """Files that are done or have failed; one that never came to a result gets one that says why."""
        self.project.shots = self.shots("done", "failed")
        reasons = {os.path.abspath(row.path): row.reason for row in self.table.rows("failed")}
        first = self.stages[0]
        for shot in self.project.shots:
            reason = reasons.get(str(shot.path))
            if reason and self.project.results(first.name).get(shot.key) is None:
                first.keep(self.project, Work(shot, first.one_digest(self.project, shot), {}, reason))
        return self.project.shots

    def work(self) -> int:
        """Everything that is ready, a few at a time; a look at the folder follows each batch."""
        ready = self.table.rows("ready")[: 4 * (self.project.threads or os.cpu_count() or 1)]
        for chain in in_order(self._process_shot, self._mark_running(ready), self.project.threads):
            self._keep_results(chain)
        return len(ready)

    def _mark_running(self, rows: Sequence[WatchRow]) -> Iterator[Shot]:
        """Marks a file as running when a thread is free for it."""
        for row in rows:
            self.table.mark([row.path], "running")
            yield shot_of(row.path)

    def _process_shot(self, shot: Shot) -> _Chain:
        """All stages of a micrograph, one after the other, in a project of its own: nothing is shared with others."""
        alone = Project(self.project.root, self.project.settings, [shot], threads=self.project.threads)
        works: list[_StageWork] = []
        for stage in self.stages:
            record = alone.results(stage.name).read(shot.key)
            if stage.name == "extract" and not usable_shots(alone):
                break
            if record is not None and record["digest"] == stage.one_digest(alone, shot):
                continue
            work = stage.work(alone, shot)
            works.append(_StageWork(stage, work))
            alone.results(stage.name).remember(shot.key, stage.record(work))
            if work.reason:
                break
        return _Chain(shot, works)

    def _keep_results(self, chain: _Chain) -> None:
        shot, path = chain.shot, str(chain.shot.path)
        bad = next((done.work for done in chain.works if done.work.reason), None)
        row = next(r for r in self.table.rows("running") if r.path == path)
        if bad is not None and bad.transient and row.attempts < _ATTEMPTS:
            self.table.mark([path], "ready", bad.reason)
            self.project.listener.say(f"{shot.path.name}: {bad.reason}; tried again")
            return
        for done in chain.works:
            done.stage.keep(self.project, done.work)
        self.table.mark([path], "done" if bad is None else "failed", "" if bad is None else bad.reason)
        self.done += 1
        if bad is not None:
            self.project.listener.say(f"{shot.path.name}: set aside: {bad.reason}")
        counts = self.table.counts()
        self.project.listener.progress("watch", counts["done"] + counts["failed"], sum(counts.values()))

    # ---- telling

    def page(self, *, force: bool) -> None:
        """Write the page anew, not too often: it shows every micrograph there is."""
        now = time.monotonic()
        wait = max(_PAGE_S, self.page_took / _PAGE_SHARE)
        if now - self.page_at < wait and not force:
            return
        states = {shot_of(row.path).key: row.state for row in self.table.rows()}
        self.project.shots = [shot_of(path) for path in sorted(row.path for row in self.table.rows())]
        write_page(self.project, running=True, waiting=states)
        self.page_at, self.page_took = time.monotonic(), time.monotonic() - now

    def say_throughput(self) -> None:
        """Files done by this process, and how fast."""
        elapsed_s = time.monotonic() - self.began
        if self.done:
            self.project.listener.say(
                f"{self.done} micrographs in {elapsed_s:.0f} s, {3600 * self.done / elapsed_s:.0f} per hour, "
                "waiting included"
            )
