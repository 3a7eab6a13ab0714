"""The CUDA module on a machine without a GPU: what it holds, how it says no."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import verglas as vg
from verglas import _cuda_arrays, _native, ops

from conftest import ROOT

ROW = [[15000, 15000, 0, 300, 2.7, 0.1, 0, 0, 1]]


@pytest.fixture
def cuda_module() -> Path:
    """The built module; VERGLAS_REQUIRE_CUDA_BUILD=1 (set where nvcc is) turns its absence into a failure."""
    spec = importlib.util.find_spec("verglas._cuda")
    if spec is None or spec.origin is None:
        if os.environ.get("VERGLAS_REQUIRE_CUDA_BUILD") == "1":
            pytest.fail("the CUDA module was not built (VERGLAS_REQUIRE_CUDA_BUILD=1)")
        pytest.skip("built without nvcc")
    return Path(spec.origin)


def test_architectures_of_the_module(cuda_module):
    spec = importlib.util.spec_from_file_location("check_cuda", ROOT / "tools" / "check_cuda.py")
    check_cuda = importlib.util.module_from_spec(spec)
    sys.modules["check_cuda"] = check_cuda  # dataclasses look their module up
    spec.loader.exec_module(check_cuda)
    cuobjdump = check_cuda.find_cuobjdump()
    if cuobjdump is None:
        pytest.skip("no cuobjdump (pip install nvidia-cuda-cuobjdump)")
    found = check_cuda.architectures(cuda_module, cuobjdump)
    assert found == {"sm_80", "sm_90", "compute_90"}
    assert set(_native.load_cuda().state()["architectures"]) == found
    assert check_cuda.dynamic_cuda_libraries(cuda_module) == []


def test_state_says_what_there_is(cuda_module):
    state = _native.load_cuda().state()
    assert set(state) == {"driver", "runtime", "architectures", "devices", "reason"}
    assert state["runtime"].split(".")[0].isdigit()
    if state["devices"]:
        assert state["reason"] is None
        assert {"name", "compute_capability", "memory_bytes"} <= set(state["devices"][0])
    else:
        assert "driver" in state["reason"]
        assert vg.devices() == ["cpu"]


def test_import_verglas_loads_no_cuda():
    code = "import sys, verglas as vg; vg.ops.ctf; vg.fourier; assert not {'verglas._cuda', 'cupy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("device", ["cuda:x", "cuda:-1", "gpu", "CPU", "cuda:0:1", ""])
def test_a_name_that_is_no_device(device):
    with pytest.raises(vg.DeviceError, match=r"expected 'cpu' or 'cuda:<number>'"):
        ops.ctf(ROW, 8, 2.0, device=device)


def pretend(monkeypatch, devices: int, reason: str | None = None) -> types.SimpleNamespace:
    """A CUDA module that reports so many devices."""
    state = {"devices": [{"name": "pretended"}] * devices, "reason": reason}
    module = types.SimpleNamespace(state=lambda: state)
    monkeypatch.setattr(_native, "load_cuda", lambda: module)
    return module


def test_not_built(monkeypatch):
    monkeypatch.setattr(_native, "cuda_built", lambda: False)
    with pytest.raises(vg.DeviceError, match="built without CUDA"):
        ops.ctf(ROW, 8, 2.0, device="cuda:0")


def test_module_that_does_not_load(monkeypatch):
    monkeypatch.setattr(_native, "cuda_built", lambda: True)
    monkeypatch.setitem(sys.modules, "verglas._cuda", None)
    with pytest.raises(vg.DeviceError, match="does not load"):
        _native.load_cuda()


def test_no_driver(monkeypatch):
    pretend(monkeypatch, 0, "no NVIDIA driver is installed")
    with pytest.raises(vg.DeviceError, match="cuda:0: no NVIDIA driver"):
        ops.ctf(ROW, 8, 2.0, device="cuda:0")


def test_index_beyond_the_devices(monkeypatch):
    pretend(monkeypatch, 2)
    with pytest.raises(vg.DeviceError, match="cuda:2: this machine has cuda:0 to cuda:1"):
        ops.ctf(ROW, 8, 2.0, device="cuda:2")


def test_no_cupy(monkeypatch):
    pretend(monkeypatch, 1)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(vg.DeviceError, match=r"pip install 'verglas\[cuda\]'"):
        _cuda_arrays.session("cuda:0")


class HostArray:
    """NumPy memory behind __cuda_array_interface__: the bindings' checks read it, no kernel may."""

    def __init__(self, array: np.ndarray, **changes: object) -> None:
        face = {"shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False), "version": 3}
        self.__cuda_array_interface__ = face | changes


@pytest.mark.parametrize(
    ("params", "out", "words"),
    [
        (np.zeros((2, 14)), HostArray(np.zeros((2, 8, 5), "f4")), "params: .* got ndarray"),
        (HostArray(np.zeros((2, 8))), HostArray(np.zeros((2, 8, 5), "f4")), r"params: .*\(any, 14\)"),
        (HostArray(np.zeros((2, 14), "f4")), HostArray(np.zeros((2, 8, 5), "f4")), "params: .*float64"),
        (HostArray(np.zeros((2, 14)), strides=(8, 16)), HostArray(np.zeros((2, 8, 5), "f4")), "strided"),
        (HostArray(np.zeros((2, 14))), HostArray(np.zeros((2, 8, 4), "f4")), r"out: .*\(2, 8, 5\)"),
        (HostArray(np.zeros((2, 14))), HostArray(np.zeros((2, 8, 5), "f4"), data=(16, True)), "out: .*read-only"),
    ],
)
def test_device_arrays_are_checked(cuda_module, params, out, words):
    with pytest.raises(ValueError, match=words):
        _native.load_cuda().ctf(params, 8, 2.0, out, 0)


def test_a_failed_cuda_call_is_a_device_error(cuda_module):
    if _native.load_cuda().state()["devices"]:
        pytest.skip("a device is there: the launch would not fail")
    arrays = HostArray(np.zeros((2, 14))), HostArray(np.zeros((2, 8, 5), "f4"))
    with pytest.raises(vg.DeviceError, match=r"cuda/ctf.cu:\d+: cudaError\w+ \(.+\)"):
        _native.load_cuda().ctf(arrays[0], 8, 2.0, arrays[1], 0)
