"""A table whose rows are kept or dropped by ticks, and whose kept list is saved as a STAR file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verglas.report.html import Fragment, Link, template_text, templates

SELECTOR_SCRIPT = template_text("selector.js")


@dataclass(frozen=True)
class SelectorRow:
    """A row that can be kept.

    Attributes
    ----------
    name : str
        What the saved list calls it.
    kept : bool
        Ticked at first.
    flagged : bool
        Marked, and dropped by "keep what has no flag".
    cells : list of (str or Link, str)
        What each column shows, and what it sorts by.
    """

    name: str
    kept: bool
    flagged: bool
    cells: Sequence[tuple[str | Link, str]]


def format_number(value: float | None, digits: int) -> tuple[str, str]:
    """(shown, to sort by); nothing where it is not known."""
    return ("", "") if value is None or not np.isfinite(value) else (f"{value:.{digits}f}", f"{value:.6g}")


def selector(columns: Sequence[str], rows: Sequence[SelectorRow]) -> Fragment:
    """The sortable table; the page needs ``SELECTOR_SCRIPT``, and one such table at most.

    Parameters
    ----------
    columns : sequence of str
        Headings, after that of the ticks.
    rows : sequence of SelectorRow

    Returns
    -------
    Fragment
    """
    # "<" escaped: a name with </script> in it would end the script.
    names = json.dumps([row.name for row in rows]).replace("<", "\\u003c")
    template = templates().get_template("selector.html")
    return Fragment(template.render(columns=("keep", *columns), rows=rows, names=names), sortable=True)
