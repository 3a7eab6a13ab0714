"""Files that a command is given are not written over by it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_OUTPUTS = ("out", "target", "restack", "plot", "figure", "cache")


def with_inputs_kept(name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    """A command that refuses to write over the files it is given.

    Parameters
    ----------
    name : str
        Of the command.
    callback : callable
        With parameters annotated as paths.
    """
    signature = inspect.signature(callback)
    paths = [key for key, one in signature.parameters.items() if "Path" in str(one.annotation) and key not in _OUTPUTS]

    @functools.wraps(callback)
    def run(*positional: Any, **named: Any) -> Any:
        # Here: a list of commands need not load what reads and writes.
        from verglas.run.kept_inputs import keep_inputs

        values = signature.bind(*positional, **named).arguments
        with keep_inputs(name, list(_files(values, paths)), values.get("out")):
            return callback(*positional, **named)

    return run


def _files(values: Mapping[str, Any], keys: list[str]) -> Iterator[Path]:
    for key in keys:
        given = values.get(key)
        for one in given if isinstance(given, list | tuple) else [given]:
            if isinstance(one, str | Path) and Path(one).is_file():
                yield Path(one)
