"""How paths are written and stacks are found, for all readers and writers of a process; the command line sets it once.

Particles name their stacks, lists their micrographs. RELION looks for relative names from the folder of the project,
which is where it is started; other programs from the folder of the file. All writers follow one rule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verglas.errors import FormatError, InputError

STYLES = ("relion", "star", "absolute")
MAP_DTYPES = ("float32", "float16")
RECALIBRATED = 0.01  # relative: up to here a pixel size may have been recalibrated since a file was written
_PIPELINE = "default_pipeline.star"  # RELION's mark of a project's folder


@dataclass(frozen=True)
class FileRules:
    """What readers and writers go by where a call does not say.

    Attributes
    ----------
    paths : "relion", "star" or "absolute"
        Names in files that are written: relative to the project's folder, to the folder of the file, or absolute.
    stack_roots : tuple of Path
        Folders in which stacks are looked for first.
    any_pixel_size : bool
        Read stacks whose header gives another pixel size than the metadata, by more than 1 %; the metadata's is used.
    map_dtype : "float32" or "float16"
        Of maps that are written, where a call does not say.
    command_line : bool
        Messages name options of the command line instead of Python's arguments.
    """

    paths: str = "relion"
    stack_roots: tuple[Path, ...] = ()
    any_pixel_size: bool = False
    map_dtype: str = MAP_DTYPES[0]
    command_line: bool = False

    def __post_init__(self) -> None:
        """Check once."""
        if self.paths not in STYLES:
            raise InputError(f"paths: expected {', '.join(STYLES)}, got {self.paths!r}")
        if self.map_dtype not in MAP_DTYPES:
            raise InputError(f"map_dtype: expected {', '.join(MAP_DTYPES)}, got {self.map_dtype!r}")
        missing = next((root for root in self.stack_roots if not root.is_dir()), None)
        if missing is not None:
            name = "--stack-root" if self.command_line else "stack_root"
            raise InputError(f"{name} {missing}: no such folder")

    def word(self, option: str) -> str:
        """An option as the caller knows it: ``--stack-root``, or ``stack_root=``."""
        return f"--{option}" if self.command_line else f"{option.replace('-', '_')}="


# Of the process and not of a thread: stacks are found by threads that read.
_current = FileRules()


def file_rules() -> FileRules:
    """The rules in force."""
    return _current


@contextmanager
def use_file_rules(**changes: Any) -> Iterator[FileRules]:
    """Other rules for the calls inside the block.

    Examples
    --------
    >>> from verglas.io.rules import file_rules, use_file_rules
    >>> with use_file_rules(paths="absolute"):
    ...     file_rules().paths
    'absolute'
    >>> file_rules().paths
    'relion'
    """
    global _current
    before, _current = _current, replace(_current, **changes)
    try:
        yield _current
    finally:
        _current = before


def pixel_size_refused(metadata: object, metadata_A: float, path: Path, header_A: float) -> FormatError:
    """What is raised where metadata and the header of a file name pixel sizes too far apart to be a recalibration."""
    # Not every function has the argument.
    flag = (
        "--any-pixel-size"
        if _current.command_line
        else "any_pixel_size=True, as an argument or by verglas.io.rules.use_file_rules"
    )
    return FormatError(
        f"{metadata}: pixel size {metadata_A:.6g} A, but {path} has {header_A:.6g} A in its header, "
        f"{100 * abs(header_A / metadata_A - 1):.1f} % apart; one of them is wrong (binned images, unbinned "
        f"metadata?): correct the metadata or the header, or say that the metadata are right ({flag})"
    )


def project_folder() -> Path:
    """The folder that RELION is started in: the nearest with its pipeline above the working directory, else this."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / _PIPELINE).is_file()), here)


def written_name(target: str | os.PathLike[str], folder: Path, style: str | None = None) -> str:
    """How a file is named in another one that lies in ``folder``.

    ``"relion"``: relative to :func:`project_folder`, where both lie in it. Outside of it there is no project: relative
    to ``folder`` where the file lies in that, else absolute. Links are not followed: projects hold links to storage.
    """
    # abspath, not resolve: a project's links to raw data are to stay as they are named.
    path, folder, root = (Path(os.path.abspath(p)) for p in (target, folder, project_folder()))
    style = style or _current.paths
    if style not in STYLES:
        raise InputError(f"paths: expected {', '.join(STYLES)}, got {style!r}")
    if style == "star":
        return Path(os.path.relpath(path, folder)).as_posix()
    if style == "relion" and path.is_relative_to(root) and folder.is_relative_to(root):
        return path.relative_to(root).as_posix()
    if style == "relion" and path.is_relative_to(folder) and not folder.is_relative_to(root):
        return path.relative_to(folder).as_posix()
    return path.as_posix()


def search_folders(file: Path) -> list[Path]:
    """Where names in a file are looked for: its folder, those above it, the working directory."""
    here = Path(os.path.abspath(file)).parent
    return list(dict.fromkeys([here, *here.parents, Path.cwd()]))
