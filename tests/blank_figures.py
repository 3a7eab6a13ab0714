"""White pictures in place of figures: layout and drawing take most of the time of a page.

Every process of the tests draws a figure of each kind, the first that it meets, so that drawing is tried, and puts a
white one in its place as in those of all others. Where a test looks at numbers and words none need be drawn
(``left_blank``). Modules that look at pictures say so (``pytestmark = pytest.mark.drawn``).
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


_seen: set[Any] = set()


def drawn_once() -> Iterator[None]:
    """Body of a fixture: of the figures of one function the first in this process is drawn; pages hold white ones."""
    from verglas.report import style

    draw = style._draw

    def first(figure: Any, dpi: float) -> bytes:
        kind = sys._getframe(2).f_code  # who asked style.png
        if kind not in _seen:
            _seen.add(kind)
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
    "from verglas.report import style; style._draw = blank_figures._blank\n"
)


def child(*words: object) -> list[str]:
    """The command line in a process of its own, its figures left blank."""
    return [sys.executable, "-c", f"{CODE}from verglas.cli import main; main()", *map(str, words)]
