"""What several commands print: what was set aside, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer


def say_set_aside(reasons: Mapping[str, str], account: Path, most: int = 10) -> None:
    """A line for each of the first files that could not be used, and where all of them stand."""
    for name, reason in list(reasons.items())[:most]:
        print(f"set aside: {name}: {reason}")
    if len(reasons) > most:
        print(f"set aside: {len(reasons) - most} more, in {account}")


def say_verdict(state: str, reasons: Sequence[str]) -> None:
    """Whether to go on, and why not."""
    print("; ".join([f"verdict: {state}", *reasons]))


def exit_if_stop(state: str) -> None:
    """Exit status 1 where the verdict is to stop: what was made cannot be trusted, so a chain of commands ends."""
    if state == "stop":
        raise typer.Exit(1)
