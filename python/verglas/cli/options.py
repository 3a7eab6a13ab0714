"""Options of a command made from the fields of its settings: name, type, default, bounds and help are stated once."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

import typer

from verglas.types.settings import choices_of, setting_of, unit_of, without_unit

_CONTEXT = "context"  # of typer: which options were given
_TOLD_APART = {"prior_deg", "prior_A"}  # by their unit alone, which their options keep


class StackType(str, enum.Enum):
    """How pixels are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


def option_name(field: str) -> str:
    """The option of a settings field: the unit, which the help states, is left out.

    Examples
    --------
    >>> from verglas.cli.options import option_name
    >>> option_name("initial_resolution_A"), option_name("classes")
    ('--initial-resolution', '--classes')
    """
    return "--" + (field if field in _TOLD_APART else without_unit(field)).replace("_", "-")


def with_settings(
    kind: type, *, parameter: str = "settings", leave_out: Iterable[str] = (), resumes: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field of a settings class; its parameter ``settings`` gets those that the user
    gave: what is left out has the default that the class states.

    Parameters
    ----------
    kind : type
        Dataclass whose fields were made with :func:`verglas.types.settings.setting`.
    parameter : str
        Of the command's function, whose place the options take; a command with two settings classes is decorated twice.
    leave_out : iterable of str
        Fields that the command has arguments of its own for.
    resumes : bool
        The job may know from an earlier call what it needs: no option is required.
    """
    left_out = set(leave_out)
    fields = [
        f for f in dataclasses.fields(kind) if f.init and setting_of(f).on_command_line and f.name not in left_out
    ]
    hints = typing.get_type_hints(kind)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in signature.parameters.values()
            if p.name not in (parameter, _CONTEXT)
        ]
        made = [_parameter(field, hints[field.name], resumes) for field in fields]
        # Arguments and what a user must give stand first in --help, then the settings, then what all commands share.
        first = [p for p in own if not _is_common(p)]
        last = [p for p in own if _is_common(p)]
        context = inspect.Parameter(_CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        everything = [*first, *made, *last, context]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = {field.name: _plain(given.pop(field.name), hints[field.name]) for field in fields}
            # A value that equals the default was given all the same, and goes before what a file says.
            named = {f.name: chosen[f.name] for f in fields if _is_given(given[_CONTEXT], f.name)}
            if _CONTEXT not in signature.parameters:
                del given[_CONTEXT]
            command(**given, **{parameter: named})

        run.__signature__ = signature.replace(parameters=everything)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in everything}
        made_before = getattr(command, "settings_fields", {})
        run.settings_fields = {**made_before, kind: [f.name for f in fields]}  # type: ignore[attr-defined]
        return run

    return decorate


_COMMON = {
    "stack",
    "device",
    "threads",
    "memory",
    "cluster",
    "cluster_profile",
    "cache",
    "cache_size",
    "resume",
    "allow_changes",
    "as_json",
}


def _is_common(parameter: inspect.Parameter) -> bool:
    return parameter.name in _COMMON


def _is_given(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and not source.name.startswith("DEFAULT")


def _plain(value: Any, hint: Any) -> Any:
    """What a choice stands for: typer's choices are text, those of a setting may be numbers."""
    return {str(c): c for c in choices_of(hint)}[value.value] if isinstance(value, enum.Enum) else value


def _parameter(field: dataclasses.Field[Any], hint: Any, resumes: bool) -> inspect.Parameter:
    said, choices = setting_of(field), choices_of(hint)
    required = field.default is dataclasses.MISSING and not resumes
    default = ... if required else None if field.default is dataclasses.MISSING else field.default
    annotation: Any = _without_none(hint)
    if choices:
        annotation = _enumeration(field.name, choices)
        default = default if default is None or required else annotation(str(default))
    if typing.get_origin(annotation) is tuple and isinstance(default, int | float):
        default = (default,) * len(typing.get_args(annotation))  # a number stands for a range without width
    name = option_name(field.name)
    names = (f"{name}/--no-{name[2:]}",) if annotation is bool else (name, *said.flags)
    option = typer.Option(default, *names, help=_help(field.name, said, default))
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def _enumeration(name: str, choices: tuple[Any, ...]) -> Any:
    """Choices as typer wants them: an option whose completion and refusal name them."""
    return enum.Enum(name, {str(c): str(c) for c in choices}, type=str)


def _help(name: str, said: Any, default: Any) -> str:
    unit = unit_of(name)
    text = said.help.removesuffix(".") + (f", {unit}." if unit else ".")
    return f"{text} [{said.default_words}]" if default is None and said.default_words else text


def _without_none(hint: Any) -> Any:
    """The type of a field that may be None; a range where a field takes a number or a range."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    parts = [a for a in typing.get_args(hint) if a is not type(None)]
    ranges = [a for a in parts if typing.get_origin(a) is tuple]
    return (ranges or parts)[0]
