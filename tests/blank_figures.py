"""White pictures in place of figures: layout and drawing take most of the time of a page.

Every kind of page is drawn in one test module at least; others run a job many times and look at numbers and words.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# One white pixel.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")


def _blank(figure: Any, dpi: float) -> bytes:
    return PNG


def left_blank() -> Iterator[None]:
    """Body of a fixture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verglas.report.style._draw", _blank)
        yield


# The same for another process, by ``python -c``.
CODE = (
    f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import blank_figures; "
    "from verglas.report import style; style._draw = blank_figures._blank\n"
)


def child(*words: object) -> list[str]:
    """The command line in a process of its own, its figures left blank."""
    return [sys.executable, "-c", f"{CODE}from verglas.cli import main; main()", *map(str, words)]
