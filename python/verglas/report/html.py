"""Pages: one self-contained HTML file each, with its pictures inside, readable without network, script or mouse.

A page whose reader chooses something may hold controls and an inline script (:class:`Fragment`); it reads without
them, too.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files


@dataclass(frozen=True)
class Picture:
    """A PNG with the words for those who do not see it (``alt``) and for all (``caption``)."""

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Link:
    """A link to another file beside the page: words, and the path from the page."""

    text: str
    path: str


@dataclass(frozen=True)
class Fragment:
    """HTML put in as it stands: its maker escapes every text in it, and it asks nothing of the network."""

    html: str


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and what follows it in order."""

    title: str
    text: str = ""
    blocks: Sequence[Picture | Table | Link | Fragment] = ()


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


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = f"<figcaption>{_text(picture.caption)}</figcaption>" if picture.caption else ""
    return f'<figure><img src="data:image/png;base64,{data}" alt="{_text(picture.alt)}">{caption}</figure>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.head)
    rows = []
    for first, *others in table.rows:
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in others)
        rows.append(f'<tr><th scope="row">{_text(first)}</th>{cells}</tr>')
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _block(block: Picture | Table | Link | Fragment) -> str:
    if isinstance(block, Fragment):
        return block.html
    if isinstance(block, Picture):
        return _picture(block)
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
    # "</" would end the script early wherever it stands in a text.
    safe = page.script.replace("</", "<\\/")
    script = f"<script>{safe}</script>" if page.script else ""
    sections = "".join(_section(section, number) for number, section in enumerate(page.sections, 1))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        + (f'<meta http-equiv="refresh" content="{int(page.refresh_s)}">' if page.refresh_s else "")
        + f"<title>{_text(page.title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{_text(page.title)}</h1><p>{_text(page.summary)}</p>"
        + (f'<dl class="numbers">{numbers}</dl>' if numbers else "")
        + f"</header><main>{sections}</main><footer><p>{_text(page.footer)}</p></footer>{script}</body></html>\n"
    )
