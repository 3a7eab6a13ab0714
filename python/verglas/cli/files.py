"""Options about files that every command takes: how paths are written, where stacks lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import typer

_VALUED = {"--paths": "paths", "--stack-root": "stack_roots", "--map-dtype": "map_dtype"}
_FLAGS = {"--any-pixel-size": "any_pixel_size"}
# what each may say, and first what it does where it is left out
_CHOICES = {"--paths": ("relion", "star", "absolute"), "--map-dtype": ("float32", "float16")}


def taken_file_rules(arguments: Sequence[str]) -> tuple[list[str], AbstractContextManager[Any]]:
    """The arguments without these options, and the rules in force while the command runs.

    Raises
    ------
    typer.BadParameter
        An option without a value, or with one that is not known.
    """
    rest: list[str] = []
    rules: dict[str, Any] = {}
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if argument == "--":
            rest += [argument, *left]
        elif argument in _FLAGS:
            rules[_FLAGS[argument]] = True
        elif name in _VALUED:
            given = value if equals else next(left, "")
            if not given:
                raise typer.BadParameter("expected a value", param_hint=name)
            _take(rules, _VALUED[name], given)
        else:
            rest.append(argument)
    for name, choices in _CHOICES.items():
        chosen = rules.get(_VALUED[name], choices[0])
        if chosen not in choices:
            raise typer.BadParameter(f"expected {', '.join(choices)}, got {chosen}", param_hint=name)
    return rest, _in_force(rules) if rest else nullcontext()


def _take(rules: dict[str, Any], field: str, value: str) -> None:
    rules[field] = (*rules.get(field, ()), Path(value).expanduser()) if field == "stack_roots" else value


@contextmanager
def _in_force(rules: dict[str, Any]) -> Iterator[None]:
    from verglas.run.file_rules import use_file_rules

    with use_file_rules(**rules, command_line=True):
        yield
