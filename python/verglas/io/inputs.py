"""Files that the job in hand reads, none of which it may write over: the user's, and perhaps the only copies.

Every reader asks for its file in one place (:func:`verglas.io.kinds.require_file`), every writer opens its file in one
(:func:`verglas.io.atomic.atomic_path`): the first notes here what is read, the second asks here what may be replaced.
Files are told apart by device and number, so that a link to an input is that input. What a job has written itself, and
what an earlier run of it left in its folder, is its own and may be replaced however often it was read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from verglas.errors import InputError

Identity = tuple[int, int]


@dataclass
class _Register:
    """What is known of the files of the jobs in hand; of the process, for files are read and written by threads."""

    jobs: int = 0
    given: dict[Identity, Path] = field(default_factory=dict)
    read: dict[Identity, Path] = field(default_factory=dict)
    targets: dict[Identity, str] = field(default_factory=dict)
    own: tuple[Path, ...] = ()
    named: list[tuple[Path, Callable[[], Iterable[Path]]]] = field(default_factory=list)

    def copy(self) -> _Register:
        """Another, so that what is noted in a job within a job ends with it."""
        return _Register(self.jobs, dict(self.given), dict(self.read), dict(self.targets), self.own, list(self.named))


_current = _Register()
_open: list[_Register] = []
_written: set[Identity] = set()
_lock = threading.RLock()


def identity(path: Path) -> Identity | None:
    """What tells a file from others, whatever it is called; None where no ordinary file is."""
    try:
        found = path.stat() if path.is_file() else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


@contextmanager
def inputs_kept(
    paths: Iterable[Path], *, targets: Mapping[Path, str] | None = None, own: Path | None = None
) -> Iterator[None]:
    """Inside, writing over a file that is given or read is refused.

    Parameters
    ----------
    paths : iterable of path
        Files that the job is given.
    targets : mapping of path to str, optional
        Files that the job will write, as far as they are known, with what is said of one that is an input: this is
        then refused when it is read, before the work, and not when it would be written.
    own : path, optional
        Folder of an earlier run of this job: what is read there, unless it is given or named by what is, may be written
        again.

    Raises
    ------
    InputError
        A file that is given is among ``targets``.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from verglas.io.atomic import write_text
    >>> from verglas.io.inputs import inputs_kept
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     given = pathlib.Path(folder) / "map.mrc"
    ...     given.touch()
    ...     with inputs_kept([given]):
    ...         write_text(given, "another")
    Traceback (most recent call last):
    verglas.errors.InputError: cannot write .../map.mrc: the job was given this file, which would be lost; name another
    """
    global _current
    with _lock:
        mine = _current = _current.copy()
        _open.append(mine)
    try:
        with _lock:
            mine.jobs += 1
            given = {found: Path(path) for path in paths if (found := identity(Path(path))) is not None}
            mine.given |= given
            mine.targets |= {i: said for path, said in (targets or {}).items() if (i := identity(path)) is not None}
            if own is not None:
                mine.own = (*mine.own, own.resolve())
            for found, path in given.items():
                _note(found, path)
        yield
    finally:
        with _lock:
            # Jobs of two threads need not end in the order in which they began: what was before is not what is left.
            _open[:] = [one for one in _open if one is not mine]
            _current = _open[-1] if _open else _Register()
            if not _open:
                _written.clear()


def note_read(path: Path, named_by: str | Path | None = None) -> None:
    """Note that the job in hand reads a file; nothing outside a job.

    Parameters
    ----------
    path : path
    named_by : path, optional
        The file that names it: an input of the job where that is given.

    Raises
    ------
    InputError
        The job will write it.
    """
    if _current.jobs and (found := identity(path)) is not None:
        with _lock:
            _note(found, path, _is_given(named_by))


def note_named(by: Path, files: Callable[[], Iterable[Path]]) -> None:
    """Note that a file names others, which are looked for when a file would be replaced: there may be very many.

    Raises
    ------
    InputError
        The job will write one of them.
    """
    if not _current.jobs:
        return
    with _lock:
        _current.named.append((by, files))
        if _current.targets:
            _find_named()


def note_written(path: Path) -> None:
    """Note that the job in hand has written a file, which is its own from now on."""
    if _current.jobs and (found := identity(path)) is not None:
        with _lock:
            _written.add(found)
            _current.read.pop(found, None)  # the number of a file that was there before, and is no more


def refuse_input(path: Path) -> None:
    """Refuse to replace or remove a file that the job in hand was given or reads.

    Raises
    ------
    InputError
        It is one.
    """
    if not _current.jobs or (found := identity(path)) is None:
        return
    with _lock:
        _find_named()
        if found in _current.given:
            raise InputError(f"cannot write {path}: the job was given this file, which would be lost; name another")
        if found in _current.read:
            raise InputError(f"cannot write {path}: the job reads this file, which would be lost; name another")


def _is_given(path: str | Path | None) -> bool:
    return path is not None and identity(Path(path)) in _current.given


def _find_named() -> None:
    while _current.named:
        by, files = _current.named.pop()
        is_given = _is_given(by)
        for path in files():
            if (found := identity(path)) is not None:
                _note(found, path, is_given)


def _note(found: Identity, path: Path, is_given: bool = False) -> None:
    if not is_given and found not in _current.given and (found in _written or _is_own(path)):
        return
    _current.read.setdefault(found, path)
    if found in _current.targets:
        verb = "given" if found in _current.given else "read"
        raise InputError(_current.targets[found].format(path=path, verb=verb))


def _is_own(path: Path) -> bool:
    if not _current.own:
        return False
    parents = path.resolve().parents
    return any(folder in parents for folder in _current.own)
