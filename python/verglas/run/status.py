"""``verglas status``: where the job of a folder stands, whether its process works, hangs or is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from verglas.errors import InputError
from verglas.io import read_json
from verglas.run.tenure import BEAT_S, is_locked
from verglas.types.forecast import rough_duration
from verglas.types.run_state import RunState, read_run_state

STATES = ("starting", "running", "stalled", "dead", "stopped", "failed", "finished")
_BEATS = 4  # heartbeats missed before a process counts as hanging, or as gone if its machine is another one
_RESUMED_BY = {
    "refine": "add --resume to the same command",
    "class2d": "give the same command again",
    "abinitio": "give the same command again",
    "process": "give the same command again",
    "motion": "give the same command again",
}


@dataclass(frozen=True)
class Status:
    """Where a job stands.

    Attributes
    ----------
    folder : Path
    command : str
        The ``verglas`` command that made the folder.
    state : {"starting", "running", "stalled", "dead", "stopped", "failed", "finished"}
        stalled: its process lives and makes no progress; dead: its process is gone without having said why.
    sentence : str
        The same for a person, with what to do.
    recorded : str
        What ``run.json`` says.
    pid, host : int, str
        Of the process that works or worked.
    heartbeat_age_s, progress_age_s : float or None
        Since the last heartbeat and the last sign of progress.
    phase, done, total : str, int, int
        What it was at.
    eta_seconds : float or None
        That a running job will still take, by its forecast and its pace so far.
    details : dict
        Iterations and resolution of a refinement, stages of a project.
    """

    folder: Path
    command: str
    state: str
    sentence: str
    recorded: str
    pid: int = 0
    host: str = ""
    heartbeat_age_s: float | None = None
    progress_age_s: float | None = None
    phase: str = ""
    done: int = 0
    total: int = 0
    eta_seconds: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "folder": str(self.folder)}


def status(folder: str | Path) -> Status:
    """Where the job of a folder stands.

    Parameters
    ----------
    folder : path
        Of refine, class2d, abinitio, motion or process.

    Returns
    -------
    Status

    Raises
    ------
    InputError
        No job has worked there.

    Examples
    --------
    >>> import tempfile
    >>> import verglas as vg
    >>> from verglas.run.tenure import tenure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with tenure(Path(folder) / "run", "refine") as held:
    ...         held.write(state="running")
    ...         now = vg.status(Path(folder) / "run").state
    ...     now, vg.status(Path(folder) / "run").state
    ('running', 'finished')
    """
    path = Path(folder)
    record = path / "run.json"
    if not record.is_file():
        raise InputError(
            f"{path}: no run.json; expected the folder of refine, class2d, abinitio, motion or process (--out)"
        )
    run = read_json(record)
    beat, progress = run.get("heartbeat", {}), run.get("progress", {})
    command, recorded = str(run.get("command", "refine")), str(run.get("state", "unknown"))
    run_state = read_run_state(run)
    beat_age, progress_age = _age_s(beat.get("time")), _age_s(progress.get("time"))
    pace = _Pace(progress_age, float(progress.get("stalled_after_s", 0)))
    state, why = _judge(path, run_state, beat, beat_age, pace)
    at = f"{progress.get('phase', '')}, {progress.get('done', 0)} of {progress.get('total', 0)}"
    # of a failure the sentence says more than the name of its error, which is the reason
    reason = recorded if run_state is RunState.FAILED else str(run.get("reason", "")) or recorded
    sentence = _sentence(command, state, why, at, reason)
    left = _left_s(run, beat_age) if state == "running" else None
    if left is not None:
        sentence += f"; about {rough_duration(left)} left"
    return Status(
        path,
        command,
        state,
        sentence,
        recorded,
        int(beat.get("pid", 0)),
        str(beat.get("host", "")),
        beat_age,
        progress_age,
        str(progress.get("phase", "")),
        int(progress.get("done", 0)),
        int(progress.get("total", 0)),
        left,
        _details(path, command, run),
    )


def _left_s(run: dict[str, Any], beat_age: float | None) -> float | None:
    """What was left at the last heartbeat, less the time since."""
    eta = run.get("eta_seconds")
    return None if eta is None else max(0.0, round(float(eta) - (beat_age or 0.0), 1))


def _age_s(text: Any) -> float | None:
    if not text:
        return None
    return round((datetime.now(timezone.utc) - datetime.fromisoformat(str(text))).total_seconds(), 1)


@dataclass(frozen=True)
class _Pace:
    """Seconds since the last sign of progress, and how many without one a job of its pace is given; 0: any number."""

    silent_s: float | None
    patience_s: float


def _judge(
    folder: Path, recorded: RunState, beat: dict[str, Any], beat_age: float | None, pace: _Pace
) -> tuple[str, str]:
    """The state, and for one that is not as recorded: why."""
    if not recorded.goes_on:
        return recorded.value, ""
    if beat_age is None:
        return "dead", "it left no heartbeat"
    late = beat_age > _BEATS * float(beat.get("every_s", BEAT_S))
    # Only on its own machine can the process be looked for; of others the age of the heartbeat is all there is.
    if beat.get("host") == socket.gethostname():
        if not (is_locked(folder) and _alive(int(beat.get("pid", 0)))):
            return (
                "dead",
                f"its process {beat.get('pid')} is gone; the last heartbeat is {rough_duration(beat_age)} old",
            )
    elif late:
        return "dead", f"no heartbeat from {beat.get('host')} for {rough_duration(beat_age)}"
    if late:
        return "stalled", f"its process {beat.get('pid')} has given no heartbeat for {rough_duration(beat_age)}"
    if pace.silent_s is not None and pace.patience_s and pace.silent_s > pace.patience_s:
        return (
            "stalled",
            f"no progress for {rough_duration(pace.silent_s)}; stacks of its threads are in {folder / 'stalled.log'}",
        )
    return recorded.value, ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's: it is there
        return True
    return True


def _sentence(command: str, state: str, why: str, at: str, reason: str) -> str:
    onward = _RESUMED_BY.get(command, "give the same command again")
    sentences = {
        "starting": f"{command} is starting: {at}",
        "running": f"{command} is running: {at}",
        "stalled": f"{command} is stalled at {at}: {why}",
        "dead": f"{command} is dead, at {at}: {why}; to go on, {onward}",
        "stopped": f"{command} was stopped ({reason}) at {at}; to go on, {onward}",
        "failed": f"{command} {reason}, at {at}",
        # "finished" says nothing more.
        "finished": f"{command} has finished" + (f": {reason}" if reason not in ("finished", "unknown") else ""),
    }
    return sentences[state]


def _details(folder: Path, command: str, run: dict[str, Any]) -> dict[str, Any]:
    if command == "process":
        stages = {}
        for path in sorted(folder.glob("[0-9]*_*/stage.json")):
            outcome = read_json(path)
            verdict = path.with_name("verdict.json")
            verdict_state = read_json(verdict)["state"] if verdict.is_file() else ""
            stages[str(outcome["stage"])] = {"state": outcome["state"], "verdict": verdict_state}
        return {"stages": stages}
    if command == "refine":
        rows = folder / "iterations.csv"
        if not rows.is_file():
            return {"iterations": 0}
        lines = rows.read_text(encoding="utf-8").splitlines()
        last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=False)) if len(lines) > 1 else {}
        keep = ("iteration", "phase", "resolution_A")
        return {"iterations": len(lines) - 1, **{name: last[name] for name in keep if name in last}}
    return {"n_particles": run.get("n_particles")}
