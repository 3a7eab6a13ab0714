"""Commands and code on the pages are those of the package: options, names and keywords exist, links lead somewhere.

Nothing is run: that the functions do what the pages say is tested where they are, and docstrings run as doctests.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from verglas.cli import app as cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"])
if not (ROOT / "docs").is_dir():
    pytest.skip("not in the source tree", allow_module_level=True)

_BLOCK = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```", re.M | re.S)
_INLINE = re.compile(r"`(verglas [^`]+)`")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    return [m["body"] for m in _BLOCK.finditer(page.read_text(encoding="utf-8")) if m["language"] in languages]


def commands(page: Path) -> list[list[str]]:
    """Words after ``verglas`` of every command on a page: in blocks, and whole ones in the text."""
    found = []
    for body in blocks(page, "", "bash", "sh", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            parts = [part.strip() for part in line.split("&&")]
            found += [shlex.split(p, comments=True)[1:] for p in parts if re.match(r"verglas\s", p)]
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for text in _INLINE.findall(prose):
        if "…" not in text and "..." not in text:
            found.append(shlex.split(text.replace("\n", " "))[1:])
    return found


@pytest.fixture(scope="module")
def line() -> dict[str, Any]:
    """Commands of the command line by name."""
    return dict(cli._program([]).commands)


def refusal(line: dict[str, Any], words: list[str]) -> str:
    """Why the command line does not take these words; empty where it does. Files need not exist here."""
    if words[0] in ("--help", "--version"):
        return ""
    if words[0] not in line:
        return f"no command {words[0]!r}"
    try:
        line[words[0]].make_context(words[0], list(words[1:]))
    except Exception as error:  # of click, or of the copy that newer typers bring along
        if type(error).__name__ == "Exit":  # --help
            return ""
        if not hasattr(error, "format_message"):
            raise
        message = str(error.format_message())
        return "" if "does not exist" in message else message or type(error).__name__
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_those_of_the_command_line(page, line):
    # A lone `verglas refine` in a sentence only names the command: its arguments are not checked.
    found = [(words, refusal(line, words)) for words in commands(page) if words]
    bad = [
        f"verglas {shlex.join(w)}: {why}" for w, why in found if why and (len(w) > 1 or why.startswith("no command"))
    ]
    assert not bad, "\n".join(bad)


def test_an_option_that_is_not_there_is_seen(line):
    assert "No such option" in refusal(line, ["fsc", "a.mrc", "b.mrc", "--colour", "red"])
    assert "no command" in refusal(line, ["refin", "a.star"])


def resolve(dotted: list[str], names: dict[str, Any]) -> Any:
    value = names[dotted[0]]
    for part in dotted[1:]:
        value = getattr(value, part)
    return value


def dotted_name(node: ast.expr) -> list[str] | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else None


def imported(tree: ast.AST) -> dict[str, Any]:
    """Objects of verglas that the code imports; ``vg`` always, as on the pages that import it once."""
    names: dict[str, Any] = {"vg": importlib.import_module("verglas")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                if a.name.split(".")[0] == "verglas":
                    names[a.asname or "verglas"] = importlib.import_module(a.name if a.asname else "verglas")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "verglas":
            module = importlib.import_module(node.module)
            for a in node.names:
                if not hasattr(module, a.name):
                    importlib.import_module(f"{node.module}.{a.name}")
                names[a.asname or a.name] = getattr(module, a.name)
    return names


def misuse(code: str) -> list[str]:
    """Names of verglas that are not there, and arguments that its functions do not take."""
    tree = ast.parse(code)
    names = imported(tree)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) and not isinstance(node, ast.Attribute):
            continue
        target = node.func if isinstance(node, ast.Call) else node
        dotted = dotted_name(target)
        if dotted is None or dotted[0] not in names:
            continue
        try:
            value = resolve(dotted, names)
        except AttributeError as error:
            found.append(f"{'.'.join(dotted)}: {error}")
            continue
        plain = isinstance(node, ast.Call) and not any(isinstance(a, ast.Starred) for a in node.args)
        if plain and callable(value) and all(k.arg for k in node.keywords):
            try:
                inspect.signature(value).bind(*node.args, **{str(k.arg): None for k in node.keywords})
            except TypeError as error:
                found.append(f"{'.'.join(dotted)}: {error}")
    return found


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_on_a_page_uses_what_is_there(page):
    assert [fault for code in blocks(page, "python") for fault in misuse(code)] == []


def test_a_keyword_that_is_not_there_is_seen():
    assert misuse("vg.fsc(a, b, colour=1)")
    assert misuse("vg.nothing(a)")
    assert not misuse("vg.fsc(a, b, mask=None)")


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == ROOT], ids=name_of)
def test_links_and_pictures_of_pages_outside_the_site_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not gone
