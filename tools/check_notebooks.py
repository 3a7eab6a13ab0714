"""Notebooks as they are kept in git: valid, without output, in one spelling, and on the site.

``python tools/check_notebooks.py`` prints one line per fault and exits with status 1 if there is one; ``--fix`` takes
out outputs and counts and writes the file in its one spelling. Only the standard library is needed; that the code runs
is checked where the site is built, and ``ruff`` sees the code cells.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("docs", "notebooks")
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def strip_output(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook without what running it left: outputs, counts, the editor's metadata."""
    cells = []
    for cell in notebook["cells"]:
        text = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        kept: dict[str, Any] = {
            "cell_type": cell["cell_type"],
            "id": cell["id"],
            "metadata": {k: v for k, v in cell["metadata"].items() if k == "alt"},
            "source": text.strip("\n").splitlines(keepends=True),
        }
        if cell["cell_type"] == "code":
            kept |= {"execution_count": None, "outputs": []}
        cells.append(kept)
    return {"cells": cells, "metadata": _METADATA, "nbformat": 4, "nbformat_minor": 5}


def to_text(notebook: dict[str, Any]) -> str:
    """The one text of a notebook."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _cell_faults(cells: list[dict[str, Any]], where: str) -> list[str]:
    found: list[str] = []
    seen: set[str] = set()
    for number, cell in enumerate(cells, start=1):
        here = f"{where}: cell {number}"
        if cell.get("cell_type") not in ("code", "markdown") or "source" not in cell or "metadata" not in cell:
            found.append(f"{here}: expected a code or markdown cell with source and metadata")
            continue
        name = cell.get("id", "")
        if not _ID.fullmatch(name) or name in seen:
            found.append(f"{here}: id {name!r} is missing, not valid or taken")
        seen.add(name)
        if cell.get("outputs") or cell.get("execution_count") is not None:
            found.append(f"{here} has output or a count; run {Path(__file__).name} --fix")
        if not "".join(cell["source"]).strip():
            found.append(f"{here} is empty")
    return found


def faults(path: Path, where: str) -> list[str]:
    """One sentence per fault of a notebook file."""
    text = path.read_text(encoding="utf-8")
    try:
        notebook = json.loads(text)
    except json.JSONDecodeError as error:
        return [f"{where}: not JSON: {error}"]
    if notebook.get("nbformat") != 4 or notebook.get("nbformat_minor", 0) < 5 or not notebook.get("cells"):
        return [f"{where}: expected cells in nbformat 4.5 or later; save it with a current Jupyter"]
    found = _cell_faults(notebook["cells"], where)
    if found:
        return found
    if not "".join(notebook["cells"][0]["source"]).startswith("# "):
        found.append(f"{where}: the first cell has no title (# ...)")
    if text != to_text(strip_output(notebook)):
        found.append(f"{where}: not in the one spelling; run {Path(__file__).name} --fix")
    return found


def problems(root: Path) -> list[str]:
    """Faults of all notebooks under ``root``, and those that mkdocs.yml does not list."""
    paths = sorted((root / FOLDER).glob("*.ipynb"))
    listed = re.findall(r"- (notebooks/[\w-]+\.md)\s*$", (root / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    found = [] if paths else [f"{FOLDER.as_posix()}: no notebooks"]
    for path in paths:
        where = path.relative_to(root).as_posix()
        found += faults(path, where)
        if f"notebooks/{path.stem}.md" not in listed:
            found.append(f"{where}: not in the nav of mkdocs.yml, as notebooks/{path.stem}.md")
    here = {f"notebooks/{path.stem}.md" for path in paths}
    pages = {f"notebooks/{path.name}" for path in (root / FOLDER).glob("*.md")}
    return found + [f"mkdocs.yml: {page} has no notebook" for page in listed if page not in here | pages]


def main() -> int:
    """Check, or mend, the notebooks of the tree this script lies in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fix", action="store_true", help="take out outputs and write the one spelling")
    if parser.parse_args().fix:
        for path in sorted((ROOT / FOLDER).glob("*.ipynb")):
            path.write_text(to_text(strip_output(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    found = problems(ROOT)
    print("\n".join(found) if found else "notebooks: valid, without output, on the site")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
