"""Files that a command is given are not written over by it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def with_inputs_kept(name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    """A command that refuses to write over the files it is given, and over those that these name.

    Parameters
    ----------
    name : str
        Of the command.
    callback : callable
        Its arguments; outputs are told by their names.
    """
    signature = inspect.signature(callback)

    @functools.wraps(callback)
    def run(*positional: Any, **named: Any) -> Any:
        # Here: a list of commands need not load what reads and writes.
        from verglas.run.kept_inputs import keep_inputs

        with keep_inputs(name.replace("_", "-"), signature.bind(*positional, **named).arguments):
            return callback(*positional, **named)

    return run
