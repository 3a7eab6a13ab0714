"""What a stage is, what it leaves beside its results, and how stages are run one after the other.

A stage is a name, settings, a ``run`` and a ``verdict``; :func:`run_stages` does the rest. It runs a stage if it has
not finished, or if its settings or its inputs (fingerprints of files that earlier stages wrote) have changed; so what
is redone follows from what changed, and another stage is added by its class and one line in ``pipeline/stages.py``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from verglas._version import __version__
from verglas.errors import InputError
from verglas.io import read_json, write_json
from verglas.pipeline.settings import TARGETS, ProcessSettings
from verglas.run.tenure import now_text
from verglas.types.verdict import Verdict

if TYPE_CHECKING:
    from verglas.pipeline.project import Project

_CHUNK = 1 << 22


@dataclass(frozen=True)
class StageRecord:
    """What is known of a stage that has run.

    Attributes
    ----------
    name, folder : str
    settings : mapping
        Resolved.
    inputs, outputs : mapping of name -> fingerprint
    seconds : float
        Wall time of the runs that made it.
    verdict : Verdict
    done_before : bool
        It was found finished.
    """

    name: str
    folder: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    seconds: float
    verdict: Verdict
    done_before: bool = False


class Stage(ABC):
    """One step of the pipeline: a subclass, and its line in the table of ``pipeline/stages.py``.

    Attributes
    ----------
    name : str
        Of the stage and of its folder; what ``--redo`` and ``--set`` call it.
    needs : tuple of str
        Stages whose results it reads.
    product : {"particles", "classes", "map"}
        What the user has to ask for (``--to``) so that it runs; later products include earlier ones.
    keeps_parts : bool
        Whether results of single micrographs in its folder say themselves what they were made with.
    former_names : mapping of name -> name
        Settings by the names that projects of earlier versions hold.
    pictures : tuple of (file, words)
        Of its folder, for the project's page.
    page : str
        A page of its own in its folder, which the project's page links to.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    product: ClassVar[str] = "particles"
    keeps_parts: ClassVar[bool] = False
    former_names: ClassVar[Mapping[str, str]] = {}
    pictures: ClassVar[tuple[tuple[str, str], ...]] = ()
    page: ClassVar[str] = ""

    @classmethod
    def is_wanted(cls, process_settings: ProcessSettings) -> bool:
        """Whether it leads to what is asked for."""
        return TARGETS.index(cls.product) <= TARGETS.index(process_settings.to)

    @abstractmethod
    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings, as JSON would hold them."""

    def inputs(self, project: Project) -> dict[str, str]:
        """Fingerprints of everything that it reads."""
        return outputs_of(project, *self.needs)

    @abstractmethod
    def run(self, project: Project) -> dict[str, str]:
        """Do it; write into the stage's folder; return fingerprints of what later stages read.

        A name with a suffix is a file, from the project folder: the stage is done again if it is gone.
        """

    @abstractmethod
    def verdict(self, project: Project) -> Verdict:
        """Judge what it left."""

    def given_settings(self, project: Project) -> dict[str, Any]:
        """Settings of this stage that the user has set by name, by their present names."""
        return {self.former_names.get(k, k): v for k, v in project.settings.of_stage(self.name).items()}

    def path(self, project: Project, name: str = "") -> Path:
        """A file of the stage; without a name its folder."""
        return project.folder(self.name) / name

    def place(self, project: Project, name: str) -> str:
        """A file of the stage, from the project folder: what verdicts and pages say."""
        return f"{project.folder_name(self.name)}/{name}"

    def outputs(self, project: Project, *names: str) -> dict[str, str]:
        """Fingerprints of files of the stage."""
        return {self.place(project, name): file_digest(self.path(project, name)) for name in names}


class StageStopped(InputError):
    """A stage's verdict is to stop."""


def digest(value: Any) -> str:
    """A fingerprint of anything JSON can hold.

    Examples
    --------
    >>> from verglas.pipeline.stage import digest
    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}), len(digest(0))
    (True, 16)
    """
    return hashlib.sha1(json.dumps(value, sort_keys=True, default=str).encode(), usedforsecurity=False).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A fingerprint of a file's content; "missing" where there is none."""
    if not path.is_file():
        return "missing"
    sha = hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()[:16]


def read_record(project: Project, stage: Stage) -> tuple[dict[str, Any], Verdict | None]:
    """stage.json and verdict.json of a stage; empty and None where it never ran."""
    folder = project.folder(stage.name)
    record = read_json(folder / "stage.json") if (folder / "stage.json").is_file() else {}
    verdict = None
    if (folder / "verdict.json").is_file():
        verdict = Verdict.from_dict(read_json(folder / "verdict.json"))
    return record, verdict


def outputs_of(project: Project, *names: str) -> dict[str, str]:
    """Fingerprints of what earlier stages wrote, as one stage's inputs."""
    digests: dict[str, str] = {}
    for name in names:
        path = project.folder(name) / "stage.json"
        record = read_json(path) if path.is_file() else {}
        if record.get("state") != "finished":
            raise InputError(f"{path.parent}: the stage {name} has not finished; run it first")
        digests |= {f"{name}/{key}": value for key, value in record["outputs"].items()}
    return digests


def run_stages(
    project: Project,
    stages: Sequence[Stage],
    *,
    redo: Sequence[str] = (),
    force: bool = False,
    accept: Callable[[], None] | None = None,
) -> list[StageRecord]:
    """Run stages in order; skip those that stand; stop where a verdict says so.

    Parameters
    ----------
    project : Project
    stages : sequence of Stage
    redo : sequence of str
        Names of stages to do again. Later ones follow if what they read has changed.
    force : bool
        Go on whatever verdicts say.
    accept : callable, optional
        Called once the settings have been found to be allowed, before anything is written.

    Raises
    ------
    InputError
        A finished stage would be done with other settings without having been asked for; an unknown name in ``redo``.
    StageStopped
        A verdict is to stop, and ``force`` is False.
    """
    unknown = sorted(set(redo) - {stage.name for stage in stages})
    if unknown:
        raise InputError(f"--redo {unknown[0]}: no such stage here; there are {', '.join(s.name for s in stages)}")
    for stage in stages:  # a wrong setting of the last stage is said before the first begins
        stage.settings(project)
    _refuse_silent_changes(project, stages, redo)
    if accept is not None:
        accept()
    records: list[StageRecord] = []
    for stage in stages:
        records.append(_run_one(project, stage, again=stage.name in redo))
        _say_verdict(project, records[-1], force)
        project.stage_done(records[-1])
    project.update_page()
    return records


def _refuse_silent_changes(project: Project, stages: Sequence[Stage], redo: Sequence[str]) -> None:
    # All stages are asked before any runs: a refusal after an hour of work would be a poor one.
    for stage in stages:
        if stage.name in redo:
            return  # what follows is the user's wish
        had, _ = read_record(project, stage)
        if had.get("state") != "finished":
            return
        changes = changed_settings(project, stage, had["settings"])
        if changes:
            raise InputError(
                f"{project.folder(stage.name)}: {stage.name} was finished with other settings ({'; '.join(changes)}); "
                f"to do it and what depends on it again, say --redo {stage.name}"
            )


def changed_settings(project: Project, stage: Stage, had: Mapping[str, Any]) -> list[str]:
    """Settings of a stage that are no longer those of its record, each with both values.

    A setting that a version after the record's has added counts only if the user gave it; one that is gone does not.
    """
    # Records of earlier versions have former names; a renamed setting is no other setting.
    before = {stage.former_names.get(name, name): value for name, value in had.items()}
    overrides = stage.given_settings(project)
    return [
        f"{name}: was {before.get(name)}, now {value}"
        for name, value in stage.settings(project).items()
        if before.get(name) != value
        and (name in before or name in overrides or getattr(project.settings, name, None) is not None)
    ]


def _run_one(project: Project, stage: Stage, *, again: bool) -> StageRecord:
    settings, inputs = stage.settings(project), stage.inputs(project)
    had, verdict = read_record(project, stage)
    same = bool(had) and had["inputs"] == inputs and not changed_settings(project, stage, had["settings"])
    # Only files are looked for (they have a suffix): outputs also list counts and fingerprints of lists.
    there = all(
        (project.root / name).exists()
        for name in had.get("outputs", {})
        if had["outputs"][name] != "missing" and Path(name).suffix
    )
    if had.get("state") == "finished" and same and there and not again and verdict is not None:
        place = project.folder_name(stage.name)
        return StageRecord(stage.name, place, settings, inputs, had["outputs"], had["seconds"], verdict, True)
    project.update_page()
    folder = project.folder(stage.name)
    # Half a stage of other settings must not be mixed with this one, and must not be lost either.
    if had and not (stage.keeps_parts or (same and had.get("state") == "running" and not again)):
        _back_up_folder(folder)
        had = {}
    folder.mkdir(parents=True, exist_ok=True)
    # a stage that goes on counts the time it had before it was killed
    before = float(had.get("seconds", 0.0)) if had.get("state") == "running" else 0.0
    record = {
        "stage": stage.name,
        "verglas": __version__,
        "state": "running",
        "settings": settings,
        "inputs": inputs,
        "seed": project.settings.seed,
        "started": now_text(),
        "seconds": before,
        "outputs": {},
    }
    # "running" before any work: a kill in the middle is told from a stage that never began.
    write_json(folder / "stage.json", record)
    start_time, processor = time.perf_counter(), time.process_time()
    outputs = stage.run(project)
    new_verdict = stage.verdict(project)
    seconds = round(before + time.perf_counter() - start_time, 2)
    # The verdict before "finished": a stage without one would be skipped unjudged.
    write_json(folder / "verdict.json", new_verdict.as_dict())
    write_json(
        folder / "stage.json",
        record
        | {
            "state": "finished",
            "finished": now_text(),
            "seconds": seconds,
            "outputs": outputs,
            "processor_seconds": round(time.process_time() - processor, 2),
        },
    )
    return StageRecord(stage.name, folder.name, settings, inputs, outputs, seconds, new_verdict)


def _back_up_folder(folder: Path) -> None:
    """What a stage had made is kept beside it until it is redone once more."""
    old = folder.with_name(folder.name + ".before")
    if old.exists():
        shutil.rmtree(old)
    folder.rename(old)


def _say_verdict(project: Project, record: StageRecord, force: bool) -> None:
    verdict = record.verdict
    words = "done before" if record.done_before else f"{record.seconds:.1f} s"
    reasons = "".join(f"; {reason}" for reason in verdict.reasons)
    project.listener.say(f"{record.name}: {words}: {verdict.state}{reasons}")
    if verdict.state == "stop" and not force:
        project.show_stop(record)
        raise StageStopped(stop_sentence(project.root, record))


def stop_sentence(root: Path, record: StageRecord) -> str:
    """Why it stops, what to look at, and how to go on anyway."""
    verdict = record.verdict
    why = "; ".join(verdict.reasons) or "its verdict is to stop"
    return (
        f"{record.name} stopped: {why}. Look at {root / (verdict.look_at or 'report.html')}; change settings with "
        f"--redo {record.name}, or go on anyway with --force"
    )
