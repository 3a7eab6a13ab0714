"""Writing a file so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verglas.errors import InputError

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
    # Asking the file system beats reading permission bits: /proc and full or read-only mounts refuse too.
    probe = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror} (folder {path.parent.resolve()})") from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path``; renamed to ``path`` when the block ends, removed when it fails.

    The temporary file lies in the same folder, since only a rename inside one file system is atomic
    (POSIX rename; os.replace on other systems). It keeps the suffix, which some writers read.

    Raises
    ------
    InputError
        The folder does not exist, or the disk is full or fails.

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
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        # what the system says of a write that finds no room names no file
        raise InputError(f"cannot write {path}: {error.strerror} (folder {path.parent.resolve()})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file's content is on the disk: renamed before, it may be empty after a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a small file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))
