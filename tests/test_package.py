"""The package as a whole: one version, quick import, the choice of a core, what a wheel holds, how CI counts."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml
from processor_time import ProcessorTime

import verglas as vg
from verglas import _native

from conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def tool(name: str) -> types.ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_one_version():
    stated = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert vg.__version__ == stated[1] == _native.core.version
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", vg.__version__)


def test_import_is_light():
    heavy = ["scipy.ndimage", "matplotlib", "pandas", "mrcfile", "tifffile", "sklearn", "gemmi", "typer"]
    done = run(f"import sys, verglas; print([m for m in {heavy} if m in sys.modules and m != 'pandas'])")
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves_and_is_listed():
    for name in vg.__all__:
        assert getattr(vg, name) is not None
    assert set(dir(vg)) == set(vg.__all__)
    assert set(vg._LAZY) | set(vg._SUBMODULES) <= set(vg.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vg.nonsense


def test_the_best_usable_core_is_chosen(monkeypatch):
    monkeypatch.delenv("VERGLAS_ISA", raising=False)
    assert _native._load_core().isa == _native.usable_levels()[-1]


@pytest.mark.parametrize(
    ("installed", "level", "usable"),
    [
        (["v2", "v3", "v4"], 4, ["v2", "v3", "v4"]),
        (["v2", "v3", "v4"], 3, ["v2", "v3"]),
        (["v2", "v3", "v4"], 1, []),
        (["v2", "native"], 3, ["v2", "native"]),
        (["v4"], 4, ["v4"]),  # an installation from source: the level of the processor it was built on
        (["generic"], 0, ["generic"]),
    ],
)
def test_which_levels_a_processor_can_use(monkeypatch, installed, level, usable):
    monkeypatch.setattr(_native, "available_levels", lambda: installed)
    monkeypatch.setattr(_native, "processor_level", lambda: level)
    assert _native.usable_levels() == usable


def test_no_core_for_this_processor(monkeypatch):
    monkeypatch.setattr(_native, "available_levels", lambda: ["v3"])
    monkeypatch.setattr(_native, "processor_level", lambda: 1)
    monkeypatch.delenv("VERGLAS_ISA", raising=False)
    with pytest.raises(ImportError, match=r"level 1\); installed: v3.*from source"):
        _native._load_core()


@pytest.mark.parametrize("level", _native.usable_levels())
def test_VERGLAS_ISA_overrides_the_choice(level):
    done = run("import verglas as vg; print(vg.info()['isa'], vg.info()['isa_override'])", VERGLAS_ISA=level)
    assert done.stdout.split() == [level, level]


def test_VERGLAS_ISA_that_cannot_be():
    done = run("import verglas.ops", VERGLAS_ISA="v9")
    assert done.returncode != 0
    assert "VERGLAS_ISA=v9: this installation on this processor offers" in done.stderr


def test_the_module_is_the_command():
    """Both in one other process: what comes out, and the status of a call that cannot be."""
    done = subprocess.run([sys.executable, "-m", "verglas", "no-such-command"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "No such command 'no-such-command'" in done.stderr


def test_threads_follow_the_affinity_mask():
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor, or no affinity mask")
    narrow = (
        "import os; os.environ.pop('OMP_NUM_THREADS', None); os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])"
    )
    done = run(f"{narrow}\nimport verglas\nprint(verglas.info()['threads'])")
    assert done.stdout.strip() == "1"


def good_wheel() -> set[str]:
    check = tool("check_wheel")
    modules = {f"verglas/{m}.cpython-311-x86_64-linux-gnu.so" for m in ("_cpu", "_core_v2", "_core_v3", "_core_v4")}
    return check.python_files(ROOT) | modules | {f"verglas-1.dist-info/{name}" for name in check.DIST_INFO}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda names: names, None),
        (lambda names: names | {"verglas/_cuda.abi3.so"}, None),
        (lambda names: names - {"verglas/py.typed"}, "missing: verglas/py.typed"),
        (lambda names: {n for n in names if "_core_v3" not in n}, "missing: compiled module _core_v3"),
        (lambda names: names - {"verglas-1.dist-info/licenses/LICENSE"}, "missing: dist-info/licenses/LICENSE"),
        (lambda names: names | {"verglas/_core_native.so"}, "unexpected: compiled module _core_native"),
        (lambda names: names | {"tests/conftest.py"}, "unexpected: tests/conftest.py"),
        (lambda names: names | {"verglas/ops/ctf.cpp"}, "unexpected: verglas/ops/ctf.cpp"),
    ],
)
def test_wheel_check_sees_what_is_missing_or_too_much(change, words):
    check = tool("check_wheel")
    found = check.problems(change(good_wheel()), check.python_files(ROOT), {"v2", "v3", "v4"}, "any")
    assert found == ([] if words is None else [words])


def test_wheel_check_knows_every_file_of_the_package():
    package = ROOT / "python" / "verglas"
    files = {p for p in package.rglob("*") if p.is_file() and p.suffix not in {".so", ".pyc"}}
    names = {p.relative_to(package.parent).as_posix() for p in files}
    assert names == tool("check_wheel").python_files(ROOT), "a kind of file that tools/check_wheel.py does not expect"


def test_wheel_check_of_cuda():
    check = tool("check_wheel")
    expected, levels = check.python_files(ROOT), {"v2", "v3", "v4"}
    assert check.problems(good_wheel(), expected, levels, "yes") == ["missing: compiled module _cuda"]
    with_cuda = good_wheel() | {"verglas/_cuda.so"}
    assert check.problems(with_cuda, expected, levels, "no") == ["unexpected: compiled module _cuda"]


def test_workflows_run_what_is_here(tmp_path):
    check = tool("check_workflows")
    assert check.problems(ROOT) == []
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "a.yml").write_text("jobs: {a: {steps: [{run: python tools/missing.py}]}}")
    (folder / "b.yml").write_text("jobs: [")
    found = check.problems(tmp_path)
    assert "tools/missing.py" in found[0]
    assert "b.yml" in found[1]


def test_wheels_are_built_for_the_stated_pythons():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.10"' in text
    assert 'build = "cp310-* cp311-* cp312-* cp313-*"' in text
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["linux"]["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12", "3.13"]


CMAKE_QUESTIONS = """\
cmake_minimum_required(VERSION 3.22)
project(probe LANGUAGES CXX)
include(VerglasIsa)
include(VerglasCuda)
verglas_isa_levels(levels)
foreach(level IN LISTS levels)
  verglas_isa_flags(${level} flags)
endforeach()
verglas_cuda_wanted(wanted)
"""


def configured(tmp_path: Path, **defines: str) -> str:
    """What CMake says of the levels and of the CUDA module with these settings; nothing is compiled but its probes."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake (pip install cmake)")
    for folder in ("cmake", "cpp"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE_QUESTIONS)
    values = {"CMAKE_MODULE_PATH": str(ROOT / "cmake"), **defines}
    command = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), *(f"-D{k}={v}" for k, v in values.items())]
    done = subprocess.run(command, capture_output=True, text=True)
    return " ".join((done.stdout + done.stderr).split())


X86 = platform.machine().lower() in {"x86_64", "amd64"}


@pytest.mark.parametrize(
    ("asked", "built"),
    [
        ("host", f"v{_native.processor_level()}" if X86 else "generic"),
        ("all", "v2, v3, v4" if X86 else "generic"),
        ("v2;native", "v2, native"),
    ],
)
def test_levels_that_a_build_makes(tmp_path, asked, built):
    said = configured(tmp_path, VERGLAS_ISA_LEVELS=asked, VERGLAS_CUDA="OFF")
    assert f"instruction-set levels {built} (VERGLAS_ISA_LEVELS={asked})" in said


def test_a_level_that_is_none(tmp_path):
    said = configured(tmp_path, VERGLAS_ISA_LEVELS="v9", VERGLAS_CUDA="OFF")
    assert "unknown level 'v9'; expected host, all" in said


def test_nvcc_alone_builds_no_cuda_module(tmp_path):
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a GPU")
    assert "CUDA module: no (no GPU on this machine" in configured(
        tmp_path, VERGLAS_ISA_LEVELS="generic", VERGLAS_CUDA="AUTO"
    )


def test_a_wish_for_cuda_that_is_none(tmp_path):
    said = configured(tmp_path, VERGLAS_ISA_LEVELS="generic", VERGLAS_CUDA="yes")
    assert "VERGLAS_CUDA=yes: expected AUTO, ON or OFF" in said


def test_wheels_hold_every_level():
    wheels = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]["config-settings"]
    assert wheels["cmake.define.VERGLAS_ISA_LEVELS"] == "all"
    for name in ("Dockerfile", "verglas.def", "conda/recipe.yaml"):
        assert "cmake.define.VERGLAS_ISA_LEVELS=all" in (ROOT / "recipes" / name).read_text()


def test_citation_and_conda_recipe_say_what_the_project_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    recipe = yaml.safe_load((ROOT / "recipes" / "conda" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == project["version"]
    python, *packages = (requirement.replace(" ", "") for requirement in recipe["requirements"]["run"])
    assert python == f"python{project['requires-python']}"
    conda_names = [name.replace("matplotlib>", "matplotlib-base>") for name in project["dependencies"]]
    assert packages == conda_names, "recipes/conda/recipe.yaml lists the dependencies of pyproject.toml"


def test_readme_has_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```\n(.+)\n```$", readme, re.M)
    assert commands == ["pip install . && verglas demo", "pip install '.[test]' && pytest"]
    pictures = re.findall(r"!\[(.+?)\]\((.+?)\)", readme)
    assert pictures
    assert all((ROOT / path).is_file() for _, path in pictures)


@pytest.mark.parametrize(("folder", "mark"), [("cpp/bind", "VG_CPU"), ("cpp/bind/cuda", "VG_CUDA")])
def test_every_binding_is_in_the_list_of_ops(folder, mark):
    listed = set(re.findall(rf"^(?!#).*?\b{mark}\((\w+)\)", (ROOT / "cpp/bind/ops.inc").read_text(), re.M)) - {"op"}
    assert {p.stem.removeprefix("bind_") for p in (ROOT / folder).glob("bind_*.cpp")} == listed


def test_every_benchmark_is_listed():
    listed = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    scripts = {p.name for pattern in ("bench_*.py", "compare_*.py") for p in (ROOT / "bench").glob(pattern)}
    missing = sorted(name for name in scripts if f"bench/{name}" not in listed)
    assert missing == [], "add a row to bench/README.md: the command, what it measures, what it writes"


def test_what_tests_cost_is_told_beside_the_budget(tmp_path: Path):
    tests = tool("slowest_tests")
    case = '<testcase classname="a" name="{}" time="{}">{}</testcase>'
    told = '<properties><property name="processor_s" value="{}"/></properties>'
    cases = [
        case.format("cheap", 9, told.format(0.5)),
        case.format("dear", 1, told.format(2.5)),
        case.format("wall", 1, ""),
    ]
    (tmp_path / "a.xml").write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    rows = tests.costs(tmp_path / "a.xml")
    assert rows == [(2.5, "a::dear"), (1.0, "a::wall"), (0.5, "a::cheap")]
    assert tests.lines(rows, 5)[0] == "3 tests took 4 s of processor of 5 s; the slowest:"
    assert "OVER THE BUDGET" in tests.lines(rows, 3)[0]


def test_every_test_tells_its_processor_time(request):
    assert any(isinstance(plugin, ProcessorTime) for plugin in request.config.pluginmanager.get_plugins())


def test_counting_of_junit_files(tmp_path: Path):
    count = tool("count_tests").count
    suite = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'
    (tmp_path / "a.xml").write_text(suite.format(5, 1, 1, 1))
    (tmp_path / "b.xml").write_text(suite.format(2, 0, 0, 0))
    assert count([tmp_path / "a.xml", tmp_path / "b.xml", tmp_path / "missing.xml"]) == (4, 2, 1)


@pytest.mark.parametrize(("named", "expected"), [("1", 1), (" 1,2", 1), ("0", 3), ("many", 3), ("64", 3), (None, 3)])
def test_threads_by_default_are_the_processors_or_fewer_by_openmp_s_variable(monkeypatch, named, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if named is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", named)
    assert _native.default_threads() == expected
    assert _native.resolve_threads(None) == expected
    assert _native.resolve_threads(5) == 5  # what is asked for is done
