"""One way for settings: frozen dataclasses whose fields carry help, unit, bounds, and whether they change a result.

A job is ``f(data, settings=None, **changes)``. Threads, devices, memory and listeners are no settings: they change how
long a job takes, not what comes out.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from verglas.errors import SettingError, VerglasWarning

Kind = TypeVar("Kind")
_KEY = "verglas.setting"
_UNITS = {
    "A": "A",
    "deg": "degrees",
    "px": "pixels",
    "kV": "kV",
    "kDa": "kDa",
    "mm": "mm",
    "GB": "GB",
    "e_A2": "e/A^2",
    "A2": "A^2",
    "nats": "nats",
}


@dataclass(frozen=True)
class Setting:
    """What is known of a field beside its name, type and default.

    Attributes
    ----------
    help : str
        One or two sentences, for the page, the command line and the docs.
    more_than, at_least, at_most : float, optional
        Bounds.
    default_words : str
        What the default of None stands for, as "four fifths of the box".
    flags : tuple of str
        Further names on the command line, as ``-K``.
    changes_result : bool
        Whether another value gives another result. What a checkpoint compares.
    on_command_line : bool
        Whether the command line offers it.
    former : tuple of str
        Names that the field had: they still work, and say the present one.
    """

    help: str = ""
    more_than: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    default_words: str = ""
    flags: tuple[str, ...] = ()
    changes_result: bool = True
    on_command_line: bool = True
    former: tuple[str, ...] = ()


def setting(default: Any = dataclasses.MISSING, help: str = "", **more: Any) -> Any:
    """A dataclass field with a :class:`Setting`; without a default the setting is required.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from verglas.types.settings import setting, settings_from
    >>> @dataclass(frozen=True)
    ... class BlurSettings:
    ...     width_A: float = setting(10.0, "Width of the Gaussian.", more_than=0)
    >>> settings_from("blur", BlurSettings, width_A=3.0)
    BlurSettings(width_A=3.0)
    >>> settings_from("blur", BlurSettings, widht_A=3.0)
    Traceback (most recent call last):
    verglas.errors.SettingError: blur: unknown setting widht_A (width_A?); known are width_A
    """
    metadata = {_KEY: Setting(help, **more)}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def setting_of(field: dataclasses.Field[Any]) -> Setting:
    """What :func:`setting` said of a field; plain fields have no help and no bounds."""
    return typing.cast("Setting", field.metadata.get(_KEY, Setting()))


def unit_of(name: str) -> str:
    """The unit that a setting's name ends with, in words; empty where it has none.

    Examples
    --------
    >>> from verglas.types.settings import unit_of
    >>> unit_of("diameter_A"), unit_of("dose_per_frame_e_A2"), unit_of("classes")
    ('A', 'e/A^2', '')
    """
    return _UNITS.get(_unit_suffix(name), "")


def without_unit(name: str) -> str:
    """A setting's name without the unit that it ends with.

    Examples
    --------
    >>> from verglas.types.settings import without_unit
    >>> without_unit("dose_per_frame_e_A2"), without_unit("defocus_A"), without_unit("classes")
    ('dose_per_frame', 'defocus', 'classes')
    """
    suffix = _unit_suffix(name)
    return name.removesuffix(f"_{suffix}") if suffix else name


def _unit_suffix(name: str) -> str:
    return next((suffix for suffix in _UNITS if name.endswith(f"_{suffix}")), "")


def settings_from(job: str, kind: type[Kind], settings: Kind | None = None, **changes: Any) -> Kind:
    """Settings with changes; everything that is wrong is named at once.

    Parameters
    ----------
    job : str
        Name of the job, which begins the message.
    kind : type
        Dataclass of the settings.
    settings : kind, optional
        What the changes apply to; the defaults without.
    **changes
        Fields and their values.

    Raises
    ------
    SettingError
        Unknown names, missing ones, values out of bounds or no choice.
    """
    if settings is not None and not isinstance(settings, kind):
        raise SettingError(job, [("settings", f"expected {kind.__name__}, got {type(settings).__name__}")])
    changes = present_names(job, changes, former_names(kind))
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    problems = unknown_settings(changes, fields)
    if settings is None:
        missing = [name for name, f in fields.items() if _is_required(f) and name not in changes]
        problems += [(name, "is needed") for name in missing]
    if problems:
        raise SettingError(job, problems)
    if settings is None:
        return kind(**changes)
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


def unknown_settings(given: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """What :class:`~verglas.errors.SettingError` is to say of keywords that are no settings; nothing of known ones.

    Parameters
    ----------
    given : iterable of str
    known : collection of str

    Examples
    --------
    >>> from verglas.types.settings import unknown_settings
    >>> unknown_settings(["box", "voltge_kV"], ["voltage_kV", "box"])
    [('', 'unknown setting voltge_kV (voltage_kV?); known are box, voltage_kV')]
    """
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return []
    named = ", ".join(_with_guess(name, known) for name in unknown)
    return [("", f"unknown setting{'s' if len(unknown) > 1 else ''} {named}; known are {', '.join(sorted(known))}")]


def former_names(kind: type) -> dict[str, str]:
    """Former names of a dataclass's fields, and the present one of each."""
    return {former: f.name for f in dataclasses.fields(kind) for former in setting_of(f).former}


def present_names(job: str, given: Mapping[str, Any], former: Mapping[str, str]) -> dict[str, Any]:
    """Keywords by their present names; a former one works, and a warning says the present one.

    Parameters
    ----------
    job : str
        For the warning.
    given : mapping
        Keywords and values.
    former : mapping
        Former name -> present name.

    Warns
    -----
    VerglasWarning
        A former name was given.

    Examples
    --------
    >>> import warnings
    >>> from verglas.types.settings import present_names
    >>> with warnings.catch_warnings(record=True) as said:
    ...     present_names("classify2d", {"n_classes": 5, "seed": 1}, {"n_classes": "classes"})
    {'seed': 1, 'classes': 5}
    >>> print(said[0].message)
    classify2d: n_classes is now called classes
    """
    kept = {name: value for name, value in given.items() if name not in former}
    for name in (name for name in given if name in former):
        warnings.warn(VerglasWarning(f"{job}: {name} is now called {former[name]}"), stacklevel=4)
        kept[former[name]] = given[name]
    return kept


def accept_former_names(kind: type[Kind]) -> type[Kind]:
    """Decorator of a settings class: its constructor takes former names of fields too (:func:`present_names`)."""
    construct: Any = kind.__init__

    @functools.wraps(construct)
    def initialise(self: Any, *values: Any, **given: Any) -> None:
        construct(self, *values, **present_names(kind.__name__, given, former_names(kind)))

    type.__setattr__(kind, "__init__", initialise)
    return kind


def check_settings(job: str, settings: Any, further: Iterable[tuple[str, str]] = ()) -> None:
    """Hold every field against its bounds and choices; called by ``__post_init__`` of settings (:class:`JobSettings`).

    Parameters
    ----------
    job : str
        Name of the job, which begins the message.
    settings : dataclass
    further : iterable of (field, sentence)
        What else is wrong, where a bound depends on other fields.

    Raises
    ------
    SettingError
        Naming all fields that are out of bounds.
    """
    hints = typing.get_type_hints(type(settings))
    problems = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        said = _problem(value, setting_of(field), choices_of(hints[field.name]))
        if said:
            problems.append((field.name, said))
    problems += further
    if problems:
        raise SettingError(job, problems)


class JobSettings:
    """Base of a job's settings: every field is held against its bounds and choices when they are made.

    ``class CountSettings(JobSettings, job="count")``: the name begins the messages.
    """

    _job: ClassVar[str]

    def __init_subclass__(cls, job: str = "") -> None:
        """Take the job's name; a class made from one with a name keeps it."""
        cls._job = job or cls._job

    def __post_init__(self) -> None:
        """Check once."""
        check_settings(self._job, self, self._impossible())

    def _impossible(self) -> Iterable[tuple[str, str]]:
        """Fields, and a sentence each, where a bound depends on other fields."""
        return ()


def choices_of(hint: Any) -> tuple[Any, ...]:
    """Values that a Literal allows, also as one of a union; empty for other types."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(choice for part in typing.get_args(hint) for choice in choices_of(part))
    return ()


def result_settings(settings: Any) -> dict[str, Any]:
    """Fields that change the result, with their values: what a resumed run must agree in."""
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if setting_of(f).changes_result}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


# What all jobs once took, before there was one listener: a name near to it by its letters would mislead.
_NOW = {"say": "listener=", "progress": "listener=", "log": "listener="}


def _with_guess(name: str, known: Iterable[str]) -> str:
    if name in _NOW:
        return f"{name} (now {_NOW[name]})"
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"{name} ({close[0]}?)" if close else name


def _problem(value: Any, bounds: Setting, choices: tuple[Any, ...]) -> str:
    if value is None:
        return ""
    if choices:
        if value in choices:
            return ""
        words = ", ".join(str(c) for c in choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else str(choices[0])
        return f"expected {words}, got {value!r}"
    limits = ((bounds.more_than, "more than"), (bounds.at_least, "at least"), (bounds.at_most, "at most"))
    if isinstance(value, bool) or not isinstance(value, int | float) or all(limit is None for limit, _ in limits):
        return ""
    below = bounds.more_than is not None and not value > bounds.more_than
    least = bounds.at_least is not None and not value >= bounds.at_least
    most = bounds.at_most is not None and not value <= bounds.at_most
    if math.isnan(value) or below or least or most:
        words = " and ".join(f"{word} {limit:g}" for limit, word in limits if limit is not None)
        return f"expected {words}, got {value:g}"
    return ""
