"""Notebooks are valid, without output and on the site; the build runs them and stops where one fails."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "tools").is_dir() or not (ROOT / "docs").is_dir():
    pytest.skip("not in the source tree", allow_module_level=True)


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check = load("tools/check_notebooks.py")


def notebook(*sources: str, **changes: object) -> dict:
    """A title and code cells."""
    code = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "execution_count": None, "outputs": []}
        for i, s in enumerate(sources)
    ]
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A title"}
    return {"cells": [title, *code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **changes}


@pytest.fixture
def tree(tmp_path):
    """A source tree with one good notebook."""
    (tmp_path / "docs" / "notebooks").mkdir(parents=True)
    (tmp_path / "mkdocs.yml").write_text("nav:\n  - notebooks/a.md\n")
    (tmp_path / "docs" / "notebooks" / "a.ipynb").write_text(check.to_text(check.strip_output(notebook("1 + 1"))))
    return tmp_path


def test_the_notebooks_of_the_site_are_as_they_should_be():
    assert check.problems(ROOT) == []
    names = {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    lessons = "fourier alignment ctf aberrations bias pca reconstruction likelihood motion polishing local_resolution"
    lessons += " classes variability bodies deformation solvers priors tilt_pairs fsc map_and_model"
    assert names == {*lessons.split()}


def test_every_notebook_checks_its_claims_and_uses_public_names_only():
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        assert code.count("assert ") >= 6, path.name
        assert "._" not in code, path.name
        assert "sys.path" not in code, path.name


def test_the_docs_step_of_the_script_runs_them():
    script = (ROOT / ".ci" / "run").read_text()
    assert "mkdocs build --strict" in script
    assert "tools/check_notebooks.py" in script
    assert "docs/notebook_pages.py" in (ROOT / "mkdocs.yml").read_text()


def test_a_good_notebook_passes(tree):
    assert check.problems(tree) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n["cells"][1].update(outputs=[{"output_type": "stream", "name": "stdout", "text": "2"}]), "output"),
        (lambda n: n["cells"][1].update(execution_count=3), "output or a count"),
        (lambda n: n["cells"][1].update(id="title"), "taken"),
        (lambda n: n["cells"][1].update(source=[" "]), "empty"),
        (lambda n: n["cells"][0].update(source=["no title"]), "no title"),
        (lambda n: n["metadata"].update(kernel="mine"), "spelling"),
        (lambda n: n.update(nbformat_minor=2), "nbformat"),
    ],
)
def test_a_fault_is_named(tree, change, message):
    path = tree / "docs" / "notebooks" / "a.ipynb"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(check.to_text(content))
    found = check.problems(tree)
    assert len(found) == 1
    assert message in found[0]
    assert "docs/notebooks/a.ipynb" in found[0]


def test_notebooks_and_nav_go_together(tree):
    (tree / "mkdocs.yml").write_text("nav:\n  - notebooks/b.md\n")
    found = check.problems(tree)
    assert len(found) == 2
    assert "not in the nav" in found[0]
    assert "has no notebook" in found[1]


def test_mending_takes_out_what_running_left():
    ran = notebook("print(1)", metadata={"widgets": {}})
    ran["cells"][1].update(execution_count=1, outputs=[{"output_type": "stream", "name": "stdout", "text": "1\n"}])
    ran["cells"][1]["metadata"] = {"alt": "a picture", "execution": {"shell.execute_reply": "now"}}
    clean = check.strip_output(ran)
    assert clean["cells"][1]["outputs"] == []
    assert clean["cells"][1]["execution_count"] is None
    assert clean["cells"][1]["metadata"] == {"alt": "a picture"}
    assert "widgets" not in clean["metadata"]


@pytest.fixture
def pages():
    """The hook of the documentation build, where its libraries are installed (extra ``docs``)."""
    for name in ("mkdocs", "nbclient", "ipykernel"):
        pytest.importorskip(name, reason="the documentation's libraries are not installed")
    return load("docs/notebook_pages.py")


PICTURE = (
    "%matplotlib inline\nimport matplotlib.pyplot as plt\nprint(6 * 7)\nplt.figure(figsize=(1, 1)); plt.plot([0, 1]);"
)


def test_a_page_holds_text_code_output_and_picture(pages, tmp_path):
    content = notebook(PICTURE)
    content["cells"][1]["metadata"] = {"alt": "a line"}
    (tmp_path / "n.ipynb").write_text(json.dumps(content))
    page, pictures = pages.to_markdown(pages.run(tmp_path / "n.ipynb"), "n", "notebooks/n.ipynb")
    assert page.startswith("# A title")
    assert "(n.ipynb)" in page
    assert "print(6 * 7)" in page
    assert "42" in page
    assert "![a line](n_1.png)" in page
    assert pictures["1.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("assert 1 + 1 == 3, 'sums'", "AssertionError: sums"),
        pytest.param("import warnings; warnings.warn('careful')", "careful", marks=pytest.mark.slow),
        pytest.param(PICTURE, "alt", marks=pytest.mark.slow),
    ],
)
def test_a_notebook_that_fails_stops_the_build(pages, tmp_path, source, message):
    from mkdocs.exceptions import PluginError

    (tmp_path / "n.ipynb").write_text(json.dumps(notebook(source)))
    with pytest.raises(PluginError, match=r"n\.ipynb(.|\n)*" + message):
        pages.to_markdown(pages.run(tmp_path / "n.ipynb"), "n", "n.ipynb")


# Requirement -> the notebook that demonstrates it, and the assertion that holds it there (run by the docs build).
ROWS = {
    "averages: slope 0.5": ("fourier", "assert abs(slope - 0.5) < 0.02"),
    "unaligned copies blur": ("fourier", "assert cc(blurred, truth) < 0.3"),
    "soft edges": ("fourier", 'assert ringing["as wide as the band"] < 0.01'),
    "interpolation": ("fourier", 'assert np.allclose(kept["linear"], expected, atol=1e-4)'),
    "central section": ("reconstruction", "assert error < 5e-3"),
    "Einstein from noise": ("bias", "assert np.all(np.diff(cc) > 0)"),
    "two phases": ("alignment", "assert cc[2] > cc[1] > cc[0]"),
    "alternating": ("alignment", 'assert right["alternating, both orders"][k] >= single'),
    "centres": ("alignment", "    <= 3\n    < min(error["),
    "eigenimages": ("pca", "assert np.abs(angles - predicted).max() < 3"),
    "correspondence": ("pca", "chi2_distance"),
    "reconstituted": ("pca", "assert np.all(np.diff(to_recorded) < 1e-9)"),
    "clusters": ("pca", "assert min(score.values()) >= 0.9"),
    "a trapped refinement": ("likelihood", "assert objectives[bad][-1] > objectives[good][-1] + 0.01"),
    "common lines": ("reconstruction", "assert np.abs(off).max() < 3"),
}


@pytest.mark.parametrize("row", ROWS)
def test_requirements_that_notebooks_demonstrate_are_asserted_there(row):
    name, claim = ROWS[row]
    cells = json.loads((ROOT / "docs" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    assert any(claim in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.slow  # two builds of a site; the documentation itself is built in CI
def test_the_build_itself_fails_with_a_notebook(pages, tmp_path):
    (tmp_path / "docs" / "notebooks").mkdir(parents=True)
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[notebook](notebooks/a.md)\n")
    hook = (ROOT / "docs" / "notebook_pages.py").as_posix()
    (tmp_path / "mkdocs.yml").write_text(f"site_name: s\nhooks: [{hook}]\nnav: [index.md, notebooks/a.md]\n")

    def build(source: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "docs" / "notebooks" / "a.ipynb").write_text(json.dumps(notebook(source)))
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", "site"]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)

    good = build("print(6 * 7)")
    assert good.returncode == 0, good.stderr
    assert "42" in (tmp_path / "site" / "notebooks" / "a" / "index.html").read_text()
    assert (tmp_path / "site" / "notebooks" / "a.ipynb").is_file()
    bad = build("assert 6 * 7 == 41, 'not so'")
    assert bad.returncode != 0
    assert "not so" in bad.stderr
