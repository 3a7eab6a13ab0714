"""How a run stands, as its ``run.json`` has it: one word for programs, beside the sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class RunState(str, Enum):
    """The field ``run_state`` of ``run.json``.

    A refinement that used up its iterations without converging is finished: it has a result. One that was told to stop
    (a signal, Ctrl-C, a verdict) has not.

    Examples
    --------
    >>> from verglas.types.run_state import RunState
    >>> RunState("running").goes_on, RunState.STOPPED.gave_up
    (True, True)
    """

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    FINISHED = "finished"

    @property
    def goes_on(self) -> bool:
        """Whether the run has not ended."""
        return self in (RunState.STARTING, RunState.RUNNING)

    @property
    def gave_up(self) -> bool:
        """Whether it ended without a result."""
        return self in (RunState.STOPPED, RunState.FAILED)


def read_run_state(record: Mapping[str, Any]) -> RunState:
    """The state of a run from its ``run.json``.

    Parameters
    ----------
    record : mapping
        What the file holds. Files written before there was a field ``run_state`` are told by their sentence.

    Examples
    --------
    >>> from verglas.types.run_state import read_run_state
    >>> read_run_state({"state": "stopped after 25 iterations", "run_state": "finished"}).value
    'finished'
    >>> [read_run_state({"state": s}).value for s in ("failed: no room", "stopped by a verdict: noise", "converged")]
    ['failed', 'stopped', 'finished']
    """
    word = record.get("run_state")
    return RunState(word) if word else _read_sentence(str(record.get("state", "")))


def _read_sentence(sentence: str) -> RunState:
    """Of earlier versions, which wrote the sentence only."""
    if sentence in (RunState.STARTING.value, RunState.RUNNING.value):
        return RunState(sentence)
    # "stopped after 25 iterations" was said of a refinement that used up its iterations: an end like another
    if sentence == "stopped" or sentence.startswith("stopped by"):
        return RunState.STOPPED
    return RunState.FAILED if sentence.startswith("failed") else RunState.FINISHED
