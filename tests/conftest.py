"""Fixtures: the device a test body runs on, and where the real data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

import verglas as vg

# In CI the drawn examples are a function of the test: a red run is red again, and a green one is not luck. Elsewhere
# they are drawn anew, so every run of a developer searches further.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(params=["cpu", "cuda:0"])
def device(request: pytest.FixtureRequest) -> str:
    """Every device the same test body runs on; no GPU skips, unless VERGLAS_REQUIRE_CUDA=1."""
    if request.param not in vg.devices():
        if os.environ.get("VERGLAS_REQUIRE_CUDA") == "1":
            pytest.fail(f"{request.param} is required (VERGLAS_REQUIRE_CUDA=1); devices: {vg.devices()}")
        pytest.skip(f"no {request.param}")
    return request.param


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real and exact data; absent skips, unless VERGLAS_REQUIRE_DATA=1."""
    if not DATA.is_dir():
        if os.environ.get("VERGLAS_REQUIRE_DATA") == "1":
            pytest.fail(f"{DATA} is required (VERGLAS_REQUIRE_DATA=1)")
        pytest.skip(f"no data at {DATA}")
    return DATA
