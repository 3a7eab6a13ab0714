"""Writing a file so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verglas.errors import InputError
from verglas.io.inputs import note_written, refuse_input

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse an output that could not be written, before hours of work go into it.

    Parameters
    ----------
    path : path
        File that will be written.

    Raises
    ------
    InputError
        Its folder does not exist or is not writable, or the path is a folder.

    Examples
    --------
    >>> from verglas.io import check_writable
    >>> check_writable("nowhere/map.mrc")
    Traceback (most recent call last):
    verglas.errors.InputError: cannot write nowhere/map.mrc: the folder nowhere does not exist
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, expected the name of a file")
    refuse_input(path)
    # Asking the file system beats reading permission bits: /proc and full or read-only mounts refuse too.
    probe = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror} (folder {path.parent.resolve()})") from error


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that results could not be written to, before hours of work go into them; it is not made.

    Raises
    ------
    InputError
        It or one above it is a file, or cannot be written to.

    Examples
    --------
    >>> from verglas.io import check_folder
    >>> check_folder("/dev/null/run")
    Traceback (most recent call last):
    verglas.errors.InputError: cannot write /dev/null/run: /dev/null is a file, expected the name of a folder
    """
    folder = Path(folder)
    # lexists: a link that leads nowhere is there, and nothing can be made in its place.
    there = next((one for one in (folder, *folder.absolute().parents) if os.path.lexists(one)), Path.cwd())
    if not there.is_dir():
        what = "it" if there == folder else str(there)
        kind = "a link that leads nowhere" if there.is_symlink() and not there.exists() else "a file"
        raise InputError(f"cannot write {folder}: {what} is {kind}, expected the name of a folder")
    check_writable(there / "any")


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder for results and those above it, where they are not there.

    Raises
    ------
    InputError
        As :func:`check_folder`.
    """
    check_folder(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}") from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path``; renamed to ``path`` when the block ends, removed when it fails.

    The temporary file lies in the same folder, since only a rename inside one file system is atomic
    (POSIX rename; os.replace on other systems). It keeps the suffix, which some writers read.

    Raises
    ------
    InputError
        The folder does not exist, or the disk is full or fails.

    Notes
    -----
    The file, then its folder, are synchronised with the disk: after a power cut the old content or the new is there.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = pathlib.Path(folder) / "a.txt"
    ...     with atomic_path(target) as temporary:
    ...         _ = temporary.write_text("all of it")
    ...     target.read_text()
    'all of it'
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, expected the name of a file")
    refuse_input(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        _to_disk(temporary)
        # Beside the target and not in /tmp: a rename is atomic within one file system only.
        os.replace(temporary, path)
        note_written(path)
        _to_disk(path.parent)
    except OSError as error:
        short = error.errno is None and "written" in str(error)  # what NumPy says of a full disk
        if error.errno not in _DISK and not short and error.filename not in (temporary, str(temporary)):
            raise
        # what the system says of a write that finds no room names no file
        why = f"{error}; is the disk full?" if short else error.strerror
        raise InputError(f"cannot write {path}: {why} (folder {path.parent.resolve()})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk: renamed before, a file may be empty."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # a folder that some systems do not open
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(handle)


def remove_file(path: str | os.PathLike[str]) -> None:
    """Remove a result of an earlier run, if there is one; never a file that the job in hand was given or reads."""
    refuse_input(Path(path))
    Path(path).unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a small file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))
