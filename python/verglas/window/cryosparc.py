"""Jobs of a cryoSPARC project folder to look at: ``J12/job.json``, which cryoSPARC writes beside each job's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verglas.io import read_json
from verglas.io.cs import count_rows
from verglas.window.job import Job, key_of

RECORD = "job.json"
_STATES = {
    "building": "scheduled",
    "queued": "scheduled",
    "launched": "starting",
    "started": "starting",
    "running": "running",
    "waiting": "running",
    "completed": "finished",
    "failed": "failed",
    "killed": "stopped",
}


def cryosparc_jobs(folder: Path) -> list[Job]:
    """The job of a folder; none if ``job.json`` is not one of cryoSPARC.

    Parameters
    ----------
    folder : Path
        Such as P3/J12.
    """
    record = read_json(folder / RECORD)
    if "uid" not in record or "status" not in record:
        return []
    kind = str(record.get("type") or record.get("job_type") or "")
    state = _STATES.get(str(record["status"]), "stopped")
    title = str(record.get("title") or "")
    return [
        Job(
            key_of(folder),
            f"{record['uid']} {_words(kind)}".strip() + (f" ({title})" if title else ""),
            folder,
            "cryoSPARC",
            kind,
            state,
            f"cryoSPARC's {kind}, {state}",
            started=_time(record.get("started_at")),
            finished=_time(record.get("completed_at")),
            parents=[key_of(folder.parent / str(uid)) for uid in record.get("parents") or []],
            project=key_of(folder.parent),
            settings=_values(record.get("params_spec") or record.get("params") or {}),
            numbers=_numbers(folder),
        )
    ]


def _words(kind: str) -> str:
    """A kind of job as cryoSPARC's own pages call it, nearly: ``homo_refine_new`` is homo refine."""
    return kind.removesuffix("_new").replace("_", " ")


def _numbers(folder: Path) -> dict[str, Any]:
    """Particles that the job left, told by the header of the file of its last iteration."""
    files = [path for path in folder.glob("*particles*.cs") if "passthrough" not in path.name]
    rows = count_rows(max(files)) if files else None
    return {} if rows is None else {"particles": rows}


def _time(value: Any) -> str:
    """A time as text; MongoDB's export writes {"$date": ...}."""
    date = value.get("$date", "") if isinstance(value, dict) else value
    return date if isinstance(date, str) else ""


def _values(params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        return {}
    return {name: one["value"] if isinstance(one, dict) and "value" in one else one for name, one in params.items()}
