"""Pages: one self-contained HTML file each, with its pictures inside, readable without network, script or mouse.

A page whose reader chooses something may hold controls and an inline script (:class:`Fragment`), and tables may sort
by a click on a heading; a page reads without them, too.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

REFRESH_S = 15  # of the page of something that is still running


@dataclass(frozen=True)
class Picture:
    """A PNG with the words for those who do not see it (``alt``) and for all (``caption``).

    ``link`` is the path, from the page, of a larger one.
    """

    png: bytes
    alt: str
    caption: str = ""
    link: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many as the page is wide; each of ``least_rem`` (16 pixels) or more."""

    pictures: Sequence[Picture]
    least_rem: float = 18.0


@dataclass(frozen=True)
class Cell:
    """A cell that sorts by another value than the words it shows."""

    text: object
    key: object


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads; the first column names the row.

    Attributes
    ----------
    head : sequence of str
    rows : sequence of sequences
        Texts, numbers or :class:`Cell`.
    sortable : bool
        A click on a heading sorts by its column: numbers (a unit may follow) by value, all else by name; cells without
        content stay last.
    marked : collection of int
        Rows, from 0, to look at: shown in another colour.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    sortable: bool = False
    marked: Collection[int] = ()


@dataclass(frozen=True)
class Link:
    """A link to another file beside the page: words, and the path from the page."""

    text: str
    path: str


@dataclass(frozen=True)
class Fragment:
    """HTML put in as it stands: its maker escapes every text in it, and it asks nothing of the network."""

    html: str


Block = Picture | Gallery | Table | Link | Fragment


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and what follows it in order."""

    title: str
    text: str = ""
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes
    ----------
    title, summary : str
        Heading, and the one sentence a reader must not miss.
    figures : mapping of name -> value
        The few numbers shown large under the summary.
    sections : sequence of Section
        In order.
    footer : str
        Version and time.
    refresh_s : int, optional
        A browser loads the page again after so many seconds; for what is still running.
    script : str
        JavaScript at the end of the page. Without it the page must say the same, if less handily.
    """

    title: str
    summary: str
    figures: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    footer: str = ""
    refresh_s: int | None = None
    script: str = ""


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


# Headings of tables of class "sortable" become buttons; without the script they stay words.
_SORT = r"""
document.querySelectorAll('table.sortable').forEach(function (table) {
  var body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells);
  var number = /^[-+\u2212]?[\d,]*\.?\d+(e[-+]?\d+)?(\s*\S{1,4})?$/i;
  function key(row, column) {
    var cell = row.cells[column];
    return (cell.dataset.value === undefined ? cell.textContent : cell.dataset.value).trim();
  }
  function compare(a, b) {
    if (number.test(a) && number.test(b)) {
      var x = parseFloat(a.replace(/,/g, '').replace('\u2212', '-'));
      var y = parseFloat(b.replace(/,/g, '').replace('\u2212', '-'));
      if (x !== y) { return x - y; }
    }
    return a.localeCompare(b, undefined, {numeric: true});
  }
  heads.forEach(function (head) {
    var button = document.createElement('button');
    button.type = 'button';
    while (head.firstChild) { button.appendChild(head.firstChild); }
    head.appendChild(button);
    button.addEventListener('click', function () {
      var column = head.cellIndex, up = head.getAttribute('aria-sort') !== 'ascending';
      var rows = Array.from(body.rows).map(function (row) { return [key(row, column), row]; });
      rows.sort(function (a, b) {
        if (a[0] === '' || b[0] === '') { return (a[0] === '') - (b[0] === ''); }
        return up ? compare(a[0], b[0]) : compare(b[0], a[0]);
      });
      rows.forEach(function (one) { body.appendChild(one[1]); });
      heads.forEach(function (other) { other.removeAttribute('aria-sort'); });
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    });
  });
});
"""


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = f"<figcaption>{_text(picture.caption)}</figcaption>" if picture.caption else ""
    shown = f'<img src="data:image/png;base64,{data}" alt="{_text(picture.alt)}">'
    if picture.link:
        shown = f'<a href="{_text(picture.link)}">{shown}</a>'
    return f"<figure>{shown}{caption}</figure>"


def _gallery(gallery: Gallery) -> str:
    least = f"min(100%, {gallery.least_rem:g}rem)"
    pictures = "".join(_picture(picture) for picture in gallery.pictures)
    return f'<div class="gallery" style="--least: {least}">{pictures}</div>'


def _cell(cell: object, tag: str = "td") -> str:
    scope = ' scope="row"' if tag == "th" else ""
    if isinstance(cell, Cell):
        return f'<{tag}{scope} data-value="{_text(cell.key)}">{_text(cell.text)}</{tag}>'
    return f"<{tag}{scope}>{_text(cell)}</{tag}>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.head)
    marked = frozenset(table.marked)
    rows = []
    for number, (first, *others) in enumerate(table.rows):
        mark = ' class="marked"' if number in marked else ""
        rows.append(f"<tr{mark}>{_cell(first, 'th')}{''.join(map(_cell, others))}</tr>")
    kind = ' class="sortable"' if table.sortable else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _block(block: Block) -> str:
    if isinstance(block, Fragment):
        return block.html
    if isinstance(block, Picture):
        return _picture(block)
    if isinstance(block, Gallery):
        return _gallery(block)
    if isinstance(block, Table):
        return _table(block)
    return f'<p><a href="{_text(block.path)}">{_text(block.text)}</a></p>'


def _section(section: Section, number: int) -> str:
    text = f"<p>{_text(section.text)}</p>" if section.text else ""
    blocks = "".join(_block(b) for b in section.blocks)
    mark = f"s{number}"
    return f'<section aria-labelledby="{mark}"><h2 id="{mark}">{_text(section.title)}</h2>{text}{blocks}</section>'


def render(page: Page) -> str:
    """The page as HTML.

    Parameters
    ----------
    page : Page
        Every text in it is escaped.

    Returns
    -------
    str
        A complete document.

    Examples
    --------
    >>> from verglas.report.html import Page, Section, render
    >>> "<h1>A &lt; B</h1>" in render(Page("A < B", "done", sections=[Section("one")]))
    True
    """
    style = files("verglas.report").joinpath("page.css").read_text(encoding="utf-8")
    numbers = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in page.figures.items())
    sections = "".join(_section(section, number) for number, section in enumerate(page.sections, 1))
    code = page.script + (_SORT if 'class="sortable' in sections else "")
    # "</" would end the script early wherever it stands in a text.
    safe = code.replace("</", "<\\/")
    script = f"<script>{safe}</script>" if code else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        + (f'<meta http-equiv="refresh" content="{int(page.refresh_s)}">' if page.refresh_s else "")
        + f"<title>{_text(page.title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{_text(page.title)}</h1><p>{_text(page.summary)}</p>"
        + (f'<dl class="numbers">{numbers}</dl>' if numbers else "")
        + f"</header><main>{sections}</main><footer><p>{_text(page.footer)}</p></footer>{script}</body></html>\n"
    )
