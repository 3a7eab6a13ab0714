"""The run folder of a refinement: what it was asked, how it goes, where it stands, what it found."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas import _native
from verglas._version import __version__
from verglas.assessment import Postprocessed
from verglas.assessment.judge import resolution_withheld_by, withheld_claim
from verglas.errors import InputError
from verglas.io import atomic_path, read_json, write_csv, write_json, write_map, write_particles
from verglas.refinement.em import Iteration, peak_memory_GB
from verglas.refinement.problem import RefineProblem
from verglas.refinement.settings import RefineSettings
from verglas.refinement.state import State
from verglas.report.refine import write_refine_page
from verglas.run.checkpoint import checkpoint_path
from verglas.run.page_process import PageProcess
from verglas.run.particle_number import ResolutionByNumber
from verglas.run.postprocess import write_postprocessed
from verglas.run.refine_inputs import by_present_names
from verglas.run.refine_memory import PAGE_PROCESS_GB, MemoryPlan
from verglas.run.tenure import Tenure, end_of, now_text, tenure
from verglas.types import Map, Particles
from verglas.types.listener import Listener
from verglas.types.run_state import RunState, read_run_state
from verglas.types.settings import setting_of
from verglas.types.verdict import Finding, Verdict, notes_of

_PAGE_EVERY_S = 20.0  # a page takes seconds of processor; a run that has lasted no longer than this has none yet


def settings_record(settings: RefineSettings, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved settings, JSON-ready."""
    return {**asdict(settings), "prior_factor": settings.T, **extra}


def _present_settings(had: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a run whose ``regularisation`` was the number T, before it named a prior."""
    if isinstance(had.get("regularisation"), int | float):
        return {**had, "prior_factor": had["regularisation"], "regularisation": "global"}
    return had


def refuse_changes(folder: Path, now: Mapping[str, Any], *, allowed: bool) -> list[str]:
    """Sentences on settings that differ from those a run was started with; those that change no result may.

    Raises
    ------
    InputError
        There are some, and they are not allowed.
    """
    free = {f.name for f in fields(RefineSettings) if not setting_of(f).changes_result}
    defaults = {f.name: f.default for f in fields(RefineSettings)}  # of settings that the run's version did not have
    record = read_json(folder / "run.json")
    had, version = _present_settings(record["settings"]), record.get("verglas", "unknown")
    had = by_present_names(had, now, record.get("directory", os.curdir))
    changes = [] if version == __version__ else [f"verglas: was {version}, now {__version__}"]
    changes += [
        f"{name}: was {had.get(name, defaults.get(name))}, now {value}"
        for name, value in now.items()
        if name not in free and had.get(name, defaults.get(name)) != value
    ]
    if changes and not allowed:
        raise InputError(
            f"{folder}: this run was started with other settings ({'; '.join(changes)}); resume with the same, or say "
            "--allow-changes"
        )
    return changes


@contextlib.contextmanager
def refine_folder(
    out: Path, record: dict[str, Any], listener: Listener, *, resume: bool, allow_changes: bool
) -> Iterator[RefineFolder]:
    """The folder of a refinement that begins, or goes on: locked, with a heartbeat, as long as the block lasts.

    Raises
    ------
    InputError
        It holds a run already, or none that can be resumed; settings differ; another process works in it.
    """
    path = out / "run.json"
    had: dict[str, Any] = {}
    sentences: list[str] = []
    if resume:
        if not checkpoint_path(out).is_file():
            raise InputError(f"{out}: nothing to resume: no checkpoint there; start without --resume")
        sentences = refuse_changes(out, record, allowed=allow_changes)
        had = read_json(path)
    elif path.exists() and not _can_begin(out, read_json(path)):
        raise InputError(f"{out}: holds a run already; resume it (--resume), remove it, or name another folder")
    with tenure(out, "refine", listener, record={**had, **_STARTING, "settings": record}) as hold:
        folder = RefineFolder(out, record, hold)
        if resume:
            folder.resume(
                had, [Finding("changed_settings", "warn", f"resumed with changed settings: {s}") for s in sentences]
            )
        yield folder


_STARTING = {"state": "starting", "run_state": RunState.STARTING.value}


def _can_begin(out: Path, run: Mapping[str, Any]) -> bool:
    """Whether a run here ended, or was killed, before its first checkpoint, so that nothing is lost."""
    state = read_run_state(run)
    # One that ended before its first checkpoint leaves nothing to resume: it may be begun again.
    unborn = state is RunState.STARTING or state.gave_up
    return run.get("command") == "refine" and unborn and not checkpoint_path(out).is_file()


class RefineFolder:
    """Writes a run folder; every file is replaced as a whole.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    settings : dict
        Resolved settings.
    held : Tenure
        The hold on the folder, which writes run.json with its heartbeat.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], hold: Tenure) -> None:
        self.folder, self.settings, self.held = folder, dict(settings), hold
        self.started, self.before = time.perf_counter(), 0.0
        self.pages, self._paged = PageProcess(folder, hold.say), self.started
        self._page_beside = True
        self.notes: list[Finding] = []
        self.record: dict[str, Any] = {}

    def begin(self, problem: RefineProblem, plan: MemoryPlan, excluded: pd.DataFrame, notes: list[Finding]) -> None:
        """A fresh run. It is born with its first checkpoint (:meth:`born`): killed before, it can be started again."""
        (self.folder / "history").mkdir(parents=True, exist_ok=True)
        self.notes = list(notes)
        self.record = {
            "verglas": __version__,
            "command": "refine",
            "directory": os.getcwd(),  # what relative names among the settings are in
            "settings": self.settings,
            "seed": problem.settings.seed,
            "isa": _native.core.isa,
            "threads": _native.resolve_threads(problem.threads),
            "started": now_text(),
            "n_particles": len(problem),
            "n_excluded": len(excluded),
            "box": problem.box,
            "pixel_size_A": problem.pixel_size_A,
            "symmetry": problem.symmetry,
            "n_classes": problem.n_classes,
        }
        # A run killed before its first checkpoint may have left pictures, which would be shown as this one's.
        for old in (self.folder / "history").glob("iteration_*.npz"):
            old.unlink()
        (self.folder / "iterations.csv").unlink(missing_ok=True)
        self.plan(plan, problem.devices)
        write_csv(self.folder / "excluded.csv", {str(name): excluded[name].to_numpy() for name in excluded})

    def plan(self, plan: MemoryPlan, devices: tuple[str, ...]) -> None:
        """The devices in use and the memory plan in force; a run may be resumed on others."""
        self.record["device"] = ",".join(devices)
        self.record["memory_plan"] = {name: round(size, 3) for name, size in plan.phases_GB.items()}
        self.record["device_memory_plan"] = {
            d.device: {name: round(size, 3) for name, size in d.phases_GB.items()} for d in plan.devices
        }
        self.record["images_in_memory"] = plan.cached
        self._page_beside = plan.limit_GB - plan.peak_GB >= PAGE_PROCESS_GB
        self._write(self.held.state, self.held.state.value)

    def mark_running(self) -> None:
        """The checkpoint is there: from now on the run can be resumed."""
        self._write(RunState.RUNNING, "running")

    def resume(self, had: Mapping[str, Any], notes: list[Finding]) -> None:
        """A run that was stopped."""
        # Why it stopped then says nothing of now.
        self.record = {**had, "reason": ""}
        # Time of the sittings before counts too.
        self.before = float(self.record.get("seconds", 0.0))
        self.notes = [*notes_of(had), *notes]
        self.record.pop("warnings", None)
        self.record["settings"] = self.settings

    def _write(self, state: RunState, sentence: str, **more: Any) -> None:
        self.record |= {
            "state": sentence,
            "run_state": state.value,
            "notes": [note.as_dict() for note in self.notes],
            "finished": None if state.goes_on else now_text(),
            "seconds": round(self.before + time.perf_counter() - self.started, 2),
            # Of all sittings: this process knows nothing of the peaks before it.
            "peak_memory_GB": round(max(peak_memory_GB(), self.record.get("peak_memory_GB", 0.0)), 3),
            **more,
        }
        self.held.replace(self.record)

    def iteration(self, problem: RefineProblem, state: State, iteration: Iteration) -> None:
        """Add an iteration: its row, its pictures, the page."""
        self.notes += iteration.notes
        rows = [figures.as_row() for figures in state.figures]
        write_csv(self.folder / "iterations.csv", {name: [row[name] for row in rows] for name in rows[-1]})
        several = len(iteration.maps) > 1
        volumes, labels = [], []
        for k, maps in enumerate(iteration.maps):
            mean = maps.halves.mean(axis=0)
            volumes += [mean] if several else [*maps.halves, mean]
            labels += [f"class {k + 1}"] if several else ["half 1", "half 2", "map"]
        middle = problem.box // 2
        # Three slices of each map: whole maps of every iteration would outgrow the results.
        slices = np.stack([[v[middle], v[:, middle], v[:, :, middle]] for v in volumes])
        with atomic_path(self.folder / "history" / f"iteration_{state.iteration:03d}.npz") as temporary:
            np.savez_compressed(
                temporary,
                slices=slices.astype(np.float32),
                names=np.array(labels),
                fsc=np.stack([m.unmasked for m in iteration.maps]),
                frequency_per_A=np.arange(problem.box // 2 + 1) / (problem.box * problem.pixel_size_A),
            )
        self._write(RunState.RUNNING, "running")
        now = time.perf_counter()
        if now - self._paged >= _PAGE_EVERY_S:
            self._paged = now
            if self._page_beside:
                self.pages.ask()
            else:  # --memory holds for both: the job draws it, which its plan has counted
                write_refine_page(self.folder)

    def finish(
        self,
        problem: RefineProblem,
        iteration: Iteration,
        assessments: list[Postprocessed],
        particles: Particles,
        verdict: Verdict,
        *,
        converged: bool,
        by_number: ResolutionByNumber | None = None,
    ) -> None:
        """Final maps, curves, particles and page."""
        withheld = withheld_claim(resolution_withheld_by(verdict))
        if by_number is not None:
            write_json(self.folder / "reslog.json", by_number.as_dict())
        else:  # one of an earlier end, under other settings, is not of these maps
            (self.folder / "reslog.json").unlink(missing_ok=True)
        for k, (maps, result) in enumerate(zip(iteration.maps, assessments, strict=True)):
            suffix = "" if len(assessments) == 1 else f"_class{k + 1}"
            for number, half in enumerate(maps.raw, 1):
                write_map(self.folder / f"half{number}{suffix}.mrc", Map(half, problem.pixel_size_A))
            assert maps.joint is not None
            write_map(self.folder / f"map{suffix}.mrc", Map(maps.joint, problem.pixel_size_A))
            write_postprocessed(self.folder, result, suffix=suffix, with_map=False, record=withheld)
            self.notes += [note for note in result.notes if note not in self.notes]
        write_particles(self.folder / "particles.star", particles)
        count = problem.settings.iterations
        sentence = "converged" if converged else f"stopped after {count} iterations"
        self.pages.stop()
        # After all files: a folder that says that it has finished holds its results.
        self._write(RunState.FINISHED, sentence, converged=converged, verdict=verdict.as_dict())
        write_refine_page(self.folder)

    def record_end(self, error: BaseException) -> None:
        """The run ends without a result; the checkpoint stays, and the page says so."""
        end = end_of(error)
        # First, since a job that was told to end has seconds left.
        self._write(end.run_state, end.sentence, reason=end.reason)
        self.pages.stop()
        # What ended the run is what matters, and a signal may have left the drawing library half imported: a page that
        # cannot be written must not hide it.
        with contextlib.suppress(Exception):
            write_refine_page(self.folder)
