"""Columns of large particle files, kept by a process of its own: at the end of a job, and for pages that ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from verglas.io.columns import LARGE_BYTES, read_columns

_CHILD = (
    "import sys\n"
    "from verglas.errors import VerglasError\n"
    "from verglas.io.columns import keep_columns\n"
    "try:\n"
    "    keep_columns(*sys.argv[1:])\n"
    "except (VerglasError, OSError) as error:\n"
    "    sys.exit(str(error))\n"
)


def keep_columns_apart(path: Path, folder: Path | None = None) -> str:
    """Keep the columns of a particle file; what went wrong, empty where nothing did.

    In another process: to parse millions of rows holds up every thread of the one that asks, and needs memory that a
    process gives back only with its end.

    Parameters
    ----------
    path : Path
    folder : Path, optional
        As :func:`verglas.io.columns.keep_columns` takes it.
    """
    command = [sys.executable, "-c", _CHILD, str(path), *([] if folder is None else [str(folder)])]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if not ended.returncode:
        return ""
    said = ended.stderr.strip().splitlines()
    return f"{path.name} cannot be read: {said[-1] if said else f'the reader ended with status {ended.returncode}'}"


def keep_large_columns(folder: Path) -> str:
    """Columns of a finished job's ``particles.star``, where it is large, so that its page need not wait for them; what
    went wrong, empty where nothing did.
    """
    path = folder / "particles.star"
    if not path.is_file() or path.stat().st_size < LARGE_BYTES or read_columns(path) is not None:
        return ""
    return keep_columns_apart(path)
