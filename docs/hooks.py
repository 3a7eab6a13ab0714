"""Documentation build: the reST that docstrings hold becomes Markdown, and formulas become MathML.

Docstrings are NumPy style with a few reST roles, which editors and ``help()`` readers know; MkDocs reads Markdown.
MathML needs no script and no network in the reader's browser.
"""

from __future__ import annotations

import html
import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

_MATH_BLOCK = re.compile(
    r"^(?P<indent> *)\.\. math::[ ]*(?P<first>[^\n]*)\n(?P<body>(?:(?P=indent)[ ]+\S[^\n]*\n?|[ ]*\n)*)", re.M
)
_MATH_ROLE = re.compile(r":math:`([^`]+)`")
_CODE_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc|obj):`~?([^`]+)`")
_FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">(?P<tex>.*?)</(?P=tag)>', re.S)


def to_markdown(text: str) -> str:
    """Roles and math directives of one docstring, as Markdown."""

    def block(match: re.Match[str]) -> str:
        body = textwrap.dedent(match["body"]).strip()
        formula = "\n".join(part for part in (match["first"].strip(), body) if part)
        return f"{match['indent']}$$\n" + textwrap.indent(formula, match["indent"]) + f"\n{match['indent']}$$\n\n"

    text = _MATH_BLOCK.sub(block, text)
    text = _MATH_ROLE.sub(r"$\1$", text)
    return _CODE_ROLE.sub(r"`\1`", text)


class ReSTToMarkdown(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)


def on_page_content(page_html: str, **kwargs: Any) -> str:
    """Each formula that arithmatex marked becomes MathML."""

    def mathml(match: re.Match[str]) -> str:
        tex = html.unescape(match["tex"]).strip()
        display = "block" if tex.startswith(r"\[") else "inline"
        return convert(tex[2:-2].strip(), display=display)

    return _FORMULA.sub(mathml, page_html)
