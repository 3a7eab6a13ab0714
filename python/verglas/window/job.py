"""What the window knows of a job: one record for the jobs of every package it can read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What a job can be at; "scheduled" only in projects of other packages.
STATES = ("starting", "running", "stalled", "dead", "stopped", "failed", "finished", "scheduled")


@dataclass(frozen=True)
class Job:
    """One job, as its files say.

    Attributes
    ----------
    key : str
        In addresses; from the folder alone, so that an address stays good.
    name : str
        For people.
    folder : Path
        Where its files lie.
    package : {"verglas", "RELION", "cryoSPARC"}
        Jobs of others are looked at and never changed.
    command : str
        What was run.
    state : str
        One of ``STATES``.
    sentence : str
        The same for a person.
    verdict : {"", "go on", "warn", "stop"}
    reasons : sequence of str
        Of the verdict.
    started, finished : str
        UTC, ISO 8601; empty where not known.
    seconds, eta_s : float or None
        Time taken, time left.
    phase, done, total : str, int, int
        What it is at.
    parents : sequence of str
        Keys of jobs whose files it took.
    project : str
        Key of the ``process`` project or the folder that it is part of; empty: none.
    settings : mapping
        As it was asked.
    numbers : mapping
        The few that matter.
    sources : sequence of str
        Paths among the words of the command that began it.
    """

    key: str
    name: str
    folder: Path
    package: str
    command: str
    state: str
    sentence: str = ""
    verdict: str = ""
    reasons: Sequence[str] = ()
    started: str = ""
    finished: str = ""
    seconds: float | None = None
    eta_s: float | None = None
    phase: str = ""
    done: int = 0
    total: int = 0
    parents: Sequence[str] = ()
    project: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    sources: Sequence[str] = ()

    @property
    def goes_on(self) -> bool:
        """Whether a process works on it."""
        return self.state in ("starting", "running", "stalled")

    @property
    def changeable(self) -> bool:
        """Whether it is one of ours."""
        return self.package == "verglas"


def key_of(folder: Path, name: str = "") -> str:
    """Name of a job in addresses: letters and digits that say nothing of the path.

    Examples
    --------
    >>> from pathlib import Path
    >>> from verglas.window.job import key_of
    >>> len(key_of(Path("/data/run1"))), key_of(Path("/data/run1")) == key_of(Path("/data/run2"))
    (12, False)
    """
    return hashlib.sha1(f"{folder}\0{name}".encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:12]
