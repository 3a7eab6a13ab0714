"""Jobs on files: 2D classification, and the selection of classes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.classification import (
    Class2DSettings,
    Classes2D,
    class_cores,
    classify2d,
    with_levels,
)
from verglas.classification.class2d import iteration_sentence
from verglas.classification.classes import with_stability
from verglas.classification.kept import Standing, standing
from verglas.classification.memory import MEMORY_GB as MEMORY_GB
from verglas.io import (
    read_particles,
    write_bytes,
    write_particles,
    write_stack,
    write_star,
    write_text,
)
from verglas.report import class2d as report
from verglas.report.html import Page
from verglas.run.checkpoint import Checkpoints, Part
from verglas.run.class2d_memory import plan_memory
from verglas.run.class2d_page import SUMMARY, shown_record
from verglas.run.forecast import class2d_forecast
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.live_page import LivePage, footer_text
from verglas.run.refine_inputs import close_identity, on_one_grid
from verglas.run.refine_memory import PAGE_PROCESS_GB, MemoryPlan
from verglas.run.tenure import Tenure, tenure
from verglas.types import Particles, Snapshot
from verglas.types.listener import Listener, Silence
from verglas.types.settings import result_settings

_TABLE, GENERAL = "classes", "classification"
NO_RESOLUTION_A = 999.0  # what stands for infinity in STAR files, as in RELION's


@dataclass(frozen=True)
class Class2DJob:
    """What ``verglas class2d`` is asked for.

    Attributes
    ----------
    particles : Path
        STAR or CS file.
    out : Path
        Folder for the results; it is made.
    settings : Class2DSettings
        How to classify.
    repeats : int
        Runs from other seeds, for the stability of the classes.
    stack : Path, optional
        Image stack in place of the one the file names.
    resume : bool
        There must be a run to go on with; if there is one, it goes on in any case.
    device : str
        Where images are compared with averages; see :func:`verglas.classify2d`.
    threads : int, optional
        Threads; all by default.
    memory_GB : float, optional
        Most that the process may take; what cannot be kept under it is refused at once. By default 4, or what it
        cannot do without.
    core : bool
        Say in particles.star who is in the core of its class (:func:`verglas.classification.class_cores`).
    """

    particles: Path
    out: Path
    settings: Class2DSettings = field(default_factory=Class2DSettings)
    repeats: int = 0
    stack: Path | None = None
    resume: bool = False
    device: str = "cpu"
    threads: int | None = None
    memory_GB: float | None = None
    core: bool = False


@dataclass(frozen=True)
class Class2DSummary:
    """What ``verglas class2d`` reports: the classes, files written, wall time."""

    classes: Classes2D
    files: list[Path]
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        result = self.classes
        rows = result.table.replace({np.inf: None, np.nan: None}).to_dict("records")
        return {
            "verdict": result.verdict,
            "signal": result.signal,
            "particles": len(result.particles),
            "set_aside": {str(k): v for k, v in result.set_aside.items()},
            "seconds": round(self.seconds, 2),
            "classes": rows,
            "selection": result.select().as_dict(),
            "record": [vars(line) for line in result.record],
            "files": [str(f) for f in self.files],
        }


@keeps_inputs("class2d")
def class2d_files(job: Class2DJob, *, listener: ListenerChoice = "screen") -> Class2DSummary:
    """Read, classify, write.

    Every iteration leaves a checkpoint. The same job given again after it was stopped goes on from there, to the same
    result bit for bit.

    Parameters
    ----------
    job : Class2DJob
        What to do.
    listener : Listener, "screen" or None
        Who is told how it goes.

    Returns
    -------
    Class2DSummary

    Raises
    ------
    InputError
        See :func:`verglas.classify2d`; the folder cannot be made; or a run with other settings was stopped in it.
    """
    with shown_to(listener, iteration_sentence) as heard, tenure(job.out, "class2d", heard) as hold:
        return _run_under(job, hold)


def _run_under(job: Class2DJob, hold: Tenure) -> Class2DSummary:
    start_time = time.perf_counter()
    particles = read_particles(job.particles, stack=job.stack)
    course, record = _Course(job, hold), result_settings(job.settings)
    checkpoints = Checkpoints(job.out, record, close_identity(particles), hold.say)
    checkpoints.open(resume=job.resume)
    hold.write(state="running", n_particles=len(particles), settings=record)
    images = on_one_grid(particles)
    plan = plan_memory(images, job.settings, job.memory_GB, job.threads)
    course.tell_plan(plan, hold)
    if job.device == "cpu" and job.settings.start == "seeds":  # others are not foreseen
        forecast = class2d_forecast(
            len(images), images.box, images.pixel_size_A, job.settings, job.threads, repeats=job.repeats
        )
        hold.expect(forecast)

    def classify(settings: Class2DSettings, part: str) -> Classes2D:
        return classify2d(
            particles,
            settings,
            device=job.device,
            threads=job.threads,
            memory_GB=job.memory_GB,
            keeper=_Kept(checkpoints.part(part), course),
            listener=course,
        )

    try:
        result, others = classify(job.settings, "state"), []
        for repeat in range(1, job.repeats + 1):
            course.say(f"repeat {repeat} of {job.repeats}")
            course.part = f"repeat {repeat} "
            others.append(classify(replace(job.settings, seed=job.settings.seed + repeat), f"repeat{repeat}"))
    # Interrupted or terminated as well: the page must not go on saying that it runs.
    except BaseException as error:
        course.show_stop(str(error) or type(error).__name__)
        raise
    result = with_stability(result, others)
    course.page.stop()
    files = _write(result, job, course.events)
    summary = Class2DSummary(result, files, time.perf_counter() - start_time)
    shown = shown_record(result, course.events, _page_settings(job.settings), job.particles)
    write_text(job.out / SUMMARY, json.dumps(summary.as_dict() | shown, indent=1) + "\n")
    # Last: killed while results are being written, the run can still go on.
    checkpoints.remove()
    return summary


class _Course(Silence):
    """How a job goes: a listener that keeps its events, and a page that shows the classes as they stand."""

    def __init__(self, job: Class2DJob, listener: Listener) -> None:
        self.job, self.listener, self.events = job, listener, list[str]()
        self.page = LivePage(job.out / "classes.html", listener.say)
        self.last: Standing | None = None
        self.part = ""  # of the forecast: of repeats their number

    def tell_plan(self, plan: MemoryPlan, hold: Tenure) -> None:
        """Memory is told of before anything is read; pages are drawn beside the job where some is left for that."""
        self.listener.say(str(plan))
        hold.write(memory_plan={name: round(size, 3) for name, size in plan.phases_GB.items()})
        self.page.beside = plan.limit_GB - plan.peak_GB >= PAGE_PROCESS_GB

    def say(self, line: str) -> None:
        """An event, which the page lists."""
        self.events.append(line)
        self.listener.say(line)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Pass on progress."""
        self.listener.progress(phase, done, total)

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Pass on an iteration; the page has its figures from the record."""
        self.listener.iteration(figures)
        self.listener.progress(f"{self.part}iteration {figures['number']}", 1, 1)

    def shows(self, snapshot: Snapshot) -> None:
        """Where it stands between two iterations."""
        self.last = standing(snapshot)
        if self.last.record:
            self.page.show(*self._request(""))

    def show_stop(self, reason: str) -> None:
        """It ends without a result; the page says so."""
        if self.last is not None and self.last.record:
            self.page.show(*self._request(reason), now=True)

    def _request(self, reason: str) -> tuple[Callable[..., Page], Standing, str, dict[str, object], list[str], str]:
        """What draws the page, and of what."""
        assert self.last is not None
        settings, footer = _page_settings(self.job.settings), footer_text(self.job.particles)
        return report.running_page, self.last, reason, settings, self.events, footer


@dataclass(frozen=True)
class _Kept:
    """The checkpoint of a classification, with the job's events in it; the page is drawn when it is written."""

    part: Part
    course: _Course

    def load(self) -> Snapshot | None:
        """What was kept last."""
        snapshot = self.part.load()
        if snapshot is not None:
            # Those of the sittings before, which the page lists as well.
            self.course.events[:] = snapshot.record["events"]
        return snapshot

    def save(self, snapshot: Snapshot, *, needed: bool = False) -> None:
        """Keep it."""
        self.part.save(Snapshot(snapshot.arrays, {**snapshot.record, "events": self.course.events}), needed=needed)
        self.course.shows(snapshot)


def _page_settings(settings: Class2DSettings) -> dict[str, object]:
    """Settings for a page."""
    return {name: value for name, value in vars(settings).items() if value is not None}


def class_star(result: Classes2D, stack: str) -> pd.DataFrame:
    """The table of classes with RELION's labels where it has one."""
    table = result.table
    number = table["class"].to_numpy(int)
    return pd.DataFrame(
        {
            "rlnReferenceImage": [f"{i:06d}@{stack}" for i in number],
            "rlnClassNumber": number,
            "rlnClassDistribution": table["share"],
            "rlnEstimatedResolution": np.minimum(table["resolution_A"], NO_RESOLUTION_A),
            "verglasParticles": table["particles"],
            "verglasEvidenceSigma": table["evidence_sigma"],
            "verglasSignal": table["signal"],
            "verglasOffset": table["offset"],
            "verglasStability": table["stability"],
        }
    )


def _write(result: Classes2D, job: Class2DJob, events: list[str]) -> list[Path]:
    out = job.out
    files = [out / n for n in ("averages.mrcs", "classes.star", "particles.star", "classes.png", "classes.html")]
    write_stack(files[0], result.averages, result.pixel_size_A)
    general: dict[str, object] = {
        "verglasSignalFound": int(result.signal),
        "verglasEmptyClass": result.empty_class or 0,
    }
    write_star(files[1], {GENERAL: general, _TABLE: class_star(result, files[0].name)})
    write_particles(files[2], _with_columns(result, job))
    write_bytes(files[3], report.montage(result))
    write_text(files[4], report.page(result, _page_settings(job.settings), events, footer_text(job.particles)))
    return files


def _with_columns(result: Classes2D, job: Class2DJob) -> Particles:
    """The particles with their classes at each level of splitting, and their cores where asked."""
    particles = with_levels(result)
    if not job.core:
        return particles
    settings = job.settings
    return class_cores(
        replace(result, particles=particles), diameter_A=settings.diameter_A, ctf=settings.ctf, threads=job.threads
    )
