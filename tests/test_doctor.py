"""verglas doctor: sound here, and it notices what it is there to notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from verglas import _native, fourier, ops
from verglas.errors import DeviceError
from verglas.run import doctor


def failed(checks: list[doctor.Check]) -> list[str]:
    return [check.name for check in checks if check.status == "failed"]


def test_this_installation_is_sound():
    checks = doctor.doctor()
    assert failed(checks) == []
    names = {check.name for check in checks}
    assert {"core", "threads", "files", "fft", "cuda", "ctf on cpu", "project on cpu", "insert on cpu"} <= names


def test_json_and_exit_status(run):
    status, out, _ = run("doctor", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["ok"] is True
    assert all(set(row) == {"name", "status", "detail", "remedy"} for row in found["checks"])


def test_exit_status_when_broken(tmp_path, monkeypatch, run):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    status, out, _ = run("doctor")
    assert status == 1
    assert "failed   temporary folder: cannot write" in out
    assert "-> point TMPDIR at" in out
    assert "checks failed" in out


def wrong(function, change):
    """The same function with its result spoiled."""
    return lambda *args, **kwargs: change(function(*args, **kwargs))


@pytest.mark.parametrize(
    ("module", "name", "change", "finds"),
    [
        (ops, "ctf", lambda x: -x, ["ctf on cpu"]),
        (ops, "ctf", lambda x: x * np.nan, ["ctf on cpu"]),
        (ops, "project", lambda x: x * 1.002, ["project on cpu", "insert on cpu"]),
        (ops, "fold", lambda x: None, []),
        (fourier, "inverse", lambda x: x[..., ::-1], ["fft"]),
    ],
)
def test_a_wrong_kernel_is_noticed(monkeypatch, module, name, change, finds):
    monkeypatch.setattr(module, name, wrong(getattr(module, name), change))
    assert [f for f in failed(doctor.doctor()) if f != "insert on cpu"] == [f for f in finds if f != "insert on cpu"]


def test_insertion_that_is_not_the_adjoint(monkeypatch):
    insert = ops.insert
    monkeypatch.setattr(ops, "insert", lambda s, x, m, **k: insert(s, x * np.float32(1.001), m, **k))
    assert failed(doctor.doctor()) == ["insert on cpu"]


def test_a_kernel_that_raises(monkeypatch):
    def broken(*args, **kwargs):
        raise DeviceError("out of order")

    monkeypatch.setattr(ops, "ctf", broken)
    [check] = [c for c in doctor.doctor() if c.status == "failed"]
    assert (check.name, check.detail) == ("ctf on cpu", "out of order")


def test_core_of_another_version(monkeypatch):
    monkeypatch.setattr(doctor, "__version__", "99.0")
    [check] = [c for c in doctor.doctor() if c.status == "failed"]
    assert check.name == "core"
    assert "99.0" in check.detail
    assert "install verglas again" in check.remedy


def test_fewer_threads_than_asked_for(monkeypatch):
    monkeypatch.setattr(_native, "default_threads", lambda: 3)
    monkeypatch.setattr(doctor, "_processor_quota", lambda: 1.0)
    [check] = [c for c in doctor.doctor() if c.name == "threads"]
    assert check.status == "note"
    assert "threads=1" in check.remedy


def test_threads_that_openmp_starts():
    assert _native.core.threads_used(1) == 1
    assert _native.core.threads_used(2) == 2
    with pytest.raises(ValueError, match="num_threads"):
        _native.core.threads_used(0)


def test_a_thread_limit_is_named():
    code = "from verglas.run import doctor; print(doctor._run('threads', doctor._threads))"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["OMP_THREAD_LIMIT"] = "1"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if (os.cpu_count() or 1) > 1:
        assert "OMP_THREAD_LIMIT" in done.stdout


def test_temporary_folder_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    found = {c.name: c for c in doctor.doctor()}
    assert found["temporary folder"].status == "failed"
    assert "TMPDIR" in found["temporary folder"].remedy


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({"built": False, "reason": "built without CUDA", "devices": []}, "skipped"),
        ({"built": True, "architectures": ["sm_80"], "driver": None, "reason": "no driver", "devices": []}, "skipped"),
        ({"built": True, "architectures": ["sm_80"], "driver": "12.0", "reason": "too old", "devices": []}, "failed"),
        ({"built": True, "reason": "does not load", "devices": []}, "failed"),
    ],
)
def test_cuda_states(monkeypatch, state, status):
    monkeypatch.setattr(doctor, "_cuda_state", lambda: state)
    [check] = [c for c in doctor.doctor() if c.name == "cuda"]
    assert check.status == status
    assert state["reason"] in check.detail
