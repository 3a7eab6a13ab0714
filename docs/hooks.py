"""Documentation build: API pages from ``__all__``, the reST of docstrings as Markdown, formulas as MathML.

A page writes ``::: public verglas.ops``: the module's own docstring and every name of its ``__all__`` follow, each
taken from the module that defines it, so that a new op needs no new line here.

Docstrings are NumPy style with a few reST roles, which editors and ``help()`` readers know; MkDocs reads Markdown.
MathML needs no script and no network in the reader's browser.
"""

from __future__ import annotations

import ast
import html
import re
import textwrap
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_SOURCES = Path(__file__).resolve().parent.parent / "python"
_PUBLIC = re.compile(r"^::: public (?P<module>[\w.]+)$", re.M)

_MATH_BLOCK = re.compile(
    r"^(?P<indent> *)\.\. math::[ ]*(?P<first>[^\n]*)\n(?P<body>(?:(?P=indent)[ ]+\S[^\n]*\n?|[ ]*\n)*)", re.M
)
_MATH_ROLE = re.compile(r":math:`([^`]+)`")
_CODE_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc|obj):`~?([^`]+)`")
_ARG = re.compile(r"\\arg\b")
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
        """Called by griffe for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)


def public_names(module: str) -> list[str]:
    """Dotted paths of a module's ``__all__``, each where it is defined; modules among them are left out."""
    base = _SOURCES.joinpath(*module.split("."))
    tree = ast.parse((base / "__init__.py" if base.is_dir() else base.with_suffix(".py")).read_text(encoding="utf-8"))
    origin: dict[str, str] = {}
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            origin.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = list(ast.literal_eval(node.value))
    paths = [origin.get(name, f"{module}.{name}") for name in names]
    return [path for path in paths if not _is_module(path)]


def _is_module(path: str) -> bool:
    base = _SOURCES.joinpath(*path.split("."))
    return (base / "__init__.py").is_file() or base.with_suffix(".py").is_file()


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Expand ``::: public`` lines."""

    def expand(match: re.Match[str]) -> str:
        module = match["module"]
        blocks = [f"::: {module}\n    options:\n      members: false\n"]
        for path in public_names(module):
            name = path.rpartition(".")[2]
            heading = f"      show_root_heading: true\n      heading: {name}\n"
            blocks.append(f"::: {path}\n    options:\n{heading}      show_root_toc_entry: true\n")
        return "\n".join(blocks)

    return _PUBLIC.sub(expand, markdown)


def on_page_content(page_html: str, **kwargs: Any) -> str:
    """Each formula that arithmatex marked becomes MathML."""

    def mathml(match: re.Match[str]) -> str:
        tex = html.unescape(match["tex"]).strip()
        display = "block" if tex.startswith(r"\[") else "inline"
        made: str = convert(_ARG.sub(r"\\mathrm{arg}\\,", tex[2:-2].strip()), display=display)
        left = re.search(r"\\[A-Za-z]+", made)
        if left:  # the converter passes on what it does not know
            raise PluginError(f"{kwargs['page'].file.src_uri}: {left[0]} has no MathML; write {tex} otherwise")
        return made

    return _FORMULA.sub(mathml, page_html)
