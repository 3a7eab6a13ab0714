"""A table whose rows are kept or dropped by ticks, and whose kept list is saved as a STAR file."""

from __future__ import annotations

import html as _html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verglas.report.html import Fragment

SELECTOR_STYLE = """<style>
.qc tr.dropped { opacity: .45; }
.bar { display: flex; gap: .7rem; flex-wrap: wrap; align-items: center; margin: 0 0 .8rem; }
.bar button { font: inherit; padding: .35rem .8rem; border-radius: .4rem; border: 1px solid var(--line);
  background: var(--card); color: var(--ink); cursor: pointer; }
</style>"""

SELECTOR_SCRIPT = """
(function () {
  var table = document.querySelector('table.qc'), body = table.tBodies[0];
  var names = JSON.parse(document.getElementById('names').textContent);
  var boxes = function () { return Array.prototype.slice.call(body.querySelectorAll('input')); };
  var count = document.getElementById('count');
  function show() {
    var kept = 0;
    boxes().forEach(function (box) {
      box.closest('tr').classList.toggle('dropped', !box.checked);
      if (box.checked) { kept += 1; }
    });
    count.textContent = kept + ' of ' + names.length + ' micrographs kept';
  }
  body.addEventListener('change', show);
  document.getElementById('unflagged').addEventListener('click', function () {
    boxes().forEach(function (box) { box.checked = box.dataset.flagged === '0'; });
    show();
  });
  document.getElementById('everything').addEventListener('click', function () {
    boxes().forEach(function (box) { box.checked = true; });
    show();
  });
  document.getElementById('save').addEventListener('click', function () {
    var kept = boxes().filter(function (box) { return box.checked; }).map(function (box) { return +box.dataset.row; });
    kept.sort(function (a, b) { return a - b; });
    var lines = kept.map(function (row) {
      var name = names[row];
      return (/\\s/.test(name) ? '"' + name + '"' : name) + '\\n';
    });
    var text = '\\ndata_\\n\\nloop_\\n_rlnMicrographName #1\\n' + lines.join('') + '\\n';
    var link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: 'text/plain'}));
    link.download = 'micrographs_kept.star';
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  });
  show();
})();
"""


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
    cells : list of (HTML, str)
        What each column shows, and what it sorts by.
    """

    name: str
    kept: bool
    flagged: bool
    cells: list[tuple[str, str]]


def shown_number(value: float | None, digits: int) -> tuple[str, str]:
    """(shown, to sort by); nothing where it is not known."""
    return ("", "") if value is None or not np.isfinite(value) else (f"{value:.{digits}f}", f"{value:.6g}")


def _row(number: int, row: SelectorRow) -> str:
    name, checked = _html.escape(row.name, quote=True), " checked" if row.kept else ""
    tick = (
        f'<td data-value="{int(row.kept)}"><input type="checkbox" data-row="{number}" '
        f'data-flagged="{int(row.flagged)}" aria-label="keep {name}"{checked}></td>'
    )
    cells = "".join(f'<td data-value="{_html.escape(key, quote=True)}">{shown}</td>' for shown, key in row.cells)
    return f'<tr class="marked">{tick}{cells}</tr>' if row.flagged else f"<tr>{tick}{cells}</tr>"


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
    head = "".join(f'<th scope="col">{_html.escape(c)}</th>' for c in ("keep", *columns))
    body = "".join(_row(number, row) for number, row in enumerate(rows))
    names = json.dumps([row.name for row in rows]).replace("<", "\\u003c")
    return Fragment(
        SELECTOR_STYLE + '<div class="bar"><span id="count"></span>'
        '<button type="button" id="unflagged">keep what has no flag</button>'
        '<button type="button" id="everything">keep all</button>'
        '<button type="button" id="save">save the kept list (STAR)</button></div>'
        f'<script type="application/json" id="names">{names}</script>'
        f'<div class="scroll"><table class="sortable qc"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
