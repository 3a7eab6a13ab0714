"""Files that a job is given are not written over by it, nor those that these name."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from verglas.errors import InputError
from verglas.io.inputs import inputs_kept
from verglas.io.rules import file_rules
from verglas.types import Particles

P = ParamSpec("P")
R = TypeVar("R")

_RECORD, _COMMON_LINES, _STAGE = "run.json", "common_lines.json", "stage.json"
_OF_CLASSES = tuple(
    f"{name}{end}"
    for name in ("map", "map_sharpened", "half1", "half2", "mask")
    for end in (".mrc", "_class[0-9]*.mrc")
)
# What jobs with a folder of their own write into it that could be an input: told at the start, not when the first of
# them would be written, hours later. (A name that is missing here is protected all the same, when it is written.)
_IN_FOLDER: dict[str, tuple[str, ...]] = {
    "abinitio": ("particles.star", "map.mrc", "map_class[0-9]*.mrc"),
    "class2d": ("particles.star", "classes.star", "averages.mrcs"),
    "class3d": ("particles.star", "map_class[0-9]*.mrc", "half[12]_class[0-9]*.mrc"),
    "ctf": ("micrographs_ctf.star",),
    "ctf-refine": ("particles.star", "half1.mrc", "half2.mrc"),
    "deform": ("particles.star", "deformed.mrc", "displacement.mrc", "rotation.mrc", "strain.mrc", "volume_change.mrc"),
    "denoise": ("*_denoised.mrc",),
    "directional": ("fsc3d.mrc",),
    "extract": ("particles.star", "stacks/*.mrcs"),
    "local-resolution": ("map.mrc", "mask.mrc", "map_filtered.mrc", "local_resolution*.mrc"),
    "local-sharpen": ("map_sharpened.mrc", "local_resolution.mrc", "mask.mrc"),
    "map-model": ("model_fitted.cif",),
    "motion": ("micrographs.star", "micrographs/*.mrc"),
    "multibody": ("particles.star", "*_body[0-9]*.mrc", "particles_body[0-9]*.star", "motion[0-9]*_state[0-9]*.mrc"),
    "pick": ("picks.star", "picks/*.star"),
    "polish": ("shiny.star", "tracks.star", "bfactors.star", "stacks/*.mrcs"),
    "postprocess": ("map.mrc", "map_sharpened.mrc", "mask.mrc"),
    "refine": ("particles.star", *_OF_CLASSES),
    "screen": ("micrographs.star",),
    "sieve": ("kept.star", "removed.star", "half1.mrc", "half2.mrc"),
    "simulate": ("particles.star", "particles.mrcs", "truth.star", "truth*.mrc"),
    "tilt-pairs": ("class_[0-9]*.mrc", "class_[0-9]*_tilted.star", "merged.mrc", "merged_tilted.star", "averages.mrcs"),
    "tomogram": ("map.mrc",),
    "variability": (
        *("particles.star", "particles_cluster[0-9]*.star", "mean.mrc", "deviation.mrc", "component[0-9]*.mrc"),
        "path_state[0-9]*.mrc",
    ),
}
# By which file a folder is known as one that an earlier run of a job made; run.json where nothing is said here. One
# that is written long after the first results knows nothing of a run that was killed: such jobs are not asked (None).
_RECORDS: dict[str, str | None] = {
    "ctf-refine": "ctf_refine.json",
    "denoise": None,
    "directional": "directional.json",
    "local-resolution": "local_resolution.json",
    "local-sharpen": "local_sharpen.json",
    "map-model": "map_model.json",
    "postprocess": "postprocess.json",
    "screen": "screen.json",
    "simulate": "simulation.json",
    "tilt-pairs": "tilt_pairs.json",
    "tomogram": "tomogram.json",
}
# What lies beside the file that is named.
_BESIDE: dict[str, tuple[str, ...]] = {
    "gain": ("{stem}_defects.txt",),
    "project": ("{stem}.star",),
    "reconstruct": ("{stem}_half1{suffix}", "{stem}_half2{suffix}"),
    "subtract": ("{stem}.mrcs",),
}
OUTPUTS = ("out", "target", "restack", "plot", "figure")
_NEITHER = ("cache", "listener")


def keeps_inputs(command: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A job that refuses to write over the files it is given, and over those that these name.

    Parameters
    ----------
    command : str
        What the job is called, as in ``verglas COMMAND``.

    Notes
    -----
    Inputs are found among the arguments: paths and texts that name a file, particles that were read from one, and the
    same within lists and jobs (dataclasses). Outputs are the arguments of those names (``out``, ``figure``, ...).

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from verglas.io import write_text
    >>> from verglas.run.kept_inputs import keeps_inputs
    >>> @keeps_inputs("sort")
    ... def sort_lines(text, out):
    ...     write_text(out, "".join(sorted(Path(text).read_text())))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "lines.txt"
    ...     write_text(file, "b a")
    ...     sort_lines(file, file)
    Traceback (most recent call last):
    verglas.errors.InputError: sort: .../lines.txt is given, and sort writes it: yours would be lost; name another ...
    """

    def decorate(job: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(job)

        @functools.wraps(job)
        def run(*positional: P.args, **named: P.kwargs) -> R:
            try:
                values = signature.bind(*positional, **named).arguments
            except TypeError:  # which the call itself says in its own words
                return job(*positional, **named)
            with keep_inputs(command, values):
                return job(*positional, **named)

        run.keeps_inputs_of = command  # type: ignore[attr-defined]
        return run

    return decorate


@contextmanager
def keep_inputs(command: str, values: Mapping[str, Any]) -> Iterator[None]:
    """Inside, no file among the values of a job's arguments can be written over, nor one that these name.

    Parameters
    ----------
    command : str
    values : mapping
        Of all arguments, by name.

    Raises
    ------
    InputError
        A file that is given is one of those that the job writes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from verglas.run.kept_inputs import keep_inputs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     given = Path(folder) / "map.mrc"
    ...     given.touch()
    ...     with keep_inputs("refine", {"reference": given, "out": Path(folder)}):
    ...         pass
    Traceback (most recent call last):
    verglas.errors.InputError: refine: .../map.mrc is given, and refine writes a map.mrc into ...: yours would be ...
    """
    arguments = dict(_arguments(values))
    outputs = {key: Path(one) for key, one in arguments.items() if key in OUTPUTS and isinstance(one, str | Path)}
    inputs = [path for key, one in arguments.items() if key not in (*OUTPUTS, *_NEITHER) for path in _files(one)]
    targets: dict[Path, str] = {}
    folder: Path | None = None
    for key, path in outputs.items():
        if key == "out" and command in _IN_FOLDER:
            folder = path
            targets |= _targets_in(command, path)
        else:
            targets |= _targets_beside(command, key, path)
    own = folder if folder is not None else outputs.get("out")
    own = own if own is not None and (own / (_RECORDS.get(command, _RECORD) or _RECORD)).is_file() else None
    with inputs_kept(inputs, targets=targets, own=own):
        if folder is not None:
            _refuse_foreign(command, folder, targets)
        yield


def _arguments(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Arguments by name, those of a job's description among them."""
    for key, value in values.items():
        if is_dataclass(value) and not isinstance(value, type) and key not in _NEITHER:
            yield from ((one.name, getattr(value, one.name)) for one in fields(value))
        else:
            yield key, value


def _files(value: Any) -> Iterator[Path]:
    """Files that a value names, as far as they are there."""
    if isinstance(value, str | os.PathLike):
        yield Path(value)
    elif isinstance(value, Particles):
        yield Path(value.where)
        stored: Any = value.source
        while hasattr(stored, "inner"):
            stored = stored.inner
        # Those that were read before the job began; the others are noted when they are.
        if hasattr(stored, "files"):
            yield from stored.files()
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _files(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _files(one)


def _targets_in(command: str, folder: Path) -> dict[Path, str]:
    """Files that lie in a folder under names that the job gives to its results."""
    said = "{{path}} is {{verb}}, and {command} writes a {name} into {folder}: yours would be lost; name another folder"
    found: dict[Path, str] = {}
    for pattern in _IN_FOLDER[command]:
        place = (folder / pattern).parent
        for path in _matching(place, Path(pattern).name):
            words = said.format(command=command, name=_plain(path.name), folder=_plain(str(folder)))
            found[path] = f"{command}: {words} ({file_rules().word('out')})"
    return found


def _refuse_foreign(command: str, folder: Path, targets: Iterable[Path]) -> None:
    """Files under names of results that no earlier run can have made are somebody's, though the job reads none."""
    record = _RECORDS.get(command, _RECORD)
    # A stage of a project may take the record of a run that was killed away, and begin anew where it was.
    others = (_STAGE, _COMMON_LINES) if command == "abinitio" else (_STAGE,)
    if record is None or any((folder / one).is_file() for one in (record, *others)):
        return
    foreign = next(iter(targets), None)
    if foreign is not None:
        raise InputError(
            f"{command}: {foreign} is there, and no earlier run of {command} made it (there is no {record} beside it): "
            f"it would be written over; name another folder ({file_rules().word('out')}), or move the file"
        )


def _matching(folder: Path, pattern: str) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    if not any(sign in pattern for sign in "*?["):
        return [folder / pattern] if (folder / pattern).is_file() else []
    return [path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, pattern)]


def _targets_beside(command: str, key: str, path: Path) -> dict[Path, str]:
    """The file that is named, and those that the job puts beside it."""
    beside = _BESIDE.get(command, ()) if key == "out" else ()
    paths = [path, *(path.with_name(one.format(stem=path.stem, suffix=path.suffix)) for one in beside)]
    lost = f"yours would be lost; name another file ({file_rules().word(key)})"
    it = [f"{command}: {{path}} is {{verb}}, and {command} writes it: {lost}"]
    return dict(zip(paths, it * len(paths), strict=True))


def _plain(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
