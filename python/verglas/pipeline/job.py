"""``vg.process``: the stages of a project in order, up to what was asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verglas._devices import device_names
from verglas._native import resolve_threads
from verglas._screen import ListenerChoice, shown_to
from verglas.io import write_json
from verglas.pipeline.project import Project, find_shots, hold_movies
from verglas.pipeline.settings import ProcessSettings, load_settings, save_settings
from verglas.pipeline.stage import StageRecord, StageStopped, run_stages
from verglas.pipeline.stages import stages_of
from verglas.pipeline.tables import Standing, standings
from verglas.run.cluster import ClusterChoice, ClusterUse
from verglas.run.machine import allowed_memory_GB
from verglas.run.tenure import Tenure, now_text, tenure
from verglas.types.display import one_line
from verglas.types.run_state import RunState

# Rough processor time, for the plan that is said first: seconds per micrograph for its CTF (per 4096 x 4096 pixels) and
# its picks (binned to the particle, so nearly the same for every size), and bytes per pixel while it is worked on.
_CTF_S, _PICK_S, _BYTES = 0.6, 1.5, 40.0


@one_line
@dataclass(frozen=True)
class Outcome:
    """What ``verglas process`` left.

    Attributes
    ----------
    root : Path
        The project folder.
    records : list of StageRecord
        In order; the last may be the one that stopped.
    micrographs : list of Standing
        Each with the reason why it is set aside, or flags.
    seconds : float
        Wall time of this call.
    stopped : str
        Why it stopped, what to look at and how to go on; empty where it did not.
    """

    root: Path
    records: list[StageRecord]
    micrographs: list[Standing]
    seconds: float
    stopped: str = ""

    @property
    def particles(self) -> Path:
        """The particles of the project."""
        return self.root / "particles.star"

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        numbers = {r.name: dict(r.verdict.numbers) for r in self.records}
        final = numbers.get("postprocess") or numbers.get("refine") or {}
        return {
            "folder": str(self.root),
            "report": str(self.root / "report.html"),
            "stopped": self.stopped,
            "micrographs": len(self.micrographs),
            "micrographs_used": sum(one.is_used for one in self.micrographs),
            "set_aside": {one.shot.name: one.reason for one in self.micrographs if not one.is_used},
            "flagged": {one.shot.name: list(one.flags) for one in self.micrographs if one.is_used and one.flags},
            "particles": numbers.get("centre", numbers.get("extract", {})).get("particles", 0),
            "resolution_A": final.get("resolution_A"),
            "resolution_withheld_by": final.get("resolution_withheld_by"),
            "stages": [
                {
                    "stage": r.name,
                    "folder": r.folder,
                    "verdict": r.verdict.state,
                    "reasons": list(r.verdict.reasons),
                    "seconds": r.seconds,
                    "done_before": r.done_before,
                    "numbers": numbers[r.name],
                }
                for r in self.records
            ],
            "seconds": round(self.seconds, 2),
        }


def process(
    out: str | Path,
    settings: ProcessSettings | None = None,
    *,
    redo: Sequence[str] = (),
    force: bool = False,
    threads: int | None = None,
    memory_GB: float | None = None,
    device: str = "cpu",
    listener: ListenerChoice = "screen",
    cluster: ClusterChoice = None,
    **changes: Any,
) -> Outcome:
    """From micrographs to particles, 2D classes or a map, in a project folder that can be resumed.

    Every stage leaves its folder with stage.json (settings, fingerprints of inputs, seed, version, time) and
    verdict.json. A stage that has finished with these settings and inputs is not done again; one that was killed goes
    on with what is there. Bad micrographs are named, set aside and counted.

    Parameters
    ----------
    out : path
        Project folder; made if it is not there.
    settings : ProcessSettings, optional
        What is asked for, in place of all that an earlier call on this folder asked for.
    redo : sequence of str
        Stages to do again with what is given now; later ones follow where what they read has changed, earlier ones
        stand.
    force : bool
        Go on whatever the verdicts say.
    threads : int, optional
        All processors by default; results do not depend on it.
    memory_GB : float, optional
        Not to be passed by later stages.
    device : str
        ``"cpu"``, ``"cuda:0"``, several, or ``"cuda"`` for every GPU: where 2D classes and maps are made. Classes and
        first maps use the first of them.
    listener : Listener, "screen" or None
        Who is told how it goes, as of :func:`verglas.refine`.
    cluster : str or ClusterRequest, optional
        Workers that share the micrographs and the refinement, as of :func:`verglas.refine`; results do not depend on
        them.
    **changes
        Fields of :class:`verglas.pipeline.ProcessSettings`; what an earlier call on this folder gave need not be
        repeated.

    Returns
    -------
    Outcome
        ``stopped`` says why, if a verdict was to stop.

    Raises
    ------
    SettingError
        A setting is unknown or out of bounds, or one that is needed is neither given nor known.
    InputError
        No micrographs, a finished stage would change unasked, or another
        process works in the folder.

    Examples
    --------
    >>> import tempfile, verglas as vg
    >>> model = vg.simulate.phantom(32, 6.0, 120.0, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(2):
    ...         m, _ = vg.simulate.micrograph(model, shape=(512, 512), pixel_size_A=3.0, n=40, snr=0.4, seed=i)
    ...         vg.io.write_stack(f"{folder}/m{i}.mrc", m.data[None], 3.0)
    ...     done = vg.process(f"{folder}/proj", micrographs=[f"{folder}/*.mrc"], diameter_A=120, threads=1)
    ...     len(vg.read_particles(done.particles)) > 50, [r.name for r in done.records]
    (True, ['ctf', 'pick', 'extract', 'centre'])
    """
    start_time = time.perf_counter()
    root = Path(out)
    process_settings = load_settings(root, settings, changes)
    stages_of(process_settings)  # refuses what is no stage before any file is looked into
    if process_settings.movies is None:
        process_settings = replace(process_settings, movies=hold_movies(process_settings))
    stages = stages_of(process_settings)
    shots = find_shots(process_settings)
    use = ClusterUse.of(cluster, "process", root, tuple(device_names(device)))
    limit_GB = allowed_memory_GB() if memory_GB is None else memory_GB
    with (
        shown_to(listener) as screen,
        tenure(root, "process", screen) as heard,
        use.workers(heard, threads, limit_GB) as workers,
    ):
        around: dict[str, Any] = {"threads": threads, "memory_GB": memory_GB, "device": device, "workers": workers}
        project = Project(root, process_settings, shots, heard, **around)
        project.listener.say(plan_sentence(project))
        if project.assumptions and not process_settings.movies:  # the metadata of movies are read with them
            project.listener.note("assumed", project.assumptions)
        reason = ""
        try:
            run_stages(
                project, stages, redo=redo, force=force, accept=lambda: _accept_settings(process_settings, root, heard)
            )
        except StageStopped as error:
            reason = str(error)
        record_end(heard, reason)
        return finish_project(project, time.perf_counter() - start_time, reason)


def _accept_settings(process_settings: ProcessSettings, root: Path, heard: Tenure) -> None:
    save_settings(root, process_settings)
    heard.write(state="running")


def record_end(heard: Tenure, reason: str) -> None:
    """Leave in run.json how a project ended: through, or by a verdict."""
    if reason:
        sentence, run_state = f"stopped by a verdict: {reason}", RunState.STOPPED
    else:
        sentence, run_state = "finished", RunState.FINISHED
    heard.write(state=sentence, run_state=run_state.value, finished=now_text())


def finish_project(project: Project, seconds: float, reason: str) -> Outcome:
    """The outcome, also left as process.json."""
    outcome = Outcome(project.root, list(project.records.values()), standings(project), seconds, reason)
    write_json(project.root / "process.json", json.loads(json.dumps(outcome.summary(), default=_json_value)))
    return outcome


def _json_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def plan_sentence(project: Project) -> str:
    """What is about to be done, its memory and rough time."""
    from verglas.pipeline.shape import shape_of

    count = len(project.shots)
    if project.settings.movies:
        return f"{count} movies, corrected one after the other, and then their micrographs"
    workers = min(resolve_threads(project.threads), count)
    shape = next((s for s in (shape_of(shot.path) for shot in project.shots[:10]) if s is not None), None)
    if shape is None:
        return f"{count} micrographs; none of the first {min(10, count)} can be read"
    pixels = shape[0] * shape[1]
    seconds = count * (_CTF_S * pixels / 4096**2 + _PICK_S) / workers
    memory = (workers + 1) * pixels * _BYTES / 1e9
    return (
        f"{count} micrographs of {shape[1]} x {shape[0]} pixels, {workers} at a time: about {memory:.1f} GB and "
        f"{_words(seconds)} to particles"
    )


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
