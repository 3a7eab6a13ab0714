"""Pages: one self-contained HTML file each, with its pictures inside, readable without network, script or mouse.

A page whose reader chooses something may hold controls and an inline script (:class:`Fragment`), and tables may sort
by a click on a heading; a page reads without them, too.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

REFRESH_S = 15  # of the page of something that is still running


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG with the words for those who do not see it (``alt``) and for all (``caption``).

    ``link`` is the path, from the page, of a larger one.
    """

    png: bytes
    alt: str
    caption: str = ""
    link: str = ""

    @property
    def source(self) -> str:
        """The picture itself, as the address of an image."""
        kind = "jpeg" if self.png.startswith(b"\xff\xd8") else "png"
        return f"data:image/{kind};base64," + base64.b64encode(self.png).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels: a page that knows them does not jump when the picture is there."""
        from PIL import Image

        return Image.open(io.BytesIO(self.png)).size


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

    @property
    def wordy(self) -> bool:
        """Whether rows hold sentences: on a telephone those stand below each other, not in columns of one word."""
        return len(self.head) > 2 and any(isinstance(c, str) and len(c) > 60 for row in self.rows for c in row)


@dataclass(frozen=True)
class Link:
    """A link to another file beside the page: words, and the path from the page."""

    text: str
    path: str


@dataclass(frozen=True)
class Fragment:
    """HTML put in as it stands: its maker escapes every text in it, and it asks nothing of the network."""

    html: str
    sortable: bool = False  # it holds a table of that class
    scripts: tuple[str, ...] = ()  # of the templates, which draw what it holds


def command_block(command: str) -> Fragment:
    """A command as it is typed, with a button that copies it.

    Examples
    --------
    >>> from verglas.report.html import command_block
    >>> "verglas fsc a.mrc" in command_block("verglas fsc a.mrc").html
    True
    """
    return Fragment(
        f'<div class="command"><code>{html.escape(command)}</code>'
        '<button type="button" class="copy">Copy</button></div>',
        scripts=("copy.js",),
    )


def folded(words: str, block: Table) -> Fragment:
    """A long table behind its heading, which opens it."""
    inside = str(templates().get_template("blocks.html").module.table(block))  # type: ignore[attr-defined]
    return Fragment(f"<details><summary>{html.escape(words)}</summary>{inside}</details>", sortable=block.sortable)


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
        A browser loads the page again after so many seconds until its reader has touched it; for what is still running.
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


def templates_of(package: str) -> Environment:
    """The templates of a package: all text is escaped, an unknown name is an error."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"value_text": value_text, "name_text": name_text, "typeset": typeset}
    return environment


@functools.cache
def templates() -> Environment:
    """The templates of pages."""
    environment = templates_of("verglas.report")
    for kind in (Cell, Fragment, Gallery, Link, Picture, Table):
        environment.tests[kind.__name__.lower()] = _test_of(kind)
    return environment


def _test_of(kind: type) -> Callable[[object], bool]:
    def is_one(value: object) -> bool:
        return isinstance(value, kind)

    return is_one


def template_text(name: str) -> str:
    """A file of the templates as it stands, as a script."""
    return files("verglas.report").joinpath("templates", name).read_text(encoding="utf-8")


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
    fragments = [b for section in page.sections for b in section.blocks if isinstance(b, Fragment)]
    names = dict.fromkeys(name for one in fragments for name in one.scripts)
    more = ["sort.js"] * _has_sortable(page) + ["follow.js"] * bool(page.refresh_s)
    code = page.script + "".join(template_text(name) for name in [*names, *more])
    return (
        templates()
        .get_template("page.html")
        .render(
            page=page,
            style=files("verglas.report").joinpath("page.css").read_text(encoding="utf-8"),
            # "</" would end the script early wherever it stands in a text.
            script=code.replace("</", "<\\/"),
        )
    )


def page_frame(body: str, scripts: Sequence[str], title: str, height_px: int) -> str:
    """A frame of a notebook: a page of its own inside, so that no script or style meets another's.

    Parameters
    ----------
    body : str
        HTML, every text in it escaped.
    scripts : sequence of str
        Of the templates.
    title : str
        For those who do not see it.
    height_px : int
    """
    css = files("verglas.report").joinpath("page.css").read_text(encoding="utf-8")
    code = "".join(map(template_text, scripts))
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><style>{css}</style></head><body>{body}'
        f"<script>{code}</script></body></html>"
    )
    return (
        f'<iframe sandbox="allow-scripts" title="{title}" height="{height_px}" style="width:100%;border:0" '
        f'srcdoc="{html.escape(page, quote=True)}"></iframe>'
    )


def _has_sortable(page: Page) -> bool:
    for block in (b for section in page.sections for b in section.blocks):
        if (isinstance(block, Table) and block.sortable) or (isinstance(block, Fragment) and block.sortable):
            return True
    return False


def value_text(value: object) -> str:
    """A value of a record as a person reads it: six figures, yes and no, a dash for what is not there.

    Examples
    --------
    >>> from verglas.report.html import value_text
    >>> value_text(115.50000000000001), value_text(False), value_text(None), value_text({"0.5": {"masked": 6.0}})
    ('115.5', 'no', '–', '0.5: masked: 6')
    >>> value_text([1, 2.25]), value_text("C1"), value_text(1234567)
    ('1, 2.25', 'C1', '1234567')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {value_text(one)}" for name, one in value.items()) or "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(value_text(one) for one in value) or "–"
    return str(value)


_UNITS = {
    "_per_A": " (1/Å)",
    "_e_A2": " (e/Å²)",
    "_A2": " (Å²)",
    "_A": " (Å)",
    "_deg": " (°)",
    "_px": " (px)",
    "_kV": " (kV)",
    "_mm": " (mm)",
    "_mrad": " (mrad)",
    "_um": " (µm)",
    "_nm": " (nm)",
    "_kDa": " (kDa)",
    "_s": " (s)",
    "_MB": " (MB)",
    "_GB": " (GB)",
}


def counted(count: float, noun: str, *, digits: int = 0) -> str:
    """So many of something: one takes the noun as it is, others its plural.

    Examples
    --------
    >>> from verglas.report.html import counted
    >>> counted(1, "particle"), counted(0.9, "particle"), counted(12345, "particle")
    ('1 particle', '1 particle', '12,345 particles')
    """
    text = f"{count:,.{digits}f}"
    return f"{text} {noun}" if text == "1" else f"{text} {noun}s"


def name_text(name: str) -> str:
    """Name of a setting or number as a person reads it, its unit in brackets.

    Examples
    --------
    >>> from verglas.report.html import name_text
    >>> name_text("dose_per_frame_e_A2"), name_text("b_factor_A2"), name_text("shift_range_A"), name_text("seed")
    ('dose per frame (e/Å²)', 'B-factor (Å²)', 'shift range (Å)', 'seed')
    """
    unit = next((end for end in _UNITS if name.endswith(end)), "")
    words = name[: len(name) - len(unit)].replace("_", " ")
    return re.sub(r"\bb factor", "B-factor", words) + _UNITS.get(unit, "")


# "class 1 A" and "chain 3 A" are names with a letter after their number, and no lengths.
_NAMED = r"\b(?:class|chain|group|plan|model|table) \d+ A\b"
_ENDS = r"(?=[\s,;:?!)\]]|\.(?!\w)|$)"


def typeset(text: str) -> str:
    """A sentence as it is printed: messages are plain ASCII, which a terminal shows anywhere; a page need not be.

    Examples
    --------
    >>> from verglas.report.html import typeset
    >>> typeset("4.1 +- 0.2 A of 80 A^2, 1.5 A/px, plan A of 3 A.")
    '4.1 ± 0.2 Å of 80 Å², 1.5 Å/px, plan A of 3 Å.'
    >>> typeset("1.2 e/A^2 and 0.1 1/A in chain 3 A, 2 A^3")
    '1.2 e/Å² and 0.1 1/Å in chain 3 A, 2 Å³'
    >>> typeset("map 3 A.mrc")  # a file keeps its name
    'map 3 A.mrc'
    """
    plain = re.sub(r"(?<![\w+-])\+-(?![\w+-])", "±", text)
    before = r"(?:(?<=[\d)] )|(?<=\bin )|(?<=\be/)|(?<=\b1/))"
    plain = re.sub(before + r"A\^([23])(?![\w^]|\.\w)", _power, plain)
    plain = re.sub(r"(?<=\b1/)A" + _ENDS, "Å", plain)
    return re.sub(rf"({_NAMED})|(?<=\d )A(?:(?=/px|/pixel)|{_ENDS})", lambda found: found[1] or "Å", plain)


def _power(found: re.Match[str]) -> str:
    return "Å" + {"2": "²", "3": "³"}[found[1]]
