"""What ``verglas process`` is asked for, kept in the project so that later calls need not repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from verglas.errors import InputError
from verglas.io import read_json, write_json
from verglas.types.ctf_ranges import OPTIONS, check_ctf

TARGETS = ("particles", "classes", "map")
STAGES = ("ctf", "pick", "extract", "centre", "class2d", "abinitio", "refine", "postprocess")
MASK_OVER_PARTICLE = 1.1  # diameter of the mask that classes and maps wear, on that of the particle
_FILE = "project.json"
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Request:
    """What is asked for; every field can be written to JSON.

    Attributes
    ----------
    micrographs : tuple of str
        Patterns, folders, files, or STAR files that name them.
    diameter_A : float
        Of the particle.
    pixel_size_A, voltage_kV, cs_mm, amplitude_contrast : float, optional
        Of the micrographs; by default what STAR file or headers say, then 300 kV, 2.7 mm and 0.1.
    to : {"particles", "classes", "map"}
        Last product wanted.
    symmetry : str
        Point group of the particle.
    box : int, optional
        Side of the extracted images, pixels of the micrograph; about 1.5 diameters by default.
    classes : int, optional
        2D classes; one per 75 particles, 10 to 100, by default.
    reference : str, optional
        Start map of the refinement; without it one is made ab initio.
    keep : str, optional
        STAR file of the micrographs to use, as the page saves it; all others are set aside.
    selection : str, optional
        STAR file of the 2D classes to use, as the page of the classes saves it, in place of those that look like
        particles.
    seed : int
        Of everything random.
    set : mapping of "stage.field" -> value
        Any other setting of a stage.

    Raises
    ------
    InputError
        A value outside its range.
    """

    micrographs: tuple[str, ...] = ()
    diameter_A: float = 0.0
    pixel_size_A: float | None = None
    voltage_kV: float | None = None
    cs_mm: float | None = None
    amplitude_contrast: float | None = None
    to: str = "particles"
    symmetry: str = "C1"
    box: int | None = None
    classes: int | None = None
    reference: str | None = None
    keep: str | None = None
    selection: str | None = None
    seed: int = 0
    set: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check once."""
        if not self.diameter_A > 0:
            raise InputError("process: the particle's diameter is needed (--diameter, in A)")
        if not self.micrographs:
            raise InputError("process: no micrographs were named; give patterns, folders or a STAR file")
        if self.to not in TARGETS:
            raise InputError(f"process: to: expected {', '.join(TARGETS)}, got {self.to!r}")
        check_ctf({name: getattr(self, name) for name in OPTIONS}, "process", OPTIONS)
        for name in ("box", "classes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"process: {name}: expected a positive number, got {value}")
        stray = sorted(key for key in self.set if key.split(".", 1)[0] not in STAGES)
        if stray:
            raise InputError(f"--set {stray[0]}: no such stage; there are {', '.join(STAGES)}")
        object.__setattr__(self, "micrographs", tuple(self.micrographs))

    @property
    def mask_A(self) -> float:
        """Diameter of masks."""
        return MASK_OVER_PARTICLE * self.diameter_A

    def stage(self, name: str) -> dict[str, Any]:
        """Settings given for one stage by name, as ``pick.threshold``."""
        return {key.split(".", 1)[1]: value for key, value in self.set.items() if key.split(".", 1)[0] == name}


def load_request(root: Path, given: Mapping[str, Any]) -> Request:
    """The project's request with what is given now in place of what was given before.

    Parameters
    ----------
    root : Path
        Project folder; may be new.
    given : mapping
        Fields of :class:`Request`; None means not given. ``set`` is added to what was set before; a value of None in it
        takes a setting back.

    Raises
    ------
    InputError
        An unknown field, or what is needed is neither given nor known.
    """
    known = {f.name for f in fields(Request)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise InputError(f"process: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    before = read_json(root / _FILE)["request"] if (root / _FILE).is_file() else {}
    values = {**before, **{name: value for name, value in given.items() if value is not None}}
    merged = {**before.get("set", {}), **dict(given.get("set") or {})}
    values["set"] = {name: value for name, value in merged.items() if value is not None}
    values["micrographs"] = tuple(values.get("micrographs", ()))
    return Request(**values)


def save_request(root: Path, request: Request) -> None:
    """Keep the request in the project folder."""
    write_json(root / _FILE, {"request": asdict(request)})


def parse_setting(text: str) -> tuple[str, Any]:
    """``stage.field=value`` as (name, value); the value is read as JSON where it is JSON, else as text.

    Raises
    ------
    InputError
        Not of this form.

    Examples
    --------
    >>> from verglas.pipeline.request import parse_setting
    >>> parse_setting("pick.threshold=0.4"), parse_setting("pick.method=log"), parse_setting("ctf.defocus_A=[5e3,3e4]")
    (('pick.threshold', 0.4), ('pick.method', 'log'), ('ctf.defocus_A', [5000.0, 30000.0]))
    """
    name, equals, value = text.partition("=")
    if not equals or name.count(".") != 1 or not all(name.split(".")):
        raise InputError(f"--set: expected stage.field=value, such as pick.threshold=0.4, got {text!r}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()


def with_overrides(default: Settings, given: Mapping[str, Any], stage: str, hidden: Sequence[str] = ()) -> Settings:
    """A settings dataclass with the fields that a person has set.

    Parameters
    ----------
    default : dataclass
    given : mapping of field -> value
        Lists stand for tuples.
    stage : str
        For messages.
    hidden : sequence of str
        Fields that are not for setting.

    Raises
    ------
    InputError
        An unknown field, or text where a number is expected.
    """
    known = {f.name: f for f in fields(default) if f.name not in hidden}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"--set {stage}.{name}: no such setting; {stage} has {', '.join(sorted(known))}")
        kind = str(known[name].type)
        if isinstance(value, str) and not any(word in kind for word in ("str", "Path", "Literal", "Any")):
            raise InputError(f"--set {stage}.{name}: expected {kind}, got {value!r}")
        changes[name] = tuple(value) if isinstance(value, list) else value
    try:
        return replace(default, **changes)  # type: ignore[type-var]
    except TypeError as error:
        raise InputError(f"--set {stage}: {error}") from error


def settings_json(settings: Any, hidden: Sequence[str] = ()) -> dict[str, Any]:
    """A settings dataclass as JSON would hold it, so that it compares equal to what was read back."""
    values = {name: value for name, value in asdict(settings).items() if name not in hidden}
    return dict(json.loads(json.dumps(values, default=str)))
