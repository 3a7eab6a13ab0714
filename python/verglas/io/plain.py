"""Plain bytes of files that may be compressed by gzip or bzip2."""

from __future__ import annotations

import bz2
import gzip
import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

from verglas.errors import FormatError
from verglas.io.mrc_header import compression_of


class PlainFile:
    """A file's plain bytes: the file itself, or of a compressed one a temporary copy that lives as long as this does.

    Frames of a compressed file lie nowhere: it is decompressed once, on first use, in whatever process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._compression = compression_of(path)
        self._start()

    def _start(self) -> None:
        self._lock, self._copy = threading.Lock(), None if self._compression else self.path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_compression": self._compression}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def plain(self) -> Path:
        """The path of the plain bytes."""
        with self._lock:
            if self._copy is None:
                self._copy = self._decompress()
            return self._copy

    def _decompress(self) -> Path:
        handle, name = tempfile.mkstemp(prefix="verglas_", suffix=Path(self.path.stem).suffix)
        # Not __del__: finalizers also run at the interpreter's exit, when the temporary copy must go.
        weakref.finalize(self, _remove, name)
        opener: Any = gzip.open if self._compression == "gzip" else bz2.open
        try:
            with opener(self.path, "rb") as packed, open(handle, "wb") as out:
                shutil.copyfileobj(packed, out, 4 << 20)
        except (OSError, EOFError) as error:
            raise FormatError(f"{self.path}: cannot be decompressed (cut short?): {error}") from None
        return Path(name)


def _remove(name: str) -> None:
    Path(name).unlink(missing_ok=True)
