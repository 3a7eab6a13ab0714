"""What ``verglas process`` is asked for, kept in the project so that later calls need not repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from verglas.errors import InputError, SettingError
from verglas.io import read_json, write_json
from verglas.types.ctf_ranges import OPTIONS, check_ctf
from verglas.types.settings import check_settings, setting, settings_from

TARGETS = ("particles", "classes", "map")
MASK_OVER_PARTICLE = 1.1  # diameter of the mask that classes and maps wear, on that of the particle
_FILE = "project.json"
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class ProcessSettings:
    """What is asked for; every field can be written to JSON.

    Attributes
    ----------
    micrographs : tuple of str
        Patterns, folders, files, or STAR files that name them; movies, too, which are corrected for motion first.
    movies : bool, optional
        Whether they are movies; by default what most of the files hold.
    gain : str, optional
        Gain reference of movies; how it lies is found.
    defects : str
        Bad pixels of movies: a list or map of them, "auto" finds them, "none".
    metadata : str, optional
        Folder below which EPU's XML or SerialEM's mdoc files of the movies lie; by default they lie beside them.
    dose_per_frame_e_A2 : float, optional
        Exposure of a frame of the movies; by default what their metadata say. Without it frames are not weighted.
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
    finish : bool
        After the first map refine the CTFs of particles and groups against its half maps, and the map again; polish
        particles of movies, and refine the map again.
    finish_rounds : int
        At most so often; a round that brings less than 1 % of the resolution is the last.
    seed : int
        Of everything random.
    set : mapping of "stage.field" -> value
        Any other setting of a stage.

    Raises
    ------
    SettingError
        A value outside its range.
    """

    micrographs: tuple[str, ...] = setting(help="Patterns, folders, files, or a STAR file that names them.")
    diameter_A: float = setting(help="Of the particle.", more_than=0, flags=("-d",))
    pixel_size_A: float | None = setting(
        None, "Of the micrographs.", more_than=0, default_words="their STAR file's or headers'"
    )
    voltage_kV: float | None = setting(None, "Accelerating voltage.", more_than=0, default_words="300")
    cs_mm: float | None = setting(None, "Spherical aberration.", default_words="2.7")
    amplitude_contrast: float | None = setting(None, "As a fraction.", default_words="0.1")
    to: Literal["particles", "classes", "map"] = setting("particles", "Last product wanted.")
    symmetry: str = setting("C1", "Point group of the particle; auto finds it.", flags=("--sym",))
    box: int | None = setting(
        None, "Side of the images, pixels of the micrograph.", at_least=8, default_words="1.5 diameters"
    )
    classes: int | None = setting(
        None, "Number of 2D classes.", at_least=1, default_words="one per 75 particles", flags=("-K",)
    )
    reference: str | None = setting(None, "Start map, in place of an ab initio one.", flags=("--ref",))
    keep: str | None = setting(None, "STAR file of the micrographs to use, as the page saves it.")
    selection: str | None = setting(None, "STAR file of the 2D classes ticked on their page.")
    finish: bool = setting(
        True, "After the first map refine CTFs and polish particles of movies, and the map again with them."
    )
    finish_rounds: int = setting(
        3, "Rounds of that at most; one that brings less than 1 % of the resolution is the last.", at_least=1, at_most=3
    )
    seed: int = setting(0, "Seed of everything random.", at_least=0)
    movies: bool | None = setting(None, "The files are movies.", default_words="what most of them hold")
    gain: str | None = setting(None, "Gain reference of movies: MRC, TIFF or EPU's .gain.")
    defects: str = setting("auto", "Bad pixels of movies: auto, none, or a list or map of them.")
    metadata: str | None = setting(
        None,
        "Folder below which EPU's XML or SerialEM's mdoc files of movies lie.",
        default_words="beside the movies",
    )
    dose_per_frame_e_A2: float | None = setting(
        None, "Exposure of a frame of movies.", more_than=0, default_words="the metadata's"
    )
    set: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check once."""
        if not self.micrographs:
            raise SettingError("process", [("micrographs", "none were named; give patterns, folders or a STAR file")])
        check_settings("process", self)
        check_ctf({name: getattr(self, name) for name in OPTIONS}, "process", OPTIONS)
        object.__setattr__(self, "micrographs", tuple(self.micrographs))

    @property
    def mask_A(self) -> float:
        """Diameter of masks."""
        return MASK_OVER_PARTICLE * self.diameter_A

    def of_stage(self, name: str) -> dict[str, Any]:
        """Settings given for one stage by name, as ``pick.threshold``."""
        return {key.split(".", 1)[1]: value for key, value in self.set.items() if key.split(".", 1)[0] == name}


def load_settings(
    root: Path, settings: ProcessSettings | None = None, changes: Mapping[str, Any] | None = None
) -> ProcessSettings:
    """The project's settings with what is given now in place of what was given before.

    Parameters
    ----------
    root : Path
        Project folder; may be new.
    settings : ProcessSettings, optional
        In place of those of the project.
    changes : mapping, optional
        Fields of :class:`ProcessSettings`; None means not given. ``set`` is added to what was set before; a value of
        None in it takes a setting back.

    Raises
    ------
    SettingError
        An unknown field, a value out of bounds, or what is needed is neither given nor known.
    """
    changes = dict(changes or {})
    if settings is not None:
        before = asdict(settings)
    else:
        before = read_json(root / _FILE)["request"] if (root / _FILE).is_file() else {}
    values = {**before, **{name: value for name, value in changes.items() if value is not None}}
    overrides = {**before.get("set", {}), **dict(changes.get("set") or {})}
    values["set"] = {name: value for name, value in overrides.items() if value is not None}
    if "micrographs" in values:
        values["micrographs"] = tuple(values["micrographs"])
    return settings_from("process", ProcessSettings, **values)


def save_settings(root: Path, settings: ProcessSettings) -> None:
    """Keep what is asked for in the project folder."""
    write_json(root / _FILE, {"request": asdict(settings)})


def parse_setting(text: str) -> tuple[str, Any]:
    """``stage.field=value`` as (name, value); the value is read as JSON where it is JSON, else as text.

    Raises
    ------
    InputError
        Not of this form.

    Examples
    --------
    >>> from verglas.pipeline.settings import parse_setting
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


def with_overrides(
    default: Settings, overrides: Mapping[str, Any], stage: str, omitted_names: Sequence[str] = ()
) -> Settings:
    """A settings dataclass with the fields that a person has set.

    Parameters
    ----------
    default : dataclass
    overrides : mapping of field -> value
        Lists stand for tuples.
    stage : str
        For messages.
    omitted_names : sequence of str
        Fields that are not for setting.

    Raises
    ------
    SettingError
        Unknown fields, text where a number is expected, values out of bounds; all are named.
    """
    by_name = {f.name: f for f in fields(default)}  # type: ignore[arg-type]
    problems = []
    for name, value in overrides.items():
        kind = str(by_name[name].type) if name in by_name else "unknown"
        if name in omitted_names:
            problems.append((name, "is the project's, no setting of a stage"))
        elif (
            isinstance(value, str) and name in by_name and not any(w in kind for w in ("str", "Path", "Literal", "Any"))
        ):
            problems.append((name, f"expected {kind}, got {value!r}"))
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
    try:
        if problems:
            raise SettingError(stage, problems)
        return settings_from(stage, type(default), default, **changes)
    except SettingError as error:
        options = [(f"--set {stage}.{name}" if name else f"--set {stage}", what) for name, what in error.problems]
        raise SettingError("process", [("", f"{where}: {what}") for where, what in options]) from None
    except TypeError as error:
        raise InputError(f"--set {stage}: {error}") from error


def settings_json(settings: Any, omitted_names: Sequence[str] = ()) -> dict[str, Any]:
    """A settings dataclass as JSON would hold it, so that it compares equal to what was read back."""
    values = {name: value for name, value in asdict(settings).items() if name not in omitted_names}
    return dict(json.loads(json.dumps(values, default=str)))
