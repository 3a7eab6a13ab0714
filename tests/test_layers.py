"""tools/check_layers.py: the tree obeys it, and it catches each kind of violation."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from conftest import ROOT

_spec = importlib.util.spec_from_file_location("check_layers", ROOT / "tools" / "check_layers.py")
assert _spec is not None
assert _spec.loader is not None
check_layers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_layers)


@pytest.mark.slow  # .ci/run layers asks the same of every change
def test_the_tree_obeys():
    assert check_layers.check_includes(ROOT) == []
    assert check_layers.check_imports(ROOT) == []


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("cpp/math/a.h", '#include "ops/ctf.h"', 'math may not include "ops/ctf.h"'),
        ("cpp/math/a.h", "#include <omp.h>", "standard library only"),
        ("cpp/ops/a.cpp", "#include <pybind11/numpy.h>", "know neither Python"),
        ("cpp/ops/a.cpp", "// first\n#include <fstream>", "a.cpp:2: ops may not include fstream"),
        ("cpp/ops/a.cpp", '#include "cuda/device.h"', 'ops may not include "cuda/device.h"'),
        ("cpp/bind/a.cpp", '#include "cuda/ctf.h"', "only cpp/bind/cuda"),
        ("cpp/bind/cuda/a.cpp", '#include "ops/ctf.h"', "one module per backend"),
        ("cuda/a.cu", '#include "ops/ctf.h"', 'cuda may not include "ops/ctf.h"'),
        ("cpp/loose.cpp", "", "lies in no layer"),
    ],
)
def test_includes_against_the_arrows_are_caught(tmp_path, name, text, words):
    put(tmp_path, name, text)
    problems = check_layers.check_includes(tmp_path)
    assert len(problems) == 1
    assert words in problems[0]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("ops/ctf.py", "from verglas.io.mrc import read", "ops may not import io"),
        ("reference/ctf.py", "from verglas import ops", "reference may not import ops"),
        ("reference/ctf.py", "import pandas", "reference may not import pandas"),
        ("simulate/a.py", "def f():\n    from verglas.io import mrc", "a.py:2: simulate may not import io"),
        ("simulate/a.py", "from ..io import mrc", "simulate may not import io"),
        ("refinement/a.py", "import importlib\nimportlib.import_module('verglas.run.job')", "may not import run"),
        ("assessment/a.py", "import mrcfile", "belongs to io"),
        ("geometry.py", "from verglas import Map", "from the module that holds it"),
        ("geometry.py", "import verglas as vg", "top-level namespace"),
        ("types.py", "import scipy.fft", "types may not import scipy"),
        ("cli/a.py", "from verglas.io import mrc", "cli may not import io"),
        ("run/a.py", "import matplotlib.pyplot", "belongs to report"),
        ("report/a.py", "from verglas.run import job", "report may not import run"),
        ("ops/a.py", "from verglas import _core_v3", "ops may not import _core"),
        ("unknown.py", "", "is in no layer"),
        ("simulate/__init__.py", "def f():\n    import verglas.run.simulate", "simulate may not import run"),
        ("simulate/a.py", "def __getattr__(n):\n    import verglas.run.simulate", "simulate may not import run"),
        ("__init__.py", "from verglas import ops", "may load only"),
    ],
)
def test_imports_against_the_arrows_are_caught(tmp_path, name, text, words):
    put(tmp_path, f"python/verglas/{name}", text)
    problems = check_layers.check_imports(tmp_path)
    assert len(problems) == 1
    assert words in problems[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ops/ctf.py", "from verglas._native import core\nimport numpy"),
        ("run/doctor.py", "from verglas.io import mrc\nfrom verglas import reference"),
        ("cli/app.py", "import typer, importlib\nimportlib.import_module(f'verglas.cli.{name}')"),
        ("__init__.py", "from verglas.types import Map\ndef f():\n    import verglas.ops"),
        ("simulate/__init__.py", "def __getattr__(n):\n    import verglas.run.simulate"),
        ("assessment/fsc.py", "from verglas.fourier import shells\nfrom .shells import x"),
    ],
)
def test_the_right_direction_passes(tmp_path, name, text):
    put(tmp_path, f"python/verglas/{name}", text)
    assert check_layers.check_imports(tmp_path) == []


def test_exit_status(tmp_path, capsys):
    put(tmp_path, "cpp/math/a.h", '#include "bind/arrays.h"')
    (tmp_path / "python/verglas").mkdir(parents=True)
    assert check_layers.main([str(tmp_path)]) == 1
    assert "cpp/math/a.h:1:" in capsys.readouterr().out
    (tmp_path / "cpp/math/a.h").write_text("#include <cmath>\n", encoding="utf-8")
    assert check_layers.main([str(tmp_path)]) == 0


def test_tests_do_not_import_each_other():
    """What two files of tests need stands in a module of its own beside them."""
    imports = re.compile(r"^\s*(?:from|import)\s+test_\w+", re.MULTILINE)
    guilty = [path.name for path in (ROOT / "tests").glob("*.py") if imports.search(path.read_text(encoding="utf-8"))]
    assert guilty == []
