"""The version, read from the installed package's metadata or, in a source tree, from pyproject.toml: one place."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _from_source_tree() -> str | None:
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if not pyproject.is_file():
        return None
    match = re.search(r'^name = "verglas"\s+version = "([^"]+)"', pyproject.read_text(encoding="utf-8"), re.M)
    return match.group(1) if match else None


def _find() -> str:
    try:
        return version("verglas")
    except PackageNotFoundError:
        return _from_source_tree() or "0+unknown"


__version__ = _find()
