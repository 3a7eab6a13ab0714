"""What a micrograph's header says, without reading its pixels."""

from __future__ import annotations

from pathlib import Path

from verglas.errors import InputError
from verglas.io import micrograph_header


def shape_of(path: Path) -> tuple[int, int] | None:
    """(rows, columns); None for a file that cannot be read or that is packed."""
    try:
        return micrograph_header(path)
    except (InputError, OSError):
        return None
