"""The devices that test bodies run on: the CPU, a GPU, and the CUDA kernels on the host where there is none."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import verglas as vg
from verglas import _native

import emulated_cupy

DEVICES = ("cpu", "emulated", "cuda:0")


@cache
def emulated_kernels() -> ModuleType | None:
    """The kernels compiled for the host: those VERGLAS_CUDA_EMULATED names, or what a developer build put here."""
    named = os.environ.get("VERGLAS_CUDA_EMULATED")
    if named is None:
        spec = importlib.util.find_spec("verglas._cuda_emulated")
    else:
        files = sorted(Path(named).rglob("_cuda_emulated*.so")) if Path(named).is_dir() else [Path(named)]
        spec = importlib.util.spec_from_file_location("_cuda_emulated", files[0]) if files else None
        if spec is None or not files[0].is_file():
            raise FileNotFoundError(f"VERGLAS_CUDA_EMULATED={named}: no module _cuda_emulated there")
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on "cuda:0" and "cuda:1" are the kernels on the host."""
    kernels = emulated_kernels()
    if kernels is None:
        pytest.skip("built without VERGLAS_CUDA_EMULATE")
    monkeypatch.setattr(_native, "load_cuda", lambda: kernels)
    monkeypatch.setattr(_native, "cuda_built", lambda: True)
    for name, module in emulated_cupy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


def open_device(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device as ops take it; what cannot be had skips, unless VERGLAS_REQUIRE_CUDA=1 wants a GPU."""
    if name == "emulated":
        emulate(monkeypatch)
        return "cuda:0"
    if name not in vg.devices():
        if os.environ.get("VERGLAS_REQUIRE_CUDA") == "1":
            pytest.fail(f"{name} is required (VERGLAS_REQUIRE_CUDA=1); devices: {vg.devices()}")
        pytest.skip(f"no {name}")
    return name


def host(value: Any) -> Any:
    """Arrays of any device as NumPy arrays; tuples, lists, dictionaries and dataclasses member by member."""
    if hasattr(value, "__cuda_array_interface__"):
        return value.get()
    if isinstance(value, tuple | list):
        parts = [host(v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: host(v) for key, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: host(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **changes)
    return value


def on(device: str, value: Any, dtype: Any = None) -> Any:
    """An array on the device: what a caller that keeps its data there passes."""
    if device == "cpu":
        return np.ascontiguousarray(value, dtype)
    from verglas._cuda_arrays import session

    cuda = session(device)
    with cuda.active():
        return cuda.cupy.asarray(np.ascontiguousarray(value, dtype))
