"""White pictures in place of figures: layout and drawing take most of the time of a page.

Of the figures of each kind the first that the processes of a run of tests meet is drawn, so that drawing is tried;
in its place and in those of all others pages hold a white one. Where a test looks at numbers and words none need be
drawn (``left_blank``). Modules that look at pictures say so (``pytestmark = pytest.mark.drawn``).
"""

from __future__ import annotations

import base64
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

# One white pixel.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")


def blank(figure: Any, dpi: float) -> bytes:
    return PNG


def left_blank() -> Iterator[None]:
    """Body of a fixture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verglas.report.style._draw", blank)
        yield


_seen: set[Any] = set()


def _is_first(kind: CodeType) -> bool:
    """Whether no process of this run of tests has drawn a figure of this function yet: workers share a folder."""
    if kind in _seen:
        return False
    _seen.add(kind)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return True
    folder = Path(tempfile.gettempdir()) / f"verglas_figures_{run}"
    folder.mkdir(exist_ok=True)
    try:
        (folder / f"{Path(kind.co_filename).stem}.{kind.co_name}.{kind.co_firstlineno}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def drawn_once() -> Iterator[None]:
    """Body of a fixture: of the figures of one function the first in a run of tests is drawn; pages hold white ones."""
    from verglas.report import style

    draw = style._draw

    def first(figure: Any, dpi: float) -> bytes:
        if _is_first(sys._getframe(2).f_code):  # who asked style.png
            draw(figure, dpi)
        return PNG  # also of the one that was drawn: a page and the same page again are to be equal in any order

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "_draw", first)
        yield


class RepeatedFigures:
    """A plugin: doctests of the package draw every kind of figure once, too."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        if not isinstance(item, pytest.DoctestItem):
            return (yield)
        for _ in drawn_once():
            result = yield
        return result


# The same for another process, by ``python -c``.
CODE = (
    f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import blank_figures; "
    "from verglas.report import style; style._draw = blank_figures.blank\n"
)


def child(*words: object) -> list[str]:
    """The command line in a process of its own, its figures left blank."""
    return [sys.executable, "-c", f"{CODE}from verglas.cli import main; main()", *map(str, words)]
