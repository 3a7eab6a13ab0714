"""Files that a command is given are not written over by it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from verglas.errors import InputError
from verglas.io.atomic import inputs_kept

_OUTPUTS = ("out", "target", "restack", "plot", "figure", "cache")
# What jobs with a folder of their own write into it under names that users give their files, too: told at the start,
# not when the first of them would be written, hours later.
_JOBS = ("refine", "abinitio", "class2d", "class3d", "multibody")
_PRODUCTS = ("particles.star", "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "map_sharpened.mrc")


def keep_inputs(name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
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
        values = signature.bind(*positional, **named).arguments
        inputs = list(_files(values, paths))
        if name in _JOBS:
            _refuse_inputs_among_products(name, values.get("out"), inputs)
        with inputs_kept(inputs):
            return callback(*positional, **named)

    return run


def _files(values: Mapping[str, Any], keys: list[str]) -> Iterator[Path]:
    for key in keys:
        given = values.get(key)
        for one in given if isinstance(given, list | tuple) else [given]:
            if isinstance(one, str | Path) and Path(one).is_file():
                yield Path(one)


def _refuse_inputs_among_products(name: str, out: Any, inputs: list[Path]) -> None:
    for path in inputs:
        if out is not None and path.name in _PRODUCTS and path.absolute().parent.resolve() == Path(out).resolve():
            raise InputError(
                f"{name}: {path} is given, and {name} writes a {path.name} into {out}: yours would be lost; name "
                "another folder (--out)"
            )
