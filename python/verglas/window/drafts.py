"""Changes that a person has made and not saved: kept beside the job as they are made, so that no end of the server, the
page or the machine takes them away. They are no decision: nothing but the page reads them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from verglas.errors import InputError, VerglasError
from verglas.io import read_json, write_text
from verglas.window.job import Job
from verglas.window.versions import seen_mark

FOLDER = ".window_drafts"
_NAME = re.compile(r"classes|micrographs|particles|picks-\d{1,7}")


def _path(job: Job, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError("draft: expected classes, micrographs, particles or picks-NUMBER")
    folder = job.folder / FOLDER
    if folder.is_symlink():  # it could lead anywhere
        raise InputError(f"draft: {folder} is a link; remove it")
    return folder / f"{name}.json"


def draft_of(job: Job, name: str) -> dict[str, Any]:
    """What was changed and not saved; empty where nothing was, or where it cannot be read."""
    path = _path(job, name)
    try:
        draft = read_json(path) if path.is_file() else {}
        _text_of(draft)
    except (VerglasError, OSError, ValueError):
        return {}
    return draft


def _text_of(record: dict[str, Any]) -> str:
    """As a file and an answer hold it; a NaN, or half a surrogate pair, which json reads, is a ValueError."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    return text


def keep_draft(job: Job, name: str, record: dict[str, Any]) -> str:
    """Keep a draft: ``base``, what it is about; ``time``, in milliseconds; ``value``. One without a value is forgotten.

    A draft that is about something else is not written over: it gets another name.

    Raises
    ------
    InputError
        A name that is none, or a record of another shape.
    """
    path = _path(job, name)
    was = draft_of(job, name)
    is_other = bool(was) and was.get("base") != record.get("base", was.get("base"))
    if "value" not in record:
        if not is_other:
            path.unlink(missing_ok=True)
        return "forgotten"
    if set(record) != {"base", "time", "value"} or not isinstance(record["base"], str):
        raise InputError("draft: expected base, time and value")
    if not isinstance(record["time"], int | float):  # drafts are sorted by it
        raise InputError("draft: expected a time in milliseconds")
    try:
        text = _text_of(record)
    except ValueError as error:
        raise InputError("draft: expected finite numbers and text that is UTF-8") from error
    path.parent.mkdir(exist_ok=True)
    if is_other:
        path.rename(path.with_name(f"{name}_before_{seen_mark(was)[:12]}.json"))
    write_text(path, text)
    return "kept"
