"""A folder that keeps the images of particle sets as they are read: quick disks beside slow ones.

An entry is one set: float32 images in the order of the particles, and a record with a hash of every few megabytes that
is checked when they are first touched. What is missing or damaged is read from the particles' own files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError, VerglasWarning
from verglas.io.atomic import atomic_path
from verglas.io.stack import StackSource
from verglas.io.tables import write_json
from verglas.types import Particles
from verglas.types.arrays import IntArray
from verglas.types.images import ImageSource
from verglas.types.profile import count_read

_CHUNK_BYTES = 4 << 20
_KEEP_FREE = 0.05  # of the disk
_ENTRY = re.compile(r"[0-9a-f]{32}\.images")
_BEING_FILLED = re.compile(r"\.[0-9a-f]{32}\.[0-9a-f]+\.part\.images")  # atomic_path's name for it
_ABANDONED_S = 3600.0  # without a word more written: of a run that was killed


@dataclass(frozen=True)
class ImageCache:
    """A cache folder.

    Attributes
    ----------
    folder : Path
        Made if it is not there; several runs may use it at the same time.
    limit_GB : float
        Of all entries; those that were used longest ago go first. A twentieth of the disk stays free in any case.
    """

    folder: Path
    limit_GB: float = 100.0

    def open(self, particles: Particles, progress: Callable[[int, int], None] | None = None) -> Particles:
        """The particles with images read through the cache, which is filled first where it has no entry of them.

        Only particles in MRC stacks are kept, and only where they fit; others are returned as they are, with a warning.

        Parameters
        ----------
        particles : Particles
        progress : callable, optional
            Called with images read, in all, while the cache is filled.

        Raises
        ------
        InputError
            The folder cannot be written.
        """
        source = particles.source
        if not isinstance(source, StackSource):
            _warn(f"{particles.where}: only particles in stacks of files are kept in a cache; read as they are")
            return particles
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cache {self.folder}: cannot be made ({error.strerror})") from error
        key = _key_of(source)
        entry = _read_entry(self.folder, key)
        if entry is None:
            box = particles.box
            size = 4 * len(source) * box**2
            if not self._make_room(size):
                _warn(f"cache {self.folder}: {size / 1e9:.2f} GB of images do not fit; they are read from their files")
                return particles
            try:
                entry = _fill(self.folder / f"{key}.images", source, box, progress)
            except InputError as error:
                # A stack that cannot be read stays an error; a full disk is no reason to end a job.
                if getattr(error.__cause__, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                _warn(f"{error}; images are read from their own files")
                return particles
            except (PermissionError, FileNotFoundError) as error:
                raise InputError(f"cache {self.folder}: cannot be written ({error.strerror})") from error
        # Used now: the last to go. Another run may just have made room of it, or it may be another user's.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.utime(entry.record)
        return particles.with_source(CachedSource(source, entry))

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes fit; entries used longest ago go for them, but none for a set that will not fit."""
        held = _held_files(self.folder)
        removable = [file for file in held if file.is_removable]
        used, could_go = sum(file.size for file in held), sum(file.size for file in removable)
        limit, free = 1e9 * self.limit_GB, _free_bytes(self.folder)
        if used - could_go + size > limit or size > free + could_go:
            return False
        while used + size > limit or size > free:
            if not removable:
                return False  # what is open elsewhere frees no disk yet
            oldest = removable.pop(0)
            oldest.path.unlink(missing_ok=True)
            oldest.path.with_suffix(".json").unlink(missing_ok=True)
            used, free = used - oldest.size, _free_bytes(self.folder)
        return True


@dataclass(frozen=True)
class _HeldFile:
    path: Path
    size: int
    last_use: float
    is_removable: bool


def _held_files(folder: Path) -> list[_HeldFile]:
    """Entries, and those that runs are filling, used longest ago first; files of other names are somebody else's."""
    files = []
    for path in folder.iterdir():
        is_part = _BEING_FILLED.fullmatch(path.name) is not None
        if not is_part and _ENTRY.fullmatch(path.name) is None:
            continue
        with contextlib.suppress(FileNotFoundError):  # another run makes room at the same time
            state = path.stat()
            is_removable = not is_part or time.time() - state.st_mtime > _ABANDONED_S
            files.append(_HeldFile(path, state.st_size, _last_use(path), is_removable))
    return sorted(files, key=lambda file: file.last_use)


def _free_bytes(folder: Path) -> float:
    disk = shutil.disk_usage(folder)
    return disk.free - _KEEP_FREE * disk.total


@dataclass(frozen=True)
class _Entry:
    path: Path
    n: int
    box: int
    chunk: int  # images
    hashes: tuple[str, ...]
    checked: dict[int, bool] = field(default_factory=dict, repr=False, compare=False)
    lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".json")

    def __reduce__(self) -> tuple[type[_Entry], tuple[Any, ...]]:
        return type(self), (self.path, self.n, self.box, self.chunk, self.hashes)  # every process checks for itself

    def images(self) -> npt.NDArray[np.float32]:
        """All images, as they lie on the disk."""
        return np.memmap(self.path, np.float32, "r", shape=(self.n, self.box, self.box))

    def is_sound(self, number: int, images: npt.NDArray[np.float32]) -> bool:
        """Whether a chunk is what was written; found out once."""
        with self.lock:
            if number not in self.checked:
                piece = images[number * self.chunk : (number + 1) * self.chunk]
                self.checked[number] = _hash(piece) == self.hashes[number]
            return self.checked[number]


@dataclass(frozen=True, eq=False)
class CachedSource:
    """Images of another source, of which a cache has a copy.

    Attributes
    ----------
    inner : ImageSource
        Where they come from; read where the copy is gone or damaged.
    entry : object
        Of the cache.
    rows : (m,) int64, optional
        The image of each particle of a subset.
    """

    inner: ImageSource
    entry: _Entry
    rows: IntArray | None = None

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Images in the order asked."""
        rows = np.asarray(rows, np.int64)
        at = rows if self.rows is None else self.rows[rows]
        try:
            images = self.entry.images()
        except (OSError, ValueError):
            return self.inner.read(rows)  # another run made room: nothing is wrong
        wrong = [k for k in np.unique(at // self.entry.chunk).tolist() if not self.entry.is_sound(k, images)]
        if wrong:
            _warn(
                f"{self.entry.path}: damaged; its images are read from their own files. Remove it to have it made anew"
            )
            return self.inner.read(rows)
        pixels = np.array(images[at])
        count_read(pixels.nbytes)
        return pixels

    def take(self, rows: IntArray) -> CachedSource:
        """The images of a subset."""
        return replace(self, inner=self.inner.take(rows), rows=rows if self.rows is None else self.rows[rows])

    def boxes(self) -> IntArray:
        """As of the files."""
        return self.inner.boxes()

    def pixel_sizes_A(self) -> npt.NDArray[np.float64]:
        """As of the files."""
        return self.inner.pixel_sizes_A()


def _key_of(source: StackSource) -> str:
    """Of the files as they are now, and of which images of them."""
    sha = hashlib.blake2b(digest_size=16)
    for number in np.unique(source.stack_of).tolist():
        path = source.path(number).resolve()
        state = path.stat()
        sha.update(f"{number} {path} {state.st_size} {state.st_mtime_ns}\n".encode())
    sha.update(np.ascontiguousarray(source.stack_of, np.int64).tobytes())
    sha.update(np.ascontiguousarray(source.frame, np.int64).tobytes())
    return sha.hexdigest()


def _read_entry(folder: Path, key: str) -> _Entry | None:
    path = folder / f"{key}.images"
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        entry = _Entry(path, int(record["n"]), int(record["box"]), int(record["chunk"]), tuple(record["hashes"]))
        is_whole = path.stat().st_size == 4 * entry.n * entry.box**2
        has_hashes = len(entry.hashes) == -(-entry.n // entry.chunk)
        return entry if is_whole and has_hashes else None
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def _fill(path: Path, source: StackSource, box: int, progress: Callable[[int, int], None] | None) -> _Entry:
    n, chunk = len(source), max(1, _CHUNK_BYTES // (4 * box**2))
    hashes = []
    # Under a name of its own: two runs may fill the same entry at the same time, and the last one's stays.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        for begin in range(0, n, chunk):
            images = source.read(np.arange(begin, min(begin + chunk, n)))
            hashes.append(_hash(images))
            file.write(np.ascontiguousarray(images, np.float32).data)
            if progress is not None:
                progress(min(begin + chunk, n), n)
    entry = _Entry(path, n, box, chunk, tuple(hashes))
    write_json(entry.record, {"n": n, "box": box, "chunk": chunk, "particles": source.where, "hashes": hashes})
    return entry


def _hash(images: npt.NDArray[np.float32]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(images).data, digest_size=16).hexdigest()


def _last_use(path: Path) -> float:
    try:
        return path.with_suffix(".json").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _warn(sentence: str) -> None:
    warnings.warn(VerglasWarning(sentence), stacklevel=3)
