"""Fixtures: the device a test body runs on, and where the real data lie."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import worker_threads  # noqa: F401  first: its import sets the environment that the next one reads
from hypothesis import HealthCheck, settings
from processor_time import ProcessorTime
from short_refinements import without_verdict

from blank_figures import RepeatedFigures, drawn_once, left_blank
from devices import DEVICES, open_device

# In CI the drawn examples are a function of the test: a red run is red again, and a green one is not luck. Elsewhere
# they are drawn anew, so every run of a developer searches further.
# The fixture `device` is the same for every example of a test, so one set-up for all of them is right.
shared = [HealthCheck.function_scoped_fixture]
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=shared)
settings.register_profile("developer", suppress_health_check=shared)
settings.load_profile("developer")
if os.environ.get("CI"):
    settings.load_profile("ci")

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Doctests of the package lie outside this folder: registered plugins see them, too."""
    config.pluginmanager.register(ProcessorTime())
    config.pluginmanager.register(RepeatedFigures())


def pytest_collectstart() -> None:
    """What is collected lives to the end: looking through it for garbage took a tenth of the time of tests."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From now on garbage is looked for among what tests make."""
    gc.freeze()
    gc.enable()


# Examples of docstrings that are whole jobs: a test of each job runs the same lines among the fast ones.
SLOW_EXAMPLES = {
    "verglas.heterogeneity.evidence.heterogeneity_test",
    "verglas.initial_model.find.find_initial_model",
    "verglas.pipeline.job.process",
    "verglas.run.abinitio.abinitio",
    "verglas.run.class3d.classify3d",
    "verglas.run.ctf_refine.refine_ctf",
    "verglas.run.demo.demo",
    "verglas.run.multibody.multibody",
    "verglas.run.refine.refine",
    "verglas.run.sieve.sieve",
}


@pytest.hookimpl(tryfirst=True)  # before -m "not slow" looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Statistics that the CPU gathers quickly are gathered again by the kernels on the host in the slow suite."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.name in SLOW_EXAMPLES:
            item.add_marker(pytest.mark.slow)
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if item.get_closest_marker("slow_emulated") and parameters.get("device") == "emulated":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every device the same test body runs on, as ops take it: the CPU, the CUDA kernels on the host, a GPU.

    What cannot be had skips; without a GPU, VERGLAS_REQUIRE_CUDA=1 fails. ``devices.host`` brings results back.
    """
    return open_device(request.param, monkeypatch)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """Runs the command line in this process; gives (exit status, standard output, standard error)."""
    from verglas.cli import main

    def call(*arguments: object) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        streams = capsys.readouterr()
        return stop.value.code, streams.out, streams.err

    return call


@pytest.fixture(scope="module", autouse=True)
def repeated_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draws one figure of each kind; see blank_figures.py."""
    if request.node.get_closest_marker("drawn"):
        yield
    else:
        yield from drawn_once()


blank_figures = pytest.fixture(left_blank, name="blank_figures")
no_verdict_of_module = pytest.fixture(without_verdict, scope="module", name="no_verdict_of_module")
blank_figures_of_module = pytest.fixture(left_blank, scope="module", name="blank_figures_of_module")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real and exact data; absent skips, unless VERGLAS_REQUIRE_DATA=1."""
    if not DATA.is_dir():
        if os.environ.get("VERGLAS_REQUIRE_DATA") == "1":
            pytest.fail(f"{DATA} is required (VERGLAS_REQUIRE_DATA=1)")
        pytest.skip(f"no data at {DATA}")
    return DATA
