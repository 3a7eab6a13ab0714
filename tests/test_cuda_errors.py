"""What verglas says when a GPU cannot be used: each reason one sentence, with what to do."""

from __future__ import annotations

import types
from contextlib import contextmanager

import pytest

import verglas as vg
from verglas import _cuda_arrays, _devices, _native
from verglas.errors import DeviceMemoryError
from verglas.run import doctor

HELD = ["sm_80", "sm_90", "compute_90"]


class FakeOutOfMemoryError(MemoryError):
    """As CuPy's."""


class FakeRuntimeError(RuntimeError):
    """As CuPy's, with the number of CUDA's error."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}")
        self.status = status


def fake_cupy() -> types.SimpleNamespace:
    @contextmanager
    def device(index):
        yield

    cuda = types.SimpleNamespace(
        Device=device,
        get_current_stream=lambda: types.SimpleNamespace(ptr=7),
        memory=types.SimpleNamespace(OutOfMemoryError=FakeOutOfMemoryError),
        runtime=types.SimpleNamespace(CUDARuntimeError=FakeRuntimeError),
        driver=types.SimpleNamespace(CUDADriverError=FakeRuntimeError),
    )
    return types.SimpleNamespace(cuda=cuda)


@pytest.fixture
def machine(monkeypatch):
    """Call with compute capabilities: a machine with these GPUs."""

    def made(*capabilities: str) -> types.SimpleNamespace:
        devices = [
            {"name": f"GPU {c}", "compute_capability": c, "memory_bytes": 80_000_000_000, "serial": i}
            for i, c in enumerate(capabilities)
        ]
        state = {"driver": "13.0", "runtime": "13.0", "architectures": HELD, "devices": devices, "reason": None}
        module = types.SimpleNamespace(
            state=lambda: state,
            advice=lambda code: f"advice {code}",
            memory=lambda i: (60 * 10**9, 80 * 10**9),
            free=60 * 10**9,
        )
        monkeypatch.setattr(_native, "load_cuda", lambda: module)
        monkeypatch.setattr(_native, "cuda_built", lambda: True)
        monkeypatch.setattr(_cuda_arrays, "_import_cupy", fake_cupy)
        return module

    return made


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("cpu", ["cpu"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:1,cuda:0", ["cuda:1", "cuda:0"]),
        ("cuda", ["cuda:0", "cuda:1"]),
        ("cuda:0, cuda:1", ["cuda:0", "cuda:1"]),
    ],
)
def test_names_of_devices(machine, device, names):
    machine("9.0", "8.6")
    assert _devices.device_names(device) == names


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda:2", "cuda:2: this machine has cuda:0 to cuda:1"),
        ("cuda:0,cuda:0", "names a GPU twice"),
        ("cpu,cuda:0", "the CPU does not share its work"),
        ("gpu", r"device 'gpu': expected 'cpu' or 'cuda:<number>', for example 'cuda:0'"),
        ("cuda:0;cuda:1", "expected 'cpu' or 'cuda:<number>'"),
        ("", "expected 'cpu' or 'cuda:<number>'"),
    ],
)
def test_names_that_are_none(machine, device, words):
    machine("9.0", "9.0")
    with pytest.raises(vg.DeviceError, match=words):
        _devices.device_names(device)


def test_no_kernel_image_is_said_before_a_kernel_fails(machine):
    machine("7.5", "10.0")
    words = "cuda:0: GPU 7.5 has compute capability 7.5, this build holds code for sm_80, sm_90, compute_90 only; .*=75"
    with pytest.raises(vg.DeviceError, match=words):
        _devices.device_names("cuda:0")
    assert _devices.device_names("cuda:1") == ["cuda:1"]  # compute_90 is compiled for it by the driver


@pytest.mark.parametrize(
    ("capability", "by"),
    [
        ("8.0", "sm_80"),
        ("8.9", "sm_80"),
        ("9.0", "sm_90"),
        ("10.3", "compute_90"),
        ("12.0", "compute_90"),
        ("7.5", None),
        ("6.1", None),
    ],
)
def test_served_by(capability, by):
    assert _cuda_arrays.architecture_for(HELD, capability) == by


def test_out_of_memory(machine):
    machine("9.0")
    cuda = _cuda_arrays.session("cuda:0")
    words = "cuda:0: out of memory: 5 GB asked for; work on fewer images at a time .*--memory"
    with pytest.raises(DeviceMemoryError, match=words), cuda.active():
        raise FakeOutOfMemoryError("5 GB asked for")


def test_an_error_of_cuda_comes_with_advice(machine):
    machine("9.0")
    cuda = _cuda_arrays.session("cuda:0")
    with pytest.raises(vg.DeviceError, match="cuda:0: cudaError 35; advice 35"), cuda.active():
        raise FakeRuntimeError(35)
    with pytest.raises(ValueError, match="mine"), cuda.active():
        raise ValueError("mine")  # what is no fault of the device stays as it is


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, "too little free memory; work on fewer images"),
        (35, "driver is too old .* update the driver"),
        (100, "no such GPU .* CUDA_VISIBLE_DEVICES"),
        (209, "no code for this GPU; install .*CUDA_ARCHITECTURES"),
        (222, "driver is too old"),
        (46, "another program holds this GPU"),
        (803, "different versions; restart"),
        (802, "nvidia-fabricmanager"),
        (214, "fault of its hardware"),
        (700, "start again .* report this line"),
        (1, "please report this line"),
    ],
)
def test_advice_of_the_module(code, words):
    if not _native.cuda_built():
        pytest.skip("built without nvcc")
    import re

    assert re.search(words, _native.load_cuda().advice(code))


def test_memory_of_a_device_that_is_not_there():
    if not _native.cuda_built() or _native.load_cuda().state()["devices"]:
        pytest.skip("built without nvcc, or there is a GPU")
    with pytest.raises(vg.DeviceError, match=r"cudaError\w+ \(.+\); .*(driver|GPU)"):
        _native.load_cuda().memory(0)


def test_doctor_on_gpus(machine, monkeypatch):
    module = machine("9.0", "7.5", "8.6")
    memory = {0: (120 * 10**9, 150 * 10**9), 2: (10**9, 48 * 10**9)}
    module.memory = memory.__getitem__
    monkeypatch.setattr(doctor, "_KERNELS", {})
    found = {check.name: check for check in doctor.doctor()}
    assert "built for sm_80, sm_90, compute_90; driver of CUDA 13.0, runtime 13.0; 3 GPUs" in found["cuda"].detail
    first, second, third = (found[f"cuda:{i}"] for i in range(3))
    assert first.status == "ok"
    assert first.detail == "GPU 9.0, compute capability 9.0, served by sm_90; 120.0 of 150.0 GB free"
    assert second.status == "failed"
    assert "no code for it" in second.detail
    assert "ARCHITECTURES=75" in second.remedy
    assert third.status == "note"
    assert "1.0 of 48.0 GB free" in third.detail
