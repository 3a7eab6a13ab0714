"""Documentation build: each notebook is run from the first cell to the last, and becomes a page with what it showed.

A notebook that raises, writes to stderr (a warning) or shows a picture without a description stops the build: what the
site shows is what the package does. Nothing is kept from build to build. Cells go through the same Markdown as every
other page, so formulas are MathML and links are checked; the notebook itself, without output, lies beside its page.
"""

from __future__ import annotations

import base64
import logging
import re
import time
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

_LOG = logging.getLogger("mkdocs.plugins.notebooks")
_CELL_SECONDS = 300
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Run every ``notebooks/*.ipynb`` and add its page and pictures."""
    for source in sorted(f.src_uri for f in files if f.src_uri.endswith(".ipynb")):
        began = time.perf_counter()
        path = Path(config.docs_dir, source)
        stem = source.removesuffix(".ipynb")
        page, pictures = to_markdown(run(path), Path(stem).name, source)
        files.append(File.generated(config, f"{stem}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"{stem}_{name}", content=content))
        _LOG.info("%s: ran in %.1f s", source, time.perf_counter() - began)
    return files


def run(path: Path) -> Any:
    """The notebook at ``path`` with the outputs of a fresh kernel of this interpreter."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=_CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # else each kernel tells the builder that it listens on localhost
    )
    try:
        return client.execute()
    except CellExecutionError as error:
        raise PluginError(f"{path.name}: a cell raised\n{_ANSI.sub('', str(error))}") from error


def to_markdown(notebook: Any, stem: str, source: str) -> tuple[str, dict[str, bytes]]:
    """A page, and its pictures by name, of a notebook that was run."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(notebook.cells):
        text = cell.source.strip("\n")
        if cell.cell_type == "markdown":
            parts.append(text)
            if number == 0:
                name = Path(source).name
                parts.append(
                    f"[Download this notebook]({name}){{download={name}}} and run it: "
                    "`pip install jupyterlab`, then `jupyter lab`."
                )
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell.outputs:
            parts.append(_output(output, cell, stem, pictures, f"{source}, cell {number + 1}"))
    return "\n\n".join(part for part in parts if part) + "\n", pictures


def _output(output: Any, cell: Any, stem: str, pictures: dict[str, bytes], where: str) -> str:
    if output.output_type == "stream":
        if output.name == "stderr":
            raise PluginError(f"{where} wrote to stderr; mend what it warns of:\n{_ANSI.sub('', output.text)}")
        return _text(output.text)
    data = output.get("data", {})
    if "image/png" in data:
        alt = cell.metadata.get("alt")
        if not alt:
            raise PluginError(f"{where} shows a picture: say what it shows, in the cell's metadata, as 'alt'")
        name = f"{len(pictures) + 1}.png"
        pictures[name] = base64.b64decode(data["image/png"])
        return f"![{alt}]({stem}_{name})"
    if "text/markdown" in data:
        return str(data["text/markdown"])
    return _text(data["text/plain"])


def _text(text: str) -> str:
    return f"```{{ .text .output }}\n{text.rstrip()}\n```"
